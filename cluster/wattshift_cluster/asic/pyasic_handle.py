"""The one place where pyasic is used: how a machine's object is made, and how it is called.

pyasic's convenience methods turn a refused command, a dead machine and a garbled reply into True,
False or an exception, depending on the make. So commands go through its protocol layer
(`miner.rpc`), whose reply is looked at here, under our own deadline. What it remembers between
calls (a LuxOS session, a Whatsminer salt) is forgotten first: both end when the machine says so.

pyasic takes more than a second to import, so it is loaded on first use and off the event loop.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.probe import Found
from wattshift_cluster.asic.wire import Json, bounded

IDENTIFY_DEADLINE_S = 12.0
_NEW_ENOUGH_FOR_V3 = "20251231"


class Handle:
    """pyasic's object for one machine.

    Args:
        address: of the machine.
        miner: what pyasic made of it.
        deadline_s: for each call.
    """

    def __init__(self, address: str, miner: Any, deadline_s: float) -> None:
        self.address = address
        self.deadline_s = deadline_s
        self._miner = miner

    @property
    def backend(self) -> str:
        """Name of pyasic's protocol class, e.g. "LUXMinerRPCAPI"."""
        return type(self._miner.rpc).__name__

    def use_password(self, password: str) -> None:
        """Sign commands with the owner's password."""
        self._miner.rpc.pwd = password

    async def call(self, doing: str, request: Callable[[Any], Awaitable[Any]]) -> Json:
        """Send one command through pyasic's protocol layer and return the machine's reply.

        Args:
            doing: what the command is, for the error text.
            request: given `miner.rpc`, starts the command.

        Raises:
            AsicRefused: the machine answered with an error.
            AsicUnreachable: no answer in time, or none that could be read.
        """
        from pyasic import APIError

        rpc = self._miner.rpc
        try:
            async with bounded(self.address, doing, self.deadline_s):
                reply = await request(rpc)
        except APIError as error:
            # pyasic has one class for both; these are its two texts for an unreadable answer.
            if str(error).startswith(("Decode Error", "No data returned")):
                raise AsicUnreachable(self.address, doing, "the answer is not JSON") from error
            raise AsicRefused(self.address, doing, str(error)) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # A connection that fails becomes "{}" inside pyasic and surfaces as any of these.
            raise AsicUnreachable(self.address, doing, "no usable answer") from error
        if not isinstance(reply, dict) or not reply:
            raise AsicUnreachable(self.address, doing, "no usable answer")
        return reply


async def handle_for(address: str, found: Found, *, deadline_s: float) -> Handle:
    """Let pyasic identify the machine and check that it chose the protocol that we saw.

    Raises:
        AsicUnreachable: pyasic found nothing in time.
        AsicRefused: pyasic is not installed, or took the machine for another firmware.
    """
    try:
        pyasic = await asyncio.to_thread(importlib.import_module, "pyasic")
    except ImportError as error:
        raise AsicRefused(
            address, "identify", "pyasic is not installed: pip install 'wattshift[asic]'"
        ) from error
    async with bounded(address, "identify", IDENTIFY_DEADLINE_S):
        miner = await pyasic.get_miner(address)
    if miner is None:
        raise AsicUnreachable(address, "identify", "pyasic found no machine")
    handle = Handle(address, miner, deadline_s)
    wanted = {"luxos": "LUXMinerRPCAPI", "whatsminer": "BTMinerV3RPCAPI"}[found.kind]
    if handle.backend != wanted and found.kind == "whatsminer":
        handle = Handle(address, _v3_whatsminer(address, found), deadline_s)
    if handle.backend != wanted:
        raise AsicRefused(
            address, "identify", f"pyasic speaks {handle.backend} to a {found.kind} machine"
        )
    return handle


def _v3_whatsminer(address: str, found: Found) -> Any:
    """Build the v3 object for a machine that answers on 4433 only, which pyasic takes for v2."""
    factory = importlib.import_module("pyasic.miners.factory")
    classes = factory.MINER_CLASSES[factory.MinerTypes.WHATSMINER]
    model = found.model.replace("_", "")[:-1] + "0"
    return classes.get(model.upper(), classes[None])(address, _NEW_ENOUGH_FOR_V3)
