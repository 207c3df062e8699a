"""The burst reserve: watts that services can have within the gates' time; till then they mine.

Each change of what services ask for is remembered. How far it rose within the time that a machine
without a gate needs to give its watts back is the burst to be ready for; so many watts stay free or
with devices behind gates. What the grid may call for by the same gates is counted beside it, never
in its place: no watt is promised twice (I8). What is held up for such calls is a word here, too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.forecasts.forecast import burst_w

KEPT_S = 6 * 3600.0
"""Changes of demand older than this say nothing of the next burst: services know hours of the
day."""

MOST_CHANGES = 256
"""Changes that are remembered; some hundreds hold the 99th percentile of bursts."""

LEAST_RISES = 3
"""With fewer rises seen the largest single unit that may still come is kept, too: every burst
begins with one."""

REARM_S = 300.0
"""A burst that lasts no longer uses the reserve up, and it is not made good meanwhile: a machine
that were put to sleep for that would hardly be down before it is wanted again."""

Asked = Mapping[str, tuple[int, float]]
"""Units that each service asks for and the watts of one, W, by job."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """How the demand of services has moved.

    Attributes:
        at_s: when it changed, our clock; shape (changes,).
        watts_w: what it was from then on, counted from an arbitrary level, W; shape (changes,).
            Services that come, go or are held back by a person are no burst and are left out.
        asked: what each service asked for at the last look.
        rises: how many of the changes were rises.
        burst_w, within_s, share: the burst that was taken from them, W, for which time and which
            quantile.
    """

    at_s: Floats = field(default_factory=lambda: np.zeros(0))
    watts_w: Floats = field(default_factory=lambda: np.zeros(0))
    asked: Asked = field(default_factory=dict)
    rises: int = 0
    burst_w: float = 0.0
    within_s: float = math.nan
    share: float = math.nan

    def noted(self, asked: Asked, within_s: float, share: float, now_s: float) -> "Bursts":
        """The same after a look at what services ask for now."""
        change_w = math.fsum(
            (units - self.asked[job][0]) * unit_w
            for job, (units, unit_w) in asked.items()
            if job in self.asked
        )
        moved = change_w != 0.0 or not len(self.at_s)
        old = len(self.at_s) and self.at_s[0] < now_s - KEPT_S
        if not (moved or old) and (self.within_s, self.share) == (within_s, share):
            return self if asked == self.asked else self._with(asked)
        at_s, watts_w = self.at_s, self.watts_w
        if moved:
            level_w = float(watts_w[-1]) if len(watts_w) else 0.0
            at_s, watts_w = np.append(at_s, now_s), np.append(watts_w, level_w + change_w)
        # The last change before the span says from where it began.
        first = max(int(np.searchsorted(at_s, now_s - KEPT_S)) - 1, len(at_s) - MOST_CHANGES, 0)
        at_s, watts_w = at_s[first:], watts_w[first:]
        rises = int((np.diff(watts_w) > 0).sum())
        found_w = burst_w(_looks(at_s, watts_w), within_s, share)
        found_w = 0.0 if math.isnan(found_w) else found_w
        return Bursts(at_s, watts_w, asked, rises, found_w, within_s, share)

    def _with(self, asked: Asked) -> "Bursts":
        return Bursts(
            self.at_s, self.watts_w, asked, self.rises, self.burst_w, self.within_s, self.share
        )

    def needs_w(self, unit_w: float, most_w: float, now_s: float) -> float:
        """Watts to be ready for: the burst, less what it has risen by already, W.

        Args:
            unit_w: watts of the largest unit that may still come, W.
            most_w: by how much services may still grow in all, W.
            now_s: our clock, s.
        """
        least_w = unit_w if self.rises < LEAST_RISES else 0.0
        left_w = max(self.burst_w, least_w) - self._risen_w(now_s)
        return max(min(left_w, most_w), 0.0)

    def _risen_w(self, now_s: float) -> float:
        """By how much the demand stands above its lowest for REARM_S, W."""
        if not len(self.at_s):
            return 0.0
        first = max(int(np.searchsorted(self.at_s, now_s - REARM_S, side="right")) - 1, 0)
        return float(self.watts_w[-1] - self.watts_w[first:].min())


def _looks(at_s: Floats, watts_w: Floats) -> list[tuple[float, float]]:
    """Each change as two looks, just before and just after it."""
    looks = [(float(at_s[0]), float(watts_w[0]))]
    for i in range(1, len(at_s)):
        looks.append((float(at_s[i]), float(watts_w[i - 1])))
        looks.append((float(at_s[i]), float(watts_w[i])))
    return looks


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is kept ready at the root and by what, W.

    Attributes:
        burst_w: for bursts of services.
        plan_w: for services, as the look-ahead plan sees it; the larger of both is kept.
        grid_w: promised to grid events that gates alone can serve in time.
        within_s: in which time that must be there without a machine that has no gate.
        gates_w: mining behind gates that answer, above its lowest points.
        free_w: what nothing may draw now.
        lent_w: what gates have given up for compute that would else wait for slower devices.
        waits_s: since when slow machines wait for work that leaves, our clock; NaN: none does.
    """

    burst_w: float = 0.0
    plan_w: float = 0.0
    grid_w: float = 0.0
    within_s: float = 0.0
    gates_w: float = 0.0
    free_w: float = 0.0
    lent_w: float = 0.0
    waits_s: float = math.nan

    @property
    def services_w(self) -> float:
        """What is kept for services, W."""
        return max(self.burst_w, self.plan_w)

    @property
    def short_w(self) -> float:
        """What lacks: promised to services and to the grid, and not within the gates' reach, W.

        What is free serves a burst; only mining that is shed serves the grid.
        """
        after_w = self.gates_w - self.grid_w
        return max(-after_w, self.services_w - max(after_w, 0.0) - self.free_w, 0.0)

    @property
    def by_kind(self) -> dict[str, float]:
        """Every figure by its kind, for metrics."""
        return {
            "burst": self.burst_w,
            "plan": self.plan_w,
            "grid": self.grid_w,
            "gates": self.gates_w,
            "free": self.free_w,
            "lent": self.lent_w,
            "short": self.short_w,
        }


