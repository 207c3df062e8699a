"""One turn of the core: fold the events in, then decide. Pure, so every run can be replayed.

    events ─▶ reducers ─▶ arbitrate ─▶ budget ─▶ place compute ─▶ allocate mining ─▶ move leases
                                                      │                  │                │
                                                      └──── commands ◀───┴────────────────┘

Nothing here reads a clock, draws a number or waits. Events come in with the time they happened;
what should be done goes out as commands; why goes out as decisions.

A decision costs what has changed since the last one, not what exists: `carried` holds the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from wattshift_scheduler.arrays import ALL, Bools, Floats, Ints, Rows
from wattshift_scheduler.carried import Weights, union
from wattshift_scheduler.commands import Command
from wattshift_scheduler.compute import act, bursts, lateness, leaving, vacancy
from wattshift_scheduler.compute.displacing import Mined
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placement, place
from wattshift_scheduler.compute.raises import raises_w
from wattshift_scheduler.compute.rivals import Rivals, any_yields
from wattshift_scheduler.decisions import AnyDecision, Decision, Input
from wattshift_scheduler.events import Event
from wattshift_scheduler.in_force import acting, budget, carbon, shortfalls
from wattshift_scheduler.in_force.effective import arbitrated, standing_caps
from wattshift_scheduler.jobs import JobKind
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.ladder.allocate import Allocation, allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.promises import held_words, holding, obligations
from wattshift_scheduler.signals import ramps, telling
from wattshift_scheduler.signals.arbitrate import Arbitrated, lasts_s
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.state import Outlook, State
from wattshift_scheduler.turn import alarms, moves, upkeep
from wattshift_scheduler.turn.reducers import folded

MANY_SHARE = 0.1
"""Above this share of the devices all are looked at: to pick some costs more than to pass all."""

Stepped = tuple[State, tuple[Command, ...], tuple[AnyDecision, ...]]


def step(state: State, events: Iterable[Event], now_s: float) -> Stepped:
    """Fold `events` into `state`, decide, and return the new state, commands and decisions.

    Args:
        state: from the last step, or `state.initial`.
        events: in the order in which they happened. A Tick carries nothing: it is there so that
            time passes when nothing else happens.
        now_s: our clock, s; it must not run backwards.
    """
    state, told = folded(state, events, now_s)
    state, commands, reasons = decide(state, now_s)
    return state, commands, (*told, *reasons)


@dataclass(frozen=True, slots=True)
class _View:
    """What a decision looks at, beside what is carried: watts by feeder, worked out once per step,
    and the rows of devices whose facts may have changed."""

    verdict: Arbitrated
    caps: tuple[Cap, ...]
    budget: budget.Budget
    headroom_w: Floats
    floor_w: Floats
    rows: Ints


def decide(state: State, now_s: float) -> Stepped:
    """Decide on the present state."""
    carried, rows = upkeep.brought(state, now_s)
    state, verdict = arbitrated(replace(state, carried=carried), now_s)
    state, view = _view(state, verdict, rows, now_s)
    told: list[AnyDecision] = list(_cap_told(state, view.verdict, now_s))
    commands: list[Command] = []
    state, late = lateness.marked(state, now_s)
    told.extend(late)
    placement = _placed(state, view, now_s)
    state, view, why = _vacated(state, view, placement, now_s)
    told.extend(why)
    raise_w = raises_w(state.site, state.nodes, placement, view.headroom_w) if state.nodes else {}
    before_w = {name: node.bound_w for name, node in state.nodes.items()}
    lacking_w = bursts.lacking_w(state, placement, raise_w, view.headroom_w)
    state, asked, why = act.act(state, placement, raise_w=raise_w, now_s=now_s)
    commands.extend(asked)
    told.extend(why)
    bound_w = {name: node.bound_w for name, node in state.nodes.items()}
    rise_w = {name: max(watts_w - before_w[name], 0.0) for name, watts_w in bound_w.items()}
    headroom_w = view.headroom_w - state.site.tree.totals(budget.compute_w(state, rise_w))
    load_w = placement.load_w()
    spoken_w = {name: max(watts_w, bound_w[name]) for name, watts_w in load_w.items()}
    state = bursts.noted(state, now_s)
    state, grants, why_moves, outlook = _mine(
        state,
        view,
        spoken_w,
        headroom_w,
        lacking_w,
        leaving.leaving_w(state, spoken_w, load_w),
        now_s=now_s,
    )
    kept, why_alarms = alarms.raised(
        state, verdict, outlook=outlook, late=carried.facts.late, now_s=now_s
    )
    state = replace(state, outlook=outlook, alarms=kept, verdict=view.verdict, decided_s=now_s)
    return state, (*grants, *commands), (*told, *why_moves, *why_alarms)


def _view(state: State, verdict: Arbitrated, rows: Ints, now_s: float) -> tuple[State, _View]:
    tree, spent, carried = state.site.tree, budget.budget(state, verdict, now_s), state.present
    sums = upkeep.summed(state, carried)
    bounds = {name: node.bound_w for name, node in state.nodes.items()}
    at_most_w = tree.totals(sums.ceilings_w + budget.compute_w(state, bounds))
    view = _View(
        verdict=verdict,
        caps=standing_caps(state, now_s),
        budget=spent,
        headroom_w=spent.limit_w - spent.fixed_w - at_most_w,
        floor_w=spent.fixed_w + tree.totals(sums.leasts_w),
        rows=rows,
    )
    return replace(state, carried=replace(carried, sums=sums)), view


def _vacated(
    state: State, view: _View, placement: Placement, now_s: float
) -> tuple[State, _View, tuple[Decision, ...]]:
    """Cards whose tables make room for compute, or may be built again, are put into effect."""
    before, carried = state.tables, state.present
    state, why = vacancy.decided(state, placement, carried.mines & ~carried.facts.stuck, now_s)
    if state.tables is before:
        return state, view, why
    carried, rows = upkeep.brought(state, now_s)
    rows = union(len(state.fleet), view.rows, rows)
    return replace(state, carried=carried), replace(view, rows=rows), why


def _cap_told(state: State, verdict: Arbitrated, now_s: float) -> tuple[Decision, ...]:
    return telling.told(state.verdict, verdict, now_s)


def _placed(state: State, view: _View, now_s: float) -> Placement:
    jobs = [j for j in state.jobs.values() if j.kind is not JobKind.MINING and not j.state.final]
    if not (jobs or state.nodes):
        return Placement((), {})
    ground = Ground(
        site=state.site,
        powers=state.nodes,
        room_w=view.budget.limit_w - view.floor_w,
        free_w=view.headroom_w,
        cap=view.verdict,
        caps=view.caps,
        now_s=now_s,
        mined=Mined.of(state),
        rivals=_rivals(state, view, now_s) if any_yields(jobs) else None,
        waits_s=acting.waits_s(state, now_s),
        needs_s=acting.needs_s(state, now_s),
    )
    return place(ground, jobs)


def _rivals(state: State, view: _View, now_s: float) -> Rivals:
    """Mining that batch of less worth gives way to."""
    facts, fleet, price = state.present.facts, state.fleet, carbon.mining_usd_per_mwh(state, now_s)
    # In a deep cut what is fast must turn before any batch has left; what is slow can wait.
    waits = leaving.slow(state) & (state.ledger.point > 0)
    bridge_w = bursts.gates_w(state, facts.stuck) + float(state.ledger.lease_w[waits].sum())
    bridged = bool(-view.headroom_w[0] <= bridge_w)
    ladder = _ranked(state, view, now_s)
    return Rivals.of(fleet, ladder, state.site.tree, facts.free, price, bridged=bridged)


def _ranked(state: State, view: _View, now_s: float) -> Ladder:
    """The ladder for the devices that run now and for as long as what is asked will last."""
    rules, fleet = state.site.rules, state.fleet
    horizon_s = cycles.horizon_s(lasts_s(view.caps, view.verdict, now_s), rules)
    last, runs = state.present.weights, state.present.facts.runs
    cold = state.tables.cold(fleet) if state.present.orders.tabled else None
    same = last is not None and last.runs is runs and last.ladder is state.ladder
    if same and cold is None and state.ladder.horizon_s == horizon_s:
        return state.ladder
    return Ladder.of(fleet, state.values, runs, horizon_s, cold, state.ladder)


def _mine(
    state: State,
    view: _View,
    spoken_w: dict[str, float],
    headroom_w: Floats,
    lacking_w: Floats | None,
    leaving_w: Floats | None,
    *,
    now_s: float,
) -> tuple[State, tuple[Command, ...], tuple[AnyDecision, ...], Outlook]:
    tree, spent, carried = state.site.tree, view.budget, state.present
    facts, credit_w = carried.facts, carried.credit_w
    compute_w = tree.totals(budget.compute_w(state, spoken_w))
    room_w = spent.limit_w - view.floor_w - compute_w
    least_w = view.floor_w + compute_w
    headroom_w, open_w = np.array(headroom_w), room_w.copy()
    room_w[0], headroom_w[0] = _mining_room(state, view, room_w[0], headroom_w[0])
    before = state
    state, take = _weighed(state, view, now_s)
    rooms = _Rooms(open_w, room_w, float(headroom_w[0]), lacking_w, leaving_w)
    wanted, plain, state = _wanted(state, view, rooms, take, now_s)
    heard, orders = carried.heard, carried.orders
    held = moves.target(
        state,
        wanted,
        at=_unsettled(state, view, wanted),
        stuck=facts.stuck,
        short=tree.any_above(room_w < 0),
        ceiling_w=facts.ceiling_w,
        credit_w=credit_w,
        headroom_w=headroom_w,
        waits=_waits(state, now_s),
        silent=orders.spread(heard.silent) if heard.silent.any() else None,
        now_s=now_s,
    )
    marginal = _marginal_usd_per_mwh(plain)
    inputs = _inputs(state, view.verdict, wanted, marginal, now_s)
    state, grants, told = moves.grant(state, held, wanted, inputs, now_s)
    told += moves.told_kept(state, before.turns.kept, wanted, inputs, now_s)
    why = held_words.told(before.held, state, wanted, inputs, now_s)
    turns, point = state.turns, before.ledger.point
    if state.ledger.point is not point:
        turns = cycles.turned(turns, point, state.ledger.point, facts.free & ~take, now_s)
    state, outlook = _closed(replace(state, turns=turns), view, wanted, held, now_s)
    # What is missing is told against the cap itself: a target below the floor is no shortfall, and
    # a floor that lies in the margin is kept.
    outlook = replace(
        outlook,
        shortfall_w=max(float(least_w[0]) - view.verdict.cap_w, 0.0),
        counted_w=float(least_w[0]),
        feeder_counted_w=shortfalls.missed(state.site, least_w),
        marginal_usd_per_mwh=marginal,
    )
    excess_w = budget.excess_w(
        state,
        explained_w=_explained_w(state, outlook),
        cap_w=view.verdict.cap_w,
        elapsed_s=_elapsed_s(state, now_s),
        fresh=now_s - state.meter_at_s <= state.site.rules.stale_after_s,
    )
    return replace(state, excess_w=excess_w), grants, (*told, *why), outlook


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What allocation has to go by, W; by feeder where not said else.

    Attributes:
        open_w: what limits and compute leave.
        room_w: the same once targets of mining have had their say at the root.
        free_w: what nothing may draw now at the root.
        lacking_w: what services are to have at once and no feeder has free; None: nothing.
        leaving_w: what counts until it has left; None: nothing.
    """

    open_w: Floats
    room_w: Floats
    free_w: float
    lacking_w: Floats | None
    leaving_w: Floats | None


