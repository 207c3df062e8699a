"""How many more replicas find watts, over all nodes of a cluster."""

import math
from collections.abc import Mapping

from wattshift_cluster.workload.cluster.nodes import Node


def slots(free_w: float, unit_w: float) -> int:
    """Whole units within free watts."""
    return max(0, math.floor(free_w / unit_w + 1e-9))


def carries(node: Node, labels: Mapping[str, str]) -> bool:
    """Whether a node has the labels asked for; "!value" asks for any other."""
    for name, wanted in labels.items():
        found = node.labels.get(name)
        if wanted.startswith("!"):
            if found == wanted[1:]:
                return False
        elif found != wanted:
            return False
    return True


class Room:
    """Free watts by node, as they are spoken for one after the other."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        """Nodes that Ray may place on now; one whose free watts are unknown has none."""
        self._nodes = [node for node in nodes.values() if node.alive and not node.draining]
        self._free_w = {node.name: node.power_w_available or 0.0 for node in self._nodes}

    def fits(self, unit_w: float, labels: Mapping[str, str]) -> int:
        """Units of that size that the free watts hold."""
        return sum(slots(self._free_w[node.name], unit_w) for node in self._fit(labels))

    def take(self, units: int, unit_w: float, labels: Mapping[str, str]) -> None:
        """Speak for watts where most are free: Ray has not placed those units yet."""
        for _ in range(units):
            fit = self._fit(labels)
            if not fit:
                return
            name = max(fit, key=lambda node: self._free_w[node.name]).name
            self._free_w[name] -= unit_w

    def words(self, unit_w: float, labels: Mapping[str, str]) -> str:
        """Why nothing more fits."""
        fit = self._fit(labels)
        if labels and not fit:
            asked = ", ".join(f"{name}={value}" for name, value in labels.items())
            return f"no node has the labels {asked}"
        if len(fit) <= 1:
            free_w = sum(self._free_w[node.name] for node in fit)
            return f"{max(0.0, free_w):g} W free, a replica asks for {unit_w:g} W"
        most_w = max(self._free_w[node.name] for node in fit)
        return f"{max(0.0, most_w):g} W free at most on a node, a replica asks for {unit_w:g} W"

    def _fit(self, labels: Mapping[str, str]) -> list[Node]:
        return [node for node in self._nodes if carries(node, labels)]
