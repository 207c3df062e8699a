"""The controller's state for people and scripts: plain dicts, units in names, None is unknown."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from wattshift_cluster.controller import compute_views, signal_views
from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.controller.compute_views import job as job
from wattshift_cluster.controller.roster import Entry, Roster
from wattshift_cluster.controller.unseen import Missing
from wattshift_scheduler import leases
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.decisions import Decision, kept_words
from wattshift_scheduler.in_force import carbon, shortfalls
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.promises.flexibility import flexibility
from wattshift_scheduler.site import Device
from wattshift_scheduler.state import Alarm, State
from wattshift_scheduler.tables import EMPTY

View = dict[str, Any]


def known(value: float) -> float | None:
    """A number for people: None where the core says NaN."""
    return None if math.isnan(value) or math.isinf(value) else float(value)


def site(
    state: State, roster: Roster, meter_quality: str, tick: int, now_s: float, mode: str
) -> View:
    """The site now (api.site_views.SiteView); `mode` is the site file's."""
    outlook, rules, kept = state.outlook, state.site.rules, state.reserve
    age_s = now_s - state.meter_at_s
    stale = not age_s <= rules.stale_after_s
    measured = measured_w(state, now_s)
    return {
        "name": state.site.name,
        "mode": mode,
        "at": rfc3339(now_s),
        "power_w": None if stale else known(state.meter_w),
        "power_quality": "unknown" if stale else meter_quality,
        "power_age_s": known(age_s),
        "cap_w": known(outlook.cap_w),
        "cap_origin": outlook.cap_origin,
        **signal_views.binding(state, now_s),
        "margin_w": outlook.margin_w,
        "headroom_w": known(outlook.budget_w - outlook.committed_w),
        "committed_w": known(outlook.committed_w),
        "budget_w": known(outlook.budget_w),
        "reserve": {**{f"{k}_w": w for k, w in kept.by_kind.items()}, "within_s": kept.within_s},
        "inference_w": _granted_w(state, JobKind.SERVICE),
        "mining_w": measured,
        "batch_w": _granted_w(state, JobKind.BATCH),
        "other_w": outlook.other_w,
        "price_usd_per_mwh": known(outlook.price_usd_per_mwh),
        "tick": tick,
        "epoch": state.epoch,
        "meter_stale": stale,
        "alarms": alarms(state.alarms),
        "feeders": _feeders(state),
        **_missed(*shortfalls.missed_w(state, outlook)),
        "hashes_total": roster.total("hashes"),
        "shares": {name: int(roster.total(name)) for name in ("accepted", "rejected", "lost")},
        "jobs": _job_counts(state),
        "compute": compute_views.nodes(state),
    }


def alarms(held: Mapping[str, Alarm]) -> list[View]:
    """Alarms that hold (api.site_views.AlarmView)."""
    return [
        {"id": a.id, "severity": a.severity, "text": a.text, "since": rfc3339(a.since_s)}
        for a in held.values()
    ]


def measured_w(state: State, now_s: float) -> float | None:
    """Draw of all mining devices; unknown as soon as one of them is unknown (I3)."""
    fresh = now_s - state.seen.at_s <= state.site.rules.stale_after_s
    watts_w = np.where(fresh, state.seen.watts_w, np.nan)
    return known(float(watts_w.sum())) if len(watts_w) else 0.0


def _granted_w(state: State, kind: JobKind) -> float:
    return sum(job.wanted_w for job in state.of_kind(kind))


def _feeders(state: State) -> list[View]:
    tree, committed_w = state.site.tree, state.outlook.feeder_committed_w
    usable_w = tree.usable_w(state.site.rules.margin_share)
    short = {one.feeder: one.missed_w for one in shortfalls.short_feeders(state, state.outlook)}
    return [
        {
            "id": name,
            "parent": None if tree.parent[i] < 0 else tree.names[int(tree.parent[i])],
            "limit_w": float(tree.limit_w[i]),
            "committed_w": committed_w[i] if committed_w else 0.0,
            "margin_w": float(tree.limit_w[i] - usable_w[i]),
            **({} if tree.second[i] < 0 else {"second_parent": tree.names[int(tree.second[i])]}),
            **_missed(*short.get(i, (0.0, 0.0))),
        }
        for i, name in enumerate(tree.names)
    ]