def _wanted(
    state: State, view: _View, rooms: _Rooms, take: Bools, now_s: float
) -> tuple[Allocation, Allocation, State]:
    """Where every device should run now, the same with nothing held up for promises, and the state
    with what is kept ready and held up by it."""
    facts, credit_w = state.present.facts, state.present.credit_w
    owed = obligations.needs(state, view.verdict.cap_w, now_s)
    reserve = bursts.reserved(state, rooms.free_w, facts.stuck, owed, now_s)
    allocated = partial(
        allocate,
        state.fleet,
        state.ladder,
        state.site.tree,
        eligible=facts.free,
        credit_w=credit_w,
        price_usd_per_mwh=carbon.mining_usd_per_mwh(state, now_s),
        take=take,
        reserve_w=reserve.services_w,
    )
    wanted = allocated(room_w=np.maximum(rooms.room_w, 0.0), last=state.present.filled)
    if rooms.leaving_w is not None:
        later_w = rooms.open_w + rooms.leaving_w
        later_w[0], _ = _mining_room(state, view, later_w[0], 0.0)
        after = partial(allocated, room_w=np.maximum(later_w, 0.0), last=wanted.filled)
        wanted, waits_s = leaving.waited(state, wanted, after, now_s)
        reserve = replace(reserve, waits_s=waits_s)
    plain = wanted
    room = holding.Room(rooms.room_w, float(rooms.open_w[0]), reserve.services_w)
    wanted, state = holding.held(state, wanted, owed, room, now_s)
    held = state.held
    if rooms.lacking_w is not None:
        before = wanted
        wanted, lent_w = bursts.lent(
            state,
            before,
            rooms.lacking_w,
            ceiling_w=facts.ceiling_w,
            credit_w=credit_w,
            able=~facts.stuck,
        )
        reserve, held = replace(reserve, lent_w=lent_w), holding.lent(held, plain, before, wanted)
    plain = plain if len(held.rows) else wanted
    return wanted, plain, replace(state, reserve=reserve, held=held)


