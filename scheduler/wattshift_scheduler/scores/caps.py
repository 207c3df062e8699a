"""How a cap was kept: how far above it, how much, how long, and how soon the site was below.

The figures are those of the grid reference, section 5.2. Each sample holds until the next one.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats


@dataclass(frozen=True, slots=True)
class CapKept:
    """Figures of one cap.

    Attributes:
        overshoot_max_w: most above the cap, W; 0: never above.
        overshoot_j: integral of what was above it, J (a kW s is 1000 J).
        above_s: time above it, s.
        to_cap_s: from the cap's start to the first sample at or below it, s; NaN if none was.
        unknown_s: time of which no sample is known, s; nothing of it is in the figures above.
    """

    overshoot_max_w: float
    overshoot_j: float
    above_s: float
    to_cap_s: float
    unknown_s: float


def cap_kept(at_s: Floats, metered_w: Floats, cap_w: Floats | float, ends_s: float) -> CapKept:
    """Hold samples against a cap that is in force from the first of them on.

    Args:
        at_s: when each sample was taken, rising, s; shape (n,).
        metered_w: the draw, W; NaN is unknown; shape (n,).
        cap_w: the cap, W; one for all, or shape (n,).
        ends_s: when the last sample ends to hold, s.
    """
    assert at_s.shape == metered_w.shape, "one time for each sample"
    if not len(at_s):
        return CapKept(0.0, 0.0, 0.0, math.nan, 0.0)
    assert ends_s >= at_s[-1], "the last sample holds until the end"
    lasts_s = np.diff(at_s, append=ends_s)
    over_w = metered_w - cap_w
    known = np.isfinite(over_w)
    above_w = np.where(known, np.maximum(over_w, 0.0), 0.0)
    reached = np.flatnonzero(known & (over_w <= 0.0))
    return CapKept(
        overshoot_max_w=float(above_w.max()),
        overshoot_j=float(above_w @ lasts_s),
        above_s=float(lasts_s[above_w > 0.0].sum()),
        to_cap_s=float(at_s[reached[0]] - at_s[0]) if reached.size else math.nan,
        unknown_s=float(lasts_s[~known].sum()),
    )
