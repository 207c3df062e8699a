"""SHA-256's functions of words (FIPS 180-4, 4.1.2) on integers, and what a message ends with."""

MASK = 0xFFFFFFFF
END = 0x80000000
"""The word behind a message: its first bit."""

HEADER_BITS, DIGEST_BITS = 640, 256
"""Lengths of what is hashed, which end the padding."""

Turns = tuple[int, int, int]
BIG_0: Turns = (2, 13, 22)
BIG_1: Turns = (6, 11, 25)
SMALL_0: Turns = (7, 18, 3)
SMALL_1: Turns = (17, 19, 10)
"""Rotations to the right; the third of the small ones is a shift."""


def rotated(x: int, n: int) -> int:
    """Rotated right by `n` of 32 bits."""
    return (x >> n | x << 32 - n) & MASK


def big(x: int, turns: Turns) -> int:
    """Sum of three rotations, bit by bit."""
    return rotated(x, turns[0]) ^ rotated(x, turns[1]) ^ rotated(x, turns[2])


def small(x: int, turns: Turns) -> int:
    """The same with a shift for the third."""
    return rotated(x, turns[0]) ^ rotated(x, turns[1]) ^ x >> turns[2]


def ch(e: int, f: int, g: int) -> int:
    """By each bit of `e`, that of `f` or that of `g`."""
    return (e & f) ^ (~e & g)


def maj(a: int, b: int, c: int) -> int:
    """The bit that two of three have."""
    return (a & b) ^ (a & c) ^ (b & c)
