"""Autolykos v2 as one of the algorithms: its digest, a known answer, its hashers."""

import hashlib

from wattshift_kernels.algorithms import Algorithm, Known
from wattshift_kernels.autolykos2.reference import TRIAL_HEIGHT, digest, table_bytes
from wattshift_kernels.hasher import Hasher, Work

__all__ = ["ALGORITHM", "table_bytes"]

AROUND = 20
"""Nonces searched on both sides of the known one."""

ANSWER = (
    "548c3e602a8f36f8f2738f5f643b02425038044d98543a51cabaa9785e7e864f",
    3_620,
    "001077b4e5806e051a7d93327c98a373880e63c9becf4c34c6610c815444d061",
)
"""Message, nonce and hit over the small table of TRIAL_HEIGHT. Worked out by `reference`, which the
tests hold against published vectors; so it also tells of a reference that is wrong on this
machine."""

TRIAL_TARGET = 2**256 // 32
TRIAL_NONCES = 300
"""A quarter of a second of the reference."""


def value(of: bytes) -> int:
    """A digest as the integer that is held against the target."""
    return int.from_bytes(of, "big")


def known() -> tuple[Known, ...]:
    """The answer, at a target that its hit just meets."""
    message, nonce, hit = ANSWER
    target = value(bytes.fromhex(hit))
    work = Work(bytes.fromhex(message) + bytes(4), target, "autolykos2", TRIAL_HEIGHT)
    return (Known("the small table", work, (nonce - AROUND, 2 * AROUND + 1), ((nonce, 0),)),)


def trial(number: int) -> Work:
    """A random message; one nonce in 32 is a hit."""
    message = hashlib.sha256(b"autolykos2 %d" % number).digest() + b"%04d" % number
    return Work(message, TRIAL_TARGET, "autolykos2", TRIAL_HEIGHT)


def _cuda() -> Hasher:
    from wattshift_kernels.autolykos2.cuda import CudaHasher

    return CudaHasher()


def _native() -> Hasher:
    from wattshift_kernels.autolykos2.cpu import CpuHasher

    return CpuHasher()


def _reference() -> Hasher:
    from wattshift_kernels.at_once import PlainHasher

    return PlainHasher("autolykos2", 1)


ALGORITHM = Algorithm(
    name="autolykos2",
    digest=digest,
    value=value,
    known=known,
    makers=(("cuda", _cuda), ("native", _native), ("reference", _reference)),
    trial=trial,
    trial_nonces=TRIAL_NONCES,
)
