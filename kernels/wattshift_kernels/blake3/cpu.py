"""Alephium's BLAKE3 on the CPU: the kernel's own text over vectors of sixteen hashes."""

from wattshift_kernels.blake3.job import job_of
from wattshift_kernels.blake3.source import source
from wattshift_kernels.native_search import NativeHasher

LANES = 16
"""Words of 32 bits in a register of AVX-512; on narrower machines the compiler splits them."""

LAUNCH_HASHES = 14_336
"""About a millisecond: 15 MH/s on one core of an AVX-512 server."""


class CpuHasher(NativeHasher):
    """Alephium's BLAKE3 on one CPU core."""

    def __init__(self) -> None:
        """Compile it, or load what was compiled before; see `NativeHasher` for what it raises."""
        super().__init__(
            "blake3",
            source("cpp"),
            job_of,
            launch_hashes=LAUNCH_HASHES,
            flags=(f"-DWS_LANES={LANES}",),
            top_word_only=True,
        )
