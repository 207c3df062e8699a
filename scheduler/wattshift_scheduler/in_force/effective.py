"""From what the sources say to what is acted on, in one direction:

caps, overrides ─▶ standing ─▶ windows ─▶ lowest ─▶ ramps, holds ─▶ effective cap
                                                                          │
targets ─▶ the one that holds ─▶ ramps ─▶ aim ─▶ trim, below the cap  ◀───┤
events ──▶ the plan before the notice ─▶ no raise of mining           ◀───┘

No step raises what the one before it has left but the trim, and that never above the cap.
"""

import math
from dataclasses import replace

import numpy as np

from wattshift_scheduler import leases
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.signals import notice, ramps, windows
from wattshift_scheduler.signals.arbitrate import Arbitrated, arbitrate, next_change_s
from wattshift_scheduler.signals.memory import Memory
from wattshift_scheduler.signals.minutes import Minutes
from wattshift_scheduler.signals.ramps import Pace
from wattshift_scheduler.signals.standing import Standing, standing
from wattshift_scheduler.signals.targets import Chosen, chosen
from wattshift_scheduler.signals.trim import Seen, Trim, trimmed
from wattshift_scheduler.signals.words import Cap, GridEvent, Signals, Target
from wattshift_scheduler.state import State

UNSETTLED = (JobState.STARTING, JobState.PAUSING, JobState.CANCELLING)
"""States in which a job holds watts that it does not draw yet, or draws some that it gives back."""


def standing_caps(state: State, now_s: float) -> tuple[Cap, ...]:
    """The caps that bind: overrides put in, mere forecasts left out."""
    return standing(state.signals, state.site.rules.act_at_confidence, now_s).caps


def arbitrated(state: State, now_s: float) -> tuple[State, Arbitrated]:
    """What holds now; the state remembers what the next decision goes on from."""
    rules, signals = state.site.rules, state.signals
    connection_w = float(state.site.tree.limit_w[0])
    site, memory = _metered(state, now_s)
    held = standing(signals, rules.act_at_confidence, now_s)
    hard = arbitrate(
        held.caps, connection_w, now_s, lambda cap: windows.allowed_w(cap, site, connection_w)
    )
    stated_w = min([connection_w, *(cap.limit_w for cap in held.caps if cap.in_force(now_s))])
    fell_s, rose_s = ramps.turned(memory.pace, stated_w, now_s)
    cap_w, waits = _paced(state, hard, held, fell_s, now_s)
    aims, (aim_w, mining_w) = _aims(state, cap_w, now_s)
    trim = _trim(state, aims.all_work, now_s)
    memory, noticed = _noticed(state, memory, now_s)
    verdict = replace(
        hard,
        cap_w=cap_w,
        waits=waits,
        overrides=held.overrides,
        target=aims.all_work,
        mining=aims.mining,
        aim_w=aim_w,
        mining_w=mining_w,
        trim_w=min(aim_w + trim.watts_w, cap_w) - aim_w if math.isfinite(aim_w) else 0.0,
        conflict=aims.conflict,
        notice=noticed.event,
        notice_name=noticed.name,
        notice_w=noticed.most_w,
        advice=_advice(held, cap_w, now_s),
    )
    pace = Pace(now_s, cap_w, aim_w, mining_w, stated_w, fell_s, rose_s)
    return replace(state, memory=replace(memory, pace=pace, trim=trim)), verdict


def _metered(state: State, now_s: float) -> tuple[Minutes, Memory]:
    """The site's energy up to now, and the memory with the part of it to keep.

    The time since a fresh sample is guessed anew at every decision, until the next sample tells;
    time without a meter counts at the most that was committed, once and for all (I3).
    """
    memory, committed_w = state.memory, state.outlook.committed_w
    most_w = float(np.fmax(memory.most_w, committed_w))
    if now_s - state.meter_at_s <= state.site.rules.stale_after_s:
        site = memory.site.until(now_s, max(state.meter_w, 0.0))
        return site, replace(memory, most_w=most_w)
    blind = memory.site.until(now_s, most_w)
    return blind, replace(memory, site=blind, most_w=committed_w)


