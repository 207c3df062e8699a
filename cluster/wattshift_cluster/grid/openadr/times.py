"""When an event's intervals hold: ISO 8601 durations, starts, random shifts and loops, all on UTC.

UTC has no daylight saving, so that a day is 86,400 s; only months and years follow the calendar.
Rules: OpenADR 3.1 User Guide 7.3 (intervalPeriod, "do it now", randomizeStart, event.duration) and
7.9 (an event that begins in year 1 and has no length was called off). Where it is silent the
reading is chosen that lets a cap hold longer: a random shift never ends an interval earlier, and a
missing or zero length holds until the next interval or until it is withdrawn.
"""

import calendar
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

from wattshift_cluster.grid.openadr.words import Event, Interval, IntervalPeriod

DAY_S = 86_400.0
LOOP_AHEAD_S = 7 * DAY_S
"""How far ahead intervals that repeat are laid out; what is known beyond follows later."""
MAX_SPANS = 5_000
"""Of one event, laid out at once; the earliest are kept."""
LEAST_LOOP_S = 1.0
FIRST_S, LAST_S = 0.0, 4_102_444_800.0
"""A time on the wire lies between 1970 and 2100; a span that ends later has no end."""

_DURATION = re.compile(
    r"(-?)P(?=\d|T\d)(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:(\d{1,9})W)?(?:(\d{1,9})D)?"
    r"(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?"
)
_YEAR_ONE = "0001-01-01"
_UNTOLD = IntervalPeriod()


class TimeInvalid(ValueError):
    """No such time or duration, or one that would end before it starts. The text says which."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: whole calendar months and then seconds, s."""

    months: int = 0
    seconds_s: float = 0.0

    @property
    def is_zero(self) -> bool:
        """Whether it has no length."""
        return self.months == 0 and self.seconds_s == 0

    def after(self, starts_s: float) -> float | None:
        """When a span of this length that begins at `starts_s` ends; None: never (P9999Y)."""
        if self.months:
            start = datetime.fromtimestamp(starts_s, UTC)
            month = start.month - 1 + self.months
            year = start.year + month // 12
            if year > 2100:
                return None
            day = min(start.day, calendar.monthrange(year, month % 12 + 1)[1])
            starts_s = start.replace(year=year, month=month % 12 + 1, day=day).timestamp()
        ends_s = starts_s + self.seconds_s
        return ends_s if ends_s < LAST_S else None


@dataclass(frozen=True, slots=True)
class Span:
    """One interval of an event, placed in time.

    Attributes:
        starts_s, ends_s: unix time, s; the end is exclusive, None is open.
        place: the interval's place in the event, from 0.
        interval: what it says.
        bounded: whether its end was told; else it holds until it is withdrawn.
    """

    starts_s: float
    ends_s: float | None
    place: int
    interval: Interval
    bounded: bool


@dataclass(frozen=True, slots=True)
class Laid:
    """An event laid out in time.

    Attributes:
        spans: by start, without those that are long over.
        starts_s, ends_s: of the event as a whole, unix time, s; None: it has no span, or no end.
        notes: what had to be assumed.
        called_off: whether it was set to no length in year 1.
    """

    spans: tuple[Span, ...]
    starts_s: float | None = None
    ends_s: float | None = None
    notes: tuple[str, ...] = ()
    called_off: bool = False


