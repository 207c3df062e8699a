"""SHA-256d as one of the algorithms: its digest by hashlib, known blocks, its hashers."""

import hashlib
from importlib import resources
from importlib.metadata import PackageNotFoundError, version

from wattshift_kernels.algorithms import Algorithm, Known
from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.header import (
    hash_value,
    sha256d,
    target_of_nbits,
    with_nonce,
    with_version,
)

AROUND = 150
"""Nonces searched on both sides of a known one: not a multiple of any lane count."""

TRIAL_TARGETS = (2**248, 2**224 - 1)
"""At 16 hits in 4,096 hashes, and where a kernel may look for a last word of zero alone."""

TRIAL_MASKS = (0, 0x0001_4000, 0x0600_C000, 0x2000)
"""Of the trials in turn: 1, 4, 16 and 2 ways, by bits that BIP 320 leaves to miners."""

KNOWN_MASKS = (0, 0x6000, 0x1E00_0000)

WAY_BITS = ((21, 20), (23, 22), (24, 25), (26, 27))
"""Of the last block's version, in pairs: one that is 0, one that is 1. A mask with one of each pair
puts the block at any of sixteen ways, so each of them is proven by a hit."""

NEAR = 8
"""Nonces on both sides there."""

BLOCKS = (
    (
        "block 0",
        "01000000" + "00" * 32
        + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
        + "29ab5f49ffff001d",
        0x1D00FFFF,
        2_083_236_893,
    ),
    (
        "block 125552",
        "01000000"
        + "81cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000"
        + "e320b6c2fffc8d750423db8b1eb942ae710e951ed797f7affc8892b0f1fc122b"
        + "c7f5d74df2b9441a",
        0x1A44B9F2,
        2_504_433_986,
    ),
    (
        "block 840000",
        "00e05f2a"
        + "ab948491071265ad552351d0ad625745668da54b017201000000000000000000"
        + "4f89a5d73bd4d4887f25981fe81892ccafda10c27f52d6f3dd28183a7c411b03"
        + "b707236619420317",
        0x17034219,
        3_932_395_645,
    ),
)  # fmt: skip
"""Genesis, the block that is the field's common worked example, and one whose version was rolled:
name, header without nonce, bits, nonce."""


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """The header hash of a nonce under the version that `roll` gives, by hashlib."""
    head = work.message
    if work.roll_mask:
        head = with_version(head, work.roll_mask, roll)
    return sha256d(with_nonce(head, nonce))


def known() -> tuple[Known, ...]:
    """The blocks as they are, and found among others that differ in version bits, at each way."""
    found = []
    for name, head, nbits, nonce in BLOCKS:
        message = bytes.fromhex(head)
        version = int.from_bytes(message[:4], "little")
        for mask in KNOWN_MASKS:
            work = Work(message, target_of_nbits(nbits), roll_mask=mask)
            nonces = (nonce - AROUND, 2 * AROUND + 1)
            found.append(Known(name, work, nonces, ((nonce, version & mask),)))
    for way in range(1 << len(WAY_BITS)):
        mask = sum(1 << pair[way >> i & 1] for i, pair in enumerate(WAY_BITS))
        work = Work(message, target_of_nbits(nbits), roll_mask=mask)
        nonces = (nonce - NEAR, 2 * NEAR + 1)
        found.append(Known(f"{name}, way {way}", work, nonces, ((nonce, version & mask),)))
    return tuple(found)


def trial(number: int) -> Work:
    """Random bytes as a header."""
    parts = (hashlib.sha256(b"%d %d" % (number, part)).digest() for part in range(3))
    target = TRIAL_TARGETS[number // len(TRIAL_MASKS) % len(TRIAL_TARGETS)]
    mask = TRIAL_MASKS[number % len(TRIAL_MASKS)]
    return Work(b"".join(parts)[:76], target, roll_mask=mask)


def _cuda() -> Hasher:
    from wattshift_kernels.sha256d.cuda import CudaHasher

    return CudaHasher()


def _native() -> Hasher:
    from wattshift_kernels.sha256d.vectors import VectorHasher

    return VectorHasher()


def _numba() -> Hasher:
    from wattshift_kernels.sha256d.cpu import NumbaHasher

    return NumbaHasher()


def _numba_version() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:
        return "none"


def _cpu() -> Hasher:
    from wattshift_kernels.autotune import Kept
    from wattshift_kernels.native import host
    from wattshift_kernels.rivals import fastest
    from wattshift_kernels.sha256d import vectors

    lanes = (resources.files("wattshift_kernels.sha256d") / "lanes.py").read_text("utf-8")
    kept = Kept.of("sha256d-cpu", host(), _numba_version(), lanes, vectors.text())
    return fastest((("native", _native), ("numba", _numba)), kept)


def _reference() -> Hasher:
    from wattshift_kernels.sha256d.reference import ReferenceHasher

    return ReferenceHasher()


ALGORITHM = Algorithm(
    name="sha256d",
    digest=digest,
    value=hash_value,
    known=known,
    makers=(
        ("cuda", _cuda),
        ("cpu", _cpu),
        ("native", _native),
        ("numba", _numba),
        ("reference", _reference),
    ),
    trial=trial,
    trials=len(TRIAL_TARGETS) * len(TRIAL_MASKS),
    trial_nonces=2_000,
)
