"""A made-up algorithm with a table, for tests of what builds tables on any GPU.

Row j of height h holds j * j + h. The search reports every nonce whose row holds that, so a nonce
that is not found has met a row that was not built, or one of another height.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from wattshift_kernels.gpu import Gpu
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Builder, Kernel, Only, Shape, building
from wattshift_kernels.launches import Launcher, Limits
from wattshift_kernels.tables import Plan, SlicedTable, Stage

ROWS, SLICE = 1000, 300
SOURCE = """
typedef unsigned long long u64;
struct Job { u64 table; unsigned height, rows; };
extern "C" __global__ void ws_build(const Job job, const u64 first, const u64 count,
                                    const unsigned tile, const volatile unsigned* stop,
                                    unsigned char* ran) {
    __shared__ unsigned stopped;
    if (threadIdx.x == 0) { stopped = *stop; if (!stopped) ran[blockIdx.x] = 1; }
    __syncthreads();
    if (stopped) return;
    const u64 from = (u64)blockIdx.x * tile;
    const u64 end = from + tile < count ? from + tile : count;
    for (u64 i = from + threadIdx.x; i < end; i += blockDim.x)
        ((u64*)job.table)[first + i] = (first + i) * (first + i) + job.height;
}
extern "C" __global__ void ws_search(const Job job, const unsigned start, const u64 count,
                                     const unsigned tile, const volatile unsigned* stop,
                                     unsigned* ring, const unsigned ring_size, unsigned* hits,
                                     unsigned char* ran) {
    __shared__ unsigned stopped;
    if (threadIdx.x == 0) { stopped = *stop; if (!stopped) ran[blockIdx.x] = 1; }
    __syncthreads();
    if (stopped) return;
    const u64 from = (u64)blockIdx.x * tile;
    const u64 end = from + tile < count ? from + tile : count;
    for (u64 i = from + threadIdx.x; i < end; i += blockDim.x) {
        const unsigned nonce = start + (unsigned)i;
        const u64 j = nonce % job.rows;
        if (((const u64*)job.table)[j] != j * j + job.height) continue;
        const unsigned at = atomicAdd(hits, 1u);
        if (at < ring_size) ring[2 * at] = nonce, ring[2 * at + 1] = 0;
    }
}
"""
JOB = np.dtype([("table", "<u8"), ("height", "<u4"), ("rows", "<u4")])


def work(height: int) -> Work:
    """Each of its nonces is a hit to the reference."""
    return Work(bytes(76), 2**256 - 1, height=height)


def plan(height: int) -> Plan:
    return Plan(height, 8 * ROWS, (Stage(ROWS, SLICE),))


def struct(address: int, height: int) -> Any:
    job = np.zeros(1, dtype=JOB)
    job["table"], job["height"], job["rows"] = address, height, ROWS
    return job


def launcher(
    plan_of: Callable[[int], Plan] = plan, wrap: Callable[[Builder], Builder] = lambda one: one
) -> Launcher:
    gpu = Gpu()
    search = gpu.compiled(SOURCE, "ws_search")
    build = building(
        gpu.compiled(SOURCE, "ws_build"),
        lambda piece: struct(piece.address, piece.plan.key),
        threads=32,
        rows_per_thread=2,
    )
    kernel = Kernel(
        "made-up", search, lambda work, address: struct(address, work.height), Shape(32, 2)
    )
    return Launcher(
        gpu,
        "sha256d",
        Only(kernel),
        hashes_per_sm=500,
        table=SlicedTable(plan_of, gpu),
        builder=wrap(build),
        limits=Limits(ring=2048),
    )
