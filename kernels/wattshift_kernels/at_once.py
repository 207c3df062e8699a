"""Launches of a hasher that computes in the caller's own thread: done as soon as they are begun."""

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wattshift_kernels.hasher import Launch, SearchResult, Work, check_range, rolled
from wattshift_kernels.verify import hit_of


@dataclass(frozen=True, slots=True)
class Finished:
    """A launch that is over; see `Launch`."""

    count: int
    took_ns: int
    found: SearchResult

    def done(self) -> bool:
        """See `Launch`: always."""
        return True

    def result(self) -> SearchResult:
        """See `Launch`."""
        return self.found


class AtOnce:
    """What a hasher on the CPU needs beside its `search`; see `Hasher`."""

    depth = 1
    memory_bytes = 0
    table_bytes = 0
    progress = 1.0
    refused: Mapping[str, str] = MappingProxyType({})
    _stopped = False

    @abstractmethod
    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`."""

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        """Search now. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        if self._stopped:
            left = ((nonce_start, count),) if count else ()
            return Finished(count, 0, SearchResult((), 0, left))
        began_ns = time.perf_counter_ns()
        found = self.search(work, nonce_start, count)
        return Finished(count, time.perf_counter_ns() - began_ns, found)

    def stop(self) -> None:
        """See `Hasher`."""
        self._stopped = True

    def resume(self) -> None:
        """See `Hasher`."""
        self._stopped = False

    def free_table(self) -> None:
        """See `Hasher`: there is none on a device."""

    def close(self) -> None:
        """See `Hasher`: there is nothing on a device."""


class PlainHasher(AtOnce):
    """The slow search that is right by construction: the algorithm's own `digest` on every nonce.

    Attributes:
        algorithm, name, backend, launch_hashes: see `Hasher`.
    """

    backend = "reference"

    def __init__(self, algorithm: str, launch_hashes: int) -> None:
        """Args: launch_hashes: as many as take roughly a millisecond."""
        self.algorithm = algorithm
        self.name = f"{algorithm}-reference"
        self.launch_hashes = launch_hashes

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        found = (
            hit_of(work, nonce, roll)
            for nonce in range(nonce_start, nonce_start + count)
            for roll in rolled(work.roll_mask)
        )
        return SearchResult(tuple(hit for hit in found if hit is not None), count * work.ways)
