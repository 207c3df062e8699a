"""The one door to pyasic: how it is loaded and disarmed, and how a machine's object is made.

Objects are made from its table of classes: its discovery tries makers' passwords, ours asks none.
Loaded, it is disarmed for the whole process: `open_api`, which hands a machine's address to a host
on the internet, can only be refused; and no web answer is read beyond 1 MiB or unpacked. It takes
more than a second to import, so it is loaded on first use and off the event loop.
"""

import asyncio
import importlib
import importlib.util
import warnings
from collections.abc import AsyncIterator
from typing import Any

from wattshift_cluster.asic.driver import AsicRefused
from wattshift_cluster.asic.probe import UNKNOWN, Found
from wattshift_cluster.asic.wire import REPLY_LIMIT

MAKES: dict[str, tuple[str, str]] = {
    "epic": ("EPIC", "ePIC"),
    "auradine": ("AURADINE", "Auradine"),
    "avalon": ("AVALONMINER", "AvalonMiner"),
    "marathon": ("MARATHON", "MaraMiner"),
    "bosminer": ("BRAIINS_OS", "BOSMiner"),
    "goldshell": ("GOLDSHELL", "GoldshellMiner"),
}
"""What pyasic calls the makes that it is used for, and the class that speaks their language."""


async def miner_for(address: str, found: Found) -> Any:
    """Make pyasic's own object for the machine, of the class for its model. Nothing is sent.

    Raises:
        AsicRefused: pyasic is not installed.
    """
    try:
        factory = await asyncio.to_thread(_load)
    except ImportError as error:
        reason = "pyasic is not installed: pip install 'wattshift[asic]'"
        raise AsicRefused(address, "identify", reason) from error
    make, speaker = MAKES[found.kind]
    classes = factory.MINER_CLASSES[factory.MinerTypes[make]]
    chosen = classes.get(_class_name(found), classes[None])
    if all(base.__name__ != speaker for base in chosen.__mro__):
        # By its model it takes an S19 for newer firmware, which it would log in to.
        chosen = classes[None]
    with warnings.catch_warnings():
        # It asks its users to report models whose chips it cannot count; nobody here counts chips.
        warnings.simplefilter("ignore")
        return chosen(address, None)


def installed() -> bool:
    """Whether pyasic can be imported here; it is not loaded for that."""
    try:
        return importlib.util.find_spec("pyasic") is not None
    except ValueError:  # blocked: sys.modules holds None for it
        return False


def _class_name(found: Found) -> str | None:
    if found.model == UNKNOWN:
        return None
    return found.model.replace("Bitmain ", "").split(" (")[0].upper()


def _load() -> Any:
    """Import pyasic and take its teeth out; may be repeated."""
    factory = importlib.import_module("pyasic.miners.factory")
    btminer = importlib.import_module("pyasic.rpc.btminer")
    settings: Any = importlib.import_module("pyasic.settings")
    btminer.BTMinerRPCAPI.open_api = _never
    settings.transport = _bounded_transport
    return factory


async def _never(rpc: Any) -> None:
    reason = "it would hand the machine's address to a host on the internet"
    raise AsicRefused(str(rpc.ip), "open the API", reason)


def _bounded_transport(verify: Any = False) -> Any:
    """Make what pyasic sends web requests with: plain answers of at most 1 MiB."""
    import httpx

    class Bounded(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.headers["Accept-Encoding"] = "identity"
            response = await super().handle_async_request(request)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise httpx.DecodingError("the answer came packed", request=request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _limited(response.stream, request)
            return response

    def _limited(stream: httpx.AsyncByteStream, request: httpx.Request) -> httpx.AsyncByteStream:
        class Limited(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                left = REPLY_LIMIT
                async for chunk in stream:
                    left -= len(chunk)
                    if left < 0:
                        reason = f"the answer is longer than {REPLY_LIMIT} bytes"
                        raise httpx.ReadError(reason, request=request)
                    yield chunk

            async def aclose(self) -> None:
                await stream.aclose()

        return Limited()

    return Bounded(verify=verify)
