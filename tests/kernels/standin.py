"""A stand-in for CuPy and the driver: one GPU whose stream runs only as far as a test lets it.

A kernel is the real source, compiled as C++ and run block by block. Copies, clearings and events
take their turn in the stream, as on a GPU: nothing queued has an effect before it is reached. The
device sees page-locked memory of the host at an address of its own, so code that gives a kernel the
host's address is caught.
"""

import ctypes
import mmap
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from wattshift_kernels.native import CompilerMissing, library

BEFORE = """
struct Index { unsigned x; };
static Index gridDim, blockDim, blockIdx, threadIdx;
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
static void __syncthreads() {}
template <typename T> static T atomicAdd(T* at, T more) { T was = *at; *at += more; return was; }
"""
AFTER = """
template <typename Job, typename... Rest>
static void call(void (*kernel)(const Job, Rest...), unsigned block, unsigned threads,
                 const void* job, Rest... rest) {
    blockDim.x = threads, blockIdx.x = block;
    // Thread 0 goes first, so that what it shares is there for the others without a barrier.
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(*(const Job*)job, rest...);
}
extern "C" void search_block(unsigned block, unsigned threads, const void* job, unsigned start,
                             unsigned long long count, unsigned tile,
                             const volatile unsigned* stop, unsigned* ring, unsigned ring_size,
                             unsigned* hits, unsigned char* ran) {
    call(ws_search, block, threads, job, start, count, tile, stop, ring, ring_size, hits, ran);
}
#ifdef STANDIN_BUILDS
extern "C" void build_block(unsigned block, unsigned threads, const void* job,
                            unsigned long long first, unsigned long long count, unsigned tile,
                            const volatile unsigned* stop, unsigned char* ran) {
    call(ws_build, block, threads, job, first, count, tile, stop, ran);
}
#endif
"""
POINTER, WORD, LONG = ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulonglong
SEARCH = (
    WORD, WORD, POINTER, WORD, LONG, WORD, POINTER, POINTER, WORD, POINTER, POINTER,
)  # fmt: skip
BUILD = (WORD, WORD, POINTER, LONG, LONG, WORD, POINTER, POINTER)
SMS = 2
LEAST_PRIORITY = 0
DEVICE_TO_HOST, HOST_TO_DEVICE = 2, 1
MEMORY_BYTES = 1 << 30


@cache
def compiled(source: str, defines: tuple[str, ...] = ()) -> ctypes.CDLL:
    """A source whose kernels can be run one block at a time. Raises CompilerMissing."""
    builds = ("-DSTANDIN_BUILDS",) if "ws_build(" in source else ()
    flags = ("-O1", *builds, *defines)
    return library("standin", f"{BEFORE}\n{source}\n{AFTER}", flags=flags)


