"""Where a machine is that does not answer at its address: found again by its hardware address.

It is looked for where that costs least: at addresses where another of our machines was found
instead of its own, in the inventory file, in the kernel's neighbour table, and, where the owner
named ranges, by a sweep of those now and then. Nobody is believed before the machine itself has
told its hardware address, without a login; a firmware that tells none before one is believed by
the neighbour table, read after it has answered. Where two addresses claim one hardware address
neither is commanded: one of the two is an impostor, or one answer is old.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

import structlog

from wattshift_cluster.agent.asics.claims import Claims
from wattshift_cluster.agent.asics.neighbours import NEIGHBOURS, Neighbours
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.errors import TryLater
from wattshift_cluster.fleet import inventory_file
from wattshift_cluster.fleet.inventory import mac_of
from wattshift_cluster.fleet.inventory_file import InventoryDamaged
from wattshift_cluster.fleet.ranges import allowed
from wattshift_cluster.fleet.scan import Limits, Scan, Sighting, look

log = structlog.get_logger()

MOST_ASKED = 8
"""Addresses questioned at once: each costs up to a look's deadlines in a lane of the sweep."""

MOST_CANDIDATES = 4
SWEEP = Limits(concurrency=64, knock_s=1.0, deadline_s=2.0, sweep_s=1200.0)
"""A sweep for a lost machine is in no hurry; a /16 without an answer takes 17 minutes."""

