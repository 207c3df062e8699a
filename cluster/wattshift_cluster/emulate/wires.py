"""How requests are framed on the ports of an emulated machine, and where each wire ends.

A wire serves one connection. `cgminer` takes one JSON object per connection, answers it with a NUL
at the end and closes; `framed` takes a 4-byte little-endian length and JSON, any number of times.
"""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

REQUEST_LIMIT = 64 * 1024
REQUEST_DEADLINE_S = 10.0

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Wire = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def cgminer(answer: Answer) -> Wire:
    """Serve one request of the cgminer kind, which has no framing: it ends where its JSON does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            while len(received) < REQUEST_LIMIT:
                chunk = await reader.read(REQUEST_LIMIT)
                if not chunk:
                    return
                received += chunk
                with suppress(ValueError):
                    request = json.loads(received)
                    break
            else:
                return
        if isinstance(request, dict):
            writer.write(json.dumps(answer(request)).encode() + b"\x00")
            await writer.drain()

    return serve


def framed(answer: Answer) -> Wire:
    """Serve length-prefixed requests until the client leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                (length,) = struct.unpack("<I", await reader.readexactly(4))
                if length > REQUEST_LIMIT:
                    return
                request = json.loads(await reader.readexactly(length))
            if not isinstance(request, dict):
                return
            body = json.dumps(answer(request)).encode()
            writer.write(struct.pack("<I", len(body)) + body)
            await writer.drain()

    return serve
