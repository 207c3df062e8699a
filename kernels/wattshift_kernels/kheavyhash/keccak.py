"""Keccak-f[1600] and cSHAKE256 in plain Python, from FIPS 202 and NIST SP 800-185.

hashlib knows SHAKE, but not the customised one, nor a state to begin from.
"""

from collections.abc import Iterator, Sequence
from functools import cache

LANES = 25
RATE_BYTES = 136
WORD = 2**64 - 1

FIRST_PAD = 0x04
"""What ends the message of a cSHAKE; a SHAKE's ends in 0x1f."""


def _round_constants() -> Iterator[int]:
    """Those of iota, from the shift register of FIPS 202 §3.2.5."""
    register = 1
    for _ in range(24):
        constant = 0
        for j in range(7):
            if register & 1:
                constant |= 1 << (2**j - 1)
            register = (register << 1) ^ (0x171 if register & 0x80 else 0)
        yield constant


def _offsets() -> list[int]:
    """By lane x + 5 y, how far rho turns it (FIPS 202 §3.2.2)."""
    offsets = [0] * LANES
    x, y = 1, 0
    for t in range(24):
        offsets[x + 5 * y] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return offsets


ROUND_CONSTANTS = tuple(_round_constants())
OFFSETS = tuple(_offsets())
MOVES = tuple(i // 5 + 5 * ((2 * (i % 5) + 3 * (i // 5)) % 5) for i in range(LANES))
"""By lane, where pi moves it (FIPS 202 §3.2.3)."""

_FROM = tuple(MOVES.index(i) for i in range(LANES))
_STEPS = tuple((i, i % 5, OFFSETS[i], 64 - OFFSETS[i]) for i in _FROM)
"""In the order of where they go: lane, its column, how far it is turned left, and what is left."""


def rotate(value: int, left: int) -> int:
    """A word of 64 bits turned left."""
    return (value << left | value >> (64 - left)) & WORD


def mixed(state: Sequence[int]) -> list[int]:
    """The linear part of a round: theta, rho and pi."""
    column = [
        state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20] for x in range(5)
    ]
    parity = [column[x - 1] ^ rotate(column[(x + 1) % 5], 1) for x in range(5)]
    moved = []
    for lane, x, left, right in _STEPS:  # no call of `rotate`: nearly all of the time goes here
        turned = state[lane] ^ parity[x]
        moved.append((turned << left | turned >> right) & WORD)
    return moved


def permuted(state: Sequence[int]) -> list[int]:
    """Keccak-f[1600] of 25 lanes, lane x + 5 y."""
    for constant in ROUND_CONSTANTS:
        m = mixed(state)
        state = []
        for i in range(0, LANES, 5):
            a, b, c, d, e = m[i : i + 5]
            state += (a ^ (~b & c), b ^ (~c & d), c ^ (~d & e), d ^ (~e & a), e ^ (~a & b))
        state[0] ^= constant
    return list(state)


def absorbed(state: Sequence[int], block: bytes) -> list[int]:
    """The state with a block of at most RATE_BYTES xored in, not yet permuted."""
    block = block.ljust(8 * LANES, b"\0")
    words = [int.from_bytes(block[i : i + 8], "little") for i in range(0, 8 * LANES, 8)]
    return [old ^ new for old, new in zip(state, words, strict=True)]


@cache
def domain(custom: bytes, name: bytes = b"") -> tuple[int, ...]:
    """The state after cSHAKE256 has absorbed its function name and its customisation.

    Raises:
        ValueError: they do not fit a block.
    """
    head = bytes([1, RATE_BYTES])
    for text in (name, custom):
        bits = 8 * len(text)
        size = max(1, -(-bits.bit_length() // 8))
        head += bytes([size]) + bits.to_bytes(size, "big") + text
    if len(head) > RATE_BYTES:
        raise ValueError("a customisation longer than a block")
    return tuple(permuted(absorbed([0] * LANES, head)))


def padded(message: bytes) -> bytes:
    """The last block of a cSHAKE256. Raises ValueError when the message needs another one."""
    if len(message) >= RATE_BYTES:
        raise ValueError("a message longer than a block")
    block = bytearray((message + bytes([FIRST_PAD])).ljust(RATE_BYTES, b"\0"))
    block[-1] |= 0x80
    return bytes(block)


def cshake256(message: bytes, custom: bytes, name: bytes = b"") -> bytes:
    """The first 32 bytes of cSHAKE256 of a message of less than one block."""
    ends = permuted(absorbed(domain(custom, name), padded(message)))
    return b"".join(lane.to_bytes(8, "little") for lane in ends[:4])
