"""Who answers at an ASIC's address, and what it says: cheap polls, full reads, a login held ready.

The machine is known by its hardware address, not by the network's. Whenever it was silent for a
while, and now and then in any case, it is asked again who it is: after a change of addresses
another machine may answer there, and that one is never commanded. Ours is looked for then, and
followed to where it proves to be (`whereabouts`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from wattshift_cluster.agent.asics.rhythm import Rhythm
from wattshift_cluster.agent.asics.trail import AnotherMachine, Trail
from wattshift_cluster.agent.asics.whereabouts import Whereabouts
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
    Choosing,
    Credentials,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.kept import Moved

EMULATOR_PASSWORDS = {
    "antminer": "root",
    "braiins": "root",
    "vnish": "admin",
    "whatsminer": "super",
    "whatsminer_v2": "admin",
}
"""What emulated machines are made with, by firmware."""

MOST_PASSWORD_BYTES = 256

Connect = Callable[[Asic], Awaitable[AsicDriver]]
FAULTS = (AsicUnreachable, AsicRefused, TimeoutError)
"""What a machine may do to us."""


async def connect_by_probe(asic: Asic) -> AsicDriver:
    """Find out what answers at the address, and who it is before a password is used there.

    Args:
        asic: with the address to ask, and the hardware address that is meant; None: any.

    Raises:
        AsicUnreachable, AsicRefused: as the driver's.
        AnotherMachine: it told another hardware address. No login was tried.
    """
    from wattshift_cluster.asic.connect import DEADLINE_S, driver_for
    from wattshift_cluster.asic.probe import probe

    found = await probe(asic.address, deadline_s=DEADLINE_S)
    password = _password(asic, found.kind)
    if password is not None and asic.mac is not None:
        bare = await driver_for(asic.address, found, nameplate_w=asic.nameplate_w)
        await _prove(bare, asic, asic.mac)
    return await driver_for(
        asic.address,
        found,
        credentials=None if password is None else Credentials(password, asic.username),
        nameplate_w=asic.nameplate_w,
    )


async def _prove(bare: AsicDriver, asic: Asic, meant: str) -> None:
    """See that a machine does not tell another hardware address. Raises: AnotherMachine."""
    try:
        found = await bare.identify()
    except AsicRefused:
        return  # it tells nothing without a login
    finally:
        await bare.close()
    if found.mac is not None and found.mac != meant:
        raise AnotherMachine(asic.address, meant, found.mac, found.model)


def _password(asic: Asic, kind: str) -> str | None:
    """The owner's password; the emulator's own on loopback; otherwise none is ever tried."""
    if asic.password_file is None:
        emulator = asic.emulated and asic.address.startswith("127.")
        return EMULATOR_PASSWORDS.get(kind) if emulator else None
    try:
        with Path(asic.password_file).open("rb") as file:
            return file.read(MOST_PASSWORD_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise AsicRefused(asic.address, "log in", f"{asic.password_file}: {fault}") from fault


class Contact:
    """One machine as it is seen.

    Attributes:
        identity: who it is, once that is known and is who is meant.
        trail: who is meant, and where it is.
        seen: the last sample; None before the first.
        error: why the last look failed; None when it did not.
        misses: looks that failed in a row.
        unready: why the next command may be slow or fail; None when all is prepared.
        highest_w: the highest nameplate of all that ever answered there, W.
        choice: how its owner ran it before we put it to sleep; see `Choosing`.
    """

    def __init__(
        self,
        asic: Asic,
        meant_mac: str | None,
        connect: Connect,
        rhythm: Rhythm,
        whereabouts: Whereabouts | None = None,
        moved: Moved | None = None,
        choice: str | None = None,
    ) -> None:
        """Prepare; nothing is sent before the first look.

        Args:
            asic: its section of agent.toml.
            meant_mac: the hardware address that was seen there first, from an earlier life.
            connect: finds the driver.
            rhythm: see there.
            whereabouts: finds it where it has moved; None: it is not looked for.
            moved, choice: where it had been followed to, and how its owner ran it, from an earlier
                life.
        """
        self.driver: AsicDriver | None = None
        self.identity: AsicIdentity | None = None
        self.trail = Trail(asic, meant_mac, whereabouts, moved)
        self.seen: AsicReading | None = None
        self.error: str | None = "not identified yet"
        self.misses = 0
        self.unready: str | None = None
        self.highest_w: float | None = None
        self._asic = asic
        self._connect = connect
        self.choice = choice
        self._rhythm = rhythm
        self._full: AsicReading | None = None
        self._full_due_s = 0.0
        self._surprised_s = 0.0
        self._prepare_due_s = 0.0
        self._identify_due_s = 0.0

    async def look(self, *, may_command: bool, may_follow: bool = True) -> AsicReading:
        """Identify it if that is due, and take a sample.

        Args:
            may_command: whether a command may follow, for which all is held ready.
            may_follow: whether to look for it elsewhere while it is lost.

        Raises:
            AsicUnreachable, AsicRefused, TimeoutError: it failed; `error` and `misses` say so.
            AnotherMachine: somebody else answers there.
        """
        try:
            doubted = bool(self.trail.rivals)
            if doubted:
                await self.trail.weigh()
            if doubted or self.identity is None or boot_s() >= self._identify_due_s:
                await self._identify()
            self.seen = await self._sample()
        except AnotherMachine as stranger:
            await self._part(stranger)
            if may_follow:
                await self._follow()
            raise
        except FAULTS as fault:
            self.misses += 1
            self.error = str(fault) or "no answer in time"
            if self.misses >= self._rhythm.lost_polls:
                self._identify_due_s = 0.0
                self.trail.lose()
                if may_follow:
                    await self._follow()
            raise
        self.error, self.misses, self.trail.lost_s = None, 0, None
        if may_command and boot_s() >= self._prepare_due_s:
            await self._prepare()
        return self.seen

    @property
    def sure(self) -> bool:
        """Whether who answers there is who is meant: after a silence it must be asked first."""
        heard = self.identity is not None and self.misses < self._rhythm.lost_polls
        return heard and not self.trail.rivals

    def surprised(self) -> None:
        """The watts are not as expected: the next look asks for everything."""
        now_s = boot_s()
        if now_s >= self._surprised_s + self._rhythm.surprise_s:
            self._surprised_s, self._full_due_s = now_s, 0.0

    def pause_s(self, usual_s: float) -> float:
        """Seconds until the next look, if all goes on as it does."""
        if self.identity is None and self.misses:
            steps = self._rhythm.lookup_s
            return steps[min(self.misses, len(steps)) - 1]
        if self.misses > self._rhythm.lost_polls:
            return max(usual_s, min(10.0, 2.0 * usual_s))
        return usual_s

    @property
    def temperature_c(self) -> float | None:
        """Hottest board, °C; that of the last full read, while it is young enough."""
        if self.seen is not None and self.seen.temperature_c is not None:
            return self.seen.temperature_c
        if self._full is None or boot_s() > self._full.at_boot_s + 2.0 * self._rhythm.full_s:
            return None
        return self._full.temperature_c

    @property
    def inlet_c(self) -> float | None:
        """Air at its inlet, °C; that of the last full read, while it is young enough."""
        if self._full is None or boot_s() > self._full.at_boot_s + 2.0 * self._rhythm.full_s:
            return None
        return self._full.inlet_c

    def mode(self, since_boot_s: float) -> str | None:
        """The set point that it named in a sample later than `since_boot_s`; None if in none."""
        if self.seen is not None and self.seen.mode is not None:
            return self.seen.mode
        full = self._full
        return full.mode if full is not None and full.at_boot_s > since_boot_s else None

    @property
    def power_limit_w(self) -> float | None:
        """The limit that the firmware says it enforces now, W."""
        return None if self.seen is None else self.seen.power_limit_w

    def looks_asleep(self, seen: AsicReading) -> bool | None:
        """Whether a sample shows standby; None where it shows neither that nor work."""
        assert self.identity is not None
        if seen.hashrate_h_per_s:
            return False
        if seen.watts_w is not None:
            return seen.watts_w <= self.identity.safe_w * (1.0 + self.identity.tolerance)
        return True if seen.hashrate_h_per_s == 0.0 or seen.mode == SLEEP else None

    async def close(self) -> None:
        """Let go of connections and logins, and look for it no more."""
        await self.trail.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self.driver is None:
            return
        driver, self.driver = self.driver, None
        async with asyncio.timeout(self._rhythm.read_s):
            await driver.close()

    async def _identify(self) -> None:
        async with asyncio.timeout(self._rhythm.connect_s):
            if self.driver is None:
                self.driver = await self._introduced()
            elif self._must_reconnect():
                await self._reconnect()
            found = await self.driver.identify()
        highest_w = (self.highest_w, found.nameplate_w)
        self.highest_w = max(watts_w for watts_w in highest_w if watts_w is not None)
        await self.trail.recognise(found)
        self.identity = found
        self._identify_due_s = boot_s() + self._rhythm.identify_s

    def _must_reconnect(self) -> bool:
        """Whether what answers must be found out anew: another firmware, or another machine.

        After a silence a stored password is not used before the machine has proved who it is.
        """
        silent = self.misses >= self._rhythm.lost_polls
        if silent and self.trail.meant_mac is not None and self._asic.password_file is not None:
            return True
        return self.misses > 0 and self.misses % self._rhythm.reconnect_misses == 0

    async def _reconnect(self) -> None:
        """Look afresh what answers: another firmware needs another driver."""
        old, self.driver = self.driver, await self._introduced()
        if old is not None:
            await old.close()

    async def _introduced(self) -> AsicDriver:
        """A new driver, told what its machine may have forgotten."""
        driver = await self._connect(self.trail.there)
        if isinstance(driver, Choosing):
            driver.owners_choice = self.choice
        return driver

    async def _part(self, stranger: AnotherMachine) -> None:
        """Forget all that was seen of a machine that is not ours."""
        self.misses += 1
        self.error = stranger.reason
        self.identity = self.seen = self._full = None
        self.trail.met(stranger)
        try:
            await self._hang_up()
        except FAULTS as fault:
            self.error = f"{stranger.reason} (closing: {str(fault) or 'no answer in time'})"

    async def _follow(self) -> None:
        """Look for it elsewhere, and ask there from now on."""
        before = self.trail.address
        if not await self.trail.follow():
            return
        self.misses, self._identify_due_s = self._rhythm.lost_polls, 0.0
        self.error = f"moved from {before} to {self.trail.address}, not identified there yet"
        with suppress(*FAULTS):
            await self._hang_up()

    async def _sample(self) -> AsicReading:
        assert self.driver is not None
        async with asyncio.timeout(self._rhythm.read_s):
            if boot_s() < self._full_due_s:
                return await self.driver.poll()
            self._full = await self.driver.read()
        if isinstance(self.driver, Choosing):
            self.choice = self.driver.owners_choice or self.choice
        self._full_due_s = boot_s() + self._rhythm.full_s
        return self._full

    async def _prepare(self) -> None:
        assert self.driver is not None
        self._prepare_due_s = boot_s() + self._rhythm.prepare_s
        try:
            async with asyncio.timeout(self._rhythm.read_s):
                await self.driver.prepare()
        except FAULTS as fault:
            self.unready = f"not ready for commands: {str(fault) or 'no answer in time'}"
        else:
            self.unready = None
