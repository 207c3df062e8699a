"""Bring what is carried from the last decision up to now: what was touched, and whose time came.

Everything here works device by device, with the same function for some devices as for all, so that
what is brought up to date equals what is worked out anew.
"""

from dataclasses import fields, replace
from fnmatch import fnmatchcase

import numpy as np

from wattshift_scheduler import leases
from wattshift_scheduler.arrays import ALL, EARLY_S, Bools, Floats, Ints, Rows, put
from wattshift_scheduler.carried import Carried, Facts, Heard, Orders, Sums, union
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import JobKind, JobState
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.ladder.allocate import beyond
from wattshift_scheduler.state import State


def brought(state: State, now_s: float) -> tuple[Carried, Ints]:
    """What is carried, as of now, and the rows in which its facts may differ from before."""
    last, fleet, lease_w = state.carried, state.fleet, state.ledger.lease_w
    if last is not None and not last.belongs(fleet, state.ledger, state.seen):
        last = None
    patterns = _patterns(state)
    if last is None or last.patterns != patterns:
        return _anew(state, patterns, now_s), np.arange(len(fleet))
    heard = _heard(state, last.heard, now_s)
    rows = _due(state, last, heard, now_s)
    bounds_w = budget.host_bounds_w(state)
    same = bounds_w == last.bounds_w
    carried = replace(
        last,
        facts=_refreshed(state, last, heard, rows, now_s),
        heard=heard,
        emptied=state.tables.empty,
        bounds_w=bounds_w,
        credit_w=last.credit_w if same else budget.credit_w(state),
        lease_w=lease_w,
        leased_w=state.leased_w(),
        touched=(),
    )
    return carried, rows


def _anew(state: State, patterns: tuple[str, ...], now_s: float) -> Carried:
    fleet, last = state.fleet, state.carried
    heard, mines = _heard(state, None, now_s), _named(state, patterns)
    return Carried(
        fleet=fleet,
        ledger=state.ledger,
        seen=state.seen,
        orders=last.orders if last is not None and last.fleet is fleet else Orders.of(fleet),
        facts=_facts(state, heard.silent, mines, ALL, now_s),
        heard=heard,
        patterns=patterns,
        mines=mines,
        emptied=state.tables.empty,
        bounds_w=budget.host_bounds_w(state),
        credit_w=budget.credit_w(state),
        lease_w=state.ledger.lease_w,
        leased_w=state.leased_w(),
    )


def _due(state: State, last: Carried, heard: Heard, now_s: float) -> Ints:
    """Rows to look at anew: touched, come of age, of an agent that fell silent or spoke again, or
    emptied for compute since."""
    parts = [*last.touched, np.flatnonzero(last.facts.due_s <= now_s)]
    if last.heard is not heard:
        parts.append(last.orders.of_agents(last.heard.silent != heard.silent))
    if last.emptied is not state.tables.empty:
        parts.append(np.flatnonzero(last.emptied != state.tables.empty))
    return union(len(state.fleet), *parts)


def _refreshed(state: State, last: Carried, heard: Heard, rows: Ints, now_s: float) -> Facts:
    facts = last.facts
    if not len(rows):
        return facts
    at: Rows = ALL if len(rows) == len(state.fleet) else rows
    found = _facts(state, heard.silent, last.mines, at, now_s)
    columns = {
        one.name: put(getattr(facts, one.name), at, getattr(found, one.name))
        for one in fields(Facts)
    }
    return Facts(**columns)


