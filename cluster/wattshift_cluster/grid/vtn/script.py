"""A script that plays the utility: programs, events and silence, each at its time.

YAML or JSON, a list of steps in the order of their times:

    - {after: 0s, program: {programName: curtailment}}
    - {after: 0s, ven: {venName: my-site, clientID: site, targets: [north]}}
    - after: 5s
      event:
        eventName: cut
        programID: curtailment           # a program by its name
        intervalPeriod: {start: now+10s, duration: PT30S}
        payloadDescriptors: [{payloadType: IMPORT_CAPACITY_LIMIT, units: KW}]
        intervals: [{id: 0, payloads: [{type: IMPORT_CAPACITY_LIMIT, values: [9]}]}]
    - {after: 20s, delete: cut}          # an event by its name
    - {after: 30s, silent: 15s}          # the VTN answers nobody for so long

An event whose name is known replaces that one. A start of `now` with an offset is told as the time
that it then is. What the schema wants and a script need not say (objectType, id) is filled in.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import structlog
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from wattshift_cluster.config.quantities import parse_seconds
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.words import ObjectType
from wattshift_cluster.grid.vtn.problems import Problem
from wattshift_cluster.grid.vtn.server import LoopbackVtn

MAX_STEPS = 1_000
MAX_FILE_BYTES = 1 << 20
LONGEST_S = 7 * 86_400.0
_NOW = re.compile(r"now(?:\+(\S+))?")

log = structlog.get_logger()

Span = Annotated[float, BeforeValidator(parse_seconds), Field(ge=0, le=LONGEST_S)]
Body = dict[str, Any]


class Step(BaseModel):
    """One step; exactly one of its deeds is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    after: Span
    program: Body | None = None
    event: Body | None = None
    ven: Body | None = None
    delete: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    silent: Span | None = None

    def model_post_init(self, context: object) -> None:
        """Raises ValueError where a step does nothing, or two things."""
        deeds = (self.program, self.event, self.ven, self.delete, self.silent)
        if sum(deed is not None for deed in deeds) != 1:
            raise ValueError("wanted one of program, event, ven, delete, silent")


def read_script(file: Path) -> tuple[Step, ...]:
    """The steps of a file. Raises ConfigInvalid."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        bounded = Annotated[tuple[Step, ...], Field(max_length=MAX_STEPS)]
        steps: tuple[Step, ...] = TypeAdapter(bounded).validate_python(yaml.safe_load(data) or [])
    except ValidationError as wrong:
        faults = [
            Fault(str(file), ".".join(str(part) for part in one["loc"]), None, one["msg"])
            for one in wrong.errors(include_input=False, include_url=False)
        ]
        raise ConfigInvalid(faults) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as fault:
        raise ConfigInvalid([Fault(str(file), "", None, str(fault))]) from None
    if any(later.after < earlier.after for earlier, later in pairwise(steps)):
        raise ConfigInvalid([Fault(str(file), "after", None, "steps stand in their order")])
    return steps


async def play(steps: tuple[Step, ...], vtn: LoopbackVtn) -> None:
    """Do every step at its time, counted from now. A step that is refused is told and passed."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number, step in enumerate(steps):
        await asyncio.sleep(max(0.0, began_s + step.after - loop.time()))
        try:
            await _do(step, vtn)
        except Problem as no:
            log.warning("vtn_step_refused", step=number, status=no.status.value, why=no.detail)


async def _do(step: Step, vtn: LoopbackVtn) -> None:
    if step.silent is not None:
        await vtn.be_silent(step.silent)
    elif step.program is not None:
        await vtn.post(ObjectType.PROGRAM, _described(_timed(step.program)))
    elif step.ven is not None:
        await vtn.post(ObjectType.VEN, {"objectType": "BL_VEN_REQUEST", **step.ven})
    elif step.event is not None:
        body = _event(step.event, vtn)
        known = _named(vtn, ObjectType.EVENT, "eventName", body.get("eventName"))
        if known is None:
            await vtn.post(ObjectType.EVENT, body)
        else:
            await vtn.put(ObjectType.EVENT, known, body)
    else:
        gone = _named(vtn, ObjectType.EVENT, "eventName", step.delete)
        if gone is None:
            log.warning("vtn_step_refused", why="no event has that name")
        else:
            vtn.delete(ObjectType.EVENT, gone)


def _named(vtn: LoopbackVtn, kind: ObjectType, key: str, name: object) -> str | None:
    found = [row["id"] for row in vtn.objects(kind) if name is not None and row.get(key) == name]
    return found[-1] if found else None


def _event(told: Body, vtn: LoopbackVtn) -> Body:
    """The event that a step means now."""
    body = _timed(told)
    assert isinstance(body, dict), "a table stays one"
    program = _named(vtn, ObjectType.PROGRAM, "programName", body.get("programID"))
    if program is not None:
        body["programID"] = program
    return _described(body)


def _described(body: Body) -> Body:
    """The same, with the kind of its descriptors filled in."""
    told = body.get("payloadDescriptors")
    for one in told if isinstance(told, list) else ():
        if isinstance(one, dict):
            one.setdefault("objectType", "EVENT_PAYLOAD_DESCRIPTOR")
    return body


def _timed(part: Any) -> Any:
    """A copy in which each start that is told from now is a time."""
    if isinstance(part, list):
        return [_timed(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {key: _timed(value) for key, value in part.items()}
    start = made.get("start")
    match = _NOW.fullmatch(start) if isinstance(start, str) else None
    if match is not None:
        later = timedelta(seconds=parse_seconds(match[1] or "0s"))
        made["start"] = (datetime.now(UTC) + later).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    elif isinstance(start, datetime):
        # YAML reads an unquoted time itself.
        made["start"] = (start if start.tzinfo else start.replace(tzinfo=UTC)).isoformat()
    return made
