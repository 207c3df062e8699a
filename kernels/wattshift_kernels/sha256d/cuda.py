"""SHA-256d on a GPU: the variants of its kernel that are right here, and the fastest of them."""

from collections.abc import Sequence

from wattshift_kernels.autotune import tuned
from wattshift_kernels.compiling import compiled
from wattshift_kernels.gpu import Gpu
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Kernel, Only, Shape
from wattshift_kernels.launches import Launcher, Limits
from wattshift_kernels.sha256d.precompute import job_of
from wattshift_kernels.sha256d.source import source
from wattshift_kernels.sha256d.variants import ZERO_WORD_TARGET, Variant, ordered

HASHES_PER_SM = 57_344
"""About 0.7 ms of an H200 (modelled); others are found by the first launches."""


class CudaHasher(Launcher):
    """SHA-256d on one GPU."""

    def __init__(
        self,
        device: int = 0,
        variants: Sequence[Variant] | None = None,
        *,
        shape: Shape | None = None,
        limits: Limits | None = None,
        hashes_per_sm: int = HASHES_PER_SM,
    ) -> None:
        """Compile for GPU `device` and test each variant.

        Args:
            variants: most promising first, and some that serve any work; None for those to try on
                such a GPU.
            shape: of all of them instead of their own.

        Raises:
            GpuMissing: there is no such GPU.
            HasherFailed: it broke.
        """
        gpu = Gpu(device)
        variants = ordered(gpu.capability) if variants is None else variants

        def made(variant: Variant, name: str) -> Kernel:
            return _kernel(gpu, variant, name, shape)

        kernels, refused = compiled(gpu, "sha256d-cuda", variants, made)
        first = Only(kernels[0])
        super().__init__(gpu, "sha256d", first, hashes_per_sm=hashes_per_sm, limits=limits)
        self.refused |= refused
        self.choice = tuned(self, kernels, map(source, variants), kind_of)


def kind_of(work: Work) -> str:
    """What makes variants differ in rank: the ways, and whether any of the top bits may be set."""
    return f"{work.ways} ways" + (", low" if work.target >= ZERO_WORD_TARGET else "")


def _kernel(gpu: Gpu, variant: Variant, name: str, shape: Shape | None) -> Kernel:
    return Kernel(
        name=name,
        function=gpu.compiled(source(variant), "ws_search"),
        job=job_of,
        shape=shape or Shape(variant.threads, variant.hashes_per_thread),
        top_word_only=variant.compare != "all",
        serves=lambda work: variant.serves(work.ways, work.target),
    )
