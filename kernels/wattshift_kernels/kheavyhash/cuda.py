"""kHeavyHash on a GPU: its kernel, made ready for `launches`."""

from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_kernels.gpu import Gpu
from wattshift_kernels.kernel import Shape
from wattshift_kernels.kheavyhash.job import job_of
from wattshift_kernels.kheavyhash.source import source
from wattshift_kernels.launches import Limits
from wattshift_kernels.placed import PlacedHasher


@dataclass(frozen=True, slots=True)
class Placement:
    """How many turns of a round are done by multiplying, on the pipe that has room.

    Attributes:
        name: of the variant.
        turns: of a round's 29.
    """

    name: str
    turns: int

    @property
    def flags(self) -> tuple[str, ...]:
        """For the compiler."""
        return (f"-DWS_FMA_TURNS={self.turns}",)


PLACEMENTS = (
    Placement("even", 19),
    Placement("full", 24),
    Placement("none", 0),
)
"""Modelled from the instructions on sm_90, for 132 SMs at 1.98 GHz; measured nowhere yet:

    name   turns   clocks per hash: ALU, FMA, issue   GH/s if the high word of a product is at
                                                      full rate, at half rate
    even   19      104.2, 73.9 (102 at half), 93.3    2.5, 2.5
    full   24       97.1, 88.1 (123 at half), 96.9    2.7, 2.1
    none    0      131.1, 20.1,               78.9    2.0, 2.0

The first keeps its rate whatever that is, and so is tried first; the card decides."""

SHAPE = Shape(threads=256, hashes_per_thread=4)
"""Two blocks per SM at 102 registers, so 512 hashes at once: each takes 27 us by the model, and
four make a block of 110 us."""

HASHES_PER_SM = 12_288
"""Twelve blocks: 0.65 ms by the model."""


PASSES = (11, 8, 11)
"""Of the loops within the loop over nonces, for whoever counts instructions: twice eleven pairs of
rounds, and eight words of the product between them."""


class CudaHasher(PlacedHasher):
    """kHeavyHash on one GPU."""

    def __init__(
        self,
        device: int = 0,
        placements: Sequence[Placement] = PLACEMENTS,
        *,
        shape: Shape = SHAPE,
        limits: Limits | None = None,
        hashes_per_sm: int = HASHES_PER_SM,
    ) -> None:
        """Compile for GPU `device`.

        Args:
            placements: most promising first; where there are several each is tested and the
                fastest found.

        Raises:
            GpuMissing: there is no such GPU.
            HasherFailed: it broke.
        """
        super().__init__(
            Gpu(device),
            "kheavyhash",
            source(),
            job_of,
            placements,
            shape=shape,
            limits=limits,
            hashes_per_sm=hashes_per_sm,
        )
