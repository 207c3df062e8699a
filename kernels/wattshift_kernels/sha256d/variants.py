"""The variants of the SHA-256d kernel, each with the reason to try it, and which come first where.

Two pipes of an SM can do the work: the ALU pipe any of it, the multiply-add pipe sums, and shifts
as multiplications by powers of two; each takes 64 lanes a clock, and 128 can be issued; the counts
are in docs/kernels.md. What a card gains by a placement is measured on it, and this table says what
to measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Compare = Literal["zero", "top", "all"]
"""What a hit is: the digest's last word is zero; that word, read as the top one, does not exceed
the target's; the whole digest does not exceed it. All but the last report some that are none."""

WAYS_MOST = 16
ZERO_WORD_TARGET = 2**224
"""From this target on, a hit's last word may be other than zero."""

NO_ADDS, TWO_INPUT, EVERY_SECOND, ALL_ADDS = range(4)
"""Levels of `Variant.adds`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to write the rounds.

    Attributes:
        name: for people and caches; unique.
        reason: why it is worth a try.
        loop: over up to WAYS_MOST versions that share a schedule; else one version, straight on.
        compare: what a hit is.
        turned: the outer rotation of a big sigma is left to the sum it goes into, which is one
            instruction (LEA.HI).
        adds: level of sums on the multiply-add pipe: none; those of two; with every second of
            three; all.
        shifts: whether right shifts go there.
        rotates: of every 64 rotations, how many go there, as two instructions each.
        threads: per block.
        blocks_per_sm: that must fit, which bounds the registers.
        hashes_per_thread: of one block; about 100 us of it on an H200 (modelled).
    """

    name: str
    reason: str
    loop: bool = True
    compare: Compare = "zero"
    turned: bool = True
    adds: int = NO_ADDS
    shifts: bool = False
    rotates: int = 0
    threads: int = 256
    blocks_per_sm: int = 3
    hashes_per_thread: int = 8

    def nonces_per_thread(self, ways: int) -> int:
        """For a job of so many ways."""
        return max(1, self.hashes_per_thread // ways)

    def serves(self, ways: int, target: int) -> bool:
        """Whether it finds every hit of such a work."""
        return (self.loop or ways == 1) and (self.compare != "zero" or target < ZERO_WORD_TARGET)


VARIANTS: Sequence[Variant] = (
    Variant(
        "loop-level",
        "as many rotations moved as bring both pipes and the issue to the same load",
        adds=ALL_ADDS, shifts=True, rotates=52,
    ),
    Variant(
        "loop-near",
        "nearly level: a twentieth of the issue stays free, which no scheduler fills wholly",
        adds=ALL_ADDS, shifts=True, rotates=42,
    ),
    Variant(
        "loop-half",
        "the same level where the high word of a product takes the multiply-add pipe two turns",
        adds=ALL_ADDS, shifts=True, rotates=34,
    ),
    Variant(
        "loop-sums",
        "no rotation moved: a tenth less to issue, if the issue is what a chip runs out of first",
        adds=ALL_ADDS, shifts=True,
    ),
    Variant(
        "loop-low-words",
        "no high words of products at all, if a chip has no fast ones",
        adds=ALL_ADDS,
    ),
    Variant(
        "loop-turned",
        "fewest instructions, placed by the compiler: for a chip whose pipes are wide as its issue",
    ),
    Variant(
        "loop-apart",
        "sigmas as they are defined, if a rotation within a sum is slower than the two apart",
        turned=False, adds=ALL_ADDS, shifts=True,
    ),
    Variant(
        "loop-plain",
        "nothing moved or turned: what public kernels have, and what the others are held against",
        turned=False,
    ),
    Variant(
        "loop-top",
        "below difficulty 1: the top word against the target's, at no cost; and for CPUs",
        compare="top",
    ),
    Variant(
        "loop-whole",
        "for the lowest targets: the whole digest, so that what it reports is a hit",
        compare="all",
    ),
    Variant(
        "one-level",
        "one version has nothing to share, so no register is kept for it and more threads fit",
        loop=False, adds=ALL_ADDS, shifts=True, rotates=44, blocks_per_sm=5, hashes_per_thread=6,
    ),
    Variant(
        "one-turned",
        "the same with fewest instructions",
        loop=False, blocks_per_sm=5, hashes_per_thread=6,
    ),
)  # fmt: skip

FOR_LOW_TARGETS = ("loop-top", "loop-whole")
"""Behind all others: where a zero word is not enough, these serve."""

TWO_PIPES = (
    "loop-level",
    "loop-near",
    "loop-half",
    "loop-sums",
    "one-level",
    "loop-apart",
    "loop-turned",
)
WIDE_ALU = ("loop-turned", "one-turned", "loop-sums", "loop-level", "one-level")

FIRST: Mapping[int, Sequence[str]] = {
    80: TWO_PIPES, 86: TWO_PIPES, 89: TWO_PIPES, 90: TWO_PIPES, 100: TWO_PIPES, 120: WIDE_ALU,
}  # fmt: skip
"""By compute capability, times ten, what is worth measuring, most promising first.

From 8.0 to 9.0 both pipes take 64 lanes a clock, and 10.0 is taken for the same. For 12.0 the
compiler itself places next to no sum on the multiply-add pipe, which says that its other pipe is
wider; there the fewest instructions go first. No order was measured on a card.
"""


def ordered(capability: int) -> tuple[Variant, ...]:
    """What to try on a card, most promising first, and last what serves low targets.

    Args:
        capability: compute capability times ten, 90 for sm_90; one that is not in the table is
            taken for the next lower one there.
    """
    known = max((one for one in FIRST if one <= capability), default=min(FIRST))
    return tuple(by_name(name) for name in (*FIRST[known], *FOR_LOW_TARGETS))


def by_name(name: str) -> Variant:
    """Raises ValueError naming those known."""
    for variant in VARIANTS:
        if variant.name == name:
            return variant
    raise ValueError(f"no variant {name}: {', '.join(v.name for v in VARIANTS)}")
