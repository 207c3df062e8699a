"""A kernel whose hash is a few loops one after the other, counted by the pipes that execute it.

`sass.hot_loops` knows kernels that hash in straight lines. One that permutes in a loop of rounds
needs to be told how often each of its loops is gone through.
"""

from collections.abc import Sequence
from itertools import pairwise

from wattshift_kernels.sass import CodeUnknown, Instruction, Tally, tally

LOOP_LEAST = 100
"""Instructions of a loop that hashes; what looks after hits is shorter."""

Span = tuple[int, int]
"""Addresses: of where a loop is gone back to, and of the branch that does."""


def per_hash(code: Sequence[Instruction], passes: Sequence[int]) -> Tally:
    """What one hash executes: once through the loop over nonces, each loop within it several times.

    Args:
        code: of a kernel, in order; see `sass.instructions`.
        passes: of each loop within the loop over nonces, in order.

    Raises:
        CodeUnknown: there are not as many loops.
    """
    spans = [span for span in _spans(code) if len(_within(code, span)) >= LOOP_LEAST]
    if not spans:
        raise CodeUnknown("no loop over nonces")
    nonces = max(spans, key=lambda span: span[1] - span[0])
    inner = sorted(span for span in spans if span != nonces)
    apart = all(a[1] < b[0] for a, b in pairwise(inner))
    if len(inner) != len(passes) or not apart:
        raise CodeUnknown(f"{len(inner)} loops within the loop over nonces, not {len(passes)}")
    total = tally(_within(code, nonces))
    for span, times in zip(inner, passes, strict=True):
        total = total.plus(tally(_within(code, span)), times - 1)
    return total


def _spans(code: Sequence[Instruction]) -> list[Span]:
    """All loops; of several branches back to one place the last ends it."""
    ends: dict[int, int] = {}
    for one in code:
        if one.opcode == "BRA" and one.target is not None and one.target < one.address:
            ends[one.target] = max(ends.get(one.target, 0), one.address)
    return list(ends.items())


def _within(code: Sequence[Instruction], span: Span) -> list[Instruction]:
    return [one for one in code if span[0] <= one.address <= span[1]]
