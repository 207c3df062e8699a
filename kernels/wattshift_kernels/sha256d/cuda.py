"""SHA-256d on a GPU: two launches in flight, each in short blocks that a stop word ends.

Nothing preempts a block that runs, so a device is free again when its resident blocks have ended;
how long these last is what a request for inference may wait for. So a launch is many short blocks,
queued behind each other, and none that lives through the whole launch (modelled for 132 SMs at 6
GH/s with 768 resident threads each, and 2 us to read the stop word over the bus; not measured):

    nonces per thread    blocks of a launch    a block lasts    the read costs at most
    1                    16,896                  17 us          12 %
    4                     4,224                  68 us           3 %
    43, no queue            396                 720 us           0.3 %

Four it is: the third row is as slow to stop as a launch is long, the first pays too much for it.
"""

import threading
from collections import deque
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from wattshift_kernels.gpu import Gpu, GpuMissing
from wattshift_kernels.hasher import (
    HasherFailed,
    Range,
    SearchResult,
    Work,
    check_range,
)
from wattshift_kernels.sha256d.midstate import midstate, tail, target_words
from wattshift_kernels.verify import confirmed

__all__ = ["CudaHasher", "GpuMissing", "Grid", "job_of", "source"]

DEPTH = 2
"""Launches in flight: the device has the next one while the host reads the last one."""

STOP_BYTES = 128
"""The stop word has a cache line of its own."""

