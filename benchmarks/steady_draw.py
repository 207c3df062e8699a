"""How much steadier a device draws when mining fills what inference leaves, at a target.

A real worker stands behind a real gate, and a real replica (MiniLM) in a process of its own answers
a bursty sequence of requests and marks the gate. The sequence is played twice: with the worker
frozen, then with `SteadyDraw` setting both intensities twenty times a second, from what the meter
showed. Before that the device's curve is measured by the same profile that an agent runs.

    GPU   watts are NVML's, at 20 Hz: measured
    CPU   watts are modelled, from the processor time of worker and replica between two samples

Variation is that of means over one second. The band's upper end is what the sensor can show: its
values are counted as they change. With WATTSHIFT_PLOT_DIR set, watts against time are drawn.
"""

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from benchmarks import plots
from benchmarks.cannot import CannotRunHere
from benchmarks.embedder import Embedder, Served
from benchmarks.rig import DEVICE, Bench, HostCpu, bench, device_facts, gpus, ranked, seeing

from wattshift_cluster.agent.power import (
    MINING_SHARE,
    PowerModel,
    Profile,
    ProfileSample,
    SteadyDraw,
    SteadySettings,
)
from wattshift_cluster.agent.power import spectrum as spectra
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.gate import ClientsView
from wattshift_cluster.inference.arrivals import Arrival, bursts, from_trace

SEED = 7
SECONDS = 36.0
SAMPLE_HZ = 20.0
WINDOW_S = 1.0
LEASE_S = 5.0
RAMP_S, SETTLE_S = 4.0, 8.0
"""The draw is led to its target before the sequence begins: starting up is not what is compared."""

LOAD = 0.3
"""Requests offered, as a share of what the replica could answer."""

BURST_RATIO, SPEED = 3.0, 6.0
"""Silence between bursts; a burst of 20 s passes in 3.3 s, so that 36 s hold several."""

TRACE = Path("workload") / "azure_llm_2023_code.csv.gz"
STEPS_PCT = (0, 10, 30, 60, 100)
BESIDE_PCT = 20
PROBE_S, LESSONS = 5.0, 6
HEADROOM = 0.1
"""The target lies so much of mining's span above inference's own draw: room to steer both ways."""

CPU_IDLE_W, CPU_CORE_W = 5.0, 10.0
"""Modelled draw of a small package: of its own, and of one busy core, W."""

QUIET_SHARE = 0.1
"""A worker at the lowest priority gets what others leave, so their load shows as unsteady draw."""

BAND_HZ = (0.1, 20.0)
"""arXiv 2508.14318; the upper end is cut to what the sensor shows."""

POWER_INSTANT = 186
"""NVML_FI_DEV_POWER_INSTANT: a momentary value, where nvmlDeviceGetPowerUsage averages a second."""


class Meter(Protocol):
    """What the device draws now.

    Attributes:
        sensor: what it is, for a reader.
        averaging_s: span that a value is the mean of, s.
    """

    sensor: str
    averaging_s: float

    def watts_w(self) -> float:
        """W; blocks for some milliseconds at most. Raises: RuntimeError, it cannot be read."""
        ...


