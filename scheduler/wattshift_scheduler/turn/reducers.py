"""How each event changes the memory: one reducer per event, no decision here.

A reducer takes the state, its event and the time, and returns the new state and the decisions that
are facts to be journaled (a job has ended, an agent is lost).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler import leases
from wattshift_scheduler.arrays import Ints
from wattshift_scheduler.compute import forgetting
from wattshift_scheduler.compute import news as compute_news
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.fleet_changes import Moved, joined, left
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState, Learnt, remembered
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import Agent, State
from wattshift_scheduler.turn import news as signal_news
from wattshift_scheduler.turn.answers import Run, back, read, rebooted, refused, replied
from wattshift_scheduler.values import Quote

HASHPRICE_TOLD_SHARE = 0.01
"""A hashprice that has moved by this much since it was last journaled is journaled again."""

Reduced = tuple[State, tuple[Decision, ...]]


def reduce(state: State, event: ev.Event, now_s: float) -> Reduced:
    """Fold one event into the state."""
    reducer = REDUCERS[type(event)]
    return reducer(state, event, now_s)


def folded(state: State, events: Iterable[ev.Event], now_s: float) -> tuple[State, list[Decision]]:
    """Fold events into the state, in their order; the same as `reduce` one after the other.

    Answers and readings come by the hundred: they write into columns that are copied once, and as
    many as can be (`Run`) at once.
    """
    told: list[Decision] = []
    rows: list[Ints] | None = None
    run: Run | None = None
    for event in events:
        if isinstance(event, ev.Readings | ev.LeasesReplied):
            if rows is None:
                state, rows = _private(state), []
            run = Run(state.fleet) if run is None else run
            if not run.takes(event):
                state, run = _after(state, run, rows, now_s), Run(state.fleet)
                run.takes(event)
            if isinstance(event, ev.LeasesReplied):
                told.extend(refused(event, now_s))
            continue
        if isinstance(event, ev.AgentSeen):
            run = Run(state.fleet) if run is None else run
            before = run.agents.get(event.agent) or state.agents.get(event.agent)
            if not rebooted(before, event):
                run.agents[event.agent] = Agent(event.boot_id, event.boot_s, event.received_s)
                told.extend(back(before, event, now_s))
                continue
        state, run = _after(state, run, rows, now_s), None
        state, facts = reduce(state, event, now_s)
        told.extend(facts)
    state = _after(state, run, rows, now_s)
    return (state.touched(np.concatenate(rows)) if rows else state), told


def _after(state: State, run: Run | None, rows: list[Ints] | None, now_s: float) -> State:
    """The state after a run, if there is one; adds to `rows` those that it may have changed."""
    if run is None:
        return state
    state, changed = run.folded(state, now_s)
    if rows is not None:
        rows.extend(changed)
    return state


def _private(state: State) -> State:
    """The state with columns that answers and readings may write to: nobody else has them."""
    none = np.zeros(0, dtype=np.int64)
    ledger, seen = leases.private(state.ledger), leases.private_telemetry(state.seen)
    return state.touched(none, ledger=ledger, seen=seen)


def _tick(state: State, _event: ev.Tick, _now_s: float) -> Reduced:
    return state, ()


def _joined(state: State, event: ev.DeviceJoined, now_s: float) -> Reduced:
    offered = {device.id: device for device in event.devices}
    if len(offered) < len(event.devices):
        twice = Counter(device.id for device in event.devices).most_common(1)[0][0]
        raise SiteInvalid(twice, "this device id exists twice")
    fleet, moved, new = joined(state.fleet, offered, state.site.tree)
    told = tuple(
        Decision(now_s, device.id, "join", f"{device.kind} on {device.feeder}", _facts(device))
        for device in new
    )
    return _with_fleet(state, fleet, moved), told


def _facts(device: Device) -> Mapping[str, Any]:
    return {"nameplate_w": device.nameplate_w, "fenced": device.fenced, "agent": device.agent}


def _left(state: State, event: ev.DeviceLeft, now_s: float) -> Reduced:
    columns = state.fleet.columns_of(event.devices)
    gone = np.unique(columns[columns >= 0])
    names = sorted(state.fleet.ids[gone].tolist())
    told = tuple(Decision(now_s, name, "leave", event.reason, {}) for name in names)
    if not names:
        return state, told
    return _with_fleet(state, *left(state.fleet, gone, state.site.tree)), told


def _with_fleet(state: State, fleet: Fleet, moved: Moved) -> State:
    """The state with a changed fleet. The ladder is ranked as of the last one, so that what has not
    turned since need not be ranked again."""
    old, last = state.fleet, state.ladder
    if fleet is old:
        return state
    ledger = leases.realigned(state.ledger, old, fleet, moved)
    # One that comes back may hold a lease of this epoch: none of a device had so high a number.
    fresh = np.setdiff1d(np.arange(len(fleet)), moved.to, assume_unique=True)
    ledger.sequence[fresh] = state.next_command - 1
    awake, cold = (np.zeros(len(fleet), dtype=np.bool_) for _ in range(2))
    moved.realigned(awake, last.awake)
    moved.realigned(cold, last.cold)
    return replace(
        state,
        fleet=fleet,
        ladder=Ladder.of(fleet, state.values, awake, last.horizon_s, cold),
        ledger=ledger,
        seen=leases.realigned_telemetry(state.seen, old, fleet, moved),
        turns=state.turns.realigned(old, fleet, moved),
        tables=state.tables.realigned(old, fleet, moved),
    )


def _agent_seen(state: State, event: ev.AgentSeen, now_s: float) -> Reduced:
    before = state.agents.get(event.agent)
    agents = {**state.agents, event.agent: Agent(event.boot_id, event.boot_s, event.received_s)}
    new = replace(state, agents=agents)
    if rebooted(before, event):
        names = state.fleet.agents
        number = names.index(event.agent) if event.agent in names else -1
        columns = np.flatnonzero(state.fleet.agent == number)
        ledger = leases.forgotten(state.ledger, state.fleet, columns)
        new = new.touched(columns, ledger=ledger)
        reason = "its host has rebooted: every device counts at nameplate until it is seen"
        return new, (Decision(now_s, event.agent, "reboot", reason, {"boot_id": event.boot_id}),)
    return new, back(before, event, now_s)


def _agent_lost(state: State, event: ev.AgentLost, now_s: float) -> Reduced:
    before = state.agents.get(event.agent)
    if before is None or before.lost:
        return state, ()
    agents = {**state.agents, event.agent: replace(before, lost=event.reason)}
    reason = f"no answer ({event.reason}): its gates close by themselves when their leases end"
    return replace(state, agents=agents), (Decision(now_s, event.agent, "lost", reason, {}),)


def _readings(state: State, event: ev.Readings, now_s: float) -> Reduced:
    return read(state, event, now_s), ()


def _leases_replied(state: State, event: ev.LeasesReplied, now_s: float) -> Reduced:
    return replied(state, event, now_s), refused(event, now_s)


def _hashprice(state: State, event: ev.HashpriceSeen, now_s: float) -> Reduced:
    new, before = event.usd_per_ph_day, state.quote
    if new != state.values.hashprice_usd_per_ph_day:
        values = replace(state.values, hashprice_usd_per_ph_day=new)
        state = replace(
            state, values=values, ladder=Ladder.of(state.fleet, values, last=state.ladder)
        )
    last = before.told_usd_per_ph_day
    moved = (new is None) != (last is None) or (
        new is not None and last is not None and abs(new - last) > HASHPRICE_TOLD_SHARE * last
    )
    told: tuple[Decision, ...] = ()
    if moved or event.note != before.note:
        words = "unknown, hashes count nothing" if new is None else f"{new:,.2f} USD/PH/day"
        reason = f"{words}, from {event.source}{f': {event.note}' if event.note else ''}"
        told = (Decision(now_s, "site", "hashprice", reason, {"usd_per_ph_day": new}),)
        last = new
    quote = Quote(event.source, event.observed_s, event.note, last)
    return replace(state, quote=quote), told


def _submitted(state: State, event: ev.JobSubmitted, now_s: float) -> Reduced:
    job = event.job
    if job.id in state.jobs:
        return state, ()
    if job.kind is JobKind.MINING:
        job = job.moved(JobState.RUNNING, "its devices may hash", admission=Admission.FIT)
    elif not state.site.nodes:
        job = job.moved(JobState.FAILED, "this site has no compute", admission=Admission.DENY)
    told = Decision(
        now_s, job.id, "submit", f"{job.kind.value} {job.name!r}", {"watts": job.unit_w}
    )
    return replace(state, jobs=remembered({**state.jobs, job.id: job})), (told,)


def _acted(state: State, event: ev.JobActed, now_s: float) -> Reduced:
    job = state.jobs.get(event.job)
    if job is None or job.state.final:
        return state, ()
    new = ACTIONS[event.action](job)
    told = Decision(now_s, job.id, event.action, "asked for by a person", {})
    return replace(state, jobs={**state.jobs, job.id: new}), (told,)


def _pause(job: Job) -> Job:
    if job.kind is JobKind.MINING or job.state in (JobState.PENDING, JobState.PAUSED):
        return job.moved(JobState.PAUSED, "paused by a person", held=True)
    return replace(job, held=True)


def _resume(job: Job) -> Job:
    if job.kind is JobKind.MINING:
        return job.moved(JobState.RUNNING, "resumed by a person", held=False)
    if job.state is JobState.PAUSED:
        return job.moved(JobState.PENDING, "resumed by a person", held=False)
    return replace(job, held=False)


def _cancel(job: Job) -> Job:
    untouched = job.kind is JobKind.MINING or (job.state is JobState.PENDING and not job.units)
    if untouched:
        return job.moved(JobState.CANCELLED, "cancelled by a person", units=0)
    never_s = -math.inf
    gone = {"units": 0, "nodes": {}, "not_before_s": never_s}
    return job.moved(JobState.CANCELLING, "cancelled by a person", **gone)


ACTIONS: Mapping[str, Callable[[Job], Job]] = MappingProxyType(
    {"pause": _pause, "resume": _resume, "cancel": _cancel}
)


def _learnt(state: State, event: ev.UnitsLearnt, now_s: float) -> Reduced:
    job = state.jobs.get(event.job)
    if job is None or job.state.final or not job.spec.get("learn_watts"):
        return state, ()
    given_w = job.unit_w if job.learnt is None else job.learnt.given_w
    unit_w = min(event.unit_w, given_w)
    new = replace(job, learnt=Learnt(given_w, unit_w, event.quality, event.samples, event.since_s))
    if _undeployed(state, job):
        new = replace(new, unit_w=unit_w, spec={**job.spec, "watts_per_replica_w": unit_w})
    if new == job:
        return state, ()
    use = "in use" if new.unit_w == unit_w else f"not in use, its replicas hold {job.unit_w:,.0f} W"
    words = f"{unit_w:,.0f} W per replica from {event.samples} samples ({event.quality}), "
    words += f"{given_w:,.0f} W were given; {use}"
    told = Decision(now_s, job.id, "learnt", words, {"unit_w": unit_w, "given_w": given_w})
    return replace(state, jobs={**state.jobs, job.id: new}), (told,)


def _undeployed(state: State, job: Job) -> bool:
    """Whether no replica of a service holds watts in Ray, or can hold some before it is told anew.

    What a replica holds there is fixed when it is deployed, so that another figure for those that
    run would grant or free watts that are not there. Replicas that sleep hold theirs, too.
    """
    told = job.by_node is not None and not any(job.by_node.values())
    asked = job.units or job.refused[0] or any(s.subject == job.id for s in state.sent.values())
    return told and not asked and job.spec.get("hand_over") != "sleep"


def _plan(state: State, event: ev.PlanUpdated, _now_s: float) -> Reduced:
    return replace(state, plan=event.plan), ()


REDUCERS: Mapping[type, Callable[[State, Any, float], Reduced]] = MappingProxyType(
    {
        ev.Tick: _tick,
        ev.DeviceJoined: _joined,
        ev.DeviceLeft: _left,
        ev.AgentSeen: _agent_seen,
        ev.AgentLost: _agent_lost,
        ev.Readings: _readings,
        ev.LeasesReplied: _leases_replied,
        ev.MeterRead: signal_news.metered,
        ev.SignalChanged: signal_news.said,
        ev.OverheadLearnt: signal_news.overhead,
        ev.CarbonSeen: signal_news.carbon,
        ev.HashpriceSeen: _hashprice,
        ev.JobSubmitted: _submitted,
        ev.JobActed: _acted,
        ev.JobReported: compute_news.reported,
        ev.ComputeSeen: compute_news.seen,
        ev.NodeForgotten: forgetting.forgotten,
        ev.UnitsLearnt: _learnt,
        ev.CommandEnded: compute_news.ended,
        ev.PlanUpdated: _plan,
    }
)
