"""Alephium's BLAKE3 on a GPU: its kernel, made ready for `launches`."""

from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_kernels.blake3.job import job_of
from wattshift_kernels.blake3.source import source
from wattshift_kernels.gpu import Gpu
from wattshift_kernels.kernel import Shape
from wattshift_kernels.launches import Limits
from wattshift_kernels.placed import PlacedHasher


@dataclass(frozen=True, slots=True)
class Placement:
    """What is done by multiplying, on the pipe that has room.

    Attributes:
        name: of the variant.
        adds: whether every sum is.
        turns: of a round's eight mixings, in how many one turn is too.
    """

    name: str
    adds: bool
    turns: int

    @property
    def flags(self) -> tuple[str, ...]:
        """For the compiler."""
        return (f"-DWS_FMA_ADDS={int(self.adds)}", f"-DWS_FMA_TURNS={self.turns}")


PLACEMENTS = (
    Placement("even", adds=True, turns=4),
    Placement("full", adds=True, turns=5),
    Placement("none", adds=False, turns=0),
)
"""Modelled from the instructions on sm_90, for 132 SMs at 1.98 GHz; measured nowhere yet:

    name   clocks per hash: ALU, FMA, issue           GH/s
    even   47.2, 42.6 (45.7 where the high word of    5.5
           a product is at half rate), 46.0
    full   46.4, 44.1 (47.9 at half), 46.3            5.6 (5.5 at half)
    none   61.8, 12.8, 38.4                           4.2

The first keeps its rate whatever that of a high word is, and so is tried first; the card has the
last word."""

SHAPE = Shape(threads=256, hashes_per_thread=3)
"""Six blocks per SM at 40 registers, so 1,536 hashes at once: each takes 37 us by the model, and
three make a block of 110 us."""

HASHES_PER_SM = 27_648
"""Thirty-six blocks: 0.66 ms by the model."""


PASSES = (5,)
"""Of the loops within the loop over nonces, for whoever counts instructions: five more blocks of a
header of the usual length."""


class CudaHasher(PlacedHasher):
    """Alephium's BLAKE3 on one GPU."""

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
            "blake3",
            source(),
            job_of,
            placements,
            shape=shape,
            limits=limits,
            hashes_per_sm=hashes_per_sm,
        )
