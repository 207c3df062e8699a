"""LuxOS: named profiles and curtailment, over port 4028.

Samples and read-backs are our own requests; the session and every command go through pyasic. A
profile can only be set while ATM (the firmware's own thermal tuning) is off, so ATM is switched off
and always restored, also when the command fails. While ATM is on it may move to another profile by
itself (how far up is unverified): that is visible in `reading.mode` and in the watts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.models import Ability, rating
from wattshift_cluster.asic.pyasic_handle import Handle
from wattshift_cluster.asic.wire import Json, ask_cgminer, first, number, rows
from wattshift_cluster.bootclock import boot_s

_MAX_POINTS = 32


class LuxosDriver:
    """AsicDriver for one LuxOS machine.

    Args:
        handle: pyasic's object for it.
        ability: what the firmware can do.
    """

    def __init__(self, handle: Handle, ability: Ability) -> None:
        self._handle = handle
        self._ability = ability
        self._points: tuple[AsicPoint, ...] = ()
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._handle.address

    async def identify(self) -> AsicIdentity:
        """Read model, firmware and profiles. Raises AsicRefused where no profile is offered."""
        version, config, profiles = await self._ask("version", "config", "profiles")
        model = str(first(version, "VERSION").get("Type") or "unknown")
        points = self._offered(rows(profiles, "PROFILES"))
        if len(points) < 2:
            raise AsicRefused(self.address, "identify", "the firmware offers no profiles")
        self._points = points
        rated = rating(model)
        mac = first(config, "CONFIG").get("MACAddr")
        nameplate_w = max(points[-1].watts_w, rated.watts_w if rated else 0.0)
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"LuxOS {first(version, 'VERSION').get('Miner', 'unknown')}",
            mac=mac.upper() if isinstance(mac, str) else None,
            algorithm="sha256d",
            nameplate_w=nameplate_w,
            tolerance=self._ability.tolerance,
            safe_w=points[0].watts_w,
            power_on_w=nameplate_w,
            continuous=False,
            points=points,
        )

    async def prepare(self) -> None:
        """See AsicDriver."""

    async def close(self) -> None:
        """See AsicDriver."""

    async def poll(self) -> AsicReading:
        """See AsicDriver."""
        return await self.read()

    async def read(self) -> AsicReading:
        """Take one sample: watts, hashrate, hottest board, profile or sleep."""
        power, summary, temps, config = await self._ask("power", "summary", "temps", "config")
        ghs = number(first(summary, "SUMMARY").get("GHS 5s"))
        boards_c = [
            celsius
            for row in rows(temps, "TEMPS")
            for corner in ("TopLeft", "TopRight", "BottomLeft", "BottomRight")
            if (celsius := number(row.get(corner))) is not None
        ]
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=number(first(power, "POWER").get("Watts")),
            hashrate_h_per_s=None if ghs is None else ghs * 1e9,
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
        if not self._points:
            await self.identify()
        point = next((p for p in self._points if p.mode == mode), None)
        if point is None:
            raise AsicRefused(self.address, f"set {mode}", "the machine has no such profile")
        if watts_w < point.watts_w * 0.999:
            reason = f"the profile draws {point.watts_w:.0f} W, the lease allows {watts_w:.0f} W"
            raise AsicRefused(self.address, f"set {mode}", reason)
        async with self._commands:
            config = await self._config()
            if config.get("Profile") != mode:
                await self._set_profile(mode)
                config = await self._config()
            if config.get("Profile") != mode:
                reason = f"accepted, but the profile is still {config.get('Profile')}"
                raise AsicRefused(self.address, f"set {mode}", reason)
            if not _awake(config):
                await self._privileged("wake up", lambda rpc: rpc.wakeup())

    async def sleep(self) -> None:
        """Curtail; see AsicDriver."""
        async with self._commands:
            await self._privileged("sleep", lambda rpc: rpc.sleep())

    async def wake(self) -> None:
        """End the curtailment; see AsicDriver."""
        async with self._commands:
            if not _awake(await self._config()):
                await self._privileged("wake up", lambda rpc: rpc.wakeup())

    async def _set_profile(self, name: str) -> None:
        atm = await self._handle.call("read ATM", lambda rpc: rpc.atm())
        enabled = first(atm, "ATM").get("Enabled")
        if not isinstance(enabled, bool):
            raise AsicUnreachable(self.address, "read ATM", "the answer does not say whether on")
        if not enabled:
            await self._privileged(f"set {name}", lambda rpc: rpc.profileset(name))
            return
        try:
            # Inside, because an answer that got lost may have switched it off all the same.
            await self._privileged("switch ATM off", lambda rpc: rpc.atmset(enabled=False))
            await self._privileged(f"set {name}", lambda rpc: rpc.profileset(name))
        finally:
            await self._privileged("restore ATM", lambda rpc: rpc.atmset(enabled=True))

    async def _privileged(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        async def with_session(rpc: Any) -> Any:
            # Each time: a session ends after a minute, and pyasic would go on using it.
            if await rpc.auth() is None:
                raise AsicRefused(self.address, doing, "the machine opened no session")
            return await request(rpc)

        await self._handle.call(doing, with_session)

    async def _config(self) -> Json:
        reply = await ask_cgminer(self.address, "config", deadline_s=self._handle.deadline_s)
        config = first(reply, "CONFIG")
        if not config:
            raise AsicUnreachable(self.address, "read configuration", "the answer holds none")
        return config

    async def _ask(self, *commands: str) -> Sequence[Json]:
        """Ask several things in one connection, one by one where joining is not understood."""
        deadline_s = self._handle.deadline_s
        reply = await ask_cgminer(self.address, "+".join(commands), deadline_s=deadline_s)
        if all(command in reply for command in commands):
            return [next(iter(rows(reply, command)), {}) for command in commands]
        return [await ask_cgminer(self.address, c, deadline_s=deadline_s) for c in commands]

    def _offered(self, profiles: list[Json]) -> tuple[AsicPoint, ...]:
        """Sleep and the profiles up to the default, ascending; overclocked ones are left out."""
        points = {SLEEP: AsicPoint(SLEEP, self._ability.standby_w, 0.0, self._ability.sleep_s)}
        for row in profiles[:_MAX_POINTS]:
            name, watts_w = row.get("Profile Name"), number(row.get("Watts"))
            ths, step = number(row.get("Hashrate")), str(row.get("Step"))
            if not isinstance(name, str) or not watts_w or not ths:
                continue
            if step != "0" and not step.startswith("-"):
                continue
            points[name] = AsicPoint(name, watts_w, ths * 1e12, self._ability.settle_s)
        return tuple(sorted(points.values(), key=lambda point: point.watts_w))


def _awake(config: Json) -> bool:
    """Whether the machine says that it is not curtailed. Anything unclear counts as asleep."""
    return str(config.get("CurtailMode")).lower() == "none" and "CurtailMode" in config


def _mode(config: Json) -> str | None:
    curtailed = str(config.get("CurtailMode", "")).lower()
    if curtailed == SLEEP:
        return SLEEP
    profile = config.get("Profile")
    return profile if curtailed == "none" and isinstance(profile, str) and profile else None
