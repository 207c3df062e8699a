"""Bitcoin block headers: 80 bytes, their hash, and the targets that a hash must not exceed.

A header is version, previous hash, Merkle root, time, bits and nonce, integers little-endian. Its
hash is SHA-256 of SHA-256; read as a little-endian integer it must not exceed the target.
"""

import hashlib
import struct

HEADER_BYTES = 80
NONCE_OFFSET = 76
NONCES = 2**32
DIFFICULTY_1_TARGET = 0xFFFF << 208
"""The target of difficulty 1, as Bitcoin's compact encoding can express it."""

MAX_TARGET = 2**256 - 1


def sha256d(data: bytes) -> bytes:
    """SHA-256 of SHA-256."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def header76(version: int, prev_hash: bytes, merkle_root: bytes, ntime: int, nbits: int) -> bytes:
    """The first 76 bytes of a header, everything but the nonce.

    Args:
        version: block version, 0 to 2^32 - 1.
        prev_hash, merkle_root: 32 bytes each, in the byte order of the header.
        ntime: Unix time, s.
        nbits: compact target.

    Raises:
        ValueError: a hash is not 32 bytes, or a number does not fit 32 bits.
    """
    if len(prev_hash) != 32 or len(merkle_root) != 32:
        raise ValueError("previous hash and Merkle root have 32 bytes each")
    try:
        tail = struct.pack("<II", ntime, nbits)
        return struct.pack("<I", version) + prev_hash + merkle_root + tail
    except struct.error as fault:
        raise ValueError(f"version, time and bits must fit 32 bits: {fault}") from fault


def with_nonce(head: bytes, nonce: int) -> bytes:
    """The whole header. `nonce` is the field's value, written little-endian."""
    return head + struct.pack("<I", nonce)


def with_version(head: bytes, mask: int, bits: int) -> bytes:
    """A header, or the first part of one, whose version has `bits` where `mask` has ones."""
    (version,) = struct.unpack_from("<I", head)
    return struct.pack("<I", (version & ~mask) | (bits & mask)) + head[4:]


def hash_value(digest: bytes) -> int:
    """A header hash as the integer that is held against the target."""
    return int.from_bytes(digest, "little")


def target_of_difficulty(difficulty: float) -> int:
    """Largest hash value of a share of `difficulty` > 0. Raises ValueError otherwise.

    Pools define it as (0xffff << 208) / difficulty; fractional difficulties below 1 are common for
    slow miners.
    """
    if not 0 < difficulty < float("inf"):
        raise ValueError(f"a difficulty must be finite and above 0, not {difficulty}")
    numerator, denominator = difficulty.as_integer_ratio()
    return min(DIFFICULTY_1_TARGET * denominator // numerator, MAX_TARGET)


def difficulty_of_target(target: int) -> float:
    """Difficulty of a target > 0. Raises ValueError otherwise."""
    if not 0 < target <= MAX_TARGET:
        raise ValueError("a target lies between 1 and 2^256 - 1")
    return DIFFICULTY_1_TARGET / target


def target_of_nbits(nbits: int) -> int:
    """Target of Bitcoin's compact encoding: mantissa of 23 bits times 256^(exponent - 3)."""
    exponent, mantissa = nbits >> 24, nbits & 0x7FFFFF
    if exponent <= 3:
        return mantissa >> (8 * (3 - exponent))
    return mantissa << (8 * (exponent - 3))
