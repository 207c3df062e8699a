"""Rest between attempts at something that is away: doubling, capped, with jitter.

Jitter matters at a site: when a switch is back, a hundred meters must not be asked in one instant.
"""

import random
import time
from collections.abc import Callable

LEAST_S = 0.05


class Pause:
    """Counts failures in a row and says how long to leave the other side alone."""

    def __init__(
        self,
        rng: random.Random | None = None,
        *,
        first_s: float = 0.5,
        most_s: float = 5.0,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: first_s, most_s: bounds of the longest rest after one and after many failures."""
        self._rng = rng or random.Random()
        self._first_s, self._most_s = first_s, most_s
        self._steady_s = steady_s
        self._failures = 0
        self._until_s = 0.0

    def failed(self) -> float:
        """Begin a rest; returns how long it is, s."""
        ceiling_s = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        rest_s = self._rng.uniform(LEAST_S, max(LEAST_S, ceiling_s))
        self._until_s = self._steady_s() + rest_s
        return rest_s

    def worked(self) -> None:
        """Start again from the bottom."""
        self._failures, self._until_s = 0, 0.0

    @property
    def resting(self) -> bool:
        """Whether the other side is to be left alone now."""
        return self._steady_s() < self._until_s