def _missed(asked_w: float, counted_w: float) -> View:
    """By how much a limit is missed; nothing where it is kept."""
    return {"shortfall_w": asked_w, "shortfall_counted_w": counted_w} if counted_w > 0 else {}


def _job_counts(state: State) -> dict[str, dict[str, int]]:
    counts = Counter((job.kind.value, job.state.value) for job in state.jobs.values())
    table: dict[str, dict[str, int]] = {}
    for (kind, job_state), count in sorted(counts.items()):
        table.setdefault(kind, {})[job_state] = count
    return table


def devices(state: State, roster: Roster, now_s: float) -> list[View]:
    """Every device (api.device_views.DeviceView)."""
    rules = state.site.rules
    ceiling_w = leases.ceilings(state.fleet, state.ledger, state.seen, now_s, rules.stale_after_s)
    silent = state.silent(now_s)
    return [
        _device(state, roster.entries.get(d.id), i, ceiling_w, bool(silent[i]), now_s)
        for i, d in enumerate(state.fleet.devices)
    ]


def unseen(machines: Mapping[str, Mapping[str, Missing]]) -> list[View]:
    """Machines that count nothing, by agent and id (api.device_views.UnseenView), in that order."""
    return [
        {
            "id": one.id,
            "agent": one.agent,
            "feeder": one.feeder,
            "reason": one.reason,
            "since": rfc3339(one.since_s),
        }
        for _, of_agent in sorted(machines.items())
        for one in of_agent.values()
    ]


def _device(
    state: State, entry: Entry | None, i: int, ceiling_w: Floats, silent: bool, now_s: float
) -> View:
    device, ledger, seen = state.fleet.devices[i], state.ledger, state.seen
    fresh = now_s - seen.at_s[i] <= state.site.rules.stale_after_s
    watts_w = known(float(seen.watts_w[i])) if fresh else None
    hashes = known(float(seen.hashrate_h_per_s[i])) if fresh else None
    point = int(ledger.point[i])
    info: Mapping[str, Any] = entry.info if entry else {}
    reading: Mapping[str, Any] = entry.reading if entry else {}
    status, reason = _status(state, i, reading.get("error"), silent=silent, fresh=fresh)
    if fresh and reading.get("note"):
        reason = f"{reason}; {reading['note']}"
    if state.turns.kept[i]:
        reason = f"{reason}; {_kept(state, i)}"
    return {
        "id": device.id,
        "kind": device.kind,
        "model": str(info.get("model") or "unknown"),
        "agent": device.agent,
        "feeder": device.feeder,
        "mode": _mode(state, i),
        "leased_w": known(float(ledger.lease_w[i])),
        "ceiling_w": float(ceiling_w[i]),
        "watts_w": watts_w,
        "quality": _quality(info, reading) if watts_w is not None else "unknown",
        "watts_source": None if watts_w is None else reading.get("source"),
        "age_s": known(float(now_s - seen.at_s[i])),
        "hashrate_h_per_s": hashes,
        "state": status,
        "value_usd_per_h": _value(state, i, watts_w, now_s) if point >= 0 else None,
        "reason": reason,
        "reported_mode": reading.get("mode"),
        "asleep": asleep(device, watts_w, hashes),
        "error": reading.get("error"),
        "note": reading.get("note"),
        "wear_usd_per_cycle": device.wear_usd_per_cycle,
        "cycle_usd": float(state.ladder.cycle_usd[i]),
        "cycles": reading.get("cycles"),
        "table_bytes": device.table_bytes,
        "table_held_bytes": reading.get("table_held_bytes") if fresh else None,
        "table_progress": reading.get("table_progress") if fresh else None,
    }


def _mode(state: State, i: int) -> str | None:
    """Of its last lease."""
    point = int(state.ledger.point[i])
    if point < 0:
        return None
    emptied = point == 0 and bool(state.tables.empty[i])
    return EMPTY if emptied else state.fleet.devices[i].points[point].mode


