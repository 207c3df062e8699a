"""Counting shares: found = accepted + rejected + lost + waiting, each with a reason.

Nothing found may vanish (invariant I5): a share that was never answered, or whose session ended, is
lost with that reason. Counters live in the client, not in a connection, so reconnecting keeps them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from wattshift_cluster.mining.refusals import Kind

R = TypeVar("R", bound=str)
MAX_REASONS = 32
"""Reasons counted apart; a pool that invents texts must not grow our memory."""


@dataclass(frozen=True, slots=True)
class ShareResult:
    """What became of one share.

    Attributes:
        accepted: the pool said true, or that it has this share already after a reconnect.
        reason: why not, in the pool's words ("23 Above target") or ours ("lost: disconnected").
        difficulty: that of its job.
        kind: of the refusal; None where the pool refused nothing.
    """

    accepted: bool
    reason: str | None
    difficulty: float
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class ShareCounts:
    """Counters at one moment. `unverified` hits failed our own check: never sent, never found.

    Attributes:
        rejected, lost: by reason, in the pool's words and in ours.
        rejected_kinds: the same refusals by kind.
        resubmitted: shares that were sent again because a connection ended under them.
        known_already: those of them that the pool called duplicates, which counts as accepted.
    """

    found: int
    accepted: int
    rejected: Mapping[str, int]
    lost: Mapping[str, int]
    waiting: int
    unverified: int
    accepted_difficulty: float
    accepted_difficulty_sq: float
    rejected_kinds: Mapping[Kind, int] = field(default_factory=dict)
    resubmitted: int = 0
    known_already: int = 0

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

    `waiting` is counted by itself and not as what is left of the sum, so that a share that is
    settled twice, or never, shows.
    """

    found: int = 0
    waiting: int = 0
    accepted: int = 0
    unverified: int = 0
    resubmitted: int = 0
    known_already: int = 0
    accepted_difficulty: float = 0.0
    accepted_difficulty_sq: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_kinds: Counter[Kind] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def find(self) -> None:
        """A share was found; `settle` follows once."""
        self.found += 1
        self.waiting += 1

    def settle(self, result: ShareResult, *, lost: bool = False) -> ShareResult:
        """Book the end of a share that was counted as found, and hand the result through."""
        self.waiting -= 1
        if result.accepted:
            self.accepted += 1
            self.accepted_difficulty += result.difficulty
            self.accepted_difficulty_sq += result.difficulty**2
            return result
        _count(self.lost if lost else self.rejected, result.reason or "no reason given")
        if not lost:
            self.rejected_kinds[result.kind or Kind.OTHER] += 1
        return result

    def snapshot(self) -> ShareCounts:
        """The counters now."""
        return ShareCounts(
            found=self.found,
            accepted=self.accepted,
            rejected=dict(self.rejected),
            lost=dict(self.lost),
            waiting=self.waiting,
            unverified=self.unverified,
            accepted_difficulty=self.accepted_difficulty,
            accepted_difficulty_sq=self.accepted_difficulty_sq,
            rejected_kinds=dict(self.rejected_kinds),
            resubmitted=self.resubmitted,
            known_already=self.known_already,
        )


def added(counts: Iterable[ShareCounts]) -> ShareCounts:
    """The sum over several pools."""
    each = list(counts)
    return ShareCounts(
        found=sum(one.found for one in each),
        accepted=sum(one.accepted for one in each),
        rejected=_merged(one.rejected for one in each),
        lost=_merged(one.lost for one in each),
        waiting=sum(one.waiting for one in each),
        unverified=sum(one.unverified for one in each),
        accepted_difficulty=sum(one.accepted_difficulty for one in each),
        accepted_difficulty_sq=sum(one.accepted_difficulty_sq for one in each),
        rejected_kinds=_merged(one.rejected_kinds for one in each),
        resubmitted=sum(one.resubmitted for one in each),
        known_already=sum(one.known_already for one in each),
    )


def _merged(maps: Iterable[Mapping[R, int]]) -> dict[R, int]:
    total: Counter[R] = Counter()
    for one in maps:
        total.update(one)
    return dict(total)


def _count(counter: Counter[str], reason: str) -> None:
    """Count a reason, or "other reasons" once there are too many different ones."""
    text = reason[:80]
    known = text in counter or len(counter) < MAX_REASONS
    counter[text if known else "other reasons"] += 1
