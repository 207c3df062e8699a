"""Nothing a kernel finds is believed until hashlib says the same."""

from collections.abc import Iterable

from wattshift_kernels.hasher import Hit, Work
from wattshift_kernels.header import hash_value, sha256d, with_nonce

TOP_WORD_SHIFT = 224
"""A hash value without its top 32 bits has this many."""


class KernelWrong(Exception):
    """A kernel reported a nonce whose hash does not meet the target.

    Attributes:
        kernel: name of the variant.
        nonce: what it reported.
    """

    def __init__(self, kernel: str, nonce: int) -> None:
        super().__init__(f"{kernel} reported nonce {nonce:#010x}, which hashlib refutes")
        self.kernel = kernel
        self.nonce = nonce


def hit_of(work: Work, nonce: int) -> Hit | None:
    """The hit of a nonce, or None if its hash exceeds the target."""
    digest = sha256d(with_nonce(work.header76, nonce))
    return Hit(nonce, digest) if hash_value(digest) <= work.target else None


def verified(work: Work, hit: Hit) -> bool:
    """Whether a hit is one."""
    return hit_of(work, hit.nonce) == hit


def confirmed(
    kernel: str, work: Work, nonces: Iterable[int], *, top_word_only: bool = False
) -> tuple[Hit, ...]:
    """Re-hash every reported nonce and keep the hits.

    Args:
        kernel: its name, for the error.
        top_word_only: the kernel looks at the top 32 bits of the hash alone, so a nonce that fails
            only below them is dropped in silence.

    Raises:
        KernelWrong: a reported nonce fails where the kernel did look.
    """
    looked_at = work.target | (2**TOP_WORD_SHIFT - 1) if top_word_only else work.target
    hits = []
    for nonce in nonces:
        digest = sha256d(with_nonce(work.header76, nonce))
        if hash_value(digest) > looked_at:
            raise KernelWrong(kernel, nonce)
        if hash_value(digest) <= work.target:
            hits.append(Hit(nonce, digest))
    return tuple(hits)
