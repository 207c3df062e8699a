"""A search kernel's own source, run by the CPU: one block of one thread that tries every nonce.

The text is the one that a GPU gets (see `kernel` for its signature), after a few lines that say
what CUDA's words mean here. What a CPU does better in another way, such as many lanes at once, an
algorithm's room does itself.
"""

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.hasher import SearchResult, Work, check_range, rolled
from wattshift_kernels.kernel import Job
from wattshift_kernels.native import library
from wattshift_kernels.verify import KernelWrong, confirmed

RING = 1024
"""Hits of one pass; a range with more is halved until they fit."""

COUNT_MOST = 2**31
"""Nonces of one pass: a tile is counted in 32 bits."""

BEFORE = """
struct ws_index { unsigned x, y, z; };
static const ws_index gridDim = {1, 1, 1}, blockDim = {1, 1, 1}, blockIdx = {0, 0, 0};
static const ws_index threadIdx = {0, 0, 0};
#define __global__
#define __device__
#define __shared__
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
static inline void __syncthreads() {}
static inline unsigned atomicAdd(unsigned* at, unsigned more) {
    unsigned was = *at;
    *at += more;
    return was;
}
"""

AFTER = """
template <typename Job>
static void ws_call(void (*search)(const Job, unsigned, unsigned long long, unsigned,
                                   const volatile unsigned*, unsigned*, unsigned, unsigned*,
                                   unsigned char*),
                    const void* job, unsigned start, unsigned long long count, unsigned* ring,
                    unsigned ring_size, unsigned* hits) {
    const volatile unsigned stop = 0;
    unsigned char ran = 0;
    search(*(const Job*)job, start, count, (unsigned)count, &stop, ring, ring_size, hits, &ran);
}
extern "C" void ws_host(const void* job, unsigned start, unsigned long long count, unsigned* ring,
                        unsigned ring_size, unsigned* hits) {
    ws_call(ws_search, job, start, count, ring, ring_size, hits);
}
"""
TYPES = (
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32,
    ctypes.c_void_p,
)  # fmt: skip


class NativeHasher(AtOnce):
    """A search on one CPU core. Threads may share it; the GIL is free while it searches.

    Attributes:
        algorithm, name, backend, launch_hashes: see `Hasher`.
    """

    backend = "native"

    def __init__(
        self,
        algorithm: str,
        source: str,
        job: Callable[[Work, int], Job],
        *,
        launch_hashes: int,
        flags: Sequence[str] = (),
        top_word_only: bool = False,
    ) -> None:
        """Compile it, or load what was compiled before.

        Args:
            source: with a `ws_search`, as one text.
            job: the struct for a work; its second argument, the address of a table, is 0.

        Raises:
            CompilerMissing, CompilerFailed, CacheUnsafe: see `native.library`.
        """
        self.algorithm = algorithm
        self.name = f"{algorithm}-native"
        self.launch_hashes = launch_hashes
        self._top_word_only = top_word_only
        self._job = job
        self._prepared: tuple[Work, Job] | None = None
        text = f"{BEFORE}\n{source}\n{AFTER}"
        self._library = library(algorithm, text, flags=flags)  # kept: it holds the function
        self._search = self._library.ws_host
        self._search.argtypes, self._search.restype = TYPES, None

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        if count > COUNT_MOST:
            return self._in_halves(work, nonce_start, count)
        ring = np.empty((RING, 2), dtype=np.uint32)
        hits = np.zeros(1, dtype=np.uint32)
        places = (ring.ctypes.data, RING, hits.ctypes.data)
        if count:
            self._search(self._job_of(work).ctypes.data, nonce_start, count, *places)
        found = int(hits[0])
        if found > RING:
            return self._in_halves(work, nonce_start, count)
        values = rolled(work.roll_mask)
        pairs = []
        for nonce, way in ring[:found].tolist():
            if way >= work.ways:
                raise KernelWrong(self.name, nonce)
            pairs.append((nonce, values[way]))
        good = confirmed(self.name, work, sorted(pairs), top_word_only=self._top_word_only)
        return SearchResult(good, count * work.ways)

    def _in_halves(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        half = count // 2
        first = self.search(work, nonce_start, half)
        second = self.search(work, nonce_start + half, count - half)
        return SearchResult(first.hits + second.hits, first.hashes + second.hashes)

    def _job_of(self, work: Work) -> Job:
        """The struct of a work, kept from one launch to the next."""
        prepared = self._prepared
        if prepared is None or prepared[0] is not work:
            prepared = self._prepared = (work, self._job(work, 0))
        return prepared[1]