WORD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Launch constants, with the reason for each.

    Attributes:
        threads: per block; 256 leaves the scheduler 3 blocks per SM at 80 registers.
        nonces_per_thread: see the table above; more only when `blocks_most` would be exceeded.
        blocks_most: of a launch; each has a byte in the result. Holds 0.7 ms of any card known.
        ring: hits of one launch that can be kept; a share target hits far less often.
        hashes_per_sm: of one launch; about 0.7 ms on any card since sm_80.
    """

    threads: int = 256
    nonces_per_thread: int = 4
    blocks_most: int = 16_384
    ring: int = 1024
    hashes_per_sm: int = 32_768

    def tile(self, count: int) -> int:
        """Nonces of one block of a launch of `count`."""
        return max(self.threads * self.nonces_per_thread, -(-count // self.blocks_most))


JOB = np.dtype([("midstate", "<u4", 8), ("tail", "<u4", 3), ("target", "<u4", 8)])
"""WsJob of sha256d.cuh, passed by value."""


def source() -> str:
    """The CUDA source as one text, its header written in."""
    folder = resources.files("wattshift_kernels.sha256d")
    head = (folder / "sha256d.cuh").read_text()
    return (folder / "sha256d.cu").read_text().replace('#include "sha256d.cuh"', head)


class _Slot:
    """What one launch in flight has for its own: the ring, the hit count, a byte per block.

    The kernel writes them in device memory, since atomics over the bus are slow. A copy queued
    behind it brings them here, so that reading one launch never waits for the next.
    """

    def __init__(self, gpu: Gpu, grid: Grid) -> None:
        self.head_bytes = WORD_BYTES * (grid.ring + 1)
        size = self.head_bytes + grid.blocks_most
        self.device_address = gpu.take(size)
        self.block = gpu.host(size)
        self.began = gpu.cupy.cuda.Event()
        self.ended = gpu.cupy.cuda.Event(block=True)  # a waiting thread must not burn a CPU
        words = np.frombuffer(self.block.bytes, dtype=np.uint32, count=grid.ring + 1)
        self.ring, self.hits = words[: grid.ring], words[grid.ring :]
        self.ran = np.frombuffer(self.block.bytes, dtype=np.uint8, offset=self.head_bytes)


class CudaLaunch:
    """See `Launch`; made by `CudaHasher.begin`."""

    def __init__(self, hasher: "CudaHasher", slot: _Slot, work: Work, nonces: Range) -> None:
        """Queue it: clear the slot, run the kernel, copy the slot to the host."""
        self._hasher = hasher
        self._slot = slot
        self._work = work
        self._start, self.count = nonces
        self.took_ns = 0
        self._tile = hasher.grid.tile(self.count)
        self._blocks = -(-self.count // self._tile)
        self._queue()

    def done(self) -> bool:
        """See `Launch`."""
        try:
            return bool(self._slot.ended.done)
        except RuntimeError as fault:
            raise HasherFailed(f"the GPU failed: {fault}") from fault

    def result(self) -> SearchResult:
        """See `Launch`."""
        slot, hasher = self._slot, self._hasher
        try:
            slot.ended.synchronize()
            elapsed_ms = hasher.gpu.cupy.cuda.get_elapsed_time(slot.began, slot.ended)
        except RuntimeError as fault:
            raise HasherFailed(f"the GPU failed: {fault}") from fault
        self.took_ns = round(elapsed_ms * 1e6)
        hits, left = int(slot.hits[0]), self._left()
        nonces = sorted(int(nonce) for nonce in slot.ring[:hits])
        hasher.give_back(slot)
        if hits > hasher.grid.ring:
            return self._in_halves()
        tried = self.count - sum(count for _, count in left)
        return SearchResult(confirmed(hasher.name, self._work, nonces), tried, left)

    def _queue(self) -> None:
        gpu, grid, slot = self._hasher.gpu, self._hasher.grid, self._slot
        runtime, stream = gpu.cupy.cuda.runtime, gpu.stream
        used = slot.head_bytes + self._blocks
        hits_at = slot.device_address + WORD_BYTES * grid.ring
        ran_at = slot.device_address + slot.head_bytes
        arguments = (
            job_of(self._work), np.uint32(self._start), np.uint64(self.count),
            np.uint32(self._tile), np.uint64(self._hasher.stop_address),
            np.uint64(slot.device_address), np.uint32(grid.ring), np.uint64(hits_at),
            np.uint64(ran_at),
        )  # fmt: skip
        try:
            with gpu.device, stream:
                runtime.memsetAsync(hits_at, 0, WORD_BYTES + self._blocks, stream.ptr)
                slot.began.record(stream)
                if self._blocks:
                    self._hasher.kernel((self._blocks,), (grid.threads,), arguments)
                # The kernel's end, not the copy's, would be nearer to the truth by a microsecond or
                # two, at the price of a third event to ask.
                runtime.memcpyAsync(
                    slot.block.address, slot.device_address, used, runtime.memcpyDeviceToHost,
                    stream.ptr,
                )  # fmt: skip
                slot.ended.record(stream)
        except RuntimeError as fault:
            raise HasherFailed(f"the GPU failed: {fault}") from fault

    def _left(self) -> tuple[Range, ...]:
        """Tiles of blocks that met the stop word, neighbours joined."""
        idle = np.flatnonzero(self._slot.ran[: self._blocks] == 0)
        left: list[Range] = []
        for run in np.split(idle, np.flatnonzero(np.diff(idle) > 1) + 1) if idle.size else ():
            first = int(run[0]) * self._tile
            end = min(self.count, (int(run[-1]) + 1) * self._tile)
            left.append((self._start + first, end - first))
        return tuple(left)

    def _in_halves(self) -> SearchResult:
        """More hits than the ring holds: halve the range until they fit. Counts each nonce once."""
        half = self.count // 2
        search, work = self._hasher.search, self._work
        first = search(work, self._start, half)
        second = search(work, self._start + half, self.count - half)
        return SearchResult(
            first.hits + second.hits, first.hashes + second.hashes, first.left + second.left
        )


class CudaHasher:
    """SHA-256d on one GPU. Threads may share its `search`; launches belong to one thread.

    Attributes:
        gpu, grid, kernel, stop_address: what its launches work with.
    """

    name = "sha256d-cuda"
    backend = "cuda"
    depth = DEPTH

    def __init__(self, device: int = 0, grid: Grid | None = None) -> None:
        """Compile for GPU `device`. Raises GpuMissing."""
        self.gpu = Gpu(device)
        self.grid = grid or Grid()
        self._one_search = threading.RLock()  # an overflow searches within a search
        self._stop = self.gpu.host(STOP_BYTES)
        self.stop_address = self._stop.device_address
        with self.gpu.device:
            module = self.gpu.cupy.RawModule(code=source(), options=("-std=c++17",))
            self.kernel: Any = module.get_function("ws_search")
            self._free = deque(_Slot(self.gpu, self.grid) for _ in range(DEPTH))
        self.launch_hashes = self.gpu.sms * self.grid.hashes_per_sm
        self._closed = False

    @property
    def memory_bytes(self) -> int:
        """See `Hasher`."""
        return self.gpu.memory_bytes

    def begin(self, work: Work, nonce_start: int, count: int) -> CudaLaunch:
        """See `Hasher`."""
        check_range(nonce_start, count)
        assert self._free, f"more than {DEPTH} launches in flight"
        return CudaLaunch(self, self._free.popleft(), work, (nonce_start, count))

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`."""
        with self._one_search:
            return self.begin(work, nonce_start, count).result()

    def give_back(self, slot: _Slot) -> None:
        """A launch was read; its slot is free for the next one."""
        self._free.append(slot)

    def stop(self) -> None:
        """See `Hasher`: one store into memory that queued blocks read."""
        if not self._closed:
            self._stop.bytes[0] = 1

    def resume(self) -> None:
        """See `Hasher`."""
        assert len(self._free) == DEPTH, "a launch begun before the stop is still in flight"
        self._stop.bytes[0] = 0

    def close(self) -> None:
        """See `Hasher`: ends the context of this process on the device. Raises HasherFailed."""
        self.stop()
        self._closed = True
        self._free.clear()  # events end before their context
        self.gpu.close()


def job_of(work: Work) -> "np.ndarray[Any, Any]":
    """The launch's first argument: CuPy passes an array of exactly one element by value."""
    job = np.zeros(1, dtype=JOB)
    job["midstate"], job["tail"], job["target"] = midstate(work), tail(work), target_words(work)
    return job
