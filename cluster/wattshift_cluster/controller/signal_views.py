"""What sources of signals say, and what of it holds, for people: plain dicts, None is unknown."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from wattshift_cluster.controller.clock import rfc3339
from wattshift_cluster.controller.sources import Sources, value_at
from wattshift_cluster.grid.said import AlertSaid, Steps
from wattshift_scheduler.in_force.effective import all_events, next_edge_s
from wattshift_scheduler.signals.arbitrate import NO_CAP
from wattshift_scheduler.signals.standing import OPERATOR
from wattshift_scheduler.signals.words import Cap, CapKind, GridEvent, Override, Target, spans
from wattshift_scheduler.state import State

SHOWN_MAX = 200
"""Of each list of a source: a utility may tell two months of 5-minute intervals."""

YEAR_10K_S = 253_402_300_000.0
"""Times beyond cannot be written as dates: as good as open."""

View = dict[str, Any]
T = TypeVar("T", Cap, Target, GridEvent, AlertSaid)


def time_of(at_s: float | None) -> str | None:
    """A Unix time as text; None where it is open."""
    return None if at_s is None or not abs(at_s) < YEAR_10K_S else rfc3339(at_s)


def signals(state: State, sources: Sources, named: Iterable[str], now_s: float) -> View:
    """All that is said (api.signal_views.SignalsView); `named` are the site file's sources."""
    said, feeds = state.signals, frozenset(named)
    names = dict.fromkeys((*said.caps, *feeds))
    price = state.price_usd_per_mwh()
    return {
        "price_usd_per_mwh": None if math.isinf(price) else price,
        "price_from_feed": said.price_usd_per_mwh is not None,
        "carbon_g_per_kwh": sources.carbon_g_per_kwh(now_s),
        "overrides": [override(one, state, now_s) for one in said.overrides if one.ends_s > now_s],
        "sources": {name: _source(name, state, sources, feeds, now_s) for name in names},
    }


def _source(name: str, state: State, sources: Sources, feeds: frozenset[str], now_s: float) -> View:
    said, words = state.signals, sources.said(name)
    caps = _live(said.caps.get(name, ()), now_s)
    targets = _live(said.targets.get(name, ()), now_s)
    events = said.events.get(name, ())
    alerts = () if words is None else _live(words.alerts, now_s)
    shown = (caps, targets, events, alerts)
    kind = "operator" if name == OPERATOR else "feed" if name in feeds else "injected"
    heard_s = 0.0 if words is None else words.heard_s
    return {
        "kind": kind,
        "caps": [cap(name, one, now_s, None, said.overrides) for one in _first(caps)],
        "targets": [_target(one, now_s) for one in _first(targets)],
        "events": [_event(one, now_s) for one in _first(events)],
        "alerts": [_alert(one, now_s) for one in _first(alerts)],
        "left_out": sum(max(len(rows) - SHOWN_MAX, 0) for rows in shown),
        "prices": None if words is None else _steps(words.prices_usd_per_mwh, now_s),
        "carbon": None if words is None else _steps(words.carbon_g_per_kwh, now_s),
        "notes": [] if words is None else list(words.notes[:SHOWN_MAX]),
        "heard_age_s": max(now_s - heard_s, 0.0) if heard_s > 0 else None,
        "fault": sources.fault(name),
    }


def _live(rows: Iterable[T], now_s: float) -> tuple[T, ...]:
    return tuple(one for one in rows if one.ends_s is None or one.ends_s > now_s)


def _first(rows: tuple[T, ...]) -> list[T]:
    """Those that begin first."""
    return sorted(rows, key=_begins)[:SHOWN_MAX]


def _begins(one: Cap | Target | GridEvent | AlertSaid) -> float:
    return -math.inf if one.starts_s is None else one.starts_s


def cap(
    source: str,
    one: Cap,
    now_s: float,
    shortfall_w: float | None,
    overrides: Iterable[Override] = (),
) -> View:
    """One cap (api.site_views.CapView); `overrides` are all that were told."""
    named = [o for o in overrides if (o.source, o.cap) == (source, one.id) and o.ends_s > now_s]
    lifted_w = min((o.limit_w for o in named), default=None)
    return {
        "id": one.id,
        "name": one.name or None,
        "source": source,
        "origin": one.origin,
        "kind": str(one.kind),
        "limit_w": one.limit_w,
        "window_s": one.window_s,
        "confidence": one.confidence,
        "starts_at": time_of(one.starts_s),
        "ends_at": time_of(one.ends_s),
        "in_force": one.in_force(now_s),
        "overridden_w": None if one.kind == CapKind.BREAKER else lifted_w,
        "shortfall_w": shortfall_w,
    }


