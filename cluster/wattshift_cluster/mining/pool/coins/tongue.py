"""What a loopback pool of a coin says and hears; each coin is one class of this shape."""

import random
from dataclasses import dataclass, field
from typing import Any, Protocol

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_kernels.hasher import Work

Notice = tuple[str, list[Any]]
"""A notification: method and parameters."""


@dataclass(slots=True)
class CoinTemplate:
    """What a block template is to a miner of such a coin.

    Attributes:
        number: of this template; its job id is made of it.
        header: what is hashed in front of the nonce, or behind it.
        height: of the block.
        time_ms: unix time, where a header has one.
        groups: the chain, where there are several.
        clean: it voids all before it.
        retired_s: when another one voided it; None while it may be mined.
        credited: nonces of credited shares, against duplicates.
    """

    number: int
    header: bytes
    height: int
    time_ms: int
    groups: tuple[int, int]
    clean: bool
    retired_s: float | None = None
    credited: set[bytes] = field(default_factory=set)

    @property
    def job_id(self) -> str:
        """As it goes to miners."""
        return str(self.number)


@dataclass(frozen=True, slots=True)
class Solution:
    """A share as it was read: the whole nonce, and the proof that some forms carry."""

    user: str
    job_id: str
    nonce: bytes
    proof: bytes | None = None


class Tongue(Protocol):
    """One coin's pool, in words.

    Attributes:
        algorithm: of `wattshift_kernels.algorithms`.
        nonce_bytes, prefix_bytes: of a nonce, and those that the pool fixes.
        header_bytes: of a template's header.
        chains: of so many hashes that meet the target, one is good.
    """

    algorithm: str
    nonce_bytes: int
    prefix_bytes: int
    header_bytes: int
    chains: int

    def subscribed(self, prefix: bytes, session: str) -> Any:
        """The answer to mining.subscribe."""
        ...

    def greeting(self, prefix: bytes) -> list[Notice]:
        """What follows a login, before the first job."""
        ...

    def moved(self, prefix: bytes) -> list[Notice]:
        """Another prefix from the next job on."""
        ...

    def work(self, template: CoinTemplate, target: int, difficulty: float) -> list[Notice]:
        """What tells a job."""
        ...

    def solution(self, params: list[Any], prefix: bytes) -> Solution:
        """Read a mining.submit. Raises: ShareRefused."""
        ...

    def hashed(self, template: CoinTemplate, nonce: bytes, target: int) -> Work:
        """What a share's nonce has to solve."""
        ...

    def code(self, code: int) -> int:
        """A code of Bitcoin's pools as this coin's pools number it."""
        ...


class Words:
    """What most coins have in common."""

    nonce_bytes = 8
    prefix_bytes = 2
    header_bytes = 32
    chains = 1

    def greeting(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return []

    def moved(self, prefix: bytes) -> list[Notice]:
        """See `Tongue`."""
        return [("mining.set_extranonce", [prefix.hex()])]

    def code(self, code: int) -> int:
        """See `Tongue`."""
        return code


def bytes_of(value: Any, size: int, name: str) -> bytes:
    """Hexadecimal of just that many bytes. Raises: ShareRefused."""
    if isinstance(value, str) and len(value) == 2 * size:
        digits = value.lower()
        if not set(digits) - set("0123456789abcdef"):
            return bytes.fromhex(digits)
    raise ShareRefused(lines.MALFORMED, f"Malformed {name}")


def texts(params: list[Any], count: int) -> list[str]:
    """Parameters that are so many texts. Raises: ShareRefused."""
    if len(params) != count or not all(isinstance(one, str) for one in params):
        raise ShareRefused(lines.MALFORMED, f"Not {count} texts")
    return params


class Templates:
    """Makes templates; the same seed gives the same sequence."""

    def __init__(self, tongue: Tongue, seed: int, height: int) -> None:
        """Args: height: of the first block."""
        self._tongue = tongue
        self._rng = random.Random(seed)
        self._height = height
        self._number = 0

    def next(self, now_s: float, *, clean: bool) -> CoinTemplate:
        """The next one; a clean one is of a new block."""
        self._height += clean and self._number > 0
        self._number += 1
        return CoinTemplate(
            number=self._number,
            header=self._rng.randbytes(self._tongue.header_bytes),
            height=self._height,
            time_ms=int(now_s * 1000),
            groups=(self._rng.randrange(4), self._rng.randrange(4)),
            clean=clean,
        )
