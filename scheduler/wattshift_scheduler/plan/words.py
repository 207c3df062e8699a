"""What a plan is made from, what it says, and which part of it the control loop holds on to.

Everything is by interval: `n` intervals of `step_s` from `start_s` on. What a plan is made from is
checked here once, and whatever cannot be is refused by its name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.errors import SchedulerError
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan import checks, limits
from wattshift_scheduler.plan.checks import PlanInvalid as PlanInvalid
from wattshift_scheduler.plan.limits import Hold as Hold
from wattshift_scheduler.plan.limits import Limit as Limit
from wattshift_scheduler.plan.limits import Zone as Zone

Status = Literal["optimal", "feasible", "infeasible", "time-limit"]

STANDS_S = 900.0
"""A plan older than this is no longer used: prices and jobs have moved on by then, s."""

STANDING_S = 4.0 * 3600.0
"""How far ahead the control loop is told, s; it is told anew every few minutes."""

MOST_INTERVALS = 2_000
"""A week of five minutes; longer horizons are made of longer intervals."""

MOST_KINDS = 400
MOST_BATCHES = 400
MOST_COMMITMENTS = 400
MOST_PEAKS = 24
"""Bounds of what one plan may hold, so that it can be solved in the time between two of them."""


class PlannerMissing(SchedulerError):
    """The solver is not installed on this machine."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Devices alike.

    Attributes:
        name: unique within a plan.
        count: how many there are.
        points_w: draw of one device at each operating point, rising, W; the first is its rest.
        usd_per_h: what one device earns at each, before energy, USD/h; as long as `points_w`.
        fenced: they shed by themselves within a gate's time, so inference may take their watts.
        up_s: from rest to work, s; meanwhile one draws its top watts and earns nothing.
        cycle_usd: what one sleep and wake costs one device, USD: wear, and what it does not earn
            while it comes up (`Ladder.cycle_usd`).
        min_up_s, min_down_s: for which it stays up, or down, at least, s.
        running: how many are up at the start.
        since_s: for how long they have been as they are, at the start, s; infinite: for long.
        down_s: until the slowest of them has come down to its rest, s.
        under: names of the limits that all of them hang under.
    """

    name: str
    count: int
    points_w: tuple[float, ...]
    usd_per_h: tuple[float, ...]
    fenced: bool = False
    up_s: float = 0.0
    cycle_usd: float = 0.0
    min_up_s: float = 0.0
    min_down_s: float = 0.0
    running: int = 0
    since_s: float = math.inf
    down_s: float = 0.0
    under: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 0 or not 0 <= self.running <= self.count:
            raise PlanInvalid(self.name, f"{self.running} of {self.count} devices cannot run")
        if len(self.points_w) != len(self.usd_per_h) or not self.points_w:
            raise PlanInvalid(self.name, "each of its operating points needs watts and a value")
        checks.least(self.name, "watts", self.points_w)
        checks.finite(self.name, "values", self.usd_per_h)
        if any(later <= earlier for earlier, later in pairwise(self.points_w)):
            raise PlanInvalid(self.name, f"its watts must rise, not {self.points_w}")
        times_s = (self.up_s, self.min_up_s, self.min_down_s, self.down_s)
        checks.least(self.name, "times", times_s)
        checks.least(self.name, "cycle_usd", (self.cycle_usd,))
        checks.least(self.name, "since_s", (self.since_s,), endless=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Deferrable work of a known energy.

    Attributes:
        name: its job's id; unique within a plan.
        left_wh: energy that it still needs, Wh.
        most_w, fewest_w: most that it can draw, and least while it runs, W.
        value_usd: of all that is left, USD; 0 where none is stated: then it is owed.
        deadline_s: after the plan's start, s; infinite: none.
    """

    name: str
    left_wh: float
    most_w: float
    value_usd: float = 0.0
    deadline_s: float = math.inf
    fewest_w: float = 0.0

    def __post_init__(self) -> None:
        checks.least(
            self.name, "figures", (self.left_wh, self.most_w, self.value_usd, self.fewest_w)
        )
        checks.least(self.name, "deadline_s", (self.deadline_s,), endless=True)
        if self.fewest_w > self.most_w:
            raise PlanInvalid(self.name, f"fewest_w {self.fewest_w} lies above its most_w")


