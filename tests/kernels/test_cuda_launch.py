"""The launch without a GPU: `sha256d.cu` as C++ and the host code around it, end to end.

A stand-in for CuPy runs the real kernel thread by thread. What it cannot show is CuPy and the GPU
themselves; the test marked gpu does.
"""

import ctypes
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wattshift_kernels import selftest
from wattshift_kernels.hasher import Work
from wattshift_kernels.sha256d import cuda
from wattshift_kernels.sha256d.reference import ReferenceHasher

SHIM = """
struct Index { unsigned x; };
static Index gridDim, blockDim, blockIdx, threadIdx;
#define __global__
template <typename T> static T atomicAdd(T* at, T more) { T was = *at; *at += more; return was; }
#include "sha256d.cu"
extern "C" void launch(unsigned blocks, unsigned threads, const WsJob* job, unsigned start,
                       unsigned long long count, unsigned* stop, unsigned* hits, unsigned* ring,
                       unsigned ring_size, unsigned long long* tried) {
    gridDim.x = blocks, blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            ws_search(*job, start, count, stop, hits, ring, ring_size, tried);
}
"""
TYPES = (
    ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulonglong,
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p,
)  # fmt: skip


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here: the CUDA source cannot be compiled as C++")
    folder = tmp_path_factory.mktemp("launch")
    source_dir = Path(str(resources.files("wattshift_kernels.sha256d")))
    (folder / "shim.cpp").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-I", source_dir, folder / "shim.cpp", "-o", library],
        check=True,
        timeout=60,
    )
    launch = ctypes.CDLL(str(library)).launch
    launch.argtypes = TYPES
    launch.restype = None
    return launch


@pytest.fixture
def gpu(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """CuPy's face over the C++ kernel; `launches` counts."""
    state = SimpleNamespace(launches=0)

    def call(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        job, start, count, stop, hits, ring, ring_size, tried = arguments
        assert isinstance(job, np.ndarray), "a numpy scalar is no struct to CuPy"
        assert job.size == 1, "CuPy passes a struct by value only as an array of one"
        state.launches += 1
        pointers = [array.ctypes.data for array in (job, stop, hits, ring, tried)]
        kernel(
            grid[0], block[0], pointers[0], int(start), int(count), pointers[1], pointers[2],
            pointers[3], int(ring_size), pointers[4],
        )  # fmt: skip

    class Device(nullcontext[None]):
        attributes = {"MultiProcessorCount": 2}  # noqa: RUF012  (CuPy's shape)

    module = SimpleNamespace(get_function=lambda name: {"ws_search": call}[name])
    state.cupy = SimpleNamespace(
        is_available=lambda: True,
        RawModule=lambda **_: module,
        cuda=SimpleNamespace(Device=Device, Stream=lambda **_: nullcontext()),
        zeros=np.zeros,
        asnumpy=lambda array, stream: array.copy(),
        uint32=np.uint32,
        uint64=np.uint64,
    )
    monkeypatch.setitem(sys.modules, "cupy", state.cupy)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda _name: None)
    return state


def test_the_launch_gives_every_known_answer(gpu: SimpleNamespace) -> None:
    assert selftest.failure(cuda.CudaHasher()) is None
    assert gpu.launches == len(selftest.BLOCKS) + 1


def test_more_hits_than_the_ring_holds_are_searched_again(gpu: SimpleNamespace) -> None:
    hasher = cuda.CudaHasher(launch=cuda.Launch(threads=32, blocks_per_sm=1, ring=16))
    work = Work(bytes(76), 2**254)
    assert hasher.search(work, 9, 1_000) == ReferenceHasher().search(work, 9, 1_000)
    assert gpu.launches > 16


def test_a_stopped_launch_counts_only_what_it_tried(gpu: SimpleNamespace) -> None:
    hasher = cuda.CudaHasher()
    hasher._stop[0] = 1
    assert hasher.search(Work(bytes(76), 2**255), 0, 5_000).hashes == 0


def test_a_missing_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda.ctypes, "CDLL", absent)
    with pytest.raises(cuda.GpuMissing, match="no NVIDIA driver"):
        cuda.CudaHasher()
