"""Bursts of services in a decision: what is kept for them, and what gates give up at once.

While the watts of a burst are still with machines that are slow to give them back, devices behind
gates give up theirs instead, within milliseconds, and get them back as the slow ones follow. So a
burst within the reserve waits for no machine (I4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.compute import demand
from wattshift_scheduler.compute.placement import Placement
from wattshift_scheduler.fixed import GATE_S
from wattshift_scheduler.forecasts.reserve import Reserve
from wattshift_scheduler.in_force import acting
from wattshift_scheduler.jobs import JobKind
from wattshift_scheduler.ladder.allocate import Allocation, beyond
from wattshift_scheduler.promises.obligations import Need, obligations
from wattshift_scheduler.site import FeederTree
from wattshift_scheduler.state import State

SLOW_MOST_S = 600.0
"""A machine that takes longer to give watts back is not waited for by any forecast of a burst."""

CENT_W = 1e-6

NOTHING = Reserve()
"""Where there is no service nothing is kept for one, and nothing costs time."""


def noted(state: State, now_s: float) -> State:
    """The state with the demand of services as of now remembered."""
    share = state.site.rules.burst_share
    if share <= 0.0:
        return state
    asked = {
        job.id: (demand.units(job), job.unit_w)
        for job in state.of_kind(JobKind.SERVICE)
        if not job.held and job.unit_w > 0
    }
    if not asked and not state.bursts.asked:
        return state
    bursts = state.bursts.noted(asked, slow_s(state), share, now_s)
    return state if bursts is state.bursts else replace(state, bursts=bursts)


def slow_s(state: State) -> float:
    """How long the slowest running machine without a gate takes to be seen to give watts back, s;
    the gates' time where none runs."""
    fleet, rules = state.fleet, state.site.rules
    runs = ~fleet.fenced & (state.ledger.point > 0)
    if not runs.any():
        return GATE_S
    down_s = float(fleet.point_transition_s[fleet.first[:-1][runs]].max())
    return min(down_s * rules.settle_factor + rules.stale_after_s, SLOW_MOST_S)


def reserved(
    state: State, free_w: float, stuck: Bools, owed: Sequence[Need], now_s: float
) -> Reserve:
    """What is kept ready now, and by what.

    Args:
        state: after `noted`.
        free_w: by how much the sum of ceilings may still rise at the root, W.
        stuck: devices that cannot be relied on; shape (n,).
        owed: what promises to the grid need devices for.
        now_s: our clock, s.
    """
    plan_w = acting.reserve_w(state, now_s)
    if not state.bursts.asked and plan_w <= 0.0:
        return NOTHING
    within_s = state.bursts.within_s if state.bursts.asked else slow_s(state)
    return Reserve(
        burst_w=_burst_w(state, now_s),
        plan_w=plan_w,
        grid_w=_grid_w(state, within_s, owed, now_s),
        within_s=within_s,
        gates_w=gates_w(state, stuck),
        free_w=max(free_w, 0.0),
    )


def _grid_w(state: State, within_s: float, owed: Sequence[Need], now_s: float) -> float:
    """What events in force have not got yet, or what is promised with so short a notice that gates
    alone can serve it, W: the larger, for the one is a part of the other."""
    open_w = sum([one.watts_w for one in obligations(state, now_s) if one.within_s <= 0.0], 0.0)
    return max([open_w, *(need.watts_w for need in owed if need.within_s < within_s)])


def gates_w(state: State, stuck: Bools) -> float:
    """What devices behind gates that answer are leased above their lowest points, W."""
    fleet, ledger = state.fleet, state.ledger
    gates = np.flatnonzero(fleet.fenced & ~stuck & (ledger.point > 0))
    above_w = ledger.lease_w[gates] - state.ladder.base_w[gates]
    return float(np.maximum(above_w, 0.0).sum())


def _burst_w(state: State, now_s: float) -> float:
    """The burst to be ready for, no more than services and nodes could take, W."""
    jobs = [state.jobs[name] for name in state.bursts.asked if name in state.jobs]
    growing = [job for job in jobs if not job.state.final and demand.units(job) < job.max_units]
    if state.site.rules.burst_share <= 0.0 or not growing:
        return 0.0
    most_w = sum((job.max_units - demand.units(job)) * job.unit_w for job in growing)
    room_w = sum(
        max(node.max_w - state.nodes[node.name].bound_w, 0.0)
        for node in state.site.nodes
        if state.nodes[node.name].up
    )
    unit_w = max(job.unit_w for job in growing)
    need_w = state.bursts.needs_w(unit_w, min(most_w, room_w), now_s)
    return max(need_w - _idle_w(state), 0.0)


def _idle_w(state: State) -> float:
    """Watts that nodes still hold and no unit needs any more, W: a burst may have those first."""
    held_w = sum(node.bound_w for node in state.nodes.values() if node.up)
    placed_w = sum(
        job.wanted_w
        for job in state.jobs.values()
        if job.kind is not JobKind.MINING and not job.state.final
    )
    return max(held_w - placed_w, 0.0)


