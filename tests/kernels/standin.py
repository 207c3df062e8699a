"""A stand-in for CuPy and the driver: one GPU whose stream runs only as far as a test lets it.

The kernel is the real source, compiled as C++ and run block by block. Copies, clearings and events
take their turn in the stream, as on a GPU: nothing queued has an effect before it is reached. The
device sees page-locked memory of the host at an address of its own, so code that gives a kernel the
host's address is caught.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

SHIM = """
struct Index { unsigned x; };
static Index gridDim, blockDim, blockIdx, threadIdx;
#define __global__
#define __shared__ static
static void __syncthreads() {}
template <typename T> static T atomicAdd(T* at, T more) { T was = *at; *at += more; return was; }
#include "sha256d.cu"
extern "C" void one_block(unsigned block, unsigned threads, const WsJob* job, unsigned start,
                          unsigned long long count, unsigned tile, const unsigned* stop,
                          unsigned* ring, unsigned ring_size, unsigned* hits, unsigned char* ran) {
    blockDim.x = threads, blockIdx.x = block;
    // Thread 0 goes first, so that what it shares is there for the others without a barrier.
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
        ws_search(*job, start, count, tile, stop, ring, ring_size, hits, ran);
}
"""
POINTER = ctypes.c_void_p
TYPES = (
    ctypes.c_uint, ctypes.c_uint, POINTER, ctypes.c_uint, ctypes.c_ulonglong, ctypes.c_uint,
    POINTER, POINTER, ctypes.c_uint, POINTER, POINTER,
)  # fmt: skip
SMS = 2
LEAST_PRIORITY = 0
DEVICE_TO_HOST = 2


def compiled(folder: Path) -> Any:
    """The kernel, one block at a time; None without a compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    source_dir = Path(str(resources.files("wattshift_kernels.sha256d")))
    (folder / "shim.cpp").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-I", source_dir, folder / "shim.cpp", "-o", library],
        check=True,
        timeout=60,
    )
    one_block = ctypes.CDLL(str(library)).one_block
    one_block.argtypes, one_block.restype = TYPES, None
    return one_block


@dataclass
class Memory:
    """One allocation; `seen` is its address on the device."""

    address: int
    seen: int
    size: int
    owner: Any


class Stream(nullcontext[None]):
    """Operations in their order; `step` runs the next of them."""

    ptr = 77

    def __init__(self, gpu: "StandIn", *, non_blocking: bool, priority: int) -> None:
        super().__init__()
        assert non_blocking, "the default stream would wait for it"
        self.gpu, self.priority = gpu, priority
        self.queue: deque[Callable[[], bool]] = deque()
        self.lock = threading.RLock()

    def put(self, operation: Callable[[], bool]) -> None:
        """Queue an operation, which says whether it has ended when it has run for a while."""
        assert not self.gpu.ended, "the context has ended"
        self.gpu.check()
        with self.lock:
            self.queue.append(operation)

    def step(self) -> bool:
        """Run the next operation, of a kernel one block. False when nothing is queued."""
        with self.lock:
            if not self.queue:
                return False
            if self.queue[0]():
                self.queue.popleft()
            return True

    def synchronize(self) -> None:
        """Run everything."""
        while self.step():
            pass


class Event:
    """An event; without a test's driving, waiting for it is what moves the stream."""

    def __init__(self, gpu: "StandIn", *, block: bool = False) -> None:
        self.gpu, self.block = gpu, block
        self.at_s: float | None = None

    def record(self, stream: Stream) -> None:
        """Take its place in the stream."""
        self.at_s = None

        def reached() -> bool:
            self.at_s = time.perf_counter()
            return True

        stream.put(reached)

    @property
    def done(self) -> bool:
        """Whether the stream came by."""
        self.gpu.check()
        return self.at_s is not None

    def synchronize(self) -> None:
        """Wait."""
        self.gpu.check()
        while not self.done:
            if self.gpu.driven:
                time.sleep(0.0001)
            else:
                assert self.gpu.stream.step(), "an event that was never recorded"


