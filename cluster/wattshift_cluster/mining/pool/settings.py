"""Settings and limits of the loopback pool."""

from dataclasses import dataclass

from wattshift_cluster.mining.job import LEAST_DIFFICULTY, MOST_DIFFICULTY


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How the pool behaves.

    Attributes:
        difficulty: offered until a miner suggests another; 1e-4 is about 430,000 hashes a share.
        seed: of the synthetic templates.
        job_every_s, clean_every_s: time between new jobs, and between new chain tips.
        grace_s: a share for a job voided this recently is credited: it was already on its way.
        extranonce2_size: bytes left to the miner.
        max_connections, jobs_kept: limits; an older job than the last `jobs_kept` is stale.
        handshake_s, idle_s: longest silence before and after authorization.
    """

    difficulty: float = 1e-4
    seed: int = 0
    job_every_s: float = 15.0
    clean_every_s: float = 120.0
    grace_s: float = 0.5
    extranonce2_size: int = 4
    max_connections: int = 64
    jobs_kept: int = 16
    handshake_s: float = 30.0
    idle_s: float = 3600.0

    def __post_init__(self) -> None:
        if not LEAST_DIFFICULTY <= self.difficulty <= MOST_DIFFICULTY:
            raise ValueError(f"difficulty {self.difficulty} is out of range")
        if not 1 <= self.extranonce2_size <= 8:
            raise ValueError("extranonce2_size must be 1 to 8 bytes")
        if self.job_every_s <= 0 or self.clean_every_s <= 0 or self.grace_s < 0:
            raise ValueError("job times must be positive")
        if self.jobs_kept < 1 or self.max_connections < 1:
            raise ValueError("limits must be at least 1")

    @property
    def extranonce_bytes(self) -> int:
        """extranonce1 (4 bytes, one value for each connection) and extranonce2 together."""
        return 4 + self.extranonce2_size
