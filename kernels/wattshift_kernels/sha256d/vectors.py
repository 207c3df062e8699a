"""SHA-256d on the CPU by the host's compiler: the device's own rounds, sixteen nonces at a time.

A lane of a vector is a nonce; the compiler splits vectors that are longer than the machine's.
Measured on one core of an AVX-512 server: see docs/kernels.md.
"""

import ctypes
from importlib import resources

import numpy as np

from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.hasher import SearchResult, Work, check_range, rolled
from wattshift_kernels.kernel import Job
from wattshift_kernels.native import library
from wattshift_kernels.sha256d.precompute import job_of
from wattshift_kernels.sha256d.source import rounds
from wattshift_kernels.sha256d.variants import Variant
from wattshift_kernels.verify import confirmed

LANES = 16
FOUND_MAX = 1024
"""Candidates of one pass over the range; a fuller pass goes on where it stopped."""

ROUNDS = Variant(
    "lanes", "a CPU has one kind of pipe, and looks at the top word of any target",
    compare="top", turned=False,
)  # fmt: skip

SEARCH = """
// Tries nonces start + first to start + count - 1 and answers the offset that it reached, which is
// before the end when `found` might not take the hits of another step.
extern "C" unsigned long long ws_lanes(const WsJob* job, ws_u32 start, unsigned long long first,
                                       unsigned long long count, ws_u32* found, ws_u32 found_most,
                                       ws_u32* hits) {
    ws_w lane;
    for (ws_u32 i = 0; i < WS_LANES; ++i) lane[i] = i;
    ws_u32 written = 0;
    unsigned long long offset = first;
    for (; offset < count && written + WS_LANES * job->ways <= found_most; offset += WS_LANES) {
        const ws_w nonces = lane + (start + (ws_u32)offset);
        ws_w n = ws_swap(nonces);
        const ws_w passed = ws_try(*job, n);
        ws_u32 any = 0;
        for (ws_u32 i = 0; i < WS_LANES; ++i) any |= passed[i];
        if (!any) continue;
        for (ws_u32 i = 0; i < WS_LANES && offset + i < count; ++i)
            for (ws_u32 way = 0; way < job->ways; ++way)
                if (passed[i] >> way & 1u)
                    found[2 * written] = nonces[i], found[2 * written + 1] = way, ++written;
    }
    *hits = written;
    return offset < count ? offset : count;
}
"""
TYPES = (
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p,
    ctypes.c_uint32, ctypes.c_void_p,
)  # fmt: skip


class VectorHasher(AtOnce):
    """SHA-256d on one CPU core. Threads may share it; the GIL is free while it searches."""

    algorithm = "sha256d"
    name = f"sha256d-native-x{LANES}"
    backend = "native"
    launch_hashes = 16_384

    def __init__(self) -> None:
        """Compile it, or load what was. Raises what `native.library` does."""
        self._library = library("sha256d", text())  # kept: it holds the function
        self._search = self._library.ws_lanes
        self._search.argtypes, self._search.restype = TYPES, ctypes.c_uint64
        self._prepared: tuple[Work, Job] | None = None

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        job = self._job(work)
        most = min(FOUND_MAX, (count + LANES) * work.ways)
        found, hits = np.empty((most, 2), dtype=np.uint32), np.empty(1, dtype=np.uint32)
        values = rolled(work.roll_mask)
        candidates: list[tuple[int, int]] = []
        tried = 0
        while tried < count:
            tried = self._search(
                job.ctypes.data, nonce_start, tried, count, found.ctypes.data, most,
                hits.ctypes.data,
            )  # fmt: skip
            candidates += ((nonce, values[way]) for nonce, way in found[: hits[0]].tolist())
        good = confirmed(self.name, work, sorted(candidates), top_word_only=True)
        return SearchResult(good, tried * work.ways)

    def _job(self, work: Work) -> Job:
        """The struct of a work, kept from one launch to the next."""
        prepared = self._prepared
        if prepared is None or prepared[0] is not work:
            prepared = self._prepared = (work, job_of(work))
        return prepared[1]


def text() -> str:
    """The C++ that is compiled."""
    steps = (resources.files("wattshift_kernels.sha256d") / "sha256d.cuh").read_text("utf-8")
    return "\n".join((f"#define WS_LANES {LANES}", steps, rounds(ROUNDS), SEARCH))
