"""One turn of the core: fold the events in, then decide. Pure, so every run can be replayed.

    events ─▶ reducers ─▶ arbitrate ─▶ budget ─▶ place compute ─▶ allocate mining ─▶ move leases
                                                      │                  │                │
                                                      └──── commands ◀───┴────────────────┘

Nothing here reads a clock, draws a number or waits. Events come in with the time they happened;
what should be done goes out as commands; why goes out as decisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from wattshift_scheduler import alarms, budget, cycles, leases, moves
from wattshift_scheduler.allocate import Allocation, allocate
from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.commands import Command
from wattshift_scheduler.compute import act, vacancy
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placement, place
from wattshift_scheduler.compute.raises import raises_w
from wattshift_scheduler.decisions import AnyDecision, Decision, Input
from wattshift_scheduler.events import Event
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.ladder import Ladder
from wattshift_scheduler.reducers import reduce
from wattshift_scheduler.signals import ramps, telling
from wattshift_scheduler.signals.arbitrate import Arbitrated, lasts_s
from wattshift_scheduler.signals.effective import arbitrated, standing_caps
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.state import Outlook, State

Stepped = tuple[State, tuple[Command, ...], tuple[AnyDecision, ...]]


def step(state: State, events: Iterable[Event], now_s: float) -> Stepped:
    """Fold `events` into `state`, decide, and return the new state, commands and decisions.

    Args:
        state: from the last step, or `state.initial`.
        events: in the order in which they happened. A Tick carries nothing: it is there so that
            time passes when nothing else happens.
        now_s: our clock, s; it must not run backwards.
    """
    told: list[AnyDecision] = []
    for event in events:
        state, facts = reduce(state, event, now_s)
        told.extend(facts)
    state, commands, reasons = decide(state, now_s)
    return state, commands, (*told, *reasons)


@dataclass(frozen=True, slots=True)
class _View:
    """What a decision looks at: masks and sums worked out once per step."""

    verdict: Arbitrated
    caps: tuple[Cap, ...]
    budget: budget.Budget
    ceiling_w: Floats
    stuck: Bools
    late: Bools
    headroom_w: Floats
    floor_w: Floats


def decide(state: State, now_s: float) -> Stepped:
    """Decide on the present state."""
    state, verdict = arbitrated(state, now_s)
    view = _view(state, verdict, now_s)
    told: list[AnyDecision] = list(_cap_told(state, view.verdict, now_s))
    commands: list[Command] = []
    placement = _placed(state, view, now_s)
    state, why = vacancy.decided(state, placement, _may_mine(state) & ~view.stuck, now_s)
    told.extend(why)
    raise_w = raises_w(state.site, state.nodes, placement, view.headroom_w)
    before_w = {name: node.bound_w for name, node in state.nodes.items()}
    state, asked, why = act.act(state, placement, raise_w=raise_w, now_s=now_s)
    commands.extend(asked)
    told.extend(why)
    bound_w = {name: node.bound_w for name, node in state.nodes.items()}
    rise_w = {name: max(watts_w - before_w[name], 0.0) for name, watts_w in bound_w.items()}
    headroom_w = view.headroom_w - state.site.tree.totals(budget.compute_w(state, rise_w))
    spoken_w = {name: max(watts_w, bound_w[name]) for name, watts_w in placement.load_w().items()}
    state, grants, why_moves, outlook = _mine(state, view, spoken_w, headroom_w, now_s)
    kept, why_alarms = alarms.raised(
        state, verdict, shortfall_w=outlook.shortfall_w, late=view.late, now_s=now_s
    )
    state = replace(state, outlook=outlook, alarms=kept, verdict=view.verdict, decided_s=now_s)
    return state, (*grants, *commands), (*told, *why_moves, *why_alarms)


def _view(state: State, verdict: Arbitrated, now_s: float) -> _View:
    rules, tree, fleet = state.site.rules, state.site.tree, state.fleet
    spent = budget.budget(state, verdict, now_s)
    ceiling_w = leases.ceilings(fleet, state.ledger, state.seen, now_s, rules.stale_after_s)
    late = leases.overdue(fleet, state.ledger, now_s, rules.settle_factor)
    lost = state.seen.failed & (now_s - state.seen.at_s > rules.stale_after_s)
    stuck = late | state.silent(now_s) | state.seen.foreign | lost
    bounds = {name: node.bound_w for name, node in state.nodes.items()}
    at_most_w = tree.totals(
        budget.devices_w(state, ceiling_w, spent.credit_w) + budget.compute_w(state, bounds)
    )
    least_w = np.where(stuck, ceiling_w, state.ladder.base_w)
    return _View(
        verdict=verdict,
        caps=standing_caps(state, now_s),
        budget=spent,
        ceiling_w=ceiling_w,
        stuck=stuck,
        late=late,
        headroom_w=spent.limit_w - spent.fixed_w - at_most_w,
        floor_w=spent.fixed_w + tree.totals(budget.devices_w(state, least_w, spent.credit_w)),
    )


def _cap_told(state: State, verdict: Arbitrated, now_s: float) -> tuple[Decision, ...]:
    return telling.told(state.verdict, verdict, now_s)


def _placed(state: State, view: _View, now_s: float) -> Placement:
    ground = Ground(
        site=state.site,
        powers=state.nodes,
        room_w=view.budget.limit_w - view.floor_w,
        free_w=view.headroom_w,
        cap=view.verdict,
        caps=view.caps,
        now_s=now_s,
    )
    jobs = (job for job in state.jobs.values() if job.kind is not JobKind.MINING)
    return place(ground, [job for job in jobs if not job.state.final])


def _mine(
    state: State,
    view: _View,
    spoken_w: dict[str, float],
    headroom_w: Floats,
    now_s: float,
) -> tuple[State, tuple[Command, ...], tuple[AnyDecision, ...], Outlook]:
    tree, spent = state.site.tree, view.budget
    compute_w = tree.totals(budget.compute_w(state, spoken_w))
    room_w = spent.limit_w - view.floor_w - compute_w
    # What is missing is told against the hard cap: a target below the floor is no shortfall.
    short_w = np.maximum(-room_w, 0.0)
    short_w[0] = max(-room_w[0] - (spent.hard_w - spent.limit_w[0]), 0.0)
    headroom_w = np.array(headroom_w)
    room_w[0], headroom_w[0] = _mining_room(state, view, room_w[0], headroom_w[0])
    free, before = _may_mine(state) & ~view.stuck & ~state.tables.empty, state
    state, take = _weighed(state, view, free, now_s)
    wanted = allocate(
        state.fleet,
        state.ladder,
        tree,
        room_w=np.maximum(room_w, 0.0),
        eligible=free,
        credit_w=spent.credit_w,
        price_usd_per_mwh=state.price_usd_per_mwh(),
        take=take,
    )
    held = moves.target(
        state,
        wanted,
        stuck=view.stuck,
        short=tree.any_above(room_w < 0)[state.fleet.feeder],
        ceiling_w=view.ceiling_w,
        credit_w=spent.credit_w,
        headroom_w=headroom_w,
        waits=_waits(state, now_s),
        now_s=now_s,
    )
    inputs = _inputs(state, view.verdict, wanted, now_s)
    state, grants, told = moves.grant(state, held, wanted.next_usd_per_mwh, inputs, now_s)
    told += moves.told_kept(state, before.turns.kept, wanted.next_usd_per_mwh, inputs, now_s)
    turns = cycles.turned(state.turns, before.ledger.point, state.ledger.point, free & ~take, now_s)
    state = replace(state, turns=turns)
    marginal = wanted.marginal_usd_per_mwh
    outlook = _outlook(state, view, wanted.binding, marginal, float(short_w.max()), now_s)
    excess_w = budget.excess_w(
        state,
        explained_w=_explained_w(state, outlook),
        cap_w=view.verdict.cap_w,
        elapsed_s=_elapsed_s(state, now_s),
        fresh=now_s - state.meter_at_s <= state.site.rules.stale_after_s,
    )
    return replace(state, excess_w=excess_w), grants, told, outlook


def _mining_room(
    state: State, view: _View, room_w: float, headroom_w: float
) -> tuple[float, float]:
    """What the root may give to rungs, and by how much ceilings may rise there, once targets of
    mining and the notice of an event have had their say, W."""
    spent, notice_w = view.budget, view.verdict.notice_w
    below_w = float(spent.limit_w[0]) - spent.mining_w
    least_w = np.where(view.stuck, view.ceiling_w, state.ladder.base_w)
    room_w = min(room_w - below_w, notice_w - float(least_w.sum()))
    return room_w, min(headroom_w - below_w, notice_w - float(view.ceiling_w.sum()))


def _waits(state: State, now_s: float) -> Bools | None:
    """Devices whose feeder and host have not had their turn since a cap rose; None: all may."""
    stagger_s, rose_s = state.site.rules.stagger_s, state.memory.pace.rose_s
    if not now_s < rose_s + stagger_s:
        return None
    fleet, feeders = state.fleet, len(state.site.tree.names)
    dice = np.array([ramps.die(agent, rose_s) for agent in fleet.agents], dtype=np.float64)
    turn_s = rose_s + stagger_s * (fleet.feeder + dice[fleet.agent]) / feeders
    return np.asarray(now_s < turn_s, dtype=np.bool_)


def _weighed(state: State, view: _View, free: Bools, now_s: float) -> tuple[State, Bools]:
    """The ladder and the memory of turns as of now, and which devices are to run at this price."""
    rules, ladder = state.site.rules, state.ladder
    runs = cycles.awake(state.ledger, state.seen, ladder.base_w, now_s, rules.stale_after_s)
    horizon_s = cycles.horizon_s(lasts_s(view.caps, view.verdict, now_s), rules)
    cold = state.tables.cold(state.fleet)
    if not ladder.holds(runs, horizon_s, cold):
        ladder = Ladder.of(state.fleet, state.values, runs, horizon_s, cold)
    take, turns = cycles.weigh(
        ladder,
        state.turns,
        price_usd_per_mwh=state.price_usd_per_mwh(),
        free=free,
        expected_s=rules.expected_shed_s,
        elapsed_s=_elapsed_s(state, now_s),
        now_s=now_s,
    )
    return replace(state, ladder=ladder, turns=turns), take


def _elapsed_s(state: State, now_s: float) -> float:
    """Time since the last decision, s; 0 before the first one."""
    return max(now_s - state.decided_s, 0.0) if np.isfinite(state.decided_s) else 0.0


def _inputs(
    state: State, verdict: Arbitrated, wanted: Allocation, now_s: float
) -> dict[str, Input]:
    """What a change of leases rests on: the cap, the prices, and what the last watt is worth."""
    price, marginal = state.price_usd_per_mwh(), wanted.marginal_usd_per_mwh
    age_s = now_s - state.quote.observed_s
    return {
        "cap_w": verdict.cap_w,
        "cap_origin": verdict.origin,
        "price_usd_per_mwh": None if np.isinf(price) else price,
        "marginal_usd_per_mwh": None if np.isnan(marginal) else marginal,
        "binding": ", ".join(wanted.binding),
        "hashprice_usd_per_ph_day": state.values.hashprice_usd_per_ph_day,
        "hashprice_source": state.quote.source,
        "hashprice_age_s": None if np.isnan(age_s) else age_s,
        **telling.targets(verdict),
    }


def _explained_w(state: State, outlook: Outlook) -> float:
    """The most that the ledger says the meter could have shown since the last decision, W.

    The meter was read between then and now, so what was counted then still explains it. What is
    kept free for an excess or for the plan explains nothing.
    """
    spare_w = state.excess_w + state.reserve_w
    before = state.outlook
    if np.isnan(before.committed_w):
        return outlook.committed_w - spare_w
    return max(outlook.committed_w - spare_w, before.committed_w - before.spare_w)


def _may_mine(state: State) -> Bools:
    """Devices that a running mining job names; shape (n,)."""
    patterns = [
        str(pattern)
        for job in state.of_kind(JobKind.MINING)
        if job.state is JobState.RUNNING
        for pattern in job.spec.get("devices", ())
    ]
    if "*" in patterns:
        return np.ones(len(state.fleet), dtype=np.bool_)
    if not patterns:
        return np.zeros(len(state.fleet), dtype=np.bool_)
    named = [any(fnmatchcase(d.id, p) for p in patterns) for d in state.fleet.devices]
    return np.array(named, dtype=np.bool_)


def _outlook(
    state: State,
    view: _View,
    binding: tuple[str, ...],
    marginal: float,
    shortfall_w: float,
    now_s: float,
) -> Outlook:
    """The figures of this decision, with the grants it has just made counted in."""
    spent, tree = view.budget, state.site.tree
    rules = state.site.rules
    ceiling_w = leases.ceilings(state.fleet, state.ledger, state.seen, now_s, rules.stale_after_s)
    bounds = {name: node.bound_w for name, node in state.nodes.items()}
    committed_w = spent.fixed_w + tree.totals(
        budget.devices_w(state, ceiling_w, spent.credit_w) + budget.compute_w(state, bounds)
    )
    return Outlook(
        cap_w=view.verdict.cap_w,
        cap_origin=view.verdict.origin,
        margin_w=spent.margin_w,
        budget_w=float(spent.limit_w[0]),
        committed_w=float(committed_w[0]),
        spare_w=state.excess_w + state.reserve_w,
        other_w=float(spent.fixed_w[0]),
        price_usd_per_mwh=state.price_usd_per_mwh(),
        marginal_usd_per_mwh=marginal,
        binding=binding,
        feeder_committed_w=tuple(float(w) for w in committed_w),
        shortfall_w=shortfall_w,
    )
