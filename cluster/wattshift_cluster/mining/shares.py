"""Counting shares: found = accepted + rejected + lost + waiting, each with a reason.

Nothing found may vanish (invariant I5): a share that was never answered, or whose session ended, is
lost with that reason. Counters live in the client, not in a connection, so reconnecting keeps them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_REASONS = 32
"""Reasons counted apart; a pool that invents texts must not grow our memory."""


@dataclass(frozen=True, slots=True)
class ShareResult:
    """What became of one share.

    Attributes:
        accepted: the pool said true.
        reason: why not, in the pool's words ("23 Above target") or ours ("lost: disconnected").
        difficulty: that of its job.
    """

    accepted: bool
    reason: str | None
    difficulty: float


@dataclass(frozen=True, slots=True)
class ShareCounts:
    """Counters at one moment. `unverified` hits failed our own check: never sent, never found."""

    found: int
    accepted: int
    rejected: Mapping[str, int]
    lost: Mapping[str, int]
    waiting: int
    unverified: int
    accepted_difficulty: float
    accepted_difficulty_sq: float

    @property
    def rejected_total(self) -> int:
        """Shares that the pool refused."""
        return sum(self.rejected.values())

    @property
    def lost_total(self) -> int:
        """Shares without an answer."""
        return sum(self.lost.values())


@dataclass(slots=True)
class ShareLedger:
    """Mutable counters; `accepted_difficulty_sq` (sum of squares) gives the spread of the estimate.

    The hashes behind n shares of difficulties d are sum(d) * 2^32 with a standard deviation of
    sqrt(sum(d^2)) * 2^32, as each share is a Poisson event.
    """

    found: int = 0
    accepted: int = 0
    unverified: int = 0
    accepted_difficulty: float = 0.0
    accepted_difficulty_sq: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def settle(self, result: ShareResult, *, lost: bool = False) -> ShareResult:
        """Book the end of a share that was counted as found, and hand the result through."""
        if result.accepted:
            self.accepted += 1
            self.accepted_difficulty += result.difficulty
            self.accepted_difficulty_sq += result.difficulty**2
        else:
            _count(self.lost if lost else self.rejected, result.reason or "no reason given")
        return result

    def snapshot(self) -> ShareCounts:
        """The counters now."""
        ended = self.accepted + self.rejected.total() + self.lost.total()
        return ShareCounts(
            found=self.found,
            accepted=self.accepted,
            rejected=dict(self.rejected),
            lost=dict(self.lost),
            waiting=self.found - ended,
            unverified=self.unverified,
            accepted_difficulty=self.accepted_difficulty,
            accepted_difficulty_sq=self.accepted_difficulty_sq,
        )


def _count(counter: Counter[str], reason: str) -> None:
    """Count a reason, or "other reasons" once there are too many different ones."""
    text = reason[:80]
    known = text in counter or len(counter) < MAX_REASONS
    counter[text if known else "other reasons"] += 1
