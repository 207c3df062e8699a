"""The clients' file of a gate: who is serving inference on this device right now.

After the header come 64 slots of 8 words, each written by the one process that holds its lock:

    word 0  process id           word 1  requests in flight
    word 2  busy since, ns       word 3  last moment busy, ns

A slot counts as busy while requests are in flight and for the hold-off after the last one, but only
as long as its lock is held, so a process killed in the middle of a request stops counting at once.
"""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate.layout import (
    HEADER_WORDS,
    WORD_BYTES,
    GateInvalid,
    MappedWords,
    is_locked,
    try_lock,
)

log = structlog.get_logger()

MAGIC = b"WSHCLNTS"
SUFFIX = ".clients"
SLOTS = 64
HOLD_OFF_NS = 20_000_000
"""A burst's next request comes soon; hashing in between would only delay it."""

RESCAN_S = 0.5
SLOT_WORDS = 8
FIRST_SLOT = 8
WORDS = FIRST_SLOT + SLOTS * SLOT_WORDS
assert FIRST_SLOT >= HEADER_WORDS

_PID, _IN_FLIGHT, _SINCE, _LAST = range(4)


def create_clients_file(path: Path, *, mode: int = 0o660) -> None:
    """Make the file if there is none of this version and boot; the agent does so at its start.

    Slots of clients that are attached already are kept.

    Raises:
        GateInvalid: it cannot be made.
    """
    file = MappedWords.create(Path(path), WORDS, mode=mode)
    try:
        if not file.has_header(MAGIC):
            file.words[0] = 0
            for index in range(FIRST_SLOT, WORDS):
                file.words[index] = 0
            file.write_header(MAGIC)
        with suppress(PermissionError):  # the umask must not shut the owner's group out
            os.fchmod(file.fd, mode)
    finally:
        file.close()


class ClientsView:
    """The reading end: whether any living client is busy."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises: GateInvalid."""
        self._file = MappedWords.open(Path(path), WORDS, writable=False)
        if not self._file.has_header(MAGIC):
            self._file.close()
            raise GateInvalid(f"{path} is no clients' file of this version and boot")
        words = self._file.words
        self._pids = words[FIRST_SLOT + _PID :: SLOT_WORDS]
        self._in_flight = words[FIRST_SLOT + _IN_FLIGHT :: SLOT_WORDS]
        self._last = words[FIRST_SLOT + _LAST :: SLOT_WORDS]

    def busy(self, now_ns: int) -> bool:
        """Whether inference has the device: one system call per slot that says it is busy."""
        since_ns = now_ns - HOLD_OFF_NS
        slots = zip(self._in_flight.tolist(), self._last.tolist(), strict=True)
        for slot, (in_flight, last_ns) in enumerate(slots):
            if (in_flight or last_ns > since_ns) and self._held(slot):
                return True
        return self._full()

    def attached(self) -> tuple[int, ...]:
        """Process ids of the clients that hold a slot now."""
        return tuple(
            pid for slot, pid in enumerate(self._pids.tolist()) if pid and self._held(slot)
        )

    def close(self) -> None:
        """Unmap."""
        for view in (self._pids, self._in_flight, self._last):
            view.release()
        self._file.close()

    def _full(self) -> bool:
        """With every slot held there may be a 65th client that could not say it is busy."""
        return 0 not in self._pids.tolist() and all(self._held(slot) for slot in range(SLOTS))

    def _held(self, slot: int) -> bool:
        return is_locked(self._file.fd, _lock_byte(slot))


