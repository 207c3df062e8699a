"""The slow search that is right by construction: hashlib on every nonce."""

from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.hasher import SearchResult, Work, check_range
from wattshift_kernels.verify import hit_of


class ReferenceHasher(AtOnce):
    """SHA-256d by hashlib, about half a million hashes a second on one core."""

    name = "sha256d-hashlib"
    backend = "reference"
    launch_hashes = 400

    def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
        """Try `count` nonces. Raises ValueError when the range leaves 32 bits."""
        check_range(nonce_start, count)
        found = (hit_of(work, nonce) for nonce in range(nonce_start, nonce_start + count))
        return SearchResult(tuple(hit for hit in found if hit is not None), count)
