"""SHA-256d on a GPU: the CUDA source compiled and launched by CuPy.

CuPy is imported only here and only when a GPU hasher is made. The stream is non-blocking and of the
lowest priority, so that inference in the same context goes first.
"""

import ctypes
import threading
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from wattshift_kernels.hasher import SearchResult, Work, check_range
from wattshift_kernels.sha256d.midstate import midstate, tail, target_words
from wattshift_kernels.verify import confirmed


class GpuMissing(Exception):
    """There is no usable GPU or no CuPy here; the text says which."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch constants, with the reason for each.

    Attributes:
        threads: per block; 256 leaves the scheduler 3 blocks per SM at 80 registers.
        blocks_per_sm: resident blocks that one wave fills.
        ring: hits of one launch that can be kept; a share target hits far less often.
        hashes_per_sm: of one launch; about a millisecond on any card since sm_80.
    """

    threads: int = 256
    blocks_per_sm: int = 8
    ring: int = 1024
    hashes_per_sm: int = 32_768


JOB = np.dtype([("midstate", "<u4", 8), ("tail", "<u4", 3), ("target", "<u4", 8)])
"""WsJob of sha256d.cuh, passed by value."""


def source() -> str:
    """The CUDA source as one text, its header written in."""
    folder = resources.files("wattshift_kernels.sha256d")
    head = (folder / "sha256d.cuh").read_text()
    return (folder / "sha256d.cu").read_text().replace('#include "sha256d.cuh"', head)


class CudaHasher:
    """SHA-256d on one GPU. Threads may share it; their searches take turns."""

    name = "sha256d-cuda"
    backend = "cuda"

    def __init__(self, device: int = 0, launch: Launch | None = None) -> None:
        """Compile for GPU `device`. Raises GpuMissing."""
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError as fault:
            # Asked first: CuPy takes a second to import.
            raise GpuMissing(f"no NVIDIA driver: {fault}") from fault
        try:
            import cupy
        except ImportError as fault:
            raise GpuMissing(f"CuPy is not installed: {fault}") from fault
        if not cupy.is_available():
            raise GpuMissing("CuPy finds no GPU or no driver")
        self._cupy: Any = cupy
        self._launch = launch or Launch()
        self._device = cupy.cuda.Device(device)
        self._one_search = threading.Lock()
        # The numerically greatest priority is the lowest one; 0 is the default and lowest.
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True, priority=0)
        # Within the stream: a non-blocking one would not wait for zeros written on the default one.
        with self._device, self._stream:
            sms = int(self._device.attributes["MultiProcessorCount"])
            self._kernel = cupy.RawModule(code=source(), options=("-std=c++17",)).get_function(
                "ws_search"
            )
            self._stop = cupy.zeros(1, dtype=cupy.uint32)
            self._hits = cupy.zeros(1, dtype=cupy.uint32)
            self._tried = cupy.zeros(1, dtype=cupy.uint64)
            self._ring = cupy.zeros(self._launch.ring, dtype=cupy.uint32)
        self._blocks = sms * self._launch.blocks_per_sm
        self.launch_hashes = sms * self._launch.hashes_per_sm

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        with self._one_search:
            nonces, tried = self._once(job_of(work), nonce_start, count)
        if nonces is None:
            # More hits than the ring holds: halve the range until they fit.
            half = count // 2
            first = self.search(work, nonce_start, half)
            second = self.search(work, nonce_start + half, count - half)
            return SearchResult(first.hits + second.hits, first.hashes + second.hashes)
        return SearchResult(confirmed(self.name, work, sorted(nonces)), tried)

    def _once(
        self, job: "np.ndarray[Any, Any]", start: int, count: int
    ) -> tuple[list[int] | None, int]:
        cupy = self._cupy
        with self._device, self._stream:
            self._hits.fill(0)
            self._tried.fill(0)
            arguments = (
                job, np.uint32(start), np.uint64(count), self._stop, self._hits, self._ring,
                np.uint32(self._launch.ring), self._tried,
            )  # fmt: skip
            self._kernel((self._blocks,), (self._launch.threads,), arguments)
            hits = int(cupy.asnumpy(self._hits, stream=self._stream)[0])
            tried = int(cupy.asnumpy(self._tried, stream=self._stream)[0])
            if hits > self._launch.ring:
                return None, tried
            ring = cupy.asnumpy(self._ring, stream=self._stream)
        return [int(nonce) for nonce in ring[:hits]], tried


def job_of(work: Work) -> "np.ndarray[Any, Any]":
    """The launch's first argument: CuPy passes an array of exactly one element by value."""
    job = np.zeros(1, dtype=JOB)
    job["midstate"], job["tail"], job["target"] = midstate(work), tail(work), target_words(work)
    return job
