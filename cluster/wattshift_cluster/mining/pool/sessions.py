"""What the pool remembers of a miner across its connections: extranonce, difficulty and jobs.

A miner that comes back in time and names its session gets the same extranonce1 and the same jobs
again, so the shares it found meanwhile are still good, and those it had sent before are known.
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from wattshift_cluster.mining.job import Extranonce
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.template import Template
from wattshift_cluster.mining.pool.vardiff import Vardiff
from wattshift_cluster.mining.pool.verdict import IssuedJob


@dataclass(slots=True)
class MinerSession:
    """One miner's session.

    Attributes:
        id: what the miner names to resume it; nobody else can guess it.
        extranonce: in force for the next job.
        difficulty: in force for the next job, which it goes out with.
        vardiff: None where the difficulty stays.
        least_difficulty: what the miner asked not to be undercut.
        asked_mask, mask: version bits that the miner can roll, and those that it may.
        issued: jobs sent to it.
    """

    id: str
    extranonce: Extranonce
    difficulty: float
    vardiff: Vardiff | None
    jobs_kept: int
    least_difficulty: float = 0.0
    asked_mask: int = 0
    mask: int = 0
    issued: OrderedDict[str, IssuedJob] = field(default_factory=OrderedDict)
    _revision: int = 0
    _shape: tuple[float, int, Extranonce] | None = None

    @classmethod
    def new(cls, extranonce: Extranonce, settings: PoolSettings, now_s: float) -> "MinerSession":
        """A session without jobs."""
        rate = settings.shares_per_minute
        bounds = (settings.least_difficulty, settings.most_difficulty)
        vardiff = None if rate is None else Vardiff(rate, *bounds, began_s=now_s)
        name = secrets.token_hex(8)
        return cls(name, extranonce, settings.difficulty, vardiff, settings.jobs_kept)

    def want(self, difficulty: float) -> None:
        """Set the difficulty of the next job, within the bounds of pool and miner."""
        bounded = difficulty if self.vardiff is None else self.vardiff.clamp(difficulty)
        self.difficulty = max(bounded, self.least_difficulty)

    def issue(self, template: Template, *, clean: bool) -> IssuedJob:
        """Make the next job of `template`; the same one again while nothing about it changed."""
        shape = (self.difficulty, self.mask, self.extranonce)
        if shape != self._shape:
            self._shape, self._revision = shape, self._revision + 1
        job = template.job(
            f"{template.number:x}.{self._revision:x}",
            extranonce=self.extranonce,
            difficulty=self.difficulty,
            mask=self.mask,
            clean=clean,
        )
        issued = self.issued[job.job_id] = IssuedJob(job, template)
        while len(self.issued) > self.jobs_kept:
            self.issued.popitem(last=False)
        return issued

    def remask(self, allowed: int, until_s: float) -> bool:
        """Put another mask in force at once, for jobs that are out, too; whether it is another one.

        Args:
            allowed: version bits that the pool allows.
            until_s: shares with bits of the old mask are credited until then, unix time, s.
        """
        mask = self.asked_mask & allowed
        if mask == self.mask:
            return False
        self.mask = mask
        for name, one in self.issued.items():
            job = replace(one.job, version_mask=mask)
            self.issued[name] = IssuedJob(job, one.template, one.job, until_s)
        self._shape = (self.difficulty, mask, self.extranonce)  # the same jobs, not others
        return True

    def valid(self) -> list[IssuedJob]:
        """Jobs that no newer chain tip voided, oldest first."""
        return [one for one in self.issued.values() if one.template.retired_s is None]


class SessionShelf:
    """Sessions whose connection ended, until they are resumed or too old."""

    def __init__(self, settings: PoolSettings) -> None:
        """Empty."""
        self._settings = settings
        self._left: OrderedDict[str, tuple[MinerSession, float]] = OrderedDict()

    def put(self, session: MinerSession, now_s: float) -> None:
        """Keep a session whose connection ended now; those of long ago are forgotten."""
        self._left[session.id] = (session, now_s)
        while self._left:
            name, (_, left_s) = next(iter(self._left.items()))
            old = now_s - left_s > self._settings.resume_s
            if not old and len(self._left) <= self._settings.sessions_kept:
                return
            del self._left[name]

    def take(self, name: str, now_s: float) -> MinerSession | None:
        """The session of that name, once; None when it is unknown or too old."""
        session, left_s = self._left.pop(name, (None, 0.0))
        return session if now_s - left_s <= self._settings.resume_s else None
