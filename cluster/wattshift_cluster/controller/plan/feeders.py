"""Feeders below the connection, as a plan sees them: their room, and where compute hangs there.

Where inference will run is taken from where it runs now, within what nodes and feeders can carry;
what no node has room for is counted nowhere below. A batch that runs stays on its nodes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from wattshift_cluster.controller.plan.machines import Machines, rooms
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.plan.limits import MOST_ZONES, Limit, Zone
from wattshift_scheduler.plan.words import Kind
from wattshift_scheduler.site import Node
from wattshift_scheduler.state import State

LEAST_W = 1e-9


@dataclass(frozen=True, slots=True)
class Below:
    """What a plan is told of feeders below the connection, and a note for people, if any."""

    limits: tuple[Limit, ...]
    zones: tuple[Zone, ...]
    notes: tuple[str, ...]


def below(state: State, mining: Machines, services_w: Floats) -> Below:
    """The limits of feeders that can be full, and the zones of compute under them.

    Args:
        state: of the core.
        mining: the machines that are planned.
        services_w: what inference is foreseen to draw, W; shape (n,).
    """
    tree, classes = state.site.tree, mining.classes
    if not len(classes.limits) + len(classes.loose):
        return Below((), (), ())
    rooms_w = rooms(state, mining.apart_by_w)
    names = [tree.names[i] for i in classes.limits.tolist()]
    limits = tuple(
        Limit(name, float(rooms_w[i]))
        for name, i in zip(names, classes.limits.tolist(), strict=True)
    )
    notes = _loose(tree.names, classes.loose.tolist())
    zones = _zones(state, limits, mining.kinds, services_w)
    return Below(limits, zones, notes)


def _loose(names: tuple[str, ...], loose: list[int]) -> tuple[str, ...]:
    if not loose:
        return ()
    first = ", ".join(names[i] for i in loose[:3])
    more = f" and {len(loose) - 3} more" if len(loose) > 3 else ""
    many = "feeder is" if len(loose) == 1 else "feeders are"
    return (f"{len(loose)} {many} shared evenly by the devices below: {first}{more}",)


def _zones(
    state: State, limits: tuple[Limit, ...], kinds: tuple[Kind, ...], services_w: Floats
) -> tuple[Zone, ...]:
    """Nodes that answer, by the limits above them."""
    zones: dict[tuple[str, ...], list[Node]] = {}
    names = {one.name for one in limits}
    tree = state.site.tree
    for node in state.site.nodes:
        if state.nodes[node.name].up:
            above = (tree.names[i] for i in tree.path(tree.index[node.feeder]))
            zones.setdefault(tuple(one for one in above if one in names), []).append(node)
    if not any(zones) or len(zones) > MOST_ZONES:
        return ()
    runs = [_by_zone(job, zones) for job in state.jobs.values() if _serves(job)]
    now_w = np.sum(runs, axis=0) if runs else np.zeros(len(zones))
    most_w = np.array([math.fsum(node.max_w for node in nodes) for nodes in zones.values()])
    rooms_w = {one.name: max(one.room_w - _rest_w(kinds, one.name), 0.0) for one in limits}
    shares_w = spread(list(zones), now_w, most_w, rooms_w, services_w)
    batches = {
        job.id: _by_zone(job, zones) / (job.max_units * job.unit_w)
        for job in state.jobs.values()
        if job.kind is JobKind.BATCH and not job.state.final and job.max_units * job.unit_w > 0
    }
    return tuple(
        Zone(
            under=under,
            most_w=float(most_w[i]),
            services_w=shares_w[i],
            batch={
                name: min(float(share[i]), 1.0) for name, share in batches.items() if share[i] > 0
            },
        )
        for i, under in enumerate(zones)
    )


def _serves(job: Job) -> bool:
    return job.kind is JobKind.SERVICE and not job.state.final


def _rest_w(kinds: Iterable[Kind], limit: str) -> float:
    return math.fsum(kind.count * kind.points_w[0] for kind in kinds if limit in kind.under)


def _by_zone(job: Job, zones: Mapping[tuple[str, ...], list[Node]]) -> Floats:
    """What a job holds now in each zone, W."""
    units = job.nodes if job.by_node is None else job.by_node
    return np.array(
        [math.fsum(units.get(node.name, 0) * job.unit_w for node in own) for own in zones.values()]
    )


def spread(
    zones: list[tuple[str, ...]],
    now_w: Floats,
    most_w: Floats,
    rooms_w: Mapping[str, float],
    services_w: Floats,
) -> Floats:
    """What inference draws in each zone, W; shape (zones, n).

    It is drawn as it is now, or by the size of zones where nothing runs, and what a zone or a limit
    above it has no room for in the others; so nothing of it lies above a limit.

    Args:
        zones: the names of the limits above each.
        now_w: what it draws there now, W; shape (zones,).
        most_w: what nodes there take, W; shape (zones,).
        rooms_w: what each limit leaves compute, W.
        services_w: all of it, W; shape (n,).
    """
    weights = now_w if now_w.sum() > LEAST_W else most_w
    share = weights / max(float(weights.sum()), LEAST_W)
    drawn_w = np.minimum(share[:, None] * services_w, most_w[:, None])
    _fitted(drawn_w, zones, rooms_w)
    free_w = most_w[:, None] - drawn_w
    for name, room_w in rooms_w.items():
        mine = [i for i, under in enumerate(zones) if name in under]
        left_w = np.maximum(room_w - drawn_w[mine].sum(axis=0), 0.0)
        free_w[mine] = np.minimum(free_w[mine], left_w)
    lacks_w = np.maximum(services_w - drawn_w.sum(axis=0), 0.0)
    part = np.minimum(lacks_w / np.maximum(free_w.sum(axis=0), LEAST_W), 1.0)
    drawn_w += part * free_w
    _fitted(drawn_w, zones, rooms_w)
    return drawn_w


def _fitted(drawn_w: Floats, zones: list[tuple[str, ...]], rooms_w: Mapping[str, float]) -> None:
    """Scale zones down to the limits above them, in place."""
    for name, room_w in rooms_w.items():
        mine = [i for i, under in enumerate(zones) if name in under]
        total_w = drawn_w[mine].sum(axis=0)
        drawn_w[mine] *= np.minimum(room_w / np.maximum(total_w, LEAST_W), 1.0)
