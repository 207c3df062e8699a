"""Launches on a GPU, of any algorithm: two in flight, each in short blocks that a stop word ends.

Nothing preempts a block that runs, so a device is free again when its resident blocks have ended;
how long these last is what a request for inference may wait for. So a launch is many short blocks,
queued behind each other, and none that lives through the whole launch (modelled for 132 SMs at 6
GH/s of SHA-256d with 768 resident threads each, and 2 us to read the stop word over the bus; not
measured):

    hashes per thread    blocks of a launch    a block lasts    the read costs at most
    1                    16,896                  17 us          12 %
    4                     4,224                  68 us           3 %
    43, no queue            396                 720 us           0.3 %

So a block is to last about 100 us, whatever it computes: the third row is as slow to stop as a
launch is long, the first pays too much for it.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from wattshift_kernels.gpu import Gpu
from wattshift_kernels.hasher import (
    HasherFailed,
    Hit,
    Range,
    SearchResult,
    Work,
    check_range,
    rolled,
)
from wattshift_kernels.kernel import Builder, Choice, Job, Kernel, Spot
from wattshift_kernels.slot import WORD_BYTES, Limits, Slot
from wattshift_kernels.tables import Slice, SlicedTable
from wattshift_kernels.verify import KernelWrong, confirmed

__all__ = ["DEPTH", "Launcher", "Limits"]

DEPTH = 2
"""Launches in flight: the device has the next one while the host reads the last one."""

STOP_BYTES = 128
"""The stop word has a cache line of its own."""

HASHES_MOST = 2**32 - 1
"""Of one launch: its hits are counted in 32 bits, and a count that came round would lose them."""

JOBS_KEPT = 8
"""Structs of the works and kernels at hand: making one takes longer than launching it."""


class _Queued:
    """One slot's turn on the device: cleared, filled by kernels, copied to the host."""

    def __init__(self, hasher: "Launcher", slot: Slot, nonces: Range) -> None:
        self._hasher = hasher
        self._slot = slot
        self._start, self.count = nonces
        self._blocks = 0
        self.took_ns = 0

    def done(self) -> bool:
        """See `Launch`."""
        with _failing():
            return bool(self._slot.ended.done)

    @contextmanager
    def _turn(self, clear: int) -> Iterator[None]:
        """Around the kernels. `clear`: bytes from the hit count on."""
        gpu, slot = self._hasher.gpu, self._slot
        runtime = gpu.cupy.cuda.runtime
        with _failing(), gpu.device, gpu.stream as stream:
            runtime.memsetAsync(slot.address + slot.hits_offset, 0, clear, gpu.stream.ptr)
            slot.began.record(gpu.stream)
            yield stream
            # The kernel's end, not the copy's, would be nearer to the truth by a microsecond or
            # two, at the price of a third event to ask.
            runtime.memcpyAsync(
                slot.block.address, slot.address, slot.ran_offset + self._blocks,
                runtime.memcpyDeviceToHost, gpu.stream.ptr,
            )  # fmt: skip
            slot.ended.record(gpu.stream)

    def _wait(self) -> None:
        slot = self._slot
        with _failing():
            slot.ended.synchronize()
            elapsed_ms = self._hasher.gpu.cupy.cuda.get_elapsed_time(slot.began, slot.ended)
        self.took_ns = max(self.took_ns, round(elapsed_ms * 1e6))


