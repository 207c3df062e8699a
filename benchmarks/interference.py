"""Inference latency with mining beside it against alone, at four duties, in one run.

A replica (MiniLM, a process of its own) and the mining worker share one device: a GPU, or one CPU
core, to which both are pinned. Requests come at seeded times, whatever the replica does, and
latency counts from the moment a request is due, so queueing shows. In both arms the replica marks
the gate; alone, the worker is frozen. Arms alternate in blocks, and both blocks of a pair get the
same arrivals, so that a noisy machine and a hard sequence hit both arms alike.

The load comes in bursts: within one the device is loaded to 90 %, between two nobody asks, and the
duty is set by how much of the time is burst. At 90 % the burst never ends. The first request of a
burst meets a device that is being mined on: `woken` tells of those alone. After each request the
gate holds mining off for 20 ms; `share_possible` is the idle time beyond that.

    WATTSHIFT_BENCH_SECONDS   of all blocks together; 240 on a CPU, 85 on a GPU
    WATTSHIFT_BENCH_SHIELD    1 where others keep the CPUs busy: this session's scheduling group is
                              preferred to theirs, which leaves worker and replica as they are to
                              each other; needs CAP_SYS_NICE and autogroups (sched(7))
"""

import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere
from benchmarks.embedder import WORDS, Embedder
from benchmarks.latencies import Block, figures, mean_service_ms, seen, shares
from benchmarks.rig import Bench, HostCpu, bench, device_facts, gpus, seeing

from wattshift_cluster.inference.app import ONE_THREAD
from wattshift_cluster.inference.arrivals import Arrival

DUTIES = {10: 0.35, 30: 0.25, 60: 0.2, 90: 0.2}
"""Share of the time that each gets: the fewer requests, the longer it takes to count them."""

CPU_BLOCK_S, GPU_BLOCK_S = 2.5, 1.2
"""As short as the bursts allow: a machine that drifts hits both arms of a pair alike."""

LEAST_PAIRS = 3
BURST_S = 0.1
BURST_LOAD = 0.9
SEED = 7
MEASURE_S = 1.5
CPU_SECONDS, GPU_SECONDS = 240.0, 85.0
LEASE_S = 300.0
FULL_S = 0.2
AUTOGROUP = Path("/proc/self/autogroup")
MOST_PREFERRED = -20
ENOUGH, KEPT = 30, 6
"""A service time is believed after so many requests, and taken from so many blocks."""


def run() -> dict[str, Any]:
    """Measure; the keys are those of INTERFACES. Raises: CannotRunHere."""
    cores = sorted(os.sched_getaffinity(0))
    core = None if gpus() else cores[0]
    planned_s = GPU_SECONDS if gpus() else CPU_SECONDS
    seconds = float(os.environ.get("WATTSHIFT_BENCH_SECONDS", planned_s))
    with _shield() as shielded, bench(core=core) as rig:
        environment = seeing(gpus()[:1], **ONE_THREAD)
        replica = Embedder(rig.folder, "cupy" if gpus() else "numpy", SEED, environment, core)
        pids = (rig.worker.pid, replica.process.pid)
        try:
            if core is not None:
                os.sched_setaffinity(0, {cores[-1]})
            before = HostCpu.now(pids)
            duties = {
                str(duty): _duty(rig, replica, duty, seconds * share)
                for duty, share in DUTIES.items()
            }
            others_share = before.others_share(HostCpu.now(pids))
        finally:
            replica.end()
            os.sched_setaffinity(0, cores)
        return {
            **device_facts(),
            "backend": rig.backend,
            "duty": duties,
            "ratio_p99_worst": max(row["ratio_p99"] for row in duties.values()),
            "share_of_idle_time_hashing_least": min(
                duties[duty]["share_of_idle_time_hashing"] for duty in ("10", "30")
            ),
            "hashes_alone": sum(row["hashes_alone"] for row in duties.values()),
            "shielded": shielded,
            "others_cpu_share": others_share,
            "quality": "measured",
        }


@contextmanager
def _shield() -> Iterator[bool]:
    """Prefer this session's processes to all others; whether that was asked for.

    Raises:
        CannotRunHere: it is not possible here.
    """
    asked = os.environ.get("WATTSHIFT_BENCH_SHIELD") == "1"
    if asked:
        try:
            AUTOGROUP.write_text(str(MOST_PREFERRED))
        except OSError as fault:
            raise CannotRunHere(f"WATTSHIFT_BENCH_SHIELD: {AUTOGROUP}: {fault}") from fault
    try:
        yield asked
    finally:
        if asked:
            AUTOGROUP.write_text("0")


