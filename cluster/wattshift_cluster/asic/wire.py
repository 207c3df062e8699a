"""The two request shapes that our own polls use: cgminer JSON on 4028, framed JSON on 4433.

pyasic opens a connection without a deadline, waits up to 100 s for an answer, turns a refused
connection into an empty reply, and costs two to five times the CPU of a hand-written request. So
samples are taken here, once a second, while identification and commands go through pyasic. Every
exchange is one connection, one deadline, at most 1 MiB, and at most 256 at a time in this process.
"""

import asyncio
import json
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from wattshift_cluster.asic.driver import AsicUnreachable

CGMINER_PORT = 4028
FRAMED_PORT = 4433
REPLY_LIMIT = 1024 * 1024
MAX_EXCHANGES = 256

Json = dict[str, Any]

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def bounded(address: str, doing: str, deadline_s: float) -> AsyncIterator[None]:
    """One exchange with a machine: waits for a free slot, then gives it `deadline_s` seconds.

    Raises:
        AsicUnreachable: no connection, no answer in time, or the connection broke.
    """
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_EXCHANGES))
    async with slots:
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError:
            raise AsicUnreachable(address, doing, f"no answer within {deadline_s:g} s") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise AsicUnreachable(address, doing, _reason(error)) from error


async def ask_cgminer(address: str, command: str, *, deadline_s: float) -> Json:
    """Send one command without parameters to port 4028 and return its reply.

    Raises:
        AsicUnreachable: see `bounded`; also for a reply that is not a JSON object.
    """
    async with bounded(address, command, deadline_s):
        reader, writer = await asyncio.open_connection(address, CGMINER_PORT, limit=REPLY_LIMIT)
        try:
            writer.write(json.dumps({"command": command}).encode())
            await writer.drain()
            payload = await _until_end(reader)
        finally:
            writer.close()
    return _parsed(address, command, payload.rstrip(b"\x00\n"))


async def ask_framed(address: str, command: str, param: str | None, *, deadline_s: float) -> Json:
    """Send one `get.*` command to port 4433 and return its reply.

    Raises:
        AsicUnreachable: see `bounded`; also for a reply that is not a JSON object.
    """
    request = json.dumps({"cmd": command, "param": param}).encode()
    async with bounded(address, command, deadline_s):
        reader, writer = await asyncio.open_connection(address, FRAMED_PORT, limit=REPLY_LIMIT)
        try:
            writer.write(struct.pack("<I", len(request)) + request)
            await writer.drain()
            (length,) = struct.unpack("<I", await reader.readexactly(4))
            if length > REPLY_LIMIT:
                raise AsicUnreachable(address, command, f"announced a reply of {length} bytes")
            payload = await reader.readexactly(length)
        finally:
            writer.close()
    return _parsed(address, command, payload)


def number(value: object) -> float | None:
    """A reported quantity as a float; None unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) and parsed >= 0.0 else None


def rows(reply: object, key: str) -> list[Json]:
    """The list of objects under `key`; empty where the reply does not hold one."""
    found = reply.get(key) if isinstance(reply, dict) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def first(reply: object, key: str) -> Json:
    """The first object of the list under `key`; empty where there is none."""
    return next(iter(rows(reply, key)), {})


async def _until_end(reader: asyncio.StreamReader) -> bytes:
    """Read to the NUL that ends a cgminer reply, or to the end of the connection."""
    received = b""
    while not received.endswith(b"\x00") and len(received) <= REPLY_LIMIT:
        chunk = await reader.read(65536)
        if not chunk:
            break
        received += chunk
    return received


def _parsed(address: str, doing: str, payload: bytes) -> Json:
    try:
        reply = json.loads(payload)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise AsicUnreachable(address, doing, "the answer is not a JSON object")
    return reply


def _reason(error: OSError | asyncio.IncompleteReadError) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection closed in the middle of the answer"
    return error.strerror or type(error).__name__
