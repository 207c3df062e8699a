"""What a BLAKE3 kernel needs of a job, worked out once on the host."""

import numpy as np

from wattshift_kernels.blake3.reference import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    CHUNK_END,
    CHUNK_START,
    IV,
    ROOT,
    WORD,
    chain,
    header,
    words,
)
from wattshift_kernels.hasher import Work
from wattshift_kernels.kernel import Job

COUNTED = 5
"""The word of the first block that a search counts."""

JOB = np.dtype(
    [
        ("first", "<u4", 17),
        ("one", "<u4"),
        ("power", "<u4", 32),
        ("target", "<u4", 8),
        ("chain", "<u4"),
        ("blocks", "<u4"),
        ("last_bytes", "<u4"),
        ("message", "<u4", CHUNK_BYTES // 4),
    ]
)
"""WsJob of blake3.cuh, passed by value."""


def job_of(work: Work, table: int = 0) -> Job:
    """What a launch needs of its work.

    Raises:
        ValueError: the message is none of Alephium, or its groups are none.
    """
    text = header(work.message, 0)
    job = np.zeros(1, dtype=JOB)
    job["first"] = first_state(text)
    job["one"] = 1
    job["power"] = 1 << np.arange(32, dtype=np.uint64)
    job["target"] = np.frombuffer(work.target.to_bytes(32, "big"), dtype=">u4")
    job["chain"] = chain(work.message)
    job["blocks"] = -(-len(text) // BLOCK_BYTES)
    job["last_bytes"] = (len(text) - 1) % BLOCK_BYTES + 1
    job["message"] = np.frombuffer(text.ljust(CHUNK_BYTES, b"\0"), dtype="<u4")
    return job


def first_state(text: bytes) -> list[int]:
    """The state within the first round, as `ws_first` of blake3.cuh goes on from it."""
    m = words(text[:BLOCK_BYTES])
    only = len(text) <= BLOCK_BYTES
    flags = CHUNK_START | (CHUNK_END | ROOT if only else 0)
    v = [*IV, *IV[:4], 0, 0, min(len(text), BLOCK_BYTES), flags]
    for column in range(4):
        a, b, c, d = v[column::4]
        a = (a + b + m[2 * column]) & WORD
        d = _turned(d ^ a, 16)
        c = (c + d) & WORD
        b = _turned(b ^ c, 12)
        a = (a + b + m[2 * column + 1]) & WORD  # of column 2 that is the counted word, here 0
        if column != COUNTED // 2:
            d = _turned(d ^ a, 8)
            c = (c + d) & WORD
            b = _turned(b ^ c, 7)
        v[column::4] = a, b, c, d
    v[0] = (v[0] + v[5] + m[8]) & WORD
    v[15] = _turned(v[15] ^ v[0], 16)
    v[1] = (v[1] + m[10]) & WORD
    v[3] = (v[3] + v[4] + m[14]) & WORD
    return [*v, (v[7] + m[12]) & WORD]


def _turned(word: int, right: int) -> int:
    return word >> right | word << (32 - right) & WORD
