"""The real core on the bench's site: `step`, some times in every interval, with nothing around it.

Each bank is a device with the points of its machines; each interval begins with the price, the
caps and the needs that hold from then on, is stepped a second apart until nothing more is asked for
and answered, and once more when what had to settle has settled. The world is exact: its readings
have no error, so there is neither a margin nor a tolerance, and a lease outlives its interval.
Compute is the simulator's Ray: nodes of 40 GPUs, a service, batch jobs that come and go.

A site that follows an event without being bound to has it as a contract's cap, as it would come
from the programme; whether it follows is its owner's standing word (`least_pay`). Its connection's
ramp is a cap that is told anew in every interval.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from benchmarks.economics_case import BATCH_USD_PER_UNIT_H, CONNECTION_W, BatchJob, Case, Event
from benchmarks.economics_peaks import Watch
from benchmarks.economics_site import (
    GPUS,
    GPUS_A_UNIT,
    HASHPRICE_USD_PER_PH_DAY,
    UNIT_W,
    UNITS,
    Yard,
)
from benchmarks.economics_world import EPS_H, World

from wattshift_cluster.simulate.compute import REPLICA_START_S, ModelledRay
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import Command, GrantLeases
from wattshift_scheduler.jobs import Job, JobKind, Terms
from wattshift_scheduler.signals.words import Cap, CapKind
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

FARM, SERVICE, MINING = "farm", "services", "mining"
NODES = 5
BLOCKS = 10
"""Feeders of the banks: each of as many of every generation."""

BLOCK_SPARE = 1.1
ITEMS_A_UNIT_H = 1000
"""Of a batch job: its progress is told in items."""

ROUNDS_MOST = 12
"""Seconds in which an interval's commands and answers have come to rest."""

AGAIN_S = (30.0, 60.0)
"""After which it is looked again: what was lowered has been seen, what is quiet may go."""

LONG_S = 1e6
"""Longer than any interval: readings and leases of the bench do not age within one."""


@dataclass
class Owner:
    """What a site's owner has decided for good.

    Attributes:
        least_pay: of an event that is followed without being firm, USD/MWh.
        expected_s: `Rules.expected_shed_s`.
        peak_confidence: of a day whose foreseen peak is acted on (`Rules.act_at_confidence`).
        peak_cover: share of a day's chance of a peak that the capped intervals hold.
    """

    least_pay: float = 0.0
    expected_s: float = 3600.0
    peak_confidence: float = 0.5
    peak_cover: float = 0.9