class _Search(_Queued):
    """A launch that hashes; see `Launch`."""

    def __init__(self, hasher: "Launcher", slot: Slot, work: Work, nonces: Range) -> None:
        """Queue it."""
        super().__init__(hasher, slot, nonces)
        self._work = work
        self._kernel = hasher.choice.pick(work)
        limits, shape = hasher.limits, self._kernel.shape
        self._tile = shape.tile(self.count, work.ways, limits.blocks)
        self._blocks = -(-self.count // self._tile)
        arguments = (
            hasher.job_of(self._kernel, work), np.uint32(self._start),
            np.uint64(self.count), np.uint32(self._tile), np.uint64(hasher.stop_address),
            np.uint64(slot.address), np.uint32(limits.ring),
            np.uint64(slot.address + slot.hits_offset), np.uint64(slot.address + slot.ran_offset),
        )  # fmt: skip
        with self._turn(WORD_BYTES + self._blocks):
            if self._blocks:
                self._kernel.function((self._blocks,), (shape.threads,), arguments)

    def result(self) -> SearchResult:
        """See `Launch`."""
        self._wait()
        slot, hasher, work = self._slot, self._hasher, self._work
        hits, left = int(slot.hits[0]), self._left()
        found = [] if hits > hasher.limits.ring else slot.ring[:hits].tolist()
        hasher.give_back(slot)
        if hits > hasher.limits.ring:
            return self._in_halves()
        hashes = (self.count - sum(count for _, count in left)) * work.ways
        if not left and self.count:
            hasher.choice.took(work, self._kernel, hashes, self.took_ns)
        return SearchResult(self._confirmed(found), hashes, left)

    def _confirmed(self, found: list[list[int]]) -> tuple[Hit, ...]:
        kernel, work = self._kernel, self._work
        values = rolled(work.roll_mask)
        for nonce, way in found:
            if way >= work.ways:
                raise KernelWrong(kernel.name, nonce)
        pairs = sorted((nonce, values[way]) for nonce, way in found)
        return confirmed(kernel.name, work, pairs, top_word_only=kernel.top_word_only)

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


class _Build(_Queued):
    """A launch that builds a slice of the table, or waits for slices that are out."""

    def __init__(
        self, hasher: "Launcher", slot: Slot, nonces: Range, table: SlicedTable, builder: Builder
    ) -> None:
        """Queue it. While the stop word is up nothing is begun."""
        super().__init__(hasher, slot, nonces)
        self._table = table
        self._piece: Slice | None = None if hasher.stopped else table.next()
        began_ns = time.perf_counter_ns()
        ran_at = slot.address + slot.ran_offset
        with self._turn(WORD_BYTES + hasher.limits.blocks):
            if self._piece is not None:
                spot = Spot(
                    hasher.gpu.stream.ptr, hasher.stop_address, ran_at, hasher.limits.blocks
                )
                self._blocks = builder(self._piece, spot)
        if not self._blocks:
            self.took_ns = time.perf_counter_ns() - began_ns  # built on the host

    def result(self) -> SearchResult:
        """See `Launch`: nothing was hashed."""
        self._wait()
        if self._piece is not None:
            self._table.landed(self._piece, built=bool(self._slot.ran[: self._blocks].all()))
        self._hasher.give_back(self._slot)
        return SearchResult((), 0, ((self._start, self.count),) if self.count else ())


class Launcher:
    """A hasher on one GPU. Threads may share its `search`; launches belong to one thread.

    Attributes:
        algorithm, launch_hashes: see `Hasher`.
        refused: variants that were tried and are wrong here, each with its reason.
        gpu, choice, limits, stop_address, stopped: what its launches work with.
    """

    backend = "cuda"
    depth = DEPTH

    def __init__(
        self,
        gpu: Gpu,
        algorithm: str,
        choice: Choice,
        *,
        hashes_per_sm: int,
        table: SlicedTable | None = None,
        builder: Builder | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Take what it launches; it owns the GPU from now on.

        Args:
            hashes_per_sm: that take about 0.7 ms.
            table, builder: where the algorithm reads one.

        Raises:
            HasherFailed: the device has no memory for two launches.
        """
        assert (table is None) == (builder is None)
        self.gpu = gpu
        self.algorithm = algorithm
        self.choice = choice
        self.limits = limits or Limits()
        self.launch_hashes = gpu.sms * hashes_per_sm
        self.refused: dict[str, str] = {}
        self.stopped = False
        self._table, self._builder = table, builder
        self._jobs: OrderedDict[tuple[Any, Work, int], Job] = OrderedDict()
        self._one_search = threading.RLock()  # an overflow searches within a search
        self._closed = False
        with _failing(), gpu.device:
            self._stop = gpu.host(STOP_BYTES)
            self.stop_address = self._stop.device_address
            self._free = deque(Slot(gpu, self.limits) for _ in range(DEPTH))

    @property
    def name(self) -> str:
        """See `Hasher`."""
        return self.choice.name

    @property
    def progress(self) -> float:
        """See `Hasher`."""
        return 1.0 if self._table is None else self._table.progress

    @property
    def memory_bytes(self) -> int:
        """See `Hasher`."""
        return self.gpu.memory_bytes

    @property
    def table_bytes(self) -> int:
        """See `Hasher`."""
        return 0 if self._table is None else self._table.size_bytes

    @property
    def table_address(self) -> int:
        """Of the table on the device, 0 without one."""
        return 0 if self._table is None else self._table.address

    def job_of(self, kernel: Kernel, work: Work) -> Job:
        """The struct that a launch passes."""
        key = (kernel.job, work, self.table_address)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = kernel.job(work, self.table_address)
            while len(self._jobs) > JOBS_KEPT:
                self._jobs.popitem(last=False)
        return job

    def begin(self, work: Work, nonce_start: int, count: int) -> _Search | _Build:
        """See `Hasher`. Raises ValueError also for more than HASHES_MOST at once."""
        check_range(nonce_start, count)
        if count * work.ways > HASHES_MOST:
            raise ValueError(f"{count * work.ways} hashes are more than one launch counts")
        assert work.algorithm == self.algorithm
        assert self._free, f"more than {DEPTH} launches in flight"
        table, builder, nonces = self._table, self._builder, (nonce_start, count)
        with _failing(), self.gpu.device:
            ready = table is None or table.want(work.height)
        slot = self._free.popleft()
        try:
            if table is None or builder is None or ready:
                return _Search(self, slot, work, nonces)
            return _Build(self, slot, nonces, table, builder)
        except ValueError:  # work of which no job can be made; nothing was queued
            self._free.append(slot)
            raise

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """See `Hasher`."""
        with self._one_search:
            return self.begin(work, nonce_start, count).result()

    def give_back(self, slot: Slot) -> None:
        """A launch was read; its slot is free for the next one."""
        self._free.append(slot)

    def stop(self) -> None:
        """See `Hasher`: one store into memory that queued blocks read."""
        self.stopped = True
        if not self._closed:
            self._stop.bytes[0] = 1

    def resume(self) -> None:
        """See `Hasher`."""
        assert len(self._free) == DEPTH, "a launch begun before the stop is still in flight"
        self._stop.bytes[0] = 0
        self.stopped = False

    def free_table(self) -> None:
        """See `Hasher`."""
        assert len(self._free) == DEPTH, "a launch that may read the table is still in flight"
        if self._table is not None:
            with _failing(), self.gpu.device:
                self._table.close()

    def close(self) -> None:
        """See `Hasher`: ends the context of this process on the device. Raises HasherFailed."""
        self.stop()
        self._closed = True
        self._free.clear()  # events end before their context
        self.gpu.close()


@contextmanager
def _failing() -> Iterator[None]:
    """CUDA's errors, as CuPy raises them, said in one way."""
    try:
        yield
    except RuntimeError as fault:
        raise HasherFailed(f"the GPU failed: {fault}") from fault
