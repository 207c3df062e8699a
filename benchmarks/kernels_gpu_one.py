"""One algorithm on the first GPU, under the stopwatch and the card's own energy counter.

A process of its own for each algorithm, so that each begins on an empty device and one that fails
takes no other with it. It launches as the worker does, two in flight of about 0.7 ms each, but
behind no gate: what is measured is the kernel. The last line of stdout is one JSON object.
"""

import importlib
import json
import os
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.rig import gpus, ranked

from wattshift_cluster.agent.gpu import Library
from wattshift_kernels.algorithms import Algorithm, by_name
from wattshift_kernels.hasher import Hasher, Launch, Work
from wattshift_kernels.header import MAX_TARGET, NONCES
from wattshift_kernels.registry import choose

TARGET_NS = 700_000
LOOK_S = 0.1
STOPS = 300
SETTLE_S = 3.0
"""Until the tuner has chosen and the clocks are steady; not counted."""

HEIGHTS = {"autolykos2": 1_910_000, "etchash": 22_500_000}
"""Of the block whose table is read; recent ones, since the table grows with the height."""

HITS_PER_S = 20.0
"""Where hits are counted apart from the rate: a reference in Python takes up to 25 ms for each."""

PASSING_CHECK = {"blake3": 1 / 16}
"""Share of hashes that fall on the chain that a block is for; the others are no hits."""


@dataclass(slots=True)
class Run:
    """What launches did for a while.

    Attributes:
        joules_j: by the card's counter; None where it has none.
        clocks_hz: of the SMs, looked at ten times a second.
    """

    hashes: int = 0
    hits: int = 0
    seconds_s: float = 0.0
    joules_j: float | None = None
    clocks_hz: list[float] = field(default_factory=list)

    @property
    def rate_h_per_s(self) -> float:
        """Hashes a second, of the wall clock."""
        return self.hashes / self.seconds_s

    @property
    def watts_w(self) -> float | None:
        """Mean draw of the card."""
        return None if self.joules_j is None else self.joules_j / self.seconds_s


