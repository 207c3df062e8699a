"""Why a batch job has fewer workers than it should, in words for the report."""

from collections.abc import Mapping

from wattshift_cluster.workload.batch.crew import Crew
from wattshift_cluster.workload.batch.wishes import Wish
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.specs import BatchSpec

PLACED_WITHIN_S = 5.0
"""Ray places a worker within this, where nothing is in its way."""

NOT_PLACED = "Ray has not placed it yet; CPUs, GPUs or memory may be in use"


def reason(
    wish: Wish, crew: Crew, wanted: Mapping[str, int], nodes: Mapping[str, Node], now_s: float
) -> str | None:
    """Why workers are missing; None if none are, or if Ray is still about to place them.

    Args:
        wish: what is wanted of the job; it has a specification.
        crew: its workers.
        wanted: workers by node.
        nodes: the cluster's, by name.
        now_s: the clock that the crew's seats go by.
    """
    spec = wish.spec
    assert spec is not None, "only a cancelled job has no specification"
    for name in wish.nodes or {}:
        node = nodes.get(name)
        if node is None or not node.alive:
            return f"node {name} is {'not alive' if node else 'not in the cluster'}"
        if node.draining:
            return f"node {name} is draining"
    if spec.gang and sum(crew.by_node().values()) < sum(wanted.values()):
        found = (waits(spec, nodes[name], wanted[name]) for name in wanted if name in nodes)
        reasons = "; ".join(filter(None, found)) or NOT_PLACED
        return f"a gang of {sum(wanted.values())} waits for its place: {reasons}"
    seat = crew.waiting()
    if seat is None or seat.node not in nodes:
        return None
    patient = now_s - seat.since_s < PLACED_WITHIN_S
    return waits(spec, nodes[seat.node], 1) or (None if patient else f"{seat.node}: {NOT_PLACED}")


def waits(spec: BatchSpec, node: Node, workers: int) -> str | None:
    """Why Ray does not place workers on a node; None if that cannot be seen."""
    free_w, asked_w = node.power_w_available, workers * spec.watts_w
    asks = "its worker asks" if workers == 1 else f"its {workers} workers ask"
    if free_w is not None and free_w < asked_w:
        return f"{node.name}: {free_w:g} W free, {asks} for {asked_w:g} W"
    if workers * spec.gpus > node.gpus:
        return f"{node.name}: {node.gpus:g} GPUs, {asks} for {workers * spec.gpus:g}"
    for key, wanted in spec.labels.items():
        has = node.labels.get(key)
        if (has != wanted) if not wanted.startswith("!") else (has == wanted[1:]):
            return f"{node.name}: its label {key} is {has}, the job wants {wanted}"
    return None
