"""Etchash on a GPU: a table that lives for an epoch, then 64 random pages of 128 bytes per hash.

A hash reads 8,192 bytes, each page named by the one before, and makes two Keccaks beside it. So the
memory bounds it, if enough hashes are under way to hide its latency. Modelled for an H200 (132 SMs
at 1.98 GHz, instructions counted on sm_90; nothing of it is measured yet): 525 MH/s at 4.3 TB/s of
copying, where the arithmetic alone allows 1.2 GH/s.

The table lies in front of the cache that it is made from, in one piece of memory. The cache is made
on the host, in steps, since each of its rows needs the one before.
"""

from dataclasses import dataclass

from wattshift_kernels.autotune import tuned
from wattshift_kernels.compiling import compiled
from wattshift_kernels.etchash import epochs
from wattshift_kernels.etchash.job import job_of, job_of_slice, source
from wattshift_kernels.etchash.light import STEPS_AT_ONCE, light
from wattshift_kernels.gpu import Gpu
from wattshift_kernels.kernel import Builder, Kernel, Only, Shape, Spot, building
from wattshift_kernels.launches import Launcher, Limits
from wattshift_kernels.tables import Plan, Slice, SlicedTable, Stage


@dataclass(frozen=True, slots=True)
class Variant:
    """How many hashes are under way.

    Attributes:
        name: of the variant.
        pages_at_once: that a thread waits for its 16 bytes of.
        blocks_per_sm: of 128 threads, for which registers are left.
    """

    name: str
    pages_at_once: int
    blocks_per_sm: int

    @property
    def flags(self) -> tuple[str, ...]:
        """For the compiler."""
        return (f"-DWS_AT_ONCE={self.pages_at_once}", f"-DWS_BLOCKS={self.blocks_per_sm}")


VARIANTS = (Variant("pages4x5", 4, 5), Variant("pages8x4", 8, 4), Variant("pages4x6", 4, 6))
"""On an SM are 40, 64 and 48 KB under way, where latency times bandwidth is some 30 KB. The first
takes 96 registers and spills none; the second 128, of which a few are spilled outside its loop, and
a block of it lasts half as long; the third trades registers for warps (sm_90, by NVRTC)."""

THREADS = 128
SHAPE = Shape(threads=THREADS, hashes_per_thread=1)
"""A block's 128 hashes share an SM with some 500 others: about 160 us at 525 MH/s (modelled)."""

HASHES_PER_SM = 3_840
"""Six times what is on an SM at once: 1 ms at 525 MH/s (modelled). Shorter launches would lose more
where one ends and the next begins."""

ROWS_PER_SM_AND_SLICE = 2_048
"""Of the table: 256 reads of 64 bytes each, most of them from the L2 cache, so about 0.9 ms at 5
TB/s (modelled)."""

UPLOAD_ROWS = 65_536
"""Of the cache, 4 MB: 0.2 ms over the bus."""

STEP_WEIGHT, UPLOAD_WEIGHT = 10.0, 0.1
"""Of a step on the host, and of a row sent, against a row of the table, in the progress."""

STEPS, UPLOAD, ROWS = range(3)
"""Stages of a table."""


class CudaHasher(Launcher):
    """Etchash on one GPU."""

    def __init__(
        self,
        device: int = 0,
        variants: tuple[Variant, ...] = VARIANTS,
        *,
        limits: Limits | None = None,
        rows_per_slice: int | None = None,
        steps_at_once: int = STEPS_AT_ONCE,
    ) -> None:
        """Compile for GPU `device`; the table waits for the first work.

        Args:
            variants: most promising first; of several each is tested and the fastest found.
            rows_per_slice: of the table; by the GPU's size if None.
            steps_at_once: of making the cache.

        Raises:
            GpuMissing: there is no such GPU.
            HasherFailed: it broke.
        """
        gpu = Gpu(device)

        def made(variant: Variant, name: str) -> Kernel:
            function = gpu.compiled(source(), "ws_search", options=variant.flags)
            return Kernel(name, function, job_of, SHAPE)

        kernels, refused = compiled(gpu, "etchash-cuda", variants, made)
        piece = rows_per_slice or ROWS_PER_SM_AND_SLICE * gpu.sms

        def plan(height: int) -> Plan:
            epoch = epochs.epoch_of(height)
            cache = light(epoch)  # perhaps a reference has made it already
            steps = max(1, cache.steps - cache.taken)
            stages = (
                Stage(steps, steps_at_once, STEP_WEIGHT),  # taken when begun, so in order
                Stage(epoch.cache_rows, UPLOAD_ROWS, UPLOAD_WEIGHT, ordered=True),
                Stage(2 * epoch.pages, piece),
            )
            return Plan(epoch.first_height, epochs.table_bytes(height), stages)

        build = gpu.compiled(source("build.cu"), "ws_build")
        super().__init__(
            gpu,
            "etchash",
            Only(kernels[0]),
            hashes_per_sm=HASHES_PER_SM,
            table=SlicedTable(plan, gpu),
            builder=_builder(gpu, building(build, job_of_slice)),
            limits=limits,
        )
        self.refused |= refused
        self.choice = tuned(self, kernels, [source(), *(kernel.name for kernel in kernels)])


def _builder(gpu: Gpu, rows: Builder) -> Builder:
    """Steps on the host, rows over the bus, then rows of the table on the device."""
    sent = gpu.host(UPLOAD_ROWS * epochs.ROW_BYTES)  # one for all: uploads are ordered

    def build(piece: Slice, spot: Spot) -> int:
        epoch = epochs.epoch_of(piece.plan.key)
        cache = light(epoch)
        if piece.stage == STEPS:
            cache.advance(piece.count)
        elif piece.stage == UPLOAD:
            first, size = epochs.ROW_BYTES * piece.first, epochs.ROW_BYTES * piece.count
            part = cache.finish().words[piece.first : piece.first + piece.count]
            sent.bytes[:size] = part.reshape(-1).view("u1").data
            runtime = gpu.cupy.cuda.runtime
            runtime.memcpyAsync(
                piece.address + epoch.table_bytes + first, sent.address, size,
                runtime.memcpyHostToDevice, spot.stream,
            )  # fmt: skip
        else:
            return rows(piece, spot)
        return 0

    return build
