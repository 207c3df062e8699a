"""How fast a batch job goes: items per second over the last minute.

An exponential average with a memory of a minute. It starts empty, and is divided by how much of its
memory is filled, so that the first figure is right and not a fraction of what is true.
"""

import math

MEMORY_S = 60.0


class Rate:
    """Items per second, from a count that only rises."""

    def __init__(self) -> None:
        self._rate_per_s = 0.0
        self._filled = 0.0
        self._last: tuple[int, float] | None = None

    def seen(self, done: int, now_s: float) -> None:
        """Note how many items are done at a moment of our clock."""
        if self._last is None:
            self._last = (done, now_s)
            return
        before, then_s = self._last
        if now_s <= then_s:
            return
        kept = math.exp(-(now_s - then_s) / MEMORY_S)
        fresh = max(0, done - before) / (now_s - then_s)
        self._rate_per_s = kept * self._rate_per_s + (1 - kept) * fresh
        self._filled = kept * self._filled + (1 - kept)
        self._last = (done, now_s)

    def forget(self) -> None:
        """Start anew: the job was paused, or has new workers."""
        self._rate_per_s, self._filled, self._last = 0.0, 0.0, None

    @property
    def per_s(self) -> float | None:
        """Items per second; None before there was anything to measure."""
        return self._rate_per_s / self._filled if self._rate_per_s > 0 else None
