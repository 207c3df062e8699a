"""From the wanted allocation to grants: lower at once, raise only what fits, renew the rest (I1).

A raise is granted only while the sum of *ceilings* stays within every feeder's limit, so what one
device gives up reaches another only after it was seen to be gone.
"""

from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler import leases
from wattshift_scheduler.allocate import Allocation, beyond, fit_prefix
from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.decisions import Cycles, Input, Moves
from wattshift_scheduler.state import Sent, State
from wattshift_scheduler.tables import EMPTY

REPEAT_S = 1.0
"""A lease that its agent has not answered is sent again after this time."""

STEPS = 100
"""A continuous device is leased in hundredths of its top: the gate knows no finer intensity."""


@dataclass(frozen=True, slots=True)
class Target:
    """What each device should hold now; shape (n,) each."""

    point: Ints
    watts_w: Floats
    changed: Bools


def target(
    state: State,
    wanted: Allocation,
    *,
    stuck: Bools,
    short: Bools,
    ceiling_w: Floats,
    credit_w: Floats,
    headroom_w: Floats,
    waits: Bools | None = None,
    now_s: float,
) -> Target:
    """Decide which of the wanted changes may happen now.

    Args:
        state: the present state.
        wanted: the allocation to move to.
        stuck: devices that cannot be relied on now; they keep what they hold.
        short: devices below a feeder that stays too full without the stuck ones; there a stuck
            device is asked to shed as well, for it may still obey.
        ceiling_w: the most each device can draw, W; shape (n,).
        credit_w: overlap with compute, W; shape (n,).
        headroom_w: watts by which the sum of ceilings may still rise, W; shape (feeders,).
        waits: devices whose turn to raise has not come; None: all may.
        now_s: our clock, s.
    """
    fleet, ledger = state.fleet, state.ledger
    # A gate whose lease has ended holds nothing: to renew it would be to raise it.
    new = (ledger.point < 0) | (fleet.fenced & (now_s >= ledger.held_until_s))
    watts_w = _quantised(state, wanted.watts_w)
    held_w = np.where(new, np.inf, ledger.lease_w)
    flat = fleet.first[:-1] + np.maximum(ledger.point, 0)
    settled = ledger.confirmed & (now_s >= ledger.changed_s + fleet.point_transition_s[flat])
    lower = (~stuck | short) & (watts_w < held_w)
    # A first lease is a raise too, unless it only asks for the lowest point.
    first = new & (watts_w > state.ladder.base_w)
    able = ~stuck if waits is None else ~stuck & ~waits
    raising = np.flatnonzero(able & ((~new & settled & (watts_w > held_w)) | first))
    order = raising[np.lexsort((raising, -_worth(state, wanted)[raising]))]
    rise_w = np.maximum(
        beyond(credit_w[order], watts_w[order]) - beyond(credit_w[order], ceiling_w[order]), 0.0
    )
    fits = fit_prefix(state.site.tree, fleet.feeder[order], rise_w, headroom_w)
    go = lower & ~first
    go[order[fits]] = True
    lowest = new & ~go
    hold = ~go & ~new
    return Target(
        point=np.where(go, wanted.point, np.where(hold, ledger.point, 0)),
        watts_w=np.where(go, watts_w, np.where(hold, ledger.lease_w, state.ladder.base_w)),
        changed=go | lowest,
    )


def _worth(state: State, wanted: Allocation) -> Floats:
    """Gross value of the best rung that each device would still climb, for the order of raises."""
    ladder = state.ladder
    open_rungs = ladder.end_w <= wanted.watts_w[ladder.device] + 1e-6
    held_w = np.where(state.ledger.point < 0, ladder.base_w, state.ledger.lease_w)
    open_rungs &= ladder.end_w > held_w[ladder.device] + 1e-6
    rows = np.flatnonzero(open_rungs)[::-1]
    worth = np.full(len(state.fleet), -np.inf)
    worth[ladder.device[rows]] = ladder.usd_per_mwh[rows]
    return worth


def _quantised(state: State, watts_w: Floats) -> Floats:
    fleet = state.fleet
    top_w = fleet.point_limit_w[fleet.first[1:] - 1] if len(fleet) else np.zeros(0)
    step_w = top_w / STEPS
    floored = np.floor(watts_w / np.where(step_w > 0, step_w, 1.0) + 1e-9) * step_w
    return np.where(fleet.continuous, np.maximum(floored, state.ladder.base_w), watts_w)


