"""Etchash as one of the algorithms: its digest, a known answer, its hashers."""

import hashlib

from wattshift_kernels.algorithms import Algorithm, Known
from wattshift_kernels.etchash.epochs import TRIAL_HEIGHT, table_bytes
from wattshift_kernels.hasher import Hasher, Work

__all__ = ["ALGORITHM", "table_bytes"]

AROUND = 6
"""Nonces searched on both sides of the known one."""

ANSWER = (
    "100cbec5e5ef82991290d0d93d758f19082e71f234cf479192a8b94df6da6bfe",
    0x307692CF_000000D8,
    "0229e1614f2b3e6d5abe9b7a90efed905565a237cd15ca7a88345cc02c72c432",
)
"""Header hash, nonce and digest over the small table of TRIAL_HEIGHT. Worked out by `reference`,
which the tests hold against published vectors; so it also tells of one that is wrong on this
machine.
"""

TRIAL_TARGET = 2**256 // 8
TRIAL_NONCES = 32
"""A quarter of a second of the reference."""


def value(of: bytes) -> int:
    """A digest as the integer that is held against the target."""
    return int.from_bytes(of, "big")


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """See `reference.digest`, which brings numba and is loaded when it is needed."""
    from wattshift_kernels.etchash import reference

    return reference.digest(work, nonce, roll)


def mix_hash(work: Work, nonce: int) -> bytes:
    """See `reference.mix_hash`."""
    from wattshift_kernels.etchash import reference

    return reference.mix_hash(work, nonce)


def known() -> tuple[Known, ...]:
    """The answer, at a target that its digest just meets."""
    header, nonce, found = ANSWER
    message = bytes.fromhex(header) + (nonce >> 32).to_bytes(4, "big")
    low = nonce & 0xFFFFFFFF
    work = Work(message, value(bytes.fromhex(found)), "etchash", TRIAL_HEIGHT)
    return (Known("the small table", work, (low - AROUND, 2 * AROUND + 1), ((low, 0),)),)


def trial(number: int) -> Work:
    """A random header; one nonce in eight is a hit."""
    message = hashlib.sha256(b"etchash %d" % number).digest() + b"%04d" % number
    return Work(message, TRIAL_TARGET, "etchash", TRIAL_HEIGHT)


def _cuda() -> Hasher:
    from wattshift_kernels.etchash.cuda import CudaHasher

    return CudaHasher()


def _native() -> Hasher:
    from wattshift_kernels.etchash.cpu import CpuHasher

    return CpuHasher()


def _reference() -> Hasher:
    from wattshift_kernels.at_once import PlainHasher

    return PlainHasher("etchash", 1)


ALGORITHM = Algorithm(
    name="etchash",
    digest=digest,
    value=value,
    known=known,
    makers=(("cuda", _cuda), ("native", _native), ("reference", _reference)),
    proof=mix_hash,
    trial=trial,
    trial_nonces=TRIAL_NONCES,
)
