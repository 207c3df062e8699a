"""The slow search that is right by construction: hashlib on every nonce."""

from wattshift_kernels.at_once import PlainHasher


class ReferenceHasher(PlainHasher):
    """SHA-256d by hashlib, about half a million hashes a second on one core."""

    def __init__(self) -> None:
        """Nothing to prepare."""
        super().__init__("sha256d", 400)
