"""Autolykos v2 on a GPU: a table built anew for every height, then 33 random rows per hash.

A hash makes three compressions of Blake2b and reads 33 sectors of 32 bytes, so it is bound by how
many random sectors the memory serves. Modelled for an H200 (132 SMs at 1.98 GHz, instructions
counted on sm_90; nothing of it is measured yet): the arithmetic alone allows 2.9 GH/s, all of the
memory's 4.3 TB/s 4.1 GH/s; random sectors come at a part of that, which the benchmark measures.
Building the table of height 1.9 million takes 1.8 s, once every two minutes.
"""

from dataclasses import dataclass

from wattshift_kernels.autolykos2 import reference
from wattshift_kernels.autolykos2.job import job_of, job_of_slice, source
from wattshift_kernels.autotune import tuned
from wattshift_kernels.compiling import compiled
from wattshift_kernels.gpu import Gpu
from wattshift_kernels.kernel import Kernel, Only, Shape, building
from wattshift_kernels.launches import Launcher, Limits
from wattshift_kernels.tables import Plan, SlicedTable, Stage


@dataclass(frozen=True, slots=True)
class Variant:
    """How an SM's registers are shared out.

    Attributes:
        name: of the variant.
        blocks_per_sm: of 256 threads, for which registers are left.
    """

    name: str
    blocks_per_sm: int

    @property
    def flags(self) -> tuple[str, ...]:
        """For the compiler."""
        return (f"-DWS_BLOCKS={self.blocks_per_sm}",)


VARIANTS = (Variant("blocks4", 4), Variant("blocks2", 2))
"""1,024 and 512 threads on an SM, at 64 and 128 registers; the first spills none, the second 8
bytes on sm_90 (by NVRTC). More threads hide more of the memory's latency by hashing meanwhile; with
more registers each has more reads under way. Eight of 16 bytes each are 64 to 128 KB of an SM,
where latency times bandwidth is some 30 KB. How many rows the source asks for at once makes no
difference: the compiler moves loads ahead as far as registers let it."""

SHAPE = Shape(threads=256, hashes_per_thread=1)
"""A block's 256 hashes share an SM with 768 others: about 90 us at 1.5 GH/s (modelled)."""

HASHES_PER_SM = 8_192
"""Eight times what is on an SM at once: 0.7 ms at 1.5 GH/s (modelled)."""

BUILD_THREADS = 128
ROWS_PER_SM_AND_SLICE = 6 * BUILD_THREADS
"""A row is 65 compressions of 30 clocks of an SM's ALU pipe each (modelled from instructions), so
these take 0.8 ms, all at once: each block lasts as long as its launch."""

SECTOR_BYTES = 32
"""What a row fills. A device that fetched more at once would fetch what nobody asked for."""


class CudaHasher(Launcher):
    """Autolykos v2 on one GPU."""

    def __init__(
        self,
        device: int = 0,
        variants: tuple[Variant, ...] = VARIANTS,
        *,
        shape: Shape = SHAPE,
        limits: Limits | None = None,
        rows_per_slice: int | None = None,
    ) -> None:
        """Compile for GPU `device`; the table waits for the first work.

        Args:
            variants: most promising first; of several each is tested and the fastest found.
            rows_per_slice: of the table; by the GPU's size if None.

        Raises:
            GpuMissing: there is no such GPU.
            HasherFailed: it broke.
        """
        gpu = Gpu(device)
        with gpu.device:
            runtime = gpu.cupy.cuda.runtime
            runtime.deviceSetLimit(runtime.cudaLimitMaxL2FetchGranularity, SECTOR_BYTES)

        def made(variant: Variant, name: str) -> Kernel:
            function = gpu.compiled(source(), "ws_search", options=variant.flags)
            return Kernel(name, function, job_of, shape)

        kernels, refused = compiled(gpu, "autolykos2-cuda", variants, made)
        piece = rows_per_slice or ROWS_PER_SM_AND_SLICE * gpu.sms

        def plan(height: int) -> Plan:
            stages = (Stage(reference.rows(height), piece),)
            return Plan(height, reference.table_bytes(height), stages)

        build = gpu.compiled(source("build.cu"), "ws_build")
        super().__init__(
            gpu,
            "autolykos2",
            Only(kernels[0]),
            hashes_per_sm=HASHES_PER_SM,
            table=SlicedTable(plan, gpu),
            builder=building(build, job_of_slice, threads=BUILD_THREADS),
            limits=limits,
        )
        self.refused |= refused
        self.choice = tuned(self, kernels, [source(), *(kernel.name for kernel in kernels)])
