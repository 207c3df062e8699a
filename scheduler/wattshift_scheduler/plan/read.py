"""From a solved program to a plan: watts, prices, worths, and what to tell people."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.plan import deadlines, unsure
from wattshift_scheduler.plan.demands import Demands, carbon_usd_per_mwh, price_usd_per_mwh
from wattshift_scheduler.plan.machines import MUSD, W_PER_KW, Machines, Schedules, schedules
from wattshift_scheduler.plan.model import Model
from wattshift_scheduler.plan.telling import events, unmet
from wattshift_scheduler.plan.words import Ahead, Plan, Status


@dataclass(frozen=True, slots=True)
class Found:
    """A solved program.

    Attributes:
        model, machines, demands: what was solved.
        values: of its columns.
        prices: of a kW in each interval, by its duals; shape (n,).
        apart: what it costs each machine on top, by limits and holds; shape (k, n).
        limited: what it costs on top under each limit; shape (limits, n).
        capped: what of them a full cap makes; shape (n,).
        best: schedules at those prices.
        gap: share of the turnover by which a better plan may exist.
    """

    model: Model
    machines: Machines
    demands: Demands
    values: Floats
    prices: Floats
    apart: Floats
    limited: Floats
    capped: Floats
    best: Schedules
    gap: float


def told(ahead: Ahead, found: Found, status: Status, solve_s: float) -> Plan:
    """The plan that `found` is."""
    model, values, demands = found.model, found.values, found.demands
    n, hours = len(ahead), ahead.hours
    up, drawn_kw = _machines(found)
    kinds = len(ahead.kinds)
    rest_w = np.array([kind.count * kind.points_w[0] for kind in ahead.kinds])
    mining_w, awake = np.tile(rest_w, (n, 1)), np.zeros((n, kinds))
    np.add.at(mining_w.T, found.machines.kind, drawn_kw * W_PER_KW)
    np.add.at(awake.T, found.machines.kind, up)
    batch_w = _values(values, model.batch).T * W_PER_KW
    unpaid = float((_values(values, model.batch) * model.hurry).sum())
    unpaid += model.bounds.weighed(values)
    cost = float(model.program.cost @ values) + model.fixed - unpaid
    dated = np.array([np.isfinite(one.deadline_s) for one in ahead.batches], dtype=np.bool_)
    missed = unmet(ahead, model, values)
    plan = Plan(
        made_s=ahead.start_s,
        start_s=ahead.start_s,
        step_s=ahead.step_s,
        status="infeasible" if missed else status,
        gap=found.gap,
        solve_s=solve_s,
        usd=(_rest_usd(ahead) - cost / MUSD),
        price_usd_per_mwh=price_usd_per_mwh(ahead),
        shadow_usd_per_mwh=found.prices / hours,
        awake_usd=_worths(ahead, found),
        reserve_w=demands.reserve_kw * W_PER_KW,
        hold_w=np.where(dated, batch_w, 0.0),
        mining_w=mining_w,
        awake=awake,
        batch_w=batch_w,
        services_w=(demands.services_kw - values[model.unserved]) * W_PER_KW,
        cap_w=demands.cap_kw * W_PER_KW,
        site_w=(values[model.site] + values[model.over]) * W_PER_KW,
        kinds=tuple(kind.name for kind in ahead.kinds),
        batches=tuple(one.name for one in ahead.batches),
        capped_usd_per_mwh=found.capped / hours,
        carbon_usd_per_mwh=carbon_usd_per_mwh(ahead),
        infeasible=missed,
        sure=_sure(ahead),
        batch_usd_per_mwh=_batch_worths(ahead, found, batch_w),
        needs_s=deadlines.needs_s(ahead),
        expected=ahead.prospect is not None,
        limits=tuple(one.name for one in ahead.limits),
        limit_usd_per_mwh=_limited(found, hours) if ahead.limits else None,
    )
    return events(ahead, plan)


def no_plan(ahead: Ahead, solve_s: float) -> Plan:
    """What is said when nothing was found in time."""
    n, kinds, batches = len(ahead), len(ahead.kinds), len(ahead.batches)
    none = np.zeros(n)
    price = price_usd_per_mwh(ahead)
    return Plan(
        made_s=ahead.start_s,
        start_s=ahead.start_s,
        step_s=ahead.step_s,
        status="time-limit",
        gap=float("nan"),
        solve_s=solve_s,
        usd=float("nan"),
        price_usd_per_mwh=price,
        shadow_usd_per_mwh=price,
        awake_usd=np.zeros((n, kinds)),
        reserve_w=ahead.services.high - ahead.services.mid,
        hold_w=np.zeros((n, batches)),
        mining_w=np.zeros((n, kinds)),
        awake=np.zeros((n, kinds)),
        batch_w=np.zeros((n, batches)),
        services_w=ahead.services.mid,
        cap_w=ahead.cap_w,
        site_w=none,
        kinds=tuple(kind.name for kind in ahead.kinds),
        batches=tuple(one.name for one in ahead.batches),
        infeasible=("no plan was found in time",),
    )


def _sure(ahead: Ahead) -> int:
    """How many intervals from the first on have a price that is known."""
    return int(np.append(ahead.price.low != ahead.price.high, True).argmax())


def _machines(found: Found) -> tuple[Floats, Floats]:
    """How many of each are up, and what they draw above rest, kW; shape (k, n)."""
    mining, values = found.model.mining, found.values
    up = np.where(mining.up >= 0, values[mining.up], mining.fixed_up)
    drawn_kw = mining.fixed_kw.copy()
    np.add.at(drawn_kw, (mining.machine, mining.at), values[mining.column] * mining.kw)
    return up, drawn_kw


DRAWN_SHARE = 1e-6
"""Of a batch; less is the solver's rounding."""