def missing() -> str | None:
    """Why there can be no stand-in here; None if there can."""
    try:
        compiled(
            "struct Job {}; void ws_search(const Job, unsigned, unsigned long long, unsigned, "
            "const volatile unsigned*, unsigned*, unsigned, unsigned*, unsigned char*) {}"
        )
    except CompilerMissing as fault:
        return f"the CUDA source cannot be compiled as C++: {fault}"
    return None


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
    block_s: what a block lasts then; memory_bytes: that it has."""

    def __init__(self) -> None:
        """Nothing is queued, nothing is held."""
        self.launches = self.blocks = 0
        self.memory_bytes = MEMORY_BYTES
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
            compute_capability = "90"

        runtime = SimpleNamespace(
            hostAllocMapped=2, hostAllocPortable=1, memcpyDeviceToHost=DEVICE_TO_HOST,
            memcpyHostToDevice=HOST_TO_DEVICE, memGetInfo=self._memory_info,
            getDeviceProperties=lambda ordinal: {"name": b"stand-in"},
            driverGetVersion=lambda: 13000,
            hostAlloc=self._host_alloc, freeHost=self._free, malloc=self._malloc, free=self._free,
            pointerGetAttributes=lambda at: SimpleNamespace(devicePointer=self._of(at).seen),
            memsetAsync=self._memset, memcpyAsync=self._memcpy,
        )  # fmt: skip
        cuda = SimpleNamespace(
            Device=Device,
            Stream=self._stream,
            Event=lambda **fields: Event(self, **fields),
            runtime=runtime,
            get_elapsed_time=lambda a, b: (b.at_s - a.at_s) * 1000,
        )
        return SimpleNamespace(is_available=lambda: True, RawModule=self._module, cuda=cuda)

    def _module(self, *, code: str, options: tuple[str, ...]) -> SimpleNamespace:
        """What CuPy's RawModule is: the kernels of a source text."""
        defines = tuple(one for one in options if one.startswith("-D"))
        made = compiled(code, defines)
        launches: dict[str, Any] = {}
        for name, block, types, launch in (
            ("ws_search", "search_block", SEARCH, self._search),
            ("ws_build", "build_block", BUILD, self._build),
        ):
            if hasattr(made, block):
                one_block = getattr(made, block)
                one_block.argtypes, one_block.restype = types, None
                launches[name] = lambda *asked, to=launch, run=one_block: to(run, *asked)
        return SimpleNamespace(get_function=launches.__getitem__)

    def _memory_info(self) -> tuple[int, int]:
        held = sum(one.size for one in self.memory if one.address == one.seen)
        return self.memory_bytes - held, self.memory_bytes

    def _stream(self, **fields: Any) -> Stream:
        made = Stream(self, **fields)
        self.stream = made
        return made

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
        assert stream == Stream.ptr
        host, device = (to, at) if kind == DEVICE_TO_HOST else (at, to)
        assert any(
            m.address <= host and host + size <= m.address + m.size and m.address != m.seen
            for m in self.memory
        ), "not page-locked, so the copy would wait"
        self._on_device(device, size)
        self.stream.put(lambda: bool(ctypes.memmove(to, at, size)))

    def _search(
        self, run: Any, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]
    ) -> None:
        job, start, count, tile, stop, ring, ring_size, hits, ran = arguments
        _widths(arguments, (4, 8, 4, 8, 8, 4, 8, 8))
        places = [
            self._on_device(int(at), size)
            for at, size in ((stop, 4), (ring, 8 * int(ring_size)), (hits, 4), (ran, grid[0]))
        ]
        numbers = (int(start), int(count), int(tile))
        self._queue(run, grid, block, job, (*numbers, *places[:2], int(ring_size), *places[2:]))

    def _build(
        self, run: Any, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]
    ) -> None:
        job, first, count, tile, stop, ran = arguments
        _widths(arguments, (8, 8, 4, 8, 8))
        places = [self._on_device(int(at), size) for at, size in ((stop, 4), (ran, grid[0]))]
        self._queue(run, grid, block, job, (int(first), int(count), int(tile), *places))

    def _queue(
        self, run: Any, grid: tuple[int], block: tuple[int], job: Any, rest: Iterable[int]
    ) -> None:
        copied = job.copy()  # by value: the caller may drop its own
        self.launches += 1
        blocks = iter(range(grid[0]))
        assert grid[0] > 0, "CUDA refuses an empty grid"

        def next_block() -> bool:
            number = next(blocks)
            self.blocks += 1
            run(number, block[0], copied.ctypes.data, *rest)
            return number + 1 == grid[0]

        self.stream.put(next_block)


def _widths(arguments: tuple[Any, ...], wanted: tuple[int, ...]) -> None:
    job = arguments[0]
    assert isinstance(job, np.ndarray), "a numpy scalar is no struct to CuPy"
    assert job.size == 1, "CuPy passes a struct by value only as an array of one"
    widths = tuple(x.dtype.itemsize for x in arguments[1:])
    assert widths == wanted, "CuPy passes a numpy scalar at its own width"


def put_in_place(monkeypatch: Any, gpu: StandIn) -> None:
    """Make it what `wattshift_kernels.gpu` finds."""
    real = ctypes.CDLL

    def opened(name: str, *more: Any, **named: Any) -> Any:
        return gpu.driver if name == "libcuda.so.1" else real(name, *more, **named)

    monkeypatch.setitem(sys.modules, "cupy", gpu.cupy)
    monkeypatch.setattr("wattshift_kernels.gpu.ctypes.CDLL", opened)
