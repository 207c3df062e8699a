"""Whether a pool credits the work that it accepted from us: its own figures held against ours.

Both sides count the same shares, so they would agree exactly, were it not that a pool tells its
figures late (ckpool: once a minute). So what it says must lie between what we had `lag_s` ago and
what we have now. Outside of that, up to 2 % may be missing: shares whose answer was lost, a pool's
own rounding. The alarm comes when the true rate of missing shares is above that beyond doubt: of n
shares of which each is missing by chance with 2 %, more than 3 standard deviations above 2 % are
missing. n is the number of equal shares that spreads as ours do, sum(d)^2 / sum(d^2), and below 100
nothing is said at all. Pure: time comes with the samples.
"""

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.mining.shares import ShareCounts

ALLOWED = 0.02
SIGMAS = 3.0
LEAST_SHARES = 100
LAG_S = 150.0
"""A pool that writes its figures each minute, seen through a cache of another minute."""

MOST_SAMPLES = 1440
"""A day of one a minute; older ones no longer count."""

USER = object()
"""In a path: our own name at the pool."""

PATHS: tuple[tuple[object, ...], ...] = (
    ("users", USER, "accepted_difficulty"),  # the loopback pool's /v1/status
    ("worker", ("workername", USER), "shares"),  # a user's page of ckpool; of difficulty 1
)
"""Where pools write the difficulty that they have accepted. A pair finds the row of a list in which
that key has that value. Totals of a whole account are left alone: others may mine for it, too."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    ours: float
    ours_sq: float
    lost: float
    theirs: float


def accepted_difficulty(report: Any, user: str) -> float | None:
    """The difficulty that a pool's page says it has accepted from `user`; None where it does not.

    Args:
        report: the page, as JSON.
        user: our name at the pool, with the worker's where there is one.
    """
    for path in PATHS:
        found = report
        for step in path:
            found = _step(found, step, user)
        if isinstance(found, int | float) and not isinstance(found, bool):
            value = float(found) if abs(found) < 1e300 else math.inf
            return value if math.isfinite(value) and value >= 0 else None
    return None


class PoolAudit:
    """One pool's figures and ours, sample by sample.

    Attributes:
        alarm: how they differ; None while they agree, or while it is too early to say.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.alarm: str | None = None
        self._samples: deque[_Sample] = deque(maxlen=MOST_SAMPLES)

    def take(self, now_s: float, ours: ShareCounts, theirs: float) -> None:
        """Hold one pair of figures against those of before.

        Args:
            now_s: a clock that only runs forward, s.
            ours: all shares of this pool until now.
            theirs: the difficulty that the pool says it has accepted, `accepted_difficulty`.
        """
        mean = ours.accepted_difficulty / max(1, ours.accepted)
        sample = _Sample(
            now_s,
            ours.accepted_difficulty,
            ours.accepted_difficulty_sq,
            (ours.lost_total + ours.waiting) * mean,  # perhaps the pool has them all the same
            theirs,
        )
        if self._samples and (
            theirs < self._samples[-1].theirs or sample.ours < self._samples[-1].ours
        ):
            self._samples.clear()  # one of the two began anew
        self._samples.append(sample)
        self.alarm = self._judged(sample)

    def _judged(self, now: _Sample) -> str | None:
        times = [sample.at_s for sample in self._samples]
        early = self._samples[0]
        first = bisect_right(times, early.at_s + LAG_S)
        late = bisect_right(times, now.at_s - LAG_S) - 1
        if first >= len(times) or late < first:
            return None
        begin = self._samples[first]
        credited = now.theirs - begin.theirs
        found, spread = now.ours - begin.ours, now.ours_sq - begin.ours_sq
        shares = found**2 / spread if spread > 0 else 0.0
        if shares < LEAST_SHARES:
            return None
        missing = self._samples[late].ours - begin.ours - credited
        extra = credited - (now.ours + now.lost - early.ours)
        doubt = SIGMAS * math.sqrt(ALLOWED * (1 - ALLOWED) / shares)
        off = max(missing, extra)
        if off <= (ALLOWED + doubt) * found:
            return None
        share_pct = 100 * off / found
        if missing > extra:
            return f"the pool credits {share_pct:.1f} % less than it accepted from us"
        return f"the pool credits {share_pct:.1f} % more than we found: does another use our name?"


def _step(found: Any, step: object, user: str) -> Any:
    """One step of a path; None where it leads nowhere."""
    if isinstance(step, tuple):
        key, value = step[0], user if step[1] is USER else step[1]
        rows = found if isinstance(found, list) else []
        return next((row for row in rows if isinstance(row, dict) and row.get(key) == value), None)
    return found.get(user if step is USER else step) if isinstance(found, dict) else None
