"""Keeps a node's `power_w` at the watts that were asked for.

Ray resizes a custom resource of a running node through its GCS client. The call is internal (made
for in-place pod resize, ray PR #54807), so its presence is tested first. It clamps a shrink to what
is in use and evicts nobody; a share that is freed later could be taken again. So the keeper asks
again, five times a second, until the total is what was asked.

Where the call is missing, headroom is held back instead: a placement group of our own occupies the
watts that nobody may use. It is coarser: Ray grants a larger hold only when that much is free, and
between two holds what was free before can be taken.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from wattshift_cluster.workload.cluster.nodes import POWER, Node
from wattshift_cluster.workload.cluster.ray_link import RayUnavailable

log = structlog.get_logger()

AGAIN_S = 0.2
CHECK_S = 2.0
CALL_S = 5.0
"""A raylet that hangs must not hold its keeper for ever."""

TOLERANCE_W = 0.01
HOLD_NAME = "wattshift-power-hold"
HOLD_READY_S = 0.2


class Actuator(Protocol):
    """Sets the watts of one node, as far as Ray lets it."""

    def set(self, watts_w: float) -> float:
        """Ask for a total; returns the total there is now, W. Raises: RayUnavailable."""
        ...


class Resize:
    """The total of the resource itself."""

    def __init__(self, client: Any, node_id: str) -> None:
        """`client` is a GcsClient that has the call."""
        self._client = client
        self._node_id = node_id

    def set(self, watts_w: float) -> float:
        """Resize; the answer holds the totals after it."""
        try:
            totals = self._client.resize_raylet_resource_instances(
                self._node_id, {POWER: watts_w}, timeout_s=CALL_S
            )
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"power_w was not resized: {str(fault)[:200]}") from fault
        # A total of 0 is reported as an absent resource.
        return float(totals.get(POWER, 0.0))


class Hold:
    """A placement group that occupies what the node has beyond the watts asked for."""

    def __init__(self, node_id: str, size_w: float, name: str) -> None:
        """`size_w` is the fixed size of the node's `power_w`, W; `name` the node's."""
        self._node_id = node_id
        self._size_w = size_w
        self._name = f"{HOLD_NAME}:{name}"
        self._held_w = 0.0
        self._group: Any = None
        self._begun = False

    def set(self, watts_w: float) -> float:
        """Hold `size_w - watts_w`; until Ray grants it, what was free before still counts."""
        try:
            return self._set(watts_w)
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"power_w was not held back: {str(fault)[:200]}") from fault

    def _set(self, watts_w: float) -> float:
        from ray.util.placement_group import placement_group, remove_placement_group

        if not self._begun:
            self._forget_old()
        wanted_w = max(0.0, self._size_w - watts_w)
        if self._group is None or abs(wanted_w - self._held_w) > TOLERANCE_W:
            if self._group is not None:
                remove_placement_group(self._group)
            self._group, self._held_w = None, wanted_w
            if wanted_w > 0:
                bundle = {POWER: wanted_w}
                place = [{"ray.io/node-id": self._node_id}]
                self._group = placement_group(
                    [bundle], name=self._name, lifetime="detached", bundle_label_selector=place
                )
        ready = self._group is None or self._group.wait(timeout_seconds=HOLD_READY_S)
        return self._size_w - (self._held_w if ready else 0.0)

    def _forget_old(self) -> None:
        """Remove the hold of an earlier bridge: two would add up."""
        from ray.util.placement_group import get_placement_group, remove_placement_group

        try:
            remove_placement_group(get_placement_group(self._name))
        except ValueError:
            log.debug("power.no_old_hold", name=self._name)
        self._begun = True


class PowerKeeper:
    """A thread that keeps the total at the target. Without a target it touches nothing.

    Attributes:
        total_w: last total that Ray confirmed, W; None before the first.
        error: why the last attempt failed; None if it did not.
    """

    def __init__(
        self, actuator: Actuator, *, on_change: Callable[[], object] = lambda: None
    ) -> None:
        """`on_change` is called, from the keeper's thread, when the total or the error is new."""
        self._actuator = actuator
        self._on_change = on_change
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._target_w: float | None = None
        self._attempt = 0
        self._stopped = False
        self.total_w: float | None = None
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="power-keeper", daemon=True)
        self._thread.start()

    def aim(self, watts_w: float) -> int:
        """Set the target, W; the number of the attempt that is the first to know it for sure."""
        with self._changed:
            self._target_w = watts_w
            self.total_w = None
            self._wake.set()
            # An attempt may be under way with the old target; the second one surely has the new.
            return self._attempt + 2

    def wait(self, attempt: int, until_s: float) -> float | None:
        """The total after that attempt, W; None when it was not through by `until_s`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.total_w is not None or self._attempt >= attempt,
                max(0.0, until_s - time.monotonic()),
            )
            return self.total_w

    def ask(self, watts_w: float, wait_s: float) -> float | None:
        """Set the target and wait for one attempt at it; the total after it, W.

        None when no attempt was through in time; the keeper goes on by itself.
        """
        return self.wait(self.aim(watts_w), time.monotonic() + wait_s)

    def stop(self) -> None:
        """End the thread; the total stays."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            done = self._target_w is None or self._reached()
            self._wake.wait(CHECK_S if done else AGAIN_S)
            self._wake.clear()
            if not self._stopped and self._target_w is not None:
                self._try(self._target_w)

    def _reached(self) -> bool:
        total_w, target_w = self.total_w, self._target_w
        return (
            total_w is not None and target_w is not None and abs(total_w - target_w) <= TOLERANCE_W
        )

    def _try(self, target_w: float) -> None:
        total_w, error = None, None
        try:
            total_w = self._actuator.set(target_w)
        except RayUnavailable as fault:
            error = str(fault)
            if error != self.error:
                log.warning("power.failed", reason=error)
        with self._changed:
            self._attempt += 1
            new = (self.total_w, self.error) != (total_w, error)
            self.error = error
            if target_w == self._target_w:
                self.total_w = total_w
            self._changed.notify_all()
        if new:
            self._on_change()


class Actuators:
    """Makes the actuator of each node: the best that this Ray offers.

    Attributes:
        kind: "internal" with the resize call, "hold" with placement groups.
    """

    def __init__(self, client: Any) -> None:
        """`client` is the cluster's GcsClient; one serves all nodes and threads."""
        self._client = client
        self.kind = "internal" if hasattr(client, "resize_raylet_resource_instances") else "hold"
        if self.kind == "hold":
            log.warning("power.hold", reason="this Ray cannot resize a resource of a running node")

    def of(self, node: Node) -> Actuator:
        """For one node; a hold cannot go beyond the size that its `power_w` has now."""
        if self.kind == "internal":
            return Resize(self._client, node.id)
        return Hold(node.id, node.power_w_total or 0.0, node.name)
