"""LuxOS: named profiles and curtailment, over port 4028.

A curtailment is two exchanges: log on, curtail; the log-off follows behind it. Nothing can be held
ready, because there is one session per machine (see `luxos_session`), so `prepare` only checks
that it is free.

A profile can only be set while ATM (the firmware's own thermal tuning) is off. So ATM is switched
off and on again around it, and what was begun is always ended: a command that fails or is broken
off in between leaves the restoring behind it, which is tried until the machine has done it. While
ATM is on it may move to another profile by itself (how far up is unverified): that is visible in
`reading.mode` and in the watts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.luxos_session import LuxosSession
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.reported import Json, first, hashes, number, rows, text, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import ask_cgminer
from wattshift_cluster.bootclock import boot_s

_MAX_POINTS = 32
_GH, _TH = 1e9, 1e12
RESTORE_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0)
"""Pauses between attempts to switch ATM on again, s. A longer outage needs a person anyway."""


class LuxosDriver:
    """AsicDriver for one LuxOS machine."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._session = LuxosSession(setup.address, setup.deadline_s)
        self._identity: AsicIdentity | None = None
        self._commands = asyncio.Lock()
        self._atm_owed = False
        self._restoring: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model, firmware and profiles. Raises AsicRefused where no profile is offered."""
        version, config, profiles = await self._ask("version", "config", "profiles")
        model = text(first(version, "VERSION").get("Type")) or "unknown"
        points = self._offered(rows(profiles, "PROFILES"))
        if len(points) < 2:
            raise AsicRefused(self.address, "identify", "the firmware offers no profiles")
        rated = rating(model)
        rated_w = rated.watts_w if rated else self._setup.nameplate_w
        nameplate_w = max(points[-1].watts_w, rated_w or 0.0)
        self._identity = AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"LuxOS {text(first(version, 'VERSION').get('Miner')) or 'unknown'}",
            mac=_mac(first(config, "CONFIG")),
            serial=text(first(config, "CONFIG").get("SerialNumber")),
            algorithm="sha256d",
            nameplate_w=nameplate_w,
            tolerance=self._setup.ability.tolerance,
            safe_w=points[0].watts_w,
            power_on_w=nameplate_w,
            continuous=False,
            points=points,
        )
        return self._identity

    async def prepare(self) -> None:
        """Check that the machine answers and its session is free; AsicRefused where it is not."""
        async with self._commands:
            await self._session.free("prepare")

    async def close(self) -> None:
        """Wait for the log-off; where ATM has to be switched on again, try that once more."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.wait({self._restoring})
            self._restoring = None
        async with self._commands:
            await self._session.settled()
            if self._atm_owed:
                try:
                    async with self._in_session("restore ATM", again=False):
                        await self._restore()
                except (AsicRefused, AsicUnreachable):
                    # The owner sees it in the machine's own page; there is nobody left to tell.
                    pass
                await self._session.settled()

    async def poll(self) -> AsicReading:
        """Watts, hashrate and mode; see AsicDriver.

        The configuration costs a tenth more and shows each time whose watts these are, and whether
        somebody else has set them.
        """
        power, summary, config = await self._ask("power", "summary", "config")
        self._same(first(config, "CONFIG"))
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=_watts(power),
            hashrate_h_per_s=_hashrate(summary),
            temperature_c=None,
            power_limit_w=None,
            mode=_mode(first(config, "CONFIG")),
        )

    async def read(self) -> AsicReading:
        """Take one sample: watts, hashrate, hottest board, profile or sleep."""
        power, summary, temps, config = await self._ask("power", "summary", "temps", "config")
        self._same(first(config, "CONFIG"))
        boards_c = [
            celsius
            for row in rows(temps, "TEMPS")
            for corner in ("TopLeft", "TopRight", "BottomLeft", "BottomRight")
            if (celsius := number(row.get(corner))) is not None
        ]
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=_watts(power),
            hashrate_h_per_s=_hashrate(summary),
            temperature_c=max(boards_c, default=None),
            power_limit_w=None,
            mode=_mode(first(config, "CONFIG")),
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a profile; see AsicDriver.

        A sleeping machine is given the profile first and woken only once it names that profile, for
        it wakes to whatever profile it holds.
        """
        if mode == SLEEP:
            await self.sleep()
            return
        known = self._identity or await self.identify()
        point = next((p for p in known.points if p.mode == mode), None)
        if point is None:
            raise AsicRefused(self.address, f"set {mode}", "the machine has no such profile")
        if watts_w < point.watts_w * 0.999:
            reason = f"the profile draws {point.watts_w:.0f} W, the lease allows {watts_w:.0f} W"
            raise AsicRefused(self.address, f"set {mode}", reason)
        async with self._commands:
            config = await self._config()
            if config.get("Profile") == mode and _awake(config):
                return
            async with self._in_session(f"set {mode}"):
                if config.get("Profile") != mode:
                    await self._set_profile(mode, config)
                    config = await self._config()
                if config.get("Profile") != mode:
                    reason = f"accepted, but the profile is still {text(config.get('Profile'))}"
                    raise AsicRefused(self.address, f"set {mode}", reason)
                if not _awake(config):
                    await self._session.tell("wake up", "curtail", "wakeup")

    async def sleep(self) -> None:
        """Curtail; see AsicDriver."""
        async with self._commands, self._in_session("sleep"):
            await self._session.tell("sleep", "curtail", "sleep")

    async def wake(self) -> None:
        """End the curtailment; see AsicDriver."""
        async with self._commands:
            if not _awake(await self._config()):
                async with self._in_session("wake up"):
                    await self._session.tell("wake up", "curtail", "wakeup")

    async def _set_profile(self, name: str, config: Json) -> None:
        """Set a profile, with ATM off meanwhile; `_in_session` restores it whatever happens."""
        enabled = config.get("IsAtmEnabled")
        if not isinstance(enabled, bool):
            raise AsicUnreachable(self.address, "read ATM", "the answer does not say whether on")
        if enabled:
            # Before it is sent, because an answer that got lost may have switched it off too.
            self._atm_owed = True
            await self._session.tell("switch ATM off", "atmset", "enabled=false")
        await self._session.tell(f"set {name}", "profileset", name)
        if self._atm_owed:
            await self._restore()

    async def _restore(self) -> None:
        await self._session.tell("restore ATM", "atmset", "enabled=true")
        self._atm_owed = False

    @asynccontextmanager
    async def _in_session(self, doing: str, *, again: bool = True) -> AsyncIterator[None]:
        async with self._session.held(doing, self._tidied(again)):
            yield

    async def _tidied(self, again: bool) -> None:
        """Behind a command: switch ATM on where that is owed, and see that it is on."""
        if not self._atm_owed:
            return
        try:
            await self._restore()
            # A command that was broken off may have reached the machine after this one.
            self._atm_owed = (await self._config()).get("IsAtmEnabled") is False
        except (AsicRefused, AsicUnreachable):
            pass
        if self._atm_owed and again and self._restoring is None:
            self._restoring = asyncio.create_task(self._restore_later())

    async def _restore_later(self) -> None:
        for pause_s in RESTORE_S:
            await asyncio.sleep(pause_s)
            async with self._commands:
                await self._session.settled()
                if not self._atm_owed:
                    break
                try:
                    async with self._in_session("restore ATM", again=False):
                        await self._restore()
                except (AsicRefused, AsicUnreachable):
                    continue
        self._restoring = None

    async def _config(self) -> Json:
        reply = await ask_cgminer(self.address, "config", deadline_s=self._setup.deadline_s)
        config = first(reply, "CONFIG")
        if not config:
            raise AsicUnreachable(self.address, "read configuration", "the answer holds none")
        self._same(config)
        return config

    def _same(self, config: Json) -> None:
        """Raise AsicUnreachable where the address has gone to another machine."""
        known, mac = self._identity and self._identity.mac, _mac(config)
        if known and mac and known != mac:
            raise AsicUnreachable(self.address, "read configuration", f"it is now {mac}")

    async def _ask(self, *commands: str) -> Sequence[Json]:
        """Ask several things in one connection, one by one where joining is not understood."""
        deadline_s = self._setup.deadline_s
        reply = await ask_cgminer(self.address, "+".join(commands), deadline_s=deadline_s)
        if all(command in reply for command in commands):
            return [first(reply, command) for command in commands]
        return [await ask_cgminer(self.address, c, deadline_s=deadline_s) for c in commands]

    def _offered(self, profiles: list[Json]) -> tuple[AsicPoint, ...]:
        """Sleep and the profiles up to the default, ascending; overclocked ones are left out."""
        ability = self._setup.ability
        points = {SLEEP: AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s)}
        for row in profiles[:_MAX_POINTS]:
            name, watts_w = text(row.get("Profile Name")), watts(row.get("Watts"))
            hashrate, step = hashes(row.get("Hashrate"), _TH), str(row.get("Step"))
            if not name or not watts_w or not hashrate:
                continue
            if step != "0" and not step.startswith("-"):
                continue
            points[name] = AsicPoint(name, watts_w, hashrate, ability.settle_s)
        return tuple(sorted(points.values(), key=lambda point: point.watts_w))


def _watts(power: Json) -> float | None:
    return watts(first(power, "POWER").get("Watts"))


def _hashrate(summary: Json) -> float | None:
    return hashes(first(summary, "SUMMARY").get("GHS 5s"), _GH)


def _mac(config: Json) -> str | None:
    mac = text(config.get("MACAddr"))
    return mac.upper() if mac else None


def _awake(config: Json) -> bool:
    """Whether the machine says that it is not curtailed. Anything unclear counts as asleep."""
    return str(config.get("CurtailMode")).lower() == "none" and "CurtailMode" in config


def _mode(config: Json) -> str | None:
    curtailed = str(config.get("CurtailMode", "")).lower()
    if curtailed == SLEEP:
        return SLEEP
    profile = config.get("Profile")
    return profile if curtailed == "none" and isinstance(profile, str) and profile else None
