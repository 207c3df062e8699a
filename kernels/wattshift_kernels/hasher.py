"""What every search for a nonce has in common: work in, verified hits and a hash count out.

A search is a launch: begun, perhaps queued on a device, and read when it is done. `stop` is for the
moment when somebody else wants the device: what has not begun there then ends at once, and says
which nonces it left.
"""

from dataclasses import dataclass
from typing import Protocol

from wattshift_kernels.header import MAX_TARGET, NONCE_OFFSET, NONCES

Range = tuple[int, int]
"""First nonce, and how many."""


class HasherFailed(Exception):
    """The device under a hasher is lost or in error; the text says what it reported."""


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
    """What a search found, how many nonces it tried, and which ones a stop kept it from.

    The ranges of `left` and the `hashes` tried make up the range that was asked for, exactly: no
    nonce is in both and none is in neither.
    """

    hits: tuple[Hit, ...]
    hashes: int
    left: tuple[Range, ...] = ()


class Launch(Protocol):
    """A search that was begun."""

    @property
    def count(self) -> int:
        """Nonces it was asked to try."""
        ...

    @property
    def took_ns(self) -> int:
        """Time that it had the device, ns; known once `result` was read."""
        ...

    def done(self) -> bool:
        """Whether `result` would answer at once. Raises: HasherFailed."""
        ...

    def result(self) -> SearchResult:
        """Wait for the end and read it, once. Every hit has been verified with hashlib.

        Raises:
            HasherFailed: the device broke.
            KernelWrong: it reported a nonce that is none.
        """
        ...


class Hasher(Protocol):
    """Searches nonce ranges.

    Attributes:
        name: variant, for people and reports.
        backend: "cuda", "numba" or "reference".
        launch_hashes: hashes that take roughly a millisecond, the size of one launch.
        depth: launches that may be under way at once; they are done in the order of their begin.
    """

    name: str
    backend: str
    launch_hashes: int
    depth: int

    @property
    def memory_bytes(self) -> int:
        """Of the device that its buffers take; what a driver needs comes on top, unknown here."""
        ...

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        """Begin to try `count` nonces from `nonce_start`; at most `depth` launches at once.

        Raises:
            ValueError: the range leaves 0 to 2^32 - 1.
            HasherFailed: the device broke.
        """
        ...

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Begin, wait, read: the whole of a launch. Raises what these raise."""
        ...

    def stop(self) -> None:
        """From now on nothing that has not begun on the device tries a nonce. Never waits."""
        ...

    def resume(self) -> None:
        """End a stop. Every launch begun before it has been read: it would go on otherwise."""
        ...

    def close(self) -> None:
        """Give back everything on the device; the hasher is of no use afterwards. Repeatable."""
        ...


def check_range(nonce_start: int, count: int) -> None:
    """Raise ValueError unless the range lies within the 32 bits of a nonce."""
    if nonce_start < 0 or count < 0 or nonce_start + count > NONCES:
        raise ValueError(f"nonces {nonce_start} to {nonce_start + count} leave the 32-bit range")