def lacking_w(
    state: State, placement: Placement, raise_w: Mapping[str, float], headroom_w: Floats
) -> Floats | None:
    """Watts that services are to have now and that no feeder has free; shape (feeders,). None:
    they have all that they are to have.

    Args:
        state: before the commands of this decision.
        placement: what every node should run.
        raise_w: by how much each node may rise at once, W.
        headroom_w: watts by which each feeder's load may still rise, W; shape (feeders,).
    """
    growth_w = _growth_w(state, placement) if state.site.rules.burst_share > 0.0 else {}
    if not growth_w:
        return None
    tree = state.site.tree
    missing_w, rising_w = np.zeros(len(tree.names)), np.zeros(len(tree.names))
    for node in state.site.nodes:
        power = state.nodes[node.name]
        if not power.up:
            continue
        feeder, rise_w = tree.index[node.feeder], raise_w.get(node.name, 0.0)
        rising_w[feeder] += rise_w
        goal_w = placement.target_w.get(node.name, 0.0) - power.most_w - rise_w
        missing_w[feeder] += min(max(goal_w, 0.0), growth_w.get(node.name, 0.0))
    if not missing_w.any():
        return None
    left_w = np.maximum(headroom_w - tree.totals(rising_w), 0.0)
    found: Floats = np.maximum(tree.totals(missing_w) - left_w, 0.0)
    return np.where(tree.totals(missing_w) > CENT_W, found, 0.0)


def _growth_w(state: State, placement: Placement) -> dict[str, float]:
    """Watts of the replicas that are still to come, by node, W."""
    found: dict[str, float] = {}
    for one in placement.placed:
        if one.job.kind is not JobKind.SERVICE:
            continue
        there = one.job.by_node or {}
        for node, units in one.nodes.items():
            more = units - there.get(node, 0)
            if more > 0:
                found[node] = found.get(node, 0.0) + more * one.job.unit_w
    return found


def lent(
    state: State,
    wanted: Allocation,
    lacking: Floats,
    *,
    ceiling_w: Floats,
    credit_w: Floats,
    able: Bools,
) -> tuple[Allocation, float]:
    """The allocation after gates have given up what services lack, and how much that is, W.

    Args:
        state: holds the fleet, the ladder and what is leased.
        wanted: where every device should run once slow ones have followed.
        lacking: from `lacking_w`.
        ceiling_w: the most each device can draw, W; shape (n,).
        credit_w: watts of each device that overlapping compute counts already; shape (n,).
        able: devices that can be relied on now; shape (n,).
    """
    fleet, tree = state.fleet, state.site.tree
    gates = np.flatnonzero(fleet.fenced & able & (state.ledger.point >= 0))
    if not len(gates) or not lacking.any():
        return wanted, 0.0
    gates = gates[np.argsort(state.ladder.best_usd_per_mwh[gates], kind="stable")]
    feeder, credit = fleet.feeder[gates], credit_w[gates]
    held_w = np.minimum(wanted.watts_w, state.ledger.lease_w)[gates]
    counted_w = beyond(credit, held_w)
    # What gates give up anyhow, or were told to a moment ago, is on its way.
    falls_w = np.maximum(beyond(credit, ceiling_w[gates]) - counted_w, 0.0)
    owed_w = lacking - tree.totals(summed(feeder, falls_w, len(tree.names)))
    left_w = counted_w - beyond(credit, state.ladder.base_w[gates])
    given_w = _given_w(tree, feeder, left_w, owed_w)
    total_w = float(given_w.sum())
    if total_w <= CENT_W:
        return wanted, 0.0
    return _lowered(state, wanted, gates, held_w, given_w), total_w


def _given_w(tree: FeederTree, feeder: Ints, left_w: Floats, owed_w: Floats) -> Floats:
    """What each gate gives so that every feeder gets what it is owed, as far as there is any; those
    that come first give first, and what was given below counts above; shape (gates,)."""
    given_w = np.zeros(len(feeder))
    for ancestor in tree.ancestors[::-1]:
        at = ancestor[feeder]
        for one in np.unique(at[(at >= 0) & (owed_w[at] > CENT_W)]):
            rows = np.flatnonzero(at == one)
            need_w = float(owed_w[one] - given_w[rows].sum())
            open_w = left_w[rows] - given_w[rows]
            before_w = np.cumsum(open_w) - open_w
            given_w[rows] += np.clip(need_w - before_w, 0.0, open_w)
    return given_w


def _lowered(
    state: State, wanted: Allocation, gates: Ints, held_w: Floats, given_w: Floats
) -> Allocation:
    """The allocation with so many watts less on each of some gates, in whole points where a device
    knows nothing between them."""
    fleet, points, watts_w = state.fleet, wanted.point.copy(), wanted.watts_w.copy()
    for i in np.flatnonzero(given_w > 0.0):
        device = int(gates[i])
        limit_w = fleet.point_limit_w[fleet.first[device] : fleet.first[device + 1]]
        new_w = max(float(held_w[i] - given_w[i]), float(limit_w[0]))
        if fleet.continuous[device]:
            points[device] = int(np.searchsorted(limit_w, new_w - CENT_W))
        else:
            points[device] = int(np.searchsorted(limit_w, new_w + CENT_W, side="right")) - 1
            new_w = float(limit_w[points[device]])
        watts_w[device] = new_w
    # What was looked up for the other points goes with them.
    return replace(wanted, point=points, watts_w=watts_w, _next=[])
