"""What a meter's own energy counter says of an interval: better than samples, where it can be had.

A counter misses nothing between two readings, and so it also covers time in which no sample came.
It is believed only where it can be: read close to both edges, never gone back in between, finer
than what two sums may differ by, and not far from what the samples say. Anything else (a meter that
was changed, a counter set anew, a wrong scale) leaves the samples.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats

APART_SHARE = 0.01
"""Counter and samples further apart than this are told: the class of a common meter."""

BELIEVED_SHARE = 0.2
"""Further apart than this it is another counter, or another scale, and not the same meter."""

STEPS_WH = tuple(10.0**power for power in range(6, -4, -1))
"""Steps in which counters count, coarsest first: a MWh down to a thousandth of a Wh."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Readings of a counter of imported energy; columns of one length, empty: there is none."""

    at_s: Floats = field(default_factory=lambda: np.empty(0))
    energy_wh: Floats = field(default_factory=lambda: np.empty(0))

    def ordered(self) -> "Counter":
        """The readings in order of time."""
        order = np.argsort(self.at_s, kind="stable")
        return Counter(self.at_s[order], self.energy_wh[order])


@dataclass(frozen=True, slots=True)
class Counted:
    """What a counter says of intervals; columns of one length.

    Attributes:
        mean_w: mean draw by it, W; NaN: it cannot tell.
        apart: how far that lies from the samples, as a share of it; NaN: one of them cannot tell.
        believed: whether it holds in place of the samples.
    """

    mean_w: Floats
    apart: Floats
    believed: Bools


def counted(
    counter: Counter,
    starts_s: Floats,
    ends_s: Floats,
    sampled_w: Floats,
    *,
    gap_most_s: float,
    most_w: float,
) -> Counted:
    """Hold a counter against the samples of intervals.

    Args:
        counter: its readings, in any order.
        starts_s, ends_s: of the intervals, unix time, s.
        sampled_w: their mean by the samples, W; NaN unknown.
        gap_most_s: most time between the two readings around an edge, s.
        most_w: more than this the site cannot draw, W.
    """
    read = counter.ordered()
    lasts_h = (ends_s - starts_s) / 3600.0
    used_wh = _at(read, ends_s, gap_most_s) - _at(read, starts_s, gap_most_s)
    back = np.concatenate([[0], np.cumsum(np.diff(read.energy_wh) < 0), [0]])
    first = np.searchsorted(read.at_s, starts_s, "right") - 1
    last = np.minimum(np.searchsorted(read.at_s, ends_s, "left"), len(read.at_s) - 1)
    went_back = back[np.maximum(last, 0)] > back[np.maximum(first, 0)]
    with np.errstate(invalid="ignore", divide="ignore"):
        can = np.isfinite(used_wh) & ~went_back & (used_wh <= most_w * lasts_h)
        # Either edge may be off by a step.
        can &= 2.0 * _step_wh(read.energy_wh) <= APART_SHARE * used_wh
        mean_w = np.where(can, used_wh / lasts_h, math.nan)
        apart = np.abs(mean_w - sampled_w) / mean_w
        believed = can & ~(apart > BELIEVED_SHARE)
    return Counted(mean_w, apart, believed)


def _at(counter: Counter, edges_s: Floats, gap_most_s: float) -> Floats:
    """The counter at each edge, between the readings around it, Wh; NaN where one is missing."""
    n = len(counter.at_s)
    if n < 2:
        return np.full(len(edges_s), math.nan)
    after = np.clip(np.searchsorted(counter.at_s, edges_s, "left"), 1, n - 1)
    from_s, to_s = counter.at_s[after - 1], counter.at_s[after]
    near = (edges_s >= from_s) & (edges_s <= to_s) & (to_s - from_s <= gap_most_s)
    between = (edges_s - from_s) / np.maximum(to_s - from_s, 1e-9)
    before_wh, after_wh = counter.energy_wh[after - 1], counter.energy_wh[after]
    return np.where(near, before_wh + (after_wh - before_wh) * between, math.nan)


def _step_wh(energy_wh: Floats) -> float:
    """In what steps it counts, Wh: the coarsest in which all its readings are whole."""
    for step_wh in STEPS_WH:
        steps = energy_wh / step_wh
        if (np.abs(steps - np.round(steps)) < 1e-6).all():
            return step_wh
    return 0.0
