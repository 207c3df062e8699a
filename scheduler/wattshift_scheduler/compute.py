"""From a placement to commands for the compute side, in the order that keeps watts safe.

Growing: first the node's watts, then what draws them. Shrinking: first what draws them, then the
node's watts, again and again, because Ray clamps a shrink to what is in use.
"""

from dataclasses import dataclass, replace

from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState
from wattshift_scheduler.placement import Placed, Placement
from wattshift_scheduler.state import Sent, State

SHRINK_AGAIN_S = 2.0
"""How soon a shrink that Ray clamped is asked for again."""


@dataclass(slots=True)
class _Outbox:
    """Commands of this step, numbered; the one mutable thing, local to `act`."""

    state: State
    now_s: float
    commands: list[ComputeCommand]

    def number(self, kind: str, subject: str) -> int:
        number = self.state.next_command
        sent = {**self.state.sent, number: Sent(kind, subject, self.now_s)}
        self.state = replace(self.state, sent=sent, next_command=number + 1)
        return number


def act(
    state: State, placement: Placement, *, raise_w: float, now_s: float
) -> tuple[State, tuple[ComputeCommand, ...], tuple[Decision, ...]]:
    """Turn what a node should run into commands.

    Args:
        state: the present state.
        placement: what the node should run.
        raise_w: watts by which the node's grant may rise now, W.
        now_s: our clock, s.
    """
    out = _Outbox(state, now_s, [])
    told: list[Decision] = []
    node = state.nodes[placement.node]
    jobs = dict(state.jobs)
    granted_w = node.granted_w
    for placed in placement.placed:
        afford = int((granted_w + 1e-6) // placed.job.unit_w) if placed.job.unit_w else 10**9
        units = min(placed.units, afford) if node.up else placed.job.units
        granted_w -= units * placed.job.unit_w
        before = jobs[placed.job.id]
        jobs[placed.job.id] = after = _job(out, placement.node, placed, units, node.up)
        told.extend(_explain(before, after, placed, now_s))
    _power(out, placement, raise_w)
    return replace(out.state, jobs=jobs), tuple(out.commands), tuple(told)


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


def _job(out: _Outbox, node: str, placed: Placed, units: int, up: bool) -> Job:
    job = replace(placed.job, admission=placed.admission)
    waiting = any(sent.subject == job.id for sent in out.state.sent.values())
    if not up or waiting or out.now_s < job.not_before_s:
        before = out.state.jobs[job.id]
        return replace(before, admission=placed.admission, reason=_reason(before, placed))
    if job.state is JobState.CANCELLING:
        out.commands.append(CancelJob(out.number("cancel_job", job.id), node, job.id))
        return job
    if job.kind is JobKind.SERVICE:
        return _service(out, node, job, placed, units)
    return _batch(out, node, job, placed, units)


def _reason(job: Job, placed: Placed) -> str:
    return placed.reason if job.state is JobState.PENDING else job.reason


def _service(out: _Outbox, node: str, job: Job, placed: Placed, units: int) -> Job:
    asked = out.state.jobs[job.id].units
    if placed.admission is Admission.DENY:
        return job.moved(JobState.FAILED, placed.reason, units=0)
    if units == asked and not (units and job.state is JobState.PENDING):
        return replace(job, units=units, reason=_reason(job, placed))
    number = out.number("set_replicas", job.id)
    out.commands.append(SetReplicas(number, node, job.id, units, dict(job.spec)))
    if units == 0:
        state = JobState.PAUSED if job.held else JobState.PENDING
        return job.moved(state, placed.reason, units=0)
    state = JobState.RUNNING if job.state is JobState.RUNNING else JobState.STARTING
    return job.moved(state, placed.reason, units=units)


def _batch(out: _Outbox, node: str, job: Job, placed: Placed, units: int) -> Job:
    if placed.admission is Admission.DENY:
        return job.moved(JobState.FAILED, placed.reason, units=0)
    runs = job.state in (JobState.RUNNING, JobState.STARTING)
    if units and not runs and job.state is not JobState.PAUSING:
        number = out.number("start_job", job.id)
        out.commands.append(StartJob(number, node, job.id, dict(job.spec)))
        return job.moved(JobState.STARTING, placed.reason, units=1)
    if not placed.units and runs:
        out.commands.append(PauseJob(out.number("pause_job", job.id), node, job.id))
        return job.moved(JobState.PAUSING, placed.reason)
    return replace(job, reason=_reason(job, placed))


def _power(out: _Outbox, placement: Placement, raise_w: float) -> None:
    node = out.state.nodes[placement.node]
    waiting = any(sent.subject == placement.node for sent in out.state.sent.values())
    if not node.up or waiting:
        return
    ask_w = min(placement.target_w, node.bound_w + max(raise_w, 0.0))
    grows = ask_w > node.granted_w + 1e-6
    # Against the bound, not the grant: a raise that was never answered must be taken back too.
    shrinks = ask_w < node.bound_w - 1e-6 and out.now_s - node.asked_s >= SHRINK_AGAIN_S
    if not (grows or shrinks):
        return
    number = out.number("set_node_power", placement.node)
    out.commands.append(SetNodePower(number, placement.node, ask_w))
    asked = replace(node, asked_w=ask_w, asked_s=out.now_s)
    nodes = {**out.state.nodes, placement.node: asked}
    out.state = replace(out.state, nodes=nodes)