@dataclass
class Core:
    """A policy: the ladder as it is. One per case.

    Attributes:
        standing: the owner's word.
        state: of the core.
        steps: how often it was asked.
    """

    standing: Owner = field(default_factory=Owner)
    state: State | None = None
    steps: int = 0
    ray: ModelledRay | None = None
    watch: Watch | None = None
    _jobs: dict[str, str] = field(default_factory=dict)
    _modes: dict[str, int] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def __call__(self, world: World) -> None:
        """As a policy: an interval."""
        begins_s = world.now_s
        owed = self._begin(world) if self.state is None else []
        events = [*owed, *self._signals(world), *self._arrived(world)]
        self._rounds(world, events)
        for after_s in AGAIN_S:
            if begins_s + after_s > world.now_s:
                self._pass(world, begins_s + after_s)
            self._rounds(world, [])
        self._pass(world, world.ends_s)

    def _begin(self, world: World) -> list[ev.Event]:
        """A controller starts where all banks run; what is answered to its first commands."""
        site = site_of(world.yard, self.standing)
        values = Values(hashprice_usd_per_ph_day=HASHPRICE_USD_PER_PH_DAY,
                        default_price_usd_per_mwh=0.0)  # fmt: skip
        self.state = initial(site, values, epoch=1)
        self.ray = ModelledRay.of(site.nodes, [_service()])
        devices = devices_of(world.yard)
        self._modes = {p.mode: n for d in devices for n, p in enumerate(d.points)}
        mining = Job(MINING, JobKind.MINING, MINING, {"devices": ["*"]}, world.now_s)
        first: list[ev.Event] = [
            ev.DeviceJoined(devices),
            ev.JobSubmitted(mining),
            ev.JobSubmitted(_service()),
        ]
        told = [*first, *self._signals(world), *self._polled(world)]
        self.state, commands, _ = step(self.state, told, world.now_s)
        return self._carry(world, commands)

    def _signals(self, world: World) -> list[ev.Event]:
        """What holds from this interval on."""
        case, i = world.case, world.i
        caps = [self._cap(case, one.name, one.limit_w, one.starts, one.ends)
                for one in case.known_events(i)
                if one.firm or self.follows(world, one)]  # fmt: skip
        ramp_w = min(world.ramp_room_w(), CONNECTION_W)
        ramp = self._cap(case, "ramp", ramp_w, i, i + 1)
        price = float(case.trace.price_usd_per_mwh[i])
        return [
            ev.SignalChanged("programme", tuple(caps)),
            ev.SignalChanged("connection", (ramp,)),
            ev.SignalChanged("peaks", self.peak_caps(world)),
            ev.SignalChanged("price", (), price, True),
        ]

    def follows(self, world: World, one: Event) -> bool:
        """Whether an event that does not bind is followed."""
        return one.usd_per_mwh >= self.standing.least_pay

    def peak_caps(self, world: World) -> tuple[Cap, ...]:
        """Caps of the grid's peaks, as foreseen; none where nobody foresees them."""
        if not world.case.season:
            return ()
        if self.watch is None:
            self.watch = Watch(world.case)
        return self.watch.caps(world.i, self.standing.peak_cover, self.standing.peak_confidence)

    def _cap(self, case: Case, name: str, limit_w: float, starts: int, ends: int) -> Cap:
        step_s = case.trace.step_s
        return Cap(name, name, limit_w, starts * step_s, ends * step_s, CapKind.CONTRACT)

    def _arrived(self, world: World) -> list[ev.Event]:
        """Jobs that have been submitted by now and were not told of."""
        assert self.ray is not None
        found: list[ev.Event] = []
        for one in world.case.open_jobs(world.i):
            if one.name not in self._jobs:
                self._jobs[one.name] = one.name
                job = batch_of(one, world)
                self.ray.jobs[one.name] = job
                found.append(ev.JobSubmitted(job))
        return found

    def _rounds(self, world: World, events: list[ev.Event]) -> None:
        """Step, a second apart, until nothing more is asked for."""
        assert self.state is not None
        for _ in range(ROUNDS_MOST):
            told = [*events, *self._polled(world)]
            self.state, commands, _ = step(self.state, told, world.now_s)
            self.steps += 1
            events = self._carry(world, commands)
            if not events:
                return
            self._pass(world, min(world.now_s + 1.0, world.ends_s - 1.0))

    def _polled(self, world: World) -> list[ev.Event]:
        """What the site hears when it asks everybody."""
        assert self.ray is not None
        case, now_s = world.case, world.now_s
        for node in self.ray.nodes.values():
            node.load = case.need(world.i) / UNITS
        self.ray.settle(now_s)
        told: list[ev.Event] = [ev.AgentSeen(FARM, "boot", now_s, now_s), self._readings(world)]
        for one in self.ray.report(now_s):
            if not isinstance(one, ev.JobReported) or one.job == SERVICE:
                told.append(one)
            elif one.job not in self._ended:
                told.append(self._progress(world, one))
        told.append(ev.MeterRead(world.site_w(), now_s))
        return told

    def _progress(self, world: World, told: ev.JobReported) -> ev.JobReported:
        assert self.ray is not None
        job = next(one for one in world.case.jobs if one.name == told.job)
        total = _items(job)
        left = math.ceil(world.left_h[job.name] * ITEMS_A_UNIT_H - 1e-6)
        if world.left_h[job.name] <= EPS_H:
            self._ended.add(job.name)
            self.ray.workers.pop(job.name, None)
            self.ray.units.pop(job.name, None)
            return ev.JobReported(job.name, "completed", done=total, total=total, by_node={})
        units = sum((told.by_node or {}).values())
        rate_per_s = units * ITEMS_A_UNIT_H / 3600.0 if units else None
        return ev.JobReported(
            told.job, told.state, done=total - left, total=total, by_node=told.by_node,
            rate_per_s=rate_per_s,
        )  # fmt: skip

    def _readings(self, world: World) -> ev.Readings:
        yard, n = world.yard, len(world.yard)
        watts_w = world.drawn_w()
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        return ev.Readings(
            devices=tuple(f"bank-{k:03d}" for k in range(n)),
            at_s=np.full(n, world.now_s),
            watts_w=watts_w,
            limit_w=nan,
            hashrate_h_per_s=yard.usd_per_h[np.arange(n), world.points] * 0.0,
            held_w=watts_w,
            held_for_s=np.full(n, LONG_S),
            held_mode=tuple(
                _mode(int(k), int(p)) for k, p in zip(yard.kind, world.points, strict=True)
            ),
            foreign=no,
            failed=no,
        )

    def _carry(self, world: World, commands: Iterable[Command]) -> list[ev.Event]:
        """Carry out commands; what is answered."""
        assert self.ray is not None
        told: list[ev.Event] = []
        points = world.points.copy()
        for command in commands:
            if isinstance(command, GrantLeases):
                rows = [int(name[5:]) for name in command.devices]
                points[rows] = [self._modes[mode] for mode in command.modes]
                told.append(ev.AgentSeen(FARM, "boot", world.now_s, world.now_s))
                yes = np.ones(len(rows), dtype=np.bool_)
                told.append(ev.LeasesReplied(
                    command.id, command.devices, command.sequence, yes, ("",) * len(rows)
                ))  # fmt: skip
            else:
                told.append(self.ray.carry(command, world.now_s))
        if (points != world.points).any():
            world.set_points(points)
        return told

    def _pass(self, world: World, to_s: float) -> None:
        """Let time pass; batch works where its units are up."""
        assert self.ray is not None
        self.ray.settle(world.now_s)
        while world.now_s < to_s - 1e-6:
            until_s = min(to_s, max(self.ray.next_ready_s(world.now_s), world.now_s + 1e-3))
            world.set_units(self._up(world.now_s, self._jobs), self._up(to_s, [SERVICE])[SERVICE])
            ends = until_s >= world.ends_s - 1e-6
            world.hold(until_s)
            if ends:
                return

    def _up(self, now_s: float, jobs: Iterable[str]) -> Mapping[str, int]:
        assert self.ray is not None
        units = self.ray.units
        return {
            name: sum(one.ready_s <= now_s < one.leaves_s for one in units.get(name, ()))
            for name in jobs
        }


