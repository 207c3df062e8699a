"""kHeavyHash on the CPU: the kernel's own text over vectors of eight hashes."""

from wattshift_kernels.kheavyhash.job import job_of
from wattshift_kernels.kheavyhash.source import source
from wattshift_kernels.native_search import NativeHasher

LANES = 8
"""Words of 64 bits in a register of AVX-512; on narrower machines the compiler splits them."""

LAUNCH_HASHES = 2_048
"""About a millisecond: 2.4 MH/s on one core of an AVX-512 server."""


class CpuHasher(NativeHasher):
    """kHeavyHash on one CPU core."""

    def __init__(self) -> None:
        """Compile it, or load what was compiled before; see `NativeHasher` for what it raises."""
        super().__init__(
            "kheavyhash",
            source("cpp"),
            job_of,
            launch_hashes=LAUNCH_HASHES,
            flags=(f"-DWS_LANES={LANES}",),
            top_word_only=True,
        )
