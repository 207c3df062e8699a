"""Which epoch a seed hash of Ethash is of: Keccak-256, applied to 32 zero bytes so many times.

Plain Python takes about 0.2 ms for one, so the search begins where Ethereum Classic is today and
every seed is worked out once.
"""

from wattshift_kernels.kheavyhash.keccak import LANES, RATE_BYTES, absorbed, permuted

SEED_BYTES = 32
MOST_SEEDS = 1200
"""Up to block 36,000,000, which Ethereum Classic reaches in 2031 at its 13 s a block. To know all
of them takes a quarter of a second, once: no more than a pool may cost us with a made-up one."""

TODAY, SEED_TODAY = (
    792,
    bytes.fromhex("6324b2c470f17c418659a625c06e9597ddb2b7bf088a3f49ff152bc5e94c28a4"),
)
"""At block 23,760,000. The chain only grows, so those after it come first, then those before."""


def seed_number(seed: bytes) -> int | None:
    """How many times zeros were hashed to get this seed; None for one of no epoch that is known."""
    if seed not in _known:
        _learn(seed)
    return _known.get(seed)


def hashed(data: bytes) -> bytes:
    """Keccak-256 of less than a block, with the padding from before the standard."""
    block = bytearray((data + b"\x01").ljust(RATE_BYTES, b"\0"))
    block[-1] |= 0x80
    lanes = permuted(absorbed([0] * LANES, bytes(block)))
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[: SEED_BYTES // 8])


def _learn(wanted: bytes) -> None:
    """Go on where the last search ended until the seed is found, or all are known."""
    for chain in _chains:
        while wanted not in _known and chain.number < chain.last:
            chain.step()


class _Chain:
    """Seeds from one that is known up to `last`."""

    def __init__(self, number: int, seed: bytes, last: int) -> None:
        self.number, self.last = number, last
        self._seed = seed
        _known[seed] = number

    def step(self) -> None:
        self.number, self._seed = self.number + 1, hashed(self._seed)
        _known[self._seed] = self.number


_known: dict[bytes, int] = {}
_chains = (
    _Chain(TODAY, SEED_TODAY, MOST_SEEDS - 1),
    _Chain(0, bytes(SEED_BYTES), TODAY - 1),
)
