"""From a placement to commands for the compute side, in the order that keeps watts safe.

Growing: first a node's watts, and once those are confirmed what draws them. Shrinking: first what
draws them, then the node's watts, again and again, because Ray clamps a shrink to what is in use.
Where Ray keeps units on a node that should have left, they are evicted at last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.compute import relief, vacancy
from wattshift_scheduler.compute.placement import Placed, Placement
from wattshift_scheduler.compute.rooms import Rooms
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState
from wattshift_scheduler.state import NodePower, Sent, State

ASK_AGAIN_S = 2.0
"""How soon watts that a node did not take, or that Ray clamped, are asked for again."""

CANCEL_AGAIN_S = 5.0
"""How soon a job that does not end is told again to."""

EVICT_AFTER_S = 8.0
"""How long Ray may keep units where the watts are gone: a replica drains its requests and a batch
worker ends at its checkpoint in that time, so nothing is driven out that would have left."""


SHORT_W = 0.01
"""What a node may hold above its target without being short: Ray keeps resources to four decimals,
and sums of them to less."""


@dataclass(slots=True)
class _Outbox:
    """Commands of this step, numbered, and nodes as they change; the mutable part of `act`."""

    state: State
    now_s: float
    commands: list[ComputeCommand]
    sent: dict[int, Sent]
    nodes: dict[str, NodePower]

    def number(self, kind: str, subject: str) -> int:
        number = self.state.next_command + len(self.sent) - len(self.state.sent)
        self.sent[number] = Sent(kind, subject, self.now_s)
        return number


def act(
    state: State, placement: Placement, *, raise_w: Mapping[str, float], now_s: float
) -> tuple[State, tuple[ComputeCommand, ...], tuple[Decision, ...]]:
    """Turn what the nodes should run into commands.

    Args:
        state: the present state.
        placement: what all nodes should run.
        raise_w: watts by which each node's bound may rise now, W; together they fit every feeder.
        now_s: our clock, s.
    """
    out = _Outbox(state, now_s, [], dict(state.sent), {})
    told: list[Decision] = []
    rooms = Rooms.of(state, placement, vacancy.waits(state, now_s))
    waiting = {sent.subject for sent in state.sent.values()}
    jobs = dict(state.jobs)
    for placed in placement.placed:
        before = jobs[placed.job.id]
        if _rests(before, placed):
            continue
        after = _job(out, rooms, placed, waiting)
        if after is not before:
            jobs[placed.job.id] = after
            told.extend(_explain(before, after, placed, now_s))
    left_w = dict(raise_w)
    _limits(out, replace(state, jobs=jobs), placement, left_w)
    for name in state.nodes:
        _power(out, rooms, name, left_w.get(name, 0.0), waiting)
        _evict(out, rooms, placement, name, waiting)
    next_command = state.next_command + len(out.sent) - len(state.sent)
    state = replace(state, jobs=jobs, nodes=out.nodes, sent=out.sent, next_command=next_command)
    return state, tuple(out.commands), tuple(told)


def _rests(job: Job, placed: Placed) -> bool:
    """Whether a job waits as before, as most of a long queue does."""
    return (
        job is placed.job
        and job.verdict is placed.verdict
        and job.state is JobState.PENDING
        and not (job.units or placed.units or job.shelved)
        and job.admission is placed.verdict.admission is not Admission.DENY
        and job.reason == (job.refused[1] or placed.verdict.words)
        and not job.refused[0]
        and job.unit_limit_w is None
    )


def _explain(before: Job, after: Job, placed: Placed, now_s: float) -> tuple[Decision, ...]:
    """Why a job's verdict or its units have changed; nothing if they have not."""
    if (before.admission, before.units) == (after.admission, after.units):
        return ()
    grown = before.admission is after.admission and after.units > before.units
    action = "grow" if grown else placed.admission.name.lower()
    inputs = {"units": after.units, "unit_w": after.unit_w, "ongoing": after.ongoing}
    moved = f"{before.units} to {after.units} units: " if before.units != after.units else ""
    reason = f"{moved}{placed.reason}"
    return (Decision(now_s, after.id, action, reason, inputs),)


def _job(out: _Outbox, rooms: Rooms, placed: Placed, waiting: set[str]) -> Job:
    """The job after this step, its command in the outbox if it needs one."""
    before = out.state.jobs[placed.job.id]
    job = relief.unshelved(_judged(before, placed), out.now_s)
    idle = job.state in (JobState.PENDING, JobState.PAUSED) and not (job.units or job.refused[0])
    if idle and not placed.units and placed.admission is not Admission.DENY:
        return job  # most of a long queue
    if not rooms.up or job.id in waiting:
        return job
    if job.state is JobState.CANCELLING:
        return _cancelled(out, rooms, job)
    if placed.admission is Admission.DENY:
        if not (job.units or any((job.by_node or {}).values())):
            return job.moved(JobState.FAILED, placed.reason, units=0, nodes={})
        # Something of it runs: it is told to end until it has, whatever is lost on the way.
        ending = job.moved(JobState.CANCELLING, placed.reason, units=0, nodes={})
        return _cancelled(out, rooms, ending)
    nodes = rooms.take(placed)
    if out.now_s < job.not_before_s and not rooms.leaves(job, nodes):
        return job
    if job.kind is JobKind.SERVICE:
        return _service(out, job, placed, nodes, rooms)
    return _batch(out, job, placed, nodes, rooms)


def _judged(before: Job, placed: Placed) -> Job:
    """The job with its verdict and with what its size rests on; itself if all is as before."""
    job, reason = placed.job, before.reason
    if before.state is JobState.PENDING:
        reason = before.refused[1] or placed.reason
    new = (placed.admission, placed.verdict, reason, placed.unit_limit_w)
    old = (before.admission, before.verdict, before.reason, before.unit_limit_w)
    if new == old and (job is before or job == before):
        return before
    return job.changed(
        units=before.units,
        nodes=before.nodes,
        admission=placed.admission,
        verdict=placed.verdict,
        reason=reason,
        unit_limit_w=placed.unit_limit_w,
    )


