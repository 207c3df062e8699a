"""What the compute side says changes the memory: reports of jobs and nodes, ends of commands.

The reducers of `ComputeSeen`, `JobReported` and `CommandEnded`. What is not told is not taken for
nothing: a node that is gone keeps its watts, and the units that were on it, until the compute side
says that they are elsewhere (I3).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from wattshift_scheduler import events as ev
from wattshift_scheduler.compute import demand, forgetting, pacing, relief
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.jobs import REPORTED, Job, JobKind, JobState
from wattshift_scheduler.state import NodePower, Sent, State

RETRY_S = 5.0
"""Pause before a failed command is tried again: long enough not to flood a broken counterpart."""

RETRY_MOST_S = 60.0
"""The pause doubles up to this: a repaired counterpart is found within a minute."""

TRIES = 5
"""A job that nothing runs of fails when its command was refused so often with the same words: by
then 75 s have passed, longer than any restart of Ray or of the bridge."""

STRANGERS_MAX = 16
"""Nodes that the site file does not name and that are remembered; an alarm tells of each."""

Reduced = tuple[State, tuple[Decision, ...]]


def reported(state: State, event: ev.JobReported, now_s: float) -> Reduced:
    """Fold in what the compute side says of a job."""
    job = state.jobs.get(event.job)
    if job is None or job.state.final:
        return state, ()
    heard = _heard(state, job, event, now_s)
    new = pacing.seen(job, _begun(_follow(heard, event, now_s), now_s), now_s)
    if new.kind is JobKind.SERVICE and event.running is not None and not new.state.final:
        new = demand.looked(new, now_s)
    told: tuple[Decision, ...] = ()
    if new.state is not job.state:
        told = (Decision(now_s, job.id, new.state.value, new.reason, {"done": new.done}),)
    state = replace(state, jobs={**state.jobs, job.id: new})
    return (state if new.by_node == job.by_node else relief.settled(state)), told


def _heard(state: State, job: Job, event: ev.JobReported, now_s: float) -> Job:
    age_s = event.checkpoint_age_s
    return job.changed(
        running=job.running if event.running is None else event.running,
        ongoing=job.ongoing if event.ongoing is None else event.ongoing,
        p95_ms=event.p95_ms,
        ttft_p95_ms=event.ttft_p95_ms,
        itl_p95_ms=event.itl_p95_ms,
        desired=event.desired,
        rate_per_s=event.rate_per_s,
        done=job.done if event.done is None else event.done,
        total=job.total if event.total is None else event.total,
        items_failed=job.items_failed if event.items_failed is None else event.items_failed,
        checkpoint_s=job.checkpoint_s if age_s is None else now_s - age_s,
        by_node=_units_by_node(state, job, event.by_node),
    )


def _units_by_node(
    state: State, job: Job, told: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """Units by node as told; those that are missing may still run on a node that is gone."""
    if told is None:
        return job.by_node
    now = {name: units for name, units in told.items() if units > 0}
    before = job.by_node or {}
    missing = sum(before.values()) - sum(now.values())
    for name, units in before.items():
        node = state.nodes.get(name)
        if missing > 0 and name not in now and node is not None and not node.up:
            now[name] = min(units, missing)
            missing -= now[name]
    return now


def _follow(job: Job, event: ev.JobReported, now_s: float) -> Job:
    """The job after what the compute side said of it. What we asked for last wins over a report
    that was under way when we asked."""
    if event.state == "lost":
        return _lost(job)
    told = REPORTED[event.state]
    if told.final:
        known = job.reason if told is JobState.CANCELLED else f"{job.done}/{job.total} items"
        return job.moved(told, event.error or known, units=0, nodes={}, by_node={}, running=0)
    if job.state is JobState.CANCELLING or told is job.state:
        return job
    if told is JobState.PAUSED and job.state in (JobState.PAUSING, JobState.RUNNING):
        return job.moved(JobState.PAUSED, job.reason, units=0, nodes={})
    if told is JobState.RUNNING and job.state is JobState.STARTING:
        return job.moved(JobState.RUNNING, "it runs")
    if told is JobState.STARTING and event.error and job.kind is JobKind.SERVICE:
        return job.changed(reason=event.error, not_before_s=now_s)
    return job


def _lost(job: Job) -> Job:
    if job.state in (JobState.PENDING, JobState.PAUSED):
        return job
    gone = {"units": 0, "nodes": {}, "by_node": {}, "running": 0}
    if job.state is JobState.CANCELLING:
        return job.moved(JobState.CANCELLED, "the compute side no longer has it", **gone)
    reason = "the compute side no longer has it; it starts again from its checkpoints"
    return job.moved(JobState.PENDING, reason, **gone)


def _begun(job: Job, now_s: float) -> Job:
    """The job with the time since when it runs without a pause."""
    runs = job.state in (JobState.RUNNING, JobState.PAUSING)
    if runs == (job.began_s is not None):
        return job
    return job.changed(began_s=now_s if runs else None)


def seen(state: State, event: ev.ComputeSeen, now_s: float) -> Reduced:
    """Fold in what the compute side says of one node."""
    node = state.nodes.get(event.node)
    if node is None:
        return _stranger(state, event), ()
    new = _node(forgetting.met(node, event, state.site, now_s), event)
    told: tuple[Decision, ...] = ()
    if node.up != event.up:
        word = "up" if event.up else "down"
        told = (Decision(now_s, event.node, word, event.reason or f"Ray is {word}", {}),)
    return replace(state, nodes={**state.nodes, event.node: new}), told


def _node(node: NodePower, event: ev.ComputeSeen) -> NodePower:
    return replace(
        node,
        up=event.up,
        granted_w=node.granted_w if event.power_w is None else event.power_w,
        used_w=math.nan if event.used_w is None else event.used_w,
        # While its draw is unknown, work that asked for no watts counts at what was last seen.
        unasked_w=node.unasked_w if event.unasked_w is None else event.unasked_w,
        system_w=node.system_w if event.system_w is None else event.system_w,
        unasked=node.unasked if event.unasked_w is None else event.unasked,
        labels=event.labels if event.up else node.labels,
        gpus=node.gpus if event.gpus is None else event.gpus,
        draining=event.draining,
    )


def _stranger(state: State, event: ev.ComputeSeen) -> State:
    """Ray has a node that the site file does not name: it is told, and never commanded."""
    others = {name: one for name, one in state.strangers.items() if name != event.node}
    if event.up and len(others) < STRANGERS_MAX:
        unknown = NodePower(granted_w=math.nan)
        others[event.node] = _node(state.strangers.get(event.node, unknown), event)
    return replace(state, strangers=others)


def ended(state: State, event: ev.CommandEnded, now_s: float) -> Reduced:
    """Fold in the end of a command."""
    sent = state.sent.get(event.command)
    state = state.ended(event.command)
    state = relief.ended(state, event, first=sent is not None, now_s=now_s)
    if sent is None:
        return state, ()
    told = Decision(now_s, sent.subject, "failed", f"{sent.kind}: {event.reason}", {})
    if sent.kind == "set_node_power":
        return _resized(state, sent, event, told)
    job = state.jobs.get(sent.subject)
    if job is not None and not job.state.final:
        new = job.changed(refused=(0, "")) if event.ok else _refused(state, job, sent, event, now_s)
        if new != job:
            state = replace(state, jobs={**state.jobs, job.id: new})
    return state, () if event.ok else (told,)


def _resized(state: State, sent: Sent, event: ev.CommandEnded, told: Decision) -> Reduced:
    """A node's watts were set, or not; the same words of a failure are told once."""
    node = state.nodes.get(sent.subject)
    if node is None:
        return state, ()
    new = replace(node, trouble="" if event.ok else event.reason)
    if event.ok and event.watts_w is not None:
        # Ray clamps a shrink to what is in use: what it holds now is what it may draw.
        asked_w = min(node.asked_w, event.watts_w)
        new = replace(new, granted_w=event.watts_w, asked_w=asked_w, up=True, forgotten=False)
    state = replace(state, nodes={**state.nodes, sent.subject: new})
    return state, () if event.ok or new.trouble == node.trouble else (told,)


def _refused(state: State, job: Job, sent: Sent, event: ev.CommandEnded, now_s: float) -> Job:
    """A job whose command failed: tried again later, or failed with the words it always gets."""
    tries, words = job.refused
    if any(node.up for node in state.nodes.values()):
        tries = tries + 1 if words == event.reason else 1
    else:
        tries = max(tries, 1)  # the cluster's failure, not the job's: nobody was there to refuse it
    starts = sent.kind in ("set_replicas", "start_job")
    if tries >= TRIES and starts and not job.running and not any((job.by_node or {}).values()):
        reason = f"refused {tries} times: {event.reason}"
        return job.moved(JobState.FAILED, reason, units=0, nodes={})
    later_s = now_s + min(RETRY_S * 2.0 ** (tries - 1), RETRY_MOST_S)
    job = job.changed(refused=(tries, event.reason), not_before_s=later_s)
    if job.state is JobState.STARTING:
        return job.moved(JobState.PENDING, event.reason, units=0, nodes={})
    return job.changed(reason=event.reason)
