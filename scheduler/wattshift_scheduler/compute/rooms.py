"""How many of the placed units each node has confirmed watts for.

Units that were asked for stay where they are as far as they are still placed there. What is left of
a node's confirmed watts goes to growth, in the order of the placement, and never beyond what the
node should hold: units that have still to leave count, so what was evicted stays away. Nor do units
with GPUs grow where a card's memory is still to be freed (`vacancy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wattshift_scheduler.compute.placement import Placed, Placement
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.state import State

ROUNDING_W = 1e-6


@dataclass(slots=True)
class Rooms:
    """The nodes' confirmed watts, while they are given out.

    Attributes:
        up: whether any node is up, so that commands find somebody.
        first: the node that a command names which is for the whole cluster.
    """

    up: bool
    first: str
    _alive: frozenset[str]
    _left_w: dict[str, float]
    _target_w: dict[str, float]
    _jobs: Mapping[str, Job]
    _waits: frozenset[str] = frozenset()

    @classmethod
    def of(cls, state: State, placement: Placement, waits: frozenset[str] = frozenset()) -> "Rooms":
        """What every node has left beyond the units that stay or have not left yet.

        Args: waits: nodes to which no unit with GPUs may come yet.
        """
        alive = frozenset(name for name, node in state.nodes.items() if node.up)
        target_w = {name: placement.target_w.get(name, 0.0) for name in state.nodes}
        left_w = {
            name: min(node.granted_w, target_w[name]) if node.up else 0.0
            for name, node in state.nodes.items()
        }
        first = next(iter(state.nodes), "")
        rooms = cls(bool(alive), first, alive, left_w, target_w, state.jobs, waits)
        for placed in placement.placed:
            job = state.jobs[placed.job.id]
            if not (job.units or job.by_node):
                continue  # most of a long queue
            kept, held = rooms._kept(placed), job.by_node or {}
            for name in kept.keys() | held.keys():
                if name in left_w:
                    units = max(kept.get(name, 0), held.get(name, 0))
                    left_w[name] -= units * job.unit_w
        return rooms

    def target_w(self, node: str) -> float:
        """What the placed units of a node hold in Ray, without any power limit, W."""
        return self._target_w.get(node, 0.0)

    def alive(self, node: str) -> bool:
        """Whether a node is up."""
        return node in self._alive

    def take(self, placed: Placed) -> dict[str, int]:
        """Units by node that may be asked for now; the watts that they grow into are taken."""
        kept = self._kept(placed)
        if kept == placed.nodes:
            return kept
        job, unit_w = self._jobs[placed.job.id], placed.job.unit_w
        held, grown = job.by_node or {}, dict(kept)
        for name, units in placed.nodes.items():
            # Units of it that are there already hold their watts.
            have = min(max(kept.get(name, 0), held.get(name, 0)), units)
            room = max(self._left_w.get(name, 0.0), 0.0)
            more = min(units - have, int((room + ROUNDING_W) // unit_w) if unit_w else units)
            if placed.job.terms.gpus > 0 and name in self._waits:
                more = 0
            if name in self._alive and have + more:
                grown[name] = have + more
        if placed.job.terms.gang and sum(grown.values()) < placed.units:
            # All or none: a gang that is whole as asked stays, another waits for all its watts.
            whole = bool(kept) and sum(kept.values()) == job.units
            grown = kept if whole else {}
        for name, units in grown.items():
            beyond = units - max(kept.get(name, 0), held.get(name, 0))
            self._left_w[name] -= max(beyond, 0) * unit_w
        if placed.job.kind is JobKind.SERVICE:
            self._wait(placed, grown)
        return grown

    def leaves(self, job: Job, nodes: Mapping[str, int]) -> bool:
        """Whether units of the job have to leave a node that is up."""
        asked = self._asked(job)
        return any(
            units > nodes.get(name, 0) and name in self._alive for name, units in asked.items()
        )

    def _wait(self, placed: Placed, nodes: dict[str, int]) -> None:
        """Leave replicas of nodes that are gone on the list until watts elsewhere take them: Serve
        starts them where watts come, and there is nothing to stop."""
        due = placed.units - sum(nodes.values())
        for name, units in self._asked(self._jobs[placed.job.id]).items():
            if due > 0 and name not in self._alive and name not in nodes:
                nodes[name] = min(units, due)
                due -= nodes[name]

    def _kept(self, placed: Placed) -> dict[str, int]:
        """Units that were asked for and are still placed where they are."""
        asked = self._asked(self._jobs[placed.job.id])
        kept = {name: min(units, placed.nodes.get(name, 0)) for name, units in asked.items()}
        return {name: units for name, units in kept.items() if units}

    def _asked(self, job: Job) -> Mapping[str, int]:
        """Units asked for by node; of a job of an older journal, all on the first node."""
        return job.nodes or ({self.first: job.units} if job.units else {})