def _unsettled(state: State, view: _View, wanted: Allocation) -> Rows:
    """Devices that may not hold what is wanted: those that did not before, those of which something
    has changed, and those of which something else is wanted now."""
    carried, n = state.present, len(state.fleet)
    if carried.wanted_w is None or carried.moving is None:
        return ALL
    other = wanted.watts_w != carried.wanted_w
    if np.count_nonzero(other) > MANY_SHARE * n:
        return ALL
    rows = union(n, view.rows, carried.moving, np.flatnonzero(other))
    return ALL if len(rows) > MANY_SHARE * n else rows


def _mining_room(
    state: State, view: _View, room_w: float, headroom_w: float
) -> tuple[float, float]:
    """What the root may give to rungs, and by how much ceilings may rise there, once targets of
    mining and the notice of an event have had their say, W."""
    spent, notice_w, sums = view.budget, view.verdict.notice_w, state.present.sums
    assert sums is not None, "they are summed for the view"
    below_w = float(spent.limit_w[0]) - spent.mining_w
    room_w = min(room_w - below_w, notice_w - sums.least_w)
    return room_w, min(headroom_w - below_w, notice_w - sums.ceiling_w)


def _waits(state: State, now_s: float) -> Bools | None:
    """Devices whose feeder and host have not had their turn since a cap rose; None: all may."""
    stagger_s, rose_s = state.site.rules.stagger_s, state.memory.pace.rose_s
    if not now_s < rose_s + stagger_s:
        return None
    fleet, feeders = state.fleet, len(state.site.tree.names)
    dice = np.array([ramps.die(agent, rose_s) for agent in fleet.agents], dtype=np.float64)
    turn_s = rose_s + stagger_s * (fleet.feeder + dice[fleet.agent]) / feeders
    return np.asarray(now_s < turn_s, dtype=np.bool_)


