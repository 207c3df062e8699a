"""What the feeds of all coins share in which the pool fixes the first bytes of the nonce.

A new extranonce or difficulty holds from the next job on. Where a pool may tell the first one after
the first job, or never, the coin's own feed says which.
"""

from abc import ABC, abstractmethod
from typing import Any

from wattshift_cluster.mining.job import Extranonce, JobFault, parse_difficulty, parse_hex
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_kernels.header import target_of_difficulty

MOST_TARGET_DIGITS = 80
"""Of a decimal target; 2^256 has 78."""


class NonceFeed(ABC):
    """One connection of such a coin; see `dialect.Feed`."""

    algorithm: str
    nonce_bytes = 8
    methods = frozenset({"mining.notify", "mining.set_difficulty", "mining.set_extranonce"})

    def __init__(self, number: int = 0) -> None:
        """Args: number: of the connection, stamped on its jobs."""
        self.extranonce: Extranonce | None = None
        self.session_id: str | None = None
        self.difficulty = 1.0
        self.number = number
        self._early: list[Any] | None = None

    def configured(self, result: Any) -> frozenset[str]:
        """Nobody asks."""
        return frozenset()

    def subscribed(self, result: Any) -> NonceJob | None:
        """Of most of these coins the answer says nothing."""
        return None

    def told(self, method: str, params: list[Any]) -> NonceJob | None:
        """See `dialect.Feed`. Raises: JobFault."""
        match method:
            case "mining.notify":
                if self.extranonce is None:
                    self._early = params
                    return None
                return self.job(params, self.extranonce.extranonce1)
            case "mining.set_difficulty":
                self.difficulty = parse_difficulty(params[0] if params else None)
            case "mining.set_extranonce" | "set_extranonce":
                first = self.extranonce is None
                self.extranonce = self.prefixed(params[0] if params else None)
                if first:
                    return self.take_early()
        return None

    @abstractmethod
    def job(self, params: list[Any], prefix: bytes) -> NonceJob:
        """The job of a mining.notify. Raises: JobFault."""

    def take_early(self) -> NonceJob | None:
        """The job that had come before the extranonce, if one had. Raises: JobFault."""
        early, self._early = self._early, None
        return None if early is None else self.told("mining.notify", early)

    def prefixed(self, value: Any) -> Extranonce:
        """The first bytes of the nonce, as the pool writes them. Raises: JobFault."""
        prefix = parse_hex(value, "extranonce", self.nonce_bytes - 1)
        return Extranonce(prefix, self.nonce_bytes - len(prefix))

    def target(self) -> int:
        """Of the difficulty in force, as Bitcoin counts it."""
        return target_of_difficulty(self.difficulty)


def parse_word(value: Any, name: str, most: int) -> int:
    """A number from 0 to `most`, or its decimal text. Raises: JobFault."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value) if len(value) <= MOST_TARGET_DIGITS else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise JobFault(f"{name} is not a number within 0 to {most:#x}")
    return value


def at_least(params: list[Any], count: int) -> list[Any]:
    """The parameters of a notify that has that many. Raises: JobFault."""
    if len(params) < count:
        raise JobFault(f"notify has {len(params)} parameters instead of {count}")
    return params
