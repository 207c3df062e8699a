"""A batch queue on nodes whose Ray does at once as it is told, played turn by turn through `step`.

What a worker does before its job is paused and has not committed is lost. Who gives way to whom is
written down as the core tells it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    Command,
    ComputeCommand,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.decisions import AnyDecision, Decision
from wattshift_scheduler.jobs import Job, JobKind, Rule, Terms
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

UNIT_W, TURN_S = 100.0, 60.0


def batch(name: str, items: int = 100, **fields: Any) -> Job:
    """A job of one worker and chunks of one item, unless the test says otherwise."""
    terms = {k: fields.pop(k) for k in list(fields) if k in Terms.__dataclass_fields__}
    spec = {"chunk_items": fields.pop("chunk_items", 1)}
    named = {"submitted_s": 0.0, "unit_w": UNIT_W, "total": items, "done": 0, **fields}
    return Job(name, JobKind.BATCH, name, spec, terms=Terms(**terms), **named)


@dataclass(frozen=True, slots=True)
class GaveWay:
    """One that was told to give way to one that is due: both as they were by then."""

    at_s: float
    victim: Job
    to: Job


@dataclass(slots=True)
class Queue:
    """The site.

    Attributes:
        slots: how many units of `UNIT_W` each node holds.
        pace_per_s: what a worker of each job does.
        ended_s: when each job was done.
        gave: who gave way to whom.
        told: all decisions about single things.
    """

    slots: Iterable[int] = (1,)
    pace_per_s: Mapping[str, float] = field(default_factory=dict)
    now_s: float = 0.0
    state: State = field(init=False)
    nodes: tuple[Node, ...] = field(init=False)
    work: dict[str, float] = field(default_factory=dict)
    units: dict[str, dict[str, int]] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)
    gave: list[GaveWay] = field(default_factory=list)
    told: list[Decision] = field(default_factory=list)
    owed: list[ev.Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        tree = FeederTree.of([Feeder("main", None, 1e5)])
        self.nodes = tuple(Node(f"n{i}", "main", n * UNIT_W) for i, n in enumerate(self.slots))
        site = Site("s", tree, self.nodes, Rules(margin_share=0.0))
        self.state = initial(site, Values(0.0, 0.0, 0.0, 10.0), 1)

    def job(self, name: str) -> Job:
        return self.state.jobs[name]

    def running(self) -> list[str]:
        return sorted(job.id for job in self.state.jobs.values() if job.units)

    def submit(self, *jobs: Job, **more: Any) -> None:
        """A turn in which jobs come."""
        self.turn(*[ev.JobSubmitted(job.changed(submitted_s=self.now_s)) for job in jobs], **more)

    def turn(self, *events: ev.Event, later_s: float = TURN_S) -> None:
        """Work is done, what there is to say is said, and what is told is done."""
        self.now_s += later_s
        self._work(later_s)
        said: list[ev.Event] = []
        said += [ev.ComputeSeen(node.name, True, node.max_w) for node in self.nodes]
        said += [self._report(name) for name in sorted(self.units)]
        for name in [name for name in self.units if name in self.ended_s]:
            del self.units[name]
        told = [*self.owed, *said, *events]
        for _ in range(4):
            before = self.state.jobs
            self.state, commands, decisions = step(self.state, told, self.now_s)
            self._hear(before, decisions)
            told = self._do(commands)
            if not told:
                break
        self.owed = told

    def until(self, at_s: float) -> None:
        while self.now_s < at_s:
            self.turn()

    def _work(self, elapsed_s: float) -> None:
        for name, nodes in self.units.items():
            job = self.state.jobs[name]
            more = self.pace_per_s.get(name, 0.1) * sum(nodes.values()) * elapsed_s
            self.work[name] = min(self.work.get(name, 0.0) + more, float(job.total or 0))

    def _done(self, name: str) -> int:
        job = self.state.jobs[name]
        chunk, total, work = int(job.spec["chunk_items"]), job.total or 0, self.work.get(name, 0.0)
        return total if work >= total else int(work + 1e-9) // chunk * chunk

    def _report(self, name: str) -> ev.JobReported:
        job, nodes = self.state.jobs[name], self.units[name]
        done = self._done(name)
        if done >= (job.total or 0):
            self.ended_s.setdefault(name, self.now_s)
            return ev.JobReported(name, "completed", done=done, total=job.total)
        return ev.JobReported(
            name,
            "running" if nodes else "paused",
            done=done,
            total=job.total,
            by_node=dict(nodes),
            checkpoint_age_s=0.0,
        )

    def _do(self, commands: Iterable[Command]) -> list[ev.Event]:
        told: list[ev.Event] = []
        for one in [c for c in commands if isinstance(c, ComputeCommand)]:
            watts_w = one.watts_w if isinstance(one, SetNodePower) else None
            told.append(ev.CommandEnded(one.id, True, "", watts_w))
            if isinstance(one, StartJob):
                self.units[one.job] = dict(one.nodes)
                told.append(self._report(one.job))
            if isinstance(one, PauseJob):
                self.units.pop(one.job, None)
                self.work[one.job] = float(self._done(one.job))
                told.append(ev.JobReported(one.job, "paused", by_node={}))
            if isinstance(one, SetReplicas):
                nodes = dict(one.nodes)
                told.append(ev.JobReported(one.job, "running", running=one.replicas, by_node=nodes))
        return told

    def _hear(self, before: Mapping[str, Job], decisions: Iterable[AnyDecision]) -> None:
        for one in decisions:
            assert isinstance(one, Decision)
            self.told.append(one)
            job = self.state.jobs.get(one.subject)
            verdict = None if job is None else job.verdict
            if job is None or verdict is None or verdict.rule is not Rule.DEADLINE:
                continue
            if one.action != "defer":
                continue
            to = before.get(verdict.bound_by, self.state.jobs[verdict.bound_by])
            self.gave.append(GaveWay(self.now_s, job, to))
