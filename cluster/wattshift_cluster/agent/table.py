"""The table that a memory-hard algorithm keeps in its card: how large, and whether it is there.

A lease of mode EMPTY has it freed. The gate is closed by then, so nothing is launched and nothing
built; the worker is asked on its standard input, once and again with each renewal until it has said
that nothing is held. An agent that hangs asks for nothing: the table stays where it is, which no
watt depends on, and a server that starts has it freed by the gate alone.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from wattshift_cluster.agent.specs import HashingSpec

EMPTY = "empty"

GROWN = 1.5
"""Only a figure off by this factor changes the inventory: each change has all leases renewed."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a table.

    Attributes:
        held_bytes: of the card's memory.
        build_s: of the card's time, s.
    """

    held_bytes: int
    build_s: float


EXPECTED = {"autolykos2": Size(7_640_000_000, 5.0), "etchash": Size(4_500_000_000, 10.0)}
"""By algorithm, until the device's own is known: bytes computed, for Ergo at height 1.9 million and
Ethereum Classic at 24.7 million; times modelled: 1.8 and 4.3 s by an H200, more by most cards."""


class Worker(Protocol):
    """What of a `WorkerChild` is asked here."""

    pid: int | None

    @property
    def progress(self) -> float:
        """Of its table, 0 to 1."""
        ...

    def send(self, message: dict[str, Any]) -> None:
        """Tell it."""
        ...


class CardTable:
    """One device's table.

    Attributes:
        offered: whether there is one to be freed.
        size: what is known of it.
        changes: grows when that was badly wrong.
    """

    def __init__(self, spec: HashingSpec) -> None:
        """Nothing is held: no worker runs. An emulated card's worker hashes on a CPU."""
        expected = EXPECTED.get(spec.algorithm)
        self.offered = spec.kind == "gpu" and spec.quality != "emulated" and expected is not None
        self.size = expected if self.offered and expected is not None else Size(0, 0.0)
        self.changes = 0
        self._worker: Worker | None = None
        self._pid: int | None = None
        self._held_bytes: int | None = None

    def serve(self, worker: Worker) -> None:
        """Speak of this worker from now on."""
        self._worker = worker

    def heard(self, event: dict[str, Any]) -> None:
        """Follow one line of the worker."""
        match event:
            case {"event": "ready", **more} if self._worker is not None:
                self._pid, self._held_bytes = self._worker.pid, _bytes(more)
            case {"event": "table", **more}:
                self._held_bytes = _bytes(more)
                self._learn(self._held_bytes, more.get("build_s"))

    def empty(self, *, renewed: bool) -> None:
        """Have it freed; where a lease is only `renewed`, unless it is known to be."""
        worker = self._worker
        if not self.offered or worker is None or worker.pid is None or worker.pid != self._pid:
            return
        if renewed and self._held_bytes == 0:
            return
        self._held_bytes = None  # what it said before that may be overtaken
        worker.send({"op": "empty"})

    @property
    def held_bytes(self) -> int | None:
        """Of the card's memory that it takes now; None unknown: a worker starts, or is asked."""
        worker = self._worker
        if not self.offered or worker is None:
            return None
        if worker.pid is None:
            return 0
        return self._held_bytes if worker.pid == self._pid else None

    @property
    def progress(self) -> float | None:
        """Built so far, 0 to 1; None unknown, or without a table."""
        held_bytes = self.held_bytes
        if held_bytes is None or self._worker is None:
            return None
        return self._worker.progress if held_bytes else 0.0

    def note(self, mode: str | None) -> str | None:
        """What a person should know. Args: mode: of the lease in force."""
        if not self.offered:
            return None
        if mode == EMPTY:
            freed = self.held_bytes == 0
            return "its memory is kept free for compute" if freed else "its table is being freed"
        progress = self.progress
        if not progress or progress >= 1.0:
            return None
        return f"it builds its table: {progress:.0%}"

    def _learn(self, held_bytes: int | None, build_s: object) -> None:
        if not self.offered or not held_bytes or not isinstance(build_s, int | float):
            return
        new, old = Size(held_bytes, float(build_s)), self.size
        pairs = ((new.held_bytes, old.held_bytes), (new.build_s, old.build_s))
        if any(not a / GROWN < b < a * GROWN for a, b in pairs):
            self.size = new
            self.changes += 1


def _bytes(said: dict[str, Any]) -> int | None:
    held_bytes = said.get("table_bytes")
    return held_bytes if isinstance(held_bytes, int) and held_bytes >= 0 else None
