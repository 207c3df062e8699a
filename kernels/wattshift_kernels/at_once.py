"""Launches of a hasher that computes in the caller's own thread: done as soon as they are begun."""

import time
from abc import abstractmethod
from dataclasses import dataclass

from wattshift_kernels.hasher import Launch, SearchResult, Work, check_range


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
    _stopped = False

    @abstractmethod
    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`."""

    def begin(self, work: Work, nonce_start: int, count: int) -> Launch:
        """Search now. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        if self._stopped:
            return Finished(count, 0, SearchResult((), 0, ((nonce_start, count),)))
        began_ns = time.perf_counter_ns()
        found = self.search(work, nonce_start, count)
        return Finished(count, time.perf_counter_ns() - began_ns, found)

    def stop(self) -> None:
        """See `Hasher`."""
        self._stopped = True

    def resume(self) -> None:
        """See `Hasher`."""
        self._stopped = False

    def close(self) -> None:
        """See `Hasher`: there is nothing on a device."""
