"""How many watts every feeder may give away: limits, margins, and what is spoken for already.

The root's limit is the effective cap, and a target with its trim where that lies below it. From
each limit go the margin (a target knows none), the load that nobody leases (work on a compute node
that asked for no watts among it), and what measurement shows beyond our explanation (I9). What is
kept for bursts of inference is no part of this: it may mine behind a gate (`reserve`).
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.signals import overhead
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.state import State

EXCESS_KEPT_PER_S = 0.97
"""Share of a measured excess still believed a second later: it fades over about a minute."""

EXCESS_DEAD_BAND = 0.005
"""Share of the cap below which an excess is taken for meter noise."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Watts per feeder, shape (feeders,), W.

    Attributes:
        limit_w: what each feeder may carry after its margin, the root no more than a target.
        fixed_w: load under it that no lease can change: other load, unasked work, measured excess,
            reserve.
        hard_w: what the root may carry after its margin if there were no target; a scalar.
        mining_w: what it may carry while mining draws above its lowest points; a scalar.
        margin_w: margin taken from the cap in force.
    """

    limit_w: Floats
    fixed_w: Floats
    hard_w: float
    mining_w: float
    margin_w: float


def budget(state: State, verdict: Arbitrated, now_s: float) -> Budget:
    """Work out the watts of every feeder under the cap in force."""
    rules, tree = state.site.rules, state.site.tree
    stale = now_s - state.meter_at_s > rules.stale_after_s
    metered = not np.isnan(state.meter_w)
    least_share = rules.stale_margin_share if metered and stale else 0.0
    limit_w = tree.usable_w(rules.margin_share, least_share)
    share = float(tree.shares(rules.margin_share, least_share)[0])
    hard_w = min(float(tree.limit_w[0]), verdict.cap_w) * (1.0 - share)
    limit_w[0] = min(hard_w, verdict.aim_w + verdict.trim_w)
    other_w = overhead.reserved_w(state.overhead, rules.other_load_w, hard_w)
    own_w = unasked_w(state)
    own_w[0] += other_w + state.excess_w
    return Budget(
        limit_w=limit_w,
        fixed_w=tree.totals(own_w),
        hard_w=hard_w,
        mining_w=min(float(limit_w[0]), verdict.mining_w),
        margin_w=verdict.cap_w * share,
    )


def unasked_w(state: State) -> Floats:
    """Draw on compute nodes that no watts were asked for, at the nodes' own feeders, W: others'
    work, and what Ray and Serve need themselves.

    While it is unknown it counts at what was last seen; a node of which nothing was ever told
    counts none, as before that sort of work was looked for.
    """
    told = {
        name: float(np.nansum((node.unasked_w, node.system_w)))
        for name, node in state.nodes.items()
    }
    return compute_w(state, told)


def credit_w(state: State) -> Floats:
    """Watts of each gated device that its host's compute counts already; shape (n,).

    A gated miner hashes only while the compute beside it does not, so of the two only the larger is
    drawn. The watts granted to the node are shared between the gated devices of that host, as far
    as their feeders carry the node, too: elsewhere its watts are not counted.
    """
    fleet = state.fleet
    overlaps = _overlapping(state)
    shared = np.bincount(fleet.host[overlaps], minlength=len(fleet.hosts))
    # The last entry is what a device without a host finds at index -1.
    bounds_w = np.array(host_bounds_w(state), dtype=np.float64)
    each_w = np.append(bounds_w / np.maximum(shared, 1), 0.0)
    return np.where(overlaps, each_w[fleet.host], 0.0)


def _overlapping(state: State) -> Bools:
    """Gated devices whose own feeder carries the compute node of their host; shape (n,)."""
    fleet, tree = state.fleet, state.site.tree
    at = {node.name: tree.index[node.feeder] for node in state.site.nodes}
    gates = np.flatnonzero(fleet.host >= 0)
    node = np.array([at.get(name, -1) for name in fleet.hosts], dtype=np.int64)[fleet.host[gates]]
    carried = (tree.ancestors[:, node] == fleet.feeder[gates]).any(axis=0) & (node >= 0)
    overlaps = np.zeros(len(fleet), dtype=np.bool_)
    overlaps[gates[carried]] = True
    return overlaps


def host_bounds_w(state: State) -> tuple[float, ...]:
    """The most that compute may draw on each host of gated devices, W."""
    nodes = state.nodes
    return tuple([nodes[name].bound_w if name in nodes else 0.0 for name in state.fleet.hosts])


def compute_w(state: State, watts: dict[str, float]) -> Floats:
    """Sum watts of compute nodes at their own feeders; shape (feeders,), not yet up the tree."""
    load = np.zeros(len(state.site.tree.names))
    for node in state.site.nodes:
        load[state.site.tree.index[node.feeder]] += watts[node.name]
    return load


def excess_w(
    state: State, explained_w: float, cap_w: float, elapsed_s: float, fresh: bool
) -> float:
    """Measured watts beyond what the ledger explains, held and slowly released, W (I9).

    Args:
        state: holds the meter's last reading and the excess so far.
        explained_w: sum of ceilings and the bound on other load, W.
        cap_w: the cap in force, W; sets the dead band.
        elapsed_s: since the last decision, s.
        fresh: whether the meter is not stale.
    """
    kept = state.excess_w * EXCESS_KEPT_PER_S**elapsed_s
    if not fresh or np.isnan(state.meter_w):
        return state.excess_w
    beyond_w = state.meter_w - explained_w
    seen = beyond_w if beyond_w > EXCESS_DEAD_BAND * cap_w else 0.0
    faded = kept if kept > 1.0 else 0.0
    return max(seen, faded)