@dataclass(frozen=True, slots=True)
class _Told:
    """A span as told, before its shift."""

    starts_s: float
    ends_s: float | None
    shift_s: float
    place: int
    bounded: bool


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> Duration:
    """A duration such as PT1H, P1DT30M or P9999Y. Raises: TimeInvalid, also for a negative one."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise TimeInvalid(f"{text[:40]!r} is no ISO 8601 duration")
    sign, years, months, weeks, days, hours, minutes, seconds = match.groups()
    total_s = (
        int(weeks or 0) * 7 * DAY_S
        + int(days or 0) * DAY_S
        + int(hours or 0) * 3600.0
        + int(minutes or 0) * 60.0
        + float(seconds or 0)
    )
    duration = Duration(int(years or 0) * 12 + int(months or 0), total_s)
    if sign and not duration.is_zero:
        raise TimeInvalid(f"{text[:40]} ends before it starts")
    return duration


def parse_start(text: str) -> float | None:
    """A start as unix time, s; None for year 1, which means now.

    Raises:
        TimeInvalid: no time, one without a zone, or one before 1970 or after 2100.
    """
    if text.startswith(_YEAR_ONE):
        return None
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TimeInvalid(f"{text[:40]!r} is no RFC 3339 time") from None
    if at.tzinfo is None:
        raise TimeInvalid(f"{text[:40]} has no zone")
    at_s = at.timestamp()
    if not FIRST_S <= at_s < LAST_S:
        raise TimeInvalid(f"{text[:40]} lies before 1970 or after 2100")
    return at_s


def lay_out(event: Event, first_s: float, draw: Callable[[int], float], now_s: float) -> Laid:
    """Place an event's intervals in time.

    Args:
        event: as read.
        first_s: when it was first heard, unix time, s: what "now" means for it.
        draw: place of the interval (-1: of the event) -> its random draw, -1 to 1, always the same.
        now_s: unix time, s. Spans that ended more than a day before are left out.

    Raises:
        TimeInvalid: it cannot be placed, or ends before it starts.
    """
    if _called_off(event.period):
        return Laid((), called_off=True)
    notes: list[str] = []
    told = _chain(event, first_s, draw, notes)
    if not told:
        return Laid((), notes=tuple(notes))
    ends_s = _event_end(event, told)
    every = [
        span
        for one in _unrolled(told, ends_s, now_s, notes)
        if (span := _shifted(one, event, ends_s)) is not None
    ]
    spans = [span for span in every if span.ends_s is None or span.ends_s > now_s - DAY_S]
    spans.sort(key=lambda span: (span.starts_s, span.place))
    if len(spans) > MAX_SPANS:
        notes.append(f"only the first {MAX_SPANS} of its intervals are laid out")
    if any(_overlap(a, b) for a, b in pairwise(sorted(told, key=lambda one: one.starts_s))):
        notes.append("its intervals overlap; the lowest holds")
    starts_s = min(one.starts_s + one.shift_s for one in told)
    return Laid(tuple(spans[:MAX_SPANS]), starts_s, _last(every, ends_s), tuple(notes))


def _called_off(period: IntervalPeriod | None) -> bool:
    if period is None or period.start is None or period.duration is None:
        return False
    return parse_start(period.start) is None and parse_duration(period.duration).is_zero


def _chain(
    event: Event, first_s: float, draw: Callable[[int], float], notes: list[str]
) -> list[_Told]:
    """The intervals as told: with periods of their own, the event's, or one after the other."""
    period = event.period or _UNTOLD
    begins_s = first_s
    if period.start is None and not all(one.period and one.period.start for one in event.intervals):
        notes.append("it tells no start; it counts from when it was first heard")
    elif period.start is not None:
        told_s = parse_start(period.start)
        begins_s = first_s if told_s is None else told_s
    shift_s = _shift_s(period, draw, -1)
    chain: list[_Told] = []
    cursor_s: float | None = begins_s
    for place, interval in enumerate(event.intervals):
        own = interval.period or _UNTOLD
        if own.randomize_start is not None:
            shift_s = _shift_s(own, draw, place)
        own_s = parse_start(own.start) if own.start is not None else None
        if own_s is not None and chain and not chain[-1].bounded:
            chain[-1] = _until(chain[-1], own_s)
        starts_s = own_s if own_s is not None else cursor_s
        if starts_s is None:
            notes.append(f"interval {interval.id} follows one without an end, and never begins")
            continue
        length = own.duration if own.duration is not None else period.duration
        duration = None if length is None else parse_duration(length)
        if duration is None or duration.is_zero:
            notes.append(f"interval {interval.id} has no length; it holds until it is withdrawn")
            chain.append(_Told(starts_s, None, shift_s, place, bounded=False))
            # What follows begins beside it: neither tells when the other is over.
            cursor_s = starts_s
            continue
        cursor_s = duration.after(starts_s)
        chain.append(_Told(starts_s, cursor_s, shift_s, place, bounded=True))
    return chain


