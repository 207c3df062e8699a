"""A plan: the program of what is open, solved by HiGHS, and a proof that nothing was left out.

1. Prices are guessed: from the last plan, else by a walk up the ladder in each interval.
2. What every machine would do a little below and a little above them says which decisions are open.
3. HiGHS solves the program of those; its duals are better prices.
4. The best schedule of each machine at those prices is at least as good as what the program found.
   What they are better by, in sum, is all that any plan could be: the gap. Where it is not nothing,
   those schedules are opened too, and it is solved again (columns are generated, as it is called).
5. In the near hours machines are whole: the same program, with the far hours held.

Where that takes longer than there is time for, what was found by then counts if its gap is small.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.plan.coarse import coarsened
from wattshift_scheduler.plan.demands import Demands, held_too_high
from wattshift_scheduler.plan.guessing import Warm as Warm
from wattshift_scheduler.plan.guessing import guesses
from wattshift_scheduler.plan.highs import Highs
from wattshift_scheduler.plan.machines import Machines, Schedules, schedules
from wattshift_scheduler.plan.mining import USED, earned, used
from wattshift_scheduler.plan.model import Model, built
from wattshift_scheduler.plan.openings import Open
from wattshift_scheduler.plan.read import Found, no_plan, told
from wattshift_scheduler.plan.words import Ahead, Plan, Status

BAND = 0.03
"""Share by which prices are taken to be uncertain at first; a wider one opens more at once."""

LEAST_BAND_USD_PER_MWH = 0.5

COARSE = 36
"""Intervals of the day whose prices begin a plan without a predecessor."""

SMALL = 4_000
"""Machines times intervals times points up to which everything is open from the beginning."""

ROUNDS = 12
"""Most programs for one plan. Three or four are usual; the gap is told in any case."""

EXACT = 2e-4
"""Share of the turnover below which a gap is nothing: a fifth of what is called optimal."""

OPTIMAL_GAP = 1e-3
"""A plan this near the best is called optimal."""

USABLE_GAP = 0.05
"""A program that is further from the best was cut off early: its prices mean nothing."""


def planned(
    ahead: Ahead,
    *,
    near_s: float = 4 * 3600.0,
    time_limit_s: float = 20.0,
    warm: Warm | None = None,
    clock: Callable[[], float] | None = None,
) -> tuple[Plan, Warm | None]:
    """Plan `ahead`.

    Args:
        ahead: what the plan is made from.
        near_s: within it machines are whole, s.
        time_limit_s: the solver's time; whatever is found by then is told by its status.
        warm: of the last plan; it makes this one faster.
        clock: a clock in s, so that building counts, too; None: only the solver's time does.

    Returns:
        The plan, and what to hand to the next one. Never raises for what cannot be met: that is
        softened in order and told. Raises PlannerMissing without HiGHS.
    """
    highs = Highs(time_limit_s, clock)
    machines = Machines.of(ahead)
    demands = Demands.of(ahead, machines)
    if held_too_high(ahead, machines, demands):
        machines = Machines.of(ahead, settled=True)
    near = min(math.ceil(near_s / ahead.step_s), len(ahead))
    if warm is None and len(ahead) > 2 * COARSE:
        warm = _coarse(ahead, highs)
    begun = guesses(ahead, machines, demands, warm)
    done = _relaxed(ahead, machines, demands, near, begun, highs)
    if done is None or done[4] > USABLE_GAP * _turnover(done[0], done[1]):
        return no_plan(ahead, highs.spent_s()), None
    model, values, duals, best, gap = done
    whole = _whole(model, values, near, highs)
    gap += 0.0 if whole is None else max(whole[1] - _cost(model, values), 0.0)
    found = Found(
        model=model,
        machines=machines,
        demands=demands,
        values=values if whole is None else whole[0],
        prices=duals[model.balance],
        apart=model.bounds.priced(duals),
        limited=model.bounds.limit_prices(duals),
        capped=_capped(model, values, duals),
        best=best,
        gap=gap / _turnover(model, values),
    )
    status: Status = "optimal" if found.gap <= OPTIMAL_GAP and whole is not None else "feasible"
    plan = told(ahead, found, status, highs.spent_s())
    return plan, _warm(ahead, demands, model, duals)


_Relaxed = tuple[Model, Floats, Floats, Schedules, float]


def _relaxed(
    ahead: Ahead,
    machines: Machines,
    demands: Demands,
    near: int,
    begun: tuple[Floats, ...],
    highs: Highs,
) -> _Relaxed | None:
    """The program with fractions of machines: model, values, duals, best schedules and gap."""
    open_ = Open.between(*_around(ahead, machines, *begun))
    if open_.low.size * machines.rise_kw.shape[1] <= SMALL:
        open_ = Open.everything(machines, len(ahead))
    last: _Relaxed | None = None
    for _ in range(ROUNDS):
        model = built(ahead, machines, demands, open_, near=near)
        solved = highs.solved(model.program)
        if solved is None:
            return last
        values, duals = solved
        prices = _prices(machines, model, duals)
        best, *near_by = _around(ahead, machines, prices)
        gaps = machines.count * best.value - earned(machines, model.mining, values, prices)
        last = (model, values, duals, best, float(np.maximum(gaps, 0.0).sum()))
        if last[4] <= EXACT * _turnover(model, values):
            return last
        kept = used(machines, model.mining, values, model.program.high, open_)
        open_ = kept.joined(Open.between(best, *near_by))
    return last


def _around(ahead: Ahead, machines: Machines, *prices: Floats) -> tuple[Schedules, ...]:
    """The best schedules at `prices`, and a little below and above them."""
    tried = []
    for one in prices:
        band = np.maximum(BAND * np.abs(one), LEAST_BAND_USD_PER_MWH * ahead.hours)
        tried += [one, one - band, one + band]
    found, k = schedules(machines.times(len(tried)), np.concatenate(tried)), len(machines)
    return tuple(found.part(slice(i * k, (i + 1) * k)) for i in range(len(tried)))


def _prices(machines: Machines, model: Model, duals: Floats) -> Floats:
    """What a kW costs each machine; behind a gate it is a reserve as well; shape (k, n)."""
    shared = duals[model.balance] + machines.fenced[:, None] * duals[model.ready]
    return np.asarray(shared + model.bounds.priced(duals))


def _coarse(ahead: Ahead, highs: Highs) -> Warm | None:
    """The prices of the same day in longer intervals."""
    few = coarsened(ahead, -(-len(ahead) // COARSE))
    machines = Machines.of(few, settled=True)
    demands = Demands.of(few, machines)
    done = _relaxed(few, machines, demands, 0, guesses(few, machines, demands, None), highs)
    return None if done is None else _warm(few, demands, done[0], done[2])


def _warm(ahead: Ahead, demands: Demands, model: Model, duals: Floats) -> Warm:
    hours, limits = ahead.hours, model.bounds.limit_prices(duals)
    return Warm(
        ahead.start_s,
        ahead.step_s,
        demands.energy / hours,
        duals[model.balance] / hours,
        -duals[model.ready] / hours,
        dict(zip((one.name for one in ahead.limits), limits / hours, strict=True)),
    )


def _whole(model: Model, values: Floats, near: int, highs: Highs) -> tuple[Floats, float] | None:
    """The program with whole machines in the near intervals and the far ones held, and its cost;
    None where no such plan was found in time."""
    program, up = model.program, model.mining.up
    soon, far = up[:, :near], up[:, near:]
    whole, far = soon[soon >= 0], far[far >= 0]
    asked = np.concatenate([whole, np.flatnonzero(program.whole)])
    if (np.abs(values[asked] - np.round(values[asked])) < USED).all():
        return values, _cost(model, values)
    low, high, kinds = program.low.copy(), program.high.copy(), program.whole.copy()
    kept = np.clip(values[far], low[far], high[far])
    low[far], high[far] = kept, kept
    kinds[whole] = True
    held = replace(program, low=low, high=high, whole=kinds)
    solved = highs.solved(held, whole=True)
    return None if solved is None else (solved[0], _cost(model, solved[0]))


def _capped(model: Model, values: Floats, duals: Floats) -> Floats:
    """What of each interval's price a full cap makes: the reduced cost of the site's watts there,
    and the price of what is unavoidable above it; shape (n,)."""
    program, found = model.program, np.zeros(len(model.site))
    for i, column in enumerate(model.site.tolist()):
        entries = slice(program.start[column], program.start[column + 1])
        reduced = program.cost[column] - program.value[entries] @ duals[program.index[entries]]
        if values[column] >= program.high[column] * (1.0 - USED):
            found[i] = max(-reduced, 0.0)
    return found


def _cost(model: Model, values: Floats) -> float:
    return float(model.program.cost @ values)


def _turnover(model: Model, values: Floats) -> float:
    """All money that moves, earned and paid: what a gap is a share of."""
    mining = model.mining
    earned = float((values[mining.column] * mining.worth).sum() + mining.fixed_worth.sum())
    paid = float(np.abs(model.program.cost[model.site]) @ values[model.site])
    return max(abs(earned), paid, 1.0)
