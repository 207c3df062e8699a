"""By how much the watts granted to each node may rise now, so that all rises together fit (I1)."""

import math
from collections.abc import Mapping

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.compute.ground import path_of
from wattshift_scheduler.compute.placement import Placement
from wattshift_scheduler.jobs import JobKind
from wattshift_scheduler.site import Site
from wattshift_scheduler.state import NodePower


def raises_w(
    site: Site, powers: Mapping[str, NodePower], placement: Placement, headroom_w: Floats
) -> dict[str, float]:
    """Share the headroom of every feeder between the nodes that should hold more.

    What services need goes first, then the rest; node by node in the order of names.

    Args:
        site: nodes and feeders.
        powers: what each node holds now.
        placement: what each node should run.
        headroom_w: watts by which each feeder's load may still rise, W; shape (feeders,).
    """
    left_w = [float(watts_w) for watts_w in headroom_w]
    first_w, raise_w = _services_w(placement), dict.fromkeys(placement.target_w, 0.0)
    lifted_w = _lifted_w(powers, placement)
    nodes = sorted((n for n in site.nodes if powers[n.name].up), key=lambda node: node.name)
    for services in (True, False):
        for node in nodes:
            power = powers[node.name]
            goal_w = (first_w if services else placement.target_w)[node.name]
            want_w = max(goal_w - power.most_w, 0.0) + lifted_w[node.name]
            path = path_of(site.tree, node)
            more_w = min(want_w - raise_w[node.name], *(left_w[feeder] for feeder in path))
            if more_w > 0.0:
                raise_w[node.name] += more_w
                for feeder in path:
                    left_w[feeder] -= more_w
    return raise_w


def _lifted_w(powers: Mapping[str, NodePower], placement: Placement) -> dict[str, float]:
    """Watts by which each node's bound rises as power limits go up, W.

    A limit may only go up by way of none, so the whole relief is counted.
    """
    limit_w = {one.job.id: one.unit_limit_w for one in placement.placed}
    unit_w = {one.job.id: one.job.unit_w for one in placement.placed}
    return {
        name: sum(
            limited.covers * max(unit_w[job] - limited.enforced_w, 0.0)
            for job, limited in power.limits.items()
            if job in unit_w
            and not math.isnan(limited.enforced_w)
            and ((wanted_w := limit_w[job]) is None or wanted_w > limited.enforced_w)
        )
        for name, power in powers.items()
    }


def _services_w(placement: Placement) -> dict[str, float]:
    total = dict.fromkeys(placement.target_w, 0.0)
    for one in placement.placed:
        if one.job.kind is JobKind.SERVICE:
            for node, units in one.nodes.items():
                total[node] += units * one.job.unit_w
    return total
