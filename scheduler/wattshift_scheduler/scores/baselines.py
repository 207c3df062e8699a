"""What a site would have drawn without the event: the baselines that a settlement subtracts from.

Mean watts per interval, one row a day, oldest day first. A day is a day of the program's calendar,
always of the same count of intervals. What is unknown is NaN: a day with an unknown interval inside
the event's window is passed over and counted, and a baseline that cannot be told is NaN with the
reason, never a number that looks like one.

Sources (grid reference, section 6): CAISO's 10-of-10, adjusted by what hours -4 to -2 of the same
day showed, within 20 %; the high 5-of-10 of NYISO and PJM, additive and symmetric (their rules were
not read); the firm service level; the meter before and after. Whoever mines by price erodes a
10-of-10, so the last two are the ones to offer first.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints

DAY_S = 86400.0

SATURDAY = 5

LEAST_KNOWN_SHARE = 0.9
"""Share of the samples of a mean that must be known; a choice of this project."""

RRMSE_MOST = 0.20
"""PJM's bound on a baseline's relative error (not read in its manual)."""


class Day(Protocol):
    """A day of the calendar as `datetime.date` is one: this room knows no calendar of its own."""

    def weekday(self) -> int:
        """0 on a Monday."""

    def __ge__(self, other: Any, /) -> bool: ...


class Kind(StrEnum):
    """How the same day adjusts a baseline: by a factor, or by watts."""

    FACTOR = "factor"
    WATTS = "watts"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Move the baseline to what the same day showed before the event.

    Attributes:
        kind: by a factor or by watts.
        most_share: most by which it may move, as a share of the baseline; infinite: any.
        from_h, to_h: the hours before the event that it looks at, from the earlier to the later.
    """

    kind: Kind = Kind.FACTOR
    most_share: float = 0.20
    from_h: float = 4.0
    to_h: float = 2.0

    def __post_init__(self) -> None:
        assert self.most_share >= 0, "an adjustment's bound is a share of 0 or more"
        assert self.from_h > self.to_h >= 0, "its hours count back from the event"


@dataclass(frozen=True, slots=True)
class HighOf:
    """A method: the highest `best` of the last `of` eligible days, and how the same day adjusts."""

    best: int
    of: int
    adjust: Adjustment | None = None

    def __post_init__(self) -> None:
        assert 1 <= self.best <= self.of, "the best are some of all"


TEN_OF_TEN = HighOf(10, 10, Adjustment())
"""CAISO's: all of ten days, adjusted by a factor of 0.8 to 1.2 from hours -4 to -2."""

FIVE_OF_TEN = HighOf(5, 10, Adjustment(Kind.WATTS, math.inf))
"""The higher half of ten days, adjusted by watts in both directions."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline of the event's day, and what it rests on.

    Attributes:
        watts_w: mean per interval of the whole day, adjusted, W; shape (intervals,). NaN: unknown.
        raw_w: the same before its adjustment, W.
        days: rows of the days that it is the mean of.
        skipped: rows that were eligible and had an unknown interval in the window.
        adjustment: factor, or watts, that was applied; NaN where none was.
        notes: what a reader must know, in words; empty while all is well.
    """

    watts_w: Floats
    raw_w: Floats
    days: tuple[int, ...]
    skipped: tuple[int, ...]
    adjustment: float
    notes: tuple[str, ...]


def firm_service_level(fsl_w: float, n: int) -> Floats:
    """The level that a site has promised to stay at or below, W, for `n` intervals; shape (n,).

    Metered watts are held against it; what counts as the reduction is the program's matter.
    """
    assert 0 <= fsl_w < math.inf, "a firm service level is 0 W or more"
    return np.full(n, fsl_w)


def before_after(metered_w: Floats, starts: int, window: int) -> Floats:
    """The mean of `window` intervals before the event, held for the rest: for fast reserves.

    Args:
        metered_w: mean of each interval, W; shape (n,).
        starts: interval that the event begins at, counted from 0.
        window: how many intervals before it are looked at.

    Returns:
        W from `starts` on; shape (n - starts,). NaN where too few intervals before it are known.
    """
    assert 0 < window <= starts <= len(metered_w), "the window lies before the event"
    return np.full(len(metered_w) - starts, known_mean(metered_w[starts - window : starts]))


def excluded(
    days: Sequence[Day], event: Day, events: Iterable[Day] = (), holidays: Iterable[Day] = ()
) -> Bools:
    """Days that must not be compared with the event's day; shape (days,).

    Those are days with an event, days that do not lie before it, and days of the other type: a
    Saturday, a Sunday and a holiday are of one type, all others of the other.
    """
    called, free = set(events), set(holidays)

    def rests(day: Day) -> bool:
        return day.weekday() >= SATURDAY or day in free

    return np.array(
        [day >= event or day in called or rests(day) != rests(event) for day in days],
        dtype=np.bool_,
    )


