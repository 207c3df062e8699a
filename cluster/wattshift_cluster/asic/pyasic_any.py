"""Breadth: firmware without a driver of its own, read and put to sleep through pyasic.

What a machine may be asked is a table of ours (`BREADTH`), because pyasic's flags do not say it. It
names what can be read without a login, what more with one, and whether sleep is safe. Out of reach
for all of them: power limits (on an Avalon pyasic turns watts into a work level), configurations
(which hold the pools) and `is_mining` (true for a dead machine).

On port 4028 pyasic only composes and parses; our own bounded exchange carries the bytes, for its
own waits 100 s, takes a closed door for an empty answer and leaves the connection open when it is
broken off. Where it speaks HTTP, the door is knocked at first and our deadline is around the call.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.probe import UNKNOWN
from wattshift_cluster.asic.pyasic_handle import miner_for
from wattshift_cluster.asic.reported import hashes, text, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import CGMINER_PORT, REPLY_LIMIT, bounded, connected
from wattshift_cluster.bootclock import boot_s

FULL = "full"
AS_FOUND = "as-found"
MAX_CALLS = 64
"""pyasic starts all it is given at once; more than this many machines wait their turn."""

_CHUNK = 64 * 1024
_UNREADABLE = "pyasic could not read the answer"


@dataclass(frozen=True, slots=True)
class Breadth:
    """What may be asked of one firmware through pyasic.

    Attributes:
        reads: fields that need no login.
        with_login: further fields, with the owner's.
        http_port: where it speaks HTTP; None for cgminer JSON on 4028 alone.
        sleeps: whether pyasic's stop and resume are a single safe request.
        login: whether commands need the owner's.
        why_not: why it is not put to sleep.
        algorithm: of all of that make, for models that pyasic does not know.
    """

    reads: tuple[str, ...]
    with_login: tuple[str, ...] = ()
    http_port: int | None = None
    sleeps: bool = True
    login: bool = False
    why_not: str = ""
    algorithm: str = "sha256d"


# Read in pyasic 0.79's backends; nothing here was tried on hardware.
BREADTH: dict[str, Breadth] = {
    "avalon": Breadth(("hashrate", "wattage", "mac")),
    "bosminer": Breadth(("hashrate", "wattage")),
    "epic": Breadth(
        ("hashrate", "wattage", "mac"), http_port=CGMINER_PORT, login=True, algorithm=UNKNOWN
    ),
    "auradine": Breadth(("hashrate",), ("wattage", "mac"), http_port=8080, login=True),
    "marathon": Breadth(
        (),
        ("hashrate", "mac"),
        http_port=80,
        sleeps=False,
        login=True,
        why_not="pyasic would write its whole configuration back, pools included",
    ),
    "goldshell": Breadth(
        ("hashrate",),
        sleeps=False,
        why_not="pyasic would try the maker's password when the owner's fails",
        algorithm=UNKNOWN,
    ),
}

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class AnyDriver:
    """AsicDriver for one machine that pyasic knows.

    Args:
        setup: what is known of the machine.
        miner: pyasic's object for it.
    """

    def __init__(self, setup: Setup, miner: Any) -> None:
        self._setup = setup
        self._miner = miner
        self._breadth = BREADTH[setup.found.kind]
        self._commands = asyncio.Lock()
        self._points: tuple[AsicPoint, ...] = ()
        if miner.rpc is not None:
            miner.rpc._send_bytes = self._carry
        if miner.web is not None:
            # Never the maker's password: pyasic fills it in by itself.
            owners = setup.credentials
            miner.web.pwd = owners.password if owners else ""
            miner.web.username = (owners.username if owners else None) or miner.web.username

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model and identity. Raises AsicRefused where nothing says what it can draw."""
        model = await self._model()
        seen = await self._values("identify", self._fields)
        rated = rating(model)
        claims = (rated.watts_w if rated else None, self._setup.nameplate_w)
        nameplate_w = max((claim for claim in claims if claim is not None), default=None)
        if nameplate_w is None:
            reason = f"our table has no rating of a {model}: state its nameplate"
            raise AsicRefused(self.address, "identify", reason)
        hashrate = rated.hashrate_h_per_s if rated else seen.get("hashrate")
        # What our table rates computes sha256d, whatever class pyasic made for it.
        algorithm = _algorithm(self._miner) or ("sha256d" if rated else self._breadth.algorithm)
        self._points = self._offered(nameplate_w, hashrate or 0.0)
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"{self._setup.found.kind} {self._setup.found.version}",
            mac=seen.get("mac"),
            algorithm=algorithm,
            nameplate_w=nameplate_w,
            tolerance=self._setup.ability.tolerance,
            safe_w=self._points[0].watts_w,
            power_on_w=nameplate_w,
            continuous=False,
            points=self._points,
        )

    async def prepare(self) -> None:
        """See AsicDriver. pyasic keeps no connection."""

    async def close(self) -> None:
        """See AsicDriver."""

    async def poll(self) -> AsicReading:
        """See AsicDriver."""
        fields = tuple(field for field in self._fields if field != "mac")
        seen = await self._values("read", fields)
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=seen.get("wattage"),
            hashrate_h_per_s=seen.get("hashrate"),
            temperature_c=None,
            power_limit_w=None,
        )

    async def read(self) -> AsicReading:
        """Take one sample. Boards are asked for apart: one they cannot parse costs no watts."""
        reading = await self.poll()
        hottest_c = None
        if "wattage" in self._fields:
            with suppress(AsicUnreachable):
                hottest_c = (await self._values("read boards", ("hashboards",))).get("hashboards")
        return replace(reading, temperature_c=hottest_c)

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Sleep, or run as the machine is set up; see AsicDriver."""
        if mode == SLEEP:
            await self.sleep()
            return
        if not self._points:
            await self.identify()
        must_fit(self.address, self._points, mode, watts_w)
        await self.wake()

    async def sleep(self) -> None:
        """Stop mining; see AsicDriver."""
        await self._command("sleep", lambda miner: miner.stop_mining())

    async def wake(self) -> None:
        """Resume mining; see AsicDriver."""
        await self._command("wake up", lambda miner: miner.resume_mining())

    @property
    def _fields(self) -> tuple[str, ...]:
        more = self._breadth.with_login if self._setup.credentials else ()
        return (*self._breadth.reads, *more)

    async def _model(self) -> str:
        named = self._setup.found.model
        if named != UNKNOWN or self._setup.found.kind != "epic":
            return named
        told = await self._called("identify", lambda miner: miner.web.capabilities())
        return text(told.get("Model") if isinstance(told, dict) else None) or UNKNOWN

    async def _command(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        if not self._breadth.sleeps:
            raise AsicRefused(self.address, doing, self._breadth.why_not)
        if not self._setup.may_command:
            reason = "no password: name it for this machine in the agent's configuration"
            raise AsicRefused(self.address, doing, reason)
        async with self._commands:
            if await self._called(doing, request) is not True:
                raise AsicRefused(self.address, doing, "the machine did not accept it")

    async def _values(self, doing: str, fields: tuple[str, ...]) -> dict[str, Any]:
        """What it reports of `fields`; what it does not report, or not sanely, is missing."""
        if not fields:
            raise AsicRefused(self.address, doing, "it wants a login even to be read")
        try:
            data = await self._called(doing, lambda miner: miner.get_data(include=list(fields)))
        except AsicUnreachable as failed:
            # One value that pyasic cannot parse discards the sample: what is left, one by one?
            if len(fields) == 1 or failed.reason != _UNREADABLE:
                raise
            return await self._singly(doing, fields)
        return _sane(data, fields)

    async def _singly(self, doing: str, fields: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        fault: AsicUnreachable | None = None
        for field in fields:
            try:
                found |= await self._values(doing, (field,))
            except AsicUnreachable as failed:
                fault = failed
                if failed.reason != _UNREADABLE:
                    raise
        if fault is not None and not found:
            raise fault
        return found

    async def _called(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call pyasic under our deadline; whatever it raises becomes ours."""
        from httpx import HTTPError
        from pyasic import APIError

        async with _turn(self.address, doing, self._setup.deadline_s):
            if self._breadth.http_port is not None:
                with await connected(self.address, self._breadth.http_port):
                    pass
            try:
                return await request(self._miner)
            except (APIError, HTTPError, LookupError, TypeError, ValueError, AttributeError) as why:
                if isinstance(why.__cause__, AsicUnreachable):
                    raise why.__cause__ from None
                raise AsicUnreachable(self.address, doing, _UNREADABLE) from why

    async def _carry(self, data: bytes, *, port: int | None = None, **_: Any) -> bytes:
        """Carry one request to 4028, in place of pyasic's own; no other port is ever spoken to."""
        if port not in (None, CGMINER_PORT):
            raise AsicRefused(self.address, f"speak to port {port}", "no driver does")
        loop, received = asyncio.get_running_loop(), b""
        async with bounded(self.address, "ask", self._setup.deadline_s):
            with await connected(self.address, CGMINER_PORT) as sock:
                await loop.sock_sendall(sock, data)
                while chunk := await loop.sock_recv(sock, _CHUNK):
                    received += chunk
                    if received.endswith(b"\x00"):
                        break
                    if len(received) > REPLY_LIMIT:
                        raise OSError(None, f"its answer goes on after {REPLY_LIMIT} bytes")
        return received

    def _offered(self, nameplate_w: float, hashrate_h_per_s: float) -> tuple[AsicPoint, ...]:
        """Sleep and full, or the machine as found where it cannot be commanded.

        Where neither our table nor a sample tells a hashrate it is 0: such a point earns nothing.
        """
        ability = self._setup.ability
        if not self._breadth.sleeps or not self._setup.may_command:
            return (AsicPoint(AS_FOUND, nameplate_w, hashrate_h_per_s, 0.0),)
        return (
            AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s),
            AsicPoint(FULL, nameplate_w, hashrate_h_per_s, ability.settle_s),
        )


