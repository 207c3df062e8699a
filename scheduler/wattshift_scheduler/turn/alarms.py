"""What a person should know now. An alarm has a cause; when the cause is gone, so is the alarm."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from wattshift_scheduler.arrays import Bools
from wattshift_scheduler.compute import lateness
from wattshift_scheduler.compute.act import EVICT_AFTER_S
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.in_force import shortfalls
from wattshift_scheduler.promises import shortages
from wattshift_scheduler.signals.arbitrate import Arbitrated
from wattshift_scheduler.state import Alarm, Outlook, State

NAMED = 5
"""Devices named in one alarm; the rest are counted."""

UNASKED_SHARE = 0.01
"""Share of a node's most watts from which work that asked for none is told of, until it is half."""

UNASKED_W = 5.0
"""Less is not told of however small the node is: half a processor core's draw, the noise of the
estimate."""


def raised(
    state: State, verdict: Arbitrated, *, outlook: Outlook, late: Bools, now_s: float
) -> tuple[Mapping[str, Alarm], tuple[Decision, ...]]:
    """The alarms that hold now, and a decision for each that has come or gone.

    Args:
        state: as decided, its outlook still that of the last decision.
        verdict: what signals ask for.
        outlook: of this decision.
        late: devices that have not settled on their last lease in time; shape (n,).
        now_s: our clock, s.
    """
    causes = dict(
        chain(
            shortfalls.causes(state, outlook),
            _causes(state, late, now_s),
            _signals(verdict),
            shortages.causes(state, verdict, now_s),
        )
    )
    kept = {
        name: Alarm(name, severity, text, _since(state, name, now_s))
        for name, (severity, text) in causes.items()
    }
    came = [a for name, a in kept.items() if name not in state.alarms]
    went = [a for name, a in state.alarms.items() if name not in kept]
    told = [Decision(now_s, a.id, "alarm", a.text, {"severity": a.severity}) for a in came]
    told += [Decision(now_s, a.id, "all clear", a.text, {}) for a in went]
    return kept, tuple(told)


def _since(state: State, name: str, now_s: float) -> float:
    before = state.alarms.get(name)
    return now_s if before is None else before.since_s


def _causes(state: State, late: Bools, now_s: float) -> Iterator[tuple[str, tuple[str, str]]]:
    rules = state.site.rules
    if np.isfinite(state.meter_at_s) and now_s - state.meter_at_s > rules.stale_after_s:
        yield "meter-stale", ("warning", "the site meter is stale: the margin is widened")
    if len(state.fleet) and np.isinf(state.price_usd_per_mwh()):
        text = "the energy price is unknown: nothing mines (set grid.default_price_usd_per_mwh)"
        yield "price-unknown", ("warning", text)
    if state.values.hashprice_usd_per_ph_day is None:
        text = f"the hashprice is unknown, so hashes count nothing: {state.quote.note}"
        yield "hashprice-unknown", ("warning", text)
    elif state.quote.note:
        yield "hashprice-held", ("warning", f"hashprice: {state.quote.note}")
    for name in [name for name, agent in state.agents.items() if agent.lost]:
        text = f"agent {name} does not answer: {state.agents[name].lost}"
        yield f"agent-lost:{name}", ("warning", text)
    for name in sorted(name for name in state.site.agents if name not in state.agents):
        text = f"agent {name} has not answered yet: what hangs on it is counted only if known"
        yield f"agent-lost:{name}", ("warning", text)
    if state.plan is not None and now_s >= state.plan.expires_s:
        age_min = (now_s - state.plan.made_s) / 60.0
        text = f"the look-ahead plan is {age_min:,.0f} min old and no longer used: ladder alone"
        yield "plan-late", ("warning", text)
    yield from _nodes(state, now_s)
    yield from lateness.causes(state)
    if late.any():
        text = f"{_named(state, late)}: not seen to obey its lease in time, counted at its ceiling"
        yield "overdue", ("warning", text)
    if state.seen.foreign.any():
        text = f"{_named(state, state.seen.foreign)}: set point written by somebody else"
        yield "foreign-write", ("warning", text)


def _signals(verdict: Arbitrated) -> Iterator[tuple[str, tuple[str, str]]]:
    """What a person should know of the signals in force."""
    for one in verdict.overrides:
        text = f"cap {one.cap} of {one.source} is overridden to {one.limit_w:,.0f} W by {one.by}"
        yield f"override:{one.source}/{one.cap}", ("warning", text)
    if verdict.conflict:
        text = f"targets {', '.join(verdict.conflict)} contradict each other: the lowest holds"
        yield "targets-conflict", ("warning", text)


def _nodes(state: State, now_s: float) -> Iterator[tuple[str, tuple[str, str]]]:
    """What is wrong with compute nodes."""
    most_w = {node.name: node.max_w for node in state.site.nodes}
    for name, node in state.nodes.items():
        if node.forgotten:
            text = f"{name} counts no watts: an operator vouches that it is off"
            yield f"compute-forgotten:{name}", ("warning", text)
        elif not node.up:
            yield f"compute-down:{name}", ("warning", f"Ray on {name} does not answer")
        if node.trouble:
            yield f"compute-watts:{name}", ("warning", f"{name}: its watts: {node.trouble}")
        least_w = max(UNASKED_SHARE * most_w[name], UNASKED_W)
        if node.unasked_w > (least_w / 2.0 if f"unasked:{name}" in state.alarms else least_w):
            named = "; ".join(node.unasked[:NAMED]) or "unnamed work"
            text = f"{name}: {node.unasked_w:,.0f} W are drawn by work that asked for none: {named}"
            yield f"unasked:{name}", ("warning", text)
        if now_s - node.short_s > 2.0 * EVICT_AFTER_S:
            text = f"{name}: Ray work does not leave although its watts are gone"
            yield f"compute-short:{name}", ("critical", text)
    for name, node in state.strangers.items():
        text = f"Ray has a node {name} that the site file does not name: it is not commanded"
        if node.granted_w > 0:
            text += f", and it offers {node.granted_w:,.0f} W of power_w that nobody counts"
        yield f"unknown-node:{name}", ("critical" if node.granted_w > 0 else "warning", text)


def _named(state: State, mask: Bools) -> str:
    ids = [state.fleet.devices[i].id for i in np.flatnonzero(mask)]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
