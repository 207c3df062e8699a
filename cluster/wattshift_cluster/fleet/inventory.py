"""Which machines there are: known by what stays the same when their address does not.

A machine is its MAC address, else its serial number, else the address where it was seen. So a new
DHCP lease is no new machine, and a different machine at a known address is never taken for the old
one. Where two claim one MAC at once, both are named and neither is believed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.fleet.scan import Sighting

MOST_MACHINES = 20_000
"""Twice the largest site that this is built for."""

TEXT_LIMIT = 200

Event = Literal["new", "moved", "changed", "identified", "missing", "twice", "unproven"]


class InventoryFull(WattshiftError):
    """There are more machines than an inventory holds; nothing of the sweep was taken in."""


@dataclass(frozen=True, slots=True)
class Known:
    """One machine.

    Attributes:
        identity: "mac:…", "serial:…" or "address:…".
        address: where it was last seen.
        kind, model, firmware: as last told; None where never told.
        mac, serial: None where never told.
        first_seen_s, last_seen_s: UTC, seconds since 1970.
    """

    identity: str
    address: str
    kind: str
    model: str | None
    firmware: str | None
    mac: str | None
    serial: str | None
    first_seen_s: float
    last_seen_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """What a sweep showed about one machine.

    Attributes:
        event: "new"; "moved" to another address; "changed" firmware; "identified", when one known
            by its address alone tells who it is; "missing"; "twice", when its MAC was seen at two
            addresses; "unproven", when what answers at its address does not tell who it is.
        identity: the machine's.
        address: where it answers, or last did.
        before: its former address, firmware or identity; for a new machine the identity of the one
            that had its address; for "twice" the other addresses. None where there is none.
    """

    event: Event
    identity: str
    address: str
    before: str | None = None


def mac_of(text: str | None) -> str | None:
    """A hardware address in one spelling; None for what cannot be one machine's."""
    digits = re.sub(r"[:.\\-]", "", text or "").upper()
    if not re.fullmatch(r"[0-9A-F]{12}", digits) or digits == "0" * 12 or int(digits[:2], 16) & 1:
        return None
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


