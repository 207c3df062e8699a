"""What the site knows of a VTN, and keeps in a file so that a restart forgets no cap.

The file holds the events as heard, when each was first heard, the seed of the random starts, and
the boot id of this machine at the last whole answer. Another boot id means that the power was gone
meanwhile; a file that is damaged or missing counts as that. Events that were called off or are over
stay for a day, for those who settle, and so do their programs though they are listed no longer:
the commitment is by program, and the units are its own.
"""

import os
import random
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wattshift_cluster.grid.openadr.failures import VtnNonsense
from wattshift_cluster.grid.openadr.times import DAY_S, TimeInvalid, lay_out, parse_start
from wattshift_cluster.grid.openadr.words import Event, Program

MAX_EVENTS = 1_000
MAX_BYTES = 64 * 1024 * 1024
MAX_SENT = 10_000
KEEP_CANCELLED_S = DAY_S


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as heard.

    Attributes:
        event: its newest version that could be read.
        first_s: when it was first heard, unix time, s.
        before: the version that a whole answer held, until one holds the newest; None as a rule.
        confirmed: whether a whole answer held this version, or a notice alone told of it.
        cancelled_s: when it was called off, unix time, s; None while it stands.
        fault: why a newer version than this could not be read; None as a rule.
    """

    event: Event
    first_s: float
    before: Event | None = None
    confirmed: bool = True
    cancelled_s: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of one VTN.

    Attributes:
        heard: events by id.
        programs: programs by id, as the last whole answer held them.
        past: programs by id that are listed no longer, of which an event is known still.
        asked_s: last whole answer, unix time, s; 0: none yet.
        boot: boot id at that time; empty: none yet, or the grid's power was lost since.
        seed: of the random starts.
        groups: targets that the VTN has given this site.
        sent: reports sent, by event and descriptor.
    """

    heard: Mapping[str, Heard] = field(default_factory=dict)
    programs: Mapping[str, Program] = field(default_factory=dict)
    asked_s: float = 0.0
    boot: str = ""
    seed: str = ""
    groups: frozenset[str] = frozenset()
    sent: Mapping[str, int] = field(default_factory=dict)
    past: Mapping[str, Program] = field(default_factory=dict)

    def program(self, program_id: str) -> Program | None:
        """A program, also one that is listed no longer; None: the VTN has never told of it."""
        return self.programs.get(program_id) or self.past.get(program_id)

    def draw(self, event_id: str, place: int) -> float:
        """The random draw of an event's interval (-1: of the event), -1 to 1, always the same."""
        return random.Random(f"{self.seed}/{event_id}/{place}").uniform(-1.0, 1.0)


Fault = Callable[[Event, float], str | None]
"""Event and when it was first heard -> why it cannot be taken; None: it can."""


def answered(
    known: Known,
    events: Iterable[Event],
    programs: Iterable[Program],
    fault: Fault,
    boot: str,
    now_s: float,
) -> Known:
    """After a whole, valid answer: what it does not hold is gone, what it holds is confirmed.

    Events that were over a day ago are left out: some VTNs list every event there ever was.

    Raises:
        VtnNonsense: more events than MAX_EVENTS are left; none of them is believed, because to
            take some and leave others would take caps back.
    """
    listed = {event.id: event for event in events}
    crowded = len(listed) > MAX_EVENTS // 2
    heard: dict[str, Heard] = {}
    for one in listed.values():
        old = known.heard.get(one.id)
        if (old is None or crowded) and _long_over(one, old, known, now_s):
            continue
        heard[one.id] = _confirmed(old, one, fault, now_s)
    if len(heard) > MAX_EVENTS:
        raise VtnNonsense(f"events: more than {MAX_EVENTS} that are not over")
    for name, old in known.heard.items():
        if name not in listed and (gone := _gone(old, known, now_s)) is not None:
            heard[name] = gone
    sent = {key: count for key, count in known.sent.items() if key.split("/")[0] in heard}
    heard = _bounded(heard)
    listed_programs = {program.id: program for program in programs}
    return replace(
        known,
        heard=heard,
        programs=listed_programs,
        past=_past(known, heard, listed_programs),
        asked_s=now_s,
        boot=boot,
        sent=dict(list(sent.items())[-MAX_SENT:]),
    )


def noticed(known: Known, event: Event, now_s: float) -> Known:
    """After a notice of an event: it holds at once, beside what is known, until a poll confirms.

    A version older than the known one (a notice that was held back or replayed) changes nothing,
    and neither does one that cannot be read.
    """
    old = known.heard.get(event.id)
    if event.unreadable is not None or (old is not None and _older(event, old.event)):
        return known
    if old is None or old.cancelled_s is not None:
        if len(known.heard) >= MAX_EVENTS:
            return known
        newest = Heard(event, now_s, confirmed=False)
    else:
        before = old.event if old.confirmed else old.before
        newest = Heard(event, old.first_s, before, confirmed=False)
    return replace(known, heard={**known.heard, event.id: newest})


def _past(
    known: Known, heard: Mapping[str, Heard], listed: Mapping[str, Program]
) -> dict[str, Program]:
    """Programs that events speak of and the VTN lists no longer; at most one for each event."""
    wanted = dict.fromkeys(one.event.program_id for one in heard.values())
    found = {name: known.program(name) for name in wanted if name not in listed}
    return {name: program for name, program in found.items() if program is not None}


def counted(known: Known, key: str, count: int) -> Known:
    """After a report was sent for the `count`th time."""
    return replace(known, sent={**known.sent, key: count})


