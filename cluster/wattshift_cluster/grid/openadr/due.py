"""When a report is due, and over which intervals: the numbers of a reportDescriptor.

Rules: OpenADR 3.1 User Guide 7.5. A historical report is made at the end of interval
`startInterval` (-1: of the last) over the `numIntervals` that end with it; one that looks ahead is
made at the start of that interval over those that begin with it. The next follows `frequency`
intervals later (-1: as many as a report holds), `repeat` times. An event without intervals implies
a row of them from its own period. With `frequency` 0, or an event that has no length, the site
chooses the moment: at once, and then every AT_LEISURE_S while it repeats.
"""

import math
from dataclasses import dataclass

from wattshift_cluster.grid.openadr.times import (
    LAST_S,
    Laid,
    TimeInvalid,
    parse_duration,
    parse_start,
)
from wattshift_cluster.grid.openadr.words import INDEFINITELY, Event, ReportDescriptor

AT_LEISURE_S = 900.0
MAX_INTERVALS = 500
"""Of one report."""
MAX_TURNS = 1_000_000


@dataclass(frozen=True, slots=True)
class Slice:
    """One interval of a report: its id, start and length, unix time and s."""

    id: int
    starts_s: float
    lasts_s: float

    @property
    def ends_s(self) -> float:
        """Its end, unix time, s."""
        return self.starts_s + self.lasts_s


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is due at `at_s`: the `turn`th of its kind, from 1, over these intervals."""

    at_s: float
    turn: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of intervals without an end, or as many as the event has."""

    slices: tuple[Slice, ...]
    endless_from_s: float = 0.0
    step_s: float = 0.0

    @property
    def count(self) -> int:
        return MAX_TURNS if self.step_s else len(self.slices)

    def at(self, place: int) -> Slice | None:
        """The interval at a place; None: there is none."""
        if place < 0 or place >= self.count:
            return None
        if self.step_s:
            return Slice(place, self.endless_from_s + place * self.step_s, self.step_s)
        return self.slices[place]


def next_due(
    event: Event, laid: Laid, wants: ReportDescriptor, first_s: float, sent: int
) -> Due | None:
    """The report after the `sent` ones that were made; None: there is none to come.

    Of reports whose time had passed before the event was heard only the latest is made.

    Args:
        laid: the event laid out in time.
        first_s: when the event was first heard, unix time, s.
    """
    times = wants.repeat if wants.repeat >= 0 else MAX_TURNS
    if sent >= times:
        return None
    row = _row(event, laid)
    if row is None or wants.frequency == 0:
        return _at_leisure(laid, wants, first_s, sent)
    number = row.count if wants.num_intervals <= 0 else wants.num_intervals
    number = min(number, MAX_INTERVALS)
    step = number if wants.frequency == INDEFINITELY else wants.frequency
    if step <= 0:
        return None
    begin = wants.start_interval
    if begin == INDEFINITELY:
        begin = number - 1 if row.step_s else row.count - 1
    turn = max(sent, _missed(row, begin, step, wants.historical, first_s))
    if turn >= times:
        return None
    place = begin + turn * step
    around = (
        range(place - number + 1, place + 1) if wants.historical else range(place, place + number)
    )
    slices = tuple(one for at in around if (one := row.at(at)) is not None)
    mark = row.at(place)
    if mark is None or not slices:
        return None
    return Due(mark.ends_s if wants.historical else mark.starts_s, turn + 1, slices)


def _row(event: Event, laid: Laid) -> _Row | None:
    if event.intervals:
        slices = tuple(
            Slice(span.interval.id, span.starts_s, span.ends_s - span.starts_s)
            for span in laid.spans
            if span.ends_s is not None
        )
        return _Row(slices) if slices else None
    period = event.period
    if period is None or period.duration is None:
        return None
    try:
        starts_s = None if period.start is None else parse_start(period.start)
        ends_s = parse_duration(period.duration).after(0.0)
    except TimeInvalid:
        return None
    if starts_s is None or ends_s is None or ends_s <= 0 or ends_s >= LAST_S:
        return None
    return _Row((), starts_s, ends_s)


def _missed(row: _Row, begin: int, step: int, historical: bool, first_s: float) -> int:
    """How many reports were over before the event was heard, less the latest of them."""

    def due_s(turn: int) -> float:
        mark = row.at(begin + turn * step)
        if mark is None:
            return math.inf
        return mark.ends_s if historical else mark.starts_s

    if due_s(1) > first_s:
        return 0
    if row.step_s:
        turns = math.floor((first_s - due_s(0)) / (row.step_s * step))
        return max(0, turns)
    turn = 0
    while due_s(turn + 1) <= first_s:
        turn += 1
    return turn


def _at_leisure(laid: Laid, wants: ReportDescriptor, first_s: float, sent: int) -> Due | None:
    at_s = first_s + sent * AT_LEISURE_S
    if laid.ends_s is not None and at_s > laid.ends_s:
        return None
    starts_s = at_s - AT_LEISURE_S if wants.historical else at_s
    return Due(at_s, sent + 1, (Slice(0, starts_s, AT_LEISURE_S),))
