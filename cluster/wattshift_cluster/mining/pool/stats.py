"""What the pool counts: shares by user, outcome and reason, and the difficulty accepted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.mining.pool.verdict import Credit

MAX_USERS = 256


@dataclass(slots=True)
class Tally:
    """Counters of one user, or of all. `difficulty_sq` gives the spread of the hash estimate."""

    accepted: int = 0
    difficulty: float = 0.0
    difficulty_sq: float = 0.0
    best_difficulty: float = 0.0
    blocks: int = 0
    last_share_s: float | None = None
    rejected: Counter[str] = field(default_factory=Counter)

    def credit(self, credit: Credit, now_s: float) -> None:
        """Count an accepted share."""
        self.accepted += 1
        self.difficulty += credit.difficulty
        self.difficulty_sq += credit.difficulty**2
        self.best_difficulty = max(self.best_difficulty, credit.reached)
        self.blocks += credit.block
        self.last_share_s = now_s

    def view(self) -> dict[str, Any]:
        """For the status page; expected hashes are accepted_difficulty * 2^32."""
        return {
            "accepted": self.accepted,
            "rejected": self.rejected.total(),
            "rejected_by_reason": dict(self.rejected),
            "accepted_difficulty": self.difficulty,
            "accepted_difficulty_sq": self.difficulty_sq,
            "best_difficulty": self.best_difficulty,
            "blocks": self.blocks,
            "last_share_s": self.last_share_s,
        }


@dataclass(slots=True)
class PoolStats:
    """All users of a pool; beyond MAX_USERS new names share the entry "others"."""

    total: Tally = field(default_factory=Tally)
    users: dict[str, Tally] = field(default_factory=dict)

    def credit(self, credit: Credit, now_s: float) -> None:
        """Count an accepted share."""
        for tally in (self.total, self._user(credit.user)):
            tally.credit(credit, now_s)

    def reject(self, user: str | None, reason: str) -> None:
        """Count a refused share; `user` is None where nobody authorized sent it."""
        self.total.rejected[reason] += 1
        if user is not None:
            self._user(user).rejected[reason] += 1

    def _user(self, name: str) -> Tally:
        if name not in self.users and len(self.users) >= MAX_USERS:
            name = "others"
        return self.users.setdefault(name, Tally())
