"""Job files and job bodies: one set of models for the API, the CLI and `wattshift submit FILE`.

A job is written with the keys below, each quantity a number in its base unit or text with a unit.
`to_spec` turns it into what the controller keeps: the same keys with units in their names.

    kind: batch                      kind: service                   kind: mining
    name: embed-corpus               name: embed                     name: soak
    callable: pkg.mod:function       import_path: pkg.mod:app        devices: ["*"]
    input: items.jsonl               watts_per_replica: 60W
    output: out/                     min_replicas: 1
    watts: 60W                       max_replicas: 3
    value: 0.5        (USD/h)        slo_p95: 500ms
    deadline: 2h  (or a UTC time)    value: 2.0        (USD/h of one replica)
    chunk_items: 64
"""

import json
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic import TypeAdapter as Adapter

from wattshift_cluster.config.fields import ImportPath, Name, Section, seconds, usd, watts, whole
from wattshift_cluster.config.quantities import parse_seconds
from wattshift_cluster.errors import ConfigInvalid, Fault

WATTS_MAX_W = 10e6
REPLICAS_MAX = 1000
CHUNK_ITEMS_MAX = 100_000
VALUE_MAX_USD_PER_H = 1e6
DEADLINE_MAX_S = 366 * 86400.0


def _moment(value: object) -> float | None:
    """Return a Unix time in s from a duration counted from now, or an RFC 3339 time with zone."""
    if value is None:
        return None
    try:
        at_s = absolute_s(value)
        if at_s is None:
            at_s = time.time() + parse_seconds(value)
    except ValueError as wrong:
        allowed = "a duration such as 2h, or a time such as 2026-12-01T18:00:00Z"
        raise ValueError(f"{wrong}; allowed: {allowed}") from None
    ahead_s = at_s - time.time()
    if not 0 < ahead_s <= DEADLINE_MAX_S:
        raise ValueError("out of range; allowed: later than now and within 366 days")
    return at_s


def absolute_s(value: object) -> float | None:
    """Return an RFC 3339 text or a datetime as a Unix time in s; None if it is neither."""
    moment = value
    if isinstance(value, str) and re.match(r"\s*\d{4}-", value):
        moment = datetime.fromisoformat(value.strip())
    if not isinstance(moment, datetime):
        return None
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()


Moment = Annotated[float | None, BeforeValidator(_moment)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
UsdPerHour = Annotated[float, usd(0, VALUE_MAX_USD_PER_H)]


class BatchJob(Section):
    """A callable over the lines of a JSONL file, in chunks that survive a restart."""

    kind: Literal["batch"] = "batch"
    name: Name
    callable: ImportPath
    input: PathText
    output: PathText
    watts: Annotated[float, watts(1.0, WATTS_MAX_W)]
    value: UsdPerHour = 0.0
    deadline: Moment = None
    chunk_items: Annotated[int, whole(1, CHUNK_ITEMS_MAX)] = 64

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        return {
            "kind": self.kind,
            "name": self.name,
            "callable": self.callable,
            "input": self.input,
            "output": self.output,
            "watts_w": self.watts,
            "value_usd_per_h": self.value,
            "deadline_at_s": self.deadline,
            "chunk_items": self.chunk_items,
        }


class ServiceJob(Section):
    """A Ray Serve application that is scaled within the site's watts."""

    kind: Literal["service"] = "service"
    name: Name
    import_path: ImportPath
    watts_per_replica: Annotated[float, watts(1.0, WATTS_MAX_W)]
    min_replicas: Annotated[int, whole(0, REPLICAS_MAX)] = 1
    max_replicas: Annotated[int, whole(1, REPLICAS_MAX)] = 1
    slo_p95: Annotated[float, seconds(0.001, 600.0)] | None = None
    value: UsdPerHour = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> "ServiceJob":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas};"
                f" allowed: 0 to {self.max_replicas}"
            )
        return self

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        slo_ms = None if self.slo_p95 is None else self.slo_p95 * 1000.0
        return {
            "kind": self.kind,
            "name": self.name,
            "import_path": self.import_path,
            "watts_per_replica_w": self.watts_per_replica,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "slo_p95_ms": slo_ms,
            "value_usd_per_h": self.value,
        }


class MiningJob(Section):
    """A standing order to mine with every device whose id matches one of the patterns."""

    kind: Literal["mining"] = "mining"
    name: Name = "mining"
    devices: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(min_length=1, max_length=256),
    ]

    def to_spec(self) -> dict[str, Any]:
        """Return what the controller keeps."""
        return {"kind": self.kind, "name": self.name, "devices": list(self.devices)}


AnyJob: TypeAlias = Annotated[BatchJob | ServiceJob | MiningJob, Field(discriminator="kind")]
KINDS: Mapping[str, type[BatchJob | ServiceJob | MiningJob]] = {
    "batch": BatchJob,
    "service": ServiceJob,
    "mining": MiningJob,
}


def parse_job(raw: object, source: str) -> BatchJob | ServiceJob | MiningJob:
    """Return the job that `raw` describes.

    Args:
        raw: keys and values as written.
        source: where it comes from, for the error ("job.yaml", "command line", "body").

    Raises:
        ConfigInvalid: with one fault per wrong key or value.
    """
    if not isinstance(raw, dict):
        raise ConfigInvalid(
            [Fault(source, "", None, "must be a table of keys, not a list or text")]
        )
    kind = raw.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        allowed = f"allowed: {', '.join(KINDS)}"
        raise ConfigInvalid([Fault(source, "kind", short(kind), f"not a kind of job; {allowed}")])
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigInvalid(faults(error, source, tuple(model.model_fields))) from None


def faults(error: ValidationError, source: str, known: tuple[str, ...]) -> list[Fault]:
    """Return one fault per error that pydantic found."""
    found = []
    for entry in error.errors():
        path = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]
        )
        message = entry["msg"].removeprefix("Value error, ")
        value = short(entry["input"])
        if entry["type"] == "extra_forbidden":
            message = f"unknown key; allowed: {', '.join(known)}"
        elif entry["type"] == "missing":
            message, value = "missing; a value is required", None
        elif isinstance(entry["input"], dict):
            value = None
        found.append(Fault(source, path.removeprefix("."), value, message))
    return found


def short(value: object) -> str | None:
    """Return a value as an error shows it; None if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job file."""
    adapter: Adapter[Any] = Adapter(AnyJob)
    return adapter.json_schema()
