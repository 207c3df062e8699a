"""What each miner found, and what became of it.

Here found = accepted + rejected + lost + waiting, for every device and in all. A share that does
not meet the pool's target is accepted when our own check passes; one that does is accepted when the
pool says so. The accepted difficulty times 2^32 is the hashes expected behind the shares, whatever
difficulty each device has; `pool_difficulty` is the part that the pool itself has counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.verdict import Credit
from wattshift_cluster.mining.refusals import Kind
from wattshift_cluster.mining.shares import ShareResult

MAX_DEVICES = 10_000
OTHERS = "others"
"""Who comes when MAX_DEVICES names are known already is counted together under this one."""

MAX_REASONS = 16

KINDS = {
    lines.STALE: Kind.STALE,
    lines.DUPLICATE: Kind.DUPLICATE,
    lines.LOW_DIFFICULTY: Kind.LOW_DIFFICULTY,
    lines.UNAUTHORIZED: Kind.UNAUTHORISED,
    lines.NOT_SUBSCRIBED: Kind.UNAUTHORISED,
}
"""Error code of a share that we refuse → kind it is counted under; the rest is malformed."""


@dataclass(slots=True)
class Account:
    """Counters of one device, or of all.

    `wanted_difficulty` is the one that fitted its pace when it left; None: not known.
    """

    sessions: int = 0
    found: int = 0
    accepted: int = 0
    difficulty: float = 0.0
    difficulty_sq: float = 0.0
    forwarded: int = 0
    pool_accepted: int = 0
    pool_difficulty: float = 0.0
    best_difficulty: float = 0.0
    blocks: int = 0
    last_share_s: float | None = None
    wanted_difficulty: float | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def accept(self, difficulty: float) -> None:
        """A share counts with the difficulty that its device was given."""
        self.accepted += 1
        self.difficulty += difficulty
        self.difficulty_sq += difficulty**2

    def view(self) -> dict[str, Any]:
        """For the status page."""
        rejected, lost = self.rejected.total(), self.lost.total()
        return {
            "sessions": self.sessions,
            "found": self.found,
            "accepted": self.accepted,
            "rejected": rejected,
            "lost": lost,
            "waiting": self.found - self.accepted - rejected - lost,
            "rejected_by_reason": dict(self.rejected),
            "lost_by_reason": dict(self.lost),
            "accepted_difficulty": self.difficulty,
            "accepted_difficulty_sq": self.difficulty_sq,
            "forwarded": self.forwarded,
            "pool_accepted": self.pool_accepted,
            "pool_difficulty": self.pool_difficulty,
            "best_difficulty": self.best_difficulty,
            "blocks": self.blocks,
            "last_share_s": self.last_share_s,
        }


class Accounts:
    """The accounts of all devices. They outlive connections."""

    def __init__(self) -> None:
        """Nobody has worked yet."""
        self.total = Account()
        self.devices: dict[str, Account] = {}

    def of(self, device: str) -> Account:
        """A device's account, a new one at its first word."""
        if device not in self.devices and len(self.devices) >= MAX_DEVICES:
            device = OTHERS
        return self.devices.setdefault(device, Account())

    def refuse(self, device: str | None, code: int) -> None:
        """A share that our own check refused; `device` is None where nobody known sent it."""
        for account in self._both(device):
            account.found += 1
            account.rejected[str(KINDS.get(code, Kind.OTHER))] += 1

    def find(self, device: str, credit: Credit, now_s: float) -> None:
        """A valid share; what becomes of it is told later."""
        for account in self._both(device):
            account.found += 1
            account.best_difficulty = max(account.best_difficulty, credit.reached)
            account.blocks += credit.block
            account.last_share_s = now_s

    def keep(self, device: str, difficulty: float) -> None:
        """A valid share that is not the pool's: it counts here."""
        for account in self._both(device):
            account.accept(difficulty)

    def lose(self, device: str, reason: str) -> None:
        """A valid share that nobody will pay for."""
        for account in self._both(device):
            _count(account.lost, reason)

    def forward(self, device: str) -> None:
        """A share is on its way to the pool."""
        for account in self._both(device):
            account.forwarded += 1

    def settle(self, device: str, difficulty: float, result: ShareResult) -> None:
        """The pool's word on a share that was forwarded."""
        reason = result.reason or "no reason given"
        for account in self._both(device):
            if result.accepted:
                account.accept(difficulty)
                account.pool_accepted += 1
                account.pool_difficulty += result.difficulty
            elif result.kind is None:  # nobody refused it
                _count(account.lost, reason.removeprefix("lost: "))
            else:
                _count(account.rejected, f"pool: {result.kind or reason}")

    def _both(self, device: str | None) -> tuple[Account, ...]:
        return (self.total,) if device is None else (self.total, self.of(device))


def _count(counter: Counter[str], reason: str) -> None:
    known = reason in counter or len(counter) < MAX_REASONS
    counter[reason if known else "other reasons"] += 1
