"""Which table belongs to a block of Ethereum Classic, and how large it is.

The sizes are those of Ethash (Ethereum wiki, "Ethash"): each epoch adds to a cache of 16 MiB and a
table of 1 GiB, and both shrink to a prime number of rows. ECIP-1099 doubled the epochs' length at
block 11,700,000: sizes then go by the new, smaller number, while the seed goes on being hashed once
per 30,000 blocks, so that none is used twice. So epochs 195 and 390 are equally large and differ.
"""

from dataclasses import dataclass
from functools import lru_cache

from wattshift_kernels.hasher import HEIGHT_MOST

ROW_BYTES = 64
"""Of the cache and of the table: a digest of Keccak-512."""

PAGE_BYTES = 128
"""What a search reads at once: two rows of the table."""

CACHE_FIRST_BYTES, CACHE_GROWTH_BYTES = 1 << 24, 1 << 17
TABLE_FIRST_BYTES, TABLE_GROWTH_BYTES = 1 << 30, 1 << 23

SEED_BLOCKS = 30_000
LONG_EPOCH_BLOCKS = 60_000
LONG_FROM_HEIGHT = 11_700_000
"""Of the main network; the epochs of both lengths begin there."""


TRIAL_HEIGHT = HEIGHT_MOST
"""No chain gets there; it stands for a small table, by which a device is tested without
gigabytes."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is hashed with in a run of blocks.

    Attributes:
        first_height: of its blocks; no two epochs have the same.
        seed_rounds: how often zeros are hashed to its seed.
        cache_rows: of the small table, from which every row of the large one can be made.
        pages: of the large table.
    """

    first_height: int
    seed_rounds: int
    cache_rows: int
    pages: int

    @property
    def cache_bytes(self) -> int:
        """Of the small table."""
        return ROW_BYTES * self.cache_rows

    @property
    def table_bytes(self) -> int:
        """Of the large table alone."""
        return PAGE_BYTES * self.pages


TRIAL = Epoch(first_height=TRIAL_HEIGHT, seed_rounds=1, cache_rows=521, pages=1_009)
"""Of TRIAL_HEIGHT: prime numbers, too, so that a wrong modulus shows."""


@lru_cache(maxsize=8)
def epoch_of(height: int) -> Epoch:
    """The epoch of a block."""
    if height == TRIAL_HEIGHT:
        return TRIAL
    blocks = LONG_EPOCH_BLOCKS if height >= LONG_FROM_HEIGHT else SEED_BLOCKS
    number = height // blocks
    return Epoch(
        first_height=number * blocks,
        seed_rounds=number * blocks // SEED_BLOCKS,
        cache_rows=_prime_rows(CACHE_FIRST_BYTES + CACHE_GROWTH_BYTES * number, ROW_BYTES),
        pages=_prime_rows(TABLE_FIRST_BYTES + TABLE_GROWTH_BYTES * number, PAGE_BYTES),
    )


def table_bytes(height: int) -> int:
    """Of device memory that a search takes: the table, and the cache that it is made from."""
    epoch = epoch_of(height)
    return epoch.table_bytes + epoch.cache_bytes


def _prime_rows(size: int, row: int) -> int:
    """The largest prime number of rows below a size; even numbers are passed over."""
    rows = size // row - 1
    while not _prime(rows):
        rows -= 2
    return rows


def _prime(number: int) -> bool:
    return all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2))