def grant(
    state: State, wanted: Target, next_usd_per_mwh: Floats, inputs: dict[str, Input], now_s: float
) -> tuple[State, tuple[GrantLeases, ...], tuple[Moves, ...]]:
    """Issue the leases that are due: changes, renewals, and what was never answered."""
    fleet, ledger, rules = state.fleet, state.ledger, state.site.rules
    unheard = ~ledger.acked & (now_s - ledger.issued_s >= REPEAT_S) & ~_waiting(state)
    due = wanted.changed | unheard | (now_s - ledger.issued_s >= rules.lease_renew_s)
    due |= _held_tables(state, now_s)
    due &= ~state.silent(now_s)
    columns = np.flatnonzero(due)
    if not len(columns):
        return state, (), ()
    before_w = ledger.lease_w.copy()
    seen_s = [agent.seen_s if (agent := state.agents.get(a)) else -np.inf for a in fleet.agents]
    heard_s = np.array(seen_s, dtype=np.float64)[fleet.agent[columns]]
    until_s = heard_s + rules.lease_ttl_s * leases.TTL_SLACK
    ledger = leases.granted(
        ledger,
        columns,
        wanted.point[columns],
        wanted.watts_w[columns],
        until_s=until_s,
        now_s=now_s,
    )
    state = replace(state, ledger=ledger)
    state, commands = _commands(state, columns, now_s)
    moved = columns[before_w[columns] != wanted.watts_w[columns]]
    return state, commands, _told(state, moved, before_w, next_usd_per_mwh, inputs, now_s)


def _held_tables(state: State, now_s: float) -> Bools:
    """Devices that are to be told, or told again, to free a table; shape (n,).

    Their watts may be the same as before, so that no change of a lease says it.
    """
    tables, ledger = state.tables, state.ledger
    if not tables.wanted.any():
        return tables.wanted
    again = (tables.wanted_s == now_s) | (now_s - ledger.issued_s >= REPEAT_S) & ~_waiting(state)
    vacant = tables.vacant(state.fleet, ledger, now_s, state.site.rules.stale_after_s)
    due: Bools = tables.wanted & ~vacant & again
    return due


def _waiting(state: State) -> Bools:
    """Devices whose agent still owes an answer to a grant; shape (n,).

    Asking again would only outdate the answer under way: a slow agent would never be heard.
    """
    asked = {sent.subject for sent in state.sent.values() if sent.kind == "grant_leases"}
    owes = np.array([name in asked for name in state.fleet.agents], dtype=np.bool_)
    return owes[state.fleet.agent]


def _modes(state: State, columns: Ints) -> tuple[str, ...]:
    """Names of the granted points; of a lowest one its twin where the table is to be freed, too."""
    fleet, point = state.fleet, state.ledger.point[columns]
    names = fleet.modes[fleet.first[columns] + point]
    return tuple(np.where((point == 0) & state.tables.empty[columns], EMPTY, names).tolist())


def _commands(state: State, columns: Ints, now_s: float) -> tuple[State, tuple[GrantLeases, ...]]:
    fleet = state.fleet
    columns = columns[np.argsort(fleet.agent[columns], kind="stable")]
    cuts = np.flatnonzero(np.diff(fleet.agent[columns])) + 1
    commands, sent, number = [], dict(state.sent), state.next_command
    for at in np.split(columns, cuts):
        name = fleet.agents[fleet.agent[at[0]]]
        agent = state.agents[name]
        commands.append(
            GrantLeases(
                id=number,
                agent=name,
                boot_id=agent.boot_id,
                epoch=state.epoch,
                devices=tuple(fleet.ids[at]),
                sequence=state.ledger.sequence[at],
                modes=_modes(state, at),
                watts_w=state.ledger.lease_w[at],
                valid_until_boot_s=agent.boot_s + state.site.rules.lease_ttl_s,
            )
        )
        sent[number] = Sent("grant_leases", name, now_s)
        number += 1
    return replace(state, sent=sent, next_command=number), tuple(commands)


def _told(
    state: State,
    moved: Ints,
    before_w: Floats,
    next_usd_per_mwh: Floats,
    inputs: dict[str, Input],
    now_s: float,
) -> tuple[Moves, ...]:
    if not len(moved):
        return ()
    fleet = state.fleet
    ids = tuple(fleet.ids[moved])
    modes = _modes(state, moved)
    after_w = state.ledger.lease_w[moved]
    return (
        Moves(
            now_s,
            ids,
            modes,
            before_w[moved],
            after_w,
            next_usd_per_mwh[moved],
            inputs,
            _cycles(state, moved),
        ),
    )


def _cycles(state: State, columns: Ints) -> Cycles:
    turns = state.turns
    return Cycles(
        cost_usd=state.ladder.cycle_usd[columns],
        payback_s=turns.payback_s[columns],
        kept=turns.kept[columns],
        runs=state.ledger.point[columns] > 0,
    )


def told_kept(
    state: State,
    before: Bools,
    next_usd_per_mwh: Floats,
    inputs: dict[str, Input],
    now_s: float,
) -> tuple[Moves, ...]:
    """Tell of devices that the cost of a cycle keeps as they are, and did not before.

    One whose lease has just changed is told of by that change.
    """
    ledger = state.ledger
    new = state.turns.kept & ~before & (ledger.point >= 0) & (ledger.changed_s < now_s)
    return _told(state, np.flatnonzero(new), ledger.lease_w, next_usd_per_mwh, inputs, now_s)
