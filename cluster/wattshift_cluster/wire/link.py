"""The asking end: one connection, one request at a time, connected again at the next call.

A call that failed leaves no half-read answer behind: the connection is dropped with it.
"""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from typing import Any

from wattshift_cluster.errors import Unreachable
from wattshift_cluster.wire import lines


class LinkError(Unreachable):
    """A call got no answer, or not the one it wanted.

    Attributes:
        address: host:port of the other side.
        op: what was asked.
        reason: why it failed.
    """

    def __init__(self, address: str, op: str, reason: str) -> None:
        super().__init__(f"{address}: {op}: {reason}")
        self.address = address
        self.op = op
        self.reason = reason


class Unauthorized(LinkError):
    """The other side does not share our token, or we do not share its."""


class OpFailed(LinkError):
    """The other side answered, with an error."""


class Link:
    """A connection to one agent or bridge. Safe to share between tasks of one event loop.

    Attributes:
        address: host:port.
        name: who answered last; None before the first connection.
    """

    def __init__(self, host: str, port: int, token: bytes, *, deadline_s: float = 2.0) -> None:
        """Prepare; nothing is connected yet. `deadline_s` holds for each call, waiting included."""
        self.address = f"{host}:{port}"
        self.name: str | None = None
        self._host = host
        self._port = port
        self._token = token
        self._deadline_s = deadline_s
        self._lock = asyncio.Lock()
        self._streams: tuple[StreamReader, StreamWriter] | None = None
        self._number = 0

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask and return the fields of the answer.

        Raises:
            Unauthorized: the tokens differ.
            OpFailed: the answer was an error.
            LinkError: no answer within the deadline.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._lock:
                return await self._exchange(op, fields)
        except TimeoutError as fault:
            raise LinkError(self.address, op, f"no answer in {self._deadline_s:g} s") from fault
        except (lines.LineInvalid, OSError) as fault:
            raise LinkError(self.address, op, str(fault)) from fault

    async def close(self) -> None:
        """End the connection; a later call opens another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            _drop(streams[1])

    async def _exchange(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        answered = False
        try:
            reader, writer = await self._connected(op)
            self._number += 1
            request = lines.encode({**fields, "id": self._number, "op": op})
            writer.write(request)
            await writer.drain()
            answer = await lines.read_message(reader)
            if answer is None:
                raise LinkError(self.address, op, "the other side closed the connection")
            if answer.pop("id", None) != self._number:
                raise LinkError(self.address, op, "the answer is to another request")
            answered = True
        finally:
            if not answered:
                await self.close()
        if answer.pop("ok", None) is not True:
            raise OpFailed(self.address, op, str(answer.get("error", "refused without a reason")))
        return answer

    async def _connected(self, op: str) -> tuple[StreamReader, StreamWriter]:
        if self._streams is not None:
            if not self._streams[0].at_eof():
                return self._streams
            await self.close()
        reader, writer = await asyncio.open_connection(
            self._host, self._port, limit=lines.LINE_LIMIT_BYTES
        )
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._handshake(op, reader, writer)
        except BaseException:
            _drop(writer)
            raise
        self._streams = reader, writer
        return self._streams

    async def _handshake(self, op: str, reader: StreamReader, writer: StreamWriter) -> None:
        hello = await self._expect(op, reader)
        if hello.get("wattshift") != lines.PROTOCOL:
            raise LinkError(self.address, op, f"speaks protocol {hello.get('wattshift')}")
        theirs, ours = str(hello.get("nonce")), lines.new_nonce()
        mac = lines.proof(self._token, "client", theirs, ours)
        await lines.write_message(writer, {"nonce": ours, "mac": mac})
        answer = await self._expect(op, reader)
        if not lines.proves(answer.get("mac"), self._token, "server", ours, theirs):
            raise Unauthorized(self.address, op, "the other side has another token")
        self.name = str(hello.get("name"))

    async def _expect(self, op: str, reader: StreamReader) -> dict[str, Any]:
        message = await lines.read_message(reader)
        if message is None:
            raise LinkError(self.address, op, "closed during the handshake")
        error = message.get("error")
        if error == "unauthorized":
            raise Unauthorized(self.address, op, "our token is not accepted")
        if error is not None:
            raise LinkError(self.address, op, str(error))
        return message


def _drop(writer: StreamWriter) -> None:
    """Close without waiting: an unresponsive peer must not hold us up."""
    writer.transport.abort()