def _weighed(state: State, view: _View, now_s: float) -> tuple[State, Bools]:
    """The ladder and the memory of turns as of now, and which devices are to run at this price."""
    rules, fleet, facts = state.site.rules, state.fleet, state.present.facts
    ladder = _ranked(state, view, now_s)
    last = state.present.weights
    asked = cycles.Asked(
        price_usd_per_mwh=carbon.mining_usd_per_mwh(state, now_s),
        expected_s=rules.expected_shed_s,
        elapsed_s=_elapsed_s(state, now_s),
        now_s=now_s,
        min_up_s=rules.min_up_s,
        min_down_s=rules.min_down_s,
        worths=acting.worths(state, now_s, None if last is None else last.worths),
        runs=facts.runs,
    )
    rows = None if last is None else last.other(ladder, state.turns, asked, view.rows)
    if last is None or rows is None:
        bound = cycles.held(fleet, state.turns, facts.runs, rules, now_s)
        weighed = cycles.weighed_anew(ladder, state.turns, facts.free, asked, bound)
    elif len(rows):
        at = ALL if len(rows) == len(fleet) else rows
        bound = cycles.held(fleet, state.turns, facts.runs[at], rules, now_s, at)
        weighed = cycles.weighed_again(
            last.weighed, ladder, state.turns, facts.free, asked, bound, at
        )
    else:
        weighed = last.weighed.waited(state.turns, asked.elapsed_s)
    weights = Weights(
        weighed, ladder, asked.price_usd_per_mwh, weighed.turns, asked.worths, facts.runs
    )
    carried = replace(state.present, weights=weights)
    return replace(state, ladder=ladder, turns=weighed.turns, carried=carried), weighed.take


