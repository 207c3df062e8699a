"""From what events ask to the one word of the source: caps, targets, alerts, prices and events.

The lowest of overlapping caps holds whatever the priorities say, so that a mistake can only lower;
where two of one priority meet, which OpenADR leaves open, that is told.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wattshift_cluster.grid.openadr.asked import Asked, Terms
from wattshift_cluster.grid.openadr.capacity import capacity_caps
from wattshift_cluster.grid.openadr.kept import Heard, Known
from wattshift_cluster.grid.openadr.mapping import Read, named, read_heard
from wattshift_cluster.grid.openadr.meanings import Becomes
from wattshift_cluster.grid.openadr.timeline import cut, held
from wattshift_cluster.grid.openadr.words import Program
from wattshift_cluster.grid.said import Alert, AlertSaid, Said, Steps
from wattshift_scheduler.signals.words import Cap, CapKind, GridEvent, Target, Work

MAX_ASKED = 20_000
"""Of all events together; the earliest are kept, and beyond them the subscription holds."""
MAX_NOTES = 100
READ_AGAIN_S = 60.0
"""Intervals that repeat are laid out days ahead: a minute late is early enough."""
RELATIVE = "DISPATCH_SETPOINT_RELATIVE"


class Reads:
    """What events ask, read again only when an event, its program or the terms have changed.

    A day of prices for a hundred sites takes as long to read as a notice may take to be heeded.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def of(self, known: Known, terms: Terms, now_s: float) -> dict[str, Read]:
        """What each event asks, by its id."""
        fresh: dict[str, _Kept] = {}
        for name, heard in known.heard.items():
            program = known.program(heard.event.program_id)
            kept = self._kept.get(name)
            if kept is None or not kept.holds(heard, program, terms, now_s):
                read = read_heard(heard, program, terms, known.draw, now_s)
                kept = _Kept(heard, program, terms, now_s, read)
            fresh[name] = kept
        self._kept = fresh
        return {name: kept.read for name, kept in fresh.items()}


@dataclass(frozen=True, slots=True)
class _Kept:
    heard: Heard
    program: Program | None
    terms: Terms
    at_s: float
    read: Read

    def holds(self, heard: Heard, program: Program | None, terms: Terms, now_s: float) -> bool:
        same = heard is self.heard and terms is self.terms and program == self.program
        # What lies below a baseline is read anew: the baseline may become known.
        steady = not any(
            payload.type == RELATIVE
            for interval in heard.event.intervals
            for payload in interval.payloads
        )
        return same and steady and 0 <= now_s - self.at_s < READ_AGAIN_S


def say(
    known: Known,
    terms: Terms,
    now_s: float,
    *,
    outage: bool,
    fault: str | None = None,
    notes: Sequence[str] = (),
    reads_of: Callable[[Known, Terms, float], dict[str, Read]] | None = None,
) -> Said:
    """All that a VTN says now.

    Args:
        known: events as heard.
        terms: what the site has agreed.
        now_s: unix time, s.
        outage: whether the grid's power failed since the last whole answer.
        fault: why it was not heard lately.
        notes: what else people should know.
        reads_of: reads the events; None: anew.
    """
    reads = (reads_of or Reads().of)(known, terms, now_s)
    told = [*notes, *_faults(known), *(note for read in reads.values() for note in read.notes)]
    asked = sorted(
        (one for read in reads.values() for one in read.asked if not _over(one, now_s)),
        key=lambda one: one.starts_s,
    )
    if len(asked) > MAX_ASKED:
        told.append(f"only the first {MAX_ASKED} of {len(asked)} payloads are taken")
        asked = asked[:MAX_ASKED]
    if outage and known.asked_s:
        told.append("after a power outage limits do not count until the VTN has answered")
    capacity = capacity_caps(asked, terms.subscription_w, terms.source, outage=outage)
    told += _conflicts(asked, now_s)
    return Said(
        terms.source,
        known.asked_s,
        (*capacity, *_ladder_caps(asked, terms.source)),
        tuple(_targets(asked, terms.source)),
        tuple(_alerts(asked)),
        tuple(_events(known, reads, terms)),
        _series(asked, Becomes.PRICE, max, known.asked_s, now_s),
        _series(asked, Becomes.CARBON, max, known.asked_s, now_s),
        tuple(dict.fromkeys(told))[:MAX_NOTES],
        fault,
    )


