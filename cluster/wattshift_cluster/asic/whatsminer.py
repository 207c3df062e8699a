"""Whatsminer with firmware API v3: a power limit in watts, stop and start, over port 4433.

Samples and read-backs are our own requests; commands go through pyasic, which signs them. Any limit
in the range may be set; six evenly spread ones are offered. MicroBT publishes neither the
smallest limit nor a power curve, so the range begins at 35 % of the rating and the hashrate of a
point is MODELLED as a straight line through the machine's factory hashrate.
"""

import asyncio
from collections.abc import Awaitable, Callable
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
from wattshift_cluster.asic.wire import Json, ask_framed, number
from wattshift_cluster.bootclock import boot_s

LOWEST_SHARE = 0.35
POINTS = 6


class WhatsminerDriver:
    """AsicDriver for one Whatsminer v3.

    Args:
        handle: pyasic's object for it.
        ability: what the firmware can do.
        may_command: whether the owner gave a password; without one the machine is only read.
    """

    def __init__(self, handle: Handle, ability: Ability, *, may_command: bool) -> None:
        self._handle = handle
        self._ability = ability
        self._may_command = may_command
        self._points: tuple[AsicPoint, ...] = ()
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._handle.address

    async def identify(self) -> AsicIdentity:
        """Read model and firmware. Raises AsicRefused where the power range cannot be known."""
        info, summary = await self._info(), await self._summary()
        model = str(_under(info, "miner").get("type") or "unknown")
        rated = rating(model)
        top_w = rated.watts_w if rated else number(summary.get("power-limit"))
        ths = number(summary.get("factory-hash"))
        top_h = ths * 1e12 if ths else (rated.hashrate_h_per_s if rated else None)
        if not top_w or not top_h:
            reason = f"neither our table nor the firmware rates a {model}"
            raise AsicRefused(self.address, "identify", reason)
        mac = _under(info, "network").get("mac")
        self._points = self._offered(top_w, top_h)
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"Whatsminer {_under(info, 'system').get('fwversion', 'unknown')}",
            mac=mac.upper() if isinstance(mac, str) else None,
            algorithm="sha256d",
            nameplate_w=top_w,
            tolerance=self._ability.tolerance,
            safe_w=self._ability.standby_w,
            power_on_w=top_w,
            continuous=False,
            points=self._points,
        )

    async def prepare(self) -> None:
        """See AsicDriver."""

    async def close(self) -> None:
        """See AsicDriver."""

    async def poll(self) -> AsicReading:
        """See AsicDriver."""
        return await self.read()

    async def read(self) -> AsicReading:
        """Take one sample. `mode` is None at zero hashrate: stopped and starting look alike."""
        summary = await self._summary()
        ths = number(summary.get("hash-realtime"))
        # A machine that does not hash draws standby whatever limit it keeps for later.
        limit_w = number(summary.get("power-limit")) if ths else None
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=number(summary.get("power-realtime")),
            hashrate_h_per_s=None if ths is None else ths * 1e12,
            temperature_c=number(summary.get("chip-temp-max")),
            power_limit_w=limit_w,
            mode=f"limit:{limit_w:.0f}" if limit_w else None,
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a power limit; see AsicDriver. The limit is in place before the machine is woken."""
        if mode == SLEEP:
            await self.sleep()
            return
        if not self._points:
            await self.identify()
        point = next((p for p in self._points if p.mode == mode), None)
        if point is None:
            raise AsicRefused(self.address, f"set {mode}", "the machine has no such point")
        if watts_w < point.watts_w * 0.999:
            reason = f"the lease allows {watts_w:.0f} W"
            raise AsicRefused(self.address, f"set {mode}", reason)
        limit_w = round(point.watts_w)
        async with self._commands:
            await self._signed(f"set {mode}", lambda rpc: rpc.set_miner_power_limit(limit_w))
            held_w = number((await self._summary()).get("power-limit"))
            if held_w is None or round(held_w) != limit_w:
                reason = f"accepted, but the limit is {held_w} W"
                raise AsicRefused(self.address, f"set {mode}", reason)
            await self._start()

    async def sleep(self) -> None:
        """Stop the mining service; see AsicDriver."""
        async with self._commands:
            await self._signed("stop", lambda rpc: rpc.set_miner_service("stop"))

    async def wake(self) -> None:
        """Start the mining service; see AsicDriver."""
        async with self._commands:
            await self._start()

    async def _start(self) -> None:
        if _under(await self._info(), "miner").get("working") != "true":
            await self._signed("start", lambda rpc: rpc.set_miner_service("start"))

    async def _signed(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        if not self._may_command:
            reason = "no password: name it for this machine in the agent's configuration"
            raise AsicRefused(self.address, doing, reason)

        def with_fresh_salt(rpc: Any) -> Awaitable[Any]:
            rpc.salt = None
            return request(rpc)

        reply = await self._handle.call(doing, with_fresh_salt)
        if reply.get("code") != 0:
            reason = f"code {reply.get('code')}: {reply.get('msg')}"
            raise AsicRefused(self.address, doing, reason)

    async def _info(self) -> Json:
        return await self._get("get.device.info", None)

    async def _summary(self) -> Json:
        return _under(await self._get("get.miner.status", "summary"), "summary")

    async def _get(self, command: str, param: str | None) -> Json:
        deadline_s = self._handle.deadline_s
        reply = await ask_framed(self.address, command, param, deadline_s=deadline_s)
        body = reply.get("msg")
        if reply.get("code") != 0 or not isinstance(body, dict):
            reason = f"answered code {reply.get('code')}"
            raise AsicUnreachable(self.address, command, reason)
        return body

    def _offered(self, top_w: float, top_h_per_s: float) -> tuple[AsicPoint, ...]:
        points = [AsicPoint(SLEEP, self._ability.standby_w, 0.0, self._ability.sleep_s)]
        for i in range(POINTS):
            share = LOWEST_SHARE + (1.0 - LOWEST_SHARE) * i / (POINTS - 1)
            limit_w = round(top_w * share)
            hashrate = top_h_per_s * limit_w / top_w
            settle_s = self._ability.settle_s
            points.append(AsicPoint(f"limit:{limit_w}", float(limit_w), hashrate, settle_s))
        return tuple(points)


def _under(body: Json, key: str) -> Json:
    found = body.get(key)
    return found if isinstance(found, dict) else {}
