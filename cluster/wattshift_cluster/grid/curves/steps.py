"""What is known at which time: spans of a value laid out as `Steps`, where NaN is unknown.

A gap is unknown and not the value before it. Two values for one time are no value.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wattshift_cluster.grid.said import Steps

MOST_STEPS = 20_000
"""Two months of 5-minute values; more is no forecast that anybody can use."""


@dataclass(frozen=True, slots=True)
class Span:
    """A value from one time to another, s; `ends_s` infinite: until the next span begins."""

    starts_s: float
    ends_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Laid:
    """Spans laid out, and what of them was not taken as it stood."""

    steps: Steps | None
    notes: tuple[str, ...] = ()


def laid(spans: Iterable[Span], told_s: float, hold_s: float | None = None) -> Laid:
    """Lay spans out in order of time.

    Of two that overlap the later start holds from there on; of two that begin together and differ
    none does. The last one, where it has no end, holds for `hold_s`, or for as long as the one
    before it did.

    Args:
        spans: in any order.
        told_s: when the source told of them, s.
        hold_s: how long the last one holds, s; None: as the one before it.
    """
    good = [one for one in spans if one.ends_s > one.starts_s]
    at_odds, ordered = _one_each(sorted(good, key=lambda one: one.starts_s)[: MOST_STEPS + 1])
    if not ordered:
        return Laid(None)
    notes = []
    if len(ordered) > MOST_STEPS:
        ordered = ordered[:MOST_STEPS]
        notes.append(f"more than {MOST_STEPS} values; the latest are left out")
    if at_odds:
        notes.append(f"{at_odds} times have two values: unknown")
    times: list[float] = []
    values: list[float] = []
    overlaps = 0
    for one, following in pairwise(ordered):
        times.append(one.starts_s)
        values.append(one.value)
        overlaps += following.starts_s < one.ends_s < math.inf
        if one.ends_s < following.starts_s:
            times.append(one.ends_s)
            values.append(math.nan)
    if overlaps:
        notes.append(f"{overlaps} values overlap the next one, which holds")
    last = ordered[-1]
    times.append(last.starts_s)
    values.append(last.value)
    ends_s = last.ends_s if math.isfinite(last.ends_s) else _held_until_s(ordered, hold_s)
    return Laid(Steps(tuple(times), tuple(values), ends_s, told_s), tuple(notes))


DEFAULT_HOLD_S = 3600.0


def _held_until_s(ordered: Sequence[Span], hold_s: float | None) -> float:
    last_s = ordered[-1].starts_s
    if hold_s is None:
        hold_s = last_s - ordered[-2].starts_s if len(ordered) > 1 else DEFAULT_HOLD_S
    return last_s + hold_s


def _one_each(ordered: Sequence[Span]) -> tuple[int, list[Span]]:
    """One span for each start, and how many starts had two values."""
    found: list[Span] = []
    at_odds = 0
    for one in ordered:
        if not found or one.starts_s != found[-1].starts_s:
            found.append(one)
            continue
        same = found[-1].value == one.value
        at_odds += not same and not math.isnan(found[-1].value)
        ends_s = max(found[-1].ends_s, one.ends_s)
        found[-1] = Span(one.starts_s, ends_s, one.value if same else math.nan)
    return at_odds, found


def value_at(steps: Steps | None, now_s: float) -> float:
    """The value that holds at `now_s`; NaN where none is known."""
    if steps is None or not steps.times_s or not steps.times_s[0] <= now_s < steps.ends_s:
        return math.nan
    return steps.values[bisect.bisect_right(steps.times_s, now_s) - 1]


def began_s(steps: Steps, now_s: float) -> float:
    """When the step that holds at `now_s`, or the last one before it, began, s; NaN before all."""
    index = bisect.bisect_right(steps.times_s, now_s) - 1
    return math.nan if index < 0 else steps.times_s[index]


def spans(steps: Steps) -> Iterator[Span]:
    """The steps as spans, unknown ones too."""
    ends = (*steps.times_s[1:], steps.ends_s)
    for starts_s, ends_s, value in zip(steps.times_s, ends, steps.values, strict=True):
        yield Span(starts_s, ends_s, value)


def overlaid(older: Steps | None, newer: Steps) -> Steps:
    """A newer curve in an older one's place wherever it speaks; what it calls unknown is unknown.

    Outside of its own span the older one still holds, such as today's prices beside tomorrow's.
    """
    if older is None:
        return newer

    def pick(at_s: float) -> float:
        speaks = newer.times_s[0] <= at_s < newer.ends_s
        return value_at(newer if speaks else older, at_s)

    return _merged(older, newer, pick, newer.told_s)


def filled(first: Steps | None, second: Steps | None) -> Steps | None:
    """The first curve, and the second one where the first does not know."""
    if first is None or second is None:
        return first or second

    def pick(at_s: float) -> float:
        value = value_at(first, at_s)
        return value_at(second, at_s) if math.isnan(value) else value

    return _merged(first, second, pick, first.told_s)


def _merged(one: Steps, other: Steps, pick: Callable[[float], float], told_s: float) -> Steps:
    edges = sorted({*one.times_s, one.ends_s, *other.times_s, other.ends_s})
    times: list[float] = []
    values: list[float] = []
    for at_s in edges[:-1]:
        value = pick(at_s)
        both_unknown = bool(values) and math.isnan(value) and math.isnan(values[-1])
        if not values or not (value == values[-1] or both_unknown):
            times.append(at_s)
            values.append(value)
    return Steps(tuple(times[:MOST_STEPS]), tuple(values[:MOST_STEPS]), edges[-1], told_s)


def since(steps: Steps, from_s: float) -> Steps | None:
    """The steps without those that ended before `from_s`; None where none is left."""
    if steps.ends_s <= from_s:
        return None
    index = max(bisect.bisect_right(steps.times_s, from_s) - 1, 0)
    return replace(steps, times_s=steps.times_s[index:], values=steps.values[index:])
