"""What this GPU's memory allows Autolykos v2, measured: random rows read and nothing computed.

The benchmark holds the hash rate against it, measured in the same run and from the same table,
since reads that lie further apart are slower. It is the best of several numbers of rows under way.
"""

import statistics
from typing import Any

import numpy as np

from wattshift_kernels.autolykos2.job import job_of, source
from wattshift_kernels.hasher import Work
from wattshift_kernels.launches import Launcher

READS_PER_HASH = 33
"""The row that names the others, and these."""

UNDER_WAY = (4, 8, 16)
READS = 256
THREADS = 256
BLOCKS_PER_SM = 32
"""Of 256 threads each: some waves, so that how the last one ends does not count."""

TIMES = 7


def limit_h_per_s(hasher: Launcher, work: Work) -> float:
    """Hashes a second whose rows could be read, from the table that the hasher has for a work.

    Takes some tenths of a second of a device that does nothing else meanwhile. The table is ready.

    Raises:
        RuntimeError: of CUDA.
    """
    reads_per_s = max(_reads_per_s(hasher, work, under_way) for under_way in UNDER_WAY)
    return reads_per_s / READS_PER_HASH


def _reads_per_s(hasher: Launcher, work: Work, under_way: int) -> float:
    gpu = hasher.gpu
    flags = (f"-DWS_UNDER_WAY={under_way}", f"-DWS_READS={READS}")
    kernel = gpu.compiled(source("ceiling.cu"), "ws_search", options=flags)
    blocks = gpu.sms * BLOCKS_PER_SM
    threads = blocks * THREADS
    sums = gpu.take(4 * threads + 4 + blocks)
    hits, ran = sums + 4 * threads, sums + 4 * threads + 4
    job = job_of(work, hasher.table_address)

    def once(number: int) -> float:
        arguments = (
            job, np.uint32(number * threads), np.uint64(threads), np.uint32(THREADS),
            np.uint64(hasher.stop_address), np.uint64(sums), np.uint32(threads // 2),
            np.uint64(hits), np.uint64(ran),
        )  # fmt: skip
        return _timed_s(gpu, lambda: kernel((blocks,), (THREADS,), arguments))

    try:
        once(0)  # brings the code and wakes the clocks
        took_s = statistics.median(once(number) for number in range(1, TIMES + 1))
    finally:
        gpu.free(sums)
    return threads // 2 * READS / took_s


def _timed_s(gpu: Any, launch: Any) -> float:
    cuda = gpu.cupy.cuda
    began, ended = cuda.Event(), cuda.Event()
    with gpu.device, gpu.stream:
        began.record(gpu.stream)
        launch()
        ended.record(gpu.stream)
    ended.synchronize()
    return float(cuda.get_elapsed_time(began, ended)) / 1000
