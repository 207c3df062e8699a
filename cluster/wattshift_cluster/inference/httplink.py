"""The least HTTP/1.1 client that a load generator needs: POST JSON over kept-alive connections.

A full client library costs several times the processor time per request, on a machine where the
load generator must not be the load.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from urllib.parse import urlsplit

from wattshift_cluster.errors import Unreachable

HEADER_BYTES_MAX = 64 << 10
BODY_BYTES_MAX = 8 << 20
IDLE_CONNECTIONS_MAX = 64


class BadAnswer(Unreachable):
    """The server closed early or did not speak HTTP/1.1 with a length."""


class HttpLink:
    """Connections to one URL, kept for the next request. For one event loop."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is connected yet. Only `http://host:port/path` is spoken."""
        parts = urlsplit(url)
        assert parts.scheme == "http", "an http:// URL"
        assert parts.hostname, "a URL with a host"
        self._host, self._port = parts.hostname, parts.port or 80
        self._head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._idle: list[tuple[StreamReader, StreamWriter]] = []

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Deadlines are the caller's.

        Raises:
            BadAnswer, OSError: no proper answer.
        """
        while self._idle:
            streams = self._idle.pop()
            with suppress(BadAnswer, OSError):  # closed by the server while it lay idle
                return await self._exchange(streams, body)
        return await self._exchange(await self._connect(), body)

    async def close(self) -> None:
        """Close every idle connection."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        return await asyncio.open_connection(self._host, self._port, limit=HEADER_BYTES_MAX)

    async def _exchange(
        self, streams: tuple[StreamReader, StreamWriter], body: bytes
    ) -> tuple[int, bytes]:
        reader, writer = streams
        keep = False
        try:
            writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
            await writer.drain()
            status, headers = await _read_head(reader)
            answer = await _read_body(reader, headers)
            keep = headers.get("connection", "").lower() != "close"
            return status, answer
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as fault:
            raise BadAnswer(str(fault)) from fault
        finally:
            if keep and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(streams)
            else:
                writer.close()


async def _read_head(reader: StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise BadAnswer(f"not HTTP/1: {first[:40]}")
    pairs = (line.partition(":") for line in lines if line)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        length = int(headers["content-length"])
        if not 0 <= length <= BODY_BYTES_MAX:
            raise BadAnswer(f"a body of {length} bytes")
        return await reader.readexactly(length)
    if headers.get("transfer-encoding", "").lower() != "chunked":
        raise BadAnswer("an answer without a length")
    parts: list[bytes] = []
    total = 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        total += size
        if size < 0 or total > BODY_BYTES_MAX:
            raise BadAnswer("a body that is too long")
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