def _marginal_usd_per_mwh(wanted: Allocation) -> float:
    """What the least valuable rung taken earns: as the root's cut tells, if nobody changed it."""
    filled = wanted.filled
    if wanted.watts_w is filled.watts_w:
        least = filled.capped.least_usd_per_mwh(filled.settled)
        if least is not None:
            return least
    return wanted.marginal_usd_per_mwh


def _elapsed_s(state: State, now_s: float) -> float:
    """Time since the last decision, s; 0 before the first one."""
    return max(now_s - state.decided_s, 0.0) if np.isfinite(state.decided_s) else 0.0


def _inputs(
    state: State, verdict: Arbitrated, wanted: Allocation, marginal: float, now_s: float
) -> dict[str, Input]:
    """What a change of leases rests on: the cap, the prices, and what the last watt is worth."""
    price = state.price_usd_per_mwh()
    age_s = now_s - state.quote.observed_s
    beyond, kept = acting.beyond_usd_per_mwh(state, now_s), state.reserve
    emitted = carbon.usd_per_mwh(state, now_s)
    return {
        "cap_w": verdict.cap_w,
        "cap_origin": verdict.origin,
        "price_usd_per_mwh": None if np.isinf(price) else price,
        "marginal_usd_per_mwh": None if np.isnan(marginal) else marginal,
        "binding": ", ".join(wanted.binding),
        "hashprice_usd_per_ph_day": state.values.hashprice_usd_per_ph_day,
        "hashprice_source": state.quote.source,
        "hashprice_age_s": None if np.isnan(age_s) else age_s,
        **({"plan_usd_per_mwh": beyond} if beyond else {}),
        **({"carbon_usd_per_mwh": emitted} if emitted else {}),
        **({"reserve_w": kept.services_w} if kept.services_w else {}),
        **({"lent_w": kept.lent_w} if kept.lent_w else {}),
        **held_words.figures(state.held),
        **telling.targets(verdict),
    }


def _explained_w(state: State, outlook: Outlook) -> float:
    """The most that the ledger says the meter could have shown since the last decision, W.

    The meter was read between then and now, so what was counted then still explains it. What is
    kept free for an excess explains nothing.
    """
    spare_w = state.excess_w
    before = state.outlook
    if np.isnan(before.committed_w):
        return outlook.committed_w - spare_w
    return max(outlook.committed_w - spare_w, before.committed_w - before.spare_w)


def _closed(
    state: State, view: _View, wanted: Allocation, held: moves.Target, now_s: float
) -> tuple[State, Outlook]:
    """The figures of this decision, with the grants it has just made counted in, and what the next
    one need not work out anew."""
    spent, tree, weights = view.budget, state.site.tree, state.present.weights
    carried, ceilings_w = upkeep.granted(state, held.raised, now_s)
    bounds = {name: node.bound_w for name, node in state.nodes.items()}
    committed_w = spent.fixed_w + tree.totals(ceilings_w + budget.compute_w(state, bounds))
    carried = replace(
        carried,
        weights=None if weights is None else replace(weights, turns=state.turns),
        wanted_w=wanted.watts_w,
        moving=held.moving,
        filled=wanted.filled,
    )
    outlook = Outlook(
        cap_w=view.verdict.cap_w,
        cap_origin=view.verdict.origin,
        margin_w=spent.margin_w,
        budget_w=float(spent.limit_w[0]),
        committed_w=float(committed_w[0]),
        spare_w=state.excess_w,
        other_w=float(spent.fixed_w[0]),
        price_usd_per_mwh=state.price_usd_per_mwh(),
        binding=wanted.binding,
        feeder_usd_per_mwh=tuple(wanted.feeder_usd_per_mwh.tolist()),
        feeder_committed_w=tuple(committed_w.tolist()),
    )
    return replace(state, carried=carried), outlook
