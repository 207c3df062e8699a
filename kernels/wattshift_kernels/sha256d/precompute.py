"""What the host does once per work, so that no thread does it per nonce: `WsJob` of sha256d.cuh.

Rounds 0 to 2 of the second block and the parts of its schedule that hold no nonce. The formulas are
those of FIPS 180-4 with the header's padding put in; source.py says which words they are.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from wattshift_kernels.hasher import Work
from wattshift_kernels.sha256d.midstate import ROUND, midstates, tail, target_words
from wattshift_kernels.sha256d.variants import WAYS_MOST
from wattshift_kernels.sha256d.words import (
    BIG_0,
    BIG_1,
    END,
    HEADER_BITS,
    MASK,
    SMALL_0,
    SMALL_1,
    big,
    ch,
    maj,
    small,
)

POWERS = np.dtype([(f"p{n}", "<u4") for n in (0, 29, 22, 13, 12)])
WAY = np.dtype([("mid", "<u4", 8), ("kept", "<u4", 6), ("a3", "<u4"), ("e3", "<u4")])
JOB = np.dtype(
    [
        ("early", POWERS), ("late", POWERS),
        *((name, "<u4") for name in ("w16", "w17", "k16", "k17")),
        *((name, "<u4") for name in ("c18", "c19", "c31", "c32", "n19")),
        ("target", "<u4", 8), ("ways", "<u4"), ("way", WAY, WAYS_MOST),
    ]
)  # fmt: skip
"""WsJob, passed by value; one for every variant."""


def job_of(work: Work, _table: int = 0) -> npt.NDArray[Any]:
    """The launch's first argument, shape (1,): an array of one element is passed by value."""
    job = np.zeros(1, dtype=JOB)
    for powers in ("early", "late"):
        job[powers] = tuple(1 << int(name[1:]) for name in POWERS.names or ())
    w = [int(word) for word in tail(work)]
    fixed = _fixed_words(w)
    for name, value in fixed.items():
        job[name] = value & MASK
    job["target"], job["ways"] = target_words(work), work.ways
    for way, state in zip(job["way"][0], midstates(work), strict=False):
        mid = tuple(int(word) for word in state)
        way["mid"], way["kept"], way["a3"], way["e3"] = mid, *_third_round(mid, w, fixed["n19"])
    return job


def _fixed_words(w: list[int]) -> dict[str, int]:
    """Schedule words of the second block, of what is known without the nonce."""
    w16 = small(w[1], SMALL_0) + w[0] & MASK
    w17 = small(HEADER_BITS, SMALL_1) + small(w[2], SMALL_0) + w[1] & MASK
    c19 = small(w17, SMALL_1) + small(END, SMALL_0)
    return {
        "w16": w16, "k16": w16 + ROUND[16], "w17": w17, "k17": w17 + ROUND[17],
        "c18": small(w16, SMALL_1) + w[2], "c19": c19, "n19": c19 + ROUND[19],
        "c31": small(w16, SMALL_0) + HEADER_BITS, "c32": small(w17, SMALL_0) + w16,
    }  # fmt: skip


def _third_round(mid: tuple[int, ...], w: list[int], n19: int) -> tuple[tuple[int, ...], int, int]:
    """The state before round 3, of which the nonce changes nothing, and what is added to word 19.

    In round 3 the nonce is but a summand. A GPU has word 19 with K, which is the nonce and `n19`.
    """
    a, b, c, d, e, f, g, h = mid
    for i in range(3):
        t1 = h + big(e, BIG_1) + ch(e, f, g) + ROUND[i] + w[i]
        t2 = big(a, BIG_0) + maj(a, b, c)
        a, b, c, d, e, f, g, h = t1 + t2 & MASK, a, b, c, d + t1 & MASK, e, f, g
    t1 = h + big(e, BIG_1) + ch(e, f, g) + ROUND[3] - n19
    return (a, b, c, e, f, g), t1 + big(a, BIG_0) + maj(a, b, c) & MASK, d + t1 & MASK