class NvmlMeter:
    """The sensor of one GPU."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self._instant = self._field_w() is not None
        self.sensor = "NVML instantaneous" if self._instant else "NVML mean"
        self.averaging_s = 0.0 if self._instant else 1.0

    def watts_w(self) -> float:
        """See `Meter`."""
        if not self._instant:
            return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000
        watts_w = self._field_w()
        if watts_w is None:
            raise RuntimeError("NVML gives no power any more")
        return watts_w

    def _field_w(self) -> float | None:
        try:
            field = self._nvml.nvmlDeviceGetFieldValues(self._handle, [POWER_INSTANT])[0]
        except self._nvml.NVMLError:
            return None
        return field.value.uiVal / 1000 if field.nvmlReturn == 0 and field.value.uiVal else None


class CpuMeter:
    """Watts modelled from the processor time of two processes since the sample before."""

    sensor = "modelled from processor time"

    def __init__(self, rig: Bench, replica_pid: int) -> None:
        self._seat = rig.seat
        # Linux: the clock of another process, see clock_getcpuclockid(3) and its CPUCLOCK_SCHED.
        self._clock = (~replica_pid << 3) | 2
        self.averaging_s = 1 / SAMPLE_HZ
        self._last = self._read()

    def watts_w(self) -> float:
        """See `Meter`."""
        before, self._last = self._last, self._read()
        cores = (self._last[1] - before[1]) / max(1, self._last[0] - before[0])
        return CPU_IDLE_W + CPU_CORE_W * cores

    def _read(self) -> tuple[int, int]:
        replica_ns = time.clock_gettime_ns(self._clock)
        return boot_ns(), self._seat.read().cpu_ns + replica_ns


@dataclass(frozen=True, slots=True)
class Look:
    """One sample; duty since the sample before, and the means of the last second."""

    at_s: float
    watts_w: float
    duty: float
    mean_w: float
    busy_share: float
    mean_duty: float


class Watch:
    """Looks at device, gate and worker on a fixed beat."""

    def __init__(self, rig: Bench, meter: Meter) -> None:
        self._rig, self._meter = rig, meter
        self._clients = ClientsView(rig.folder / f"{DEVICE}.clients")
        self._window: deque[tuple[float, bool, float]] = deque(maxlen=round(WINDOW_S * SAMPLE_HZ))
        self._before = boot_ns(), rig.seat.read().launching_ns
        self._next_s = boot_s()

    def look(self) -> Look:
        """Wait for the beat, then look. Raises: RuntimeError."""
        self._next_s = max(self._next_s + 1 / SAMPLE_HZ, boot_s() - 1.0)
        time.sleep(max(0.0, self._next_s - boot_s()))
        watts_w, now_ns = self._meter.watts_w(), boot_ns()
        launching_ns = self._rig.seat.read().launching_ns
        passed_ns = max(1, now_ns - self._before[0])
        duty = min(1.0, (launching_ns - self._before[1]) / passed_ns)
        self._before = now_ns, launching_ns
        self._window.append((watts_w, self._clients.busy(now_ns), duty))
        mean_w, busy, mean_duty = (
            sum(c) / len(self._window) for c in zip(*self._window, strict=True)
        )
        return Look(now_ns / 1e9, watts_w, duty, mean_w, busy, mean_duty)

    def until(self, end_s: float) -> Iterator[Look]:
        """Looks up to a moment of the boot clock."""
        while boot_s() < end_s:
            yield self.look()


@dataclass(frozen=True, slots=True)
class Arm:
    """One playing of the sequence: watts at SAMPLE_HZ, when each request was due and done."""

    watts_w: Sequence[float]
    update_hz: float
    served: Served
    joules_hashing: float

    @property
    def p99_ms(self) -> float:
        """Of the requests' times from due to done, ms."""
        pairs = zip(self.served.due_ns, self.served.done_ns, strict=True)
        return ranked(sorted((done - due) / 1e6 for due, done in pairs), 0.99)


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES and more."""
    if os.cpu_count() == 1 and not gpus():
        raise CannotRunHere("worker and replica need a CPU each")
    with bench() as rig, ThreadPoolExecutor(1) as pool:
        environment = seeing(gpus()[:1], OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        replica = Embedder(rig.folder, "cupy" if gpus() else "numpy", SEED, environment, None)
        try:
            return _run(rig, replica, pool)
        finally:
            replica.end()


def _run(rig: Bench, replica: Embedder, pool: ThreadPoolExecutor) -> dict[str, object]:
    meter: Meter = NvmlMeter(gpus()[0].uuid) if gpus() else CpuMeter(rig, replica.process.pid)
    watch, pids = Watch(rig, meter), (rig.worker.pid, replica.process.pid)
    before = HostCpu.now(pids)
    model = _prior()
    points = _profile(rig, watch, model)
    service_s, inference_w = _beside(rig, watch, model, replica, pool)
    target_w = _target_w(model, inference_w)
    trace, arrivals = _arrivals(service_s)
    rig.absent()
    alone = _play(rig, watch, replica, pool, arrivals, None)
    rig.back()
    ramp_w_per_s = (target_w - model.estimate(0.0).mean_w) / RAMP_S
    steady = SteadyDraw(SteadySettings(target_w, ramp_w_per_s), model)
    filled = _play(rig, watch, replica, pool, arrivals, steady)
    plots.keep([_picture(alone, filled, target_w)])
    others = before.others_share(HostCpu.now(pids))
    if not gpus() and others > QUIET_SHARE:
        print(
            f"steady-draw: others took {others:.0%} of the CPUs: this says little", file=sys.stderr
        )
    return {
        **device_facts(),
        "backend": rig.backend,
        "quality": "measured" if gpus() else "modelled",
        "sensor": meter.sensor,
        "sample_hz": SAMPLE_HZ,
        "trace": trace,
        "seconds": SECONDS,
        **_figures(alone, filled, meter),
        "target_w": round(target_w, 2),
        "inference_w": round(inference_w, 2),
        "ramp_setting_w_per_s": round(ramp_w_per_s, 2),
        "joules_hashing": round(filled.joules_hashing, 1),
        "inference_p99_ms": {"alone": alone.p99_ms, "with": filled.p99_ms},
        "requests": len(arrivals),
        "profile": points,
        "others_cpu_share": others,
    }


def _prior() -> PowerModel:
    """What is known beforehand: the card's limit and idle draw, or the CPU's model."""
    if not gpus():
        return PowerModel.prior(CPU_IDLE_W, CPU_IDLE_W + CPU_CORE_W, None)
    card = gpus()[0]
    return PowerModel.prior(card.idle_w, MINING_SHARE * card.limit_w, card.limit_w)


def _profile(rig: Bench, watch: Watch, model: PowerModel) -> list[dict[str, float]]:
    """Measure mining alone as an agent does. Raises: RuntimeError when it is given up."""
    lease_w = 2 * model.top_w if model.limit_w is None else MINING_SHARE * model.limit_w
    profile, pct = Profile(lease_w, model, boot_s(), steps_pct=STEPS_PCT), 0
    while True:
        _set(rig, pct, 0)
        look = watch.look()
        hashes = rig.seat.read().hashes
        busy = look.busy_share > 0
        sample = ProfileSample(look.watts_w, look.duty, hashes, lease_w, busy=busy)
        chosen = profile.next(look.at_s, sample, time.time())
        if chosen is None:
            break
        pct = chosen
    if profile.result is None or profile.aborted:
        raise RuntimeError(f"the curve could not be measured: {profile.aborted}")
    print(f"steady-draw: curve fits to {profile.result.residual_w:.2f} W", file=sys.stderr)
    return [asdict(point) for point in profile.points]


def _beside(
    rig: Bench, watch: Watch, model: PowerModel, replica: Embedder, pool: ThreadPoolExecutor
) -> tuple[float, float]:
    """Teach the model what inference draws, alone and beside mining.

    Returns:
        Mean time of a request, s, and inference's own draw when it never rests, W.
    """
    service_s = inference_w = 0.0
    for pct in (BESIDE_PCT, 0):
        _set(rig, pct, pct)
        asked: Future[float] = pool.submit(replica.service_s, PROBE_S)
        looks = []
        while not asked.done():
            looks.append(watch.look())
        service_s = asked.result()
        kept = [one for one in looks if one.at_s - looks[0].at_s > 2 * WINDOW_S]
        kept = [one for one in kept if one.busy_share > 0.9]
        if not kept:
            raise RuntimeError("the replica was never busy for a second")
        duty = float(np.mean([one.duty for one in kept]))
        inference_w = float(np.mean([one.watts_w for one in kept]))
        for _ in range(LESSONS):
            model.observe(duty, 1.0, inference_w, at_s=time.time())
    return service_s, inference_w


def _target_w(model: PowerModel, inference_w: float) -> float:
    """As low as it can be held: above inference's own draw, below what mining alone reaches."""
    top_w = model.top().mean_w
    idle_w = model.estimate(0.0).mean_w
    return min(inference_w + HEADROOM * (top_w - idle_w), idle_w + 0.95 * (top_w - idle_w))


