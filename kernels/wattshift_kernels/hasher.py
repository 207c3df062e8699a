"""What every search for a nonce has in common: work in, verified hits and a hash count out.

A search is a launch: begun, perhaps queued on a device, and read when it is done. `stop` is for the
moment when somebody else wants the device: what has not begun there then ends at once, and says
which nonces it left.

Whatever the algorithm, a search counts 32 bits of the nonce; all else that is hashed is the work's
message. Its layout, by algorithm (the counted bits are never in it):

    sha256d      76 bytes of the header; the nonce is written little-endian behind them. The bits of
                 `roll_mask` are those of the version, the little-endian word that a header begins
                 with.
    autolykos2   msg (32 bytes), and the high 4 bytes of the nonce, which is 8 bytes big-endian.
    etchash      header hash (32 bytes), and the high 4 bytes of the nonce, big-endian; the nonce is
                 a number of 64 bits.
    kheavyhash   pre-PoW hash (32 bytes), time (8 bytes, little-endian), and the high 4 bytes of the
                 nonce, big-endian; the nonce is a number of 64 bits.
    blake3       the first 20 bytes of the nonce, the header blob, and 2 bytes: the groups that the
                 block goes from and to. The nonce's bytes 20 to 24 are counted, big-endian.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from wattshift_kernels.header import MAX_TARGET, NONCES

Range = tuple[int, int]
"""First nonce, and how many."""

MESSAGE_BYTES = {"sha256d": 76, "autolykos2": 36, "etchash": 36, "kheavyhash": 44}
"""Where all messages of an algorithm are equally long."""

MESSAGE_BYTES_MOST = 1024
"""Of any message; the longest known, Alephium's, has 324."""

HEIGHT_MOST = 2**32 - 1
ROLL_BITS_MOST = 4
"""Of a roll mask. Sixteen ways share what is done once per nonce; more would gain less than 1 %."""


class HasherFailed(Exception):
    """The device under a hasher is lost or in error; the text says what it reported."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is searched, but for the 32 bits that a search counts.

    Attributes:
        message: all that is hashed beside them; layouts above.
        target: largest hash value that counts, 1 to 2^256 - 1.
        algorithm: a name of `algorithms.ALGORITHMS`.
        height: block height, which says what table is read (autolykos2, etchash); 0 elsewhere.
        roll_mask: version bits of which every value is tried beside each nonce (sha256d), at most
            ROLL_BITS_MOST of them; 0 elsewhere.
    """

    message: bytes
    target: int
    algorithm: str = "sha256d"
    height: int = 0
    roll_mask: int = 0

    def __post_init__(self) -> None:
        wanted = MESSAGE_BYTES.get(self.algorithm)
        if wanted is not None and len(self.message) != wanted:
            raise ValueError(f"a message of {self.algorithm} has {wanted} bytes")
        if not 0 < len(self.message) <= MESSAGE_BYTES_MOST:
            raise ValueError(f"a message has 1 to {MESSAGE_BYTES_MOST} bytes")
        if not 0 < self.target <= MAX_TARGET:
            raise ValueError("a target lies between 1 and 2^256 - 1")
        if not 0 <= self.height <= HEIGHT_MOST:
            raise ValueError(f"a height lies between 0 and {HEIGHT_MOST}")
        if not 0 <= self.roll_mask < 2**32 or self.roll_mask.bit_count() > ROLL_BITS_MOST:
            raise ValueError(f"a roll mask has at most {ROLL_BITS_MOST} of 32 bits")
        if self.roll_mask and self.algorithm != "sha256d":
            raise ValueError(f"{self.algorithm} has no version bits to roll")

    @property
    def ways(self) -> int:
        """Hashes per nonce: values of the roll mask."""
        return 1 << self.roll_mask.bit_count()


def rolled(mask: int) -> tuple[int, ...]:
    """The values of a roll mask: number i has its bits in the mask's bits, lowest first.

    A kernel names the value of a hit by its place in here.
    """
    values = [0]
    while mask:
        bit = mask & -mask
        values += [value | bit for value in values]
        mask ^= bit
    return tuple(values)


@dataclass(frozen=True, slots=True)
class Hit:
    """A nonce whose hash does not exceed the target.

    Attributes:
        nonce: the 32 bits counted.
        digest: the algorithm's final hash.
        roll: the value of the roll mask's bits in the version that was hashed; 0 without a mask.
    """

    nonce: int
    digest: bytes
    roll: int = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, how many hashes it made, and which nonces a stop kept it from.

    `hashes` is `work.ways` times the nonces tried; those and the ranges of `left` make up the range
    that was asked for, exactly: no nonce is in both and none is in neither.
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
        """Wait for the end and read it, once. Every hit has been verified by another code.

        Raises:
            HasherFailed: the device broke.
            KernelWrong: it reported a nonce that is none.
        """
        ...


class Hasher(Protocol):
    """Searches nonce ranges of one algorithm.

    Some algorithms read a large table, which depends on the work's height. A launch that finds it
    not ready builds a slice of it instead, of about as much device time, and leaves its whole range
    over. So whoever drives launches behind a gate drives the building too.

    Attributes:
        algorithm: a name of `algorithms.ALGORITHMS`.
        launch_hashes: hashes that take roughly a millisecond, the size of one launch; of a work
            with several ways that is fewer nonces.
        depth: launches that may be under way at once; they are done in the order of their begin.
    """

    algorithm: str
    launch_hashes: int
    depth: int

    @property
    def backend(self) -> str:
        """One of "cuda", "native", "numba" and "reference"."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Kernels that are wrong or missing here, each with the reason; others did better."""
        ...

    @property
    def name(self) -> str:
        """The variant, for people and reports; another once a better one was found."""
        ...

    @property
    def progress(self) -> float:
        """Of the table for the work last begun, 0 to 1; 1 without a table."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Of the device that its buffers take; what a driver needs comes on top, unknown here."""
        ...

    @property
    def table_bytes(self) -> int:
        """Of these, the table takes; 0 without one, and once it is freed."""
        ...

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        """Begin to try `count` nonces from `nonce_start`; at most `depth` launches at once.

        Raises:
            ValueError: the range leaves 0 to 2^32 - 1.
            HasherFailed: the device broke, or its free memory does not hold the table.
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

    def free_table(self) -> None:
        """Free the table, if there is one; the next launch begins it anew. No launch is under way.

        Raises:
            HasherFailed: the device broke.
        """
        ...

    def close(self) -> None:
        """Give back everything on the device; the hasher is of no use afterwards. Repeatable."""
        ...


def check_range(nonce_start: int, count: int) -> None:
    """Raise ValueError unless the range lies within the 32 bits of a nonce."""
    if nonce_start < 0 or count < 0 or nonce_start + count > NONCES:
        raise ValueError(f"nonces {nonce_start} to {nonce_start + count} leave the 32-bit range")
