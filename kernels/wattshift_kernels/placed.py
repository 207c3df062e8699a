"""A kernel whose work can be placed on either integer pipe: one text, compiled once a placement."""

from collections.abc import Callable, Sequence
from typing import Protocol

from wattshift_kernels.autotune import tuned
from wattshift_kernels.compiling import compiled
from wattshift_kernels.gpu import Gpu
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Job, Kernel, Only, Shape
from wattshift_kernels.launches import Launcher, Limits


class Placement(Protocol):
    """What of the work is done by multiplying."""

    @property
    def name(self) -> str:
        """Of the variant."""
        ...

    @property
    def flags(self) -> tuple[str, ...]:
        """For the compiler."""
        ...


class PlacedHasher(Launcher):
    """A hasher of one GPU that finds the best placement by real work."""

    def __init__(
        self,
        gpu: Gpu,
        algorithm: str,
        text: str,
        job: Callable[[Work, int], Job],
        placements: Sequence[Placement],
        *,
        shape: Shape,
        limits: Limits | None,
        hashes_per_sm: int,
    ) -> None:
        """Compile `text` once for each placement.

        Args:
            text: the kernel's source, which defines `ws_search`.
            job: makes its first argument.
            placements: most promising first; where there are several each is tested and the
                fastest found.

        Raises:
            HasherFailed: the GPU broke, or no placement compiles.
        """

        def made(placement: Placement, name: str) -> Kernel:
            function = gpu.compiled(text, "ws_search", options=placement.flags)
            return Kernel(name, function, job, shape)

        kernels, refused = compiled(gpu, f"{algorithm}-cuda", placements, made)
        first = Only(kernels[0])
        super().__init__(gpu, algorithm, first, hashes_per_sm=hashes_per_sm, limits=limits)
        self.refused |= refused
        self.choice = tuned(self, kernels, [text, *(kernel.name for kernel in kernels)])