class StandIn:
    """The GPU. Attributes: launches: kernels begun; blocks: run; driven: a thread moves the stream;
    block_s: what a block lasts then."""

    def __init__(self, one_block: Any) -> None:
        """Take the compiled kernel."""
        self.one_block = one_block
        self.launches = self.blocks = 0
        self.memory: list[Memory] = []
        self.stream: Any = None
        self.driven = self.ended = self.lost = False
        self.block_s = 0.0
        self.cupy = self._cupy()
        self.driver = SimpleNamespace(
            cuCtxGetStreamPriorityRange=self._priorities,
            cuDeviceGet=lambda device, ordinal: 0,
            cuDevicePrimaryCtxReset_v2=self._reset,
        )

    def check(self) -> None:
        """CuPy's errors are of this kind."""
        if self.lost:
            raise RuntimeError("cudaErrorIllegalAddress")

    def step(self, count: int) -> None:
        """Let the device run `count` operations or blocks."""
        for _ in range(count):
            assert self.stream.step(), "nothing is queued"

    def run_blocks(self, count: int) -> None:
        """Let the device run until `count` more blocks were executed."""
        until = self.blocks + count
        while self.blocks < until:
            self.step(1)

    def drive(self, stopping: threading.Event) -> None:
        """Be a device that runs by itself, in a thread of the test."""
        self.driven = True
        while not stopping.is_set():
            before = self.blocks
            if not self.stream.step():
                time.sleep(0.00005)
            elif self.blocks > before:
                time.sleep(self.block_s)

    def _cupy(self) -> SimpleNamespace:
        class Device(nullcontext[None]):
            attributes = {"MultiProcessorCount": SMS}  # noqa: RUF012  (CuPy's shape)

        runtime = SimpleNamespace(
            hostAllocMapped=2, hostAllocPortable=1, memcpyDeviceToHost=DEVICE_TO_HOST,
            hostAlloc=self._host_alloc, freeHost=self._free, malloc=self._malloc, free=self._free,
            pointerGetAttributes=lambda at: SimpleNamespace(devicePointer=self._of(at).seen),
            memsetAsync=self._memset, memcpyAsync=self._memcpy,
        )  # fmt: skip
        module = SimpleNamespace(get_function=lambda name: {"ws_search": self._launch}[name])
        cuda = SimpleNamespace(
            Device=Device,
            Stream=self._stream,
            Event=lambda **fields: Event(self, **fields),
            runtime=runtime,
            get_elapsed_time=lambda a, b: (b.at_s - a.at_s) * 1000,
        )
        return SimpleNamespace(is_available=lambda: True, RawModule=lambda **_: module, cuda=cuda)

    def _stream(self, **fields: Any) -> Stream:
        self.stream = Stream(self, **fields)
        return self.stream

    def _priorities(self, least: Any, greatest: Any) -> int:
        least._obj.value, greatest._obj.value = LEAST_PRIORITY, -5
        return 0

    def _reset(self, device: Any) -> int:
        assert not self.memory, "the memory is freed first"
        self.ended = True
        return 0

    def _host_alloc(self, size: int, flags: int) -> int:
        """One memory at two addresses: the host's and the device's."""
        assert flags == 3, "mapped and portable"
        fd = os.memfd_create("standin")
        os.ftruncate(fd, size)
        maps = [mmap.mmap(fd, size) for _ in range(2)]
        os.close(fd)
        views = [(ctypes.c_ubyte * size).from_buffer(one) for one in maps]
        self.memory.append(
            Memory(ctypes.addressof(views[0]), ctypes.addressof(views[1]), size, views)
        )
        return self.memory[-1].address

    def _malloc(self, size: int) -> int:
        owner = ctypes.create_string_buffer(b"\xa5" * size, size)  # uncleared, as on a GPU
        at = ctypes.addressof(owner)
        self.memory.append(Memory(at, at, size, owner))
        return at

    def _free(self, address: int) -> None:
        if address:
            self.memory.remove(self._of(address))

    def _of(self, address: int) -> Memory:
        return next(one for one in self.memory if one.address == address)

    def _on_device(self, address: int, size: int) -> int:
        assert any(m.seen <= address and address + size <= m.seen + m.size for m in self.memory), (
            "no address of the device"
        )
        return int(address)

    def _memset(self, at: int, value: int, size: int, stream: int) -> None:
        assert stream == Stream.ptr
        self._on_device(at, size)
        self.stream.put(lambda: bool(ctypes.memset(at, value, size)))

    def _memcpy(self, to: int, at: int, size: int, kind: int, stream: int) -> None:
        assert (stream, kind) == (Stream.ptr, DEVICE_TO_HOST)
        assert size <= self._of(to).size
        self._on_device(at, size)
        self.stream.put(lambda: bool(ctypes.memmove(to, at, size)))

    def _launch(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        job, start, count, tile, stop, ring, ring_size, hits, ran = arguments
        assert isinstance(job, np.ndarray), "a numpy scalar is no struct to CuPy"
        assert job.size == 1, "CuPy passes a struct by value only as an array of one"
        widths = [x.dtype.itemsize for x in arguments[1:]]
        assert widths == [4, 8, 4, 8, 8, 4, 8, 8], "CuPy passes a numpy scalar at its own width"
        copied = job.copy()  # by value: the caller may drop its own
        places = [
            self._on_device(int(at), size)
            for at, size in ((stop, 4), (ring, 4 * int(ring_size)), (hits, 4), (ran, grid[0]))
        ]
        self.launches += 1
        blocks = iter(range(grid[0]))
        assert grid[0] > 0, "CUDA refuses an empty grid"

        def next_block() -> bool:
            number = next(blocks)
            self.blocks += 1
            self.one_block(
                number, block[0], copied.ctypes.data, int(start), int(count), int(tile),
                places[0], places[1], int(ring_size), places[2], places[3],
            )  # fmt: skip
            return number + 1 == grid[0]

        self.stream.put(next_block)