async def any_driver(setup: Setup) -> AnyDriver:
    """Make the driver; nothing is sent. Raises AsicRefused where pyasic is not installed."""
    return AnyDriver(setup, await miner_for(setup.address, setup.found))


@asynccontextmanager
async def _turn(address: str, doing: str, deadline_s: float) -> AsyncIterator[None]:
    """One call of pyasic: waits for its turn, then gives it `deadline_s` seconds."""
    turns = _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_CALLS))
    async with turns:
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError:
            raise AsicUnreachable(address, doing, f"no answer within {deadline_s:g} s") from None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise AsicUnreachable(address, doing, reason) from error


def _sane(data: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "wattage" in fields:
        found["wattage"] = watts(data.wattage)
    if "hashrate" in fields and (rate := data.raw_hashrate) is not None:
        found["hashrate"] = hashes(float(rate), float(int(rate.unit)))
    if "mac" in fields:
        found["mac"] = (text(data.mac) or "").upper() or None
    if "hashboards" in fields:
        boards = ((board.chip_temp, board.temp) for board in data.hashboards)
        heard = [c for pair in boards for c in pair if c is not None and 0 < c < 200]
        found["hashboards"] = float(max(heard)) if heard else None
    return {field: value for field, value in found.items() if value is not None}


def _algorithm(miner: Any) -> str | None:
    name = str(getattr(miner.algo, "name", "")).lower()
    if not name or name.startswith("generic"):
        return None
    return "sha256d" if name.startswith("sha256") else name


def must_fit(address: str, points: Sequence[AsicPoint], mode: str, watts_w: float) -> None:
    """Whether a point may be set under a lease of so many watts.

    Raises:
        AsicRefused: the machine has no such point, or it draws more than the lease allows.
    """
    point = next((one for one in points if one.mode == mode), None)
    if point is None:
        raise AsicRefused(address, f"set {mode}", "the machine has no such point")
    if watts_w < point.watts_w * 0.999:
        reason = f"it draws up to {point.watts_w:.0f} W, the lease allows {watts_w:.0f} W"
        raise AsicRefused(address, f"set {mode}", reason)
