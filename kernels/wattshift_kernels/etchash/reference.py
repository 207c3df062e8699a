"""Etchash without its table: the 128 rows that a hash reads are made from the epoch's cache.

By the Ethereum wiki's "Ethash" and ECIP-1099. Keccak pads with 0x01, words are little-endian,
fnv(x, y) = x * 0x01000193 ^ y in 32 bits:

    seed    = Keccak-512(header hash || nonce in 8 bytes, little-endian)
    mix     = seed || seed; 64 times it is mixed by fnv with the page fnv(i ^ seed[0], mix[i]) mod
              the pages, i counted mod 32 within the mix
    short   = every four words of the mix by fnv to one: the mix hash, 32 bytes
    digest  = Keccak-256(seed || mix hash), read big-endian

A share carries the mix hash too. One hash takes about 5 ms here, once the cache is made.
"""

import numpy as np

from wattshift_kernels.etchash import compiled
from wattshift_kernels.etchash.epochs import epoch_of
from wattshift_kernels.etchash.light import Light, light
from wattshift_kernels.hasher import Work

HEADER_BYTES = 32


def nonce_of(work: Work, nonce: int) -> int:
    """The whole nonce, 64 bits, of which the low half is counted."""
    return int.from_bytes(work.message[HEADER_BYTES:], "big") << 32 | nonce


def mixed(cache: Light, pages: int, header: bytes, nonce: int) -> tuple[bytes, bytes]:
    """The mix hash and the digest of a header hash and a whole nonce, over a number of pages."""
    message = np.frombuffer(header + nonce.to_bytes(8, "little"), dtype="<u8").astype(np.uint64)
    seed = np.empty(8, dtype=np.uint64)
    mix, digest_words = np.empty((2, 4), dtype=np.uint64)
    compiled.keccak(message, seed)
    compiled.hashimoto(cache.words, np.uint32(pages), seed, mix, digest_words)
    return mix.astype("<u8").tobytes(), digest_words.astype("<u8").tobytes()


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """The final hash of a nonce of a work. `roll` is 0: there is nothing to roll."""
    assert roll == 0
    return _of(work, nonce)[1]


def mix_hash(work: Work, nonce: int) -> bytes:
    """What a share carries beside its nonce."""
    return _of(work, nonce)[0]


def _of(work: Work, nonce: int) -> tuple[bytes, bytes]:
    epoch = epoch_of(work.height)
    cache = light(epoch).finish()
    return mixed(cache, epoch.pages, work.message[:HEADER_BYTES], nonce_of(work, nonce))
