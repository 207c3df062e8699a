"""What is usual at a time of day, and how far the past lay beside it: the inside of a forecast.

Values are looked at on an asinh scale: about a logarithm far from zero, so that a load is scaled,
and about linear near it, so that a price may be negative. Time is cut into slots of one length; a
row of slots is a period, mostly a day.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints

DAY_S = 86_400.0
HOUR_S = 3_600.0

LOW, HIGH = 0.1, 0.9
"""Quantiles of a band's edges."""

TAIL_Z = 1.2815515655446004
"""Standard deviations from the middle of a normal distribution to such an edge."""

Edges: TypeAlias = tuple[Floats, Floats, Floats]
"""Quantiles LOW, 0.5 and HIGH of each interval."""

HALF_LIFE_DAYS = 7.0
"""A day this much older weighs half: prices and loads drift with the seasons, over weeks."""

LEVEL_S = 2.0 * HOUR_S
"""The last hours, by whose distance from the usual the forecast is moved."""

NEIGHBOURS_S = HOUR_S
"""How wide of a time of day its spread is taken: a few weeks hold too few days for one slot."""

LEADS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 24.0, 36.0, 48.0)
"""Leads at which accuracy is looked at, h; between them it is interpolated, for it changes less."""

ENOUGH = 40
"""Past forecasts below which their errors are no distribution: then the last value persists."""

FEW_DAYS = 2.5
"""By this over the number of days seen a band is wider than their errors: errors of one day go
together, so a week holds seven of them and not two thousand, and its tails are not all seen."""

PERSIST_SHARE = 0.5
"""Share of the last value that one standard deviation is at least, while the past is too short."""


def scale_of(known: Floats) -> float:
    """From where on a value counts as far from zero: half of what is usual."""
    return max(0.5 * float(np.median(np.abs(known))), 1e-9)


def _weekend(times_s: Floats) -> Bools:
    """Whether times lie on a Saturday or Sunday, UTC; 1 January 1970 was a Thursday."""
    weekend: Bools = (np.floor(times_s / DAY_S) + 3) % 7 >= 5
    return weekend


