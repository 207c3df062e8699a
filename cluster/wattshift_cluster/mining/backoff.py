"""Back-off between connection attempts: doubling, capped, with full jitter.

Jitter matters at a site: after a pool restart a thousand agents must not knock in the same second.
The source of randomness is injected, so a test or a simulation is repeatable from its seed.
"""

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Waits between `least_s` and a ceiling that doubles from `first_s` up to `most_s`."""

    rng: random.Random
    least_s: float = 0.05
    first_s: float = 0.5
    most_s: float = 30.0
    _failures: int = field(default=0, init=False)

    def next_s(self) -> float:
        """How long to wait before the next attempt."""
        ceiling = min(self.most_s, self.first_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self.rng.uniform(self.least_s, max(self.least_s, ceiling))

    def reset(self) -> None:
        """A session worked; start again from the bottom."""
        self._failures = 0
