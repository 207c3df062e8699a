"""Whatsminer with firmware API v3: a power limit in watts, stop and start, over port 4433.

One connection is held, and with it the salt that commands are signed with, so that a prepared
command is a single exchange. The salt changes when the firmware says so: a command that is refused
with a held salt is signed once more with a fresh one, if that is another.

Setting a limit restarts mining (maker's API page), so one that is already held is not set again.
"""

import asyncio
import time

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.held import FramedLine
from wattshift_cluster.asic.reported import Json, hashes, number, text, under, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.whatsminer_points import Stated, identity, limit_of
from wattshift_cluster.asic.whatsminer_sign import v3_token
from wattshift_cluster.bootclock import boot_s

ACCOUNT = "super"
_TH = 1e12
NO_PASSWORD = "no password: name it for this machine in the agent's configuration"


class WhatsminerDriver:
    """AsicDriver for one Whatsminer v3.

    Args:
        setup: the machine and its owner's password; without one it is only read.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._line = FramedLine(setup.address, setup.deadline_s)
        self._identity: AsicIdentity | None = None
        self._salt: str | None = None
        self._met = 0
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model and firmware. Raises AsicRefused where the power range cannot be known."""
        self._identity = None
        info, summary = await self._info(), await self._summary()
        stated = Stated(
            model=text(under(info, "miner").get("type")) or "unknown",
            firmware=text(under(info, "system").get("fwversion")) or "unknown",
            mac=text(under(info, "network").get("mac")),
            serial=text(under(info, "miner").get("miner-sn")),
            factory_h_per_s=hashes(summary.get("factory-hash"), _TH),
        )
        self._identity = identity(self._setup, stated)
        return self._identity

    async def prepare(self) -> None:
        """Open the connection and fetch the salt; repeated, it checks that both still hold."""
        if self._setup.credentials is not None:
            self._salt = await self._fresh_salt("prepare")
        else:
            await self._summary()

    async def close(self) -> None:
        """See AsicDriver."""
        await self._line.close()

    async def poll(self) -> AsicReading:
        """See AsicDriver. The firmware has no smaller answer than the full one."""
        return await self.read()

    async def read(self) -> AsicReading:
        """Take one sample. `mode` is None at zero hashrate: stopped and starting look alike."""
        summary = await self._summary()
        hashrate = hashes(summary.get("hash-realtime"), _TH)
        # A machine that does not hash draws standby whatever limit it keeps for later.
        limit_w = watts(summary.get("power-limit")) if hashrate else None
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(summary.get("power-realtime")),
            hashrate_h_per_s=hashrate,
            temperature_c=number(summary.get("chip-temp-max")),
            power_limit_w=limit_w,
            mode=f"limit:{limit_w:.0f}" if limit_w else None,
            inlet_c=number(summary.get("environment-temperature")),
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a power limit; see AsicDriver. The limit is in place before the machine is woken."""
        if mode == SLEEP:
            await self.sleep()
            return
        limit_w = limit_of(self._identity or await self.identify(), mode, watts_w)
        async with self._commands:
            if not await self._holds(limit_w):
                await self._signed(f"set {mode}", "set.miner.power_limit", limit_w)
                if not await self._holds(limit_w):
                    reason = "accepted, but the limit is another"
                    raise AsicRefused(self.address, f"set {mode}", reason)
            await self._start()

    async def sleep(self) -> None:
        """Stop the mining service; see AsicDriver."""
        async with self._commands:
            await self._signed("stop", "set.miner.service", "stop")

    async def wake(self) -> None:
        """Start the mining service; see AsicDriver."""
        async with self._commands:
            await self._start()

    async def _start(self) -> None:
        if under(await self._info(), "miner").get("working") != "true":
            await self._signed("start", "set.miner.service", "start")

    async def _holds(self, limit_w: int) -> bool:
        held_w = watts((await self._summary()).get("power-limit"))
        return held_w is not None and round(held_w) == limit_w

    async def _signed(self, doing: str, command: str, param: str | int) -> None:
        if self._setup.credentials is None:
            raise AsicRefused(self.address, doing, NO_PASSWORD)
        if not self._line.is_open or self._line.opened != self._met:
            # A new connection: before a command goes out, see that it leads to the same machine.
            await self._meet()
        held = self._salt
        salt = held or await self._fresh_salt(doing)
        reply = await self._send(command, param, salt)
        if reply.get("code") != 0 and held is not None:
            salt = await self._fresh_salt(doing)
            if salt != held:
                reply = await self._send(command, param, salt)
        if reply.get("code") != 0:
            self._salt = None
            reason = f"code {reply.get('code')}: {text(reply.get('msg'))}"
            raise AsicRefused(self.address, doing, reason)
        self._salt = salt

    async def _send(self, command: str, param: str | int, salt: str) -> Json:
        assert self._setup.credentials is not None
        at_unix_s = int(time.time())
        token = v3_token(command, self._setup.credentials.password, salt, at_unix_s)
        request: Json = {
            "cmd": command,
            "param": param,
            "ts": at_unix_s,
            "account": ACCOUNT,
            "token": token,
        }
        return await self._line.ask(request, repeatable=False)

    async def _fresh_salt(self, doing: str) -> str:
        salt = (await self._get("get.device.info", "salt")).get("salt")
        if not isinstance(salt, str):
            raise AsicUnreachable(self.address, doing, "the answer holds no salt")
        return salt

    async def _info(self) -> Json:
        return await self._get("get.device.info", None)

    async def _summary(self) -> Json:
        return under(await self._get("get.miner.status", "summary"), "summary")

    async def _get(self, command: str, param: str | None) -> Json:
        body = await self._ask(command, param)
        if self._line.opened != self._met:
            await self._meet()
        return body

    async def _meet(self) -> None:
        """See that the machine at the other end is the one that was identified.

        Raises:
            AsicUnreachable: the address has gone to another machine.
        """
        known = self._identity and self._identity.mac
        if known:
            mac = text(under(await self._ask("get.device.info", None), "network").get("mac"))
            if mac and mac.upper() != known:
                raise AsicUnreachable(self.address, "get.device.info", f"it is now {mac.upper()}")
        self._met = self._line.opened

    async def _ask(self, command: str, param: str | None) -> Json:
        reply = await self._line.ask({"cmd": command, "param": param}, repeatable=True)
        body = reply.get("msg")
        if reply.get("code") != 0 or not isinstance(body, dict):
            reason = f"answered code {reply.get('code')}"
            raise AsicUnreachable(self.address, command, reason)
        return body
