"""How requests are framed on the ports of an emulated machine, and where each wire ends.

A wire serves one connection. `cgminer` takes one JSON object per connection, answers it with a NUL
at the end and closes; `framed` takes a 4-byte little-endian length and JSON, any number of times.

Most of an emulator's work is one small request per connection, so a wire may also be `Prompt`: it
answers from the bytes that came with the connection, and no reader, writer or task is needed.
"""

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

REQUEST_LIMIT = 64 * 1024
REQUEST_DEADLINE_S = 10.0

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Wire = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@runtime_checkable
class Prompt(Protocol):
    """A wire of one request per connection that can answer at once."""

    def at_once(self, received: bytes) -> bytes | None:
        """The whole answer, after which the connection closes; None for less than a request."""
        ...


class _Cgminer:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def at_once(self, received: bytes) -> bytes | None:
        try:
            request = json.loads(received)
        except ValueError:
            return None
        if not isinstance(request, dict):
            return b""
        return json.dumps(self._answer(request)).encode() + b"\x00"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, answer = b"", None
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            while answer is None and len(received) < REQUEST_LIMIT:
                chunk = await reader.read(REQUEST_LIMIT)
                if not chunk:
                    return
                received += chunk
                answer = self.at_once(received)
        if answer:
            writer.write(answer)
            await writer.drain()


def cgminer(answer: Answer) -> Wire:
    """Serve one request of the cgminer kind, which has no framing: it ends where its JSON does."""
    return _Cgminer(answer)


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
