"""Variable difficulty: as many shares a minute as were asked for, whatever the miner's speed.

Shares come as a Poisson process, so few of them say little: the difficulty is left alone until the
count of a window differs from the expected one by more than chance explains.
"""

import math
from dataclasses import dataclass, field

ENOUGH_SHARES = 12
"""A window with as many is judged at once: its rate is known to about 30 %."""

WINDOW_S = 60.0
"""A window is judged after this at the latest, so that a miner far too slow is not left there."""

SIGMAS = 3.0
"""A rate this far from what was asked for is no chance any more."""

MOST_STEP = 8.0
"""The most by which one window changes the difficulty, up or down."""


@dataclass(slots=True)
class Vardiff:
    """The windows of one miner. Times are those of any clock that only runs forward, s."""

    shares_per_minute: float
    least_difficulty: float
    most_difficulty: float
    began_s: float
    _shares: int = field(default=0, init=False)

    def credited(self) -> None:
        """One more share was accepted."""
        self._shares += 1

    def clamp(self, difficulty: float) -> float:
        """The difficulty within the bounds."""
        return min(self.most_difficulty, max(self.least_difficulty, difficulty))

    def retarget(self, difficulty: float, now_s: float) -> float:
        """The difficulty from the next job on; the same while the window says nothing certain."""
        spent_s = now_s - self.began_s
        if spent_s <= 0 or (self._shares < ENOUGH_SHARES and spent_s < WINDOW_S):
            return difficulty
        expected = self.shares_per_minute * spent_s / 60
        shares, self._shares, self.began_s = self._shares, 0, now_s
        if abs(shares - expected) <= SIGMAS * math.sqrt(max(expected, 1.0)):
            return difficulty
        ratio = max(shares, 0.5) / expected
        return self.clamp(difficulty * min(MOST_STEP, max(1 / MOST_STEP, ratio)))
