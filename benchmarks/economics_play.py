"""Who plays what on the bench: one case under every policy, and the parameters that they get.

Baselines get the best parameters that an earlier part of the same trace would have given: the first
tenth of the quarters (June 2024), and April and May of 2022, whose monthly peaks stand in for those
of summer. Ours gets none. Nothing is fitted on what is scored.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from benchmarks import economics_data
from benchmarks.economics_case import Case, case, month_of, months
from benchmarks.economics_clairvoyant import best
from benchmarks.economics_core import Core, Owner
from benchmarks.economics_data import DAY_S, Trace
from benchmarks.economics_ours import Ours
from benchmarks.economics_policies import Policy, StaticSplit, Threshold, always_on, played
from benchmarks.economics_site import Yard, yard
from benchmarks.economics_world import Books, World

SEED = 9
BASELINES = ("always-on", "static-split", "threshold", "ladder")
CLAIRVOYANT, OURS = "clairvoyant", "ours"
TRAINING_SHARE = 0.1
TRAINING_MONTHS = (4, 5)
PLAN_S = {900.0: 900.0, 3600.0: 3600.0}
"""How often ours plans, by the length of an interval: whenever a price is new. A live site plans
every five minutes; nothing that a plan is made from changes here within an interval."""

BANDS, HOLDS, PAYS = (0.0, 0.2, 0.4), (1, 4), (0.0, 100.0)
WATCHES = ((0.9, 0.5), (0.9, 0.05), (0.98, 0.02), (0.995, 0.01))
EXPECTED_S = (900.0, 3600.0, 10_800.0)
LADDER_DAYS = 3
"""Of the training days that the ladder is tried on: those with the highest prices."""


@dataclass(frozen=True)
class Tuned:
    """What the past has taught the baselines.

    Attributes:
        runs, units: of `StaticSplit`.
        band, hold, least_pay: of `Threshold`.
        watches: of foreseen peaks: share of a day's chance, and the least of a day.
        ladder_pay, expected_s: of the ladder's owner.
    """

    runs: tuple[bool, ...]
    units: int
    band: float
    hold: int
    least_pay: float
    watches: tuple[float, float] = (0.9, 0.5)
    ladder_pay: float = 0.0
    expected_s: float = 3600.0

    def policy(self, name: str) -> Policy:
        """A baseline, new."""
        if name == "always-on":
            return always_on
        if name == "static-split":
            return StaticSplit(np.array(self.runs), self.units)
        if name == "threshold":
            return Threshold(self.band, self.hold, self.watches, self.least_pay)
        cover, least = self.watches
        return Core(Owner(self.ladder_pay, self.expected_s, least, cover))

    def told(self) -> dict[str, object]:
        """For people."""
        return asdict(self)


@dataclass(frozen=True)
class Played:
    """One policy on one case."""

    books: Books
    means_w: Sequence[float]
    mining_w: Sequence[float]
    plan_s: Sequence[float] = ()

    @classmethod
    def of(cls, world: World, policy: Policy) -> "Played":
        plan_s = policy.solve_s if isinstance(policy, Ours) else []
        return cls(world.books, world.means_w, world.mining_w, plan_s)


@dataclass(frozen=True)
class Result:
    """All policies on one case; `bound_usd` is above what anybody can earn."""

    first: int
    played: dict[str, Played]
    usd_by: dict[str, float]
    milp_usd: float
    bound_usd: float
    lp_usd: float
    late: int
    best_w: Sequence[float]


def trace_of(name: str) -> Trace:
    """ "quarters" or "hours"."""
    return economics_data.quarters() if name == "quarters" else economics_data.hours_2022()


def day_case(trace: Trace, first: int) -> Case:
    """A day of a trace, with its events and jobs."""
    return case(trace, first, first + round(DAY_S / trace.step_s), SEED)


def month_case(trace: Trace, wanted: Sequence[int]) -> Case:
    """Whole months of the year with load data, whose coincident peaks count."""
    month = np.array([month_of(int(one)) for one in months(trace)])
    mine = np.flatnonzero(np.isin(month, wanted))
    return case(trace, int(mine[0]), int(mine[-1]) + 1, SEED, season=tuple(wanted))


def play_baselines(one: Case, tuned: Tuned, names: Sequence[str] = BASELINES) -> dict[str, Played]:
    """Baselines on a case."""
    found = {}
    for name in names:
        policy = tuned.policy(name)
        found[name] = Played.of(played(one, yard(), policy), policy)
    return found


def play(one: Case, tuned: Tuned, *, exact: bool) -> Result:
    """Everybody on a case; `exact`: the clairvoyant in whole banks, else the bound alone."""
    found = play_baselines(one, tuned)
    ours = Ours(period_s=PLAN_S[one.trace.step_s])
    found[OURS] = Played.of(played(one, yard(), ours), ours)
    bound = best(one, yard(), integer=False)
    whole = best(one, yard(), integer=True) if exact else bound
    return Result(
        one.first, found, whole.usd_by, whole.usd, whole.bound_usd, bound.usd, whole.late,
        [float(w) for w in whole.mining_w],
    )  # fmt: skip


def tuned_on_quarters(trace: Trace) -> Tuned:
    """The best that June 2024 would have taught, by trial."""
    a_day = round(DAY_S / trace.step_s)
    days = round(len(trace) / a_day * TRAINING_SHARE)
    cases = [day_case(trace, day * a_day) for day in range(1, days)]
    tuned = _simple(cases, yard(), trace.price_usd_per_mwh[: days * a_day])
    hardest = sorted(cases, key=lambda c: -float(trace.price_usd_per_mwh[c.first : c.end].max()))
    tried = [
        replace(tuned, ladder_pay=pay, expected_s=expected_s)
        for pay, expected_s in itertools.product(PAYS, EXPECTED_S)
    ]
    return max(tried, key=lambda one: _earned(one, "ladder", hardest[:LADDER_DAYS]))


def tuned_on_hours(trace: Trace, before: Tuned) -> Tuned:
    """The best for the year with load data that April and May would have taught, by trial."""
    cases = [month_case(trace, (month,)) for month in TRAINING_MONTHS]
    past = np.concatenate([trace.price_usd_per_mwh[c.first : c.end] for c in cases])
    tuned = _simple(cases, yard(), past)
    tried = [replace(tuned, watches=watches) for watches in WATCHES]
    tuned = max(tried, key=lambda one: _earned(one, "threshold", cases))
    return replace(tuned, ladder_pay=before.ladder_pay, expected_s=before.expected_s)


def _simple(cases: Sequence[Case], site: Yard, past: object) -> Tuned:
    """Parameters of the policies that are cheap to try."""
    mean = float(np.mean(np.asarray(past)))
    runs = tuple(kind.break_even_usd_per_mwh > mean for kind in site.kinds)
    need = float(np.mean([job.unit_h for one in cases for job in one.jobs] or [0.0]))
    per_day = sum(job.unit_h for one in cases for job in one.jobs)
    hours = sum(len(one) * one.trace.hours for one in cases)
    units = max(int(np.ceil(2.0 * per_day / hours)), int(np.ceil(need / 24.0)), 1)
    tried = [
        Tuned(runs, units, band, hold, pay)
        for band, hold, pay in itertools.product(BANDS, HOLDS, PAYS)
    ]
    return max(tried, key=lambda one: _earned(one, "threshold", cases))


def _earned(tuned: Tuned, name: str, cases: Sequence[Case]) -> float:
    return sum(played(one, yard(), tuned.policy(name)).books.total_usd for one in cases)