def _arrivals(service_s: float) -> tuple[str, list[Arrival]]:
    """The sequence, and its name: a real trace where there is one, else the seeded generator."""
    rate_per_s = LOAD / service_s
    data = os.environ.get("WATTSHIFT_DATA")
    path = Path(data) / TRACE if data else None
    if path is not None and path.exists():
        name = f"{TRACE.name}, played to {LOAD:.0%} load"
        whole: Iterator[Arrival] = from_trace(path, rate_per_s, words_max=16)
    else:
        name = f"generated bursts, seed {SEED}, {LOAD:.0%} load"
        slow = bursts(rate_per_s / SPEED, SEED, burst_ratio=BURST_RATIO)
        whole = (Arrival(one.at_s / SPEED, one.words) for one in slow)
    return name, list(itertools.takewhile(lambda one: one.at_s < SECONDS, whole))


def _play(
    rig: Bench,
    watch: Watch,
    replica: Embedder,
    pool: ThreadPoolExecutor,
    arrivals: Sequence[Arrival],
    steady: SteadyDraw | None,
) -> Arm:
    """One arm; without `steady` the worker is frozen."""
    for look in watch.until(boot_s() + SETTLE_S):
        _steer(rig, steady, look)
    asked: Future[Served] = pool.submit(replica.serve, arrivals, SECONDS)
    looks, joules_before_j = [], steady.joules_hashing if steady else 0.0
    while not asked.done():
        look = watch.look()
        _steer(rig, steady, look)
        looks.append(look)
    served = asked.result()
    rig.gate.close_gate()
    joules = steady.joules_hashing - joules_before_j if steady else 0.0
    changes = sum(a.watts_w != b.watts_w for a, b in itertools.pairwise(looks))
    update_hz = changes / (looks[-1].at_s - looks[0].at_s)
    return Arm(_even(looks, served.began_ns / 1e9), update_hz, served, joules)


