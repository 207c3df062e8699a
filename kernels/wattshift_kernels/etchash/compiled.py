"""The reference's inner loops, compiled by numba: Keccak, the cache, and rows of the table from it.

Written from the definition (Ethereum wiki, "Ethash"; FIPS 202 for Keccak-f), apart from the
kernels' code. Ethash pads as Keccak's submission did, with 0x01 first, and not as FIPS 202 does.
Only `reference` imports this module: numba takes its time to load.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from llvmlite.ir import ArrayType
from numba import njit
from numba.core.cgutils import global_constant
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from wattshift_kernels.kheavyhash.keccak import LANES, MOVES, OFFSETS, ROUND_CONSTANTS

Words = np.ndarray[Any, np.dtype[np.uint64]]
"""A cache is (rows, 8) of them, little-endian; a digest of Keccak-512 is 8, of Keccak-256 4."""

PRIME = np.uint32(0x01000193)
PARENTS = 256
ACCESSES = 64

_constant: Any = global_constant


def _compiled(signature: str) -> Callable[[Any], Any]:
    """The decorator: from numba's cache in milliseconds, else compiled in a second or two.

    Where the cache cannot be written (a read-only container), it is compiled in each process.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except (RuntimeError, OSError):
            return njit(signature, nogil=True)(function)

    return decorate


def _round(ir: Any, lane: Sequence[Any], constant: Any) -> list[Any]:
    """A round of Keccak-f as instructions; lane x + 5 y."""

    def turn(word: Any, left: int) -> Any:
        if not left:
            return word
        return ir.or_(ir.shl(word, word.type(left)), ir.lshr(word, word.type(64 - left)))

    column = [reduce(ir.xor, lane[x::5]) for x in range(5)]
    parity = [ir.xor(column[x - 1], turn(column[(x + 1) % 5], 1)) for x in range(5)]
    moved: list[Any] = [None] * LANES
    for i in range(LANES):
        moved[MOVES[i]] = turn(ir.xor(lane[i], parity[i % 5]), OFFSETS[i])
    after = [[moved[i // 5 * 5 + (i + step) % 5] for step in (1, 2)] for i in range(LANES)]
    mixed = [ir.xor(moved[i], ir.and_(ir.not_(after[i][0]), after[i][1])) for i in range(LANES)]
    mixed[0] = ir.xor(mixed[0], constant)
    return mixed


def _emit(_context: Any, ir: Any, _signature: Any, arguments: Sequence[Any]) -> Any:
    """The loop over the rounds, each lane a value of its own: numba would leave them in memory."""
    (state,) = arguments
    word, rounds = state.type.element, len(ROUND_CONSTANTS)
    constants = _constant(ir, "keccak", ArrayType(word, rounds)(ROUND_CONSTANTS))
    before, loop, after = ir.block, ir.append_basic_block(), ir.append_basic_block()
    first = [word(0), *(ir.extract_value(state, i) for i in range(LANES))]
    ir.branch(loop)
    ir.position_at_end(loop)
    values = [ir.phi(word) for _ in first]
    number, *lanes = values
    lanes = _round(ir, lanes, ir.load(ir.gep(constants, [word(0), number])))
    following = [ir.add(number, word(1)), *lanes]
    for value, from_before, from_loop in zip(values, first, following, strict=True):
        value.add_incoming(from_before, before)
        value.add_incoming(from_loop, loop)
    ir.cbranch(ir.icmp_unsigned("<", following[0], word(rounds)), loop, after)
    ir.position_at_end(after)
    for i, lane in enumerate(lanes):
        state = ir.insert_value(state, lane, i)
    return state


def _typed(_context: Any, state: Any) -> tuple[Any, Any]:
    return state(state), _emit


_keccak_f: Any = intrinsic(_typed)
_as_tuple: Any = to_fixed_tuple


@_compiled("void(uint64[::1])")
def _permute(state: Any) -> None:
    """Keccak-f[1600] in place."""
    lanes = _keccak_f(_as_tuple(state, LANES))
    for i in range(LANES):
        state[i] = lanes[i]


@_compiled("void(uint64[::1], uint64[::1])")
def keccak(message: Any, digest: Any) -> None:
    """Keccak of a message of whole words, less than a block: with 4 words of digest or with 8.

    Loops, here and below, since numba takes seconds to compile what is assigned by slices.

    `digest` may be the message's own memory.
    """
    state = np.zeros(25, dtype=np.uint64)
    rate = 25 - 2 * digest.size
    for i in range(message.size):
        state[i] = message[i]
    state[message.size] ^= np.uint64(1)
    state[rate - 1] ^= np.uint64(1) << np.uint64(63)
    _permute(state)
    for i in range(digest.size):
        digest[i] = state[i]


@_compiled("void(uint64[:, ::1], int64, int64)")
def advance(cache: Any, first: int, count: int) -> None:
    """Steps of making a cache whose row 0 is the seed's digest; they are done in order.

    Step i below the number of rows makes row i from the one before. Three more rounds then change
    each row once, by the row before it and one that its own first word names.
    """
    rows = cache.shape[0]
    mixed = np.empty(8, dtype=np.uint64)
    for step in range(max(first, 1), first + count):
        row = step % rows
        before = (row + rows - 1) % rows
        if step < rows:
            keccak(cache[before], cache[row])
        else:
            other = np.int64(np.uint32(cache[row, 0])) % rows
            for word in range(8):
                mixed[word] = cache[before, word] ^ cache[other, word]
            keccak(mixed, cache[row])


@_compiled("uint32(uint32, uint32)")
def _fnv(x: Any, y: Any) -> Any:
    """Ethash's own kind of FNV. numba multiplies in 64 bits."""
    return np.uint32(x * PRIME ^ y)


@_compiled("void(uint32[:, ::1], uint32, uint32[::1])")
def _table_row(cache: Any, number: Any, row: Any) -> None:
    """A row of the table, 16 words."""
    rows = np.uint32(cache.shape[0])
    for word in range(16):
        row[word] = cache[number % rows, word]
    row[0] ^= number
    words = row.view(np.uint64)
    keccak(words, words)
    for parent in range(PARENTS):
        which = _fnv(number ^ np.uint32(parent), row[parent % 16]) % rows
        for word in range(16):
            row[word] = _fnv(row[word], cache[which, word])
    keccak(words, words)


@_compiled("void(uint32[:, ::1], uint32, uint64[::1], uint64[::1], uint64[::1])")
def hashimoto(cache: Any, pages: Any, seed: Any, mix: Any, digest: Any) -> None:
    """From the digest of header and nonce, 8 words, to the mix and the final hash, 4 words each."""
    head = seed.view(np.uint32)
    page = np.empty(32, dtype=np.uint32)
    for word in range(32):
        page[word] = head[word % 16]
    row = np.empty(16, dtype=np.uint32)
    for access in range(ACCESSES):
        which = _fnv(head[0] ^ np.uint32(access), page[access % 32]) % pages
        for half in range(2):
            _table_row(cache, np.uint32(2) * which + np.uint32(half), row)
            for word in range(16):
                page[16 * half + word] = _fnv(page[16 * half + word], row[word])
    short = mix.view(np.uint32)
    for i in range(8):
        first = _fnv(page[4 * i], page[4 * i + 1])
        short[i] = _fnv(_fnv(first, page[4 * i + 2]), page[4 * i + 3])
    whole = np.empty(12, dtype=np.uint64)
    for word in range(8):
        whole[word] = seed[word]
    for word in range(4):
        whole[8 + word] = mix[word]
    keccak(whole, digest)
