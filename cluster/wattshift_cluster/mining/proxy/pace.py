"""The difficulty of one connection: what fits its miner, and which job was told under which.

Never more than the pool's: a share that meets the pool's target is paid, and must not be kept back.
Below it, shares are checked and counted here, and only those that the pool would take are passed
on. A new difficulty holds from the next job on.
"""

from wattshift_cluster.mining.job import MOST_DIFFICULTY
from wattshift_cluster.mining.pool.vardiff import Vardiff
from wattshift_cluster.mining.proxy.settings import ProxySettings

MAX_SHARES_PER_JOB, FLOOD_FACTOR = 5_000, 64.0
"""A miner with more is far too fast for its difficulty. That changes with a job alone, so the miner
is hung up on, and starts with one so much higher when it is back."""


class Pace:
    """See the module.

    Attributes:
        wanted: difficulty that fits the miner, before the pool's own is taken into account.
        floor: lowest that it may get.
    """

    def __init__(self, settings: ProxySettings) -> None:
        """At the start difficulty."""
        self.wanted = settings.start_difficulty
        self.floor = settings.least_difficulty
        self._settings = settings
        self._vardiff: Vardiff | None = None
        self._suggested = False
        self._told: list[tuple[int, float]] = []
        self._shares, self._most = 0, MOST_DIFFICULTY

    @property
    def flooded(self) -> bool:
        """Whether more shares came for one job than is sane; the next difficulty is higher then."""
        if self._shares < MAX_SHARES_PER_JOB:
            return False
        self.wanted *= FLOOD_FACTOR
        return True

    def suggest(self, difficulty: float) -> None:
        """The miner asks for this one; what was counted before means nothing any more."""
        self.wanted, self._suggested = max(difficulty, self.floor), True
        self._vardiff = None

    def remember(self, difficulty: float | None) -> None:
        """What fitted the same device when it was here before; its own word goes first."""
        if difficulty is not None and not self._suggested and not self._told:
            self.wanted = max(difficulty, self.floor)

    def raise_floor(self, difficulty: float) -> None:
        """The miner wants no less than this."""
        self.floor = max(difficulty, self._settings.least_difficulty)
        self.wanted = max(self.wanted, self.floor)

    def credited(self) -> None:
        """A share of it was valid."""
        self._shares += 1
        if self._vardiff is not None:
            self._vardiff.credited()

    def for_job(self, number: int, most: float, oldest: int) -> float | None:
        """The difficulty to be told before a job; None: the one in force goes on.

        Args:
            number: of the job.
            most: the pool's difficulty for it.
            oldest: number of the oldest job that may still be submitted for.
        """
        self._shares, self._most = 0, most
        difficulty = min(self.wanted, most) if self._settings.per_worker else most
        told = self._told
        if told and told[-1][1] == difficulty:
            return None
        while len(told) > 1 and told[1][0] <= oldest:
            del told[0]
        told.append((number, difficulty))
        return difficulty

    def review(self, now_s: float) -> None:
        """Decide, between jobs, what the next one's difficulty should be.

        Args:
            now_s: of a clock that only runs forward, s.
        """
        if not self._settings.per_worker or not self._told:
            return
        if self._vardiff is None:
            per_minute = self._settings.shares_per_minute
            self._vardiff = Vardiff(per_minute, self.floor, MOST_DIFFICULTY, now_s)
        self._vardiff.least_difficulty = self.floor
        in_force = min(self.wanted, self._most)
        wanted = self._vardiff.retarget(in_force, now_s)
        if wanted != in_force:
            self.wanted = wanted

    def of(self, number: int) -> float:
        """The difficulty that was in force when this job was told."""
        told = (difficulty for job, difficulty in reversed(self._told) if job <= number)
        return next(told, self._told[0][1])
