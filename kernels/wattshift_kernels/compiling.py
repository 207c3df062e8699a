"""The variants of a kernel, compiled side by side; one that does not compile is no reason to stop.

What a compiler or a card does not take in one variant another may do without. Which were left out,
and why, is told like a variant that hashes wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from wattshift_kernels.gpu import Gpu
from wattshift_kernels.hasher import HasherFailed
from wattshift_kernels.kernel import Kernel

AT_ONCE = 4
"""A variant takes one to two seconds of one core, once per machine."""


class Named(Protocol):
    """A variant of any algorithm."""

    @property
    def name(self) -> str:
        """Unique among them."""
        ...


V = TypeVar("V", bound=Named)


def compiled(
    gpu: Gpu, prefix: str, variants: Sequence[V], make: Callable[[V, str], Kernel]
) -> tuple[list[Kernel], Mapping[str, str]]:
    """Those that compile, in their order, and by name why the others do not.

    Args:
        prefix: of a kernel's name, before its variant's.
        make: compiles a variant under a name.

    Raises:
        HasherFailed: none compiles; the GPU is closed by then.
    """

    def made(variant: V) -> Kernel | Exception:
        try:
            return make(variant, f"{prefix}-{variant.name}")
        except Exception as fault:  # of NVRTC or CuPy: whatever it is, the next variant may do
            return fault

    kernels, refused = [], {}
    with ThreadPoolExecutor(AT_ONCE) as compilers:
        for variant, one in zip(variants, compilers.map(made, variants), strict=True):
            if isinstance(one, Kernel):
                kernels.append(one)
            else:
                refused[f"{prefix}-{variant.name}"] = f"it does not compile: {one}"
    if not kernels:
        gpu.close()
        raise HasherFailed(f"no variant compiles: {refused}")
    return kernels, refused
