"""What this GPU's memory allows Etchash, measured: copying, which reads and writes in order.

The benchmark holds the hash rate against it, measured in the same run. Pages of 128 bytes at random
cannot come faster than that; a search that waits for its memory alone comes near.
"""

import statistics

from wattshift_kernels.etchash import epochs
from wattshift_kernels.hasher import Work
from wattshift_kernels.launches import Launcher

BYTES_PER_HASH = 64 * epochs.PAGE_BYTES

COPY_BYTES = 1 << 30
"""Of the table, which is larger: many times what the L2 cache holds."""

COPIES = 4
TIMES = 7


def limit_h_per_s(hasher: Launcher, work: Work) -> float:
    """Hashes a second whose bytes could be copied; what is read and what is written both count.

    Takes some hundredths of a second of a device that does nothing else meanwhile, and COPY_BYTES
    of its memory. The table is ready.

    Raises:
        RuntimeError: of CUDA; there is no room for the copy, for one.
    """
    gpu = hasher.gpu
    size = min(COPY_BYTES, epochs.epoch_of(work.height).table_bytes)
    copy = gpu.take(size)
    cuda, runtime, stream = gpu.cupy.cuda, gpu.cupy.cuda.runtime, gpu.stream

    def once() -> float:
        began, ended = cuda.Event(), cuda.Event()
        with gpu.device, stream:
            began.record(stream)
            for _ in range(COPIES):
                runtime.memcpyAsync(
                    copy, hasher.table_address, size, runtime.memcpyDeviceToDevice, stream.ptr
                )
            ended.record(stream)
        ended.synchronize()
        return float(cuda.get_elapsed_time(began, ended)) / 1000

    try:
        once()  # wakes the clocks
        took_s = statistics.median(once() for _ in range(TIMES))
    finally:
        gpu.free(copy)
    return 2 * COPIES * size / took_s / BYTES_PER_HASH
