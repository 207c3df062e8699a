"""kHeavyHash as one of the algorithms: its digest, published vectors, its hashers."""

import hashlib

from wattshift_kernels.algorithms import Algorithm, Known
from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.kheavyhash.reference import ReferenceHasher, kheavyhash

AROUND = 40
"""Nonces searched on both sides of a known one: not a multiple of any lane count."""

VECTORS = (
    (
        "2a24f71bf6b01e4191cb3604e93ffd0a3b881acd10afe4a5a6aeccc5299be903"
        + "fa734f6995010000" + "c63c04c8",
        0xBA806A1E,
        "5ab3b42538a92b352ffe7258bc5cfa7bb2910386521f0c880600000000000000",
    ),
    (
        "b38e5d1c36b41c0aad7e4f050d702c76e724200c0a0ce427622c12de90082fd3"
        + "08a6306a95010000" + "6410f71b",
        0x4F05A41A,
        "78598ee69a3163d60fc5ba7072bb15dcc61bffc5fd9d854d0500000000000000",
    ),
)  # fmt: skip
"""Shares of early 2025 from the tests of bcutil/kheavyhash (the 4th and the 7th there): message as
`hasher` lays it out, the counted half of the nonce, and the hash."""

TRIAL_TARGET = 2**251
TRIAL_NONCES = 125
"""The plain Python needs about a millisecond for each, so these are few and more of them hit."""


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """The final hash, by the reference."""
    return kheavyhash(work.message, nonce)


def value(final: bytes) -> int:
    """Kaspa reads a hash little-endian."""
    return int.from_bytes(final, "little")


def known() -> tuple[Known, ...]:
    """The published shares, each at a target that it meets exactly."""
    found = []
    for i, (message, nonce, final) in enumerate(VECTORS):
        work = Work(bytes.fromhex(message), value(bytes.fromhex(final)), "kheavyhash")
        nonces = (nonce - AROUND, 2 * AROUND + 1)
        found.append(Known(f"published share {i + 1}", work, nonces, ((nonce, 0),)))
    return tuple(found)


def trial(number: int) -> Work:
    """Random bytes as a message, at one hit in 32 hashes."""
    parts = (hashlib.sha256(b"kheavyhash %d %d" % (number, part)).digest() for part in range(2))
    return Work(b"".join(parts)[:44], TRIAL_TARGET, "kheavyhash")


def _cuda() -> Hasher:
    from wattshift_kernels.kheavyhash.cuda import CudaHasher

    return CudaHasher()


def _native() -> Hasher:
    from wattshift_kernels.kheavyhash.cpu import CpuHasher

    return CpuHasher()


ALGORITHM = Algorithm(
    name="kheavyhash",
    digest=digest,
    value=value,
    known=known,
    makers=(("cuda", _cuda), ("native", _native), ("reference", ReferenceHasher)),
    trial=trial,
    trial_nonces=TRIAL_NONCES,
)
"""kHeavyHash, Kaspa's proof of work."""