def _cancel(out: _Outbox, rooms: Rooms, job: Job) -> None:
    out.commands.append(CancelJob(out.number("cancel_job", job.id), rooms.first, job.id))


def _cancelled(out: _Outbox, rooms: Rooms, job: Job) -> Job:
    if out.now_s < job.not_before_s:
        return job
    _cancel(out, rooms, job)
    return job.changed(not_before_s=out.now_s + CANCEL_AGAIN_S)


def _service(out: _Outbox, job: Job, placed: Placed, nodes: Mapping[str, int], rooms: Rooms) -> Job:
    """Ray Serve is told how many replicas; on which nodes they run is its own choice."""
    units = sum(nodes.values())
    again = job.refused[0] > 0 or (units > 0 and job.state is JobState.PENDING)
    if units == job.units and not again:
        return job if nodes == job.nodes else job.changed(nodes=nodes)
    number = out.number("set_replicas", job.id)
    here = {name: count for name, count in nodes.items() if rooms.alive(name)}
    out.commands.append(SetReplicas(number, rooms.first, job.id, units, dict(job.spec), here))
    if units == 0:
        state = JobState.PAUSED if job.held else JobState.PENDING
        return job.moved(state, placed.reason, units=0, nodes={})
    state = JobState.RUNNING if job.state is JobState.RUNNING else JobState.STARTING
    return job.moved(state, placed.reason, units=units, nodes=nodes)


def _batch(out: _Outbox, job: Job, placed: Placed, nodes: Mapping[str, int], rooms: Rooms) -> Job:
    again = job.refused[0] > 0
    runs = job.state in (JobState.RUNNING, JobState.STARTING)
    if job.state is JobState.PAUSING:
        return _paused(out, rooms, job) if again else job
    if nodes:
        if runs and nodes == job.nodes and not again:
            return job
        number = out.number("start_job", job.id)
        out.commands.append(StartJob(number, rooms.first, job.id, dict(job.spec), nodes))
        state = JobState.RUNNING if job.state is JobState.RUNNING else JobState.STARTING
        return job.moved(state, placed.reason, units=sum(nodes.values()), nodes=nodes)
    # Workers on nodes that are gone need no pause: they wait for watts elsewhere. And a start that
    # failed may have happened all the same.
    leaves = not placed.units or rooms.leaves(job, nodes)
    stray = again and any((job.by_node or {}).values())
    if leaves and (runs or stray):
        return _paused(out, rooms, job).moved(JobState.PAUSING, placed.reason)
    return job


def _paused(out: _Outbox, rooms: Rooms, job: Job) -> Job:
    out.commands.append(PauseJob(out.number("pause_job", job.id), rooms.first, job.id))
    return job


def _limits(out: _Outbox, state: State, placement: Placement, left_w: dict[str, float]) -> None:
    """Bring power limits to what is placed; what a raise of them needs is taken from `left_w`."""
    left = {
        one.job.id
        for one in placement.placed
        if one.unit_limit_w is None and out.state.jobs[one.job.id].unit_limit_w is not None
    }
    nodes, commands = relief.ask(state, placement, left, left_w, out.number, out.now_s)
    out.nodes.update(nodes)
    out.commands += commands


def _power(out: _Outbox, rooms: Rooms, name: str, raise_w: float, waiting: set[str]) -> None:
    node = out.nodes[name]
    if not node.up or name in waiting:
        return
    ask_w = min(rooms.target_w(name), node.most_w + max(raise_w, 0.0))
    lately = out.now_s - node.asked_s < ASK_AGAIN_S
    # A raise that failed is asked for again in a while, another figure at once.
    grows = ask_w > node.granted_w + 1e-6 and not (node.trouble and lately)
    # Against the bound, not the grant: a raise that was never answered must be taken back too.
    shrinks = ask_w < node.most_w - 1e-6 and not lately
    if not (grows or shrinks):
        return
    number = out.number("set_node_power", name)
    out.commands.append(SetNodePower(number, name, ask_w))
    # What was asked before may still be under way: it counts until an answer has come.
    asked_w = ask_w if math.isnan(node.asked_w) else max(ask_w, node.asked_w)
    out.nodes[name] = replace(node, asked_w=asked_w, asked_s=out.now_s)


def _evict(out: _Outbox, rooms: Rooms, placement: Placement, name: str, waiting: set[str]) -> None:
    """Have units leave a node that has held too much for too long: least in rank first."""
    node = out.nodes[name]
    over_w = node.granted_w - rooms.target_w(name)
    if not node.up or over_w <= SHORT_W:
        if not math.isnan(node.short_s):
            out.nodes[name] = replace(node, short_s=math.nan)
        return
    if math.isnan(node.short_s):
        out.nodes[name] = replace(node, short_s=out.now_s)
        return
    if out.now_s - node.short_s < EVICT_AFTER_S:
        return
    for placed in reversed(placement.placed):
        job = placed.job
        surplus = (job.by_node or {}).get(name, 0) - placed.nodes.get(name, 0)
        subject = relief.subject(name, job.id)
        if surplus <= 0 or job.unit_w <= 0 or over_w <= SHORT_W or subject in waiting:
            continue
        units = min(surplus, math.ceil((over_w - SHORT_W) / job.unit_w))
        over_w -= units * job.unit_w
        number = out.number("evict_units", subject)
        out.commands.append(EvictUnits(number, name, job.id, units))
        out.nodes[name] = replace(out.nodes[name], short_s=out.now_s)
