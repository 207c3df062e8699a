"""Known answers that every variant must give before its first use.

Real blocks prove the arithmetic; a random range at a very low difficulty, held against hashlib
nonce by nonce, proves that no hit is lost, none is invented, and the hash count is true. Launches
in flight together must not mix their answers, and a stop must be obeyed: inference relies on it.
"""

import hashlib
from dataclasses import dataclass

from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.header import target_of_nbits
from wattshift_kernels.sha256d.reference import ReferenceHasher

AROUND = 300
"""Nonces searched on both sides of a known one: not a multiple of any lane count."""

RANGE = 4_000
TARGET = 2**248
"""About 16 hits in RANGE."""


@dataclass(frozen=True, slots=True)
class Known:
    """A block whose nonce is known; header without nonce as hex."""

    block: int
    header76: str
    nbits: int
    nonce: int


BLOCKS = (
    Known(
        0,
        "01000000" + "00" * 32
        + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
        + "29ab5f49ffff001d",
        0x1D00FFFF,
        2_083_236_893,
    ),
    Known(
        125_552,
        "01000000"
        + "81cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000"
        + "e320b6c2fffc8d750423db8b1eb942ae710e951ed797f7affc8892b0f1fc122b"
        + "c7f5d74df2b9441a",
        0x1A44B9F2,
        2_504_433_986,
    ),
)  # fmt: skip
"""Genesis, and the block that is the field's common worked example."""


def failure(hasher: Hasher) -> str | None:
    """What a hasher gets wrong, or None if it gives every known answer."""
    try:
        return _blocks(hasher) or _range(hasher) or _flight(hasher) or _stop(hasher)
    except Exception as fault:  # a variant may fail in any way; none of them may stop the others
        return f"it raised {type(fault).__name__}: {fault}"


def _blocks(hasher: Hasher) -> str | None:
    for known in BLOCKS:
        work = Work(bytes.fromhex(known.header76), target_of_nbits(known.nbits))
        start = known.nonce - AROUND
        result = hasher.search(work, start, 2 * AROUND + 1)
        if [hit.nonce for hit in result.hits] != [known.nonce]:
            return f"it did not find the nonce of block {known.block}"
        if result.hashes != 2 * AROUND + 1:
            return f"it counted {result.hashes} hashes of {2 * AROUND + 1}"
    return None


def _low_work(first: int) -> Work:
    seed = b"".join(hashlib.sha256(bytes([first + i])).digest() for i in range(3))
    return Work(seed[:76], TARGET)


def _range(hasher: Hasher) -> str | None:
    work = _low_work(0)
    start = 2**32 - RANGE
    wanted = ReferenceHasher().search(work, start, RANGE)
    found = hasher.search(work, start, RANGE)
    if tuple(sorted(found.hits, key=lambda hit: hit.nonce)) != wanted.hits:
        return f"it found {len(found.hits)} hits where hashlib finds {len(wanted.hits)}"
    if found.hashes != RANGE:
        return f"it counted {found.hashes} hashes of {RANGE}"
    return None


def _flight(hasher: Hasher) -> str | None:
    """Different work in every launch of a full flight."""
    asked = [(_low_work(3 * (1 + i)), 1000 * i, RANGE // (2 + i)) for i in range(hasher.depth)]
    flight = [hasher.begin(*one) for one in asked]
    for launch, (work, start, count) in zip(flight, asked, strict=True):
        found = launch.result()
        wanted = ReferenceHasher().search(work, start, count)
        if (set(found.hits), found.hashes) != (set(wanted.hits), count):
            return f"with {hasher.depth} launches in flight one gave a wrong answer"
    return None


def _stop(hasher: Hasher) -> str | None:
    work, start = _low_work(0), 5
    hasher.stop()
    found = hasher.begin(work, start, RANGE).result()
    hasher.resume()
    if found.hashes or found.hits or found.left != ((start, RANGE),):
        return f"it tried {found.hashes} hashes after it was stopped"
    if hasher.search(work, start, RANGE).hashes != RANGE:
        return "it did not go on after a stop"
    return None
