"""Which cards compute needs empty: a unit that comes finds no table of mining in its card.

How much memory a unit takes nobody says, so it counts as the whole card; and which card of a node
Ray will give it nobody knows before it has. So while units are still to come to a node, all of its
tables are freed. Once they are there, the cards whose gates they mark are kept free; where fewer
marks are seen than cards are taken, all are.

A unit is not started before the readings say that its node's cards are free, or before such a
reading is overdue: then the hand-over at the gate, which frees a card whatever the controller
knows, is all that guards it (invariant I4 bounds the wait).
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from wattshift_scheduler import tables
from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.compute.ground import labels_of, suits
from wattshift_scheduler.compute.placement import Placed, Placement
from wattshift_scheduler.compute.tenants import EPS_W
from wattshift_scheduler.decisions import Decision, usd_text
from wattshift_scheduler.in_force import carbon
from wattshift_scheduler.jobs import JobState
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.ladder.ladder import build_usd
from wattshift_scheduler.state import State

GIB = 1 << 30


def decided(
    state: State, placement: Placement, free: Bools, now_s: float
) -> tuple[State, tuple[Decision, ...]]:
    """Say which cards' tables make room, and which may be built again.

    Args:
        state: the present state.
        placement: what all nodes should run.
        free: devices that may mine now; shape (n,).
        now_s: our clock, s.
    """
    if not (state.fleet.table_bytes > 0).any():
        return state, ()
    before, elapsed_s = state.tables, max(now_s - state.decided_s, 0.0)
    wanted, next_s = _needs(state, placement)
    margin = cycles.margin_usd_per_h(state.ladder, carbon.mining_usd_per_mwh(state, now_s))
    cost_usd = build_usd(state.fleet, state.values)
    after = tables.weighed(
        before,
        state.fleet,
        wanted=wanted,
        margin_usd_per_h=np.where(free & np.isfinite(margin), margin, 0.0),
        cost_usd=cost_usd,
        next_s=next_s,
        elapsed_s=elapsed_s if math.isfinite(elapsed_s) else 0.0,
        now_s=now_s,
    )
    state = replace(state, tables=after)
    return state, tuple(_told(state, before, cost_usd, now_s))


def waits(state: State, now_s: float) -> frozenset[str]:
    """Nodes to which no unit with GPUs may come yet: a card was not seen free, and may still be."""
    if not state.tables.wanted.any():
        return frozenset()
    fleet, patience_s = state.fleet, state.site.rules.stale_after_s
    held = state.tables.wanted & ~_vacant(state, now_s)
    held &= now_s - state.tables.wanted_s < patience_s
    return frozenset(fleet.hosts[host] for host in np.unique(fleet.host[held]) if host >= 0)


def _vacant(state: State, now_s: float) -> Bools:
    stale_s = state.site.rules.stale_after_s
    return state.tables.vacant(state.fleet, state.ledger, now_s, stale_s)


def _needs(state: State, placement: Placement) -> tuple[Bools, Floats]:
    """Cards that units need now; and when a job that waits is expected to, infinite: not known."""
    fleet = state.fleet
    wanted = np.zeros(len(fleet), dtype=np.bool_)
    next_s = np.full(len(fleet), np.inf)
    asking = [one for one in placement.placed if one.job.terms.gpus > 0]
    for node in state.site.nodes if asking else ():
        columns = _cards(state, node.name)
        if not len(columns):
            continue
        counts = [_cards_of(one, node.name) for one in asking]
        come, there = (sum(side) for side in zip(*counts, strict=True))
        marked = state.tables.clients[columns] > 0
        enough = not come and int(marked.sum()) >= there
        wanted[columns] = marked & (there > 0) if enough else True
        labels = labels_of(node, state.nodes[node.name])
        next_s[columns] = min(
            (
                one.verdict.expected_s
                for one in asking
                if not one.units
                and one.verdict.expected_s is not None
                and suits(one.job.terms.selector, labels)
            ),
            default=math.inf,
        )
    return wanted, next_s


def _cards(state: State, node: str) -> Ints:
    """Devices on a node that keep a table."""
    fleet = state.fleet
    if node not in fleet.hosts:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero((fleet.host == fleet.hosts.index(node)) & (fleet.table_bytes > 0))


def _cards_of(placed: Placed, node: str) -> tuple[int, int]:
    """GPUs that a job's units take on a node: of those to come, and of those that are there."""
    job, units = placed.job, placed.nodes.get(node, 0)
    if job.by_node is None:
        there = units if job.state is JobState.RUNNING else 0
    else:
        there = job.by_node.get(node, 0)
    return _gpus(job.terms.gpus, max(units - there, 0)), _gpus(job.terms.gpus, there)


def _gpus(each: float, units: int) -> int:
    """Whole cards for so many units: shares of one are packed."""
    if each >= 1.0:
        return math.ceil(each - EPS_W) * units
    return math.ceil(units / int((1.0 + EPS_W) / each))


def _told(
    state: State, before: tables.Tables, cost_usd: Floats, now_s: float
) -> Iterator[Decision]:
    fleet, now = state.fleet, state.tables
    lost_s = state.site.rules.stale_after_s
    due = (now_s - now.wanted_s >= lost_s) & (now.wanted_s > state.decided_s - lost_s)
    overdue = now.wanted & due & ~_vacant(state, now_s)
    for column in np.flatnonzero((now.empty != before.empty) | overdue):
        device = fleet.devices[column]
        table = f"its table of {device.table_bytes / GIB:,.1f} GiB"
        inputs = {
            "table_bytes": device.table_bytes,
            "build_s": device.table_build_s,
            "build_usd": float(cost_usd[column]),
        }
        if overdue[column]:
            words = f"{table} was not seen freed within {lost_s:g} s: units start on {device.host} "
            words += "all the same, and the hand-over at its gate frees it"
            yield Decision(now_s, device.id, "not emptied", words, inputs)
        elif now.empty[column]:
            words = f"{table} makes room for compute on {device.host}; building it again costs "
            yield Decision(now_s, device.id, "empty", words + usd_text(cost_usd[column]), inputs)
        else:
            quiet_s = now_s - now.quiet_s[column]
            words = (
                f"nobody has needed its memory for {quiet_s:,.0f} s: {table} may be built again, "
            )
            words += f"which costs {usd_text(cost_usd[column])} and has been lost by waiting"
            yield Decision(now_s, device.id, "fill", words, {**inputs, "quiet_s": quiet_s})
