"""What is foreseen of a series by interval: as it was published, and beyond that from the past.

A published curve is taken as it stands, within its validity. Where it ends, what the same time of
day was goes on; where there is too little past, its last value, within a wide band.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.controller.plan.history import SLOT_S, Past
from wattshift_cluster.grid.said import Steps
from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.forecast import Band, seasonal

ENOUGH = 144
"""Quarters of an hour, a day and a half; less says nothing of a time of day (`seasonal`)."""


BY_TIME_OF_DAY = "by time of day from the past"


@dataclass(frozen=True, slots=True)
class Grid:
    """The intervals of a plan: when the first begins, UTC, how long each is, s, and how many."""

    start_s: float
    step_s: float
    count: int

    @property
    def ends_s(self) -> float:
        """When the last one ends."""
        return self.start_s + self.step_s * self.count

    @property
    def starts_s(self) -> Floats:
        """When each begins; shape (count,)."""
        return np.asarray(self.start_s + self.step_s * np.arange(self.count), dtype=np.float64)

    def covered(self, starts_s: float | None, ends_s: float | None) -> slice:
        """The intervals that a span touches; None is open."""
        first, past = 0, self.count
        if starts_s is not None and starts_s > self.start_s:
            first = math.floor((starts_s - self.start_s) / self.step_s + 1e-9)
        if ends_s is not None and ends_s < self.ends_s:
            past = math.ceil((ends_s - self.start_s) / self.step_s - 1e-9)
        return slice(min(first, self.count), max(past, 0))


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A series ahead.

    Attributes:
        band: by interval.
        published: where it is as somebody published it, or as it is seen now; shape (n,).
        words: how the rest was foreseen, for people; empty where nothing was.
        prospect: how it may move on from the first interval; None: that is not known.
    """

    band: Band
    published: Bools
    words: str = ""
    prospect: Prospect | None = None


def foreseen(
    what: str, curve: Steps | None, past: Past, grid: Grid, *, least: float = -math.inf
) -> Foreseen | None:
    """Foresee a series; None where nothing at all is known of it.

    Args:
        what: its name for people.
        curve: what was published; None: nothing.
        past: what was seen of it.
        grid: the intervals.
        least: below which it cannot lie.
    """
    known = np.full(grid.count, np.nan) if curve is None else means(curve, grid)
    if math.isnan(known[0]) and len(past.times_s) and past.times_s[-1] + SLOT_S > grid.start_s:
        known[0] = past.last  # of the interval that runs, what is seen now
    published = np.isfinite(known)
    if published.all():
        return Foreseen(Band.of(known), published)
    missing = np.flatnonzero(~published)
    seen = _before(curve, past, float(grid.starts_s[missing[0]]))
    rest = seasonal(seen.times_s, seen.values, grid.starts_s[missing])
    if not np.isfinite(rest.mid).all():
        return None
    columns = (known.copy(), known.copy(), known.copy())
    for column, edge in zip(columns, (rest.low, rest.mid, rest.high), strict=True):
        column[missing] = np.maximum(edge, least)
    how = BY_TIME_OF_DAY if len(seen.values) >= ENOUGH else "from its last value, widely"
    share = "" if curve is None else " beyond what is published"
    return Foreseen(Band(*columns), published, f"{what}{share} is foreseen {how}")


def means(curve: Steps, grid: Grid) -> Floats:
    """The mean of a curve over each interval; NaN where a part of it is unknown; shape (n,)."""
    edges_s = np.append(grid.starts_s, grid.ends_s)
    times_s = np.asarray(curve.times_s, dtype=np.float64)
    values = np.asarray(curve.values, dtype=np.float64)
    ends_s = np.append(times_s[1:], curve.ends_s)
    spans_s = np.maximum(ends_s - times_s, 0.0)
    good = np.isfinite(values)
    area = _upto(times_s, ends_s, np.where(good, values, 0.0), edges_s)
    known_s = _upto(times_s, ends_s, good.astype(np.float64), edges_s)
    whole = np.diff(known_s) >= grid.step_s * (1.0 - 1e-9)
    if not len(spans_s):
        return np.full(grid.count, np.nan)
    found: Floats = np.where(whole, np.diff(area) / grid.step_s, np.nan)
    return found


def _upto(times_s: Floats, ends_s: Floats, values: Floats, edges_s: Floats) -> Floats:
    """The integral of a step series from its begin up to each edge."""
    total = np.concatenate(([0.0], np.cumsum(values * np.maximum(ends_s - times_s, 0.0))))
    at = np.searchsorted(times_s, edges_s, side="right") - 1
    inside = np.clip(at, 0, len(times_s) - 1)
    part_s = np.clip(np.minimum(edges_s, ends_s[inside]) - times_s[inside], 0.0, None)
    found: Floats = np.where(at < 0, 0.0, total[inside] + values[inside] * part_s)
    return found


def _before(curve: Steps | None, past: Past, upto_s: float) -> Past:
    """What is known before a time, on one grid: what was seen, and in its place what was
    published."""
    rows = dict(zip(past.times_s.tolist(), past.values.tolist(), strict=True))
    if curve is not None and curve.times_s:
        first = math.floor(curve.times_s[0] / SLOT_S)
        count = math.floor(min(curve.ends_s, upto_s) / SLOT_S) - first
        if count > 0:
            slots = Grid(first * SLOT_S, SLOT_S, count)
            rows |= {
                at_s: value
                for at_s, value in zip(slots.starts_s.tolist(), means(curve, slots), strict=True)
                if math.isfinite(value)
            }
    times_s = np.array(sorted(at_s for at_s in rows if at_s < upto_s), dtype=np.float64)
    return Past(times_s, np.array([rows[at_s] for at_s in times_s.tolist()], dtype=np.float64))
