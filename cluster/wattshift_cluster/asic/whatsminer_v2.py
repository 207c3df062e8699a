"""Whatsminer with firmware API v2: a power limit in watts, off and on, over port 4028.

Readings are plain. Commands are sealed with a key from the owner's password and carry a token that
the machine hands out for half an hour; it has room for a few dozen. So one token is held, and with
it a prepared command is a single exchange. A command that is refused, or answered in a way that
cannot be read, although its token was held, is sent once more with a fresh one.

Setting a limit restarts mining, so a limit that is already held is not set again. The machine's
word counts for nothing, as always: some firmware answers "API command OK" to what it drops.
"""

import asyncio
from dataclasses import dataclass

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.reported import Json, first, hashes, number, text, under, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.whatsminer_points import Stated, identity, limit_of
from wattshift_cluster.asic.whatsminer_sign import V2Secrets, seal, unseal, v2_secrets
from wattshift_cluster.asic.wire import ask_cgminer, exchange_cgminer
from wattshift_cluster.bootclock import boot_s

COMMAND_OK = 131
TOKEN_S = 25 * 60.0
"""The maker's document says 30 minutes; five of them are left for a clock that runs otherwise."""

NO_PASSWORD = "no password: name it for this machine in the agent's configuration"
_GH, _MH = 1e9, 1e6


@dataclass(frozen=True, slots=True)
class _Token:
    secrets: V2Secrets
    since_s: float


