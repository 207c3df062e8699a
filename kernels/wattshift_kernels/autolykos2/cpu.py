"""Autolykos v2 on the CPU, for tests and demos: every row is made when it is needed."""

from wattshift_kernels.autolykos2.job import job_of, source
from wattshift_kernels.native_search import NativeHasher

LAUNCH_HASHES = 8
"""One vector of them, a little above a millisecond: 13 kH/s on one core of an AVX-512 server."""


class CpuHasher(NativeHasher):
    """Autolykos v2 on one CPU core."""

    def __init__(self) -> None:
        """Compile it, or load what was compiled before; see `NativeHasher` for what it raises."""
        super().__init__("autolykos2", source("search.cpp"), job_of, launch_hashes=LAUNCH_HASHES)
