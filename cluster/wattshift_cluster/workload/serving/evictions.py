"""Ending a given replica without failing a request.

Serve's own shrink lets Serve choose which replica goes. Where it has to be one on a certain node,
its slots are reserved one after the other, with the call by which Serve's routers reserve them:
what is in work ends, and what is new goes to other replicas, because this one is full. When every
slot is ours nobody is served there any more, and the actor is killed. After the deadline it is
killed anyway: the watts are needed.

`reserve_slot` is internal to Ray Serve 2.60 (there for `choose_replica` of a handle). A replica
without it is killed at once. The destructor of a killed replica does not run.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import structlog

from wattshift_cluster.workload.cluster.ray_link import internal

log = structlog.get_logger()

DRAIN_S = 10.0
AGAIN_S = 0.02
CALL_S = 2.0
SLOTS_AT_ONCE = 256
EVICTIONS_MAX = 64
"""At once; more wait for the core to ask again."""


def drained(handle: Any, slots: int, until_s: float) -> bool:
    """Take all slots of a replica; False if that was not done in time. Blocks.

    Args:
        handle: the replica's actor.
        slots: its `max_ongoing_requests`.
        until_s: end of the attempt, monotonic clock.

    Raises:
        Exception: Ray's own, when the actor is gone or has no such call.
    """
    ray = internal("ray")
    metadata = internal("ray.serve._private.common").RequestMetadata
    held = 0
    while held < slots and time.monotonic() < until_s:
        asked = [
            handle.reserve_slot.remote(
                metadata(uuid.uuid4().hex, uuid.uuid4().hex), uuid.uuid4().hex
            )
            for _ in range(min(SLOTS_AT_ONCE, slots - held))
        ]
        held += sum(bool(accepted) for accepted, _ in ray.get(asked, timeout=CALL_S))
        if held < slots:
            time.sleep(AGAIN_S)
    return held >= slots


class Evictions:
    """Replicas that are being ended, each in a thread of its own."""

    def __init__(self, handle_of: Callable[[str], Any]) -> None:
        """`handle_of` gives a replica's actor by its name; raises ValueError when it is gone."""
        self._handle_of = handle_of
        self._lock = threading.Lock()
        self._actors: set[str] = set()

    def busy(self) -> bool:
        """Whether any replica is being ended."""
        with self._lock:
            return bool(self._actors)

    def begin(self, actor: str, slots: int) -> bool:
        """End a replica, at once where it has no slots; False if that goes on, or too many do."""
        with self._lock:
            if actor in self._actors or len(self._actors) >= EVICTIONS_MAX:
                return False
            self._actors.add(actor)
        threading.Thread(target=self._end, args=(actor, slots), name="evict", daemon=True).start()
        return True

    def _end(self, actor: str, slots: int) -> None:
        began_s = time.monotonic()
        quiet = False
        try:
            handle = self._handle_of(actor)
            try:
                quiet = drained(handle, slots, began_s + DRAIN_S)
            except (
                Exception
            ) as fault:  # Ray's own types differ by what broke; it is killed all the same
                log.warning("evict.drain", replica=actor, reason=str(fault)[:300])
            internal("ray").kill(handle, no_restart=True)
            took_s = round(time.monotonic() - began_s, 3)
            log.info("service.evicted", replica=actor, drained=quiet, seconds=took_s)
        except Exception as fault:  # gone by itself, or Ray is; the core asks again if it is not
            log.warning("evict.failed", replica=actor, reason=str(fault)[:300])
        finally:
            with self._lock:
                self._actors.discard(actor)
