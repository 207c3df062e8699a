"""The lease ledger: what was promised to every device, and so the most that it can draw (I1, I3).

A device's *ceiling* is the most it can draw with no further command from us. It rises the moment a
higher lease is granted and falls only on confirmation: a gate's by its agent's reply, anything
else's by measured watts (without a sensor: by hashrate, after its settling time), never by a
device's word. An unknown device counts at nameplate plus tolerance.
"""

from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler.arrays import ALL, Bools, Floats, Ints, Rows, put
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.fleet_changes import Moved

TTL_SLACK = 1.01
"""The controller counts a lease 1 % longer than the agent does: two clocks never agree fully."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The last reading of every device; NaN is unknown. Shape (n,) each.

    Attributes:
        at_s: when the sample was taken, our clock; -inf if never.
        watts_w, limit_w, hashrate_h_per_s: draw, enforced limit read back, hashrate.
        foreign: somebody else wrote its set point.
        failed: it did not answer its agent.
    """

    at_s: Floats
    watts_w: Floats
    limit_w: Floats
    hashrate_h_per_s: Floats
    foreign: Bools
    failed: Bools

    @classmethod
    def unknown(cls, n: int) -> "Telemetry":
        """Nothing is known of `n` devices."""
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        return cls(np.full(n, -np.inf), nan, nan.copy(), nan.copy(), no, no.copy())


@dataclass(frozen=True, slots=True)
class Ledger:
    """Leases as columns, shape (n,) each.

    Attributes:
        sequence: last one issued in this epoch, 0 if none.
        point: operating point last granted, -1 if none.
        lease_w: watts of the last grant, NaN if none.
        held_w: most watts that any lease which may still live allows.
        held_until_s: when the last of those leases is dead by our count; kept of gates.
        until_s: when the last grant is dead by our count; -inf if none.
        bound_w: proven bound of the draw at what was last written to the device.
        acked: the agent has taken the last grant.
        acked_s: when it did.
        confirmed: the device was seen to obey the last grant.
        changed_s: when the granted point or watts last changed.
        issued_s: when a grant or renewal was last sent.
    """

    sequence: Ints
    point: Ints
    lease_w: Floats
    held_w: Floats
    held_until_s: Floats
    until_s: Floats
    bound_w: Floats
    acked: Bools
    acked_s: Floats
    confirmed: Bools
    changed_s: Floats
    issued_s: Floats

    @classmethod
    def empty(cls, fleet: Fleet) -> "Ledger":
        """Nothing granted and nothing known: every device counts at its nameplate."""
        n = len(fleet)
        no = np.zeros(n, dtype=np.bool_)
        return cls(
            sequence=np.zeros(n, dtype=np.int64),
            point=np.full(n, -1, dtype=np.int64),
            lease_w=np.full(n, np.nan),
            held_w=fleet.nameplate_w.copy(),
            held_until_s=np.full(n, np.inf),
            until_s=np.full(n, -np.inf),
            bound_w=fleet.nameplate_w.copy(),
            acked=no,
            acked_s=np.full(n, -np.inf),
            confirmed=no.copy(),
            changed_s=np.full(n, -np.inf),
            issued_s=np.full(n, -np.inf),
        )


def ceilings(
    fleet: Fleet,
    ledger: Ledger,
    seen: Telemetry,
    now_s: float,
    stale_s: float,
    at: Rows = ALL,
) -> Floats:
    """The most that devices can draw with no further command from us, W; shape (rows,).

    Args:
        fleet, ledger, seen: the devices, what was promised to them, what was read from them.
        now_s: our clock, s.
        stale_s: age at which a reading is unknown, s.
        at: which devices.
    """
    fenced, lease_w, seen_w = fleet.fenced[at], ledger.lease_w[at], seen.watts_w[at]
    live = now_s - seen.at_s[at] <= stale_s
    gate_w = np.where(now_s < ledger.held_until_s[at], ledger.held_w[at], fleet.safe_w[at])
    written_w = np.fmax(ledger.bound_w[at], np.where(ledger.point[at] >= 0, lease_w, np.nan))
    ceiling_w = np.where(fenced, gate_w, written_w)
    unknown = ~fenced & (seen.foreign[at] | (seen.failed[at] & ~live))
    ceiling_w = np.where(unknown, np.maximum(ceiling_w, fleet.nameplate_w[at]), ceiling_w)
    # A gate's device may be shared with inference, whose watts its sensor shows too: those are
    # counted with the compute node, and an excess of the whole is caught by the site meter.
    return np.fmax(ceiling_w, np.where(~fenced & live, seen_w, np.nan))


