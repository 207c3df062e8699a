"""Etchash on the CPU, for tests and demos: every row of the table is made when it is needed.

The cache that rows are made from is there first: launches make it in steps, as a GPU's launches
build a table, and leave their ranges over meanwhile.
"""

from wattshift_kernels.etchash import epochs
from wattshift_kernels.etchash.job import job_of, source
from wattshift_kernels.etchash.light import Light, light
from wattshift_kernels.hasher import SearchResult, Work, check_range
from wattshift_kernels.kernel import Job
from wattshift_kernels.native_search import NativeHasher

LAUNCH_HASHES = 4
"""One turn of the search, some milliseconds: about 600 hashes a second on one core."""


class CpuHasher(NativeHasher):
    """Etchash on one CPU core. Not for several threads."""

    def __init__(self) -> None:
        """Compile it, or load what was compiled before; see `NativeHasher` for what it raises."""
        self._cache: Light | None = None
        super().__init__(
            "etchash", source("search.cpp"), self._with_cache, launch_hashes=LAUNCH_HASHES
        )

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`: without the cache, some steps of making it instead."""
        check_range(nonce_start, count)
        epoch = epochs.epoch_of(work.height)
        if self._cache is None or self._cache.epoch != epoch:
            self._cache = light(epoch)
            self._prepared = None  # it has the address of the one before
        if not self._cache.ready:
            self._cache.advance()
            self.progress = self._cache.taken / self._cache.steps
            return SearchResult((), 0, ((nonce_start, count),) if count else ())
        self.progress = 1.0
        return super().search(work, nonce_start, count)

    def _with_cache(self, work: Work, _table: int) -> Job:
        assert self._cache is not None
        return job_of(work, 0, self._cache.words.ctypes.data)
