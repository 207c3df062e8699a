"""kHeavyHash in plain Python, from the standards: what every kernel is held against.

    inner = cSHAKE256(pre-PoW hash || time || 32 zero bytes || nonce, "ProofOfWorkHash")
    outer = cSHAKE256(inner ^ bits 10 to 13 of each sum of M . inner's nibbles, "HeavyHash")

M has 64 x 64 numbers of 4 bits and belongs to the pre-PoW hash. Sources: FIPS 202 (Keccak), NIST SP
800-185 (cSHAKE), prng.di.unimi.it (xoshiro256++), and rusty-kaspa's `consensus/pow` and
`crypto/hashes/src/pow_hashers.rs` for how they are put together.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from wattshift_kernels.at_once import PlainHasher
from wattshift_kernels.kheavyhash.keccak import WORD, cshake256, rotate

Matrix = np.ndarray[Any, np.dtype[np.int64]]
"""64 x 64 numbers of 4 bits."""

SIDE = 64
HASH_BYTES = 32

INNER_DOMAIN = b"ProofOfWorkHash"
OUTER_DOMAIN = b"HeavyHash"

MATRICES_KEPT = 16
"""One takes some ms to make and serves all nonces of a block; a few jobs are alive at a time."""

MATRICES_TRIED = 8
"""That one of random numbers lacks full rank is less likely than a hash of 64 zeros."""

PIVOT_LEAST = 1e-9
"""What is no longer zero when the rank is taken: the network takes it of floats, by this bound."""


class ReferenceHasher(PlainHasher):
    """kHeavyHash by this module, about a thousand hashes a second."""

    def __init__(self) -> None:
        """Nothing to prepare."""
        super().__init__("kheavyhash", 1)


def nonce_of(message: bytes, low: int) -> int:
    """The nonce of 64 bits whose high half ends a message and whose low half is counted."""
    return int.from_bytes(message[40:44], "big") << 32 | low


def header(message: bytes, low: int) -> bytes:
    """What the first hash reads, 80 bytes."""
    return message[:40] + bytes(32) + nonce_of(message, low).to_bytes(8, "little")


def kheavyhash(message: bytes, low: int) -> bytes:
    """The final hash of a message (see `hasher`) with the low 32 bits of its nonce."""
    inner = cshake256(header(message, low), INNER_DOMAIN)
    return heavy(matrix(message[:HASH_BYTES]), inner)


def heavy(numbers: Matrix, inner: bytes) -> bytes:
    """The second half: through the matrix, back onto the hash, and hashed again."""
    octets = np.frombuffer(inner, dtype=np.uint8).astype(np.int64)
    nibbles = np.stack((octets >> 4, octets & 15), axis=1).reshape(SIDE)
    short = numbers @ nibbles >> 10
    joined = (short[0::2] << 4 | short[1::2]) ^ octets
    return cshake256(joined.astype(np.uint8).tobytes(), OUTER_DOMAIN)


@lru_cache(maxsize=MATRICES_KEPT)
def matrix(pre_pow: bytes) -> Matrix:
    """The matrix of a pre-PoW hash: the first of full rank that its generator gives.

    Raises:
        ValueError: it gives none. Of 32 zero bytes the generator makes nothing but zeros, and who
            asks for such work means to keep us busy.
    """
    stream = _xoshiro(pre_pow)
    for _ in range(MATRICES_TRIED):
        words = [next(stream) for _ in range(SIDE * SIDE // 16)]
        numbers = np.array(
            [word >> shift & 15 for word in words for shift in range(0, 64, 4)], dtype=np.int64
        ).reshape(SIDE, SIDE)
        if rank(numbers) == SIDE:
            numbers.flags.writeable = False  # it is shared by whoever asks
            return numbers
    raise ValueError(f"no matrix of full rank for the pre-PoW hash {pre_pow.hex()}")


def rank(numbers: Matrix) -> int:
    """The rank by Gauss and Jordan in floats, in the network's order of operations."""
    rows = numbers.astype(np.float64)
    free = np.ones(len(rows), dtype=bool)
    for column in range(rows.shape[1]):
        pivots = np.flatnonzero(free & (np.abs(rows[:, column]) > PIVOT_LEAST))
        if not pivots.size:
            continue
        pivot = pivots[0]
        free[pivot] = False
        rows[pivot, column + 1 :] /= rows[pivot, column]
        others = np.abs(rows[:, column]) > PIVOT_LEAST
        others[pivot] = False
        taken = np.outer(rows[others, column], rows[pivot, column + 1 :])
        rows[others, column + 1 :] -= taken
    return int(len(rows) - free.sum())


def _xoshiro(seed: bytes) -> Iterator[int]:
    """xoshiro256++ from 32 bytes that are its state as they stand."""
    a, b, c, d = struct.unpack("<4Q", seed)
    while True:
        yield (rotate((a + d) & WORD, 23) + a) & WORD
        shifted = b << 17 & WORD
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        d = rotate(d, 45)