def granted(
    ledger: Ledger,
    columns: Ints,
    changed: Ints,
    point: Ints,
    watts_w: Floats,
    *,
    raised: Ints,
    gates: Ints,
    until_s: Floats,
    now_s: float,
) -> Ledger:
    """Write down grants: ceilings rise at once, and nothing falls yet.

    A lease that is as high as the one before, or lower, raises no bound: none ever lies below a
    lease that may live. Only what changes is copied, for a cut may move most devices.

    Args:
        ledger: before the grants.
        columns: devices that are granted, rising; shape (k,).
        changed: those of them that are granted something else than before.
        point, watts_w: what every device holds afterwards; shape (n,). They are kept.
        raised: those that may hold more afterwards, or whose gate had closed.
        gates: fenced devices: they alone fall when the last of their leases ends.
        until_s: end of the lease by our count, our clock; shape (n,).
        now_s: our clock, s.
    """
    due = _marked(len(ledger.point), columns)
    kept = ~(due if len(changed) == len(columns) else _marked(len(due), changed))
    held_w, bound_w, rows_w = ledger.held_w, ledger.bound_w, watts_w[raised]
    if len(raised):
        dead = now_s >= ledger.held_until_s[raised]
        most_w = np.maximum(held_w[raised], rows_w)
        held_w = put(held_w, raised, np.where(dead, rows_w, most_w))
        bound_w = put(bound_w, raised, np.maximum(bound_w[raised], rows_w))
    gates = gates[due[gates]]
    last_s = np.maximum(ledger.held_until_s[gates], until_s[gates])
    return replace(
        ledger,
        sequence=ledger.sequence + due,
        point=point,
        lease_w=watts_w,
        held_w=held_w,
        held_until_s=put(ledger.held_until_s, gates, last_s),
        until_s=_written(ledger.until_s, columns, until_s.take(columns)),
        bound_w=bound_w,
        acked=ledger.acked & kept,
        confirmed=ledger.confirmed & kept,
        changed_s=_written(ledger.changed_s, changed, now_s),
        issued_s=_written(ledger.issued_s, columns, now_s),
    )


def _written(column: Floats, at: Ints, values: Floats | float) -> Floats:
    """The column with `values` in the rows `at`. A choice row by row, by a mask, takes three times
    as long where the rows lie at random: the processor guesses wrong."""
    if not len(at):
        return column
    changed = column.copy()
    changed[at] = values
    return changed


def _marked(n: int, columns: Ints) -> Bools:
    marked = np.zeros(n, dtype=np.bool_)
    marked[columns] = True
    return marked


ANSWERED = ("acked", "acked_s", "held_w", "held_until_s")
CONFIRMED = ("confirmed", "bound_w")


def private(ledger: Ledger) -> Ledger:
    """A ledger whose columns that answers and readings change belong to the caller alone."""
    return _copy(ledger, *ANSWERED, *CONFIRMED)


def answered(
    ledger: Ledger,
    columns: Ints,
    sequence: Ints,
    accepted: Bools,
    now_s: float,
    *,
    ours: bool = False,
) -> Ledger:
    """An agent took or refused leases. A taken one replaces every older one it held.

    Only an answer to the newest sequence counts: an old answer says nothing of the newest lease,
    and none of a device whose grant was forgotten because it has other points now.

    Args:
        ledger: as before the answer.
        columns, sequence, accepted: the devices answered for, and how; shape (k,) each.
        now_s: our clock, s.
        ours: the ledger is `private` to the caller: it is changed itself, and not a copy of it.
    """
    new = ledger if ours else _copy(ledger, *ANSWERED)
    newest = (sequence == ledger.sequence[columns]) & (ledger.point[columns] >= 0)
    taken = columns[accepted & newest]
    first = taken[~ledger.acked[taken]]
    new.acked[taken] = True
    new.acked_s[first] = now_s
    new.held_w[taken] = ledger.lease_w[taken]
    new.held_until_s[taken] = ledger.until_s[taken]
    return new


def adopted(ledger: Ledger, columns: Ints, point: Ints, held_w: Floats, now_s: float) -> Ledger:
    """Learn what devices hold that this controller has never granted (it has just started).

    A lease of an earlier controller is taken over as if it were ours, so that a restart moves no
    machine. It bounds nothing yet: until the agent has taken a lease of this epoch, a raise by the
    earlier controller may still be under way, so every device counts at its nameplate (I6).

    Args:
        columns: devices that were read; shape (k,).
        point: operating point of the lease each holds, -1 if none or unknown; shape (k,).
        held_w: its watts, NaN if none; shape (k,).
        now_s: our clock, s.
    """
    strange = (ledger.point[columns] < 0) & (point >= 0)
    rows = columns[strange]
    new = _copy(ledger)
    new.point[rows] = point[strange]
    new.lease_w[rows] = held_w[strange]
    new.changed_s[rows] = now_s
    # A lease above the nameplate is believed: no bound ever lies below a lease that may live.
    new.bound_w[rows] = np.fmax(new.bound_w[rows], held_w[strange])
    new.held_w[rows] = np.fmax(new.held_w[rows], held_w[strange])
    return new


def forgotten(ledger: Ledger, fleet: Fleet, columns: Ints) -> Ledger:
    """Their agent has rebooted: whatever was granted is gone, and they count at nameplate.

    The sequence alone goes on, so that no two leases of an epoch ever share a number.
    """
    fresh = Ledger.empty(fleet)
    new = _copy(ledger)
    for name in Ledger.__slots__:
        if name != "sequence":
            getattr(new, name)[columns] = getattr(fresh, name)[columns]
    return new


