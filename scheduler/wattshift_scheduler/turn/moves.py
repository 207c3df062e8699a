"""From the wanted allocation to grants: lower at once, raise only what fits, renew the rest (I1).

A raise is granted only while the sum of *ceilings* stays within every feeder's limit, so what one
device gives up reaches another only after it was seen to be gone.

A cut must not cost what the site has, but what it moves: only devices are looked at that may not
hold what is wanted (`at`), and a grant names its devices by their columns.
"""

from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from wattshift_scheduler import leases
from wattshift_scheduler.arrays import Bools, Floats, Ints, Rows, Texts, put
from wattshift_scheduler.carried import STEPS
from wattshift_scheduler.commands import Batch, GrantLeases
from wattshift_scheduler.decisions import Cycles, Input, Moves
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, beyond, fit_prefix
from wattshift_scheduler.ladder.envelopes import spread
from wattshift_scheduler.picked import Later, Picked, PickedLater
from wattshift_scheduler.state import Sent, State
from wattshift_scheduler.tables import EMPTY

REPEAT_S = 1.0
"""A lease that its agent has not answered is sent again after this time."""

CENT_W = 1e-6
"""Watts below which two leases count as equal."""


@dataclass(frozen=True, slots=True)
class Target:
    """What each device should hold now.

    Attributes:
        point, watts_w: what it should hold; shape (n,).
        changed: columns of devices whose lease is to change, or is their first, rising.
        raised: those of them whose ceiling may rise.
        moving: devices that did not hold what is wanted.
    """

    point: Ints
    watts_w: Floats
    changed: Ints
    raised: Ints
    moving: Ints


def target(
    state: State,
    wanted: Allocation,
    *,
    at: Rows,
    stuck: Bools,
    short: Bools,
    ceiling_w: Floats,
    credit_w: Floats,
    headroom_w: Floats,
    waits: Bools | None = None,
    silent: Bools | None = None,
    now_s: float,
) -> Target:
    """Decide which of the wanted changes may happen now.

    Args:
        state: the present state.
        wanted: the allocation to move to.
        at: the devices that may not hold what is wanted, rising: all others do.
        stuck: devices that cannot be relied on now; they keep what they hold; shape (n,).
        short: feeders that stay too full without the stuck devices below them, or have one above
            them that does; there a stuck device is asked to shed as well, for it may still obey;
            shape (feeders,).
        ceiling_w: the most each device can draw, W; shape (n,).
        credit_w: overlap with compute, W; shape (n,).
        headroom_w: watts by which the sum of ceilings may still rise, W; shape (feeders,).
        waits: devices whose turn to raise has not come; shape (n,). None: all may.
        silent: devices whose agent would not hear of a change; shape (n,). None: there is none.
        now_s: our clock, s.
    """
    fleet, ledger, base_w = state.fleet, state.ledger, state.ladder.base_w[at]
    # A gate whose lease has ended holds nothing: to renew it would be to raise it.
    new = ledger.point[at] < 0
    if len(state.present.orders.gates):
        new |= fleet.fenced[at] & (now_s >= ledger.held_until_s[at])
    watts_w, lease_w, idle = _quantised(state, wanted, at), ledger.lease_w[at], stuck[at]
    lower = (watts_w < lease_w) | new
    if idle.any():
        lower &= ~idle | short[fleet.feeder[at]]
    # A first lease is a raise too, unless it only asks for the lowest point.
    first = new & (watts_w > base_w) if new.any() else new
    go = lower & ~first
    able = ~idle if waits is None else ~idle & ~waits[at]
    raising = np.flatnonzero(able & (first | (~new & (watts_w > lease_w))))
    if len(raising):
        raising = raising[first[raising] | _settled(state, _columns(at, raising), now_s)]
        rows = _columns(at, raising)
        rise_w = beyond(credit_w[rows], watts_w[raising]) - beyond(credit_w[rows], ceiling_w[rows])
        order = np.lexsort((rows, -_worth(state, wanted, rows)))
        item_w, feeder = np.maximum(rise_w, 0.0)[order], fleet.feeder[rows[order]]
        raising = raising[order[fit_prefix(state.site.tree, feeder, item_w, headroom_w)]]
        go[raising] = True
    moving = new | ~(watts_w == lease_w)
    if silent is not None:
        go, new = go & ~silent[at], new & ~silent[at]
    risen, changed = new.copy(), _columns(at, go | new)
    risen[raising] = go[raising]
    moves_all = np.count_nonzero(moving) == len(changed)
    point, held_w = _held(state, wanted, at, watts_w, go, new, changed, moves_all)
    return Target(
        point=point,
        watts_w=held_w,
        changed=changed,
        raised=_columns(at, risen),
        moving=changed if moves_all else _columns(at, moving),
    )


