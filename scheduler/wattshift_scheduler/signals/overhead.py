"""What a site draws beside its devices (cooling, losses, lights), learnt from two sums.

The model is `fixed_w + share * devices`, fitted to pairs of the devices' sum and the site meter by
least squares in which far-off pairs count less (Huber's weights), within bounds. So a cap at the
meter becomes a budget for devices. It only ever tightens: what it says is taken only where it is
more than the bound of the site file, and only once it has been seen to fit.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats

LEAST_PAIRS = 60
"""Pairs below which nothing is believed: a minute at one a second."""

MOST_SHARE = 1.0
"""A site that draws as much beside its devices as in them is taken for a mistake."""

LEAST_SPREAD = 0.02
"""Least spread of the devices' sum, as a share of its mean, from which a slope can be told."""

MOST_RESIDUAL_SHARE = 0.02
"""Residual above which the model is not believed, as a share of the mean at the meter."""

ROUNDS = 8
"""Rounds of reweighting: Huber's estimate settles in a few."""

HUBER = 1.345
"""Huber's constant: 95 % of the efficiency of plain least squares under normal noise."""

MAD_TO_SIGMA = 1.4826
"""From the median absolute deviation to a standard deviation, under normal noise."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """A learnt model of what is drawn beside the devices.

    Attributes:
        fixed_w: drawn whatever the devices do, W.
        share: of the devices' watts, drawn on top.
        residual_w: typical deviation of the meter from the model, W.
        pairs: how many it rests on.
    """

    fixed_w: float
    share: float
    residual_w: float
    pairs: int

    def under_w(self, most_w: float) -> float:
        """What it draws while the whole site draws `most_w`, W: kept free of a budget that big."""
        devices_w = max(most_w - self.fixed_w, 0.0) / (1.0 + self.share)
        return min(self.fixed_w, max(most_w, 0.0)) + self.share * devices_w + self.residual_w


def learnt(devices_w: Floats, site_w: Floats) -> Overhead | None:
    """Fit the model to pairs; None where they are too few, too alike, or do not fit.

    Args:
        devices_w: sum of what devices draw, W; shape (pairs,). NaN pairs are left out.
        site_w: the site meter at the same moments, W; shape (pairs,).
    """
    known = np.isfinite(devices_w) & np.isfinite(site_w)
    x, y = devices_w[known], site_w[known]
    if len(x) < LEAST_PAIRS or float(np.std(x)) < LEAST_SPREAD * float(np.mean(np.abs(x))):
        return None
    fixed_w, share, spread_w = _huber(x, y)
    if not spread_w <= MOST_RESIDUAL_SHARE * float(np.mean(np.abs(y))):
        return None
    return Overhead(fixed_w, share, spread_w, len(x))


def _huber(x: Floats, y: Floats) -> tuple[float, float, float]:
    weight = np.ones(len(x))
    fixed_w = share = spread_w = 0.0
    for _ in range(ROUNDS):
        fixed_w, share = _bounded(x, y, weight)
        off_w = y - x * (1.0 + share) - fixed_w
        spread_w = MAD_TO_SIGMA * float(np.median(np.abs(off_w - np.median(off_w))))
        spread_w = max(spread_w, abs(float(np.median(off_w))))
        edge_w = HUBER * max(spread_w, 1e-9)
        weight = np.minimum(1.0, edge_w / np.maximum(np.abs(off_w), edge_w))
    return fixed_w, share, spread_w


def _bounded(x: Floats, y: Floats, weight: Floats) -> tuple[float, float]:
    """Weighted least squares of y - x on x with `fixed_w` >= 0 and `share` in 0 to MOST_SHARE.

    A convex problem in two unknowns: where the free optimum lies outside, one of the bounds holds.
    """
    over = y - x
    total = float(weight.sum())
    mean_x, mean_o = float(weight @ x) / total, float(weight @ over) / total
    var = float(weight @ (x - mean_x) ** 2)
    share = float(weight @ ((x - mean_x) * (over - mean_o))) / var if var > 0 else 0.0
    share = min(max(share, 0.0), MOST_SHARE)
    fixed_w = mean_o - share * mean_x
    if fixed_w >= 0.0:
        return fixed_w, share
    through = float(weight @ (x * over)) / float(weight @ (x * x))
    return 0.0, min(max(through, 0.0), MOST_SHARE)


def reserved_w(overhead: Overhead | None, stated_w: float, most_w: float) -> float:
    """Watts to keep free for what nobody leases: never less than the site file states, W.

    Args:
        overhead: the learnt model, if one is believed.
        stated_w: `Rules.other_load_w`.
        most_w: what the whole site may draw, W.
    """
    if overhead is None or not math.isfinite(overhead.under_w(most_w)):
        return stated_w
    return max(stated_w, overhead.under_w(most_w))