class Card:
    """The energy counter and the SM clock of the first GPU, from NVML."""

    def __init__(self) -> None:
        """Look it up by its uuid, since CUDA may number cards in another order."""
        self._library = Library()
        self._library.open()
        self._handle = self._library.handle(gpus()[0].uuid)

    def joules_j(self) -> float | None:
        """Since the driver started."""
        found = self._library.ask_or_none("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        return None if found is None else found / 1000

    def clock_hz(self) -> float | None:
        """Of the SMs, now."""
        found = self._library.ask_or_none("nvmlDeviceGetClockInfo", self._handle, 1)
        return None if found is None else found * 1e6


def works(algorithm: Algorithm, target: int, roll_mask: int = 0) -> Iterator[Work]:
    """Work without end; each has all its nonces left."""
    assert algorithm.trial is not None
    number = 0
    while True:
        height = HEIGHTS.get(algorithm.name, 0)
        trial = algorithm.trial(number)
        yield replace(trial, target=target, height=height, roll_mask=roll_mask)
        number += 1


def drive(hasher: Hasher, source: Iterator[Work], seconds_s: float, card: Card) -> Run:
    """Launch for a while. Raises what launches raise."""
    run, flight = Run(), deque[Launch]()
    work, start, nonces = next(source), 0, hasher.launch_hashes // 8
    before_j, began_s = card.joules_j(), time.monotonic()
    look_s = began_s
    while flight or time.monotonic() < began_s + seconds_s:
        now_s = time.monotonic()
        if now_s >= look_s:
            look_s += LOOK_S
            clock_hz = card.clock_hz()
            run.clocks_hz += [] if clock_hz is None else [clock_hz]
        if len(flight) < hasher.depth and now_s < began_s + seconds_s:
            if start + nonces > NONCES:
                work, start = next(source), 0
            flight.append(hasher.begin(work, start, nonces))
            start += nonces
            continue
        launch = flight.popleft()
        found = launch.result()
        run.hashes += found.hashes
        run.hits += len(found.hits)
        if found.hashes:
            right = launch.count * TARGET_NS / max(1, launch.took_ns)
            nonces = round(min(1.25 * nonces + 1, max(nonces / 2, right)))
    run.seconds_s = time.monotonic() - began_s
    after_j = card.joules_j()
    run.joules_j = None if before_j is None or after_j is None else after_j - before_j
    return run


def stops(hasher: Hasher, source: Iterator[Work]) -> list[float]:
    """Milliseconds from the stop word to the end of all that was in flight, ascending."""
    took, dice, work = [], random.Random(8), next(source)
    nonces = hasher.launch_hashes // work.ways
    for number in range(STOPS):
        flight = [hasher.begin(work, 2 * number, nonces) for _ in range(hasher.depth)]
        time.sleep(dice.random() * TARGET_NS / 1e9)
        began_ns = time.perf_counter_ns()
        hasher.stop()
        for launch in flight:
            launch.result()
        took.append((time.perf_counter_ns() - began_ns) / 1e6)
        hasher.resume()
    return sorted(took)


def build(hasher: Hasher, work: Work) -> float:
    """Seconds until the table of a work is ready; 0.0 without one."""
    began_s = time.monotonic()
    hasher.search(work, 0, 1)
    if hasher.progress >= 1.0:
        return 0.0
    flight: deque[Launch] = deque()
    while hasher.progress < 1.0:
        flight.append(hasher.begin(work, 0, 1))
        if len(flight) == hasher.depth:
            flight.popleft().result()
    for launch in flight:
        launch.result()
    return time.monotonic() - began_s


def counting_target(name: str, rate_h_per_s: float) -> int:
    """A target at which HITS_PER_S come: enough that a kernel which finds none stands out."""
    share = HITS_PER_S / PASSING_CHECK.get(name, 1.0) / rate_h_per_s
    return min(MAX_TARGET, round(share * 2**256))


def measure(name: str, seconds_s: float, roll_mask: int, target: int) -> dict[str, Any]:
    """All figures of one algorithm; its hits are counted in the timed run where they are cheap."""
    algorithm, card = by_name(name), Card()
    makers = [maker for maker in algorithm.makers if maker[0] == "cuda"]
    chosen = choose(makers=makers)
    hasher: Any = chosen.hasher
    table_s = build(hasher, next(works(algorithm, 1, roll_mask)))
    drive(hasher, works(algorithm, 1, roll_mask), SETTLE_S, card)
    run = drive(hasher, works(algorithm, target, roll_mask), seconds_s, card)
    counted = run
    if target == 1:
        target = counting_target(name, run.rate_h_per_s)
        counted = drive(hasher, works(algorithm, target, roll_mask), seconds_s / 2, card)
    expected = counted.hashes * (target + 1) / 2**256 * PASSING_CHECK.get(name, 1.0)
    stopped = stops(hasher, works(algorithm, 1, roll_mask))
    work = next(works(algorithm, 1, roll_mask))
    limit_h_per_s = _limit(name, hasher, work)
    figures = {
        "h_per_s": run.rate_h_per_s,
        "seconds": round(run.seconds_s, 2),
        "watts": _rounded(run.watts_w),
        "joules": _rounded(run.joules_j),
        "clock_mhz": _rounded(statistics.mean(run.clocks_hz) / 1e6 if run.clocks_hz else None),
        "sms": hasher.gpu.sms,
        "arch": f"sm_{hasher.gpu.capability}",
        "hits": counted.hits,
        "expected_hits": round(expected, 1),
        "hits_sigma": round((counted.hits - expected) / expected**0.5, 2) if expected else None,
        "stop_ms_p50": ranked(stopped, 0.50),
        "stop_ms_p99": ranked(stopped, 0.99),
        "limit_h_per_s": limit_h_per_s,
        "ratio_to_limit": None if limit_h_per_s is None else run.rate_h_per_s / limit_h_per_s,
        "kernel": hasher.name,
        "refused": {one.backend: one.refused for one in chosen.report if one.refused},
        "memory_bytes": hasher.memory_bytes,
        "table_s": round(table_s, 3),
    }
    began_s = time.perf_counter()
    hasher.free_table()
    free_ms = round((time.perf_counter() - began_s) * 1e3, 2)
    return {**figures, "free_ms": free_ms}


def _limit(name: str, hasher: Any, work: Work) -> float | None:
    """What the device allows by the algorithm's own room, measured now; None where it has none."""
    try:
        room = importlib.import_module(f"wattshift_kernels.{name}.ceiling")
    except ModuleNotFoundError:
        return None
    try:
        found: float | None = room.limit_h_per_s(hasher, work)
    except Exception as fault:  # of CUDA or NVRTC; the rate is known by now and must not be lost
        print(f"kernels-gpu: {name}: no limit: {fault}", file=sys.stderr)
        return None
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(measure(**asked)), flush=True)
    # At once: the end of the process gives everything back, and what an interpreter would take
    # apart before it could still break a run whose figures are known.
    os._exit(0)