class Inventory:
    """The machines that were seen so far.

    Args:
        machines: by identity, e.g. of `inventory_file.load`.
    """

    def __init__(self, machines: Iterable[Known] = ()) -> None:
        self._machines = {machine.identity: machine for machine in machines}

    @property
    def machines(self) -> Mapping[str, Known]:
        """By identity."""
        return dict(self._machines)

    def merge(
        self,
        sightings: Iterable[Sighting],
        now_s: float,
        *,
        covered: Callable[[str], bool] = lambda address: True,
    ) -> list[Change]:
        """Take in what a sweep saw.

        Args:
            sightings: what answered. What is no machine that we know by name is not taken in.
            now_s: UTC, seconds since 1970.
            covered: whether an address was looked at. A machine elsewhere is not missing.

        Raises:
            InventoryFull: nothing was taken in.
        """
        seen = list(sightings)
        by_identity: dict[str, list[Sighting]] = defaultdict(list)
        for sighting in seen:
            if sighting.kind is not None:
                by_identity[_identity(sighting)].append(sighting)
        new = sum(identity not in self._machines for identity in by_identity)
        if len(self._machines) + new > MOST_MACHINES:
            raise InventoryFull(f"more than {MOST_MACHINES} machines; take out what is long gone")
        by_age = sorted(self._machines.values(), key=lambda machine: machine.last_seen_s)
        at_address = {machine.address: machine for machine in by_age}
        changes: list[Change] = []
        present: set[str] = set()
        for identity, found in by_identity.items():
            present.add(identity)
            if len(found) > 1:
                changes += _twice(identity, found)
                continue
            there = at_address.get(found[0].address)
            elsewhere = there is not None and there.identity in by_identity
            changes += self._taken(identity, found[0], there, now_s, elsewhere=elsewhere)
        changes += self._absent(present, seen, covered)
        return changes

    def _taken(
        self,
        identity: str,
        sighting: Sighting,
        there: Known | None,
        now_s: float,
        *,
        elsewhere: bool,
    ) -> list[Change]:
        """Take in one machine; `there` had its address, and may be known to be `elsewhere`."""
        known = self._machines.get(identity)
        nameless = identity.startswith("address:")
        if known is not None and not (nameless and _differs(known, sighting)):
            return self._seen_again(known, sighting, now_s)
        row = _known(identity, sighting, now_s)
        if there is not None and not elsewhere and not _differs(there, sighting):
            if nameless:
                # It may be the old one gone silent about itself, or another: neither is believed.
                return [Change("unproven", there.identity, sighting.address)]
            if there.identity.startswith("address:"):
                del self._machines[there.identity]
                self._machines[identity] = replace(row, first_seen_s=there.first_seen_s)
                return [Change("identified", identity, sighting.address, there.identity)]
        self._machines[identity] = row
        return [Change("new", identity, sighting.address, there.identity if there else None)]

    def _seen_again(self, known: Known, sighting: Sighting, now_s: float) -> list[Change]:
        changes = []
        if known.address != sighting.address:
            changes.append(Change("moved", known.identity, sighting.address, known.address))
        row = _known(known.identity, sighting, now_s)
        firmware = row.firmware or known.firmware
        if known.firmware is not None and firmware != known.firmware:
            changes.append(Change("changed", known.identity, sighting.address, known.firmware))
        self._machines[known.identity] = replace(
            row,
            model=row.model or known.model,
            firmware=firmware,
            mac=row.mac or known.mac,
            serial=row.serial or known.serial,
            first_seen_s=known.first_seen_s,
        )
        return changes

    def _absent(
        self, present: set[str], seen: list[Sighting], covered: Callable[[str], bool]
    ) -> list[Change]:
        """Machines that were looked for in vain; one whose address is in doubt is not missing."""
        unproven = {one.address for one in seen if _identity(one).startswith("address:")}
        return [
            Change("missing", machine.identity, machine.address)
            for machine in self._machines.values()
            if machine.identity not in present
            and covered(machine.address)
            and machine.address not in unproven
        ]


def _clipped(text: str | None) -> str | None:
    """A name as a machine gave it, short enough for the file; None for an empty one."""
    return (text or "").strip()[:TEXT_LIMIT] or None


def _identity(sighting: Sighting) -> str:
    if mac := mac_of(sighting.mac):
        return f"mac:{mac}"
    if serial := _clipped(sighting.serial):
        return f"serial:{serial}"
    return f"address:{sighting.address}"


def _differs(known: Known, sighting: Sighting) -> bool:
    """Whether what answers at a known machine's address cannot be that machine."""
    if known.model is None or sighting.model is None:
        return known.kind != sighting.kind
    return (known.kind, known.model) != (sighting.kind, sighting.model)


def _known(identity: str, sighting: Sighting, now_s: float) -> Known:
    assert sighting.kind is not None
    return Known(
        identity=identity,
        address=sighting.address,
        kind=sighting.kind,
        model=_clipped(sighting.model),
        # What the probe alone tells is worded differently, and would look like a change later.
        firmware=_clipped(sighting.firmware) if sighting.identified else None,
        mac=mac_of(sighting.mac),
        serial=_clipped(sighting.serial),
        first_seen_s=now_s,
        last_seen_s=now_s,
    )


def _twice(identity: str, found: list[Sighting]) -> list[Change]:
    where = sorted(one.address for one in found)
    return [
        Change("twice", identity, address, ", ".join(one for one in where if one != address))
        for address in where
    ]


def tally(changes: Iterable[Change]) -> Mapping[Event, int]:
    """How many changes of each sort there are."""
    return Counter(change.event for change in changes)