@dataclass(frozen=True, slots=True)
class Held:
    """Mining that is held up for promises to the grid, which else would rest.

    Attributes:
        names: of the promises that need it, in a sentence; empty: none does.
        owed_w, within_s: the most that they need at one moment, W, and within which notice, s.
        rows: columns of the devices that are held up, rising.
        more_w: by how much each of them is to draw more than it would, W; shape (rows,).
        lost_usd_per_mwh: what each of them loses by that, USD/MWh; below 0 where it earns and
            another would earn more; shape (rows,).
        barred: why no more could be held up; empty where nothing lacks.
        fleet: whose columns these are.
    """

    names: str = ""
    owed_w: float = 0.0
    within_s: float = math.nan
    rows: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    more_w: Floats = field(default_factory=lambda: np.zeros(0))
    lost_usd_per_mwh: Floats = field(default_factory=lambda: np.zeros(0))
    barred: str = ""
    fleet: object = field(default=None, compare=False, repr=False)

    @property
    def held_w(self) -> float:
        """By how much all of them are to draw more than they would, W."""
        return float(self.more_w.sum())

    @property
    def lost_usd_per_h(self) -> float:
        """What all of them lose by that, USD/h."""
        return float((self.more_w * self.lost_usd_per_mwh).sum()) / 1e6

    def of(self, part: Floats) -> "Held":
        """The same where only a part of what each was to draw is left to it, 0 to 1."""
        left = np.flatnonzero(part > 0.0)
        return replace(
            self,
            rows=self.rows[left],
            more_w=(self.more_w * part)[left],
            lost_usd_per_mwh=self.lost_usd_per_mwh[left],
        )

    @property
    def mean_usd_per_mwh(self) -> float:
        """What the held watts lose, USD/MWh; 0 where none is held."""
        return self.lost_usd_per_h / self.held_w * 1e6 if self.held_w > 0 else 0.0