def _kept(state: State, i: int) -> str:
    """Why it neither sleeps nor wakes although the price calls for it."""
    cost_usd, payback_s = float(state.ladder.cycle_usd[i]), float(state.turns.payback_s[i])
    return kept_words(cost_usd, payback_s, runs=bool(state.ledger.point[i] > 0))


def _quality(info: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    """How the watts are had: by the reading itself, for an ASIC's may come from several."""
    return str(reading.get("quality") or info.get("quality") or "unknown")


def asleep(device: Device, watts_w: float | None, hashes: float | None) -> bool | None:
    """Whether an ASIC sleeps, by its draw or else its hashrate, never by its own word.

    A machine that is held down offers its lowest point alone, so what it would draw awake is not
    known here: asleep is at most twice the sleeping draw, or 2 % of the nameplate above it. None
    where nothing is known of it, and for what has no sleep.
    """
    lowest = device.points[0]
    if lowest.mode != "sleep":
        return None
    if watts_w is not None:
        return watts_w <= max(2.0 * lowest.watts_w, lowest.watts_w + 0.02 * device.nameplate_w)
    return None if hashes is None else hashes <= 0.0


def _status(
    state: State, i: int, error: str | None, *, silent: bool, fresh: bool
) -> tuple[str, str]:
    device = state.fleet.devices[i]
    if silent:
        agent = state.agents.get(device.agent)
        return "unreachable", (agent.lost if agent and agent.lost else "its agent is silent")
    if state.seen.failed[i]:
        return "unreachable", error or "it does not answer its agent"
    if state.seen.foreign[i]:
        return "unknown", "its set point was written by somebody else: counted at nameplate"
    if not fresh:
        return "unknown", "no fresh reading: counted at its ceiling"
    if not state.ledger.confirmed[i]:
        return "settling", "not yet seen to obey its last lease"
    return "confirmed", "seen to obey its lease"


def _value(state: State, i: int, watts_w: float | None, now_s: float) -> float | None:
    """What the device earns now after its energy and the carbon of that, USD/h; None while its draw
    is unknown."""
    hashes = float(state.seen.hashrate_h_per_s[i])
    if watts_w is None or math.isnan(hashes) or math.isinf(state.price_usd_per_mwh()):
        return None
    values = state.values
    reserve = values.reserve_usd_per_mwh if state.fleet.fenced[i] else 0.0
    cost = state.price_usd_per_mwh() + (carbon.usd_per_mwh(state, now_s) or 0.0)
    energy = (reserve - cost) * watts_w / 1e6
    held = max(int(state.ledger.point[i]), 0)
    named = float(state.fleet.point_usd_per_h[state.fleet.first[i] + held])
    return hashes * values.usd_per_hash_hour + named + energy


def decision(one: Decision) -> View:
    """One decision (api.site_views.DecisionView)."""
    return {
        "at": rfc3339(one.at_s),
        "subject": one.subject,
        "action": one.action,
        "reason": one.reason,
        "inputs": dict(one.inputs),
    }


def flexibility_steps(state: State, now_s: float) -> list[View]:
    """What the site can shed by each deadline (api.site_views.FlexibilityStep)."""
    return [
        {
            "deadline_s": one.deadline_s,
            "deliverable_w": one.deliverable_w,
            "duration_s": one.duration_s,
            "rearm_s": one.rearm_s,
            "sure_share": known(one.sure_share),
            "promised_w": one.promised_w,
        }
        for one in flexibility(state, now_s)
    ]


def lease_counts(state: State) -> dict[str, int]:
    """Leases by state, for /metrics."""
    held = state.ledger.point >= 0
    confirmed = int((held & state.ledger.confirmed).sum())
    return {
        "confirmed": confirmed,
        "settling": int(held.sum()) - confirmed,
        "none": int((~held).sum()),
    }


def job_rows(state: State) -> list[tuple[str, str, int]]:
    """Jobs by kind and state, every state of a kind that exists, for /metrics."""
    counts = Counter((job.kind.value, job.state.value) for job in state.jobs.values())
    kinds = sorted({kind for kind, _ in counts})
    return [(k, s.value, counts.get((k, s.value), 0)) for k in kinds for s in JobState]
