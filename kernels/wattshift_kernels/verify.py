"""Nothing a kernel finds is believed until hashlib says the same."""

from collections.abc import Iterable

from wattshift_kernels.hasher import Hit, Work
from wattshift_kernels.header import hash_value, sha256d, with_nonce


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


def confirmed(kernel: str, work: Work, nonces: Iterable[int]) -> tuple[Hit, ...]:
    """Re-hash every reported nonce. Raises KernelWrong on the first that is no hit."""
    hits = []
    for nonce in nonces:
        hit = hit_of(work, nonce)
        if hit is None:
            raise KernelWrong(kernel, nonce)
        hits.append(hit)
    return tuple(hits)
