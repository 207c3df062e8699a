"""A GPU or CPU that hashes behind its gate: leases become intensity, hits become shares.

The lease's watts become a duty cycle in the gate's file. A CPU has no meter, so its watts are
modelled: the worker's processor time times the watts of one busy CPU. A GPU's are NVML's.
"""

import asyncio
import os
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from wattshift_cluster.agent.child import Totals, WorkerChild
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.gpu import Gpu, GpuSample
from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import Counters, DeviceInfo, Kind, Point, Quality, Reading
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.gate import AgentGate
from wattshift_cluster.gate.clients import create_clients_file
from wattshift_cluster.mining.job import MiningWork, StratumJob

log = structlog.get_logger()

IDLE, HASH = "idle", "hash"
TRANSITION_S = 0.01
SAMPLE_S = 0.25
SETTLE_S = 1.0
WINDOW = 5
"""Samples in the window of a rate: one second."""

KEPT_WORK = 16
AHEAD = 2
CPU_IDLE_SHARE = 0.02
"""Upper bound of what a closed worker's looking at the gate costs, as a share of one CPU."""

CPU_H_PER_S = 25e6
GPU_H_PER_S_PER_W = 1e7
"""Expected rates (modelled) until the device's own is known."""

RATE_AFTER_NS = 3_000_000_000
RATE_WRONG = 1.5
"""Only a rate off by this factor changes the inventory: each change makes all grants be renewed."""


@dataclass(frozen=True, slots=True)
class HashingSpec:
    """A hashing device of this host.

    Attributes:
        id: unique in the site.
        gate_dir: where its gate lies.
        idle_w, top_w: draw without hashing and at full intensity, W.
        base_w: the part of `top_w` that is not hashing's, W.
        nice: of the worker.
        host: machine whose compute it overlaps.
        gpu: the GPU; None for the CPU.
        refusal: why it must not mine; None when it may.
    """

    id: str
    gate_dir: Path
    kind: Kind
    model: str
    firmware: str
    idle_w: float
    base_w: float
    top_w: float
    hashrate_h_per_s: float
    nice: int
    host: str | None
    gpu: Gpu | None = None
    refusal: str | None = None


def cpu_spec(device: str, gate_dir: Path, cpu_w: float, nice: int, host: str | None) -> HashingSpec:
    """One CPU of this host, of which `cpu_w` is the draw when busy, W."""
    return HashingSpec(
        id=device,
        gate_dir=gate_dir,
        kind="cpu",
        model=f"CPU core of {os.uname().machine}",
        firmware=os.uname().release,
        idle_w=CPU_IDLE_SHARE * cpu_w,
        base_w=0.0,
        top_w=cpu_w,
        hashrate_h_per_s=CPU_H_PER_S,
        nice=nice,
        host=host,
    )


def gpu_spec(device: str, gate_dir: Path, gpu: Gpu, nice: int, host: str | None) -> HashingSpec:
    """One GPU of this host."""
    return HashingSpec(
        id=device,
        gate_dir=gate_dir,
        kind="gpu",
        model=gpu.name,
        firmware=gpu.driver,
        idle_w=gpu.idle_w,
        base_w=gpu.idle_w,
        top_w=gpu.limit_w,
        hashrate_h_per_s=GPU_H_PER_S_PER_W * gpu.limit_w,
        nice=nice,
        host=host,
        gpu=gpu,
    )


def duty_pct(lease: Lease, spec: HashingSpec) -> int:
    """Whole percents of time that the lease's watts allow; never more than they do."""
    if lease.mode == IDLE:
        return 0
    share = (lease.watts_w - spec.base_w) / (spec.top_w - spec.base_w)
    return max(0, min(100, int(share * 100 + 1e-6)))


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    totals: Totals
    gpu: GpuSample | None


