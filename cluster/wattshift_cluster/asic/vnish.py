"""VNish: tuned presets, stop and resume, over the firmware's HTTP API.

A preset is chosen by writing the settings' `overclock` part back with another name in it, as the
firmware's own page does; pyasic's `set_power_limit` sends nothing at all. The machine accepts any
name with the same answer, so the settings are read again. Only presets that the machine has tuned
are offered: another would start a tuning of unknown length and draw. Readings need no password.

A stopped machine keeps its preset, and is given the new one before it is woken.
"""

import asyncio
import re
from dataclasses import dataclass

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.http import HttpSession
from wattshift_cluster.asic.http_token import TokenSession
from wattshift_cluster.asic.models import Rating, rating
from wattshift_cluster.asic.pyasic_any import AS_FOUND
from wattshift_cluster.asic.reported import Json, hashes, number, text, under, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import parsed
from wattshift_cluster.bootclock import boot_s

API = "/api/v1"
STOPPED = frozenset({"stopped", "shutting-down"})
STATE_POLL_S = 0.2
MOST_PRESETS = 64
_TH = 1e12
_MEASURES = {"GH/s": 1e9, "MH/s": 1e6}
_PRETTY_TH = re.compile(r"(\d+(?:\.\d+)?) ?TH", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Preset:
    """One tuned preset; its name is its watts."""

    name: str
    watts_w: float
    hashrate_h_per_s: float


class VnishDriver:
    """AsicDriver for one VNish machine.

    Args:
        setup: the machine and its owner's password; without one it is only read.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        login = self._unlocked if setup.credentials is not None else None
        self._web = TokenSession(setup.address, deadline_s=setup.deadline_s, login=login)
        self._points: tuple[AsicPoint, ...] = ()
        self._unit_h_per_s: float | None = None
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model, firmware and tuned presets.

        Without a password there is one point: as it was found. Raises AsicRefused where nothing
        says what it draws at most.
        """
        info = await self._web.plain.get_json(f"{API}/info")
        self._remember_unit(info)
        model, ability = text(info.get("miner")) or self._setup.found.model, self._setup.ability
        rated = rating(model)
        top_w = self._setup.nameplate_w or (rated.watts_w if rated else None)
        presets = await self._tuned(top_w, rated) if self._setup.credentials else ()
        if presets:
            sleep = AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s)
            self._points = (sleep, *(_point(one, ability.settle_s) for one in presets))
            top_w = max(top_w or 0.0, self._points[-1].watts_w)
        elif top_w is not None:
            rate = rated.hashrate_h_per_s if rated else 0.0
            self._points = (AsicPoint(AS_FOUND, top_w, rate, ability.settle_s),)
        else:
            reason = f"no tuned preset, and our table does not rate a {model}"
            raise AsicRefused(self.address, "identify", reason)
        mac = text(under(under(info, "system"), "network_status").get("mac"))
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"VNish {text(info.get('fw_version')) or self._setup.found.version}",
            mac=mac.upper() if mac else None,
            serial=text(info.get("serial")),
            algorithm="scrypt" if info.get("algorithm") == "scrypt" else "sha256d",
            nameplate_w=top_w,
            tolerance=ability.tolerance,
            safe_w=self._points[0].watts_w,
            power_on_w=top_w,
            continuous=False,
            points=self._points,
        )

    async def prepare(self) -> None:
        """Unlock and hold the connection; see AsicDriver."""
        await self._web.prepare()

    async def close(self) -> None:
        """See AsicDriver."""
        await self._web.close()

    async def poll(self) -> AsicReading:
        """Watts and hashrate in one open request, and sleep where the machine names its state."""
        return await self._sample(None)

    async def read(self) -> AsicReading:
        """Take one full sample; `mode` is the preset that the machine says it runs, or sleep."""
        running = under(await self._web.plain.get_json(f"{API}/perf-summary"), "current_preset")
        return await self._sample(text(running.get("name")))

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a preset; see AsicDriver."""
        if mode == SLEEP:
            await self.sleep()
            return
        if not self._points:
            await self.identify()
        point = next((p for p in self._points if p.mode == mode and mode != AS_FOUND), None)
        if point is None:
            raise AsicRefused(self.address, f"set {mode}", "the machine has no such tuned preset")
        if watts_w < point.watts_w * 0.999:
            reason = f"the preset draws {point.watts_w:.0f} W, the lease allows {watts_w:.0f} W"
            raise AsicRefused(self.address, f"set {mode}", reason)
        async with self._commands:
            overclock = await self._overclock(f"set {mode}")
            if overclock.get("preset") != mode:
                await self._choose(mode, overclock)
            await self._start()

    async def sleep(self) -> None:
        """Stop mining; see AsicDriver."""
        async with self._commands:
            await self._web.post(f"{API}/mining/stop")
            await self._reach(stopped=True)

    async def wake(self) -> None:
        """Resume mining at the preset that the machine holds; see AsicDriver."""
        async with self._commands:
            await self._start()

    async def _choose(self, mode: str, overclock: Json) -> None:
        doing = f"set {mode}"
        changed = {"miner": {"overclock": {**overclock, "preset": mode}}}
        answer = await self._web.post(f"{API}/settings", changed)
        verdict = parsed(self.address, doing, answer or b"{}")
        held = (await self._overclock(doing)).get("preset")
        if held != mode:
            raise AsicRefused(self.address, doing, f"accepted, but the preset is {text(held)}")
        if verdict.get("reboot_required") is True:
            raise AsicRefused(self.address, doing, "the machine wants a reboot to follow")
        if verdict.get("restart_required") is True and await self._state() not in STOPPED:
            await self._web.post(f"{API}/mining/restart")

    async def _start(self) -> None:
        """Resume; where that leaves it stopped, start, which is the stop's own opposite."""
        for path in ("resume", "start"):
            if await self._state() not in STOPPED:
                return
            await self._web.post(f"{API}/mining/{path}")
        await self._reach(stopped=False)

    async def _reach(self, *, stopped: bool) -> None:
        """Read back until the machine says that it is stopped, or is not, for one deadline."""
        doing = "stop" if stopped else "resume"
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._setup.deadline_s
        while (await self._state() in STOPPED) is not stopped:
            if loop.time() >= until_s:
                reason = f"accepted, but the machine {'mines on' if stopped else 'stays stopped'}"
                raise AsicRefused(self.address, doing, reason)
            await asyncio.sleep(STATE_POLL_S)

    async def _state(self) -> str | None:
        return text((await self._web.plain.get_json(f"{API}/status")).get("miner_state"))

    async def _overclock(self, doing: str) -> Json:
        settings = await self._web.get(f"{API}/settings")
        overclock = under(under(settings, "miner"), "overclock")
        if not isinstance(overclock.get("preset"), str):
            raise AsicUnreachable(self.address, doing, "the settings name no preset")
        return overclock

    async def _sample(self, preset: str | None) -> AsicReading:
        if self._unit_h_per_s is None:
            self._remember_unit(await self._web.plain.get_json(f"{API}/info"))
        assert self._unit_h_per_s is not None
        miner = under(await self._web.plain.get_json(f"{API}/summary"), "miner")
        state = text(under(miner, "miner_status").get("miner_state"))
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(miner.get("power_consumption")),
            hashrate_h_per_s=hashes(miner.get("hr_realtime"), self._unit_h_per_s),
            temperature_c=number(under(miner, "chip_temp").get("max")),
            power_limit_w=None,
            mode=SLEEP if state in STOPPED else preset,
        )

    def _remember_unit(self, info: Json) -> None:
        # Firmware that names no measure reports GH/s.
        self._unit_h_per_s = _MEASURES.get(str(info.get("hr_measure")), _MEASURES["GH/s"])

    async def _tuned(self, top_w: float | None, rated: Rating | None) -> tuple[Preset, ...]:
        """The presets to offer, ascending: tuned ones up to `top_w`, or to the one in force.

        The list is an array, or under "presets" on newer firmware. A machine's default may draw a
        little more than its rating: the share that makers allow themselves is no overclocking.
        """
        held = (await self._overclock("identify")).get("preset")
        listed = await self._web.get_any(f"{API}/autotune/presets")
        listed = listed.get("presets") if isinstance(listed, dict) else listed
        rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        told = (
            text(row.get("name"))
            and text(row.get("status"))
            and isinstance(row.get("modded_psu_required", False), bool)
            for row in rows
        )
        if not isinstance(listed, list) or len(rows) != len(listed) or not all(told):
            # A garbled list must not make a machine look as if nothing were tuned.
            raise AsicUnreachable(self.address, "identify", "the list of presets is unreadable")
        found: dict[str, Preset] = {}
        for row in rows[:MOST_PRESETS]:
            name = text(row.get("name")) or ""
            draw_w = watts(name)
            if draw_w and row.get("status") == "tuned" and not row.get("modded_psu_required"):
                rate = _rate(row) or (
                    rated.hashrate_h_per_s * draw_w / rated.watts_w if rated else 0
                )
                if (
                    top_w is None
                    or draw_w <= top_w * (1.0 + self._setup.ability.tolerance)
                    or name == held
                ):
                    found[name] = Preset(name, draw_w, rate)
        return tuple(sorted(found.values(), key=lambda preset: preset.watts_w))

    async def _unlocked(self, web: HttpSession) -> str:
        owners = self._setup.credentials
        assert owners is not None
        token = (await web.post_json(f"{API}/unlock", {"pw": owners.password})).get("token")
        if not isinstance(token, str) or not token.isprintable() or not token:
            raise AsicUnreachable(self.address, "unlock", "the answer holds no token")
        return f"Bearer {token}"


def _point(preset: Preset, settle_s: float) -> AsicPoint:
    return AsicPoint(preset.name, preset.watts_w, preset.hashrate_h_per_s, settle_s)


def _rate(row: Json) -> float | None:
    """The hashrate out of a name such as "3495 watt ~ 132 TH"."""
    named = _PRETTY_TH.search(text(row.get("pretty")) or "")
    return hashes(named.group(1), _TH) if named else None