def _paced(
    state: State, hard: Arbitrated, held: Standing, fell_s: float, now_s: float
) -> tuple[float, str]:
    """The effective cap, and what it waits for."""
    rules = state.site.rules
    cap_w, waits = ramps.risen(state.memory.pace, hard.cap_w, fell_s, rules, now_s)
    early_w, why = ramps.approached(held.caps, rules.ramp_down_w_per_s, now_s)
    return (early_w, why) if early_w < cap_w else (cap_w, waits)


def _aims(state: State, cap_w: float, now_s: float) -> tuple[Chosen, tuple[float, float]]:
    """The targets that hold, and what ramps leave of them below the effective cap, W."""
    pace, rules = state.memory.pace, state.site.rules
    found = chosen(all_targets(state.signals), now_s)
    fresh = now_s - state.meter_at_s <= rules.stale_after_s
    metered_w = state.meter_w if fresh else math.nan

    def left_w(target: Target | None, before_w: float) -> float:
        goal_w = math.inf if target is None else target.watts_w
        start_w = min(before_w, pace.cap_w)
        aim_w = ramps.aimed(start_w, goal_w, metered_w, now_s - pace.at_s, rules)
        # Without a target, an aim that has risen to the cap binds nothing any more.
        return math.inf if target is None and aim_w >= cap_w else min(aim_w, cap_w)

    return found, (left_w(found.all_work, pace.aim_w), left_w(found.mining, pace.mining_w))


def _trim(state: State, target: Target | None, now_s: float) -> Trim:
    """What the meter adds to a target that binds all work."""
    if target is None:
        return Trim()
    rules, memory = state.site.rules, state.memory
    ledger, fleet = state.ledger, state.fleet
    starting = any(job.state in UNSETTLED for job in state.jobs.values())
    seen = Seen(
        metered_w=state.meter_w,
        sampled_s=state.meter_at_s,
        committed_w=state.outlook.committed_w,
        aim_w=memory.pace.aim_w,
        settled_s=math.inf
        if starting
        else leases.settled_s(fleet, ledger, now_s, rules.settle_factor),
        whole=not bool(fleet.continuous.all()),
        stale_after_s=rules.stale_after_s,
    )
    return trimmed(memory.trim, target, seen, now_s)


def _noticed(state: State, memory: Memory, now_s: float) -> tuple[Memory, notice.Bound]:
    """What notices leave to mining, and the memory with the plan up to now.

    Where nothing mines there is nothing to hold back; plans are remembered all the same.
    """
    leased_w, events = state.leased_w(), all_events(state.signals)
    plan = memory.plan.until(now_s, notice.counted_w(leased_w, memory.noticed_w))
    plans = notice.remembered(events, memory.plans, plan, leased_w, now_s)
    found = notice.bound(events, plans, leased_w, now_s)
    kept = replace(memory, plan=plan, plans=plans, noticed_w=found.plan_w)
    mines = len(state.fleet) > 0 and bool(state.of_kind(JobKind.MINING))
    return kept, found if mines else notice.Bound()


def _advice(held: Standing, cap_w: float, now_s: float) -> Cap | None:
    lower = [cap for cap in held.advice if cap.in_force(now_s) and cap.limit_w < cap_w]
    return min(lower, key=lambda cap: (cap.limit_w, cap.id), default=None)


def all_targets(signals: Signals) -> tuple[Target, ...]:
    """Targets of all sources."""
    return tuple(one for told in signals.targets.values() for one in told)


def all_events(signals: Signals) -> tuple[GridEvent, ...]:
    """Grid events of all sources."""
    return tuple(one for told in signals.events.values() for one in told)


def next_edge_s(state: State, now_s: float) -> float | None:
    """When the signals change next by themselves, s: a cap, an override, a target, a window, an
    event begins or ends; None if nothing does."""
    caps = standing_caps(state, now_s)
    edges = [
        next_change_s((*caps, *all_targets(state.signals)), now_s),
        windows.next_edge_s(caps, now_s),
    ]
    edges += [event.starts_s for event in all_events(state.signals)]
    return min((edge for edge in edges if edge is not None and edge > now_s), default=None)