class WhatsminerV2Driver:
    """AsicDriver for one Whatsminer v2.

    Args:
        setup: the machine and its owner's password; without one it is only read.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._identity: AsicIdentity | None = None
        self._token: _Token | None = None
        self._commands = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model and firmware. Raises AsicRefused where the power range cannot be known."""
        details, version = await self._ask("devdetails"), await self._ask("get_version")
        summary, info = await self._summary(), await self._info()
        stated = Stated(
            model=text(first(details, "DEVDETAILS").get("Model")) or "unknown",
            firmware=text(under(version, "Msg").get("fw_ver")) or "unknown",
            mac=_mac(summary) or _mac(info),
            serial=text(info.get("minersn")),
            factory_h_per_s=hashes(summary.get("Factory GHS"), _GH),
        )
        self._identity = identity(self._setup, stated)
        return self._identity

    async def prepare(self) -> None:
        """Fetch a token, or a new one where the held one is getting old."""
        if self._setup.credentials is None:
            return
        async with self._commands:
            if self._fresh() is None:
                await self._new_token("prepare")

    async def close(self) -> None:
        """Forget the token; no connection is held."""
        self._token = None

    async def poll(self) -> AsicReading:
        """See AsicDriver. The firmware has no smaller answer than the full one."""
        return await self.read()

    async def read(self) -> AsicReading:
        """Take one sample. `mode` is None at zero hashrate: off and starting look alike."""
        summary = await self._summary()
        self._same(summary)
        hashrate = hashes(summary.get("HS RT", summary.get("MHS 5s")), _MH)
        # A machine that does not hash draws standby whatever limit it keeps for later.
        limit_w = watts(summary.get("Power Limit")) if hashrate else None
        hottest_c = number(summary.get("Chip Temp Max"))
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(summary.get("Power")),
            hashrate_h_per_s=hashrate,
            temperature_c=number(summary.get("Temperature")) if hottest_c is None else hottest_c,
            power_limit_w=limit_w,
            mode=f"limit:{limit_w:.0f}" if limit_w else None,
            inlet_c=number(summary.get("Env Temp")),
        )

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold a power limit; see AsicDriver. The limit is in place before the machine is woken."""
        if mode == SLEEP:
            await self.sleep()
            return
        limit_w = limit_of(self._identity or await self.identify(), mode, watts_w)
        async with self._commands:
            if not await self._holds(limit_w):
                request: Json = {"cmd": "adjust_power_limit", "power_limit": str(limit_w)}
                await self._sealed(f"set {mode}", request)
                if not await self._holds(limit_w):
                    reason = "accepted, but the limit is another"
                    raise AsicRefused(self.address, f"set {mode}", reason)
            await self._start()

    async def sleep(self) -> None:
        """Power the hash boards off; see AsicDriver. The machine answers before it does so."""
        async with self._commands:
            await self._sealed("power off", {"cmd": "power_off", "respbefore": "true"})

    async def wake(self) -> None:
        """Power the hash boards on; see AsicDriver."""
        async with self._commands:
            await self._start()

    async def _start(self) -> None:
        status = under(await self._ask("status"), "Msg")
        off = status.get("mineroff", status.get("btmineroff"))
        if str(off).lower() != "false":
            await self._sealed("power on", {"cmd": "power_on"})

    async def _holds(self, limit_w: int) -> bool:
        summary = await self._summary()
        self._same(summary)
        held_w = watts(summary.get("Power Limit"))
        return held_w is not None and round(held_w) == limit_w

    def _same(self, summary: Json) -> None:
        """Raise AsicUnreachable where the address has gone to another machine."""
        known, mac = self._identity and self._identity.mac, _mac(summary)
        if known and mac and known != mac:
            raise AsicUnreachable(self.address, "summary", f"it is now {mac}")

    # Commands

    async def _sealed(self, doing: str, request: Json) -> None:
        if self._setup.credentials is None:
            raise AsicRefused(self.address, doing, NO_PASSWORD)
        held = self._fresh()
        if held is not None:
            try:
                await self._send(doing, request, held)
                return
            except AsicRefused:
                # The machine restarted, or ran out of room for tokens: it knows ours no more.
                self._token = None
        await self._send(doing, request, await self._new_token(doing))

    async def _send(self, doing: str, request: Json, token: _Token) -> None:
        sealed = seal(token.secrets.key, {**request, "token": token.secrets.token})
        reply = await exchange_cgminer(
            self.address, doing, {"enc": 1, "data": sealed}, deadline_s=self._setup.deadline_s
        )
        if isinstance(answer := reply.get("enc"), str):
            try:
                reply = unseal(token.secrets.key, answer)
            except ValueError:
                raise AsicRefused(self.address, doing, "its answer has another key") from None
        if reply.get("Code") != COMMAND_OK:
            self._token = None
            raise AsicRefused(self.address, doing, _reason(reply))

    def _fresh(self) -> _Token | None:
        held = self._token
        return held if held is not None and boot_s() - held.since_s < TOKEN_S else None

    async def _new_token(self, doing: str) -> _Token:
        assert self._setup.credentials is not None
        since_s = boot_s()
        reply = await self._ask("get_token")
        parts = [under(reply, "Msg").get(key) for key in ("salt", "time", "newsalt")]
        salt, at, newsalt = (part if isinstance(part, str) else None for part in parts)
        if salt is None or at is None or newsalt is None:
            raise AsicRefused(self.address, doing, f"it hands out no token: {_reason(reply)}")
        try:
            secrets = v2_secrets(self._setup.credentials.password, salt, at, newsalt)
        except ValueError:
            raise AsicUnreachable(self.address, doing, "its token cannot be used") from None
        except ImportError as error:
            missing = f"{error.name} is not installed: pip install 'wattshift[asic]'"
            raise AsicRefused(self.address, doing, missing) from error
        self._token = _Token(secrets, since_s)
        return self._token

    # Readings

    async def _summary(self) -> Json:
        reply = await self._ask("summary")
        # Newer firmware answers {"Msg": {...}} where older has {"SUMMARY": [{...}]}.
        return first(reply, "SUMMARY") or under(reply, "Msg")

    async def _info(self) -> Json:
        """Hardware address and serial number, on firmware that tells them this way."""
        return under(await self._ask("get_miner_info"), "Msg")

    async def _ask(self, command: str) -> Json:
        return await ask_cgminer(self.address, command, deadline_s=self._setup.deadline_s)


def _mac(said: Json) -> str | None:
    mac = text(said.get("MAC")) or text(said.get("mac"))
    return mac.upper() if mac else None


def _reason(reply: Json) -> str:
    """What the machine says against it. It answers in one of two shapes."""
    said = first(reply, "STATUS") or reply
    code, message = number(said.get("Code")), text(said.get("Msg")) or "refused"
    return message if code is None else f"code {code:.0f}: {message}"
