"""An inference process's side of the gates on its host: it says when it is busy.

Nothing but the standard library is needed here, marking costs a few stores, and no fault of a gate
ever reaches a request: it is logged, and the worker stays away by itself while all slots are taken.
"""

import logging
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import agent_file
from wattshift_cluster.gate.clients import SUFFIX, ClientKind, Slot
from wattshift_cluster.gate.devices import EVERYTHING, Wanted, wanted
from wattshift_cluster.gate.layout import GateInvalid
from wattshift_cluster.gate.spans import Span

log = logging.getLogger("wattshift.gate")

RESCAN_S = 0.5


class ClientGate:
    """The gates of this process's devices. Safe for threads, tasks and forks."""

    def __init__(
        self,
        path: Path | str,
        devices: str | Sequence[str | int] | None = None,
        *,
        kind: ClientKind = "client",
        watch: bool = True,
    ) -> None:
        """Join the gates that are there, and later those that appear.

        Args:
            path: a directory (see WATTSHIFT_GATE_DIR), or a single `<device>.clients` file.
            devices: GPUs that this process uses: UUIDs, indices, names of gates, or "all"; None to
                ask CUDA_VISIBLE_DEVICES. WATTSHIFT_GANG adds others. Gates that are of no known
                GPU are always joined, and so is a single file.
            kind: an observer marks for a server that does not do so itself.
            watch: look for gates that appear or go; not needed by the agent that keeps them.
        """
        self._path = Path(path)
        self._kind = kind
        self._watches = watch
        self._wanted = self._asked(devices)
        self._lock = threading.RLock()  # a generator may be collected, and leave, within a change
        self._slots: dict[Path, Slot] = {}
        self._troubles: dict[Path, str] = {}
        self._chosen: frozenset[str] = frozenset()
        self._in_flight = 0
        self._memory = False
        self._generation = 0
        self._forked = False
        self._closed = threading.Event()
        self._start()
        _living.add(self)

    def busy(self) -> Span:
        """The span of a request, from admission to its last token; also of a model's loading.

        A context manager, and a decorator for functions, coroutines and generators of both kinds.
        """
        return Span(self)

    def enter(self) -> int:
        """Begin one span; what `leave` needs to end it. `busy` is the form to use."""
        with self._lock:
            if self._forked:
                self._rejoin()
            self._in_flight += 1
            self._publish()
            return self._generation

    def leave(self, generation: int) -> None:
        """End one span. A forked child may leave a span of its parent: that ends nothing."""
        with self._lock:
            if generation == self._generation:
                self._in_flight -= 1
                self._publish()

    def want_memory(self, wanted_now: bool) -> None:
        """Ask every worker behind these gates for all the memory it holds, or stop asking."""
        with self._lock:
            if self._forked:
                self._rejoin()
            self._memory = wanted_now
            for slot in self._slots.values():
                slot.want_memory(wanted_now)

    @property
    def gates(self) -> tuple[str, ...]:
        """Devices whose gates know this process."""
        with self._lock:
            return tuple(sorted(path.stem for path in self._slots))

    @property
    def chosen(self) -> tuple[str, ...]:
        """Devices whose gates should know it; those not in `gates` could not be joined."""
        return tuple(sorted(self._chosen))

    @property
    def troubles(self) -> dict[str, str]:
        """Why a gate could not be joined, by device."""
        with self._lock:
            return {path.stem: reason for path, reason in self._troubles.items()}

    def rescan(self) -> None:
        """Join gates that appeared, leave those that went; a thread does so every half second."""
        found = self._candidates()
        with self._lock:
            for path in [known for known in self._slots if known not in found]:
                self._slots.pop(path).leave()
            for path, inode in found.items():
                self._join(path, inode)

    def close(self) -> None:
        """Leave every gate."""
        self._closed.set()
        with self._lock:
            for slot in self._slots.values():
                slot.leave()
            self._slots.clear()

    def _asked(self, devices: str | Sequence[str | int] | None) -> Wanted:
        asked = EVERYTHING if self._path.suffix == SUFFIX else wanted(devices)
        if asked.doubt is not None:
            log.warning("gate: %s; every gate of this host is marked", asked.doubt)
        return asked

    def _start(self) -> None:
        self.rescan()
        if not self._watches:
            return
        try:
            threading.Thread(target=self._watch, name="gate-rescan", daemon=True).start()
        except RuntimeError as fault:  # no more threads: the gates of now are still marked
            log.warning("gate: new gates will not be noticed: %s", fault)

    def _watch(self) -> None:
        closed = self._closed
        while not closed.wait(RESCAN_S):
            self.rescan()

    def _publish(self) -> None:
        now_ns = boot_ns()
        for slot in self._slots.values():
            slot.mark(self._in_flight, now_ns)

    def _candidates(self) -> dict[Path, tuple[int, int]]:
        found = {}
        try:
            paths = list(self._path.glob(f"*{SUFFIX}")) if self._path.is_dir() else [self._path]
            for path in paths:
                status = path.stat()
                found[path] = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            pass
        except OSError as fault:
            self._complain(self._path, str(fault))
        self._chosen = self._wanted.of(
            {path.stem: agent_file.read_identity(path) for path in found}
        )
        return {path: inode for path, inode in found.items() if path.stem in self._chosen}

    def _join(self, path: Path, inode: tuple[int, int]) -> None:
        known = self._slots.get(path)
        if self._closed.is_set() or (known is not None and known.inode == inode):
            return
        if known is not None:
            self._slots.pop(path).leave()
        try:
            slot = self._slots[path] = Slot(path, self._kind)
        except GateInvalid as fault:
            self._complain(path, str(fault))
            return
        self._troubles.pop(path, None)
        if self._memory:
            slot.want_memory(True)
        if self._in_flight:
            slot.mark(self._in_flight, boot_ns())

    def _complain(self, path: Path, reason: str) -> None:
        if self._troubles.get(path) != reason:
            self._troubles[path] = reason
            log.warning("gate: %s is not marked: %s", path, reason)

    def _after_fork(self) -> None:
        """A child must not keep its parent's slots alive; it joins with its own first span."""
        self._lock = threading.RLock()
        for slot in self._slots.values():
            slot.forget()
        self._slots.clear()
        self._in_flight, self._memory = 0, False
        self._generation += 1
        self._forked = True

    def _rejoin(self) -> None:
        self._forked = False
        if not self._closed.is_set():
            self._closed = threading.Event()
            self._start()


def _before_fork() -> None:
    """A slot that is just being taken must be known to the child, which would else keep it."""
    for gate in list(_living):
        gate._lock.acquire()
        _forking.append(gate)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop()._after_fork()


_living: weakref.WeakSet[ClientGate] = weakref.WeakSet()
_forking: list[ClientGate] = []
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
