"""The nodes of the cluster that the bridge is connected to: seen, given watts, metered, drained.

Before a connection there are none, and watts that are asked for are only remembered.
"""

import threading
import time
from collections.abc import Mapping

import structlog

from wattshift_cluster.errors import NotFound, Refused
from wattshift_cluster.workload.bulletin import Bulletin
from wattshift_cluster.workload.cluster.meters import Meters
from wattshift_cluster.workload.cluster.node_power import NodePower, Remembered
from wattshift_cluster.workload.cluster.nodes import Inventory, Node
from wattshift_cluster.workload.cluster.power_keeper import Actuators
from wattshift_cluster.workload.cluster.ray_link import RayLink, RayUnavailable
from wattshift_cluster.workload.telling import NodeRow

log = structlog.get_logger()

POWER_WAIT_S = 0.7
NO_RAY = "no Ray yet"
SEEN_LATELY_S = 10.0
"""A look that is older says nothing of the present: they are taken twice a second."""


class NodeDesk:
    """All nodes of one cluster. Callable from any thread.

    Attributes:
        nodes: by name, the driver's own first.
        seen_s: when they were last seen, on the monotonic clock.
        resize: how watts are set: "internal" or "hold"; None before a connection.
    """

    def __init__(self, own_name: str, remembered: Remembered, meters: Meters) -> None:
        """`own_name` is that of the driver's node, if no label names it."""
        self._own_name = own_name
        self._remembered = remembered
        self._meters = meters
        self._inventory = Inventory(own_name)
        self._looking = threading.Lock()
        self._link: RayLink | None = None
        self._power: NodePower | None = None
        self.nodes: Mapping[str, Node] = {}
        self.seen_s = time.monotonic()
        self.resize: str | None = None

    def connect(self, link: RayLink, *, own: bool, bulletin: Bulletin) -> None:
        """Begin to look after a cluster's nodes; `own` is a Ray of our own, of one node.

        Raises:
            RayUnavailable: they cannot be seen.
        """
        actuators = Actuators(link.gcs)
        self.resize = actuators.kind
        self._power = NodePower(
            self._remembered,
            actuators.of,
            as_found=frozenset({link.node_id}) if own else frozenset(),
            on_change=bulletin.report,
        )
        self._link = link
        self.see()

    def own_node(self) -> str:
        """Name of the node that this process is a driver on."""
        return next(iter(self.nodes), self._own_name)

    def see(self) -> None:
        """Look at the nodes, and have their watts followed. Raises: RayUnavailable."""
        assert self._link is not None, "connected before the first look"
        assert self._power is not None, "as the link is"
        with self._looking:
            self.nodes = self._inventory.look(self._link.look())
            self._power.follow(self.nodes)
            self.seen_s = time.monotonic()

    def meter(self) -> None:
        """Look what draws without asking. Raises: RayUnavailable."""
        self._meters.turn(self.nodes)

    def set_power(self, wanted: Mapping[str, float]) -> dict[str, float | str]:
        """Set nodes' watts; for each the total there is now, W, or why that is not known yet.

        Blocks for 0.7 s at most. What has no answer goes on being tried.

        Raises:
            OSError: the wish cannot be kept on disk; nothing was done.
        """
        if self._power is None:
            self._remembered.keep(wanted)
            return dict.fromkeys(wanted, NO_RAY)
        return self._power.ask(wanted, POWER_WAIT_S)

    def told_w(self, name: str | None) -> float | None:
        """What a node, or this process's own, was last told, W; None if nothing."""
        return self._remembered.get(self.own_node() if name is None else str(name))

    def drain(self, name: str, within_s: float) -> None:
        """Have Ray place nothing more on a node. May block for as long as Ray does.

        Raises:
            NotFound: no such node is alive.
            RayUnavailable: Ray refused, or cannot be asked.
        """
        node = self.nodes.get(name)
        if self._link is None:
            raise RayUnavailable(NO_RAY)
        if node is None or not node.alive:
            raise NotFound(f"no living node {name!r} in this Ray cluster")
        self._link.drain(node.id, within_s)
        log.info("node.draining", node=name, id=node.id)
        self.see()

    def forget(self, name: str) -> None:
        """Give a node that is gone 0 W, for when it comes back.

        Raises:
            Refused: it is alive, as far as was lately seen.
            OSError: the wish cannot be kept on disk.
        """
        node = self.nodes.get(name)
        if node is not None and node.alive and time.monotonic() - self.seen_s < SEEN_LATELY_S:
            raise Refused(f"node {name} is alive in Ray")
        self.set_power({name: 0.0})
        log.info("node.forgotten", node=name)

    def rows(self) -> list[NodeRow]:
        """What `telling` says of each node."""
        power = self._power
        return [
            (
                node,
                node.power_w_total if power is None else power.total_w(node),
                None if power is None else power.error(node),
                self._meters.of(node),
            )
            for node in self.nodes.values()
        ]

    def stop(self) -> None:
        """End the keepers; the watts stay."""
        if self._power is not None:
            self._power.stop()