@dataclass(frozen=True, slots=True)
class Commitment:
    """A promise to draw less: a demand response event, or a contract's cap.

    Attributes:
        name: unique within a plan.
        starts_s, ends_s: UTC.
        limit_w: below which the site keeps, W: its baseline less `reduction_w`.
        usd_per_mwh: paid for what is reduced, USD/MWh.
        reduction_w: what was promised, W.
        penalty_usd_per_mwh: for what of it is not reduced, USD/MWh, beyond the pay that is lost.
        firm: no money buys it out: `limit_w` is a hard cap.
    """

    name: str
    starts_s: float
    ends_s: float
    limit_w: float
    usd_per_mwh: float = 0.0
    reduction_w: float = 0.0
    penalty_usd_per_mwh: float = 0.0
    firm: bool = False

    def __post_init__(self) -> None:
        checks.finite(self.name, "span", (self.starts_s, self.ends_s))
        if self.ends_s <= self.starts_s:
            raise PlanInvalid(self.name, f"it ends at {self.ends_s}, before it has begun")
        money = (self.usd_per_mwh, self.penalty_usd_per_mwh)
        checks.least(self.name, "watts and prices", (self.limit_w, self.reduction_w, *money))


@dataclass(frozen=True, slots=True)
class Peak:
    """A charge on the highest draw.

    Attributes:
        name: unique within a plan.
        usd_per_w: what a W more costs, USD/W.
        chance: that each interval is the coincident peak, 0 to 1, shape (n,); None: the charge is
            on the site's own highest interval of the month (a demand charge).
        so_far_w: the month's highest until now, W; up to it a demand charge costs nothing.
    """

    name: str
    usd_per_w: float
    chance: Floats | None = None
    so_far_w: float = 0.0

    def __post_init__(self) -> None:
        checks.least(self.name, "figures", (self.usd_per_w, self.so_far_w))
        if self.chance is not None:
            checks.least(self.name, "chances", self.chance.tolist())
            if self.chance.max(initial=0.0) > 1.0:
                raise PlanInvalid(self.name, "a chance lies in 0 to 1")


