"""Nothing a kernel finds is believed until an implementation that shares no code says the same."""

from collections.abc import Iterable

from wattshift_kernels.algorithms import Algorithm, by_name
from wattshift_kernels.hasher import Hit, Work

TOP_WORD_SHIFT = 224
"""A hash value without its top 32 bits has this many."""


class KernelWrong(Exception):
    """A kernel reported a nonce whose hash does not meet the target.

    Attributes:
        kernel: name of the variant.
        nonce: what it reported.
    """

    def __init__(self, kernel: str, nonce: int) -> None:
        super().__init__(f"{kernel} reported nonce {nonce:#010x}, which the reference refutes")
        self.kernel = kernel
        self.nonce = nonce


def hit_of(work: Work, nonce: int, roll: int = 0) -> Hit | None:
    """The hit of a nonce, or None if its hash exceeds the target or is not good for this work."""
    algorithm = by_name(work.algorithm)
    digest = algorithm.digest(work, nonce, roll)
    counts = algorithm.value(digest) <= work.target and _good(algorithm, work, nonce)
    return Hit(nonce, digest, roll) if counts else None


def verified(work: Work, hit: Hit) -> bool:
    """Whether a hit is one."""
    if hit.roll & ~work.roll_mask:
        return False
    return hit_of(work, hit.nonce, hit.roll) == hit


def confirmed(
    kernel: str, work: Work, found: Iterable[tuple[int, int]], *, top_word_only: bool = False
) -> tuple[Hit, ...]:
    """Re-hash everything that was reported and keep the hits.

    A kernel may leave an algorithm's `check` to the host: what fails only that is dropped.

    Args:
        kernel: its name, for the error.
        found: (nonce, roll).
        top_word_only: the kernel looks at the top 32 bits of the hash alone, so a nonce that fails
            only below them is dropped in silence.

    Raises:
        KernelWrong: a reported nonce fails where the kernel did look, or was reported twice.
    """
    algorithm = by_name(work.algorithm)
    looked_at = work.target | (2**TOP_WORD_SHIFT - 1) if top_word_only else work.target
    hits = []
    seen: set[tuple[int, int]] = set()
    for nonce, roll in found:
        digest = algorithm.digest(work, nonce, roll)
        value = algorithm.value(digest)
        if value > looked_at or (nonce, roll) in seen:
            raise KernelWrong(kernel, nonce)
        seen.add((nonce, roll))
        if value <= work.target and _good(algorithm, work, nonce):
            hits.append(Hit(nonce, digest, roll))
    return tuple(hits)


def _good(algorithm: Algorithm, work: Work, nonce: int) -> bool:
    return algorithm.check is None or algorithm.check(work, nonce)
