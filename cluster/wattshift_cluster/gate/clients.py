"""The clients' file of a gate: who is serving inference on this device right now.

After the header come 64 slots of 8 words, each written by the one process that holds its lock:

    word 0  process id           word 1  requests in flight
    word 2  busy since, ns       word 3  last moment busy, ns
    word 4  1: wants the device's memory, so that the worker must give back what it holds of it
    word 5  0: serves requests itself; 1: an observer, which marks for a server that does not

A slot counts as busy while requests are in flight and for the hold-off after the last one, but only
as long as its lock is held, so a process killed in the middle of a request stops counting at once.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate.layout import (
    HEADER_WORDS,
    WORD_BYTES,
    GateInvalid,
    MappedWords,
    is_locked,
    try_lock,
)

MAGIC = b"WSHCLNTS"
SUFFIX = ".clients"
SLOTS = 64
HOLD_OFF_NS = 20_000_000
"""A burst's next request comes soon; hashing in between would only delay it."""

SLOT_WORDS = 8
FIRST_SLOT = 8
WORDS = FIRST_SLOT + SLOTS * SLOT_WORDS
assert FIRST_SLOT >= HEADER_WORDS

_PID, _IN_FLIGHT, _SINCE, _LAST, _MEMORY, _KIND = range(6)

ClientKind = Literal["client", "observer"]
KINDS: tuple[ClientKind, ...] = get_args(ClientKind)


@dataclass(frozen=True, slots=True)
class ClientState:
    """One attached client, for a report.

    Attributes:
        pid: as its own process space numbers it; in a container that is not the host's.
        in_flight: requests.
        busy: whether it counts as busy, hold-off included.
        memory_wanted: whether it wants the device's memory.
        kind: whether it serves or observes.
    """

    pid: int
    in_flight: int
    busy: bool
    memory_wanted: bool
    kind: ClientKind


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
        self._memory = words[FIRST_SLOT + _MEMORY :: SLOT_WORDS]
        self._kinds = words[FIRST_SLOT + _KIND :: SLOT_WORDS]

    def busy(self, now_ns: int) -> bool:
        """Whether inference has the device: one system call per slot that says it is busy."""
        return self.busy_kind(now_ns) is not None

    def busy_kind(self, now_ns: int) -> ClientKind | None:
        """Who has the device: "observer" if one of those that are busy is, None if nobody is."""
        since_ns = now_ns - HOLD_OFF_NS
        found: ClientKind | None = None
        slots = zip(self._in_flight.tolist(), self._last.tolist(), strict=True)
        for slot, (in_flight, last_ns) in enumerate(slots):
            if (in_flight or last_ns > since_ns) and self._held(slot):
                found = "client"
                if self._kinds[slot]:
                    return "observer"
        return found or ("client" if self._full() else None)

    def memory_wanted(self) -> bool:
        """Whether a living client wants the device's memory for itself."""
        wanted = self._memory.tolist()
        return any(wanted) and any(word and self._held(slot) for slot, word in enumerate(wanted))

    def attached(self) -> tuple[int, ...]:
        """Process ids of the clients that hold a slot now."""
        return tuple(
            pid for slot, pid in enumerate(self._pids.tolist()) if pid and self._held(slot)
        )

    def clients(self) -> tuple[ClientState, ...]:
        """Those that hold a slot now, in the order of the slots."""
        since_ns = boot_ns() - HOLD_OFF_NS
        found = []
        for slot in range(SLOTS):
            base = FIRST_SLOT + slot * SLOT_WORDS
            words = self._file.words[base : base + SLOT_WORDS].tolist()
            if words[_PID] and self._held(slot):
                found.append(
                    ClientState(
                        pid=words[_PID],
                        in_flight=words[_IN_FLIGHT],
                        busy=words[_IN_FLIGHT] > 0 or words[_LAST] > since_ns,
                        memory_wanted=words[_MEMORY] > 0,
                        kind=KINDS[min(words[_KIND], len(KINDS) - 1)],
                    )
                )
        return tuple(found)

    def close(self) -> None:
        """Unmap."""
        for view in (self._pids, self._in_flight, self._last, self._memory, self._kinds):
            view.release()
        self._file.close()

    def _full(self) -> bool:
        """With every slot held there may be a 65th client that could not say it is busy."""
        return 0 not in self._pids.tolist() and all(self._held(slot) for slot in range(SLOTS))

    def _held(self, slot: int) -> bool:
        return is_locked(self._file.fd, _lock_byte(slot))


class Slot:
    """A slot of one clients' file that this process holds."""

    def __init__(self, path: Path, kind: ClientKind) -> None:
        """Take a free slot. Raises: GateInvalid when there is none of this version and boot."""
        self._file = MappedWords.open(path, WORDS, writable=True)
        status = os.fstat(self._file.fd)
        self.inode = (status.st_dev, status.st_ino)
        slot = self._take() if self._file.has_header(MAGIC) else None
        if slot is None:
            self._file.close()
            raise GateInvalid(f"{path} has no free slot of this version and boot")
        base = FIRST_SLOT + slot * SLOT_WORDS
        self._words = self._file.words[base : base + SLOT_WORDS]
        self._empty()  # what a dead client left behind
        self._words[_KIND] = KINDS.index(kind)
        self._words[_PID] = os.getpid()

    def mark(self, in_flight: int, now_ns: int) -> None:
        """Publish the number of requests in flight."""
        words = self._words
        words[_LAST] = now_ns
        if in_flight and not words[_IN_FLIGHT]:
            words[_SINCE] = now_ns
        words[_IN_FLIGHT] = in_flight

    def want_memory(self, wanted: bool) -> None:
        """Publish whether the device's memory is wanted."""
        self._words[_MEMORY] = int(wanted)

    def leave(self) -> None:
        """Empty the slot and free it."""
        self._empty()
        self.forget()

    def forget(self) -> None:
        """Close without touching the slot: after a fork it is the parent's."""
        self._words.release()
        self._file.close()

    def _take(self) -> int | None:
        return next((s for s in range(SLOTS) if try_lock(self._file.fd, _lock_byte(s))), None)

    def _empty(self) -> None:
        for index in range(SLOT_WORDS):
            self._words[index] = 0


def _lock_byte(slot: int) -> int:
    return (FIRST_SLOT + slot * SLOT_WORDS) * WORD_BYTES
