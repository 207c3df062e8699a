"""The worker's file of a gate: its exclusive seat, its heartbeat, and counters that outlive it.

    word 3  process id                     word 4  heartbeat on the boot clock, ns
    word 5  end of the last launch, ns     word 6  launches
    word 7  hashes                         word 8  processor time of the worker, ns
    word 9  time within launches, ns       word 10  start of its process, clock ticks

The counters are of the sitting worker. They lie in shared memory, so that after a kill -9 the agent
still reads them exactly; it adds them up before it seats the next worker.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.errors import TryLater
from wattshift_cluster.gate.layout import (
    HEADER_WORDS,
    GateInvalid,
    MappedWords,
    is_locked,
    try_lock,
)

MAGIC = b"WSHWORKR"
SUFFIX = ".worker"
WORDS = 16

_PID, _BEAT, _END, _LAUNCHES, _HASHES, _CPU, _BUSY, _STARTED = range(HEADER_WORDS, HEADER_WORDS + 8)


class SeatTaken(TryLater):
    """A device has one worker at a time, and this one has another."""


@dataclass(frozen=True, slots=True)
class SeatState:
    """What the worker last wrote; times on the boot clock, ns."""

    pid: int
    heartbeat_ns: int
    last_launch_end_ns: int
    launches: int
    hashes: int
    cpu_ns: int
    launching_ns: int


class WorkerSeat:
    """The writing end, held by the one worker of a device."""

    def __init__(self, path: Path) -> None:
        """Take the seat and start its counters at zero.

        Raises:
            SeatTaken: another worker sits there.
            GateInvalid: the file cannot be created.
        """
        self._file = MappedWords.create(Path(path), WORDS, mode=0o644)
        if not try_lock(self._file.fd, 0):
            self._file.close()
            raise SeatTaken(f"another worker holds {path}")
        self._words = self._file.words
        self._words[0] = 0
        for index in range(HEADER_WORDS, WORDS):
            self._words[index] = 0
        self._words[_STARTED] = process_start(os.getpid()) or 0
        self._words[_PID] = os.getpid()
        self._file.write_header(MAGIC)

    def beat(self, now_ns: int, cpu_ns: int) -> None:
        """Show that the worker lives."""
        self._words[_BEAT] = now_ns
        self._words[_CPU] = cpu_ns

    def launched(self, end_ns: int, took_ns: int, hashes: int) -> None:
        """Book one launch that ended."""
        words = self._words
        words[_LAUNCHES] += 1
        words[_HASHES] += hashes
        words[_BUSY] += took_ns
        words[_END] = end_ns
        words[_BEAT] = end_ns

    def leave(self) -> None:
        """Free the seat; the counters stay to be read."""
        self._words[_PID] = 0
        self._words.release()
        self._file.close()


class SeatView:
    """The reading end, for the agent and for measurements."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises: GateInvalid when there is none of this version and boot."""
        self._file = MappedWords.open(Path(path), WORDS, writable=False)
        if not self._file.has_header(MAGIC):
            self._file.close()
            raise GateInvalid(f"{path} is no worker's seat of this version and boot")

    def read(self) -> SeatState:
        """The worker's words now; each is whole, together they may be one launch apart."""
        return SeatState(*self._file.words[_PID : _BUSY + 1].tolist())

    @property
    def taken(self) -> bool:
        """Whether a living worker sits there."""
        return is_locked(self._file.fd, 0)

    @property
    def gone(self) -> bool:
        """Whether nobody sits there and the last worker's process has ended, with all it held.

        The kernel frees a dying process's locks a moment before the rest. A worker in another
        process space than ours cannot be seen; then its lock alone tells.
        """
        words = self._file.words
        if self.taken:
            return False
        return words[_PID] == 0 or process_start(words[_PID]) != words[_STARTED]

    def close(self) -> None:
        """Unmap."""
        self._file.close()


def process_start(pid: int) -> int | None:
    """When a process started, clock ticks since boot; None when it ended, a zombie included.

    Source: proc_pid_stat(5), fields 3 and 22.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in ("Z", "X") else int(rest[18])
