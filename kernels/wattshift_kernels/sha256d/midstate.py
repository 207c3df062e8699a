"""What a search prepares once per work: the midstate, the second block, the target as words.

The first 64 bytes of a header do not hold the nonce, so their compression is done once (FIPS 180-4;
reference: every miner since 2010). The second block is the last 16 bytes, padding and the length.

A work of several versions has a midstate for each. They are computed side by side, each in 64 bits
of its own of one long integer: Python takes hardly longer for it than for one, and whoever begins a
launch with new work looks at no gate meanwhile.
"""

import struct

import numpy as np
import numpy.typing as npt

from wattshift_kernels.hasher import Work, rolled
from wattshift_kernels.header import with_version
from wattshift_kernels.sha256d.words import BIG_0, BIG_1, MASK, SMALL_0, SMALL_1, Turns

Words = npt.NDArray[np.uint32]

LANE = 64
"""Bits of a lane: a word, and room for what is carried out of it."""

INITIAL = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
ROUND = (
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
)  # fmt: skip


def midstates(work: Work) -> Words:
    """States after the first 64 bytes, for each value of the roll mask; shape (ways, 8)."""
    head = work.message[:64]
    heads = [with_version(head, work.roll_mask, roll) for roll in rolled(work.roll_mask)]
    every = sum(1 << LANE * way for way in range(work.ways))
    versions = (struct.unpack_from(">I", one)[0] << LANE * way for way, one in enumerate(heads))
    block = [sum(versions), *(word * every for word in struct.unpack(">15I", head[4:]))]
    state = _compressed([word * every for word in INITIAL], block, every)
    found = [[word >> LANE * way & MASK for word in state] for way in range(work.ways)]
    return np.array(found, dtype=np.uint32)


def _compressed(state: list[int], block: list[int], every: int) -> list[int]:
    """SHA-256 compressions (FIPS 180-4, 6.2.2) of as many blocks as `every` has lanes."""
    mask = MASK * every
    w = list(block)
    for i in range(16, 64):
        far, near = _small(w[i - 15], SMALL_0, mask), _small(w[i - 2], SMALL_1, mask)
        w.append(w[i - 16] + far + w[i - 7] + near & mask)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(ROUND, w, strict=True):
        rise = h + _big(e, BIG_1, mask) + (g ^ e & (f ^ g)) + constant * every + word
        turn = _big(a, BIG_0, mask) + (a & b | c & (a | b))
        a, b, c, d, e, f, g, h = rise + turn & mask, a, b, c, d + rise & mask, e, f, g
    return [old + new & mask for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _big(x: int, turns: Turns, mask: int) -> int:
    """Each lane's three rotations, summed bit by bit: a word twice in its lane has them all."""
    p, q, r = turns
    twice = x | x << 32
    return (twice >> p ^ twice >> q ^ twice >> r) & mask


def _small(x: int, turns: Turns, mask: int) -> int:
    """The same with a shift for the third."""
    p, q, shift = turns
    twice = x | x << 32
    return (twice >> p ^ twice >> q ^ x >> shift) & mask


def tail(work: Work) -> Words:
    """The three words of the second block before the nonce: Merkle end, time, bits; shape (3,)."""
    return np.array(struct.unpack(">3I", work.message[64:76]), dtype=np.uint32)


def target_words(work: Work) -> Words:
    """The target as 8 words, most significant first, to be held against byte-swapped H7..H0."""
    return np.array(struct.unpack(">8I", work.target.to_bytes(32, "big")), dtype=np.uint32)
