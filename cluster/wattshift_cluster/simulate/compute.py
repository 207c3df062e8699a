"""A modelled compute node: Ray's watts, replicas that take time to start, one batch lane.

It keeps Ray's own rule: a shrink of the watts is clamped to what is in use, and work starts only
while the granted watts cover it. A service's load is a share of what its most replicas can serve.
"""

from dataclasses import dataclass, field

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.placement import ONGOING_PER_REPLICA
from wattshift_scheduler.site import Node

REPLICA_START_S = 4.0
"""Time from asking for a replica to its first answer: process start and model load."""


@dataclass(slots=True)
class ModelledNode:
    """One compute node.

    Attributes:
        node: its name, feeder and most watts.
        jobs: services and batch jobs that it knows, by id.
        granted_w: watts that work on it may ask for, W.
        target: replicas asked for, by service.
        ready_s: when each running or starting unit is (or will be) up, by job.
        load: share of all services' most replicas that is wanted now, 0 to 1.
    """

    node: Node
    jobs: dict[str, Job]
    granted_w: float = 0.0
    target: dict[str, int] = field(default_factory=dict)
    ready_s: dict[str, list[float]] = field(default_factory=dict)
    load: float = 0.0

    def carry(self, command: ComputeCommand, now_s: float) -> ev.CommandEnded:
        """Carry out a command at once, as far as the watts go."""
        watts_w: float | None = None
        match command:
            case SetNodePower(watts_w=asked_w):
                self.granted_w = max(min(asked_w, self.node.max_w), self.in_use_w())
                watts_w = self.granted_w
            case SetReplicas(job=job, replicas=replicas):
                self.target[job] = replicas
            case StartJob(job=job):
                self.target[job] = 1
            case PauseJob(job=job) | CancelJob(job=job):
                self.target[job] = 0
        self.settle(now_s)
        return ev.CommandEnded(command.id, True, "", watts_w)

    def settle(self, now_s: float) -> None:
        """Start what is asked for and fits the granted watts; stop what is no longer asked for."""
        for job, target in self.target.items():
            units = self.ready_s.setdefault(job, [])
            del units[target:]
        for job, target in self.target.items():
            units, unit_w = self.ready_s[job], self.jobs[job].unit_w
            while len(units) < target and self.in_use_w() + unit_w <= self.granted_w + 1e-6:
                units.append(now_s + REPLICA_START_S)

    def in_use_w(self) -> float:
        """Watts that work holds of the granted ones, W."""
        return sum(len(units) * self.jobs[job].unit_w for job, units in self.ready_s.items())

    def up(self, job: str, now_s: float) -> int:
        """Units of a job that run now."""
        return sum(ready <= now_s for ready in self.ready_s.get(job, ()))

    def next_ready_s(self, now_s: float) -> float:
        """When the next unit comes up; infinite if none is starting."""
        later = [ready for units in self.ready_s.values() for ready in units if ready > now_s]
        return min(later, default=float("inf"))

    def wanted_units(self, job: Job) -> float:
        """Replicas that the load would keep busy."""
        return self.load * job.max_units

    def busy(self, now_s: float) -> float:
        """Share of time in which any unit works, so that gates of this host are closed, 0 to 1."""
        idle = 1.0
        for job in self.jobs.values():
            up = self.up(job.id, now_s)
            if up:
                share = 1.0 if job.kind is JobKind.BATCH else min(self.wanted_units(job) / up, 1.0)
                idle = min(idle, 1.0 - share)
        return 1.0 - idle

    def drawn_w(self, kind: JobKind, now_s: float) -> float:
        """What work of a kind draws now, W; never more than it holds of the granted watts."""
        total_w = 0.0
        for job in self.jobs.values():
            if job.kind is kind:
                up = self.up(job.id, now_s)
                batch = kind is JobKind.BATCH
                total_w += job.unit_w * (up if batch else min(self.wanted_units(job), up))
        return total_w

    def earns_usd_per_h(self, now_s: float) -> float:
        """What its work is worth now, USD/h: units that are up, a service's as far as used."""
        total = 0.0
        for job in self.jobs.values():
            up = self.up(job.id, now_s)
            batch = job.kind is JobKind.BATCH
            total += job.value_usd_per_h * (up if batch else min(self.wanted_units(job), up))
        return total

    def report(self, now_s: float) -> list[ev.Event]:
        """What the compute bridge says once a second."""
        told: list[ev.Event] = [ev.ComputeSeen(self.node.name, True, self.granted_w)]
        for job in self.jobs.values():
            units, up = len(self.ready_s.get(job.id, ())), self.up(job.id, now_s)
            if job.kind is JobKind.BATCH:
                state = "running" if up else ("starting" if units else "paused")
                if job.id in self.target:
                    told.append(ev.JobReported(job.id, state))
            else:
                state = "running" if up else "starting"
                ongoing = ONGOING_PER_REPLICA * self.wanted_units(job)
                told.append(ev.JobReported(job.id, state, running=up, ongoing=ongoing))
        return told
