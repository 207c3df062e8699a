"""The answering end of a link: proves itself, asks for proof, then serves one request at a time.

    request {"id": n, "op": text, …}
    answer  {"id": n, "ok": true, …}  or  {"id": n, "ok": false, "error": text}

Connections that have not proved themselves are counted apart, so that a stranger who knows no token
cannot use up the places of those who do.
"""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.wire import lines

log = structlog.get_logger()

CONNECTIONS = 8
HANDSHAKE_S = 5.0
REQUEST_S = 10.0
"""Within this a request is answered and the answer taken."""

IDLE_S = 120.0
"""A connection that asks nothing for this long is closed; a link opens another by itself."""

Handler = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""(op, other fields) → the fields of the answer. A WattshiftError becomes the answer's error."""


async def serve(
    host: str, port: int, *, name: str, token: bytes, handler: Handler
) -> asyncio.Server:
    """Listen and answer until the server is closed.

    Args:
        host, port: where; port 0 takes a free one.
        name: who answers, sent before authentication.
        token: the shared secret.
        handler: called for each request that was proved, in any number of connections at once.

    Raises:
        OSError: the address cannot be listened on.
    """
    assert token, "an empty token would let everybody in"
    front = _Front(name, token, handler)
    return await asyncio.start_server(front.accept, host, port, limit=lines.LINE_LIMIT_BYTES)


class _Front:
    """Admits connections and counts them."""

    def __init__(self, name: str, token: bytes, handler: Handler) -> None:
        self._name = name
        self._token = token
        self._handler = handler
        self._strangers = 0
        self._admitted = 0

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection to its end; never raises."""
        peer = writer.get_extra_info("peername")
        _keep_alive(writer)
        try:
            if await self._admit(reader, writer):
                await self._converse(reader, writer)
        except (lines.LineInvalid, TimeoutError, OSError) as fault:
            log.warning("wire.dropped", name=self._name, peer=peer, reason=str(fault) or "deadline")
        except asyncio.CancelledError:
            # The process ends; asyncio would print a trace for a cancelled connection.
            log.debug("wire.ended", name=self._name, peer=peer)
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)

    async def _admit(self, reader: StreamReader, writer: StreamWriter) -> bool:
        if self._strangers >= CONNECTIONS or self._admitted >= CONNECTIONS:
            await self._refuse(writer, "too many connections")
            return False
        self._strangers += 1
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                return await self._handshake(reader, writer)
        finally:
            self._strangers -= 1

    async def _handshake(self, reader: StreamReader, writer: StreamWriter) -> bool:
        nonce = lines.new_nonce()
        hello = {"wattshift": lines.PROTOCOL, "name": self._name, "nonce": nonce}
        await lines.write_message(writer, hello)
        answer = await lines.read_message(reader)
        if answer is None:
            return False
        theirs = str(answer.get("nonce"))
        if not lines.proves(answer.get("mac"), self._token, "client", nonce, theirs):
            log.warning("wire.unauthorized", name=self._name)
            await self._refuse(writer, "unauthorized")
            return False
        if self._admitted >= CONNECTIONS:
            await self._refuse(writer, "too many connections")
            return False
        mac = lines.proof(self._token, "server", theirs, nonce)
        await lines.write_message(writer, {"mac": mac})
        return True

    async def _refuse(self, writer: StreamWriter, reason: str) -> None:
        async with asyncio.timeout(HANDSHAKE_S):
            await lines.write_message(writer, {"error": reason})

    async def _converse(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._admitted += 1
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    request = await lines.read_message(reader)
                if request is None:
                    return
                async with asyncio.timeout(REQUEST_S):
                    writer.write(await self._answer(request))
                    await writer.drain()
        finally:
            self._admitted -= 1

    async def _answer(self, request: dict[str, Any]) -> bytes:
        number, op = request.pop("id", None), request.pop("op", None)
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(op, str):
            return _failed(None, "a request has an integer id and an op")
        try:
            fields = await self._handler(op, request)
            return lines.encode({**fields, "id": number, "ok": True})
        except (WattshiftError, lines.LineInvalid) as fault:
            return _failed(number, str(fault))
        except Exception as fault:
            log.exception("wire.handler_failed", name=self._name, op=op)
            return _failed(number, f"internal error: {type(fault).__name__}")


def _failed(number: int | None, error: str) -> bytes:
    return lines.encode({"id": number, "ok": False, "error": error[:1000]})


def _keep_alive(writer: StreamWriter) -> None:
    """Answers are small and awaited: send at once, and notice a peer that vanished."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
