"""What every search for a nonce has in common: work in, verified hits and a hash count out."""

from dataclasses import dataclass
from typing import Protocol

from wattshift_kernels.header import MAX_TARGET, NONCE_OFFSET, NONCES


@dataclass(frozen=True, slots=True)
class Work:
    """A header without its nonce, and the target that a hash must not exceed.

    Attributes:
        header76: first 76 bytes of the header.
        target: largest hash value that counts, 1 to 2^256 - 1.
    """

    header76: bytes
    target: int

    def __post_init__(self) -> None:
        if len(self.header76) != NONCE_OFFSET:
            raise ValueError(f"a header without nonce has {NONCE_OFFSET} bytes")
        if not 0 < self.target <= MAX_TARGET:
            raise ValueError("a target lies between 1 and 2^256 - 1")


@dataclass(frozen=True, slots=True)
class Hit:
    """A nonce whose hash does not exceed the target. `digest` is the 32-byte header hash."""

    nonce: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found and how many hashes it tried."""

    hits: tuple[Hit, ...]
    hashes: int


class Hasher(Protocol):
    """Searches nonce ranges.

    Attributes:
        name: variant, for people and reports.
        backend: "cuda", "numba" or "reference".
        launch_hashes: hashes that take roughly a millisecond, the size of one launch.
    """

    name: str
    backend: str
    launch_hashes: int

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces from `nonce_start`. Every hit has been verified with hashlib.

        Raises:
            ValueError: the range leaves 0 to 2^32 - 1.
        """
        ...


def check_range(nonce_start: int, count: int) -> None:
    """Raise ValueError unless the range lies within the 32 bits of a nonce."""
    if nonce_start < 0 or count < 0 or nonce_start + count > NONCES:
        raise ValueError(f"nonces {nonce_start} to {nonce_start + count} leave the 32-bit range")