class _Slot:
    """A slot of one clients' file that this process holds."""

    def __init__(self, path: Path) -> None:
        self._file = MappedWords.open(path, WORDS, writable=True)
        status = os.fstat(self._file.fd)
        self.inode = (status.st_dev, status.st_ino)
        slot = self._take() if self._file.has_header(MAGIC) else None
        if slot is None:
            self._file.close()
            raise GateInvalid(f"{path} has no free slot of this version and boot")
        self._base = FIRST_SLOT + slot * SLOT_WORDS
        for index in range(SLOT_WORDS):  # what a dead client left behind
            self._file.words[self._base + index] = 0
        self._file.words[self._base + _PID] = os.getpid()

    def _take(self) -> int | None:
        return next((s for s in range(SLOTS) if try_lock(self._file.fd, _lock_byte(s))), None)

    def mark(self, in_flight: int, now_ns: int) -> None:
        """Publish the number of requests in flight."""
        words, base = self._file.words, self._base
        words[base + _LAST] = now_ns
        if in_flight and not words[base + _IN_FLIGHT]:
            words[base + _SINCE] = now_ns
        words[base + _IN_FLIGHT] = in_flight

    def leave(self) -> None:
        """Empty the slot and free it."""
        for index in range(SLOT_WORDS):
            self._file.words[self._base + index] = 0
        self._file.close()

    def forget(self) -> None:
        """Close without touching the slot: after a fork it is the parent's."""
        self._file.close()


class ClientGate:
    """An inference process's side of every gate on its host. Safe for threads and tasks.

    Marking costs a few stores; it never fails a request. A gate that cannot be joined is logged;
    its worker stays away by itself while all slots are taken.
    """

    def __init__(self, path: Path | str) -> None:
        """Join one gate's clients' file, or every one in a directory and those that appear later.

        Args:
            path: a directory (see WATTSHIFT_GATE_DIR), or a single `<device>.clients` file.
        """
        self._path = Path(path)
        self._lock = threading.Lock()
        self._slots: dict[Path, _Slot] = {}
        self._troubles: dict[Path, str] = {}
        self._in_flight = 0
        self._closed = threading.Event()
        self._start()
        _living.add(self)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The span of a request, from admission to its last token; also of a model's loading."""
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    @property
    def gates(self) -> tuple[str, ...]:
        """Devices whose gates know this process."""
        with self._lock:
            return tuple(sorted(path.stem for path in self._slots))

    def rescan(self) -> None:
        """Join gates that appeared, leave those that went; a thread does so every half second."""
        with self._lock:
            found = self._candidates()
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

    def _start(self) -> None:
        self.rescan()
        threading.Thread(target=self._watch, name="gate-rescan", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(RESCAN_S):
            self.rescan()

    def _change(self, step: int) -> None:
        with self._lock:
            # A forked child may leave a span that its parent entered.
            self._in_flight = max(0, self._in_flight + step)
            now_ns = boot_ns()
            for slot in self._slots.values():
                slot.mark(self._in_flight, now_ns)

    def _candidates(self) -> dict[Path, tuple[int, int]]:
        paths = self._path.glob(f"*{SUFFIX}") if self._path.is_dir() else [self._path]
        found = {}
        for path in paths:
            with suppress(OSError):
                status = path.stat()
                found[path] = (status.st_dev, status.st_ino)
        return found

    def _join(self, path: Path, inode: tuple[int, int]) -> None:
        known = self._slots.get(path)
        if self._closed.is_set() or (known is not None and known.inode == inode):
            return
        if known is not None:
            self._slots.pop(path).leave()
        try:
            slot = self._slots[path] = _Slot(path)
        except GateInvalid as fault:
            if self._troubles.get(path) != str(fault):
                self._troubles[path] = str(fault)
                log.warning("gate.not_joined", path=str(path), reason=str(fault))
            return
        self._troubles.pop(path, None)
        if self._in_flight:
            slot.mark(self._in_flight, boot_ns())

    def _after_fork(self) -> None:
        """A child must not keep its parent's slots alive; it joins as a process of its own."""
        self._lock = threading.Lock()
        for slot in self._slots.values():
            slot.forget()
        self._slots.clear()
        self._in_flight = 0
        if not self._closed.is_set():
            self._closed = threading.Event()
            self._start()


def _lock_byte(slot: int) -> int:
    return (FIRST_SLOT + slot * SLOT_WORDS) * WORD_BYTES


def _after_fork_in_child() -> None:
    for gate in list(_living):
        gate._after_fork()


_living: weakref.WeakSet[ClientGate] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork_in_child)
