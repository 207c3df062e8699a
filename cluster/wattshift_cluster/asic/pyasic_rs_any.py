"""A second, independent client: pyasic-rs, where it is installed.

It serves machines where pyasic is missing, and any of `KINDS_RS` on request (`prefer`). Its own
discovery asks for nothing that a password protects on these makes; on others it would try the
maker's, so they are not handed to it. It gives up after seconds by itself; our deadline is around
each call all the same. Of what it offers only four readings, pause and resume are used, and their
return value proves nothing: `pause` was seen to return True for a request that the machine dropped.
"""

import asyncio
import importlib
import importlib.util
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
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.probe import UNKNOWN
from wattshift_cluster.asic.pyasic_any import AS_FOUND, FULL, must_fit
from wattshift_cluster.asic.reported import hashes, text, watts
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.wire import CGMINER_PORT, FRAMED_PORT, bounded, connected
from wattshift_cluster.bootclock import boot_s

NAME = "pyasic_rs"
FIND_DEADLINE_S = 8.0

# kind: (the port that a closed door is told by, whether pause and resume may be used)
KINDS_RS: dict[str, tuple[int, bool]] = {
    "luxos": (CGMINER_PORT, True),
    "whatsminer": (FRAMED_PORT, True),
    "avalon": (CGMINER_PORT, True),
    "bosminer": (CGMINER_PORT, True),
    "epic": (CGMINER_PORT, True),
    "auradine": (CGMINER_PORT, False),
}


class RsDriver:
    """AsicDriver for one machine that pyasic-rs found.

    Args:
        setup: what is known of the machine.
        miner: pyasic-rs's object for it.
    """

    def __init__(self, setup: Setup, miner: Any) -> None:
        self._setup = setup
        self._miner = miner
        self._port, self._pauses = KINDS_RS[setup.found.kind]
        self._commands = asyncio.Lock()
        self._points: tuple[AsicPoint, ...] = ()
        if owners := setup.credentials:
            miner.set_auth(owners.username or "super", owners.password)

    @property
    def address(self) -> str:
        """Where the machine answers."""
        return self._setup.address

    async def identify(self) -> AsicIdentity:
        """Read model and identity. Raises AsicRefused where nothing says what it can draw."""
        named = self._setup.found.model
        model = str(self._miner.model) if named == UNKNOWN else named
        mac = await self._called("identify", lambda miner: miner.get_mac())
        rated = rating(model)
        claims = (rated.watts_w if rated else None, self._setup.nameplate_w)
        nameplate_w = max((claim for claim in claims if claim is not None), default=None)
        if nameplate_w is None:
            reason = f"our table has no rating of a {model}: state its nameplate"
            raise AsicRefused(self.address, "identify", reason)
        self._points = self._offered(nameplate_w, rated.hashrate_h_per_s if rated else 0.0)
        return AsicIdentity(
            address=self.address,
            model=model,
            firmware=f"{self._miner.firmware} {self._setup.found.version}",
            mac=(text(mac) or "").upper() or None,
            algorithm="sha256d" if str(self._miner.algo) == "SHA256" else str(self._miner.algo),
            nameplate_w=nameplate_w,
            tolerance=self._setup.ability.tolerance,
            safe_w=self._points[0].watts_w,
            power_on_w=nameplate_w,
            continuous=False,
            points=self._points,
        )

    async def prepare(self) -> None:
        """See AsicDriver."""

    async def close(self) -> None:
        """See AsicDriver."""

    async def poll(self) -> AsicReading:
        """See AsicDriver."""
        drawn = await self._called("read", lambda miner: miner.get_wattage())
        rate = await self._called("read", lambda miner: miner.get_hashrate())
        return AsicReading(
            at_boot_s=boot_s(),
            watts_w=watts(drawn),
            hashrate_h_per_s=_hashrate(rate),
            temperature_c=None,
            power_limit_w=None,
        )

    async def read(self) -> AsicReading:
        """See AsicDriver."""
        return await self.poll()

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
        """Pause mining; see AsicDriver."""
        await self._command("sleep", lambda miner: miner.pause())

    async def wake(self) -> None:
        """Resume mining; see AsicDriver."""
        await self._command("wake up", lambda miner: miner.resume())

    async def _command(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> None:
        if not self._pauses:
            raise AsicRefused(self.address, doing, "not through pyasic-rs: its login is its own")
        if not self._setup.may_command:
            reason = "no password: name it for this machine in the agent's configuration"
            raise AsicRefused(self.address, doing, reason)
        async with self._commands:
            if await self._called(doing, request) is not True:
                raise AsicRefused(self.address, doing, "the machine did not accept it")

    async def _called(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call it under our deadline. It takes a closed door for a value that is not there."""
        async with bounded(self.address, doing, self._setup.deadline_s):
            with await connected(self.address, self._port):
                pass
            try:
                return await request(self._miner)
            except (RuntimeError, ValueError) as why:
                reason = "pyasic-rs got no usable answer"
                raise AsicUnreachable(self.address, doing, reason) from why

    def _offered(self, nameplate_w: float, hashrate_h_per_s: float) -> tuple[AsicPoint, ...]:
        ability = self._setup.ability
        if not self._pauses or not self._setup.may_command:
            return (AsicPoint(AS_FOUND, nameplate_w, hashrate_h_per_s, 0.0),)
        return (
            AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s),
            AsicPoint(FULL, nameplate_w, hashrate_h_per_s, ability.settle_s),
        )


def installed() -> bool:
    """Whether pyasic-rs can be imported here."""
    try:
        return importlib.util.find_spec(NAME) is not None
    except ValueError:  # blocked: sys.modules holds None for it
        return False


async def rs_driver(setup: Setup) -> RsDriver:
    """Let pyasic-rs find the machine.

    Raises:
        AsicRefused: it is not installed, or this kind is not handed to it.
        AsicUnreachable: it found nothing in time.
    """
    if setup.found.kind not in KINDS_RS:
        reason = f"pyasic-rs is not used for a {setup.found.kind} machine"
        raise AsicRefused(setup.address, "identify", reason)
    try:
        library = await asyncio.to_thread(importlib.import_module, NAME)
    except ImportError as error:
        reason = "pyasic-rs is not installed: pip install pyasic-rs"
        raise AsicRefused(setup.address, "identify", reason) from error
    async with bounded(setup.address, "identify", FIND_DEADLINE_S):
        miner = await library.MinerFactory().get_miner(setup.address)
    if miner is None:
        raise AsicUnreachable(setup.address, "identify", "pyasic-rs found no machine")
    return RsDriver(setup, miner)


def _hashrate(rate: Any) -> float | None:
    if rate is None:
        return None
    return hashes(float(rate.value), float(rate.unit.value))
