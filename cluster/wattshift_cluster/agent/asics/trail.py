"""Which machine an entry of agent.toml means, where it is now, and who else claims to be it."""

from collections.abc import Sequence

import structlog

from wattshift_cluster.agent.asics.whereabouts import Lost, Whereabouts
from wattshift_cluster.asic.driver import AsicIdentity, AsicRefused, AsicUnreachable
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.inventory import mac_of
from wattshift_cluster.fleet.kept import Moved

log = structlog.get_logger()


class AnotherMachine(AsicRefused):
    """The machine at this address is not the one that is meant.

    Attributes:
        mac: of the one that is there; None where it does not tell.
    """

    def __init__(self, address: str, meant: str, mac: str | None, model: str) -> None:
        who = mac or "one that tells no hardware address"
        self._say(
            address,
            f"another machine at this address: {who} ({model}) instead of {meant}; it is counted "
            "at its ceiling and not commanded",
        )
        self.mac = mac

    def _say(self, address: str, reason: str) -> None:
        super().__init__(address, "identify", reason)


class TwoClaim(AnotherMachine):
    """The machine that is meant answers at two addresses: which of them is ours is not known."""

    def __init__(self, address: str, meant: str, others: Sequence[str]) -> None:
        where = " and ".join((address, *others))
        self._say(address, f"two addresses claim to be {meant}: {where}; neither is commanded")
        self.mac = None


class Trail:
    """One machine's.

    Attributes:
        meant_mac: the hardware address that is meant; None until the first one is seen.
        address: where it is asked.
        lost_s: since when it is silent or another answers, boot clock, s; None while it answers.
    """

    def __init__(
        self,
        asic: Asic,
        meant_mac: str | None,
        whereabouts: Whereabouts | None,
        moved: Moved | None,
    ) -> None:
        """See `Contact`. Where agent.toml has changed since it moved, agent.toml is right."""
        self.meant_mac = asic.mac or meant_mac
        self.address = asic.address
        if moved is not None and moved.home == asic.address and self.meant_mac is not None:
            self.address = moved.address
        self.lost_s: float | None = None
        self._asic = asic
        self._whereabouts = whereabouts

    @property
    def moved(self) -> Moved | None:
        """Where it was followed to; None while it is where agent.toml has it."""
        home = self._asic.address
        return None if self.address == home else Moved(home, self.address)

    @property
    def remark(self) -> str | None:
        """Where it was followed to, in words; None while it is where agent.toml has it."""
        home = self._asic.address
        return None if self.address == home else f"moved from {home} to {self.address}"

    @property
    def there(self) -> Asic:
        """Its section with the address where it is now, and who is meant."""
        return self._asic.model_copy(update={"address": self.address, "mac": self.meant_mac})

    @property
    def rivals(self) -> Sequence[str]:
        """Other addresses that claim to be it."""
        mac = mac_of(self.meant_mac)
        if self._whereabouts is None or mac is None:
            return ()
        return self._whereabouts.claims.rivals(mac, self.address, boot_s())

    def lose(self) -> None:
        """It does not answer here any more."""
        if self.lost_s is None:
            self.lost_s = boot_s()
        if self._whereabouts is not None:
            self._whereabouts.claims.withdraw(self._asic.id)

    def met(self, stranger: AnotherMachine) -> None:
        """Another one answers here."""
        if isinstance(stranger, TwoClaim):
            return
        self.lose()
        seen = mac_of(stranger.mac)
        if self._whereabouts is not None and seen is not None:
            self._whereabouts.claims.heard(seen, self.address, boot_s())

    async def recognise(self, found: AsicIdentity) -> None:
        """It has said who it is. Raises: AnotherMachine; TwoClaim where another says the same."""
        if self.meant_mac is not None and found.mac != self.meant_mac:
            raise AnotherMachine(self.address, self.meant_mac, found.mac, found.model)
        self.meant_mac = found.mac
        mac = mac_of(self.meant_mac)
        if self._whereabouts is None or mac is None:
            return
        self._whereabouts.claims.claim(self._asic.id, mac, self.address)
        await self._whereabouts.doubles(mac, self.address)
        if others := self.rivals:
            raise TwoClaim(self.address, mac, others)

    async def weigh(self) -> None:
        """Ask all that claim to be this machine again, none of them with a login.

        Raises:
            TwoClaim: they still do.
            AnotherMachine, AsicUnreachable: it is not the one at this address.
        """
        assert self._whereabouts is not None
        assert self.meant_mac is not None
        told = await self._whereabouts.told(self.address)
        mac = mac_of(self.meant_mac)
        if not told.machine or mac is None:
            raise AsicUnreachable(self.address, "identify", "silent, and another claims to be it")
        if told.mac not in (None, mac):
            raise AnotherMachine(self.address, self.meant_mac, told.mac, "unknown model")
        await self._whereabouts.ask_again(mac)
        if others := self.rivals:
            raise TwoClaim(self.address, mac, others)

    async def follow(self) -> bool:
        """Look for it elsewhere; whether it is to be asked at another address from now on."""
        mac = mac_of(self.meant_mac)
        if self._whereabouts is None or mac is None or self.lost_s is None:
            return False
        home, before = self._asic.address, self.address
        lost = Lost(self._asic.id, mac, before, home, self.lost_s)
        found = await self._whereabouts.seek(lost)
        if found is None:
            return False
        log.warning("asic.moved", device=self._asic.id, mac=mac, before=before, now=found)
        self.address, self.lost_s = found, boot_s()
        return True

    async def close(self) -> None:
        """Look for it no more."""
        if self._whereabouts is not None:
            await self._whereabouts.close()