class HashingDevice:
    """See `Device`. Fenced: the gate's expiry stops the worker even if this process is dead."""

    def __init__(self, spec: HashingSpec, desk: PoolDesk | None) -> None:
        """Make the gate, closed.

        Raises:
            Refused: another agent writes this gate.
            GateInvalid: its files cannot be made.
        """
        self.spec = spec
        self.inventory_version = 0
        self._desk = desk
        create_clients_file(spec.gate_dir / f"{spec.id}.clients")
        self._gate = AgentGate(spec.gate_dir / f"{spec.id}.gate")
        self._hashrate_h_per_s = spec.hashrate_h_per_s
        self._rate_known = False
        self._counts = Counters(0, 0, 0, 0, 0, 0.0)
        self._works: OrderedDict[int, MiningWork] = OrderedDict()
        self._last_work = 0
        self._submits: set[asyncio.Task[None]] = set()
        self._samples: deque[_Sample] = deque(maxlen=WINDOW)
        self.child = self._make_child()
        if desk is not None:
            desk.subscribe(self._told)

    @property
    def id(self) -> str:
        """See `Device`."""
        return self.spec.id

    def info(self) -> DeviceInfo:
        """See `Device`."""
        spec = self.spec
        points = [Point(IDLE, spec.idle_w, 0.0, TRANSITION_S)]
        if spec.refusal is None:
            points.append(Point(HASH, spec.top_w, self._hashrate_h_per_s, TRANSITION_S))
        return DeviceInfo(
            id=spec.id,
            kind=spec.kind,
            model=spec.model,
            firmware=spec.firmware,
            algorithm="sha256d",
            nameplate_w=spec.top_w,
            tolerance=0.05,
            continuous=True,
            fenced=True,
            safe_w=spec.idle_w,
            power_on_w=spec.idle_w,
            host=spec.host,
            quality=self._quality,
            points=tuple(points),
        )

    def terms(self) -> Terms:
        """See `Device`."""
        spec = self.spec
        modes = {IDLE: spec.idle_w, HASH: spec.top_w}
        return Terms(modes, spec.top_w * 1.001, continuous=True, closed=spec.refusal)

    def hold(self, lease: Lease) -> None:
        """See `Device`; in force with the worker's next launch."""
        self._gate.write(
            epoch=lease.epoch,
            leased_w=lease.watts_w,
            expires_boot_ns=int(lease.valid_until_boot_s * 1e9),
            intensity_idle_pct=duty_pct(lease, self.spec),
        )

    def safe(self) -> None:
        """See `Device`."""
        self._gate.close_gate()

    def reading(self) -> Reading:
        """See `Device`."""
        if not self._samples:
            return Reading(self.id, boot_s(), self._quality, error=self._error())
        first, last = self._samples[0], self._samples[-1]
        span_s = last.at_s - first.at_s
        rate = watts_w = None
        if span_s > 0:
            rate = (last.totals.hashes - first.totals.hashes) / span_s
            cpus = (last.totals.cpu_ns - first.totals.cpu_ns) / 1e9 / span_s
            watts_w = cpus * self.spec.top_w if self.spec.gpu is None else None
        gpu = last.gpu or GpuSample(None, None, None)
        return Reading(
            device=self.id,
            at_boot_s=last.at_s,
            quality=self._quality,
            watts_w=gpu.watts_w if self.spec.gpu is not None else watts_w,
            enforced_limit_w=gpu.enforced_limit_w,
            hashrate_h_per_s=rate,
            temperature_c=gpu.temperature_c,
            mode=HASH if rate else IDLE,
            error=self._error(),
            counters=replace(self._counts, hashes=last.totals.hashes),
        )

    async def run(self) -> None:
        """See `Device`."""
        async with asyncio.TaskGroup() as group:
            if self.spec.refusal is None:
                group.create_task(self.child.run())
            group.create_task(self._sample())

    async def close(self) -> None:
        """See `Device`: stop the gate and let the last shares arrive."""
        self._gate.close()
        if self._submits:
            await asyncio.wait(self._submits, timeout=SETTLE_S)

    @property
    def _quality(self) -> Quality:
        return "modelled" if self.spec.gpu is None else "measured"

    def _make_child(self) -> WorkerChild:
        spec = self.spec
        seat = spec.gate_dir / f"{spec.id}.worker"
        arguments = (
            f"--device={spec.kind}",
            f"--gate={self._gate.path}",
            f"--seat={seat}",
            f"--nice={spec.nice}",
        )
        visible = "" if spec.gpu is None else spec.gpu.uuid
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        return WorkerChild(arguments, environment, seat, self._heard)

    def _heard(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "ready"}:
                self._new_job()
            case {"event": "spent"}:
                self._give(clean=False)
            case {"event": "hit", "id": int(number), "nonce": int(nonce)}:
                self._hit(number, nonce)

    def _told(self, job: StratumJob | None) -> None:
        if job is None:
            self.child.send({"op": "idle"})
        else:
            self._new_job()

    def _new_job(self) -> None:
        self._give(clean=True)
        for _ in range(AHEAD - 1):
            self._give(clean=False)

    def _give(self, *, clean: bool) -> None:
        """Hand one assignment to the worker."""
        work = self._desk.work() if self._desk is not None else None
        if work is None or self.child.fault is not None:
            return
        self._last_work += 1
        self._works[self._last_work] = work
        while len(self._works) > KEPT_WORK:
            self._works.popitem(last=False)
        message = {"op": "work", "id": self._last_work, "clean": clean}
        header, target = work.header76.hex(), f"{work.target:064x}"
        self.child.send({**message, "header76": header, "target": target})

    def _hit(self, number: int, nonce: int) -> None:
        work = self._works.get(number)
        if work is None or not work.is_share(nonce):
            log.warning("worker.wrong_hit", device=self.id, work=number)
            return
        task = asyncio.create_task(self._submit(work, nonce))
        self._submits.add(task)
        task.add_done_callback(self._submits.discard)

    async def _submit(self, work: MiningWork, nonce: int) -> None:
        assert self._desk is not None
        self._count(shares_found=1)
        result = await self._desk.submit(work.share(nonce))
        if result.accepted:
            self._count(accepted=1, accepted_difficulty=result.difficulty)
        elif (result.reason or "").startswith("lost"):
            self._count(lost=1)
        else:
            self._count(rejected=1)

    def _count(self, **more: float) -> None:
        now = {name: getattr(self._counts, name) + step for name, step in more.items()}
        self._counts = replace(self._counts, **now)

    async def _sample(self) -> None:
        while True:
            gpu = self.spec.gpu
            seen = await asyncio.to_thread(gpu.sample) if gpu is not None else None
            self._samples.append(_Sample(boot_s(), self.child.totals(), seen))
            self._learn_rate(self._samples[-1].totals)
            await asyncio.sleep(SAMPLE_S)

    def _learn_rate(self, totals: Totals) -> None:
        """Once, and only if the expectation was badly wrong. A CPU's rate is per CPU second."""
        busy_ns = totals.cpu_ns if self.spec.gpu is None else totals.launching_ns
        if self._rate_known or totals.launching_ns < RATE_AFTER_NS or not busy_ns:
            return
        self._rate_known = True
        rate = totals.hashes / (busy_ns / 1e9)
        off = max(rate, 1.0) / self._hashrate_h_per_s
        if not 1 / RATE_WRONG < off < RATE_WRONG:
            self._hashrate_h_per_s = rate
            self.inventory_version += 1

    def _error(self) -> str | None:
        if self.spec.refusal is not None:
            return self.spec.refusal
        pool = f"no pool session: {self._desk.fault}" if self._desk and self._desk.fault else None
        return self.child.fault or pool
