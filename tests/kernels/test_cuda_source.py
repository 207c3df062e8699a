"""The CUDA source without a GPU: run as C++ against hashlib, and compiled by NVRTC."""

import ctypes
import random
import shutil
import struct
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from wattshift_kernels.hasher import Work
from wattshift_kernels.header import sha256d, with_nonce
from wattshift_kernels.sha256d.cuda import job_of, source
from wattshift_kernels.sha256d.midstate import target_words

HEADERS = 1000

SHIM = """
#include "sha256d.cuh"
extern "C" void hash_one(const WsJob* job, unsigned nonce, unsigned* digest) {
    ws_header_hash(*job, nonce, digest);
}
extern "C" int meets(const unsigned* digest, const unsigned* target) {
    return ws_meets(digest, target);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here: the CUDA source cannot be compiled as C++")
    folder = tmp_path_factory.mktemp("shim")
    source_dir = Path(str(resources.files("wattshift_kernels.sha256d")))
    (folder / "shim.cpp").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-I", source_dir, folder / "shim.cpp", "-o", library],
        check=True,
        timeout=60,
    )
    return ctypes.CDLL(str(library))


def test_device_code_agrees_with_hashlib(shim: ctypes.CDLL) -> None:
    dice = random.Random(7)
    digest = (ctypes.c_uint32 * 8)()
    for _ in range(HEADERS):
        work, nonce = Work(dice.randbytes(76), 1), dice.randrange(2**32)
        shim.hash_one(job_of(work).tobytes(), nonce, digest)
        assert struct.pack(">8I", *digest) == sha256d(with_nonce(work.header76, nonce))


def test_device_comparison_is_that_of_integers(shim: ctypes.CDLL) -> None:
    dice = random.Random(8)
    for _ in range(HEADERS):
        value = dice.randrange(2**256)
        target = value + dice.choice([-1, 0, 1, 2**200, -(2**100)])
        if not 0 < target < 2**256:
            continue
        words = struct.unpack(">8I", value.to_bytes(32, "little"))
        digest = (ctypes.c_uint32 * 8)(*words)
        limit = (ctypes.c_uint32 * 8)(*map(int, target_words(Work(bytes(76), target))))
        assert bool(shim.meets(digest, limit)) == (value <= target)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_nvrtc_compiles_it_without_a_gpu(arch: str) -> None:
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed")
    try:
        program = nvrtc.createProgram(source(), "sha256d.cu", [], [])
        nvrtc.compileProgram(program, [f"-arch={arch}", "-std=c++17"])
        assert len(nvrtc.getCUBIN(program)) > 1000
    except Exception as missing:
        if "Lib" not in type(missing).__name__:
            raise
        pytest.skip(f"NVRTC is not installed: {missing}")


@pytest.mark.gpu
def test_gpu_gives_every_known_answer() -> None:
    from wattshift_kernels.selftest import failure
    from wattshift_kernels.sha256d.cuda import CudaHasher, GpuMissing

    try:
        hasher = CudaHasher()
    except GpuMissing as missing:
        pytest.skip(str(missing))
    assert failure(hasher) is None