def _long_over(event: Event, old: Heard | None, known: Known, now_s: float) -> bool:
    first_s = now_s if old is None else old.first_s
    with suppress(TimeInvalid):
        ends_s = lay_out(event, first_s, partial(known.draw, event.id), now_s).ends_s
        return ends_s is not None and now_s - ends_s >= KEEP_CANCELLED_S
    return False


def _gone(old: Heard, known: Known, now_s: float) -> Heard | None:
    """An event that is listed no longer: called off, unless it was over; None: forgotten."""
    if old.cancelled_s is not None:
        return old if now_s - old.cancelled_s < KEEP_CANCELLED_S else None
    if not old.confirmed and old.before is None:
        return None
    event = old.before or old.event
    try:
        laid = lay_out(event, old.first_s, partial(known.draw, event.id), now_s)
    except TimeInvalid:
        return None
    if laid.ends_s is not None and laid.ends_s <= now_s:
        kept = now_s - laid.ends_s < KEEP_CANCELLED_S
        return Heard(event, old.first_s) if kept else None
    return Heard(event, old.first_s, cancelled_s=now_s)


def _confirmed(old: Heard | None, event: Event, fault: Fault, now_s: float) -> Heard:
    if old is not None and old == Heard(event, old.first_s):
        return old
    first_s = now_s if old is None or old.cancelled_s is not None else old.first_s
    if event.unreadable is None and _called_off(event, first_s, now_s):
        gone_s = now_s if old is None or old.cancelled_s is None else old.cancelled_s
        body = event if old is None else old.before or old.event
        return Heard(body, now_s if old is None else old.first_s, cancelled_s=gone_s)
    if old is None or old.cancelled_s is not None:
        return Heard(event, first_s)
    good = old.before or old.event
    why = None if event == good else fault(event, first_s)
    if why is not None:
        # What it asked before goes on to hold: a broken update must not take a cap back.
        return replace(old, event=good, before=None, confirmed=True, fault=why)
    return Heard(event, first_s)


def _called_off(event: Event, first_s: float, now_s: float) -> bool:
    with suppress(TimeInvalid):
        return lay_out(event, first_s, lambda place: 0.0, now_s).called_off
    return False


def _older(event: Event, than: Event) -> bool:
    """Whether a version is older by the VTN's own stamps; without stamps it is not."""
    with suppress(TimeInvalid):
        mine_s, theirs_s = parse_start(event.modified or ""), parse_start(than.modified or "")
        return mine_s is not None and theirs_s is not None and mine_s < theirs_s
    return False


def _bounded(heard: dict[str, Heard]) -> dict[str, Heard]:
    """At most MAX_EVENTS; those that were called off go first, the oldest of them before others."""
    if len(heard) <= MAX_EVENTS:
        return heard
    ranked = sorted(
        heard.items(),
        key=lambda pair: (pair[1].cancelled_s is not None, -(pair[1].cancelled_s or 0.0)),
    )
    return dict(ranked[:MAX_EVENTS])


class _KeptEvent(BaseModel):
    model_config = ConfigDict(extra="forbid")

    event: Event
    first_s: float
    before: Event | None = None
    confirmed: bool = True
    cancelled_s: float | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    version: int = Field(1, ge=1, le=1)
    boot: str
    seed: Annotated[str, Field(min_length=1)]
    asked_s: float
    events: Annotated[list[_KeptEvent], Field(max_length=MAX_EVENTS)]
    programs: Annotated[list[Program], Field(max_length=MAX_EVENTS)]
    past: Annotated[list[Program], Field(max_length=MAX_EVENTS)] = []
    groups: list[str] = []
    sent: dict[str, int]


class KeptFile:
    """The file, written whole or not at all, readable by its owner alone."""

    def __init__(self, path: Path, new_seed: Callable[[], str] = lambda: secrets.token_hex(16)):
        self.path = path
        self._new_seed = new_seed

    def read(self) -> tuple[Known, str | None]:
        """What was kept, and why nothing could be read; then it is as after a power outage."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            kept = _File.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return Known(seed=self._new_seed()), None
        except (OSError, ValidationError, ValueError) as wrong:
            reason = "damaged" if isinstance(wrong, ValidationError) else str(wrong)
            return Known(seed=self._new_seed()), f"{self.path.name} cannot be read: {reason}"
        heard = {
            one.event.id: Heard(one.event, one.first_s, one.before, one.confirmed, one.cancelled_s)
            for one in kept.events
        }
        programs = {program.id: program for program in kept.programs}
        past = {program.id: program for program in kept.past}
        groups = frozenset(kept.groups)
        return Known(
            heard, programs, kept.asked_s, kept.boot, kept.seed, groups, kept.sent, past
        ), None

    def write(self, known: Known) -> None:
        """Replace the file. Raises: OSError."""
        body = _File(
            version=1,
            boot=known.boot,
            seed=known.seed,
            asked_s=known.asked_s,
            events=[
                _KeptEvent(
                    event=one.event,
                    first_s=one.first_s,
                    before=one.before,
                    confirmed=one.confirmed,
                    cancelled_s=one.cancelled_s,
                )
                for one in known.heard.values()
                if one.event.unreadable is None
            ],
            programs=list(known.programs.values()),
            past=list(known.past.values()),
            groups=sorted(known.groups),
            sent=dict(known.sent),
        ).model_dump_json(by_alias=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp makes the file 0600; a rename on the same disk is whole or not at all.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as made:
                made.write(body)
                made.flush()
                os.fsync(made.fileno())
            os.replace(name, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