@dataclass(frozen=True, slots=True)
class Grid:
    """Slots of one length, counted from the first interval to be foreseen; those before it are
    negative. A row of slots is a period.

    Attributes:
        origin_s, step_s: of slot 0, and of all, s.
        slots, rows: of a period, and periods of the past that are looked at.
        ahead: slot of each interval to be foreseen; shape (intervals,).
        weekend: kind of each slot of the past and ahead; all alike for other periods than a day.
    """

    origin_s: float
    step_s: float
    slots: int
    rows: int
    ahead: Ints
    weekend: Bools

    @classmethod
    def of(cls, times_s: Floats, starts_s: Floats, period_s: float, weeks: int) -> "Grid":
        steps = np.diff(starts_s) if len(starts_s) > 1 else np.diff(times_s)
        step_s = float(np.median(steps)) if len(steps) else HOUR_S
        slots = max(round(period_s / step_s), 1)
        step_s = period_s / slots
        origin_s = float(starts_s[0])
        before = times_s[times_s < origin_s]
        reach_s = origin_s - float(before[0]) if len(before) else 0.0
        rows = math.ceil(min(reach_s, weeks * 7 * DAY_S) / period_s - 1e-9)
        ahead = np.floor((starts_s - origin_s) / step_s + 1e-6).astype(np.int64)
        all_s = origin_s + np.arange(-rows * slots, int(ahead[-1]) + 1, dtype=np.float64) * step_s
        daily = abs(period_s - DAY_S) < 1.0
        weekend = _weekend(all_s) if daily else np.zeros(len(all_s), dtype=np.bool_)
        return cls(origin_s, step_s, slots, rows, ahead, weekend)

    def past(self, times_s: Floats, values: Floats) -> Floats:
        """The mean of what is known in each slot of the past; NaN where nothing is."""
        count = self.rows * self.slots
        at = np.floor((times_s - self.origin_s) / self.step_s + 1e-6).astype(np.int64) + count
        # An interval longer than a slot speaks for all the slots in it.
        wide_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else self.step_s
        spread = max(round(wide_s / self.step_s), 1)
        use = np.isfinite(values) & (at >= 0) & (at < count) & (times_s < self.origin_s)
        at = (at[use][:, None] + np.arange(spread)).ravel()
        worth = np.repeat(values[use], spread)[at < count]
        at = at[at < count]
        total, number = np.bincount(at, worth, count), np.bincount(at, minlength=count)
        mean: Floats = np.divide(total, number, out=np.full(count, np.nan), where=number > 0)
        return mean


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual at each slot, and how far the past lay beside it, on the asinh scale.

    Attributes:
        scale: of asinh.
        mid: what is usual at the slots ahead; shape (intervals,).
        spread: how far values lie beside that at that time of day; shape (intervals,).
        off: what was usual, as known then, taken from each slot of the past, by that slot's
            spread; shape (past,). NaN where either is not known.
    """

    scale: float
    mid: Floats
    spread: Floats
    off: Floats

    @classmethod
    def of(cls, grid: Grid, past: Floats, scale: float) -> "Usual | None":
        """Learn it; None if the past is too short to say how far it would have been off."""
        seen = np.arcsinh(past / scale)
        ahead_rows = int(grid.ahead[-1]) // grid.slots + 1
        usual = _usual(grid, seen, grid.rows + ahead_rows)
        off = seen - usual[: len(seen)]
        if int(np.isfinite(off).sum()) < max(ENOUGH, grid.slots // 2):
            return None
        spread = _spread(grid, off)
        ahead = len(seen) + grid.ahead
        return cls(
            scale=scale,
            mid=usual[ahead],
            spread=spread[grid.ahead % grid.slots],
            off=off / np.tile(spread, grid.rows),
        )

    def band(self, grid: Grid) -> Edges:
        """The band of the slots ahead."""
        level = _level(self.off, max(round(LEVEL_S / grid.step_s), 1))
        lead = grid.ahead * grid.step_s / HOUR_S
        leads = [h for h in LEADS if h * HOUR_S <= max(grid.ahead[-1] * grid.step_s, 0.0)]
        rows = [self._errors(level, round(h * HOUR_S / grid.step_s)) for h in leads]
        slope, low, mid, high = (
            np.interp(lead, leads, column) for column in zip(*rows, strict=True)
        )
        now = level[-1] if np.isfinite(level[-1]) else 0.0
        around = self.mid + (slope * now + mid) * self.spread
        wide = (1.0 + FEW_DAYS / max(grid.rows, 1)) * self.spread
        return (
            np.sinh(around + (low - mid) * wide) * self.scale,
            np.sinh(around) * self.scale,
            np.sinh(around + (high - mid) * wide) * self.scale,
        )

    def _errors(self, level: Floats, lead: int) -> tuple[float, float, float, float]:
        """How much of the level lasts for `lead` slots more, and quantiles of what is off then."""
        then, at = self.off[lead + 1 :], level[: len(level) - lead - 1]
        use = np.isfinite(then) & np.isfinite(at)
        if use.sum() < ENOUGH:
            slope, late = 0.0, self.off[np.isfinite(self.off)]
        else:
            then, at = then[use], at[use]
            slope = float(np.clip((then @ at) / max(float(at @ at), 1e-12), 0.0, 1.0))
            late = then - slope * at
        low, mid, high = np.quantile(late, (LOW, 0.5, HIGH))
        return slope, float(low), float(mid), float(high)


def _usual(grid: Grid, seen: Floats, rows: int) -> Floats:
    """What was usual at each slot as known before its period, and ahead; shape (rows * slots,).

    A running mean for each kind of day; a kind that was not seen yet counts as any other day.
    """
    keep = 0.5 ** (1.0 / HALF_LIFE_DAYS)
    kinds = np.append(grid.weekend, np.zeros(max(rows * grid.slots - len(grid.weekend), 0)))
    by_row = kinds[: rows * grid.slots].reshape(rows, grid.slots).astype(np.int64)
    values = np.full((rows, grid.slots), np.nan)
    values[: grid.rows] = seen.reshape(grid.rows, grid.slots)
    total, weight = np.zeros((2, grid.slots)), np.zeros((2, grid.slots))
    found = np.full((rows, grid.slots), np.nan)
    column = np.arange(grid.slots)
    for row in range(rows):
        kind = by_row[row]
        # Days of another kind say something too, as long as there are few of this one.
        number = weight[kind, column] + 0.2 * weight[1 - kind, column]
        amount = total[kind, column] + 0.2 * total[1 - kind, column]
        np.divide(amount, number, out=found[row], where=number > 0)
        known = np.isfinite(values[row])
        total, weight = total * keep, weight * keep
        total[kind[known], column[known]] += values[row][known]
        weight[kind[known], column[known]] += 1.0
    return _filled(found, grid).ravel()


def _filled(found: Floats, grid: Grid) -> Floats:
    """A slot that was never known counts as the nearest known ones of its period."""
    for row in found:
        known = np.flatnonzero(np.isfinite(row))
        if len(known) and len(known) < grid.slots:
            row[:] = np.interp(np.arange(grid.slots), known, row[known], period=grid.slots)
    return found


def _spread(grid: Grid, off: Floats) -> Floats:
    """How far values lie beside the usual at each time of day, mean distance; shape (slots,)."""
    far = np.abs(off).reshape(-1, grid.slots)
    known = np.isfinite(far)
    wide = min(max(round(NEIGHBOURS_S / grid.step_s), 1), grid.slots // 2)
    total = _around(np.where(known, far, 0.0).sum(axis=0), wide)
    number = _around(known.sum(axis=0).astype(np.float64), wide)
    usual = float(np.nanmean(np.abs(off)))
    spread: Floats = np.divide(total, number, out=np.full(grid.slots, usual), where=number > 0)
    least: Floats = np.maximum(spread, 0.1 * usual + 1e-9)
    return least


def _around(amounts: Floats, wide: int) -> Floats:
    """The sum of each slot's amount and its neighbours' on both sides, round the clock."""
    total = amounts.copy()
    for k in range(1, wide + 1):
        total += np.roll(amounts, k) + np.roll(amounts, -k)
    return total


def _level(off: Floats, slots: int) -> Floats:
    """Mean of what was off over the last `slots`, at each slot of the past; NaN if none known."""
    known = np.isfinite(off)
    total = _of_the_last(np.where(known, off, 0.0), slots)
    number = _of_the_last(known.astype(np.float64), slots)
    mean: Floats = np.divide(total, number, out=np.full(len(off), np.nan), where=number > 0.5)
    return mean


def _of_the_last(amounts: Floats, slots: int) -> Floats:
    """The sum of each amount and those before it, `slots` of them together."""
    total = np.cumsum(np.concatenate((np.zeros(slots), amounts)))
    last: Floats = total[slots:] - total[:-slots]
    return last


def persistent(grid: Grid, past: Floats) -> Edges:
    """The last hour goes on, within as much as the past has moved, and half of itself at least."""
    known = np.flatnonzero(np.isfinite(past))
    recent = max(round(HOUR_S / grid.step_s), 1)
    last = float(np.mean(past[known[-recent:]]))
    deviation = max(float(np.std(past[known])), PERSIST_SHARE * abs(last))
    mid = np.full(len(grid.ahead), last)
    return mid - TAIL_Z * deviation, mid, mid + TAIL_Z * deviation
