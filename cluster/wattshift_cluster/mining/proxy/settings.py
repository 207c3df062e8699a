"""Settings and limits of the proxy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattshift_cluster.mining.job import LEAST_DIFFICULTY, MOST_DIFFICULTY

MOST_SESSIONS = 60_000

LEAST_SHARES_PER_MINUTE = 10.0
"""With fewer, a minute without any is no evidence that the difficulty is too high."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How the proxy behaves.

    Attributes:
        max_sessions, max_per_address: connections at one time, in all and from one address.
        hold_s: how long miners keep the last job after the pool was lost; then all are hung up on,
            since nobody would pay for their work.
        per_worker: each miner's difficulty follows its own pace, at most the pool's; otherwise all
            have the pool's.
        start_difficulty, least_difficulty: at first, and the lowest that a miner may get.
        shares_per_minute: that each miner should report.
        workers: name that a miner logs in with → device that it is.
        only_known: refuse whoever is not among `workers`; otherwise everybody may work.
        handshake_s, idle_s: longest silence before and after authorization.
        max_unsent_bytes: of a miner that does not read; beyond it, it is hung up on.
    """

    max_sessions: int = 5_000
    max_per_address: int = 64
    hold_s: float = 30.0
    per_worker: bool = True
    start_difficulty: float = 65_536.0
    least_difficulty: float = 1.0
    shares_per_minute: float = 12.0
    workers: Mapping[str, str] = field(default_factory=dict)
    only_known: bool = False
    handshake_s: float = 30.0
    idle_s: float = 3600.0
    max_unsent_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        if not 1 <= self.max_sessions <= MOST_SESSIONS or self.max_per_address < 1:
            raise ValueError(f"sessions must be 1 to {MOST_SESSIONS}")
        if not LEAST_DIFFICULTY <= self.least_difficulty <= self.start_difficulty:
            raise ValueError("start_difficulty must be at least least_difficulty")
        if self.start_difficulty > MOST_DIFFICULTY:
            raise ValueError(f"start_difficulty is above {MOST_DIFFICULTY:g}")
        if not LEAST_SHARES_PER_MINUTE <= self.shares_per_minute <= 600:
            raise ValueError(f"shares_per_minute must be {LEAST_SHARES_PER_MINUTE:g} to 600")

    def device_of(self, name: str) -> str | None:
        """The device behind a login name; None where it is refused.

        Pools take what follows the first dot of `account.worker` as the worker, and so do we; the
        account before it is not looked at.
        """
        _, dot, worker = name.partition(".")
        short = worker if dot and worker else name
        for known in (name, short):
            if known in self.workers:
                return self.workers[known]
        return None if self.only_known else short