def override(one: Override, state: State, now_s: float) -> View:
    """One override (api.signal_views.OverrideView)."""
    caps = state.signals.caps.get(one.source, ())
    stated = [c.limit_w for c in caps if c.id == one.cap and c.in_force(now_s)]
    return {
        "source": one.source,
        "cap": one.cap,
        "name": next((c.name for c in caps if c.id == one.cap and c.name), None),
        "limit_w": one.limit_w,
        "stated_w": min(stated, default=None),
        "ends_at": time_of(one.ends_s),
        "by": one.by,
        "reason": one.reason,
    }


def binding(state: State, now_s: float) -> View:
    """What the effective cap of a SiteView comes from, and what it waits for."""
    verdict = state.verdict
    edge_s = next_edge_s(state, now_s)
    found: View = {"next_change_at": time_of(edge_s)}
    if verdict is None:
        keys = ("cap_id", "cap_name", "cap_kind", "cap_stated_w", "cap_waits", "cap_advice")
        below = ("target_w", "target_id", "target_name", "mining_target_w", "notice", "notice_name")
        return {**found, **dict.fromkeys((*keys, *below))}
    advice = verdict.advice
    caps = (cap for told in state.signals.caps.values() for cap in told)
    return {
        **found,
        "cap_id": None if verdict.cap_id == NO_CAP else verdict.cap_id,
        "cap_name": _name(verdict.cap_id, (one for one in caps if one.origin == verdict.origin)),
        "cap_kind": None if verdict.kind is None else str(verdict.kind),
        "cap_stated_w": verdict.stated_w,
        "cap_waits": verdict.waits or None,
        "cap_advice": None if advice is None else cap(advice.origin, advice, now_s, None),
        "target_w": _finite(verdict.aim_w),
        "target_id": None if verdict.target is None else verdict.target.id,
        "target_name": None if verdict.target is None else verdict.target.name or None,
        "mining_target_w": _finite(min(verdict.mining_w, verdict.notice_w)),
        "notice": verdict.notice or None,
        "notice_name": _name(verdict.notice, all_events(state.signals)),
    }


def _name(wanted: str, rows: Iterable[Cap | GridEvent]) -> str | None:
    """The name for people of a cap or event by its id; None where it has none."""
    return next((one.name for one in rows if one.id == wanted and one.name), None)


def held_caps_w(caps: Iterable[Cap], now_s: float) -> dict[str, float]:
    """The lowest of the caps that bind now, by origin, W."""
    lowest: dict[str, float] = {}
    for one in caps:
        if one.in_force(now_s):
            lowest[one.origin] = min(one.limit_w, lowest.get(one.origin, one.limit_w))
    return lowest


def _finite(watts_w: float) -> float | None:
    return watts_w if math.isfinite(watts_w) else None


def _target(one: Target, now_s: float) -> View:
    return {
        "id": one.id,
        "name": one.name or None,
        "watts_w": one.watts_w,
        "work": str(one.work),
        "priority": one.priority,
        "starts_at": time_of(one.starts_s),
        "ends_at": time_of(one.ends_s),
        "in_force": one.in_force(now_s),
    }


def _event(one: GridEvent, now_s: float) -> View:
    return {
        "id": one.id,
        "name": one.name or None,
        "program": one.program,
        "notified_at": time_of(one.notified_s),
        "starts_at": time_of(one.starts_s),
        "ends_at": time_of(one.ends_s),
        "commitment_w": None if math.isnan(one.commitment_w) else one.commitment_w,
        "cancelled_at": time_of(one.cancelled_s),
        "in_force": one.stands(now_s) and one.starts_s <= now_s,
    }


def _alert(one: AlertSaid, now_s: float) -> View:
    return {
        "id": one.id,
        "name": one.name,
        "asks": str(one.asks),
        "text": one.text,
        "starts_at": time_of(one.starts_s),
        "ends_at": time_of(one.ends_s),
        "in_force": spans(one.starts_s, one.ends_s, now_s),
    }


def _steps(steps: Steps | None, now_s: float) -> View | None:
    """A series, from the value that holds now on."""
    if steps is None:
        return None
    rows = [
        {"starts_at": time_of(at_s), "value": value if math.isfinite(value) else None}
        for at_s, value, next_s in zip(
            steps.times_s, steps.values, (*steps.times_s[1:], steps.ends_s), strict=False
        )
        if next_s > now_s
    ]
    return {
        "now": value_at(steps, now_s),
        "steps": rows[:SHOWN_MAX],
        "ends_at": time_of(steps.ends_s),
        "told_age_s": max(now_s - steps.told_s, 0.0) if steps.told_s > 0 else None,
    }