def _facts(state: State, silent: Bools, mines: Bools, at: Rows, now_s: float) -> Facts:
    """The facts of some devices; `silent` is by agent."""
    fleet, ledger, seen, rules = state.fleet, state.ledger, state.seen, state.site.rules
    stale_s, factor, base_w = rules.stale_after_s, rules.settle_factor, state.ladder.base_w
    ceiling_w = leases.ceilings(fleet, ledger, seen, now_s, stale_s, at)
    late = leases.overdue(fleet, ledger, now_s, factor, at)
    stale = now_s - seen.at_s[at] > stale_s
    lost = seen.failed[at] & stale
    stuck = late | silent[fleet.agent[at]] | seen.foreign[at] | lost
    open_ = (ledger.point[at] >= 0) & ~ledger.confirmed[at] & ~late
    until_s = ledger.held_until_s[at]
    due_s = np.minimum(
        np.where(stale, np.inf, seen.at_s[at] + stale_s),
        np.where(open_, leases.overdue_s(fleet, ledger, factor, at), np.inf),
    )
    due_s = np.minimum(due_s, np.where(fleet.fenced[at] & (now_s < until_s), until_s, np.inf))
    return Facts(
        ceiling_w=ceiling_w,
        least_w=np.where(stuck, ceiling_w, base_w[at]),
        late=late,
        stuck=stuck,
        runs=cycles.awake(ledger, seen, base_w, now_s, stale_s, at),
        free=mines[at] & ~stuck & ~state.tables.empty[at],
        due_s=due_s - EARLY_S,
    )


def _heard(state: State, last: Heard | None, now_s: float) -> Heard:
    agents, fleet = state.agents, state.fleet
    if last is not None and last.agents is agents and last.fleet is fleet and now_s < last.until_s:
        return last
    stale_s, found = state.site.rules.stale_after_s, [agents.get(a) for a in fleet.agents]
    seen_s = np.array([-np.inf if a is None else a.seen_s for a in found], dtype=np.float64)
    lost = np.array([a is None or bool(a.lost) for a in found], dtype=np.bool_)
    silent = lost | (now_s - seen_s > stale_s)
    until_s = float(seen_s[~silent].min(initial=np.inf)) + stale_s - EARLY_S
    return Heard(agents, fleet, silent, seen_s, until_s)


def _patterns(state: State) -> tuple[str, ...]:
    """What running mining jobs say of the devices that they use."""
    return tuple(
        str(pattern)
        for job in state.of_kind(JobKind.MINING)
        if job.state is JobState.RUNNING
        for pattern in job.spec.get("devices", ())
    )


def _named(state: State, patterns: tuple[str, ...]) -> Bools:
    """The devices that patterns name; shape (n,)."""
    if "*" in patterns:
        return np.ones(len(state.fleet), dtype=np.bool_)
    if not patterns:
        return np.zeros(len(state.fleet), dtype=np.bool_)
    named = [any(fnmatchcase(d.id, p) for p in patterns) for d in state.fleet.devices]
    return np.array(named, dtype=np.bool_)


def summed(state: State, carried: Carried) -> Sums:
    """The sums of the facts; those of columns that are still the same are taken over."""
    facts, credit_w, last = carried.facts, carried.credit_w, carried.sums
    known = last if last is not None and last.credit_w is credit_w else None
    if known is not None and known.facts.ceiling_w is facts.ceiling_w:
        ceilings_w, ceiling_w = known.ceilings_w, known.ceiling_w
    else:
        ceilings_w, ceiling_w = _devices_w(state, carried, facts.ceiling_w)
    if known is not None and known.facts.least_w is facts.least_w:
        leasts_w, least_w = known.leasts_w, known.least_w
    else:
        leasts_w, least_w = _devices_w(state, carried, facts.least_w)
    return Sums(ceilings_w, leasts_w, ceiling_w, least_w, facts, credit_w)


def _devices_w(state: State, carried: Carried, watts_w: Floats) -> tuple[Floats, float]:
    """Watts of devices at their own feeders, the overlap counted once, and of all of them."""
    counted_w, feeders = beyond(carried.credit_w, watts_w), len(state.site.tree.names)
    return carried.orders.by_feeder(counted_w, feeders), float(watts_w.sum())


def granted(state: State, raised: Ints, now_s: float) -> tuple[Carried, Floats]:
    """What is carried with the ceilings that grants have raised, and their sums by feeder; all else
    that grants change is brought up next time."""
    carried = state.present
    if len(raised):
        facts, stale_s = carried.facts, state.site.rules.stale_after_s
        watts_w = leases.ceilings(state.fleet, state.ledger, state.seen, now_s, stale_s, raised)
        facts = replace(facts, ceiling_w=put(facts.ceiling_w, raised, watts_w))
        carried = replace(carried, facts=facts)
    sums = summed(state, carried)
    return replace(carried, sums=sums), sums.ceilings_w
