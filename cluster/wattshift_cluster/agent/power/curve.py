"""Watts against mining intensity beside one inference load: a rising curve with its error bars."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

STEPS = 100
"""The curve is kept at whole percents, which is how finely a gate sets intensity."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected watts and the bounds that a new reading keeps 95 times out of 100, W."""

    mean_w: float
    low_w: float
    high_w: float

    def at_most(self, watts_w: float) -> "Estimate":
        """The same for a device that something keeps at or below `watts_w`."""
        return Estimate(
            min(self.mean_w, watts_w), min(self.low_w, watts_w), min(self.high_w, watts_w)
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Watts at 0, 1 … 100 % of time in launches; none of the three ever falls."""

    mean_w: Sequence[float]
    low_w: Sequence[float]
    high_w: Sequence[float]

    def at(self, intensity: float) -> Estimate:
        """The estimate at an intensity from 0 to 1."""
        return Estimate(
            interpolated(self.mean_w, intensity),
            interpolated(self.low_w, intensity),
            interpolated(self.high_w, intensity),
        )

    def intensity_below(self, watts_w: float) -> float:
        """The largest intensity whose upper bound does not exceed `watts_w`; 0 when none does."""
        return inverted(self.high_w, watts_w)

    def intensity_of(self, watts_w: float) -> float:
        """The largest intensity that is expected to draw no more than `watts_w`."""
        return inverted(self.mean_w, watts_w)


def interpolated(levels_w: Sequence[float], intensity: float) -> float:
    """Watts between two whole percents; intensities beyond 0 and 1 count as those."""
    place = min(1.0, max(0.0, intensity)) * STEPS
    below = min(STEPS - 1, int(place))
    low_w, high_w = levels_w[below], levels_w[below + 1]
    return low_w + (place - below) * (high_w - low_w)


def inverted(levels_w: Sequence[float], watts_w: float) -> float:
    """The largest intensity at which levels that never fall are at most `watts_w`, 0 to 1."""
    if isnan(watts_w):
        return 0.0
    above = bisect_right(levels_w, watts_w)
    if above == 0:
        return 0.0
    if above > STEPS:
        return 1.0
    low_w, high_w = levels_w[above - 1], levels_w[above]
    return (above - 1 + (watts_w - low_w) / (high_w - low_w)) / STEPS