@dataclass(frozen=True, slots=True)
class Ahead:
    """All that a plan is made from. Raises PlanInvalid, which names the item.

    Attributes:
        start_s, step_s: when the first interval begins, UTC, and how long each is, s.
        price: of energy, USD/MWh.
        cap_w: most that the site's meter may show, W; infinite: none; shape (n,).
        other: draw of what nobody plans (cooling, losses, unleased work), W.
        services: draw of inference, W: its middle is served, up to its high is kept reachable.
        solar: own generation, W; what is not used of it is lost. None: there is none.
        kinds, batches, commitments, peaks: as above.
        ramp_up_w_per_s, ramp_down_w_per_s: steepest change of the site's mean, W/s.
        carbon_g_per_kwh: of energy from the grid; None: unknown or of no interest.
        carbon_usd_per_t: what a tonne of it is to cost, USD.
        compute_w: most that services and batch can draw together, on their nodes, W.
        prospect: how prices may move on where `price` is a forecast; None: that is not known.
        limits, zones: feeders below the connection that may be full, and where compute hangs under
            them; without limits there is no need of zones.
        holds: mining that promises need drawn before they begin.
    """

    start_s: float
    step_s: float
    price: Band
    cap_w: Floats
    other: Band
    services: Band
    solar: Band | None = None
    kinds: tuple[Kind, ...] = ()
    batches: tuple[Batch, ...] = ()
    commitments: tuple[Commitment, ...] = ()
    peaks: tuple[Peak, ...] = ()
    ramp_up_w_per_s: float = math.inf
    ramp_down_w_per_s: float = math.inf
    carbon_g_per_kwh: Band | None = None
    carbon_usd_per_t: float = 0.0
    compute_w: float = math.inf
    prospect: Prospect | None = None
    limits: tuple[Limit, ...] = ()
    zones: tuple[Zone, ...] = ()
    holds: tuple[Hold, ...] = ()

    def __post_init__(self) -> None:
        checks.finite("start_s", "time", (self.start_s,))
        if not (math.isfinite(self.step_s) and self.step_s > 0):
            raise PlanInvalid("step_s", f"an interval must last, not {self.step_s} s")
        n = len(self.cap_w)
        if not 0 < n <= MOST_INTERVALS:
            raise PlanInvalid("cap_w", f"a plan has 1 to {MOST_INTERVALS} intervals, not {n}")
        checks.least("cap_w", "watts", self.cap_w.tolist(), endless=True)
        checks.band("price", self.price, n, least=-math.inf)
        checks.band("other", self.other, n)
        checks.band("services", self.services, n)
        if self.solar is not None:
            checks.band("solar", self.solar, n)
        if self.carbon_g_per_kwh is not None:
            checks.band("carbon_g_per_kwh", self.carbon_g_per_kwh, n)
        checks.least("carbon_usd_per_t", "price", (self.carbon_usd_per_t,))
        checks.least("compute_w", "watts", (self.compute_w,), endless=True)
        for name, ramp in (("up", self.ramp_up_w_per_s), ("down", self.ramp_down_w_per_s)):
            if not ramp > 0:
                raise PlanInvalid(f"ramp_{name}_w_per_s", f"a ramp must be > 0 W/s, not {ramp}")
        checks.unique("kind", [one.name for one in self.kinds], MOST_KINDS)
        checks.unique("batch", [one.name for one in self.batches], MOST_BATCHES)
        checks.unique("commitment", [one.name for one in self.commitments], MOST_COMMITMENTS)
        checks.unique("peak", [one.name for one in self.peaks], MOST_PEAKS)
        if self.prospect is not None:
            checks.prospect("prospect", self.prospect, n)
        under = {one.name: one.under for one in self.kinds}
        limits.check(n, self.limits, self.zones, self.holds, under)
        for peak in self.peaks:
            if peak.chance is not None and peak.chance.shape != (n,):
                raise PlanInvalid(peak.name, f"it has {len(peak.chance)} chances for {n} intervals")

    def __len__(self) -> int:
        return len(self.cap_w)

    @property
    def hours(self) -> float:
        """Length of one interval, h."""
        return self.step_s / 3600.0

    def starts_s(self) -> Floats:
        """When each interval begins, UTC; shape (n,)."""
        return np.asarray(self.start_s + self.step_s * np.arange(len(self)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next intervals are to look like, and what that says of each watt and each machine.

    Attributes:
        made_s: when its figures were taken, UTC: the start.
        start_s, step_s: of the intervals.
        status: "optimal"; "feasible": near intervals are not proven best; "infeasible": demands
            had to be given up (`infeasible`); "time-limit": there is no plan, and nothing below is
            to be used but `reserve_w`.
        gap: share of `usd` by which it can lie below the best at the most.
        solve_s: what it took, s; 0 where nobody looked at a clock.
        usd: expected value of all intervals: what is earned less energy, cycles and charges.
        price_usd_per_mwh: of energy, carbon counted in; shape (n,).
        shadow_usd_per_mwh: what one more Wh of the site costs: price, expected peak charges, and
            what a cap or a promise that binds is worth; shape (n,).
        awake_usd: worth of a device that is up over one at rest, at the end of each interval, 0 to
            its cycle_usd; shape (n, kinds).
        reserve_w: to be kept reachable for services; shape (n,).
        hold_w: reserved for each batch with a deadline; shape (n, batches).
        mining_w: draw of each kind, those at rest counted in; shape (n, kinds).
        awake: devices of each kind that are up; shape (n, kinds).
        batch_w: draw of each batch; shape (n, batches).
        services_w, cap_w, site_w: what is served, the cap, and the meter; shape (n,).
        kinds, batches: names of the columns.
        capped_usd_per_mwh: of the shadow price, what a full cap is worth; shape (n,). None: not
            told apart.
        carbon_usd_per_mwh: of the price, what its carbon is to cost; shape (n,). None: not counted.
        events: what will happen, for people, in order of time.
        infeasible: what could not be met, for people, most important first.
        sure: intervals from the first on whose price is known and not foreseen; None: all.
        batch_usd_per_mwh: what a MWh of each batch is worth now: the dearest hour that it is to run
            in; infinite: owed whatever it costs; NaN: it has no deadline; shape (batches,). None:
            not told.
        needs_s: for how long each batch must be at work before its deadline (`deadlines`); shape
            (batches,). None: not told.
        expected: where it is foreseen, awake_usd is an expectation over how such prices move on.
        limits: names of the feeders below the connection that may be full.
        limit_usd_per_mwh: what a Wh costs beyond the shadow price under each of them; NaN where it
            cannot be kept; shape (n, limits). None: there are none.
    """

    made_s: float
    start_s: float
    step_s: float
    status: Status
    gap: float
    solve_s: float
    usd: float
    price_usd_per_mwh: Floats
    shadow_usd_per_mwh: Floats
    awake_usd: Floats
    reserve_w: Floats
    hold_w: Floats
    mining_w: Floats
    awake: Floats
    batch_w: Floats
    services_w: Floats
    cap_w: Floats
    site_w: Floats
    kinds: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    capped_usd_per_mwh: Floats | None = None
    carbon_usd_per_mwh: Floats | None = None
    events: tuple[str, ...] = ()
    infeasible: tuple[str, ...] = ()
    sure: int | None = None
    batch_usd_per_mwh: Floats | None = None
    needs_s: Floats | None = None
    expected: bool = False
    limits: tuple[str, ...] = ()
    limit_usd_per_mwh: Floats | None = None

    def __len__(self) -> int:
        return len(self.site_w)

    @property
    def usable(self) -> bool:
        """Whether its prices and worths may be acted on."""
        return self.status != "time-limit"


@dataclass(frozen=True, slots=True)
class Standing:
    """The part of a plan that the control loop uses. Raises PlanInvalid.

    Attributes:
        made_s, start_s, step_s: as of the plan.
        expires_s: from then on it is not used.
        price_usd_per_mwh, shadow_usd_per_mwh, reserve_w: as of the plan; shape (m,).
        awake_usd: of each kind, by its name; shape (m,) each.
        batch_usd_per_mwh: what a MWh of each batch with a deadline is worth now, by its job's id;
            one that is owed whatever it costs is not told (`waiting`).
        needs_s: for how long each must be at work before its deadline, s; one that must be so in
            any case is not told.
        capped_usd_per_mwh, carbon_usd_per_mwh: as of the plan; shape (m,).
    """

    made_s: float
    start_s: float
    step_s: float
    expires_s: float
    price_usd_per_mwh: Floats
    shadow_usd_per_mwh: Floats
    reserve_w: Floats
    awake_usd: Mapping[str, Floats] = field(default_factory=dict)
    batch_usd_per_mwh: Mapping[str, float] = field(default_factory=dict)
    needs_s: Mapping[str, float] = field(default_factory=dict)
    capped_usd_per_mwh: Floats | None = None
    carbon_usd_per_mwh: Floats | None = None

    def __post_init__(self) -> None:
        checks.finite("times", "time", (self.made_s, self.start_s, self.step_s, self.expires_s))
        if self.step_s <= 0:
            raise PlanInvalid("step_s", f"an interval must last, not {self.step_s} s")
        n = len(self.shadow_usd_per_mwh)
        if not n or n > MOST_INTERVALS:
            raise PlanInvalid("shadow_usd_per_mwh", f"{n} intervals, and 1 is the least")
        for name in ("price_usd_per_mwh", "shadow_usd_per_mwh"):
            checks.column_of(name, getattr(self, name), n, -math.inf)
        for name, least in (("capped_usd_per_mwh", 0.0), ("carbon_usd_per_mwh", -math.inf)):
            if getattr(self, name) is not None:
                checks.column_of(name, getattr(self, name), n, least)
        checks.column_of("reserve_w", self.reserve_w, n, 0.0)
        for of in ("awake_usd", "batch_usd_per_mwh", "needs_s"):
            if len(getattr(self, of)) > max(MOST_KINDS, MOST_BATCHES):
                raise PlanInvalid(of, f"it has {len(getattr(self, of))} rows")
        for name, column in self.awake_usd.items():
            checks.column_of(f"awake_usd of {name}", column, n, 0.0)
        for name, usd in self.batch_usd_per_mwh.items():
            checks.finite(f"batch_usd_per_mwh of {name}", "worth", (usd,))
        for name, need_s in self.needs_s.items():
            checks.least(f"needs_s of {name}", "time", (need_s,))

    @classmethod
    def of(cls, plan: Plan, *, stands_s: float = STANDS_S) -> "Standing":
        """What of `plan` the control loop is told; PlanInvalid for one that is not usable.

        What awake is worth hangs on the prices that come next. Where those are foreseen, and it is
        not known how such prices move on, it is left out: the rule without a plan waits until a
        turn has paid, and so loses little whatever comes; a forecast that errs may lose a cycle of
        every machine.
        """
        if not plan.usable:
            raise PlanInvalid("plan", f"it has no figures to act on: {plan.status}")
        most = max(math.ceil(STANDING_S / plan.step_s), 1)
        known = plan.expected or plan.sure is None or plan.sure >= min(most + 1, len(plan))
        kinds = plan.kinds if known else ()
        awake = {name: plan.awake_usd[:most, i] for i, name in enumerate(kinds)}
        none = np.full(len(plan.batches), np.nan)
        worth = none if plan.batch_usd_per_mwh is None else plan.batch_usd_per_mwh
        needs_s = none if plan.needs_s is None else plan.needs_s
        return cls(
            made_s=plan.made_s,
            start_s=plan.start_s,
            step_s=plan.step_s,
            expires_s=plan.made_s + stands_s,
            price_usd_per_mwh=plan.price_usd_per_mwh[:most],
            shadow_usd_per_mwh=plan.shadow_usd_per_mwh[:most],
            reserve_w=plan.reserve_w[:most],
            awake_usd=MappingProxyType(awake),
            batch_usd_per_mwh=_told(plan.batches, worth),
            needs_s=_told(plan.batches, needs_s),
            capped_usd_per_mwh=_first(plan.capped_usd_per_mwh, most),
            carbon_usd_per_mwh=_first(plan.carbon_usd_per_mwh, most),
        )

    def at(self, now_s: float) -> int | None:
        """The interval in force; None before the first, after the last, and once it has expired."""
        if not now_s < self.expires_s or now_s < self.start_s:
            return None
        i = int((now_s - self.start_s) // self.step_s)
        return i if i < len(self.shadow_usd_per_mwh) else None

    def left_s(self, now_s: float) -> float:
        """What is left of the interval in force, s."""
        return self.step_s - (now_s - self.start_s) % self.step_s


def _first(column: Floats | None, most: int) -> Floats | None:
    return None if column is None else column[:most]


def _told(names: tuple[str, ...], figures: Floats) -> Mapping[str, float]:
    """What of some figures is finite, by name."""
    rows = zip(names, figures.tolist(), strict=True)
    return MappingProxyType({name: one for name, one in rows if math.isfinite(one)})