def _until(told: _Told, next_s: float) -> _Told:
    """A span without a length ends where the next one begins, if that is later."""
    return replace(told, ends_s=next_s, bounded=True) if next_s > told.starts_s else told


def _shift_s(period: IntervalPeriod, draw: Callable[[int], float], place: int) -> float:
    if period.randomize_start is None:
        return 0.0
    # The User Guide takes the absolute value of the range.
    widest = parse_duration(period.randomize_start.lstrip("-"))
    if widest.is_zero:
        return 0.0
    end_s = widest.after(0.0)
    if end_s is None:
        raise TimeInvalid(f"{period.randomize_start} is no range for a random start")
    return end_s * max(-1.0, min(1.0, draw(place)))


def _event_end(event: Event, told: list[_Told]) -> float | None:
    """When the event as a whole ends, as told; infinity: never; None: it does not say.

    A length of zero is what servers write where none was given; it shortens nothing.
    """
    if event.duration is None:
        return None
    duration = parse_duration(event.duration)
    if duration.is_zero:
        return None
    ends_s = duration.after(min(one.starts_s for one in told))
    return math.inf if ends_s is None else ends_s


def _unrolled(
    told: list[_Told], ends_s: float | None, now_s: float, notes: list[str]
) -> Iterator[_Told]:
    """The spans, repeated where the event lasts longer than all of them together."""
    first_s = min(one.starts_s for one in told)
    lasts = [one.ends_s for one in told]
    if ends_s is None or any(end_s is None for end_s in lasts):
        yield from told
        return
    period_s = max(end_s for end_s in lasts if end_s is not None) - first_s
    if ends_s <= first_s + period_s:
        yield from told
        return
    if period_s < LEAST_LOOP_S:
        notes.append(f"its intervals would repeat every {period_s:g} s; they hold once")
        yield from told
        return
    turn = max(0, math.floor((now_s - DAY_S - first_s) / period_s))
    until_s = min(ends_s, max(now_s, first_s) + LOOP_AHEAD_S)
    laid = 0
    while (offset_s := turn * period_s) + first_s < until_s and laid <= MAX_SPANS:
        for one in told:
            end_s = None if one.ends_s is None else one.ends_s + offset_s
            yield replace(one, starts_s=one.starts_s + offset_s, ends_s=end_s)
        laid += len(told)
        turn += 1


def _shifted(told: _Told, event: Event, event_ends_s: float | None) -> Span | None:
    ends_s = told.ends_s
    if event_ends_s is not None and math.isfinite(event_ends_s):
        if told.starts_s >= event_ends_s:
            return None
        ends_s = event_ends_s if ends_s is None else min(ends_s, event_ends_s)
    bounded = ends_s is not None or told.bounded
    if ends_s is not None:
        ends_s += max(0.0, told.shift_s)
    interval = event.intervals[told.place]
    return Span(told.starts_s + told.shift_s, ends_s, told.place, interval, bounded)


def _last(spans: list[Span], event_ends_s: float | None) -> float | None:
    """When the last span ends; None: never."""
    if event_ends_s == math.inf or any(span.ends_s is None for span in spans):
        return None
    ends = [span.ends_s for span in spans if span.ends_s is not None]
    return max(ends + ([event_ends_s] if event_ends_s is not None else []), default=None)


def _overlap(one: _Told, after: _Told) -> bool:
    return after.starts_s < (math.inf if one.ends_s is None else one.ends_s)
