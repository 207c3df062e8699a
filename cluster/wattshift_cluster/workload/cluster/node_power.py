"""The watts of every node of a cluster: who was told what, and one keeper per node.

A node that nobody was told anything about gets 0 W: it may not bring watts that nobody granted. A
node that comes back under its name gets what was asked for last, over restarts of Ray, of the node
and of the bridge. Nodes that have no `power_w` are left alone until somebody asks.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from wattshift_cluster.workload.cluster.nodes import NODES_MAX, Node
from wattshift_cluster.workload.cluster.power_keeper import Actuator, PowerKeeper

log = structlog.get_logger()

POWER_FILE = "power.json"


class Remembered:
    """The last watts asked for, by node, in a file."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / POWER_FILE
        self._lock = threading.Lock()
        self._watts_w = read_watts(state_dir)

    def get(self, name: str) -> float | None:
        """What that node was last told, W; None if nothing."""
        return self._watts_w.get(name)

    def keep(self, watts_w: Mapping[str, float]) -> None:
        """Remember, before anybody acts on it. Raises: OSError."""
        with self._lock:
            old = self._watts_w
            if old == old | dict(watts_w):
                return
            # The oldest go first; a name told again counts as new.
            kept = {name: w for name, w in old.items() if name not in watts_w} | dict(watts_w)
            kept = dict(list(kept.items())[-NODES_MAX:])
            attempt = self._path.with_suffix(".new")
            attempt.write_text(json.dumps({"nodes": kept}))
            attempt.replace(self._path)
            self._watts_w = kept


def read_watts(state_dir: Path) -> dict[str, float]:
    """The last watts by node, W; empty if nobody ever asked or the file is no use."""
    try:
        found = json.loads((state_dir / POWER_FILE).read_text())["nodes"]
        return {str(name): float(watts_w) for name, watts_w in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@dataclass(frozen=True, slots=True)
class _Held:
    name: str
    keeper: PowerKeeper


class NodePower:
    """Keepers of the living nodes. `ask` may be called from any thread."""

    def __init__(
        self,
        remembered: Remembered,
        actuator: Callable[[Node], Actuator],
        *,
        as_found: frozenset[str] = frozenset(),
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare; `follow` brings the nodes.

        Args:
            remembered: the watts last asked for.
            actuator: makes a node's actuator.
            as_found: NodeIDs whose watts are left as they are until somebody asks: those of a Ray
                of our own, which was started with the right ones.
            on_change: called from keepers' threads when a total is new.
        """
        self._remembered = remembered
        self._actuator = actuator
        self._as_found = as_found
        self._on_change = on_change
        self._lock = threading.Lock()
        self._nodes: Mapping[str, Node] = {}
        self._held: dict[str, _Held] = {}

    def follow(self, nodes: Mapping[str, Node]) -> None:
        """Look after the nodes that there are now, and no others."""
        with self._lock:
            self._nodes = nodes
            living = {node.id: node for node in nodes.values() if node.alive}
            for id_ in [id_ for id_ in self._held if id_ not in living]:
                self._held.pop(id_).keeper.stop()
            for id_, node in living.items():
                held = self._held.get(id_)
                if held is not None and held.name == node.name:
                    continue
                told_w = self._remembered.get(node.name)
                if told_w is None and (node.power_w_total is None or id_ in self._as_found):
                    continue
                self._keeper(node).aim(told_w or 0.0)
                log.info("power.followed", node=node.name, id=id_, watts_w=told_w or 0.0)

    def ask(self, wanted: Mapping[str, float], wait_s: float) -> dict[str, float | str]:
        """Set targets, W, of nodes by name, all at once.

        Returns:
            For each the total there is now, W, or why it is not known yet; within `wait_s`.

        Raises:
            OSError: the wish cannot be kept; nothing was done.
        """
        until_s = time.monotonic() + wait_s
        self._remembered.keep(wanted)
        answers: dict[str, float | str] = {}
        waits: dict[str, tuple[PowerKeeper, int]] = {}
        with self._lock:
            for name, watts_w in wanted.items():
                node = self._nodes.get(name)
                if node is None or not node.alive:
                    answers[name] = _absent(name, node)
                    continue
                keeper = self._keeper(node)
                waits[name] = (keeper, keeper.aim(watts_w))
        for name, (keeper, attempt) in waits.items():
            total_w = keeper.wait(attempt, until_s)
            unknown = keeper.error or "Ray has not answered yet"
            answers[name] = unknown if total_w is None else total_w
        return answers

    def total_w(self, node: Node) -> float | None:
        """A node's total as last confirmed by the node itself, else as the GCS has it, W."""
        held = self._held.get(node.id)
        total_w = None if held is None else held.keeper.total_w
        return node.power_w_total if total_w is None or not node.alive else total_w

    def error(self, node: Node) -> str | None:
        """Why a node does not have what was asked."""
        held = self._held.get(node.id)
        return None if held is None else held.keeper.error

    def stop(self) -> None:
        """End all keepers; the totals stay."""
        with self._lock:
            for held in self._held.values():
                held.keeper.stop()
            self._held.clear()

    def _keeper(self, node: Node) -> PowerKeeper:
        held = self._held.get(node.id)
        keeper = (
            PowerKeeper(self._actuator(node), on_change=self._on_change)
            if held is None
            else held.keeper
        )
        self._held[node.id] = _Held(node.name, keeper)
        return keeper


def _absent(name: str, node: Node | None) -> str:
    where = "is not in this Ray cluster" if node is None else "is gone from Ray"
    return f"node {name} {where}; it gets these watts when it comes"
