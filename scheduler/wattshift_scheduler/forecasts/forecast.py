"""What comes next, with quantiles: prices, loads and sun by time of day, and bursts of inference.

A forecast is a `Band` of three quantiles for each interval. It is made from the past alone: what
the same time of day was on days of the same kind, newer days weighing more, moved by how far the
last hours lay beside that. How wide it is follows from how far such forecasts, made at each moment
of the past from what was known then, lay off at the same time of day and the same lead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.forecasts.usual import (
    DAY_S,
    HIGH,
    LOW,
    TAIL_Z,
    Grid,
    Usual,
    persistent,
    scale_of,
)

BURST_MOST = 4_096
"""Looks that a burst is taken from at the most: an hour of them, one a second."""


@dataclass(frozen=True, slots=True)
class Band:
    """Quantiles 0.1, 0.5 and 0.9 of the mean over each interval; NaN where nothing is known.

    Attributes:
        low, mid, high: rising, all of one shape (intervals,), in the unit of what is foreseen.
    """

    low: Floats
    mid: Floats
    high: Floats

    def __post_init__(self) -> None:
        if not self.low.shape == self.mid.shape == self.high.shape or self.mid.ndim != 1:
            raise ValueError("the quantiles of a band are columns of one length")
        if (self.low > self.mid).any() or (self.mid > self.high).any():
            raise ValueError("the quantiles of a band must rise from low to high")

    def __len__(self) -> int:
        return len(self.mid)

    @classmethod
    def of(cls, values: Floats) -> "Band":
        """A band of what is known for sure."""
        sure = np.asarray(values, dtype=np.float64)
        return cls(sure, sure, sure)

    def quantile(self, q: float) -> Floats:
        """Another quantile: linear between the three, on a normal tail beyond them.

        Args:
            q: above 0 and below 1; raises ValueError else.
        """
        if not 0.0 < q < 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        if LOW <= q <= HIGH:
            edge, share = (self.low, LOW) if q < 0.5 else (self.high, HIGH)
            return self.mid + (edge - self.mid) * ((q - 0.5) / (share - 0.5))
        edge = self.low if q < LOW else self.high
        return self.mid + (edge - self.mid) * (abs(NormalDist().inv_cdf(q)) / TAIL_Z)


def seasonal(
    times_s: Floats,
    values: Floats,
    starts_s: Floats,
    *,
    period_s: float = DAY_S,
    weeks: int = 4,
) -> Band:
    """Foresee a series from its past, by time of day and kind of day, moved by the last hours.

    Args:
        times_s: when each past interval began, UTC; rising; shape (past,). What does not lie
            before the first of `starts_s` is not looked at.
        values: mean over each; NaN where it is not known; shape (past,).
        starts_s: when each interval to be foreseen begins, UTC, rising; shape (intervals,).
        period_s: after which the series looks alike, s.
        weeks: how far back is looked.

    Returns:
        The band; NaN throughout where nothing at all is known. With less than two periods of past
        the last value persists, in a wide band. Raises ValueError for columns that differ in
        length and times that do not rise.
    """
    _checked(times_s, values, starts_s)
    if not len(starts_s):
        return Band.of(np.zeros(0))
    grid = Grid.of(times_s, starts_s, period_s, weeks)
    past = grid.past(times_s, values)
    known = past[np.isfinite(past)]
    if not len(known):
        return Band.of(np.full(len(starts_s), np.nan))
    usual = Usual.of(grid, past, scale_of(known))
    low, mid, high = persistent(grid, past) if usual is None else usual.band(grid)
    # What was never below zero, a load or the sun, will not be.
    least = 0.0 if known.min() >= 0.0 else -math.inf
    return Band(np.maximum(low, least), np.maximum(mid, least), np.maximum(high, least))


def burst_w(looks: Sequence[tuple[float, float]], within_s: float, share: float = 0.99) -> float:
    """By how much the watts may rise within a time, from how they rose lately, W.

    From each look the largest rise within the time is taken, and what the next look shows in any
    case, for a step between two looks may have come at once. Of those that rose at all the quantile
    `share` is taken upwards: a quiet hour makes no burst smaller.

    Args:
        looks: times (s) and watts, oldest first; a look whose watts are NaN counts as none.
        within_s: the time that a device needs to give watts back, s.
        share: of the rises that the reserve is to cover, 0 to 1.

    Returns:
        Watts, never negative; NaN with fewer than two looks: unknown is not zero.
    """
    at = np.array([(t, w) for t, w in looks[-BURST_MOST:] if not math.isnan(w)], dtype=np.float64)
    if len(at) < 2:
        return math.nan
    times_s, watts_w = at[:, 0], at[:, 1]
    last = np.searchsorted(times_s, times_s + within_s, side="right") - 1
    last = np.maximum(last, np.minimum(np.arange(len(at)) + 1, len(at) - 1))
    rises_w = (_highest(watts_w, last) - watts_w)[:-1]
    rises_w = rises_w[rises_w > 0]
    return float(np.quantile(rises_w, share, method="higher")) if len(rises_w) else 0.0


def _highest(values: Floats, last: Ints) -> Floats:
    """The highest of values[i] .. values[last[i]], for each i, by doubling spans."""
    span, top = 1, values.copy()
    found, at = values.copy(), np.arange(len(values))
    left = last - at + 1
    while (left > 0).any():
        odd = np.flatnonzero((left & span) > 0)
        found[odd] = np.maximum(found[odd], top[at[odd]])
        at[odd] += span
        left[odd] -= span
        reach = np.minimum(np.arange(len(values)) + span, len(values) - 1)
        top = np.maximum(top, top[reach])
        span *= 2
    return found


def _checked(times_s: Floats, values: Floats, starts_s: Floats) -> None:
    if times_s.shape != values.shape or times_s.ndim != 1 or starts_s.ndim != 1:
        raise ValueError("times and values must be columns of one length")
    if not (np.isfinite(times_s).all() and np.isfinite(starts_s).all()):
        raise ValueError("times must be finite")
    if (np.diff(times_s) <= 0).any() or (np.diff(starts_s) <= 0).any():
        raise ValueError("times must rise")
