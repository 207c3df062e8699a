"""What a site's machines do with what a policy asks, and what that comes to in money.

- A bank that leaves rest draws the watts of its new point and earns nothing for `up_s`; a cycle of
  sleep and wake wears it. Falling is at once: that takes firmwares seconds.
- Batch units draw `UNIT_W` while their job has work left; work that is done by its deadline is
  paid by the hour, what is not costs a penalty.
- Services draw what their units draw, at once, whatever anybody does: no policy gains by them, so
  their energy is in nobody's books. A unit that they lack is a breach.
- An event pays for what the interval's mean lies below the base, up to what was promised, and
  costs for what of that is missing. A coincident peak costs by the interval's mean.
- At the end every bank that rests is charged the cycle that brings it back: a stretch must not end
  better by leaving the next one cold.

Breaches are counted: seconds above the cap, rises of the mean beyond the ramp, jobs that miss their
deadline, intervals in which services lack units.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from benchmarks.economics_case import (
    BASE_W,
    BATCH_USD_PER_UNIT_H,
    CP_USD_PER_W,
    LATE_USD_PER_UNIT_H,
    RAMP_UP_W_PER_S,
    Case,
)
from benchmarks.economics_site import UNIT_W, UNITS, Yard

from wattshift_scheduler.arrays import Floats, Ints

EPS_W = 1.0
EPS_H = 1e-6
ITEMS = ("energy", "mining", "batch", "events", "peaks", "cycles")


@dataclass(slots=True)
class Books:
    """Money by what it came from, USD (costs negative), and breaches by kind."""

    usd: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ITEMS, 0.0))
    breaches: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("cap_s", "ramp", "deadline", "slo"), 0.0)
    )
    cycles: int = 0

    @property
    def total_usd(self) -> float:
        """Everything."""
        return sum(self.usd.values())

    def plus(self, other: "Books") -> "Books":
        """Both together."""
        return Books(
            {name: self.usd[name] + other.usd[name] for name in self.usd},
            {name: self.breaches[name] + other.breaches[name] for name in self.breaches},
            self.cycles + other.cycles,
        )


@dataclass(slots=True)
class World:
    """The site during a case. `now_s` counts from the trace's first interval.

    Attributes:
        case, yard: what it is made from.
        points: of each bank; shape (b,). At first all run at their top.
        up_at_s: when each has come up, s; shape (b,).
        left_h: unit-hours left, by job.
        units: batch units that run, by job.
        serving: units that the services have.
        books: what it came to.
        means_w: of each interval that is over, the site's mean draw, W.
        mining_w, batch_w: the same of the parts.
    """

    case: Case
    yard: Yard
    points: Ints = field(init=False)
    up_at_s: Floats = field(init=False)
    left_h: dict[str, float] = field(init=False)
    units: dict[str, int] = field(default_factory=dict)
    serving: int = 0
    books: Books = field(default_factory=Books)
    means_w: list[float] = field(default_factory=list)
    mining_w: list[float] = field(default_factory=list)
    batch_w: list[float] = field(default_factory=list)
    now_s: float = field(init=False)
    _mining_j: float = 0.0
    _batch_j: float = 0.0

    def __post_init__(self) -> None:
        self.points = self.yard.top.copy()
        self.up_at_s = np.full(len(self.yard), -np.inf)
        self.left_h = {one.name: one.unit_h for one in self.case.jobs}
        self.now_s = self.case.first * self.case.trace.step_s

    @property
    def i(self) -> int:
        """The interval that runs."""
        return int((self.now_s + 1e-6) // self.case.trace.step_s)

    @property
    def ends_s(self) -> float:
        """When that is over."""
        return (self.i + 1) * self.case.trace.step_s

    def set_points(self, points: Ints) -> None:
        """Command the banks; those that leave rest begin to come up."""
        wakes = (self.points == 0) & (points > 0)
        self.up_at_s[wakes] = self.now_s + self.yard.up_s[wakes]
        self.books.usd["cycles"] -= float(self.yard.wear_usd[wakes].sum())
        self.books.cycles += int(wakes.sum())
        self.points = points.copy()

    def set_units(self, units: Mapping[str, int], serving: int) -> None:
        """How many units each batch job and the services have from now on."""
        self.units = {name: count for name, count in units.items() if count > 0}
        self.serving = serving

    def drawn_w(self) -> Floats:
        """What each bank draws now, W; shape (b,)."""
        return self.yard.draw_w(self.points)

    def site_w(self) -> float:
        """What the site draws now, W."""
        busy = sum(n for name, n in self.units.items() if self.left_h[name] > EPS_H)
        return float(self.drawn_w().sum()) + UNIT_W * (busy + self.case.need(self.i))

    def hold(self, to_s: float) -> None:
        """Let time pass with all as it is, within one interval; at its end it is closed."""
        i, elapsed_s = self.i, to_s - self.now_s
        assert 0 < elapsed_s <= self.ends_s - self.now_s + 1e-6, "time passes within an interval"
        cap_w = self.case.cap_w(i)
        if self.site_w() > cap_w + EPS_W:
            self.books.breaches["cap_s"] += elapsed_s
        self._mine(i, elapsed_s)
        self._work(i, elapsed_s / 3600.0)
        ends = to_s >= self.ends_s - 1e-6
        if ends and self.serving < self.case.need(i):
            self.books.breaches["slo"] += 1
        self.now_s = to_s
        if ends:
            self._close(i)

    def _mine(self, i: int, elapsed_s: float) -> None:
        yard, price = self.yard, float(self.case.trace.price_usd_per_mwh[i])
        up = self.points > 0
        coming_s = np.where(up, np.clip(self.up_at_s - self.now_s, 0.0, elapsed_s), 0.0)
        works_s = elapsed_s - coming_s
        joules = elapsed_s * self.drawn_w()
        earned = yard.usd_per_h[np.arange(len(yard)), self.points] * works_s / 3600.0
        self._mining_j += float(joules.sum())
        self.books.usd["energy"] -= float(joules.sum()) / 3.6e9 * price
        self.books.usd["mining"] += float(earned.sum())

    def _work(self, i: int, hours: float) -> None:
        price = float(self.case.trace.price_usd_per_mwh[i])
        open_jobs = {one.name for one in self.case.open_jobs(i)}
        for name, count in self.units.items():
            if name not in open_jobs:
                continue
            done_h = min(count * hours, self.left_h[name])
            self.left_h[name] -= done_h
            self._batch_j += done_h * 3600.0 * UNIT_W
            self.books.usd["batch"] += done_h * BATCH_USD_PER_UNIT_H
            self.books.usd["energy"] -= done_h * UNIT_W / 1e6 * price

    def _close(self, i: int) -> None:
        case, step_s = self.case, self.case.trace.step_s
        services_w = UNIT_W * case.need(i)
        mean_w = (self._mining_j + self._batch_j) / step_s + services_w
        before_w = self.means_w[-1] if self.means_w else np.inf
        if mean_w - before_w > RAMP_UP_W_PER_S * step_s + EPS_W:
            self.books.breaches["ramp"] += 1
        for one in case.running(i):
            reduced_w = min(max(BASE_W - mean_w, 0.0), one.reduction_w)
            mwh = case.trace.hours / 1e6
            self.books.usd["events"] += reduced_w * mwh * one.usd_per_mwh
            missing_w = one.reduction_w - reduced_w
            self.books.usd["events"] -= missing_w * mwh * one.penalty_usd_per_mwh
        if i in case.peaks:
            self.books.usd["peaks"] -= (mean_w - services_w) * CP_USD_PER_W
        for job in case.jobs:
            if job.deadline == i + 1 and self.left_h[job.name] > EPS_H:
                self.books.breaches["deadline"] += 1
                self.books.usd["batch"] -= self.left_h[job.name] * LATE_USD_PER_UNIT_H
        self.means_w.append(mean_w)
        self.mining_w.append(self._mining_j / step_s)
        self.batch_w.append(self._batch_j / step_s)
        self._mining_j = self._batch_j = 0.0
        if i + 1 == case.end:
            rests = self.points == 0
            self.books.usd["cycles"] -= float(self.yard.cycle_usd[rests].sum())

    def ramp_room_w(self) -> float:
        """The most that the site may draw on average in this interval by its ramp, W."""
        before_w = self.means_w[-1] if self.means_w else np.inf
        return before_w + RAMP_UP_W_PER_S * self.case.trace.step_s

    def free_units(self) -> int:
        """Units that the services leave to batch work now."""
        return UNITS - self.case.need(self.i)
