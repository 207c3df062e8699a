"""Keeps a node's `power_w` at the watts that were asked for.

Ray 2.60 resizes a custom resource of a running node through its GCS client. The call is internal
(made for in-place pod resize, ray PR #54807), so its presence is tested first. It clamps a shrink
to what is in use and evicts nobody; a share that is freed later could be taken again. So the keeper
asks again, five times a second, until the total is what was asked.

Where the call is missing, headroom is held back instead: a placement group of our own occupies the
watts that nobody may use. It is coarser: Ray grants a larger hold only when that much is free.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from wattshift_cluster.workload.ray_link import POWER, RayUnavailable, internal

log = structlog.get_logger()

AGAIN_S = 0.2
CHECK_S = 2.0
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

    def __init__(self, address: str, node_id: str) -> None:
        """Raises: RayUnavailable when this Ray has no such call."""
        self._client: Any = internal("ray._raylet").GcsClient(address=address)
        self._node_id = node_id
        if not hasattr(self._client, "resize_raylet_resource_instances"):
            raise RayUnavailable("this Ray cannot resize a resource of a running node")

    def set(self, watts_w: float) -> float:
        """Resize; the answer holds the totals after it."""
        try:
            totals = self._client.resize_raylet_resource_instances(self._node_id, {POWER: watts_w})
        except Exception as fault:  # Ray's own types differ by what broke
            raise RayUnavailable(f"power_w was not resized: {fault}") from fault
        # A total of 0 is reported as an absent resource.
        return float(totals.get(POWER, 0.0))


class Hold:
    """A placement group that occupies what the node has beyond the watts asked for."""

    def __init__(self, node_id: str, size_w: float) -> None:
        """`size_w` is the fixed size of the node's `power_w`, W."""
        self._node_id = node_id
        self._size_w = size_w
        self._held_w = 0.0
        self._group: Any = None

    def set(self, watts_w: float) -> float:
        """Hold `size_w - watts_w`; until Ray grants it, what was free before still counts."""
        from ray.util.placement_group import placement_group, remove_placement_group

        wanted_w = max(0.0, self._size_w - watts_w)
        if self._group is None or abs(wanted_w - self._held_w) > TOLERANCE_W:
            if self._group is not None:
                remove_placement_group(self._group)
            self._group, self._held_w = None, wanted_w
            if wanted_w > 0:
                bundle = {POWER: wanted_w}
                place = [{"ray.io/node-id": self._node_id}]
                self._group = placement_group(
                    [bundle], name=HOLD_NAME, lifetime="detached", bundle_label_selector=place
                )
        ready = self._group is None or self._group.wait(timeout_seconds=HOLD_READY_S)
        return self._size_w - (self._held_w if ready else 0.0)


class PowerKeeper:
    """A thread that keeps the total at the target. Without a target it touches nothing.

    Attributes:
        total_w: last total that Ray confirmed, W; None before the first.
        error: why the last attempt failed; None if it did not.
    """

    def __init__(self, actuator: Actuator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._actuator = actuator
        self._clock = clock
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._target_w: float | None = None
        self._attempt = 0
        self._stopped = False
        self.total_w: float | None = None
        self.error: str | None = None
        self._thread = threading.Thread(target=self._run, name="power-keeper", daemon=True)
        self._thread.start()

    def ask(self, watts_w: float, wait_s: float) -> float | None:
        """Set the target and wait for one attempt at it; the total after it, W.

        None when no attempt was through in time; the keeper goes on by itself.
        """
        with self._changed:
            self._target_w = watts_w
            self.total_w = None
            before = self._attempt
            self._wake.set()
            # An attempt may be under way with the old target; the second one surely has the new.
            self._changed.wait_for(
                lambda: self.total_w is not None or self._attempt > before + 1, wait_s
            )
            return self.total_w

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
            log.warning("power.failed", reason=error)
        with self._changed:
            self._attempt += 1
            self.error = error
            if target_w == self._target_w:
                self.total_w = total_w
            self._changed.notify_all()


def actuator(address: str, node_id: str, size_w: float | None) -> Actuator:
    """The best actuator that this Ray offers.

    Args:
        address, node_id: of the node.
        size_w: its `power_w` now, W; the hold cannot go beyond it.
    """
    try:
        return Resize(address, node_id)
    except RayUnavailable as fault:
        log.warning("power.hold", reason=str(fault))
        return Hold(node_id, size_w or 0.0)