def confirm(
    fleet: Fleet,
    ledger: Ledger,
    seen: Telemetry,
    now_s: float,
    stale_s: float,
    at: Rows = ALL,
    *,
    ours: bool = False,
) -> Ledger:
    """Let ceilings fall where devices were seen to obey their leases.

    Args:
        fleet, ledger, seen: the devices, what was promised to them, what was read from them.
        now_s: our clock, s.
        stale_s: age at which a reading is unknown, s.
        at: devices to look at: those that were read or answered for.
        ours: as for `answered`.
    """
    point, lease_w, acked = ledger.point[at], ledger.lease_w[at], ledger.acked[at]
    at_s, watts_w, bound_w = seen.at_s[at], seen.watts_w[at], ledger.bound_w[at]
    tolerance, limit_w = fleet.tolerance[at], seen.limit_w[at]
    granted_point, fresh = point >= 0, now_s - at_s <= stale_s
    after = granted_point & acked & (at_s > ledger.acked_s[at]) & fresh
    flat = fleet.first[:-1][at] + np.maximum(point, 0)
    by_watts = watts_w <= lease_w
    settled = now_s >= ledger.changed_s[at] + fleet.point_transition_s[flat]
    slow = seen.hashrate_h_per_s[at] <= fleet.point_h_per_s[flat] * (1.0 + tolerance)
    by_hashes = np.isnan(watts_w) & settled & slow
    limited = np.isnan(limit_w) | (limit_w <= lease_w * (1.0 + tolerance))
    obeyed = after & ~seen.foreign[at] & ~seen.failed[at] & limited & (by_watts | by_hashes)
    obeyed |= fleet.fenced[at] & granted_point & acked
    # Watts above the bound disprove it, and stay believed when the readings stop (I3).
    seen_w = np.fmax(bound_w, np.where(fresh, watts_w, np.nan))
    new = ledger if ours else _copy(ledger, *CONFIRMED)
    new.confirmed[at] = obeyed | ledger.confirmed[at] & ~(after & ~(by_watts | by_hashes))
    new.bound_w[at] = np.where(obeyed, lease_w, seen_w)
    return new


def overdue(fleet: Fleet, ledger: Ledger, now_s: float, factor: float, at: Rows = ALL) -> Bools:
    """Devices that should have settled on their last grant by now and were not seen to."""
    open_ = (ledger.point[at] >= 0) & ~ledger.confirmed[at]
    late: Bools = open_ & (now_s > overdue_s(fleet, ledger, factor, at))
    return late


def overdue_s(fleet: Fleet, ledger: Ledger, factor: float, at: Rows = ALL) -> Floats:
    """When devices should have settled on their last grant, our clock; -inf without one."""
    flat = fleet.first[:-1][at] + np.maximum(ledger.point[at], 0)
    due_s: Floats = ledger.changed_s[at] + fleet.point_transition_s[flat] * factor + 2.0
    return due_s


def settled_s(fleet: Fleet, ledger: Ledger, now_s: float, factor: float) -> float:
    """Since when no device is on its way to another point, our clock.

    Infinite while one that may still obey in time was not seen to; -inf where none was ever asked.
    """
    held = ledger.point >= 0
    if (held & ~ledger.confirmed & ~overdue(fleet, ledger, now_s, factor)).any():
        return float("inf")
    flat = fleet.first[:-1] + np.maximum(ledger.point, 0)
    due_s = np.where(held, ledger.changed_s + fleet.point_transition_s[flat] * factor, -np.inf)
    return float(due_s.max(initial=-np.inf))


def realigned(ledger: Ledger, old: Fleet, new: Fleet, moved: Moved | None = None) -> Ledger:
    """The ledger of a changed fleet: kept devices keep their row, new ones count at nameplate.

    A device that comes back with other points keeps its bounds but forgets its grant, because the
    point numbers no longer mean the same. `moved`: where devices stood, if that is known.
    """
    fresh, moved = Ledger.empty(new), moved or Moved.of(old, new)
    for name in Ledger.__slots__:
        moved.realigned(getattr(fresh, name), getattr(ledger, name))
    fresh.point[moved.other] = -1
    fresh.lease_w[moved.other] = np.nan
    fresh.confirmed[moved.other] = False
    return fresh


def realigned_telemetry(
    seen: Telemetry, old: Fleet, new: Fleet, moved: Moved | None = None
) -> Telemetry:
    """The telemetry of a changed fleet: new devices are unknown."""
    fresh, moved = Telemetry.unknown(len(new)), moved or Moved.of(old, new)
    for name in Telemetry.__slots__:
        moved.realigned(getattr(fresh, name), getattr(seen, name))
    return fresh


def private_telemetry(seen: Telemetry) -> Telemetry:
    """The same readings in columns that belong to the caller alone."""
    return Telemetry(**{name: getattr(seen, name).copy() for name in Telemetry.__slots__})


def _copy(ledger: Ledger, *names: str) -> Ledger:
    """The ledger with copies of some columns, without names of all: nobody else sees a change."""
    copied = names or Ledger.__slots__
    return replace(ledger, **{name: getattr(ledger, name).copy() for name in copied})
