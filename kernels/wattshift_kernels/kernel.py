"""What a GPU's kernels are to those who launch them, whatever they compute.

A search kernel is queued with, and a build kernel (of a table, where there is one) likewise:

    ws_search(Job job, u32 start, u64 count, u32 tile, const volatile u32* stop,
              u32* ring, u32 ring_size, u32* hits, u8* ran)
    ws_build(Job job, u64 first, u64 count, u32 tile, const volatile u32* stop, u8* ran)

`job` is a struct by value. Block b tries nonces start + b * tile and on, or builds rows first +
b * tile and on, `tile` of them and none beyond `count`. It reads `stop`, in the host's memory, once
at its entry: when the word is not 0 it ends at once, else it sets ran[b] and goes through its whole
tile. A hit takes its place from `hits`, which counts also those that no longer fit, and writes two
words to the ring: the nonce, and the way, its version's place in `hasher.rolled`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wattshift_kernels.hasher import Work
from wattshift_kernels.tables import Slice

Job = npt.NDArray[Any]
"""A struct: an array of exactly one element, since that is what CuPy passes by value."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kernel's work is cut into blocks.

    Attributes:
        threads: per block; 256 leaves the scheduler 3 blocks per SM at 80 registers.
        hashes_per_thread: so that a block lasts about 100 us; at least one nonce whatever it says.
    """

    threads: int = 256
    hashes_per_thread: int = 4

    def tile(self, count: int, ways: int, blocks_most: int) -> int:
        """Nonces of one block of a launch of `count`; more only where blocks would be too many."""
        nonces = max(1, self.hashes_per_thread // ways)
        return max(self.threads * nonces, -(-count // blocks_most))


def any_work(_work: Work) -> bool:
    """Said of a kernel that finds every hit of every work of its algorithm."""
    return True


@dataclass(frozen=True, slots=True)
class Kernel:
    """A search kernel, compiled.

    Attributes:
        name: for people and reports.
        function: what CuPy launches.
        job: the struct for a work and the address of its table, 0 where there is none.
        top_word_only: it looks at the top 32 bits of the hash alone.
        serves: whether it finds every hit of a work.
    """

    name: str
    function: Any
    job: Callable[[Work, int], Job]
    shape: Shape = Shape()
    top_word_only: bool = False
    serves: Callable[[Work], bool] = any_work


class Choice(Protocol):
    """Says which kernel a launch takes."""

    @property
    def name(self) -> str:
        """The variant in use, for people."""
        ...

    def pick(self, work: Work) -> Kernel:
        """For the next launch."""
        ...

    def took(self, work: Work, kernel: Kernel, hashes: int, took_ns: int) -> None:
        """A launch was read that no stop had cut short."""
        ...


class Only:
    """The choice where there is one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        """Take it."""
        self.name = kernel.name
        self._kernel = kernel

    def pick(self, work: Work) -> Kernel:
        """See `Choice`."""
        return self._kernel

    def took(self, work: Work, kernel: Kernel, hashes: int, took_ns: int) -> None:
        """See `Choice`: nothing is to be learnt."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a slice of a table is built: inside a launch.

    Attributes:
        stream: the pointer of the stream, which is current.
        stop_address: of the stop word, for the device.
        ran_address: of a byte per block, cleared.
        blocks_most: bytes there.
    """

    stream: int
    stop_address: int
    ran_address: int
    blocks_most: int


Builder = Callable[[Slice, Spot], int]
"""Builds a slice, or queues that; answers how many blocks have to say in `ran` that they ran. What
is built on the host before it returns has none."""


def building(
    function: Any, job: Callable[[Slice], Job], *, threads: int = 256, rows_per_thread: int = 1
) -> Builder:
    """The builder that launches a `ws_build`.

    Args:
        function: the kernel, compiled.
        job: its struct for a slice.
    """

    def build(piece: Slice, spot: Spot) -> int:
        tile = max(threads * rows_per_thread, -(-piece.count // spot.blocks_most))
        blocks = -(-piece.count // tile)
        arguments = (
            job(piece), np.uint64(piece.first), np.uint64(piece.count), np.uint32(tile),
            np.uint64(spot.stop_address), np.uint64(spot.ran_address),
        )  # fmt: skip
        function((blocks,), (threads,), arguments)
        return blocks

    return build
