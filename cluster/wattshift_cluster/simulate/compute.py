"""A modelled Ray cluster: watts by node, replicas that take time to start, batch workers, gangs.

It keeps Ray's own rules. A shrink of a node's watts is clamped to what is in use there, and asked
for again until it is there; work starts only where the granted watts cover it; nobody but Ray says
on which node a replica runs. A service's load is a share of what its most replicas can serve.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    LimitUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.compute.demand import ONGOING_PER_REPLICA
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Node

REPLICA_START_S = 4.0
"""Time from asking for a replica to its first answer: process start and model load."""

ROUNDING_W = 1e-6


@dataclass(slots=True)
class ModelledNode:
    """One compute node.

    Attributes:
        node: its name, feeder and most watts.
        granted_w: watts that work on it may ask for, W.
        asked_w: what was last asked for, W: what is freed above it is taken away.
        load: share of all services' most replicas that is wanted now, 0 to 1.
        gone: Ray has lost it (fault); what runs there goes on, and nobody counts it.
        unasked_w: draw of work there that asked for no watts, W.
    """

    node: Node
    granted_w: float = 0.0
    asked_w: float = 0.0
    load: float = 0.0
    gone: bool = False
    unasked_w: float = 0.0


@dataclass(slots=True)
class Unit:
    """A replica or a batch worker.

    Attributes:
        node: where it runs.
        ready_s: when it is (or will be) up.
        leaves_s: when it will have left; infinite while it may stay.
    """

    node: str
    ready_s: float
    leaves_s: float = math.inf


@dataclass(slots=True)
class ModelledRay:
    """The cluster.

    Attributes:
        nodes: by name.
        jobs: services and batch jobs that it knows, by id.
        leave_s: how long a unit takes to leave: requests to drain, a chunk to finish.
        replicas: asked for, by service.
        workers: asked for, by batch job and node.
        units: what there is of each job.
        orphans: units on nodes that Ray has lost; they go on until the node is back.
        limits: power limits of one unit, by node and job, W.
    """

    nodes: dict[str, ModelledNode]
    jobs: dict[str, Job]
    leave_s: float = 0.0
    replicas: dict[str, int] = field(default_factory=dict)
    workers: dict[str, dict[str, int]] = field(default_factory=dict)
    units: dict[str, list[Unit]] = field(default_factory=dict)
    orphans: dict[str, list[Unit]] = field(default_factory=dict)
    limits: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[Node], jobs: Iterable[Job]) -> "ModelledRay":
        """A cluster in which nothing runs."""
        work = {job.id: job for job in jobs if job.kind is not JobKind.MINING}
        return cls({node.name: ModelledNode(node) for node in nodes}, work)

    def carry(self, command: ComputeCommand, now_s: float) -> ev.CommandEnded:
        """Carry out a command at once, as far as the watts go."""
        watts_w: float | None = None
        match command:
            case SetNodePower(node=name, watts_w=asked_w):
                self.nodes[name].asked_w = min(asked_w, self.nodes[name].node.max_w)
                self.nodes[name].granted_w = max(self.nodes[name].asked_w, self.in_use_w(name))
                watts_w = self.nodes[name].granted_w
            case SetReplicas(job=job, replicas=replicas):
                self.replicas[job] = replicas
            case StartJob(job=job, nodes=nodes):
                self.workers[job] = dict(nodes) or {next(iter(self.nodes)): 1}
            case PauseJob(job=job) | CancelJob(job=job):
                if job in self.replicas:
                    self.replicas[job] = 0
                else:
                    self.workers[job] = {}
            case EvictUnits(node=name, job=job, units=count):
                here = [one for one in self._staying(job) if one.node == name]
                for one in here[-count:]:
                    one.leaves_s = now_s + self.leave_s
            case LimitUnits(node=name, job=job, watts_w=limit_w):
                watts_w = self._limit(name, job, limit_w)
        self.settle(now_s)
        return ev.CommandEnded(command.id, True, "", watts_w)

    def _limit(self, node: str, job: str, limit_w: float | None) -> float | None:
        self.limits.pop((node, job), None)
        if limit_w is not None:
            self.limits[node, job] = limit_w
        return limit_w

    def lose(self, name: str) -> None:
        """Ray loses a node: its units are gone from the books, and go on all the same."""
        self.nodes[name].gone = True
        for job, units in self.units.items():
            self.orphans.setdefault(job, []).extend(one for one in units if one.node == name)
            units[:] = [one for one in units if one.node != name]

    def find(self, name: str) -> None:
        """The node is back: it has started anew, with nothing running and no watts."""
        node = self.nodes[name]
        node.gone, node.granted_w, node.asked_w = False, 0.0, 0.0
        for units in self.orphans.values():
            units[:] = [one for one in units if one.node != name]

    def settle(self, now_s: float) -> None:
        """Stop what is no longer asked for; start what is asked for and fits the granted watts."""
        for job, units in self.units.items():
            units[:] = [one for one in units if one.leaves_s > now_s]
            self._leave(job, now_s)
            units[:] = [one for one in units if one.leaves_s > now_s]
        for name, node in self.nodes.items():
            node.granted_w = min(node.granted_w, max(node.asked_w, self.in_use_w(name)))
        for job, replicas in self.replicas.items():
            while len(self._staying(job)) < replicas and self._start(job, self.nodes, now_s):
                pass
        for job, division in self.workers.items():
            self._begin(job, division, now_s)

    def _staying(self, job: str) -> list[Unit]:
        return [one for one in self.units.setdefault(job, []) if math.isinf(one.leaves_s)]

    def _leave(self, job: str, now_s: float) -> None:
        """Have units leave that are too many; of a service those on the node with the fewest."""
        staying = self._staying(job)
        surplus: list[Unit] = []
        if job in self.replicas:
            count = Counter(one.node for one in staying)
            few_first = sorted(staying, key=lambda one: (count[one.node], -one.ready_s))
            surplus = few_first[: max(len(staying) - self.replicas[job], 0)]
        for name in self.nodes if job in self.workers else ():
            here = [one for one in staying if one.node == name]
            surplus += here[self.workers[job].get(name, 0) :]
        for one in surplus:
            one.leaves_s = now_s + self.leave_s

    def _begin(self, job: str, division: Mapping[str, int], now_s: float) -> None:
        """Start the workers that a batch job still lacks; a gang all at once or not at all."""
        have = Counter(one.node for one in self._staying(job))
        lacks = [name for name, count in division.items() for _ in range(count - have[name])]
        before = list(self.units[job])
        started = [self._start(job, [name], now_s) for name in lacks]
        if self.jobs[job].terms.gang and not all(started):
            self.units[job] = before

    def _start(self, job: str, names: Iterable[str], now_s: float) -> bool:
        unit_w = self.jobs[job].unit_w
        for name in names:
            node = self.nodes[name]
            if not node.gone and self.in_use_w(name) + unit_w <= node.granted_w + ROUNDING_W:
                self.units.setdefault(job, []).append(Unit(name, now_s + REPLICA_START_S))
                return True
        return False

    def in_use_w(self, node: str) -> float:
        """Watts that work holds of a node's granted ones, W."""
        return math.fsum(
            self.jobs[job].unit_w
            for job, units in self.units.items()
            for u in units
            if u.node == node
        )

    def _up(self, job: str, now_s: float) -> list[Unit]:
        """Units of a job that run now, whether Ray knows of them or not."""
        every = (*self.units.get(job, ()), *self.orphans.get(job, ()))
        return [one for one in every if one.ready_s <= now_s]

    def next_ready_s(self, now_s: float) -> float:
        """When the next unit comes up or has left; infinite if none is on its way."""
        times = (t for units in self.units.values() for u in units for t in (u.ready_s, u.leaves_s))
        return min((t for t in times if t > now_s), default=math.inf)

    def wanted_units(self, job: Job) -> float:
        """Replicas that the load would keep busy."""
        load = math.fsum(node.load for node in self.nodes.values()) / max(len(self.nodes), 1)
        return load * job.max_units

    def _working(self, now_s: float) -> Iterator[tuple[Job, Unit, float]]:
        """Every unit that is up, with the share of its time in which it works."""
        for job in self.jobs.values():
            up = self._up(job.id, now_s)
            batch = job.kind is JobKind.BATCH
            share = 1.0 if batch else min(self.wanted_units(job) / max(len(up), 1), 1.0)
            for one in up:
                yield job, one, share

    def busy(self, node: str, now_s: float) -> float:
        """Share of time in which any unit works, so that gates of this host are closed, 0 to 1."""
        idle = 1.0
        for _, one, share in self._working(now_s):
            if one.node == node:
                idle = min(idle, 1.0 - share)
        return 1.0 - idle

    def drawn_w(self, node: str, kind: JobKind, now_s: float) -> float:
        """What work of a kind draws on a node now, W; never more than it holds of the granted."""
        total_w = 0.0
        for job, one, share in self._working(now_s):
            if one.node == node and job.kind is kind:
                total_w += share * min(job.unit_w, self.limits.get((node, job.id), math.inf))
        return total_w

    def earns_usd_per_h(self, now_s: float) -> float:
        """What its work is worth now, USD/h: units that are up, a service's as far as used."""
        return math.fsum(
            job.value_usd_per_h * share * self._throughput(job, one.node)
            for job, one, share in self._working(now_s)
        )

    def _throughput(self, job: Job, node: str) -> float:
        """What a unit does under its power limit, as a share of what it does without."""
        limit_w = self.limits.get((node, job.id), math.inf)
        kept = [step.throughput for step in job.terms.steps if step.watts_w <= limit_w + ROUNDING_W]
        return 1.0 if limit_w >= job.unit_w or not kept else kept[0]

    def report(self, now_s: float) -> list[ev.Event]:
        """What the compute bridge says once a second."""
        told: list[ev.Event] = []
        for name, node in self.nodes.items():
            if node.gone:
                told.append(ev.ComputeSeen(name, False, None, "Ray has lost the node"))
                continue
            seen = ev.ComputeSeen(
                name, True, node.granted_w, "", self.in_use_w(name), node.unasked_w
            )
            told.append(seen)
        told += [self._told(job, now_s) for job in self.jobs.values() if self._knows(job.id)]
        return told

    def _knows(self, job: str) -> bool:
        return job in self.workers or self.jobs[job].kind is JobKind.SERVICE

    def _told(self, job: Job, now_s: float) -> ev.JobReported:
        units = self.units.get(job.id, [])
        up = sum(one.ready_s <= now_s for one in units)
        by_node = dict(Counter(one.node for one in units))
        if job.kind is JobKind.BATCH:
            starting = "starting" if units or self.workers.get(job.id) else "paused"
            return ev.JobReported(job.id, "running" if up else starting, by_node=by_node)
        wanted = self.wanted_units(job)
        follows = job.spec.get("scaling", "policy") == "policy"
        return ev.JobReported(
            job.id,
            "running" if up else "starting",
            running=up,
            ongoing=ONGOING_PER_REPLICA * wanted,
            by_node=by_node,
            desired=math.ceil(wanted - 1e-9) if follows else None,
        )
