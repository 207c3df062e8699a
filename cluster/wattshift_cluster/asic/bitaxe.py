"""BitAxe (ESP-Miner): pause and resume from firmware 2.14 on, over its HTTP API without a password.

`miningPaused` in the machine's own information says whether it can be paused; older firmware is
read and never commanded. The machine names clock frequencies, but not what they draw, so there are
two points: asleep, and as its owner set it. A pause lives in memory: after a restart it hashes.
"""

import asyncio

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.http import HttpSession
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.pyasic_any import AS_FOUND, FULL
from wattshift_cluster.asic.reported import Json, hashes, number, text, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.bootclock import boot_s

INFO = "/api/system/info"
ASIC = "/api/system/asic"
TOO_OLD = "this firmware cannot be paused: update to 2.14"
_GH = 1e9
_ABSENT = object()
_MODES = {True: SLEEP, False: FULL}


class BitaxeDriver:
    """AsicDriver for one BitAxe.

    Args:
        setup: the machine; it asks for no password.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._web = HttpSession(setup.address, deadline_s=setup.deadline_s)
        self._identity: AsicIdentity | None = None
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model and firmware. Raises AsicRefused where nothing says what it draws at most.

        The nameplate is the board's own maximum. It draws that much at most where it expects more
        hashes than its model's rating, because then its owner raised the clock.
        """
        info = await self._web.get_json(INFO)
        chip = text(info.get("ASICModel")) or "unknown"
        named = await self._named()
        model = f"BitAxe {named}" if named else f"BitAxe ({chip})"
        rated, ability = rating(model), self._setup.ability
        claims = (watts(info.get("maxPower")), rated.watts_w if rated else None)
        stated = self._setup.nameplate_w or max((c for c in claims if c), default=None)
        if stated is None:
            reason = f"neither our table nor the firmware rates a {model}: name its nameplate_w"
            raise AsicRefused(self.address, "identify", reason)
        expected = hashes(info.get("expectedHashrate"), _GH)
        rate = expected or (rated.hashrate_h_per_s if rated else 0.0)
        full_w = stated
        if rated and rate <= rated.hashrate_h_per_s * (1.0 + ability.tolerance):
            full_w = min(stated, rated.watts_w)
        points: tuple[AsicPoint, ...] = (AsicPoint(AS_FOUND, stated, rate, ability.settle_s),)
        if self._paused(info) is not None:
            sleep = AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s)
            points = (sleep, AsicPoint(FULL, full_w, rate, ability.settle_s))
        mac = text(info.get("macAddr"))
        self._identity = AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"ESP-Miner {text(info.get('version')) or self._setup.found.version}",
            mac=mac.upper() if mac else None,
            algorithm="sha256d",
            nameplate_w=stated,
            tolerance=ability.tolerance,
            safe_w=points[0].watts_w,
            power_on_w=stated,
            continuous=False,
            points=points,
        )
        return self._identity

    async def prepare(self) -> None:
        """Hold a connection ready; see AsicDriver."""
        await self._web.connect()

    async def close(self) -> None:
        """See AsicDriver."""
        await self._web.close()

    async def poll(self) -> AsicReading:
        """See AsicDriver. The firmware has no smaller answer than the full one."""
        return await self.read()

    async def read(self) -> AsicReading:
        """Take one sample. `mode` is None on firmware that cannot be paused."""
        info = await self._web.get_json(INFO)
        paused = info.get("miningPaused")
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(info.get("power")),
            hashrate_h_per_s=hashes(info.get("hashRate"), _GH),
            temperature_c=number(info.get("temp")),
            power_limit_w=None,
            mode=_MODES.get(paused) if isinstance(paused, bool) else None,
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Sleep, or hash as the owner set it; see AsicDriver."""
        if mode == SLEEP:
            await self.sleep()
            return
        known = self._identity or await self.identify()
        if known.points[-1].mode != FULL:
            raise AsicRefused(self.address, f"set {mode}", TOO_OLD)
        if mode != FULL:
            raise AsicRefused(self.address, f"set {mode}", "the machine has no such point")
        full_w = known.points[-1].watts_w
        if watts_w < full_w * 0.999:
            reason = f"it draws up to {full_w:.0f} W, the lease allows {watts_w:.0f} W"
            raise AsicRefused(self.address, f"set {mode}", reason)
        await self._hold(paused=False)

    async def sleep(self) -> None:
        """Pause; see AsicDriver. Raises AsicRefused on firmware that cannot."""
        await self._hold(paused=True)

    async def wake(self) -> None:
        """Resume; see AsicDriver. Raises AsicRefused on firmware that cannot."""
        await self._hold(paused=False)

    async def _hold(self, *, paused: bool) -> None:
        verb = "pause" if paused else "resume"
        async with self._commands:
            before = self._paused(await self._web.get_json(INFO))
            if before is None:
                raise AsicRefused(self.address, verb, TOO_OLD)
            if before is paused:
                return
            await self._web.post_json(f"/api/system/{verb}")
            if self._paused(await self._web.get_json(INFO)) is not paused:
                reason = f"accepted, but the machine {'hashes on' if paused else 'stays paused'}"
                raise AsicRefused(self.address, verb, reason)

    def _paused(self, info: Json) -> bool | None:
        """Whether it is paused; None on firmware that knows no pause.

        Raises AsicUnreachable for anything else under that name: a garbled answer must not make a
        machine look old.
        """
        paused = info.get("miningPaused", _ABSENT)
        if paused is _ABSENT:
            return None
        if not isinstance(paused, bool):
            raise AsicUnreachable(self.address, "read", "miningPaused is neither true nor false")
        return paused

    async def _named(self) -> str | None:
        """The model's name, e.g. "Gamma"; None on firmware that does not tell it."""
        try:
            return text((await self._web.get_json(ASIC)).get("deviceModel"))
        except AsicRefused:
            return None
