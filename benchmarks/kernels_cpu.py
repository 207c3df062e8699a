"""CPU hashing against hashlib, in CPU seconds of one core, interleaved in one run.

hashlib is the plain way to search: two digests per nonce. Both sides try the same nonces of one
header; rounds alternate, so that a noisy machine slows both alike.
"""

import statistics
import time
from collections.abc import Callable

from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.header import sha256d, with_nonce
from wattshift_kernels.registry import choose

ROUNDS = 7
HASHES_FAST = 4_000_000
HASHES_PLAIN = 150_000
WORK = Work(bytes(range(76)), 2**216)


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    chosen = choose().hasher
    numba = chosen if chosen.backend == "numba" else choose("numba").hasher
    rounds = [(_rate(_searches(numba)), _rate(_plain)) for _ in range(ROUNDS)]
    fast = statistics.median(fast for fast, _ in rounds)
    ratio = statistics.median(fast / plain for fast, plain in rounds)
    return {
        "backend": numba.backend,
        "mh_per_s_per_core": round(fast / 1e6, 3),
        "ratio_vs_hashlib": round(ratio, 2),
        "numba_ratio_vs_hashlib": round(ratio, 2),
        "quality": "measured",
    }


def _searches(hasher: Hasher) -> Callable[[], int]:
    return lambda: hasher.search(WORK, 0, HASHES_FAST).hashes


def _plain() -> int:
    for nonce in range(HASHES_PLAIN):
        sha256d(with_nonce(WORK.header76, nonce))
    return HASHES_PLAIN


def _rate(work: Callable[[], int]) -> float:
    """Hashes per CPU second."""
    began_s = time.process_time()
    hashes = work()
    return hashes / (time.process_time() - began_s)