Ask = Callable[[str, float], Awaitable[Sighting]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How soon and how often a lost machine is looked for, s.

    Attributes:
        lost_s: silent, or replaced by another, for so long.
        again_s: between two searches for one machine.
        scan_after_s: lost for so long before the ranges are swept.
        scan_s: pauses after a sweep, the later ones while none has helped; the last one goes on.
        heard_s: how long what was heard of an address counts.
        deadline_s: for each question.
    """

    lost_s: float = 15.0
    again_s: float = 30.0
    scan_after_s: float = 60.0
    scan_s: tuple[float, ...] = (600.0, 1200.0, 3600.0)
    heard_s: float = 600.0
    deadline_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Lost:
    """One machine that is looked for.

    Attributes:
        device: its id.
        mac: its hardware address.
        here: where it does not answer any more.
        home: its address in agent.toml.
        since_s: boot clock, s.
    """

    device: str
    mac: str
    here: str
    home: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """What an address answers.

    Attributes:
        machine: whether a machine answers that we know by name.
        mac: its hardware address; None where that cannot be told without a login.
    """

    machine: bool
    mac: str | None


class Whereabouts:
    """What an agent's machines share to find each other. Everything in it is bounded.

    Args:
        networks: that may be swept; none: nothing is swept.
        inventory: file of `fleet scan --inventory`; None: there is none.
        neighbours: the kernel's table.
        patience: see there.
        ask: looks at one address without a password.

    Attributes:
        claims: who claims which hardware address.
    """

    def __init__(
        self,
        networks: Sequence[IPv4Network] = (),
        inventory: Path | None = None,
        neighbours: Path = NEIGHBOURS,
        patience: Patience | None = None,
        ask: Ask = look,
    ) -> None:
        self.patience = patience or Patience()
        self.claims = Claims(self.patience.heard_s)
        self._networks = tuple(networks)
        self._inventory = inventory
        self._neighbours = Neighbours(neighbours)
        self._ask = ask
        self._asking = asyncio.Semaphore(MOST_ASKED)
        self._seeking = 0
        self._next_s: dict[str, float] = {}
        self._listed: tuple[int, dict[str, str]] = (0, {})
        self._complaint: str | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._sweep_due_s = 0.0
        self._in_vain = 0

    async def told(self, address: str) -> Told:
        """Ask who is at an address, without a login."""
        said = await self._said(address)
        if said.machine and said.mac is None:
            return replace(said, mac=self._neighbours.of(address))
        return said

    async def ask_again(self, mac: str) -> None:
        """Ask those who claim it and are none of ours once more."""
        for address in self.claims.at(mac, boot_s()):
            if (await self.told(address)).mac == mac:
                self.claims.heard(mac, address, boot_s())
            else:
                self.claims.unheard(mac, address)

    async def doubles(self, mac: str, address: str) -> None:
        """See whether the neighbour table knows it elsewhere, too, and whether that is so."""
        for elsewhere in self._neighbours.at(mac)[:MOST_CANDIDATES]:
            # The table forgets slowly: only the machine's own word counts here.
            if elsewhere != address and (await self._said(elsewhere)).mac == mac:
                self.claims.heard(mac, elsewhere, boot_s())

    async def seek(self, lost: Lost) -> str | None:
        """The one address at which the machine proved to be; None while there is none, or two."""
        now_s, since_s = boot_s(), lost.since_s
        if now_s < since_s + self.patience.lost_s or now_s < self._next_s.get(lost.device, 0.0):
            return None
        if self._seeking >= MOST_ASKED:
            return None
        self._next_s[lost.device] = now_s + self.patience.again_s
        self._seeking += 1
        try:
            found = await self._search(lost)
        finally:
            self._seeking -= 1
        if found is None and now_s >= since_s + self.patience.scan_after_s:
            self._sweep(now_s)
        return found

    async def close(self) -> None:
        """End a sweep under way."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def _search(self, lost: Lost) -> str | None:
        owner = self.claims.owner(lost.mac)
        if owner not in (None, lost.device):
            self._complain(f"{lost.mac} is meant by two entries: {owner} and {lost.device}")
            return None
        candidates = await self._candidates(lost)
        found = [one for one in candidates if (await self.told(one)).mac == lost.mac]
        if len(found) > 1:
            for address in found:
                self.claims.heard(lost.mac, address, boot_s())
            log.error("asic.two_claim", device=lost.device, mac=lost.mac, addresses=found)
        if len(found) != 1:
            return None
        self.claims.unheard(lost.mac, found[0])
        self._in_vain = 0
        return found[0]

    async def _candidates(self, lost: Lost) -> list[str]:
        """Where to ask, the cheapest and likeliest first."""
        listed = (await self._inventoried()).get(lost.mac)
        known = (
            *self.claims.at(lost.mac, boot_s()),
            *([listed] if listed else ()),
            *self._neighbours.at(lost.mac),
            lost.home,
        )
        may = (one for one in dict.fromkeys(known) if _may_be(one, lost.home))
        return [one for one in may if one != lost.here][:MOST_CANDIDATES]

    async def _said(self, address: str) -> Told:
        async with self._asking:
            sighting = await self._ask(address, self.patience.deadline_s)
        return Told(sighting.kind is not None, mac_of(sighting.mac))

    async def _inventoried(self) -> dict[str, str]:
        """Addresses by hardware address of the inventory file, read again once it has changed."""
        if self._inventory is None:
            return {}
        try:
            changed_ns = self._inventory.stat().st_mtime_ns
            if changed_ns != self._listed[0]:
                known = await asyncio.to_thread(inventory_file.load, self._inventory)
                rows = sorted(known.machines.values(), key=lambda one: one.last_seen_s)
                self._listed = changed_ns, {one.mac: one.address for one in rows if one.mac}
        except (OSError, InventoryDamaged) as fault:
            self._complain(str(fault))
        return self._listed[1]

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            log.error("asic.whereabouts", reason=reason)
        self._complaint = reason

    def _sweep(self, now_s: float) -> None:
        """Begin a sweep of the ranges, if there are any and its time has come."""
        if self._networks and self._sweeping is None and now_s >= self._sweep_due_s:
            self._sweeping = asyncio.create_task(self._swept())

    async def _swept(self) -> None:
        answered, limits = 0, replace(SWEEP, deadline_s=self.patience.deadline_s)
        pause_s = self.patience.scan_s[min(self._in_vain, len(self.patience.scan_s) - 1)]
        self._in_vain += 1
        try:
            async for sighting in Scan(self._networks, limits).sightings():
                answered += 1
                if (mac := mac_of(sighting.mac)) is not None:
                    self.claims.heard(mac, sighting.address, boot_s())
        except TryLater as fault:
            self._complain(str(fault))
        finally:
            self._sweep_due_s = boot_s() + pause_s
            self._sweeping = None
        log.info("asic.swept", answered=answered)


def _may_be(address: str, home: str) -> bool:
    """Whether a machine whose owner wrote `home` may be looked for at an address.

    Only private ones; and an emulated machine on loopback never leads to a real one.
    """
    return allowed(address) and _loopback(address) is _loopback(home)


def _loopback(address: str) -> bool:
    try:
        return IPv4Address(address).is_loopback
    except AddressValueError:
        return False
