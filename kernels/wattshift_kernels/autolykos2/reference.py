"""Autolykos v2 over hashlib's Blake2b: only the rows that a hash needs, and no table.

By the yellow paper of Ergo's proof of work (ErgoPow, "Autolykos v2") and the vectors of its node. B
is Blake2b-256, integers are big-endian, || joins:

    row j  = B(j in 4 bytes || height in 4 bytes || M) without its first byte; M is the integers 0
             to 1023, 8 bytes each
    i      = last 8 bytes of B(message || nonce), mod N
    seed   = B(row i || message || nonce); its 32 windows of 4 bytes, going on at its own beginning,
             are mod N the rows that are summed
    hit    = B(sum in 32 bytes)

N, the rows of the table, grows with the height. One hash takes 0.7 ms here.
"""

import hashlib
import struct

from wattshift_kernels.hasher import HEIGHT_MOST, Work

ROW_BYTES = 32
"""In a table; the first of them is 0, since a row has 31 bytes of its own."""

ELEMENTS = 32
ROWS_FIRST = 2**26
GROWS_FROM_HEIGHT = 614_400
GROWS_EVERY_BLOCKS = 51_200
GROWS_TO_HEIGHT = 4_198_400

TRIAL_HEIGHT = HEIGHT_MOST
"""No chain gets there; it stands for a small table, by which a device is tested without
gigabytes."""

TRIAL_ROWS = 1_009
"""Prime, so that a wrong modulus shows."""

_M = b"".join(number.to_bytes(8, "big") for number in range(1024))


def rows(height: int) -> int:
    """Rows of the table at a height: 5 % more at GROWS_FROM_HEIGHT and every GROWS_EVERY_BLOCKS.

    Whole hundreds grow, so rounding goes down before it goes up (Ergo's `calcN`).
    """
    if height == TRIAL_HEIGHT:
        return TRIAL_ROWS
    count = ROWS_FIRST
    if height >= GROWS_FROM_HEIGHT:
        past = min(height, GROWS_TO_HEIGHT) - GROWS_FROM_HEIGHT
        for _ in range(past // GROWS_EVERY_BLOCKS + 1):
            count = count // 100 * 105
    return count


def table_bytes(height: int) -> int:
    """Of device memory that the table takes: 7.6 GB at height 1.9 million, 68.6 GB at most."""
    return ROW_BYTES * rows(height)


def row(height: int, number: int) -> bytes:
    """One row, 31 bytes."""
    return _blake2b(number.to_bytes(4, "big") + height.to_bytes(4, "big") + _M)[1:]


def hit(message: bytes, height: int, count: int) -> bytes:
    """The hash of a whole message (32 bytes and the nonce's 8) over a table of `count` rows."""
    (first,) = struct.unpack(">Q", _blake2b(message)[-8:])
    seed = _blake2b(row(height, first % count) + message)
    ring = seed + seed[:3]
    windows = (int.from_bytes(ring[k : k + 4], "big") for k in range(ELEMENTS))
    total = sum(int.from_bytes(row(height, window % count), "big") for window in windows)
    return _blake2b(total.to_bytes(32, "big"))


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """The hit of a nonce of a work. `roll` is 0: there is nothing to roll."""
    assert roll == 0
    return hit(work.message + nonce.to_bytes(4, "big"), work.height, rows(work.height))


def _blake2b(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