def _held(
    state: State,
    wanted: Allocation,
    at: Rows,
    watts_w: Floats,
    go: Bools,
    new: Bools,
    changed: Ints,
    moves_all: bool,
) -> tuple[Ints, Floats]:
    """Point and watts of every device, once those that `go` hold what is wanted, and those of the
    `new` that cannot have their first watts yet hold their lowest point. `moves_all`: no device is
    left that would move and may not."""
    point, held_w = state.ledger.point, state.ledger.lease_w
    if not len(changed):
        return point, held_w
    lowest = _columns(at, new & ~go)
    rows = _columns(at, go) if len(lowest) else changed
    if len(rows):
        point = point.copy()
        point[rows] = wanted.point.take(rows)
        if isinstance(at, slice) and moves_all and not len(lowest):
            held_w = watts_w
        else:
            held_w = held_w.copy()
            held_w[rows] = watts_w.take(rows) if isinstance(at, slice) else watts_w[go]
        # What is too little for a step is no work either.
        if isinstance(at, slice):
            some = state.present.orders.continuous
            some = some[go.take(some)]
        else:
            some = rows[state.fleet.continuous.take(rows)]
        point[some[held_w.take(some) <= state.ladder.base_w.take(some)]] = 0
    return put(point, lowest, 0), put(held_w, lowest, state.ladder.base_w[lowest])


def _columns(at: Rows, some: Ints | Bools) -> Ints:
    """The columns of some of the rows `at`, told by their numbers or marked."""
    rows: Ints = (
        np.flatnonzero(some) if some.dtype == np.bool_ else some.astype(np.int64, copy=False)
    )
    return rows if isinstance(at, slice) else at[rows]


def _settled(state: State, rows: Ints, now_s: float) -> Bools:
    """Devices that have reached their last point and were seen to."""
    fleet, ledger = state.fleet, state.ledger
    flat = fleet.first[:-1][rows] + np.maximum(ledger.point[rows], 0)
    due_s = ledger.changed_s[rows] + fleet.point_transition_s[flat]
    settled: Bools = ledger.confirmed[rows] & (now_s >= due_s)
    return settled


def _worth(state: State, wanted: Allocation, rows: Ints) -> Floats:
    """What the best rung ranks by that each device would still climb, for the order of raises."""
    ladder, first = state.ladder, state.fleet.first
    point = state.ledger.point[rows]
    held_w = np.where(point < 0, ladder.base_w[rows], state.ledger.lease_w[rows])
    counts = first[1:][rows] - first[:-1][rows]
    begin, flat = np.cumsum(counts) - counts, spread(first, rows)
    end_w = state.fleet.point_limit_w[flat]
    climbed = end_w <= np.repeat(wanted.watts_w[rows], counts) + 1e-6
    climbed &= end_w > np.repeat(held_w, counts) + 1e-6
    return np.maximum.reduceat(np.where(climbed, ladder.rank_usd_per_mwh[flat], -np.inf), begin)