def high_of(
    days_w: Floats,
    *,
    best: int,
    of: int,
    starts: int,
    ends: int,
    exclude: Bools | None = None,
    adjust: Adjustment | None = None,
    today_w: Floats | None = None,
) -> Baseline:
    """The mean, per interval, of the `best` highest of the last `of` days that may be compared.

    Args:
        days_w: W; shape (days, intervals), oldest day first.
        best, of: how many days it is the mean of, and of how many. Highest is by the mean of the
            event's window.
        starts, ends: the event's window, intervals of the day; the end is exclusive.
        exclude: days to pass over, as `excluded` gives them; shape (days,).
        adjust: how the same day moves it; needs `today_w`.
        today_w: the event's own day, W; shape (intervals,). Only what lies before it is looked at.
    """
    assert 1 <= best <= of, "the best are some of all"
    assert 0 <= starts < ends <= days_w.shape[1], "the window is a part of the day"
    assert adjust is None or today_w is not None, "an adjustment needs the event's own day"
    rows, skipped = _eligible(days_w[:, starts:ends], exclude, of)
    notes = [f"{len(skipped)} days passed over: unknown intervals"] if skipped else []
    if len(rows) < of:
        notes.append(f"{len(rows)} of {of} days")
    if len(rows) < best:
        unknown_w = np.full(days_w.shape[1], math.nan)
        return Baseline(unknown_w, unknown_w, (), skipped, math.nan, tuple(notes))
    height_w = days_w[rows, starts:ends].mean(axis=1)
    # Of equally high days the later ones: they are nearer to the event.
    chosen = np.sort(rows[np.lexsort((-rows, -height_w))[:best]])
    raw_w = _mean_of_known(days_w[chosen])
    watts_w, moved = raw_w, math.nan
    if adjust is not None and today_w is not None:
        watts_w, moved, why = _adjusted(raw_w, today_w, starts, adjust)
        notes += [why] if why else []
    return Baseline(watts_w, raw_w, tuple(chosen.tolist()), skipped, moved, tuple(notes))


def rrmse(baseline_w: Floats, metered_w: Floats) -> float:
    """Root mean square of the error, as a share of the mean of what was metered (PJM's test).

    NaN pairs are left out; NaN where fewer than LEAST_KNOWN_SHARE of them are known, or where
    nothing was drawn. Accurate enough is at most RRMSE_MOST.
    """
    assert baseline_w.shape == metered_w.shape, "one baseline for each interval"
    known = np.isfinite(baseline_w) & np.isfinite(metered_w)
    if not known.size or known.mean() < LEAST_KNOWN_SHARE:
        return math.nan
    drawn_w = float(metered_w[known].mean())
    error_w = float(np.sqrt(np.mean((baseline_w[known] - metered_w[known]) ** 2)))
    return error_w / drawn_w if drawn_w > 0 else math.nan


def back_tested(
    days_w: Floats, method: HighOf, starts: int, ends: int, exclude: Bools | None = None
) -> float:
    """How well a method would have told the days that had no event: its RRMSE in the window.

    Each eligible day is told from those before it. NaN where no day has enough of them.

    Args:
        days_w, starts, ends, exclude: as of `high_of`.
        method: which days, and the adjustment.
    """
    barred = np.zeros(len(days_w), dtype=np.bool_) if exclude is None else exclude
    told, metered = [], []
    for row in np.flatnonzero(~barred):
        found = high_of(
            days_w[:row],
            best=method.best,
            of=method.of,
            starts=starts,
            ends=ends,
            exclude=barred[:row],
            adjust=method.adjust,
            today_w=days_w[row],
        )
        if found.days:
            told.append(found.watts_w[starts:ends])
            metered.append(days_w[row, starts:ends])
    return rrmse(np.concatenate(told), np.concatenate(metered)) if told else math.nan


def known_mean(watts_w: Floats) -> float:
    """Mean of the known ones, W; NaN where fewer than LEAST_KNOWN_SHARE of them are known."""
    known = np.isfinite(watts_w)
    if not known.size or known.mean() < LEAST_KNOWN_SHARE:
        return math.nan
    return float(watts_w[known].mean())


def _eligible(window_w: Floats, exclude: Bools | None, of: int) -> tuple[Ints, tuple[int, ...]]:
    """The last `of` days that may be compared, and those passed over on the way to them."""
    rows: list[int] = []
    skipped: list[int] = []
    for row in range(len(window_w) - 1, -1, -1):
        if len(rows) == of:
            break
        if exclude is not None and exclude[row]:
            continue
        known = bool(np.isfinite(window_w[row]).all())
        (rows if known else skipped).append(row)
    return np.array(sorted(rows), dtype=np.int64), tuple(sorted(skipped))


def _mean_of_known(days_w: Floats) -> Floats:
    """Mean per interval over the days that know it, W; NaN where none does."""
    known = np.isfinite(days_w)
    count = known.sum(axis=0)
    total_w = np.where(known, days_w, 0.0).sum(axis=0)
    return np.where(count > 0, total_w / np.maximum(count, 1), math.nan)


def _adjusted(
    raw_w: Floats, today_w: Floats, starts: int, adjust: Adjustment
) -> tuple[Floats, float, str]:
    """The baseline moved to the same day, by how much, and why it was not."""
    per_h = len(raw_w) * 3600.0 / DAY_S
    begin, end = starts - round(adjust.from_h * per_h), starts - round(adjust.to_h * per_h)
    if begin < 0 or end <= begin:
        return raw_w, math.nan, "not adjusted: the hours before the event lie on another day"
    base_w, seen_w = known_mean(raw_w[begin:end]), known_mean(today_w[begin:end])
    if math.isnan(base_w) or math.isnan(seen_w) or base_w <= 0:
        return raw_w, math.nan, "not adjusted: the hours before the event are not known"
    most = adjust.most_share
    if adjust.kind is Kind.FACTOR:
        factor = min(max(seen_w / base_w, 1.0 - most), 1.0 + most)
        return raw_w * factor, factor, ""
    most_w = most * base_w
    shift_w = min(max(seen_w - base_w, -most_w), most_w)
    return np.maximum(raw_w + shift_w, 0.0), shift_w, ""