def _over(one: Asked, now_s: float) -> bool:
    return one.ends_s is not None and one.ends_s <= now_s


def _faults(known: Known) -> Iterator[str]:
    for one in known.heard.values():
        if one.fault is not None:
            label = one.event.name or one.event.id
            yield f"event {label}: its newest version is refused, the last good one holds"
            yield f"event {label}: {one.fault}"


def _ladder_caps(asked: Iterable[Asked], origin: str) -> Iterator[Cap]:
    for one in asked:
        if one.becomes is Becomes.LEVEL:
            yield Cap(
                one.id,
                origin,
                one.amount,
                one.starts_s,
                one.ends_s,
                kind=CapKind.CONTRACT,
                priority=one.priority,
                name=one.label,
            )


def _targets(asked: Iterable[Asked], origin: str) -> Iterator[Target]:
    for one in asked:
        if one.becomes in (Becomes.TARGET, Becomes.SHED):
            # A baseline is the whole site's, and so is a set point below it.
            work = one.work if one.becomes is Becomes.TARGET else Work.ALL
            span = (one.starts_s, one.ends_s)
            yield Target(one.id, origin, one.amount, *span, one.priority, work, one.label)


def _alerts(asked: Iterable[Asked]) -> Iterator[AlertSaid]:
    for one in asked:
        if one.becomes in (Becomes.LEAST, Becomes.NOTICE):
            asks = Alert.LEAST if one.becomes is Becomes.LEAST else Alert.NOTICE
            yield AlertSaid(one.id, one.name, asks, one.text, one.starts_s, one.ends_s)


def _events(known: Known, reads: dict[str, Read], terms: Terms) -> Iterator[GridEvent]:
    for name, one in known.heard.items():
        read = reads[name]
        if read.starts_s is None or not read.settles:
            continue
        program = known.program(one.event.program_id)
        label = program.name if program is not None and program.name else one.event.program_id
        committed_w = read.shed_w or terms.commitments_w.get(label, math.nan)
        yield GridEvent(
            name,
            terms.source,
            label,
            one.first_s,
            read.starts_s,
            read.ends_s,
            committed_w,
            one.cancelled_s,
            named(one.event, program),
        )


def _series(
    asked: Iterable[Asked],
    becomes: Becomes,
    worst: Callable[[list[float]], float],
    told_s: float,
    now_s: float,
) -> Steps | None:
    """The run of values without a gap that holds now, or that comes next.

    Of several the highest priority holds, and among equals the worst.
    """
    mine = [one for one in asked if one.becomes is becomes]
    if not mine:
        return None
    times: list[float] = []
    values: list[float] = []
    ends_s = -math.inf
    for piece in cut(held(one.starts_s, one.ends_s, one) for one in mine):
        if piece.ends_s <= now_s:
            continue
        if not piece.items:
            if times:
                break
            continue
        first = min(one.priority for one in piece.items)
        value = worst([one.amount for one in piece.items if one.priority == first])
        if not values or value != values[-1]:
            times.append(piece.starts_s)
            values.append(value)
        ends_s = piece.ends_s
    if not times:
        return None
    return Steps(tuple(times), tuple(values), ends_s, told_s)


def _conflicts(asked: Sequence[Asked], now_s: float) -> Iterator[str]:
    """Pairs of events that ask different watts at one time with one priority."""
    yield from _meetings(asked, now_s, {Becomes.LIMIT, Becomes.LEVEL}, "the lower cap holds")
    yield from _meetings(asked, now_s, {Becomes.TARGET, Becomes.SHED}, "the lower target holds")
    yield from _meetings(asked, now_s, {Becomes.PRICE}, "the higher price holds")


def _meetings(
    asked: Sequence[Asked], now_s: float, kinds: set[Becomes], outcome: str
) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    mine = (held(one.starts_s, one.ends_s, one) for one in asked if one.becomes in kinds)
    for piece in cut(mine):
        if piece.ends_s <= now_s or len(piece.items) < 2:
            continue
        ranked = sorted(piece.items, key=lambda one: (one.priority, one.event_id))
        for one, other in pairwise(ranked):
            pair = (one.event_id, other.event_id)
            if one.priority != other.priority or pair[0] == pair[1] or pair in seen:
                continue
            seen.add(pair)
            if one.amount != other.amount:
                names = (one.label, other.label)
                told = names if all(names) and names[0] != names[1] else pair
                yield f"events {' and '.join(told)} overlap with equal priority; {outcome}"