def _quantised(state: State, wanted: Allocation, at: Rows) -> Floats:
    """Wanted watts in whole steps, of devices that can be leased any; of one that rests apart none
    between its lowest point and the next."""
    orders, watts_w = state.present.orders, wanted.watts_w[at].copy()
    columns, step_w, some = orders.continuous, orders.step_w, orders.continuous
    if not isinstance(at, slice):
        some = np.flatnonzero(state.fleet.continuous[at])
        columns = at[some]
        step_w = step_w[np.searchsorted(orders.continuous, columns)]
    if len(some):
        wanted_w, base_w = watts_w.take(some), state.ladder.base_w.take(columns)
        floored = np.maximum(np.floor(wanted_w / step_w + 1e-9) * step_w, base_w)
        apart = state.fleet.rests_apart.take(columns)
        if apart.any():
            least = _apart(state.fleet, columns, wanted_w, floored, base_w)
            floored = np.where(apart, least, floored)
        watts_w[some] = floored
    return watts_w


def _apart(
    fleet: Fleet, columns: Ints, wanted_w: Floats, floored_w: Floats, base_w: Floats
) -> Floats:
    """Leases of devices that rest or work, whatever was wanted between; shape (columns,)."""
    second = np.minimum(fleet.first[columns] + 1, fleet.first[columns + 1] - 1)
    least_w = fleet.point_limit_w[second]
    works = wanted_w >= least_w - CENT_W
    return np.where(works, np.maximum(floored_w, least_w), base_w)


def grant(
    state: State, held: Target, wanted: Allocation, inputs: dict[str, Input], now_s: float
) -> tuple[State, tuple[GrantLeases, ...], tuple[Moves, ...]]:
    """Issue the leases that are due: changes, renewals, and what was never answered.

    Args:
        state: the present state.
        held: what each device should hold now.
        wanted: the allocation on the way to which that lies.
        inputs: what the change rests on.
        now_s: our clock, s.
    """
    ledger, heard, orders = state.ledger, state.present.heard, state.present.orders
    due, columns = _again(state, now_s), held.changed
    if heard.silent.any():
        due &= ~orders.spread(heard.silent)
    if due.any():
        due[columns] = True
        columns = np.flatnonzero(due)
    if not len(columns):
        return state, (), ()
    before_w, after_w = ledger.lease_w.take(columns), held.watts_w.take(columns)
    moved = before_w != after_w
    told = columns
    if not moved.all():
        told, before_w, after_w = columns[moved], before_w[moved], after_w[moved]
    until_s = orders.spread(heard.seen_s + state.site.rules.lease_ttl_s * leases.TTL_SLACK)
    new = leases.granted(
        ledger,
        columns,
        told,
        held.point,
        held.watts_w,
        raised=held.raised,
        gates=orders.gates,
        until_s=until_s,
        now_s=now_s,
    )
    state, commands = _commands(state.touched(held.changed, ledger=new), columns, now_s)
    return state, commands, _told(state, told, before_w, after_w, wanted, inputs, now_s)


def _again(state: State, now_s: float) -> Bools:
    """Devices whose lease is due as it is: renewals, what was never answered, held tables."""
    ledger, rules = state.ledger, state.site.rules
    due = ledger.issued_s <= now_s - rules.lease_renew_s
    if not ledger.acked.all():
        unheard = ~ledger.acked & (ledger.issued_s <= now_s - REPEAT_S)
        if unheard.any():
            due |= unheard & ~_waiting(state)
    if state.tables.wanted.any():
        due |= _held_tables(state, now_s)
    return due


def _held_tables(state: State, now_s: float) -> Bools:
    """Devices that are to be told, or told again, to free a table; shape (n,).

    Their watts may be the same as before, so that no change of a lease says it.
    """
    tables, ledger = state.tables, state.ledger
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
    return state.present.orders.spread(owes)


