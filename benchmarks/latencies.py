"""What two arms of blocks say about latency: percentiles, their ratios, and how sure these are.

An arm is a list of blocks; the blocks of both arms stand in pairs that had the same arrivals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.embedder import Served

from wattshift_cluster.gate import HOLD_OFF_NS

SEED = 7
RESAMPLES = 1000
LEAST_FOR_P999 = 1000
"""Below this the 99.9th percentile is only the worst one seen."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """What one block shows.

    Attributes:
        latency_ms: of each request, from the moment it was due.
        service_ms: the part of it in which it was its turn.
        woken: whether each found nobody in the system, and the gate's hold-off over.
        seconds, idle_s, open_s: of the block; without a request; of that, beyond the hold-off.
        hashes, launching_s: what the worker did meanwhile, and how long its launches lasted.
    """

    latency_ms: Floats
    service_ms: Floats
    woken: npt.NDArray[np.bool_]
    seconds: float
    idle_s: float
    open_s: float
    hashes: int
    launching_s: float


def seen(served: Served) -> Block:
    """What the replica's times and the worker's counters say about one block."""
    due = np.asarray(served.due_ns, dtype=np.int64)
    done = np.asarray(served.done_ns, dtype=np.int64)
    # One server, in the order of arrival: the system is empty from one's end to the next's arrival.
    ends = np.concatenate(([served.began_ns], done))
    starts = np.concatenate((due, [served.ended_ns]))
    gaps = np.maximum(0, starts - ends)
    held = np.full(len(gaps), HOLD_OFF_NS)
    held[0] = 0  # nobody was there before the block
    woken = gaps[:-1] > held[:-1]
    hashes, launching_ns = (b - a for a, b in zip(*served.worker, strict=True))
    return Block(
        latency_ms=(done - due) / 1e6,
        service_ms=(done - np.maximum(due, ends[:-1])) / 1e6,
        woken=woken,
        seconds=(served.ended_ns - served.began_ns) / 1e9,
        idle_s=float(gaps.sum()) / 1e9,
        open_s=float(np.maximum(0, gaps - held).sum()) / 1e9,
        hashes=hashes,
        launching_s=launching_ns / 1e9,
    )


def shares(beside: Sequence[Block], full_h_per_s: float, *, on_cpu: bool) -> dict[str, float]:
    """How much of the time without a request was hashed.

    Args:
        beside: blocks with mining.
        full_h_per_s: hashes per second of hashing with the device to itself.
        on_cpu: a CPU's launch lasts on while inference has preempted it; there its hashes tell.
    """
    idle_s = sum(block.idle_s for block in beside)
    by_hashes = sum(block.hashes for block in beside) / full_h_per_s / idle_s
    by_time = sum(block.launching_s for block in beside) / idle_s
    return {
        "share_of_idle_time_hashing": round(by_hashes if on_cpu else by_time, 4),
        "share_by_hashes": round(by_hashes, 4),
        "share_possible": round(sum(block.open_s for block in beside) / idle_s, 4),
    }


def figures(alone: Sequence[Block], beside: Sequence[Block]) -> dict[str, Any]:
    """The latencies of one duty. Blocks of both arms stand in pairs with the same arrivals.

    Raises:
        RuntimeError: not one request came in all that time.
    """
    one, two = _pooled(alone), _pooled(beside)
    if not len(one):
        raise RuntimeError("not one request came: the benchmark was given too little time")
    p99_alone_ms, p99_with_ms = percentile(one, 99), percentile(two, 99)
    enough = len(one) >= LEAST_FOR_P999
    woken = np.concatenate([a.woken & b.woken for a, b in zip(alone, beside, strict=True)])
    low, high = interval(alone, beside)
    least_ms, most_ms = added_interval_ms(alone, beside)
    return {
        "p99_alone_ms": round(p99_alone_ms, 3),
        "p99_with_ms": round(p99_with_ms, 3),
        "ratio_p99": round(p99_with_ms / p99_alone_ms, 4),
        "ratio_p99_95": [round(low, 4), round(high, 4)],
        "p999_ratio": round(percentile(two, 99.9) / percentile(one, 99.9), 4) if enough else None,
        "service_ratio": round(mean_service_ms(beside) / mean_service_ms(alone), 4),
        "p50_ratio": round(percentile(two, 50) / percentile(one, 50), 4),
        "added_ms": round(float((two - one).mean()), 3),
        "added_ms_95": [round(least_ms, 3), round(most_ms, 3)],
        "woken": _woken(one[woken], two[woken]),
        "requests": len(one),
        "pairs": len(alone),
        "duty_alone_pct": _seen_duty_pct(alone),
        "duty_with_pct": _seen_duty_pct(beside),
    }


def mean_service_ms(blocks: Sequence[Block]) -> float:
    """Mean time of a request once it is its turn, ms; NaN without requests."""
    times_ms = np.concatenate([block.service_ms for block in blocks])
    return float(times_ms.mean()) if len(times_ms) else float("nan")


def percentile(latencies_ms: Floats, pct: float) -> float:
    """By nearest rank: a latency that was measured, ms."""
    return float(np.percentile(latencies_ms, pct, method="inverted_cdf"))


def interval(alone: Sequence[Block], beside: Sequence[Block]) -> tuple[float, float]:
    """A 95 % interval of the ratio of the two p99.

    Whole pairs of blocks are drawn with replacement: requests of one block share their queue and
    whatever else the machine did meanwhile, so they are no independent draws.
    """
    rng = np.random.default_rng(SEED)
    count = len(alone)
    arms = []
    for blocks in (alone, beside):
        latencies_ms = _pooled(blocks)
        pair = np.repeat(np.arange(count), [len(block.latency_ms) for block in blocks])
        order = np.argsort(latencies_ms)
        arms.append((latencies_ms[order], pair[order]))
    ratios: list[float] = []
    while len(ratios) < RESAMPLES:
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        if drawn[arms[0][1]].any():  # a block may have no request at all
            p99_alone_ms, p99_with_ms = (_weighted_p99(ms, drawn[of]) for ms, of in arms)
            ratios.append(p99_with_ms / p99_alone_ms)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def added_interval_ms(alone: Sequence[Block], beside: Sequence[Block]) -> tuple[float, float]:
    """A 95 % interval of the mean latency that mining added to the same request, ms."""
    rng = np.random.default_rng(SEED)
    pairs = zip(alone, beside, strict=True)
    sums_ms = np.asarray([float((b.latency_ms - a.latency_ms).sum()) for a, b in pairs])
    counts = np.asarray([len(block.latency_ms) for block in alone])
    drawn = rng.integers(0, len(alone), (RESAMPLES, len(alone)))
    requests = counts[drawn].sum(axis=1)
    means_ms = sums_ms[drawn].sum(axis=1)[requests > 0] / requests[requests > 0]
    low_ms, high_ms = np.percentile(means_ms, [2.5, 97.5])
    return float(low_ms), float(high_ms)


def _weighted_p99(ascending_ms: Floats, times: npt.NDArray[np.int64]) -> float:
    """p99 of a sample in which each latency occurs so many times."""
    total = np.cumsum(times)
    return float(ascending_ms[np.searchsorted(total, 0.99 * total[-1])])


def _pooled(blocks: Sequence[Block]) -> Floats:
    return np.concatenate([block.latency_ms for block in blocks])


def _woken(alone_ms: Floats, with_ms: Floats) -> dict[str, Any]:
    """Of the requests that met an idle, and so a mined, device."""
    if not len(alone_ms):
        return {"requests": 0, "added_ms": None, "p50_ratio": None, "p99_ratio": None}
    ratios = {
        f"p{pct}_ratio": round(percentile(with_ms, pct) / percentile(alone_ms, pct), 4)
        for pct in (50, 99)
    }
    added_ms = round(float((with_ms - alone_ms).mean()), 3)
    return {"requests": len(alone_ms), "added_ms": added_ms, **ratios}


def _seen_duty_pct(blocks: Sequence[Block]) -> float:
    """Share of the time with a request in the system, %."""
    idle_s = sum(block.idle_s for block in blocks)
    return round(100 * (1 - idle_s / sum(block.seconds for block in blocks)), 1)
