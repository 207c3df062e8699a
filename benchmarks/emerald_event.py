"""A site of Emerald's jobs in an event: the real `step` on a modelled world, second by second.

Each job is a service of as many units as it had GPUs, with the sweep's power caps as its power
steps; the least units are what its class promises. Beside them stand miners, part of them behind
gates. The cap is a step without a ramp: the site draws what it draws until it comes.

Requests are a fluid: each service is offered a seeded, wavering share of what it can do without a
cap, and what it cannot serve at once waits. A request misses its SLO when the queue it finds takes
longer than that.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.emerald_data import Workload

from wattshift_cluster.simulate.feeds import Feeds, Series
from wattshift_cluster.simulate.run import Drive, bound_s
from wattshift_cluster.simulate.tally import Tally
from wattshift_cluster.simulate.world import Slice, World
from wattshift_scheduler.jobs import FLEXIBILITY_LOSS, Job, JobKind, PowerStep, Terms
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.values import Values

SEED = 5
BEGIN_S, EVENT_S, AFTER_S = 3600.0, 3 * 3600.0, 1800.0
BASE_S = 1800.0
"""The mean over so long before the event is what it is measured against."""

NODES = 4
GPUS_A_NODE = 72
ASICS, GATES = 12, 4
GATED_SHARE_OF_MINING = 0.3
USD_PER_MWH, HASHPRICE = 45.0, 42.3
ASIC_USD_PER_MWH, GATE_USD_PER_MWH = 100.0, 60.0
AI_USD_PER_UNIT_H = 1.5
FIRMWARE_S = 5.0

LOAD, WAVER, MEMORY = 0.82, 0.08, 0.99
"""Offered load: its mean, the deviation of its slow noise, and how much of it lasts a second on."""

SLO_S = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """One slice of the run: when, how long, W, and each job's capacity as a share of all of it."""

    at_s: float
    lasts_s: float
    total_w: float
    mining_w: float
    capacity: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run. `limit_w` is the cap of its event; infinite if it had none."""

    workloads: Sequence[Workload]
    moments: Sequence[Moment]
    limit_w: float

    def base_w(self) -> float:
        """Mean draw of the half hour before the event, W."""
        return _mean(
            [(m.total_w, m.lasts_s) for m in self.moments if BEGIN_S - BASE_S <= m.at_s < BEGIN_S]
        )

    def event(self) -> list[Moment]:
        """The moments of the event."""
        return [m for m in self.moments if BEGIN_S <= m.at_s < BEGIN_S + EVENT_S]

    def performance(self) -> dict[str, float]:
        """Mean throughput of each job in the event, of what it does without a cap."""
        return {
            one.name: _mean([(m.capacity[one.name], m.lasts_s) for m in self.event()])
            for one in self.workloads
        }

    def missed(self) -> dict[str, float]:
        """Share of each job's requests in the event that miss their SLO."""
        return {one.name: self._missed(one.name) for one in self.workloads}

    def _missed(self, name: str) -> float:
        dice, drift, queue = random.Random(f"{SEED} {name}"), 0.0, 0.0
        offered = missed = 0.0
        for moment in self._seconds():
            drift = MEMORY * drift + dice.gauss(0.0, WAVER * (1 - MEMORY**2) ** 0.5)
            came, can = max(LOAD + drift, 0.0), moment.capacity[name]
            queue = max(queue + came - can, 0.0)
            if moment.at_s >= BEGIN_S:
                offered += came
                missed += came * (queue > SLO_S * can)
        return missed / offered

    def _seconds(self) -> list[Moment]:
        """One moment a second until the event's end: the same seconds in every run."""
        found, i = [], 0
        for second in range(int(BEGIN_S + EVENT_S)):
            while i + 1 < len(self.moments) and self.moments[i + 1].at_s <= second:
                i += 1
            found.append(replace(self.moments[i], at_s=float(second)))
        return found

    def minute_means_w(self) -> list[float]:
        """Mean draw of each minute of the event, W."""
        minutes: dict[int, list[tuple[float, float]]] = {}
        for moment in self._seconds():
            if moment.at_s >= BEGIN_S:
                minute = int((moment.at_s - BEGIN_S) // 60)
                minutes.setdefault(minute, []).append((moment.total_w, 1.0))
        return [_mean(minutes[minute]) for minute in sorted(minutes)]

    def settle_s(self) -> float | None:
        """From the event's begin until the site is at or below its cap for good; None: never."""
        above = [m.at_s + m.lasts_s for m in self.event() if m.total_w > self.limit_w + 1e-6]
        last_s = max(above, default=BEGIN_S)
        return None if last_s >= BEGIN_S + EVENT_S else last_s - BEGIN_S


class _Recording(Drive):
    """A simulation that keeps what each slice was like."""

    moments: list[Moment]
    workloads: Sequence[Workload]

    def _count(self, one: Slice) -> None:
        super()._count(one)
        capacity = {w.name: _capacity(self.world, w, one.at_s) for w in self.workloads}
        self.moments.append(Moment(one.at_s, one.lasts_s, one.total_w, one.mining_w, capacity))


def _capacity(world: World, one: Workload, now_s: float) -> float:
    """What a job can do now, as a share of what its GPUs do without a cap."""
    done = 0.0
    for unit in world.ray.units.get(one.name, ()):
        if unit.ready_s <= now_s:
            limit_w = world.ray.limits.get((unit.node, one.name), one.steps[0].watts_w)
            kept = [step.throughput for step in one.steps if step.watts_w <= limit_w + 1e-6]
            done += kept[0] if kept else 0.0
    return done / one.gpus


def play(workloads: Sequence[Workload], mining_w: float, limit_w: float | None) -> Run:
    """Run the site through one event.

    Args:
        workloads: the jobs.
        mining_w: what the miners draw together, W; 0 for none.
        limit_w: the event's cap, W; None for a run without an event.
    """
    site, devices, jobs = _site(workloads, mining_w), _devices(mining_w), _jobs(workloads)
    values = Values(
        hashprice_usd_per_ph_day=HASHPRICE,
        reserve_usd_per_mwh=GATE_USD_PER_MWH,
        default_price_usd_per_mwh=USD_PER_MWH,
    )
    flat = Series((0.0,), (USD_PER_MWH,), "constant")
    caps = () if limit_w is None else (Cap("event", "grid", limit_w, BEGIN_S, BEGIN_S + EVENT_S),)
    driven = Feeds(flat, Series((0.0,), (1.0,), "all replicas are wanted"), caps, "one event")
    drive = _Recording(
        site, values, jobs, World.of(site, devices, jobs, SEED), driven, (),
        Tally(values, bound_s(site, devices) if devices else 60.0), 1.0, 60.0,
    )  # fmt: skip
    drive.workloads, drive.moments = workloads, []
    drive.until(BEGIN_S + EVENT_S + AFTER_S)
    return Run(workloads, drive.moments, float("inf") if limit_w is None else limit_w)


def _site(workloads: Sequence[Workload], mining_w: float) -> Site:
    ai_w = sum(one.gpus * one.steps[0].watts_w for one in workloads)
    tree = FeederTree.of([Feeder("main", None, 1.1 * (ai_w + mining_w))])
    most_w = GPUS_A_NODE * max(one.steps[0].watts_w for one in workloads)
    nodes = tuple(Node(f"n{i}", "main", most_w, float(GPUS_A_NODE)) for i in range(NODES))
    return Site("emerald", tree, nodes, Rules(margin_share=0.005))


def _jobs(workloads: Sequence[Workload]) -> list[Job]:
    services = [
        Job(
            one.name, JobKind.SERVICE, one.name, {}, 0.0,
            unit_w=one.steps[0].watts_w,
            min_units=round(one.gpus * (1.0 - FLEXIBILITY_LOSS[one.flexibility])),
            max_units=one.gpus,
            value_usd_per_h=AI_USD_PER_UNIT_H,
            terms=Terms(
                gpus=1.0,
                flexibility=one.flexibility,
                steps=tuple(PowerStep(s.watts_w, s.throughput) for s in one.steps[1:]),
            ),
        )
        for one in workloads
    ]  # fmt: skip
    return [Job("mining", JobKind.MINING, "standing", {"devices": ["*"]}, 0.0), *services]


def _devices(mining_w: float) -> list[Device]:
    if mining_w <= 0.0:
        return []
    gate_w = mining_w * GATED_SHARE_OF_MINING / GATES
    asic_w = mining_w * (1.0 - GATED_SHARE_OF_MINING) / ASICS
    rate = asic_w * ASIC_USD_PER_MWH / 1e6 * 24.0 / HASHPRICE * 1e15
    points = (
        OperatingPoint("sleep", 0.01 * asic_w, 0.0, FIRMWARE_S),
        OperatingPoint("mine", asic_w, rate, FIRMWARE_S),
    )
    gated = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", gate_w, 1e-5, 0.01))
    return [
        *(
            Device(f"asic-{i:02d}", "asic", "farm", "main", points, asic_w, safe_w=0.01 * asic_w)
            for i in range(ASICS)
        ),
        *(
            Device(f"gate-{i}", "gpu", "host", "main", gated, gate_w, continuous=True, fenced=True)
            for i in range(GATES)
        ),
    ]


def _mean(rows: Sequence[tuple[float, float]]) -> float:
    """Mean of (value, weight)."""
    return sum(value * weight for value, weight in rows) / sum(weight for _, weight in rows)
