"""SHA-256d of sixteen nonces at a time, written as vectors and compiled by numba.

A loop over nonces in Python syntax leaves it to the compiler to see that the rounds can run side by
side, and it does not see it. So the rounds are emitted here as LLVM vector instructions: Python
loops over the 64 rounds once, while compiling. LLVM then folds the padding, hoists what does not
depend on the nonce, and drops the last rounds, of which only one word is asked. Sixteen lanes fill
an AVX-512 register; on narrower machines LLVM splits them.

Only `sha256d.cpu` imports this module: it needs numba, which takes its time to load.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from wattshift_kernels.sha256d.midstate import INITIAL, ROUND, Words

LANES = 16
STATE_WORDS = 8
COMMON_WORDS = 4

Search = Callable[[Words, Words, int, int, int, Words], tuple[int, int]]
"""(midstates, common, start, first, count, found) -> (found, offset reached); see `_search`."""

_SIGNATURE = "UniTuple(int64, 2)(uint32[:, ::1], uint32[::1], int64, int64, int64, uint32[:, ::1])"
_WORD = ir.IntType(32)
_VECTOR = ir.VectorType(_WORD, LANES)


class _Emitter:
    """Writes SHA-256 (FIPS 180-4 §6.2.2) as vector instructions; every value is sixteen words."""

    def __init__(self, builder: Any) -> None:
        self._ir = builder

    def constant(self, word: int) -> Any:
        return ir.Constant(_VECTOR, [word] * LANES)

    def spread(self, word: Any) -> Any:
        """One word copied to every lane."""
        zero = ir.Constant(_WORD, 0)
        first = self._ir.insert_element(ir.Constant(_VECTOR, ir.Undefined), word, zero)
        return self._ir.shuffle_vector(first, first, self.constant(0))

    def sum(self, first: Any, *rest: Any) -> Any:
        for term in rest:
            first = self._ir.add(first, term)
        return first

    def rotate(self, value: Any, right: int) -> Any:
        low = self._ir.lshr(value, self.constant(right))
        return self._ir.or_(low, self._ir.shl(value, self.constant(32 - right)))

    def big_sigma(self, value: Any, *rights: int) -> Any:
        first, second, third = (self.rotate(value, right) for right in rights)
        return self._ir.xor(self._ir.xor(first, second), third)

    def small_sigma(self, value: Any, first: int, second: int, shift: int) -> Any:
        turned = self._ir.xor(self.rotate(value, first), self.rotate(value, second))
        return self._ir.xor(turned, self._ir.lshr(value, self.constant(shift)))

    def swap_bytes(self, value: Any) -> Any:
        outer = self._ir.and_(self.rotate(value, 8), self.constant(0xFF00FF00))
        return self._ir.or_(outer, self._ir.and_(self.rotate(value, 24), self.constant(0x00FF00FF)))

    def choose(self, selector: Any, ones: Any, zeros: Any) -> Any:
        return self._ir.xor(zeros, self._ir.and_(selector, self._ir.xor(ones, zeros)))

    def majority(self, x: Any, y: Any, z: Any) -> Any:
        return self._ir.or_(self._ir.and_(x, y), self._ir.and_(z, self._ir.or_(x, y)))

    def compress(self, state: Sequence[Any], block: Sequence[Any]) -> list[Any]:
        words = list(block)
        for i in range(16, 64):
            near = self.small_sigma(words[i - 2], 17, 19, 10)
            far = self.small_sigma(words[i - 15], 7, 18, 3)
            words.append(self.sum(words[i - 16], far, words[i - 7], near))
        a, b, c, d, e, f, g, h = state
        for word, constant in zip(words, ROUND, strict=True):
            known = self.sum(word, self.constant(constant))
            rise = self.sum(h, known, self.big_sigma(e, 6, 11, 25), self.choose(e, f, g))
            turn = self.sum(self.big_sigma(a, 2, 13, 22), self.majority(a, b, c))
            a, b, c, d, e, f, g, h = self.sum(rise, turn), a, b, c, self.sum(d, rise), e, f, g
        ends = (a, b, c, d, e, f, g, h)
        return [self.sum(old, new) for old, new in zip(state, ends, strict=True)]

    def padding(self, message_words: int, bits: int) -> list[Any]:
        """What follows the message in its last block: one bit, zeros, and the length."""
        zeros = [self.constant(0)] * (14 - message_words)
        return [self.constant(0x80000000), *zeros, self.constant(bits)]


def _emit(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:
    """Instructions for sixteen nonces: bit i of the result says that lane i passed."""
    state_words, common_words, first_nonce = arguments
    emit = _Emitter(builder)
    state = [emit.spread(builder.extract_value(state_words, i)) for i in range(STATE_WORDS)]
    common = [emit.spread(builder.extract_value(common_words, i)) for i in range(COMMON_WORDS)]
    lane = ir.Constant(_VECTOR, list(range(LANES)))
    nonces = emit.swap_bytes(emit.sum(emit.spread(first_nonce), lane))
    inner = emit.compress(state, [*common[:3], nonces, *emit.padding(4, 640)])
    initial = [emit.constant(word) for word in INITIAL]
    outer = emit.compress(initial, [*inner, *emit.padding(8, 256)])
    passed = builder.icmp_unsigned("<=", emit.swap_bytes(outer[7]), common[3])
    return builder.zext(builder.bitcast(passed, ir.IntType(LANES)), _WORD)


def _typed(_context: Any, state: Any, common: Any, first_nonce: Any) -> tuple[Any, Any]:
    return types.uint32(state, common, first_nonce), _emit


_passing_lanes: Any = intrinsic(_typed)
_as_tuple: Any = to_fixed_tuple


def _search(
    midstates: Words, common: Words, start: int, first: int, count: int, found: Words
) -> tuple[int, int]:
    """Tries nonces start + first .. start + count - 1 and stops early when `found` is nearly full.

    The schedule of the second block depends on the nonces alone, so LLVM takes it out of the loop
    over the ways.

    Args:
        midstates: 8 words for each way.
        common: tail (3 words), and the most significant word of the target.
        start: nonce at offset 0.
        first: offset to begin at.
        found: takes each nonce whose hash has a top word no greater than the target's, and its way.

    Returns:
        How many were written, and the offset that the next call begins at.
    """
    ways = midstates.shape[0]
    same = _as_tuple(common, COMMON_WORDS)
    hits = 0
    offset = first
    while offset < count and hits + LANES * ways <= found.shape[0]:
        for way in range(ways):
            state = _as_tuple(midstates[way], STATE_WORDS)
            lanes = _passing_lanes(state, same, np.uint32(start + offset))
            if lanes:
                for lane in range(LANES):
                    if (lanes >> lane) & 1 and offset + lane < count:
                        found[hits, 0] = start + offset + lane
                        found[hits, 1] = way
                        hits += 1
        offset += LANES
    return hits, min(offset, count)


@cache
def compiled() -> Search:
    """The compiled search: from numba's cache in milliseconds, else compiled in about 3 s.

    numba keeps it beside this file, else in the user's cache folder, or in NUMBA_CACHE_DIR. Where
    none of these can be written (a read-only container), it is compiled anew in each process.
    """
    try:
        search = njit(_SIGNATURE, nogil=True, cache=True)(_search)
    except (RuntimeError, OSError):
        search = njit(_SIGNATURE, nogil=True)(_search)
    typed: Search = search
    return typed