def _modes(fleet: Fleet, point: Ints, empty: Bools, columns: Ints) -> tuple[Texts, Ints]:
    """Names of the granted points, as a column and the rows of it that the devices pick; of a
    lowest one its twin where the table is to be freed, too."""
    held = point.take(columns)
    flat = fleet.first.take(columns) + held
    emptied = (held == 0) & empty[columns] if empty.any() else None
    if emptied is None:
        return fleet.modes, flat
    names = fleet.modes[flat]
    names[emptied] = EMPTY
    return names, np.arange(len(columns))


def _commands(state: State, columns: Ints, now_s: float) -> tuple[State, tuple[GrantLeases, ...]]:
    """One command an agent, its devices in the order of their columns."""
    fleet, ledger, orders = state.fleet, state.ledger, state.present.orders
    columns, ends = orders.by_agent(columns)
    some, first = np.flatnonzero(np.diff(ends)), state.next_command
    agents = list(map(fleet.agents.__getitem__, orders.blocks[some].tolist()))
    # A grant that is not read yet must not keep the whole state alive.
    point, empty = ledger.point, state.tables.empty
    batch = Batch(
        first_id=first,
        agents=agents,
        boots=state.agents,
        ttl_s=state.site.rules.lease_ttl_s,
        ends=[*ends[some].tolist(), len(columns)],
        epoch=state.epoch,
        devices=Picked(fleet.ids, columns),
        sequence=ledger.sequence.take(columns),
        modes=PickedLater(lambda: _modes(fleet, point, empty, columns)),
        watts_w=ledger.lease_w.take(columns),
    )
    sent = dict(state.sent)
    sent.update(zip(count(first), Sent.each("grant_leases", agents, now_s), strict=False))
    state = replace(state, sent=sent, next_command=first + len(agents))
    return state, tuple(batch.grants())


def _told(
    state: State,
    moved: Ints,
    before_w: Floats,
    after_w: Floats,
    wanted: Allocation,
    inputs: dict[str, Input],
    now_s: float,
) -> tuple[Moves, ...]:
    if not len(moved):
        return ()
    # What explains a move must not keep the whole state alive until somebody reads it.
    fleet, point, empty = state.fleet, state.ledger.point, state.tables.empty
    kept, payback_s, cycle_usd = state.turns.kept, state.turns.payback_s, state.ladder.cycle_usd
    return (
        Moves(
            now_s,
            Picked(fleet.ids, moved),
            PickedLater(lambda: _modes(fleet, point, empty, moved)),
            before_w,
            after_w,
            Later(lambda: wanted.next_of(moved)),
            inputs,
            Cycles(
                cost_usd=Later(lambda: cycle_usd[moved]),
                payback_s=Later(lambda: payback_s[moved]),
                kept=Later(lambda: kept[moved]),
                runs=Later(lambda: point[moved] > 0),
            ),
            waits_w=Later(lambda: _waits_w(fleet, point, wanted, moved)),
        ),
    )


def _waits_w(fleet: Fleet, point: Ints, wanted: Allocation, rows: Ints) -> Floats:
    """What devices are to have that hold their lowest point for want of room, W; NaN for others."""
    base_w = fleet.point_limit_w[fleet.first[rows]]
    step_w = fleet.point_limit_w[fleet.first[1:][rows] - 1] / STEPS
    waits = (point[rows] == 0) & (wanted.watts_w[rows] - base_w > step_w)
    return np.where(waits, wanted.watts_w[rows], np.nan)


def told_kept(
    state: State, before: Bools, wanted: Allocation, inputs: dict[str, Input], now_s: float
) -> tuple[Moves, ...]:
    """Tell of devices that the cost of a cycle keeps as they are, and did not before.

    One whose lease has just changed is told of by that change.
    """
    kept, ledger = state.turns.kept, state.ledger
    if kept is before:
        return ()
    new = np.flatnonzero(kept & ~before & (ledger.point >= 0) & (ledger.changed_s < now_s))
    watts_w = ledger.lease_w[new]
    return _told(state, new, watts_w, watts_w, wanted, inputs, now_s)
