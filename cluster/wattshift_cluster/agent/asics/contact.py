"""Who answers at an ASIC's address, and what it says: cheap polls, full reads, a login held ready.

The machine is known by its hardware address, not by the network's. Whenever it was silent for a
while, and now and then in any case, it is asked again who it is: after a change of addresses
another machine may answer there, and that one is never commanded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
    Credentials,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic

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


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often an ASIC is looked at, and how long each step may take, s.

    Attributes:
        poll_s: between two looks, at a machine whose command is open or in a small fleet.
        full_s: between two full reads (temperatures, set points).
        surprise_s: at least between two full reads because of unexpected watts.
        prepare_s: between two renewals of what a command needs; shorter than any session's life.
        identify_s: between two questions who it is.
        lookup_s: pauses while it has not been found; the last one goes on.
        connect_s, read_s, write_s, close_s: deadlines.
        lost_polls: polls in a row that must fail before a machine counts as silent.
        reconnect_misses: after every so many failed polls the firmware is told afresh.
        alarm_s: how long a foreign write is shown at least: a polling controller must not miss it.
        settle_s: on top of a point's own time, before another set point counts as foreign.
        grace_s: how long the controller has to lease what runs already, from the agent's start.
    """

    poll_s: float = 1.0
    full_s: float = 60.0
    surprise_s: float = 10.0
    prepare_s: float = 25.0
    identify_s: float = 600.0
    lookup_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    connect_s: float = 8.0
    read_s: float = 3.0
    write_s: float = 12.0
    close_s: float = 8.0
    lost_polls: int = 3
    reconnect_misses: int = 6
    alarm_s: float = 3.0
    settle_s: float = 2.0
    grace_s: float = 20.0


class AnotherMachine(AsicRefused):
    """The machine at this address is not the one that is meant."""

    def __init__(self, address: str, meant: str, found: AsicIdentity) -> None:
        who = found.mac or "one that tells no hardware address"
        super().__init__(
            address,
            "identify",
            f"another machine at this address: {who} ({found.model}) instead of {meant}; it is "
            "counted at its ceiling and not commanded",
        )
        self.found = found


async def connect_by_probe(asic: Asic) -> AsicDriver:
    """Find out what answers at the address. Raises: AsicUnreachable, AsicRefused."""
    from wattshift_cluster.asic.connect import DEADLINE_S, driver_for
    from wattshift_cluster.asic.probe import probe

    found = await probe(asic.address, deadline_s=DEADLINE_S)
    password = _password(asic, found.kind)
    return await driver_for(
        asic.address,
        found,
        credentials=None if password is None else Credentials(password, asic.username),
        nameplate_w=asic.nameplate_w,
    )


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
        meant_mac: the hardware address that is meant; None until the first one is seen.
        seen: the last sample; None before the first.
        error: why the last look failed; None when it did not.
        misses: looks that failed in a row.
        unready: why the next command may be slow or fail; None when all is prepared.
        highest_w: the highest nameplate of all that ever answered there, W.
    """

    def __init__(self, asic: Asic, meant_mac: str | None, connect: Connect, rhythm: Rhythm) -> None:
        """Prepare; nothing is sent before the first look."""
        self.driver: AsicDriver | None = None
        self.identity: AsicIdentity | None = None
        self.meant_mac = asic.mac or meant_mac
        self.seen: AsicReading | None = None
        self.error: str | None = "not identified yet"
        self.misses = 0
        self.unready: str | None = None
        self.highest_w: float | None = None
        self._asic = asic
        self._connect = connect
        self._rhythm = rhythm
        self._full: AsicReading | None = None
        self._full_due_s = 0.0
        self._surprised_s = 0.0
        self._prepare_due_s = 0.0
        self._identify_due_s = 0.0

    async def look(self, *, may_command: bool) -> AsicReading:
        """Identify it if that is due, and take a sample.

        Args:
            may_command: whether a command may follow, for which all is held ready.

        Raises:
            AsicUnreachable, AsicRefused, TimeoutError: it failed; `error` and `misses` say so.
            AnotherMachine: somebody else answers there.
        """
        try:
            if self.identity is None or boot_s() >= self._identify_due_s:
                await self._identify()
            self.seen = await self._sample()
        except AnotherMachine as stranger:
            await self._part(stranger)
            raise
        except FAULTS as fault:
            self.misses += 1
            self.error = str(fault) or "no answer in time"
            if self.misses >= self._rhythm.lost_polls:
                self._identify_due_s = 0.0
            raise
        self.error, self.misses = None, 0
        if may_command and boot_s() >= self._prepare_due_s:
            await self._prepare()
        return self.seen

    @property
    def sure(self) -> bool:
        """Whether who answers there is who is meant: after a silence it must be asked first."""
        return self.identity is not None and self.misses < self._rhythm.lost_polls

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
        """Let go of connections and logins."""
        if self.driver is None:
            return
        driver, self.driver = self.driver, None
        async with asyncio.timeout(self._rhythm.read_s):
            await driver.close()

    async def _identify(self) -> None:
        async with asyncio.timeout(self._rhythm.connect_s):
            if self.driver is None:
                self.driver = await self._connect(self._asic)
            elif self.misses and self.misses % self._rhythm.reconnect_misses == 0:
                await self._reconnect()
            found = await self.driver.identify()
        highest_w = (self.highest_w, found.nameplate_w)
        self.highest_w = max(watts_w for watts_w in highest_w if watts_w is not None)
        if self.meant_mac is not None and found.mac != self.meant_mac:
            raise AnotherMachine(self._asic.address, self.meant_mac, found)
        self.meant_mac = found.mac
        self.identity = found
        self._identify_due_s = boot_s() + self._rhythm.identify_s

    async def _reconnect(self) -> None:
        """Look afresh what answers: another firmware needs another driver."""
        old, self.driver = self.driver, await self._connect(self._asic)
        if old is not None:
            await old.close()

    async def _part(self, stranger: AnotherMachine) -> None:
        """Forget all that was seen of a machine that is not ours."""
        self.misses += 1
        self.error = stranger.reason
        self.identity = self.seen = self._full = None
        try:
            await self.close()
        except FAULTS as fault:
            self.error = f"{stranger.reason} (closing: {str(fault) or 'no answer in time'})"

    async def _sample(self) -> AsicReading:
        assert self.driver is not None
        async with asyncio.timeout(self._rhythm.read_s):
            if boot_s() < self._full_due_s:
                return await self.driver.poll()
            self._full = await self.driver.read()
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


def with_times(identity: AsicIdentity, measured_s: dict[str, float]) -> AsicIdentity:
    """The identity with the transition times that commissioning measured."""
    points = tuple(
        replace(point, transition_s=measured_s.get(point.mode, point.transition_s))
        for point in identity.points
    )
    return replace(identity, points=points)
