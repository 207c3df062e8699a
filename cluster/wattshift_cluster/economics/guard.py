"""One figure against nonsense: a jump is held and flagged until later samples or a person confirm.

A price that turns negative, or ten times itself, is far more often a broken source than news, and
on its word a whole fleet would run or stop. So the last good figure stays, grows old like any
other, and the flag says what was held. What can never be true is not confirmed by repeating it.
"""

import math
from dataclasses import dataclass

from wattshift_cluster.economics.figures import Bounds, Seen

AGREE = 1.5
"""Samples within this factor of the held one say the same."""


@dataclass(frozen=True, slots=True)
class Held:
    """A figure that is not believed: how often it was repeated since, and why it is held."""

    value: float
    at_s: float
    repeats: int
    reason: str
    possible: bool


class Guard:
    """The last good value of one figure, and what is held against it.

    Attributes:
        good: the figure in force; None before the first.
        held: what is held; None while all is well.
    """

    def __init__(self, name: str, bounds: Bounds, *, jump: float, confirm_samples: int) -> None:
        """Args: jump: the site's factor; confirm_samples: later samples that confirm a jump."""
        self.name = name
        self.good: Seen | None = None
        self.held: Held | None = None
        self._bounds = bounds
        self._jump = bounds.jump or jump
        self._confirm_samples = confirm_samples

    def offer(self, seen: Seen) -> None:
        """Take, hold or ignore one sample. One that is no newer than the last is ignored."""
        good, bounds = self.good, self._bounds
        if not (math.isfinite(seen.value) and bounds.least <= seen.value <= bounds.most):
            reason = f"{self.name} {seen.value:g} is outside {bounds.least:g} to {bounds.most:g}"
            self.held = Held(seen.value, seen.at_s, 0, reason, possible=False)
            return
        if good is not None and seen.at_s <= good.at_s:
            return
        if good is None or not self._jumps(good.value, seen.value):
            self.good, self.held = seen, None
            return
        self._hold(seen, good)

    def _jumps(self, before: float, after: float) -> bool:
        steady = self._bounds.steady
        low, high = sorted((max(before, steady), max(after, steady)))
        return high > 0 and (low <= 0 or high / low >= self._jump)

    def _hold(self, seen: Seen, good: Seen) -> None:
        held = self.held
        if held is not None and held.possible and _agree(held.value, seen.value):
            if seen.at_s <= held.at_s:
                return
            repeats = held.repeats + 1
            if repeats >= self._confirm_samples:
                self.good, self.held = seen, None
                return
        else:
            repeats = 0
        reason = f"{self.name} {seen.value:g} is a jump from {good.value:g}: held"
        self.held = Held(seen.value, seen.at_s, repeats, reason, possible=True)

    def confirm(self) -> bool:
        """A person says that the held figure is true. False where nothing can be confirmed."""
        held = self.held
        if held is None or not held.possible:
            return False
        self.good, self.held = Seen(held.value, held.at_s), None
        return True

    def restore(self, seen: Seen) -> None:
        """Take a value that was good before a restart."""
        if self._bounds.least <= seen.value <= self._bounds.most:
            self.good = seen


def _agree(first: float, second: float) -> bool:
    low, high = sorted((first, second))
    return low > 0 and high / low <= AGREE
