"""CPU hashing against hashlib, in CPU seconds of one core, interleaved in one run.

hashlib is the plain way to search: two digests per nonce. All sides try nonces of one header;
rounds alternate, so that a noisy machine slows all alike. The compiled search and numba's are
measured both with one version of the header and with sixteen, which share part of the work; the
ratios are of one version.
"""

import statistics
import time
from collections.abc import Callable

from benchmarks.cannot import CannotRunHere

from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.header import sha256d, with_nonce
from wattshift_kernels.native import host
from wattshift_kernels.registry import NoHasher, choose

ROUNDS = 7
HASHES_FAST = 4_000_000
HASHES_PLAIN = 150_000
WORK = Work(bytes(range(76)), 2**216)
ROLLED = Work(WORK.message, WORK.target, roll_mask=0x0001_E000)


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    hashers = {name: found for name in ("native", "numba") if (found := _hasher(name)) is not None}
    if not hashers:
        raise CannotRunHere("neither a C++ compiler nor numba here")
    rates: dict[str, list[float]] = {name: [] for name in hashers}
    ratios: dict[str, list[float]] = {name: [] for name in hashers}
    rolled: dict[str, list[float]] = {name: [] for name in hashers}
    for _ in range(ROUNDS):
        plain = _rate(_plain)
        for name, hasher in hashers.items():
            rate = _rate(_searches(hasher, WORK))
            rates[name].append(rate)
            ratios[name].append(rate / plain)
            rolled[name].append(_rate(_searches(hasher, ROLLED)))
    best = max(hashers, key=lambda name: statistics.median(rates[name]))
    return {
        "backend": best,
        "mh_per_s_per_core": round(statistics.median(rates[best]) / 1e6, 3),
        "ratio_vs_hashlib": round(statistics.median(ratios[best]), 2),
        "numba_ratio_vs_hashlib": _median(ratios.get("numba")),
        "native_ratio_vs_hashlib": _median(ratios.get("native")),
        "rolling_mh_per_s_per_core": {
            name: round(statistics.median(one) / 1e6, 3) for name, one in rolled.items()
        },
        "host": _host(),
        "quality": "measured",
    }


def _hasher(backend: str) -> Hasher | None:
    """None where it is missing or wrong; what comes after it in the registry is another."""
    try:
        found = choose(backend).hasher
    except NoHasher:
        return None
    return found if found.backend == backend else None


def _host() -> str:
    """Processor and compiler by name."""
    features = ("flags", "Features", "CPU part")
    lines = [line for line in host().splitlines() if line and not line.startswith(features)]
    return "; ".join(line.partition(": ")[2] or line for line in lines[:2])


def _median(ratios: list[float] | None) -> float | None:
    return None if ratios is None else round(statistics.median(ratios), 2)


def _searches(hasher: Hasher, work: Work) -> Callable[[], int]:
    return lambda: hasher.search(work, 0, HASHES_FAST // work.ways).hashes


def _plain() -> int:
    for nonce in range(HASHES_PLAIN):
        sha256d(with_nonce(WORK.message, nonce))
    return HASHES_PLAIN


def _rate(work: Callable[[], int]) -> float:
    """Hashes per CPU second."""
    began_s = time.process_time()
    hashes = work()
    return hashes / (time.process_time() - began_s)
