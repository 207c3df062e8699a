"""What delivery is worth: payment factors, accuracy of a shed, and peaks that were hit.

Sources (grid reference, sections 4.1, 4.4 and 5.2): NESO's terms of its Demand Flexibility Service,
version 4; ERCOT's emergency response service; the monthly and summer coincident peaks (12CP, 4CP).
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints

DFS_MOST = 1.2
"""K is capped at this, from 120 % delivery on."""

DFS_PAID_FROM_PCT = 50.0

ERS_SQUARED_BELOW = 0.85
"""A resource below it counts with its square."""


def dfs_factor(delivered_pct: float) -> float:
    """NESO's payment factor K for a delivery in % of what was contracted; NaN of an unknown one.

    Stated: 1.2 from 120 % on, the delivery over 100 from 50 to 120 %, nothing below 25 %, negative
    in the wrong direction. Not recorded, and so a choice of this project, in both cases the one
    that promises less: between 25 and 50 % it is 0, and a delivery in the wrong direction costs its
    own share, at most 1.2.
    """
    if math.isnan(delivered_pct):
        return math.nan
    if delivered_pct < 0.0:
        return max(delivered_pct / 100.0, -DFS_MOST)
    if delivered_pct < DFS_PAID_FROM_PCT:
        return 0.0
    return min(delivered_pct / 100.0, DFS_MOST)


def ers_factor(performance: float) -> float:
    """ERCOT's performance factor of a resource in its portfolio, 0 to 1; NaN of an unknown one.

    A portfolio meets its obligation from 0.95 on.

    Args:
        performance: delivered as a share of the obligation; above 1 it counts as 1.
    """
    if math.isnan(performance):
        return math.nan
    share = min(max(performance, 0.0), 1.0)
    return share if share >= ERS_SQUARED_BELOW else share**2


@dataclass(frozen=True, slots=True)
class Shed:
    """What was shed against a commitment, by interval.

    Attributes:
        reduction_w: baseline less metered, W; negative: more was drawn; NaN unknown; shape (n,).
        performance: mean reduction over the commitment; NaN where an interval is unknown.
        unknown: intervals that are not known.
    """

    reduction_w: Floats
    performance: float
    unknown: int


def shed(baseline_w: Floats, metered_w: Floats, commitment_w: float) -> Shed:
    """Subtract what was metered from the baseline and compare with the commitment, W (section 6).

    Intervals of equal length; an unknown one leaves the performance unknown.
    """
    assert baseline_w.shape == metered_w.shape, "one baseline for each interval"
    assert commitment_w > 0, "a commitment is above 0 W"
    reduction_w = baseline_w - metered_w
    unknown = int((~np.isfinite(reduction_w)).sum())
    mean_w = float(reduction_w.mean()) if len(reduction_w) else math.nan
    return Shed(reduction_w, mean_w / commitment_w, unknown)


@dataclass(frozen=True, slots=True)
class Peaks:
    """Coincident peaks against what the site did.

    Attributes:
        rows: interval of the peak of each period that could be told, in order.
        hits: peaks at which the site was curtailed.
        unknown: periods whose peak cannot be told, because an interval of them is unknown.
        curtailed: intervals in which the site was curtailed: what the hits cost.
    """

    rows: tuple[int, ...]
    hits: int
    unknown: int
    curtailed: int

    @property
    def hit_rate(self) -> float:
        """Hits of all peaks, those that cannot be told counted as missed; NaN of none."""
        count = len(self.rows) + self.unknown
        return self.hits / count if count else math.nan


def peaks(system_w: Floats, period: Ints, curtailed: Bools) -> Peaks:
    """Find the system's peak in each period, and whether the site was curtailed then.

    Args:
        system_w: demand of the whole system per interval, W; shape (n,).
        period: number of the period that each interval belongs to (a month for 12CP; the four
            summer months alone for 4CP, all others left out by the caller); shape (n,).
        curtailed: whether the site was curtailed; shape (n,). Of equal peaks the first counts.
    """
    assert system_w.shape == period.shape == curtailed.shape, "one row for each interval"
    rows: list[int] = []
    unknown = 0
    for one in np.unique(period):
        own = np.flatnonzero(period == one)
        if np.isfinite(system_w[own]).all():
            rows.append(int(own[np.argmax(system_w[own])]))
        else:
            unknown += 1
    return Peaks(tuple(rows), int(curtailed[rows].sum()), unknown, int(curtailed.sum()))