def _duty(rig: Bench, replica: Embedder, duty: int, seconds: float) -> dict[str, Any]:
    """Both arms at one duty, %, in `seconds` together."""
    rig.absent()
    service_s = replica.service_s(MEASURE_S)
    rig.back()
    block_s = GPU_BLOCK_S if rig.backend == "cuda" else CPU_BLOCK_S
    alone: list[Block] = []
    beside: list[Block] = []
    full = FullRate(on_cpu=rig.backend != "cuda")
    for pair in range(max(LEAST_PAIRS, round(seconds / (2 * block_s)))):
        # A busy machine changes its speed, and the load must stay what it is called.
        if sum(len(block.service_ms) for block in alone[-KEPT:]) >= ENOUGH:
            service_s = mean_service_ms(alone[-KEPT:]) / 1e3
        arrivals = list(bursts(duty / 100, service_s, block_s, seed=SEED + 1000 * duty + pair))
        for mining in (False, True) if pair % 2 == 0 else (True, False):
            block = _block(rig, replica, arrivals, block_s, full if mining else None)
            (beside if mining else alone).append(block)
    row = {
        "service_ms": round(mean_service_ms(alone), 3),
        **figures(alone, beside),
        **shares(beside, full.h_per_s, on_cpu=rig.backend != "cuda"),
        "hashes_alone": sum(block.hashes for block in alone),
    }
    print(f"interference: duty {duty} %: {row}", file=sys.stderr)
    return row


def _block(
    rig: Bench,
    replica: Embedder,
    arrivals: Sequence[Arrival],
    seconds: float,
    full: "FullRate | None",
) -> Block:
    """One block; alone where there is no `full` to be measured before it."""
    if full is None:
        rig.absent()
        served = replica.serve(arrivals, seconds)
        rig.back()
    else:
        rig.lease(LEASE_S)
        rig.launching()
        full.measure(rig)
        served = replica.serve(arrivals, seconds)
    return seen(served)


class FullRate:
    """How fast the worker hashes with the device to itself.

    It is measured for a moment before each block: a virtual machine's speed drifts by the minute.
    """

    def __init__(self, *, on_cpu: bool) -> None:
        """Args: on_cpu: time is the processor's, which others may have taken; else of launches."""
        self._on_cpu = on_cpu
        self._hashes = self._spent_ns = 0

    @property
    def h_per_s(self) -> float:
        """Hashes per second of hashing; NaN before anything was measured."""
        return self._hashes / self._spent_ns * 1e9 if self._spent_ns else math.nan

    def measure(self, rig: Bench) -> None:
        """Look for a moment at a worker that launches and yields to nobody."""
        before = rig.seat.read()
        time.sleep(FULL_S)
        after = rig.seat.read()
        self._hashes += after.hashes - before.hashes
        cpu_ns, launching_ns = (
            after.cpu_ns - before.cpu_ns,
            after.launching_ns - before.launching_ns,
        )
        self._spent_ns += cpu_ns if self._on_cpu else launching_ns


def bursts(duty: float, service_s: float, seconds: float, *, seed: int) -> Iterator[Arrival]:
    """Requests of one block: Poisson within bursts of exponential length, silence in between.

    Args:
        duty: offered load as a share of the service rate, above 0, at most `BURST_LOAD`.
        service_s: mean time of a request, s.
        seconds: length of the block, s.
        seed: of everything random here.
    """
    rng = random.Random(seed)
    share = duty / BURST_LOAD
    calm_s = BURST_S * (1 - share) / share
    at_s, bursting = 0.0, rng.random() < share
    while at_s < seconds:
        endless = bursting and calm_s < 1e-9
        stay_s = seconds if endless else rng.expovariate(1 / (BURST_S if bursting else calm_s))
        ends_s = min(seconds, at_s + stay_s)
        while bursting and (at_s := at_s + rng.expovariate(BURST_LOAD / service_s)) < ends_s:
            yield Arrival(at_s, rng.randint(WORDS // 2, WORDS * 3 // 2))
        at_s, bursting = ends_s, not bursting
