"""Braiins OS (BOSer): a power target in watts, pause and resume, over its public REST API.

`PUT performance/power-target` changes the target on the fly. pyasic sends the same over gRPC with a
forced apply, which restarts mining. One login serves every request. A poll is one request on a held
connection; where there is no login, or the machine refuses it, port 4028 tells watts and hashrate.
The watts are the firmware's estimate, from no sensor.

While mining is paused the machine keeps its target, so a resume never passes through a higher one.
"""

import asyncio

from wattshift_cluster.asic.braiins_curve import Curve, from_profile, from_range, range_of
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.http import HttpSession
from wattshift_cluster.asic.http_token import NO_PASSWORD, TokenSession
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.pyasic_any import AS_FOUND
from wattshift_cluster.asic.reported import Json, first, hashes, number, rows, text, under, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import ask_cgminer
from wattshift_cluster.bootclock import boot_s

USERNAME = "root"
API = "/api/v1"
PAUSED = 3
"""`status` of `miner/details`; 2 is hashing (bos-plus-api, MinerStatus)."""

STATUS_POLL_S = 0.2
_GH = 1e9
_MH = 1e6


class BraiinsDriver:
    """AsicDriver for one Braiins OS machine.

    Args:
        setup: the machine and its owner's password; without one only what port 4028 tells is read.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        login = self._logged_in if setup.credentials is not None else None
        self._web = TokenSession(setup.address, deadline_s=setup.deadline_s, login=login)
        self._curve: Curve | None = None
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model, firmware and targets. Raises AsicRefused where nothing says what it draws.

        Without a password there is one point: as it was found.
        """
        if self._setup.credentials is None:
            return self._as_found()
        details = await self._web.get(f"{API}/miner/details")
        allowed = range_of(await self._web.get(f"{API}/configuration/constraints"))
        named = under(details, "miner_identity")
        model = text(named.get("miner_model")) or text(named.get("name")) or self._setup.found.model
        if allowed is None:
            reason = "the machine tells no range of power targets"
            raise AsicRefused(self.address, "identify", reason)
        rated, margin = rating(model), self._setup.ability.tolerance
        # Targets above the machine's own default and its rating would overclock it.
        top_w = max(allowed.default_w, rated.watts_w if rated else 0.0)
        top_w = self._setup.nameplate_w or top_w
        curve = from_profile(await self._profile(), allowed, top_w, margin)
        if curve is None:
            sticker = under(details, "sticker_hashrate").get("gigahash_per_second")
            rate = hashes(sticker, _GH) or (rated.hashrate_h_per_s if rated else None)
            if rate is None:
                reason = f"neither our table nor the firmware rates a {model}"
                raise AsicRefused(self.address, "identify", reason)
            curve = from_range(allowed, top_w, rate, margin)
        held_w = await self._held_w() or 0.0
        self._curve = curve
        points = curve.points(self._setup.ability)
        nameplate_w = max(points[-1].watts_w, rated.watts_w if rated else 0.0)
        mac = text(details.get("mac_address"))
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"Braiins OS {_version(details, self._setup.found.version)}",
            mac=mac.upper() if mac else None,
            serial=text(details.get("serial_number")),
            algorithm="sha256d",
            nameplate_w=nameplate_w,
            # The margin is in the points, because any watts between them may be leased.
            tolerance=0.0,
            safe_w=points[0].watts_w,
            power_on_w=max(nameplate_w, held_w * (1.0 + margin)),
            continuous=True,
            points=points,
        )

    async def prepare(self) -> None:
        """Log in and hold the connection; see AsicDriver."""
        await self._web.prepare()

    async def close(self) -> None:
        """See AsicDriver."""
        await self._web.close()

    async def poll(self) -> AsicReading:
        """Watts and hashrate in one request."""
        if self._setup.credentials is not None:
            try:
                return _sample(await self._web.get(f"{API}/miner/stats"))
            except AsicRefused:
                # A password that was changed under us must not make the machine invisible.
                pass
        return await self._poll_old()

    async def read(self) -> AsicReading:
        """Take one full sample; `mode` is the target's rung, or sleep while paused."""
        if self._setup.credentials is None:
            return await self._poll_old()
        stats = await self._web.get(f"{API}/miner/stats")
        cooling = await self._web.get(f"{API}/cooling/state")
        hottest = under(under(cooling, "highest_temperature"), "temperature")
        status = await self._status()
        target_w = await self._held_w()
        awake = status is not None and status != PAUSED
        mode = None
        if status == PAUSED:
            mode = SLEEP
        elif awake and target_w is not None:
            mode = self._curve.mode_of(target_w) if self._curve else f"limit:{target_w:.0f}"
        celsius = number(hottest.get("degree_c"))
        return _sample(stats, mode, target_w if awake else None, celsius)

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a target that draws at most `watts_w`; see AsicDriver. It is set before a resume."""
        if mode == SLEEP:
            await self.sleep()
            return
        if self._curve is None:
            await self.identify()
        if self._curve is None:
            raise AsicRefused(self.address, f"set {mode}", NO_PASSWORD)
        target_w = self._curve.target_for(self.address, mode, watts_w)
        async with self._commands:
            if await self._held_w() != target_w:
                await self._web.put(f"{API}/performance/power-target", {"watt": target_w})
                held_w = await self._held_w()
                if held_w != target_w:
                    reason = f"accepted, but the target is {held_w} W"
                    raise AsicRefused(self.address, f"set {mode}", reason)
            await self._resume()

    async def sleep(self) -> None:
        """Pause mining; see AsicDriver."""
        async with self._commands:
            await self._web.put(f"{API}/actions/pause")
            await self._reach(paused=True)

    async def wake(self) -> None:
        """Resume mining at the target that the machine holds; see AsicDriver."""
        async with self._commands:
            await self._resume()

    async def _resume(self) -> None:
        if await self._status() == PAUSED:
            await self._web.put(f"{API}/actions/resume")
            await self._reach(paused=False)

    async def _reach(self, *, paused: bool) -> None:
        """Read back until the machine says that it is paused, or is not, for one deadline."""
        doing = "pause" if paused else "resume"
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._setup.deadline_s
        while (await self._status() == PAUSED) is not paused:
            if loop.time() >= until_s:
                reason = f"accepted, but the machine {'hashes on' if paused else 'stays paused'}"
                raise AsicRefused(self.address, doing, reason)
            await asyncio.sleep(STATUS_POLL_S)

    async def _status(self) -> int | None:
        status = (await self._web.get(f"{API}/miner/details")).get("status")
        return status if isinstance(status, int) else None

    async def _held_w(self) -> float | None:
        """The power target that is configured, W; None where it works in another mode."""
        mode = under(await self._web.get(f"{API}/performance/mode"), "tunermode")
        target = under(under(under(mode, "target"), "powertarget"), "power_target")
        return watts(target.get("watt"))

    async def _profile(self) -> Json:
        try:
            profile = await self._web.get(f"{API}/performance/efficiency-profile")
        except AsicRefused:
            # Older firmware has none, and one that does not hash may have none yet (412).
            return {}
        targets = (under(row, "power_target").get("watt") for row in rows(profile, "points"))
        if profile.get("points") != [] and not any(watts(target) for target in targets):
            # A garbled profile must not make a machine look as if it had none.
            reason = "the efficiency profile is unreadable"
            raise AsicUnreachable(self.address, "identify", reason)
        return profile

    async def _poll_old(self) -> AsicReading:
        deadline_s = self._setup.deadline_s
        reply = await ask_cgminer(self.address, "summary+tunerstatus", deadline_s=deadline_s)
        summary = first(first(reply, "summary"), "SUMMARY")
        tuner = first(first(reply, "tunerstatus"), "TUNERSTATUS")
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(tuner.get("ApproximateMinerPowerConsumption")),
            hashrate_h_per_s=hashes(summary.get("MHS 5s"), _MH),
            temperature_c=None,
            power_limit_w=None,
            estimated=True,
        )

    async def _logged_in(self, web: HttpSession) -> str:
        owners = self._setup.credentials
        assert owners is not None
        body = {"username": owners.username or USERNAME, "password": owners.password}
        token = (await web.post_json(f"{API}/auth/login", body)).get("token")
        if not isinstance(token, str) or not token.isprintable() or not token:
            raise AsicUnreachable(self.address, "login", "the answer holds no token")
        return token

    def _as_found(self) -> AsicIdentity:
        found, ability = self._setup.found, self._setup.ability
        rated = rating(found.model)
        nameplate_w = self._setup.nameplate_w or (rated.watts_w if rated else None)
        if nameplate_w is None:
            reason = f"our table does not rate a {found.model}: name its nameplate_w"
            raise AsicRefused(self.address, "identify", reason)
        rate = rated.hashrate_h_per_s if rated else 0.0
        return AsicIdentity(
            address=self.address,
            model=found.model,
            firmware=f"Braiins OS {found.version}",
            mac=None,
            algorithm="sha256d",
            nameplate_w=nameplate_w,
            tolerance=ability.tolerance,
            safe_w=nameplate_w,
            power_on_w=nameplate_w,
            continuous=False,
            points=(AsicPoint(AS_FOUND, nameplate_w, rate, ability.settle_s),),
        )


def _sample(
    stats: Json,
    mode: str | None = None,
    target_w: float | None = None,
    temperature_c: float | None = None,
) -> AsicReading:
    power = under(under(stats, "power_stats"), "approximated_consumption")
    rates = under(under(stats, "miner_stats"), "real_hashrate")
    return AsicReading(
        at_boot_s=boot_s(),
        watts_w=watts(power.get("watt")),
        hashrate_h_per_s=hashes(under(rates, "last_5s").get("gigahash_per_second"), _GH),
        temperature_c=temperature_c,
        power_limit_w=target_w,
        mode=mode,
        estimated=True,
    )


def _version(details: Json, otherwise: str) -> str:
    """E.g. "26.04" out of "2026-04-14-0-912d084c-26.04-plus"."""
    full = text(under(details, "bos_version").get("current")) or otherwise
    return next((part for part in reversed(full.split("-")) if "." in part), full)