def site_of(yard: Yard, standing: Owner) -> Site:
    """The site as its file would have it."""
    blocks_w = np.bincount(np.arange(len(yard)) % BLOCKS, yard.top_w, BLOCKS)
    feeders = [Feeder("main", None, CONNECTION_W), Feeder("hall", "main", 1.2 * GPUS * 1000.0)]
    feeders += [
        Feeder(f"block-{k}", "main", BLOCK_SPARE * watts_w)
        for k, watts_w in enumerate(blocks_w)
        if watts_w > 0.0
    ]
    nodes = tuple(
        Node(f"node-{k}", "hall", UNIT_W * UNITS / NODES, GPUS / NODES) for k in range(NODES)
    )
    rules = Rules(
        margin_share=0.0,
        stale_margin_share=0.0,
        lease_ttl_s=LONG_S,
        lease_renew_s=LONG_S,
        stale_after_s=LONG_S,
        scale_down_after_s=0.0,
        expected_shed_s=standing.expected_s,
        act_at_confidence=min(standing.peak_confidence, 0.5),
    )
    return Site("bench", FeederTree.of(feeders), nodes, rules, (FARM,))


def devices_of(yard: Yard) -> tuple[Device, ...]:
    """One device a bank."""
    found = []
    for row, number in enumerate(yard.kind):
        kind = yard.kinds[number]
        points = tuple(
            OperatingPoint(_mode(int(number), n), watts_w, rate, kind.up_s if n else 1.0)
            for n, (watts_w, rate) in enumerate(zip(kind.points_w, kind.hashes_per_s, strict=True))
        )
        found.append(
            Device(
                f"bank-{row:03d}", "asic", FARM, f"block-{row % BLOCKS}", points,
                nameplate_w=kind.points_w[-1], tolerance=0.0, safe_w=kind.points_w[0],
                wear_usd_per_cycle=kind.wear_usd,
            )
        )  # fmt: skip
    return tuple(found)


def batch_of(one: BatchJob, world: World) -> Job:
    """A batch job as its owner submits it."""
    return Job(
        one.name, JobKind.BATCH, one.name, {"chunk_items": 1}, world.now_s,
        unit_w=UNIT_W, min_units=1, max_units=one.most,
        value_usd_per_h=BATCH_USD_PER_UNIT_H,
        deadline_s=one.deadline * world.case.trace.step_s,
        total=_items(one), done=0,
        terms=Terms(gpus=float(GPUS_A_UNIT)),
    )  # fmt: skip


def _service() -> Job:
    return Job(
        SERVICE, JobKind.SERVICE, SERVICE, {}, 0.0, unit_w=UNIT_W, min_units=0, max_units=UNITS,
        value_usd_per_h=100.0, terms=Terms(gpus=float(GPUS_A_UNIT), priority=10),
    )  # fmt: skip


def _items(job: BatchJob) -> int:
    return math.ceil(job.unit_h * ITEMS_A_UNIT_H)


def _mode(kind: int, point: int) -> str:
    return f"{kind}-{point}"


assert AGAIN_S[0] > REPLICA_START_S, "units are up before an interval is looked at again"
