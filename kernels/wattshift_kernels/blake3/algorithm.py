"""Alephium's BLAKE3 as one of the algorithms: its digest, published vectors, its hashers."""

import hashlib

from wattshift_kernels.algorithms import Algorithm, Known
from wattshift_kernels.blake3.reference import (
    GROUPS,
    ReferenceHasher,
    chain,
    chain_of,
    header,
    twice,
)
from wattshift_kernels.hasher import Hasher, Work

AROUND = 40
"""Nonces searched on both sides of a known one: not a multiple of any lane count."""

BLOCK = (
    "c55b55079d5eb165ee7cc093ffde19f686709062"
    "0007"
    "40d58f8563a6de46fa0efda4670aeb43a451b349d8af1403b341413d5010c0e0"
    "30b0c63cf62aa6cdc1c72e8fc2f31703b8318654b65acaaece48ee503da87845"
    "be73f0505c81184bc4691ee1ffeafaf7fbb091f412d500fc882aeecc8929e1fa"
    "8f8ddaeddfd21b003ad39dfd1d7c4593d7f63d2951aecd16de8a749edf26c23c"
    "6d258ca53dbe960adf19f899248e1d60c83ac65aac323a4ff195541b84ccfb4d"
    "4862925410e6951836bd8808b94a8492ca5d718ec642d375f170e5b3b8ca51ce"
    "c5a260997400e9512b6e1ca41c18653580e39ecdbd33c26f9ee971b6f2bb96cf"
    "e500d692f7fe6daa400b81d4f78b300f78fbf926a20c03b51ada40b37f441ded"
    "72913f92b28be354026409f9b7c0d11e2b763c99de5bb0eeb1bd9a6b92aabee8"
    "00000180cbfbea2d20ffffff"
    "0303"
)
VECTORS = (
    (
        "a block of a development network",
        BLOCK,
        0x1D16EF61,
        "08041abb8bc8d06c6b840ceb345a4f8953a9fbf9c32c08be34a63c93fd8dfcdf",
    ),
    (
        "nonce 1352 of zeros",
        "4805" + "00" * 320 + "0003",
        0,
        "0003119e5bf02115e1c8496008fbbcec4884e0be7f9dc372cd4316a51d065283",
    ),
)
"""Name, message as `hasher` lays it out, the counted part of the nonce, and the hash. From
Alephium's documentation (its technical guide shows a whole block, at height 12 of chain 3 to 3) and
from the test that stands in `src/blake3.cu` of alephium/gpu-miner."""

TRIAL_TARGET = 2**255
TRIAL_BYTES = 322
TRIAL_NONCES = 125
"""The plain Python needs about a millisecond for each, so these are few and more of them hit."""


def digest(work: Work, nonce: int, roll: int = 0) -> bytes:
    """The block hash, by the reference."""
    return twice(header(work.message, nonce))


def value(final: bytes) -> int:
    """Alephium reads a hash big-endian."""
    return int.from_bytes(final, "big")


def check(work: Work, nonce: int) -> bool:
    """Whether the hash falls on the chain that the work is for."""
    return chain_of(digest(work, nonce)) == chain(work.message)


def known() -> tuple[Known, ...]:
    """The published hashes, each at a target that it meets exactly."""
    found = []
    for name, message, nonce, final in VECTORS:
        work = Work(bytes.fromhex(message), value(bytes.fromhex(final)), "blake3")
        first = max(0, nonce - AROUND)
        found.append(Known(name, work, (first, nonce + AROUND + 1 - first), ((nonce, 0),)))
    return tuple(found)


def trial(number: int) -> Work:
    """Random bytes as a header of the usual length; one hash in 32 meets target and chain."""
    parts = (hashlib.sha256(b"blake3 %d %d" % (number, part)).digest() for part in range(11))
    groups = bytes([number % GROUPS, number // GROUPS % GROUPS])
    return Work(b"".join(parts)[:TRIAL_BYTES] + groups, TRIAL_TARGET, "blake3")


def _cuda() -> Hasher:
    from wattshift_kernels.blake3.cuda import CudaHasher

    return CudaHasher()


def _native() -> Hasher:
    from wattshift_kernels.blake3.cpu import CpuHasher

    return CpuHasher()


ALGORITHM = Algorithm(
    name="blake3",
    digest=digest,
    value=value,
    known=known,
    makers=(("cuda", _cuda), ("native", _native), ("reference", ReferenceHasher)),
    check=check,
    trial=trial,
    trial_nonces=TRIAL_NONCES,
)
"""BLAKE3 twice, Alephium's proof of work."""