LEAST_W = 1e-3
"""Above a limit; less is the solver's rounding."""

EDGE_SHARE = 0.3
"""Weight of each edge of the price's band beside its middle: three points with the mean and the
spread of a normal price (quantiles 0.1 and 0.9 lie 1.28 deviations out: 2 x 0.3 x 1.28**2 = 1)."""


def _worths(ahead: Ahead, found: Found) -> Floats:
    """What a device that is up is worth over one at rest, 0 to its cycle, USD; (n, kinds).

    An expectation over how prices may move on, else over the price's band: where a price may as
    well fall, a device that is up is worth the cycle that it then does not pay, however dear the
    middle of the band is.
    """
    machines, cycle_usd = found.machines, np.array([kind.cycle_usd for kind in ahead.kinds])

    def clipped(worth: Floats) -> Floats:
        usd = np.zeros((len(ahead), len(ahead.kinds)))
        usd[:, machines.kind] = worth.T / MUSD
        return np.asarray(np.clip(usd, 0.0, cycle_usd))

    if ahead.prospect is not None:
        beyond = found.prices - ahead.price.mid * ahead.hours + found.apart
        return clipped(unsure.worths(ahead, ahead.prospect, machines, beyond).T * MUSD)
    middle, price = clipped(found.best.worth), ahead.price
    if not len(machines) or np.array_equal(price.low, price.high):
        return middle
    edges = [(edge - price.mid) * ahead.hours for edge in (price.low, price.high)]
    low, high = (schedules(machines, found.prices + one + found.apart).worth for one in edges)
    both = EDGE_SHARE * (clipped(low) + clipped(high))
    return np.asarray((1.0 - 2.0 * EDGE_SHARE) * middle + both)


def _limited(found: Found, hours: float) -> Floats:
    """What a MWh costs on top under each limit, as in `Plan`: what cannot be kept is no money."""
    kept = found.values[found.model.bounds.beyond] * W_PER_KW < LEAST_W
    return np.asarray(np.where(kept, found.limited / hours, np.nan).T)


def _batch_worths(ahead: Ahead, found: Found, batch_w: Floats) -> Floats:
    """What a MWh of each batch is worth now, as in `Plan`: done now it saves one in the dearest of
    the hours that are its own, those after the horizon at the mean of the energy within."""
    worth = np.full(len(ahead.batches), np.nan)
    price, late = found.prices / ahead.hours, _values(found.values, found.model.late)
    mean = float((found.demands.energy + found.demands.coincident).mean()) / ahead.hours
    for i, one in enumerate(ahead.batches):
        if np.isinf(one.deadline_s) or one.left_wh <= 0.0:
            continue
        used = batch_w[:, i] > DRAWN_SHARE * one.most_w
        worth[i] = price[used].max(initial=-np.inf)
        late_wh = float(late[i]) * W_PER_KW
        beyond_wh = one.left_wh - float(batch_w[:, i].sum()) * ahead.hours - late_wh
        if beyond_wh > DRAWN_SHARE * one.left_wh:
            worth[i] = max(worth[i], mean)
        if late_wh > DRAWN_SHARE * one.left_wh:
            worth[i] = np.inf
    return worth


def _values(values: Floats, columns: Ints) -> Floats:
    """Values of columns, 0 where there is none."""
    return np.where(columns >= 0, values[columns], 0.0)


def _rest_usd(ahead: Ahead) -> float:
    """What all devices earn at rest, USD: nothing, but for odd ones."""
    return sum(k.count * k.usd_per_h[0] for k in ahead.kinds) * ahead.hours * len(ahead)
