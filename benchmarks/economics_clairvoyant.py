"""The most that anybody could have earned: every price, event, peak and need known beforehand.

A linear programme over whole banks by kind (`integer`: the exact answer; else a bound above it),
with the physics and money of `economics_world`. By interval and kind: how many are at each point
having been up before (`x`), and how many come up in it to which point (`y`). What is up now was up
before or comes up: the sum of `x` is at most all of the interval before.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import highspy
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

from wattshift_scheduler.arrays import Floats

GAP = 1e-4
"""Relative gap at which the exact answer counts as found; what is open is told."""

_HIGHS: Any = highspy


@dataclass
class Model:
    """Columns and rows of a programme that is to be the highest, in the making."""

    usd: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    index: list[int] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def column(self, usd: float, upper: float, *, whole: bool = False) -> int:
        """A new column from 0 to `upper`."""
        self.usd.append(usd)
        self.upper.append(upper)
        self.whole.append(whole)
        return len(self.usd) - 1

    def row(self, entries: list[tuple[int, float]], low: float, high: float) -> None:
        """A new row."""
        self.index += [column for column, _ in entries]
        self.entry += [value for _, value in entries]
        self.starts.append(len(self.index))
        self.low.append(low)
        self.high.append(high)


@dataclass(frozen=True)
class Best:
    """What the clairvoyant earns.

    Attributes:
        usd: of the plan found; of a linear one the bound.
        bound_usd: no plan earns more.
        usd_by: by item, as in `economics_world.ITEMS`.
        site_w: mean draw by interval, W; shape (n,).
        mining_w: of the banks; shape (n,).
        late: jobs that it leaves undone.
    """

    usd: float
    bound_usd: float
    usd_by: dict[str, float]
    site_w: Floats
    mining_w: Floats
    late: int


@dataclass
class _Layout:
    """Where the columns are, and the money of each by item."""

    model: Model = field(default_factory=Model)
    by: dict[str, dict[int, float]] = field(default_factory=dict)
    site: list[list[tuple[int, float]]] = field(default_factory=list)
    mining: list[list[tuple[int, float]]] = field(default_factory=list)
    fixed: dict[str, float] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)

    def column(self, money: dict[str, float], upper: float, *, whole: bool = False) -> int:
        at = self.model.column(sum(money.values()), upper, whole=whole)
        for item, usd in money.items():
            self.by.setdefault(item, {})[at] = usd
        return at


def best(case: Case, yard: Yard, *, integer: bool, time_limit_s: float = 60.0) -> Best:
    """The clairvoyant of a case."""
    made = _Layout()
    ends = _banks(made, case, yard, integer)
    _batches(made, case, integer)
    _limits(made, case)
    _money_of_means(made, case)
    model = made.model
    for kind, up in zip(yard.kinds, ends, strict=True):
        # What rests at the end pays a cycle: one that is up saves it.
        made.fixed["cycles"] = made.fixed.get("cycles", 0.0) - kind.count * kind.cycle_usd
        for at in up:
            model.usd[at] += kind.cycle_usd
            by = made.by["cycles"]
            by[at] = by.get(at, 0.0) + kind.cycle_usd
    values, bound = solved(model, time_limit_s)
    return _read(made, case, values, bound)


def _banks(made: _Layout, case: Case, yard: Yard, integer: bool) -> list[list[int]]:
    """Columns of the banks; those that are up in the last interval, by kind."""
    trace, hours = case.trace, case.trace.hours
    before: list[list[int]] = [[] for _ in yard.kinds]
    made.by["cycles"] = {}
    for i in range(case.first, case.end):
        price = float(trace.price_usd_per_mwh[i])
        cp = CP_USD_PER_W if i in case.peaks else 0.0
        site: list[tuple[int, float]] = []
        rest_w = 0.0
        for number, kind in enumerate(yard.kinds):
            idle_w = kind.points_w[0]
            coming = min(kind.up_s / trace.step_s, 1.0)
            rest_w += kind.count * idle_w
            ups: list[int] = []
            starting: list[int] = []
            for watts_w, usd in zip(kind.points_w[1:], kind.usd_per_h[1:], strict=True):
                for wakes in (False, True):
                    share = coming if wakes else 0.0
                    mean_w = watts_w - idle_w
                    money = {
                        "mining": (1 - share) * usd * hours,
                        "energy": -mean_w / 1e6 * hours * price,
                        "cycles": -kind.wear_usd if wakes else 0.0,
                        "peaks": -mean_w * cp,
                    }
                    at = made.column(money, kind.count, whole=integer)
                    (starting if wakes else ups).append(at)
                    site.append((at, mean_w))
            all_now = ups + starting
            made.model.row([(at, 1.0) for at in all_now], 0.0, kind.count)
            if i > case.first:
                pairs = [(at, 1.0) for at in ups] + [(at, -1.0) for at in before[number]]
                made.model.row(pairs, -math.inf, 0.0)
            before[number] = all_now
        made.fixed["energy"] = made.fixed.get("energy", 0.0) - rest_w / 1e6 * hours * price
        made.fixed["peaks"] = made.fixed.get("peaks", 0.0) - rest_w * cp
        made.site.append(site)
        made.mining.append(list(site))
        made.fixed["rest_w"] = rest_w
    return before


def _batches(made: _Layout, case: Case, integer: bool) -> None:
    trace, hours = case.trace, case.trace.hours
    busy: dict[int, list[int]] = {}
    for job in case.jobs:
        work: list[tuple[int, float]] = []
        for i in range(job.arrives, job.deadline):
            price = float(trace.price_usd_per_mwh[i])
            cp = CP_USD_PER_W if i in case.peaks else 0.0
            money = {
                "batch": BATCH_USD_PER_UNIT_H * hours,
                "energy": -UNIT_W / 1e6 * hours * price,
                "peaks": -UNIT_W * cp,
            }
            at = made.column(money, job.most)
            work.append((at, hours))
            busy.setdefault(i, []).append(at)
            made.site[i - case.first].append((at, UNIT_W))
        short = made.column({"batch": -LATE_USD_PER_UNIT_H}, job.unit_h)
        made.short.append(short)
        made.model.row([*work, (short, 1.0)], job.unit_h, job.unit_h)
    for i, columns in busy.items():
        made.model.row([(at, 1.0) for at in columns], 0.0, UNITS - case.need(i))


def _limits(made: _Layout, case: Case) -> None:
    """The cap, and the ramp from one interval to the next."""
    rest_w = made.fixed["rest_w"]
    for k in range(len(case)):
        i = case.first + k
        fixed_w = rest_w + UNIT_W * case.need(i)
        made.model.row(made.site[k], -math.inf, case.cap_w(i) - fixed_w)
        if k:
            rises = made.site[k] + [(at, -w) for at, w in made.site[k - 1]]
            served_w = UNIT_W * (case.need(i) - case.need(i - 1))
            most_w = RAMP_UP_W_PER_S * case.trace.step_s - served_w
            made.model.row(rises, -math.inf, most_w)


def _money_of_means(made: _Layout, case: Case) -> None:
    """What events pay: for what the mean lies below the base, as far as it was promised."""
    mwh = case.trace.hours / 1e6
    for one in case.events:
        for i in range(one.starts, one.ends):
            k = i - case.first
            usd = one.usd_per_mwh + one.penalty_usd_per_mwh
            at = made.column({"events": usd * mwh}, one.reduction_w)
            lost = one.reduction_w * mwh * one.penalty_usd_per_mwh
            made.fixed["events"] = made.fixed.get("events", 0.0) - lost
            fixed_w = made.fixed["rest_w"] + UNIT_W * case.need(i)
            made.model.row([(at, 1.0), *made.site[k]], -math.inf, BASE_W - fixed_w)


def solved(model: Model, time_limit_s: float) -> tuple[Floats, float]:
    """Columns of the best answer found and the bound above it. Raises RuntimeError for none."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(model.usd), len(model.low)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = np.array(model.usd)
    lp.col_lower_, lp.col_upper_ = np.zeros(len(model.usd)), np.array(model.upper)
    lp.row_lower_, lp.row_upper_ = np.array(model.low), np.array(model.high)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array(model.starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array(model.index, dtype=np.int32)
    lp.a_matrix_.value_ = np.array(model.entry)
    if any(model.whole):
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[one] for one in model.whole]
    solver: Any = _HIGHS.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", GAP)
    solver.setOptionValue("time_limit", time_limit_s)
    solver.passModel(lp)
    solver.run()
    info = solver.getInfo()
    if info.primal_solution_status != 2:
        raise RuntimeError(f"the clairvoyant has no answer: {solver.getModelStatus()}")
    bound = info.mip_dual_bound if any(model.whole) else info.objective_function_value
    return np.array(solver.getSolution().col_value), float(bound)


def _read(made: _Layout, case: Case, values: Floats, bound: float) -> Best:
    items = ("energy", "mining", "batch", "events", "peaks", "cycles")
    usd_by = {item: made.fixed.get(item, 0.0) for item in items}
    for item, columns in made.by.items():
        usd_by[item] += sum(usd * values[at] for at, usd in columns.items())
    fixed = sum(made.fixed.get(item, 0.0) for item in items)
    rest_w = made.fixed["rest_w"]
    needs_w = [UNIT_W * case.need(i) for i in range(case.first, case.end)]
    site_w = [rest_w + w + sum(values[at] * v for at, v in row)
              for w, row in zip(needs_w, made.site, strict=True)]  # fmt: skip
    mining_w = [rest_w + sum(values[at] * v for at, v in row) for row in made.mining]
    return Best(
        usd=sum(usd_by.values()),
        bound_usd=bound + fixed,
        usd_by=usd_by,
        site_w=np.array(site_w),
        mining_w=np.array(mining_w),
        late=sum(values[at] > 1e-6 for at in made.short),
    )
