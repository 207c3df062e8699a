"""What the controller counts about itself: decision times, shed times, time above the cap, energy.

Counters grow from the start of the process; histograms have the buckets that /metrics shows.
"""

import bisect
from dataclasses import dataclass, field
from typing import Any

DECISION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SHED_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 30.0, 60.0, 300.0)
GAP_MAX_S = 5.0
"""A longer gap between two meter samples is not counted as anything."""


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound, s."""

    bounds_s: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.bounds_s)

    def add(self, value_s: float) -> None:
        """Count one value."""
        at = bisect.bisect_left(self.bounds_s, value_s)
        if at < len(self.counts):
            self.counts[at] += 1
        self.sum_s += value_s
        self.count += 1

    def view(self) -> dict[str, Any]:
        """Cumulative counts, as Prometheus wants them."""
        buckets, total = {}, 0
        for bound, count in zip(self.bounds_s, self.counts, strict=True):
            total += count
            buckets[bound] = total
        return {"buckets": buckets, "sum": self.sum_s, "count": self.count}


@dataclass(slots=True)
class Tally:
    """All counters of one controller.

    Attributes:
        decision_s, shed_s: how long a step took; how long a cut took until every ceiling fitted.
        overcap_s: meter time above the cap in force.
        cut_since_s: when the cut that is still being shed began; None if all fits.
        steps: steps made.
    """

    decision_s: Histogram = field(default_factory=lambda: Histogram(DECISION_BUCKETS_S))
    shed_s: Histogram = field(default_factory=lambda: Histogram(SHED_BUCKETS_S))
    overcap_s: float = 0.0
    cut_since_s: float | None = None
    steps: int = 0
    metered_s: float | None = None

    def stepped(self, seconds_s: float, committed_w: float, budget_w: float, now_s: float) -> None:
        """Count one step and whether the site's ceilings fit its budget after it."""
        self.steps += 1
        self.decision_s.add(seconds_s)
        fits = committed_w <= budget_w + 0.5
        if not fits and self.cut_since_s is None:
            self.cut_since_s = now_s
        elif fits and self.cut_since_s is not None:
            self.shed_s.add(now_s - self.cut_since_s)
            self.cut_since_s = None

    def metered_sample(self, watts_w: float, cap_w: float, at_s: float) -> None:
        """Count one meter sample against the cap in force."""
        gap_s = 0.0 if self.metered_s is None else at_s - self.metered_s
        if watts_w > cap_w and 0.0 < gap_s <= GAP_MAX_S:
            self.overcap_s += gap_s
        self.metered_s = at_s
