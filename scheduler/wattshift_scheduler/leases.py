"""The lease ledger: what was promised to every device, and so the most that it can draw (I1, I3).

A device's *ceiling* is the most it can draw with no further command from us. It rises the moment a
higher lease is granted and falls only on confirmation: a gate's by its agent's reply, anything
else's by measured watts (without a sensor: by hashrate, after its settling time), never by a
device's word. An unknown device counts at nameplate plus tolerance.
"""

from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fleet import Fleet

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
        held_until_s: when the last of those leases is dead by our count.
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


def ceilings(fleet: Fleet, ledger: Ledger, seen: Telemetry, now_s: float, stale_s: float) -> Floats:
    """The most that every device can draw with no further command from us, W; shape (n,).

    Args:
        fleet, ledger, seen: the devices, what was promised to them, what was read from them.
        now_s: our clock, s.
        stale_s: age at which a reading is unknown, s.
    """
    gate_w = np.where(now_s < ledger.held_until_s, ledger.held_w, fleet.safe_w)
    written_w = np.fmax(ledger.bound_w, np.where(ledger.point >= 0, ledger.lease_w, np.nan))
    ceiling_w = np.where(fleet.fenced, gate_w, written_w)
    unknown = ~fleet.fenced & (seen.foreign | (seen.failed & (now_s - seen.at_s > stale_s)))
    ceiling_w = np.where(unknown, np.maximum(ceiling_w, fleet.nameplate_w), ceiling_w)
    # A gate's device may be shared with inference, whose watts its sensor shows too: those are
    # counted with the compute node, and an excess of the whole is caught by the site meter.
    fresh = ~fleet.fenced & (now_s - seen.at_s <= stale_s)
    return np.fmax(ceiling_w, np.where(fresh, seen.watts_w, np.nan))


def granted(
    ledger: Ledger,
    columns: Ints,
    point: Ints,
    watts_w: Floats,
    *,
    until_s: Floats,
    now_s: float,
) -> Ledger:
    """Write down grants: ceilings rise at once, and nothing falls yet.

    Args:
        columns: devices that are granted; shape (k,).
        point, watts_w: what they are granted; shape (k,).
        until_s: end of the lease by our count, our clock; shape (k,).
        now_s: our clock, s.
    """
    new = _copy(ledger)
    changed = (ledger.point[columns] != point) | (ledger.lease_w[columns] != watts_w)
    moved = columns[changed]
    new.sequence[columns] += 1
    new.changed_s[moved] = now_s
    new.acked[moved] = False
    new.confirmed[moved] = False
    new.point[columns] = point
    new.lease_w[columns] = watts_w
    new.held_w[columns] = np.maximum(ledger.held_w[columns], watts_w)
    dead = now_s >= ledger.held_until_s[columns]
    new.held_w[columns[dead]] = watts_w[dead]
    new.held_until_s[columns] = np.maximum(
        np.where(dead, until_s, ledger.held_until_s[columns]), until_s
    )
    new.until_s[columns] = until_s
    new.bound_w[columns] = np.maximum(ledger.bound_w[columns], watts_w)
    new.issued_s[columns] = now_s
    return new


def answered(
    ledger: Ledger, columns: Ints, sequence: Ints, accepted: Bools, now_s: float
) -> Ledger:
    """An agent took or refused leases. A taken one replaces every older one it held.

    Only an answer to the newest sequence counts: an old answer says nothing of the newest lease.
    """
    new = _copy(ledger)
    taken = columns[accepted & (sequence == ledger.sequence[columns])]
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


def confirm(fleet: Fleet, ledger: Ledger, seen: Telemetry, now_s: float, stale_s: float) -> Ledger:
    """Let ceilings fall where devices were seen to obey their leases."""
    granted_point = ledger.point >= 0
    after = granted_point & ledger.acked & (seen.at_s > ledger.acked_s)
    after &= now_s - seen.at_s <= stale_s
    flat = fleet.first[:-1] + np.maximum(ledger.point, 0)
    by_watts = seen.watts_w <= ledger.lease_w
    settled = now_s >= ledger.changed_s + fleet.point_transition_s[flat]
    slow = seen.hashrate_h_per_s <= fleet.point_h_per_s[flat] * (1.0 + fleet.tolerance)
    by_hashes = np.isnan(seen.watts_w) & settled & slow
    limited = np.isnan(seen.limit_w) | (seen.limit_w <= ledger.lease_w * (1.0 + fleet.tolerance))
    obeyed = after & ~seen.foreign & ~seen.failed & limited & (by_watts | by_hashes)
    obeyed |= fleet.fenced & granted_point & ledger.acked
    # Watts above the bound disprove it, and stay believed when the readings stop (I3).
    fresh = now_s - seen.at_s <= stale_s
    seen_w = np.fmax(ledger.bound_w, np.where(fresh, seen.watts_w, np.nan))
    return replace(
        ledger,
        confirmed=np.where(obeyed, True, ledger.confirmed & ~(after & ~(by_watts | by_hashes))),
        bound_w=np.where(obeyed, ledger.lease_w, seen_w),
    )


def overdue(fleet: Fleet, ledger: Ledger, now_s: float, factor: float) -> Bools:
    """Devices that should have settled on their last grant by now and were not seen to."""
    flat = fleet.first[:-1] + np.maximum(ledger.point, 0)
    due_s = ledger.changed_s + fleet.point_transition_s[flat] * factor + 2.0
    return (ledger.point >= 0) & ~ledger.confirmed & (now_s > due_s)


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


def realigned(ledger: Ledger, old: Fleet, new: Fleet) -> Ledger:
    """The ledger of a changed fleet: kept devices keep their row, new ones count at nameplate.

    A device that comes back with other points keeps its bounds but forgets its grant, because the
    point numbers no longer mean the same.
    """
    fresh = Ledger.empty(new)
    kept = [(new.index[d.id], i) for i, d in enumerate(old.devices) if d.id in new.index]
    if not kept:
        return fresh
    to, source = (np.array(side, dtype=np.int64) for side in zip(*kept, strict=True))
    for name in Ledger.__slots__:
        getattr(fresh, name)[to] = getattr(ledger, name)[source]
    changed = [a for a, b in kept if new.devices[a].points != old.devices[b].points]
    fresh.point[changed] = -1
    fresh.lease_w[changed] = np.nan
    fresh.confirmed[changed] = False
    return fresh


def realigned_telemetry(seen: Telemetry, old: Fleet, new: Fleet) -> Telemetry:
    """The telemetry of a changed fleet: new devices are unknown."""
    fresh = Telemetry.unknown(len(new))
    for i, device in enumerate(old.devices):
        to = new.index.get(device.id)
        if to is not None:
            for name in Telemetry.__slots__:
                getattr(fresh, name)[to] = getattr(seen, name)[i]
    return fresh


def _copy(ledger: Ledger) -> Ledger:
    return Ledger(**{name: getattr(ledger, name).copy() for name in Ledger.__slots__})
