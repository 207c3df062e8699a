"""What a replica's answers took, noted as they are given: the hooks write, the bridge reads.

One recorder per process, found where it runs and never carried along with a class. Nothing is
written anywhere; a bounded number of the last figures is kept.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from wattshift_cluster.gate.environment import gate_here

WINDOW_S = 30.0
FIGURES_MAX = 512
"""Of each kind: enough for a 95th percentile, and small enough to be asked for every second."""


class Recorder:
    """The last figures of one process. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s = clock()
        self._ongoing = 0
        self._kinds: dict[str, deque[tuple[float, float]]] = {
            kind: deque(maxlen=FIGURES_MAX) for kind in ("recent_ms", "ttft_ms", "itl_ms")
        }

    def answer(self) -> "Answer":
        """One answer, which begins now."""
        with self._lock:
            self._ongoing += 1
        return Answer(self, self._clock())

    def note(self, kind: str, began_s: float) -> float:
        """Note how long something took until now; returns now."""
        now_s = self._clock()
        self._kinds[kind].append((now_s, (now_s - began_s) * 1000))
        return now_s

    def ended(self) -> None:
        """One answer less in work."""
        with self._lock:
            self._ongoing -= 1

    def stats(self) -> dict[str, Any]:
        """What the bridge collects; figures of the last 30 s."""
        now_s = self._clock()
        since_s = now_s - WINDOW_S
        rows = {
            kind: [round(took_ms, 3) for at_s, took_ms in list(figures) if at_s >= since_s]
            for kind, figures in self._kinds.items()
        }
        full = len(rows["recent_ms"]) == FIGURES_MAX
        first_s = self._kinds["recent_ms"][0][0] if full else max(since_s, self._began_s)
        gate = gate_here()
        return {
            **rows,
            "ongoing": self._ongoing,
            "queued": None,
            "rate_per_s": round(len(rows["recent_ms"]) / max(1e-3, now_s - first_s), 3),
            "gates": list(gate.gates) if gate else [],
        }


class Answer:
    """One answer from its request to its last part; a context manager.

    An answer that raised counts as given up, and its time is not noted. One that is streamed is
    `kept` beyond its context and ended by whoever sends the parts, or when nobody will.
    """

    __slots__ = ("_began_s", "_open", "_part_s", "_recorder", "kept")

    def __init__(self, recorder: Recorder, began_s: float) -> None:
        self._recorder = recorder
        self._began_s = began_s
        self._part_s: float | None = None
        self._open = True
        self.kept = False

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self.kept or kind is not None:
            self.end(given=kind is None)

    def __del__(self) -> None:
        self.end(given=False)

    def part(self) -> None:
        """A part of a streamed answer goes out."""
        if self._part_s is None:
            self._part_s = self._recorder.note("ttft_ms", self._began_s)
        else:
            self._part_s = self._recorder.note("itl_ms", self._part_s)

    def end(self, given: bool = True) -> None:
        """It is complete, or was given up; only the first call counts."""
        if self._open:
            self._open = False
            self._recorder.ended()
            if given:
                self._recorder.note("recent_ms", self._began_s)


_recorder = Recorder()


def recorder_here() -> Recorder:
    """This process's recorder."""
    return _recorder
