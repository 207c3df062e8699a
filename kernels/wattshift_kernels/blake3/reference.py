"""BLAKE3 in plain Python, from the paper: what every kernel is held against.

A block of Alephium is hashed as BLAKE3(BLAKE3(nonce || header)), and belongs to the chain that the
last byte of that says: modulo 16, the group it goes from times four, plus the group it goes to.
Sources: the BLAKE3 paper, 2.1 to 2.3; Alephium's full node, `PoW`, `BlockHash` and `ChainIndex`.
"""

from collections.abc import Sequence

from wattshift_kernels.at_once import PlainHasher

IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
"""How the words of a block are reordered after each round."""

ROUNDS = 7
BLOCK_BYTES = 64
CHUNK_BYTES = 1024
CHUNK_START, CHUNK_END, ROOT = 1, 2, 8
WORD = 2**32 - 1

FIXED_BYTES = 20
COUNTED_BYTES = 4
"""Of the nonce of 24 bytes."""

GROUP_BYTES = 2
"""At the end of a message, one for the group that a block goes from and one for that it goes to."""

GROUPS = 4
"""Alephium's, which make 16 chains: one from each group to each."""

State = list[int]

_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_MIXINGS = tuple((*where, 2 * i) for i, where in enumerate(_COLUMNS + _DIAGONALS))


class ReferenceHasher(PlainHasher):
    """BLAKE3 by this module, about a thousand hashes a second."""

    def __init__(self) -> None:
        """Nothing to prepare."""
        super().__init__("blake3", 1)


def header(message: bytes, low: int) -> bytes:
    """What is hashed first: the nonce with its last 4 bytes, and the header without its groups.

    Raises:
        ValueError: the message is too short to be one, or what is hashed is more than a chunk.
    """
    if not FIXED_BYTES + GROUP_BYTES <= len(message) <= CHUNK_BYTES + GROUP_BYTES - COUNTED_BYTES:
        raise ValueError(f"no message of Alephium: {len(message)} bytes")
    return (
        message[:FIXED_BYTES]
        + low.to_bytes(COUNTED_BYTES, "big")
        + message[FIXED_BYTES:-GROUP_BYTES]
    )


def chain(message: bytes) -> int:
    """The chain that a message's last two bytes ask for.

    Raises:
        ValueError: one of them is no group.
    """
    from_group, to_group = message[-GROUP_BYTES:]
    if from_group >= GROUPS or to_group >= GROUPS:
        raise ValueError(f"groups {from_group} and {to_group}: there are {GROUPS}")
    return from_group * GROUPS + to_group


def chain_of(digest: bytes) -> int:
    """The chain that a hash falls on; the node takes two bytes, of which 16 leaves the last."""
    return digest[-1] % (GROUPS * GROUPS)


def twice(message: bytes) -> bytes:
    """BLAKE3 of BLAKE3."""
    return blake3(blake3(message))


def blake3(message: bytes) -> bytes:
    """32 bytes of BLAKE3. Raises ValueError when the message has more than a chunk of 1,024."""
    if len(message) > CHUNK_BYTES:
        raise ValueError(f"{len(message)} bytes are more than a chunk of BLAKE3")
    starts = range(0, len(message), BLOCK_BYTES) or range(1)
    cv: Sequence[int] = IV
    for start in starts:
        block = message[start : start + BLOCK_BYTES]
        flags = (start == starts[0]) * CHUNK_START + (start == starts[-1]) * (CHUNK_END | ROOT)
        cv = compress(cv, words(block), len(block), flags)
    return b"".join(word.to_bytes(4, "little") for word in cv)


def words(block: bytes) -> State:
    """A block, filled up with zeros, as 16 words."""
    block = block.ljust(BLOCK_BYTES, b"\0")
    return [int.from_bytes(block[i : i + 4], "little") for i in range(0, BLOCK_BYTES, 4)]


def compress(cv: Sequence[int], block: State, size: int, flags: int) -> State:
    """The chaining value after one block of the first chunk."""
    v = [*cv, *IV[:4], 0, 0, size, flags]
    for _ in range(ROUNDS):
        for a, b, c, d, at in _MIXINGS:  # no calls: nearly all of the time goes here
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + block[at]) & WORD
            vd ^= va
            vd = vd >> 16 | (vd << 16 & WORD)
            vc = (vc + vd) & WORD
            vb ^= vc
            vb = vb >> 12 | (vb << 20 & WORD)
            va = (va + vb + block[at + 1]) & WORD
            vd ^= va
            vd = vd >> 8 | (vd << 24 & WORD)
            vc = (vc + vd) & WORD
            vb ^= vc
            v[a], v[b], v[c], v[d] = va, vb >> 7 | (vb << 25 & WORD), vc, vd
        block = [block[i] for i in ORDER]
    return [v[i] ^ v[8 + i] for i in range(8)]
