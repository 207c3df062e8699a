"""What nodes a Ray cluster has, by the names that the site knows them by.

A node's name is its Ray label `wattshift.io/node`; else, for the node of the bridge's driver, the
bridge's own name; else its host name where no other node has it; else `node-` and the first digits
of Ray's NodeID. Addresses name nothing: several nodes of one host share theirs.

A name belongs to one living node at a time. A second one that claims it (a node that was replaced
while Ray still holds the old one for alive) is called by its NodeID until the first is gone, so
that watts meant for one node never go to two.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

POWER = "power_w"
"""The custom resource in which Ray counts watts."""

NAME_LABEL = "wattshift.io/node"
NODES_MAX = 1000
ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster.

    Attributes:
        id: Ray's NodeID, hexadecimal.
        name: the site's name for it; see the module.
        alive: whether Ray holds it for alive.
        draining: it is leaving, and Ray places nothing new there.
        labels: its Ray labels, with those of Ray itself (`ray.io/...`).
        gpus: its GPUs in Ray.
        power_w_total: size of its `power_w`, W; None if it has none or is gone.
        power_w_available: what of it nobody holds, W; None if unknown.
        address: IP address of its raylet; shared by the nodes of one host.
        metrics_port: where Ray's metrics of this node are; None if nowhere.
    """

    id: str
    name: str
    alive: bool
    draining: bool
    labels: Mapping[str, str]
    gpus: float
    power_w_total: float | None
    power_w_available: float | None
    address: str = ""
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What Ray says of its nodes at one moment, keyed by NodeID where it is a mapping.

    Attributes:
        rows: one of `ray.nodes()` each.
        totals, free: resources now, in sum and not held; Ray leaves out what is 0.
        draining: nodes that are leaving.
        driver: the node that this process is a driver on.
    """

    rows: Iterable[Mapping[str, Any]]
    totals: Mapping[str, Mapping[str, float]]
    free: Mapping[str, Mapping[str, float]]
    draining: frozenset[str]
    driver: str


class Inventory:
    """The nodes by name; remembers who held which name."""

    def __init__(self, own_name: str) -> None:
        """`own_name` is the bridge's: that of the driver's node, if no label names it."""
        self._own_name = own_name
        self._names: dict[str, str] = {}

    def look(self, seen: Seen) -> dict[str, Node]:
        """All living nodes, and of those gone the ones whose place nobody has taken.

        The driver's own node comes first, the others by name. At most NODES_MAX.
        """
        rows = {str(row["NodeID"]): row for row in seen.rows}
        living = {id_: row for id_, row in rows.items() if row["Alive"]}
        named = self._name(living, seen.driver)
        gone = self._gone(rows, named)
        found = [_node(rows[id_], name, seen) for id_, name in (named | gone).items()]
        found.sort(key=lambda node: (node.id != seen.driver, not node.alive, node.name))
        found = found[:NODES_MAX]
        self._names = {node.id: node.name for node in found}
        return {node.name: node for node in found}

    def _name(self, living: Mapping[str, Mapping[str, Any]], driver: str) -> dict[str, str]:
        """Names of the living nodes by NodeID; who had a name keeps it."""
        hosts = Counter(str(row.get("NodeManagerHostname")) for row in living.values())
        wishes: dict[str, str] = {}
        for id_, row in living.items():
            host = str(row.get("NodeManagerHostname") or "")
            label = (row.get("Labels") or {}).get(NAME_LABEL)
            own = self._own_name if id_ == driver else None
            wishes[id_] = label or own or (host if hosts[host] == 1 and host else _by_id(id_))
        named: dict[str, str] = {}
        taken: set[str] = set()
        for id_ in sorted(wishes, key=lambda id_: (self._names.get(id_) != wishes[id_], id_)):
            named[id_] = wishes[id_] if wishes[id_] not in taken else _by_id(id_)
            taken.add(named[id_])
        return named

    def _gone(
        self, rows: Mapping[str, Mapping[str, Any]], named: Mapping[str, str]
    ) -> dict[str, str]:
        """Names of nodes that are gone: those known before, and those with a label."""
        taken = set(named.values())
        gone: dict[str, str] = {}
        for id_ in sorted(rows, key=lambda id_: (id_ not in self._names, id_)):
            name = self._names.get(id_) or (rows[id_].get("Labels") or {}).get(NAME_LABEL)
            if id_ not in named and name and name not in taken:
                gone[id_] = name
                taken.add(name)
        return gone


def _by_id(node_id: str) -> str:
    return f"node-{node_id[:ID_DIGITS]}"


def _node(row: Mapping[str, Any], name: str, seen: Seen) -> Node:
    id_, alive = str(row["NodeID"]), bool(row["Alive"])
    fixed = row.get("Resources") or {}
    totals = seen.totals.get(id_, fixed)
    # What is used up, and what was resized to 0, is missing from Ray's answer.
    has_power = POWER in fixed or POWER in totals
    free = seen.free.get(id_)
    return Node(
        id=id_,
        name=name,
        alive=alive,
        draining=id_ in seen.draining,
        labels=dict(row.get("Labels") or {}),
        gpus=float(totals.get("GPU", 0.0)),
        power_w_total=float(totals.get(POWER, 0.0)) if alive and has_power else None,
        power_w_available=(
            float(free.get(POWER, 0.0)) if alive and has_power and free is not None else None
        ),
        address=str(row.get("NodeManagerAddress") or ""),
        metrics_port=int(row.get("MetricsExportPort") or 0) or None,
    )