def _steer(rig: Bench, steady: SteadyDraw | None, look: Look) -> None:
    if steady is not None:
        chosen = steady.update(look.at_s, look.mean_w, look.busy_share, look.mean_duty, None)
        _set(rig, chosen.idle_pct, chosen.busy_pct)


def _set(rig: Bench, idle_pct: int, busy_pct: int) -> None:
    expires_ns = boot_ns() + int(LEASE_S * 1e9)
    rig.gate.write(
        epoch=1,
        leased_w=1.0,
        expires_boot_ns=expires_ns,
        intensity_idle_pct=idle_pct,
        intensity_busy_pct=busy_pct,
    )


def _even(looks: Sequence[Look], began_s: float) -> list[float]:
    """Samples evenly spaced from the sequence's start on: their energy is what was seen."""
    times_s = np.array([one.at_s for one in looks])
    watts_w = np.array([one.watts_w for one in looks])
    energy_j = np.concatenate(([0.0], np.cumsum(watts_w[1:] * np.diff(times_s))))
    grid_s = began_s + np.arange(round(SECONDS * SAMPLE_HZ) + 1) / SAMPLE_HZ
    grid_s = grid_s[grid_s <= times_s[-1]]
    even: list[float] = (np.diff(np.interp(grid_s, times_s, energy_j)) * SAMPLE_HZ).tolist()
    return even


def _figures(alone: Arm, filled: Arm, meter: Meter) -> dict[str, object]:
    """What both arms' watts say. A flat draw shows no updates, so the livelier arm counts them."""
    update_hz = max(alone.update_hz, filled.update_hz)
    bands = [
        spectra.band(
            arm.watts_w,
            SAMPLE_HZ,
            low_hz=BAND_HZ[0],
            high_hz=BAND_HZ[1],
            update_hz=update_hz,
            averaging_s=meter.averaging_s,
        )
        for arm in (alone, filled)
    ]
    shares = [None if one is None or one.share is None else round(one.share, 4) for one in bands]
    rms_w = [None if one is None else round(one.rms_w, 3) for one in bands]
    cvs = [spectra.variation(arm.watts_w, SAMPLE_HZ) for arm in (alone, filled)]
    ramps = [spectra.ramp_w_per_s(arm.watts_w, SAMPLE_HZ) for arm in (alone, filled)]
    ranges = [spectra.dynamic_range_w(arm.watts_w) for arm in (alone, filled)]
    means = [float(np.mean(arm.watts_w)) for arm in (alone, filled)]
    ratio = cvs[0] / cvs[1] if cvs[0] is not None and cvs[1] else None
    return {
        "cv_alone": cvs[0],
        "cv_with": cvs[1],
        "ratio": ratio,
        "band_low_hz": BAND_HZ[0],
        "band_high_hz": None if bands[1] is None else round(bands[1].high_hz, 3),
        "band_share": shares[1],
        "band_share_alone": shares[0],
        "band_rms_w": {"alone": rms_w[0], "with": rms_w[1]},
        "sensor_updates_hz": round(update_hz, 2),
        "mean_w": dict(zip(("alone", "with"), means, strict=True)),
        "ramp_w_per_s": dict(zip(("alone", "with"), ramps, strict=True)),
        "dynamic_range_w": dict(zip(("alone", "with"), ranges, strict=True)),
    }


def _picture(alone: Arm, filled: Arm, target_w: float) -> plots.Picture:
    lines = [
        plots.Line(label, [k / SAMPLE_HZ for k in range(len(arm.watts_w))], arm.watts_w)
        for label, arm in (("steady draw", filled), ("inference alone", alone))
    ]
    quality = "measured" if gpus() else "modelled"
    title = f"Steady draw on {device_facts()['device']}"
    return plots.Picture("steady", title, quality, lines, {"target": target_w})
