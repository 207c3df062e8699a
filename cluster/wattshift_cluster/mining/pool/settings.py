"""Settings and limits of the loopback pool."""

from dataclasses import dataclass

from wattshift_cluster.mining.job import LEAST_DIFFICULTY, MOST_DIFFICULTY

NBITS = 0x17034219
"""A target of the network's order of magnitude: no share here is ever a block."""


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
        shares_per_minute: what variable difficulty aims at for each connection; None leaves the
            difficulty as it is.
        least_difficulty, most_difficulty: bounds of the variable difficulty.
        resume_s: how long a session is remembered after its connection ended; 0 is not at all.
        sessions_kept: of these, at most; the oldest is forgotten first.
        silent_on_unknown: answer neither unknown methods nor mining.extranonce.subscribe, as ckpool
            does.
        nbits: the network's target in the templates; an easy one makes blocks of shares, for tests.
        algorithm: what is hashed. The pools of coins other than sha256d neither vary the difficulty
            nor resume sessions, and have no extranonce2.
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
    shares_per_minute: float | None = None
    least_difficulty: float = LEAST_DIFFICULTY
    most_difficulty: float = MOST_DIFFICULTY
    resume_s: float = 600.0
    sessions_kept: int = 1024
    silent_on_unknown: bool = False
    nbits: int = NBITS
    algorithm: str = "sha256d"

    def __post_init__(self) -> None:
        if not LEAST_DIFFICULTY <= self.difficulty <= MOST_DIFFICULTY:
            raise ValueError(f"difficulty {self.difficulty} is out of range")
        if not 0 <= self.extranonce2_size <= 8:
            raise ValueError("extranonce2_size must be 0 to 8 bytes")
        if self.job_every_s <= 0 or self.clean_every_s <= 0 or self.grace_s < 0:
            raise ValueError("job times must be positive")
        if self.jobs_kept < 1 or self.max_connections < 1 or self.sessions_kept < 1:
            raise ValueError("limits must be at least 1")
        if not LEAST_DIFFICULTY <= self.least_difficulty <= self.most_difficulty <= MOST_DIFFICULTY:
            raise ValueError("the bounds of the difficulty are out of range or in the wrong order")
        if self.shares_per_minute is not None and not 0 < self.shares_per_minute <= 6000:
            raise ValueError("shares_per_minute must be above 0 and at most 6000")
        if self.shares_per_minute is not None and self.algorithm != "sha256d":
            raise ValueError(f"the pool for {self.algorithm} does not vary its difficulty")
        if not self.resume_s >= 0:
            raise ValueError("resume_s must not be negative")

    @property
    def extranonce_bytes(self) -> int:
        """extranonce1 (4 bytes, one value for each session) and extranonce2 together."""
        return 4 + self.extranonce2_size
