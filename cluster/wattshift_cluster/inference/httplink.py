"""The least HTTP/1.1 client that a load generator needs: one URL over kept-alive connections.

A full client library costs several times the processor time per request, on a machine where the
load generator must not be the load. Nothing is sent twice: a request that fails is a failure, also
on a connection that was kept. Redirects are answers like others.
"""

import asyncio
import re
import ssl
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from wattshift_cluster.errors import Unreachable

HEADER_BYTES_MAX = 64 << 10
BODY_BYTES_MAX = 8 << 20
PART_BYTES = 64 << 10
IDLE_CONNECTIONS_MAX = 1024
IDLE_MAX_S = 2.0
"""Servers close an idle connection after 5 s or more; one that old might close in our face."""
HEADS_MAX = 8
"""Interim answers (1xx) before the real one."""

JSON_BODY = (("Content-Type", "application/json"),)

_PLAIN = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")

Sink: TypeAlias = Callable[[bytes], None]
"""Gets each part of a body when it comes."""


class BadAnswer(Unreachable):
    """The server closed early, or said more than is allowed, or did not speak HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def web_url(text: str) -> SplitResult:
    """The parts of an http(s) URL.

    Raises:
        ValueError: it is none, or holds a user and password, which would end up in logs.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _PLAIN.fullmatch(text):
        raise ValueError("allowed: an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("no user and password in a URL; give a header")
    if parts.port == 0:
        raise ValueError("port 0 is none")
    return parts


def header_of(text: str) -> tuple[str, str]:
    """Name and value of `Name: value`. Raises ValueError without telling the value."""
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError("allowed: 'Name: value' in printable ASCII")
    if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
        raise ValueError(f"{name} is set by the client itself")
    return name, value.strip()


class HttpLink:
    """Connections to one URL, kept for the next request. For one event loop."""

    def __init__(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Sequence[tuple[str, str]] = JSON_BODY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: the only address that is ever asked.
            method: of every request.
            headers: sent with every request; never logged.
            tls: how an https server is verified; None as the system does.

        Raises:
            ValueError: `url` is no http(s) URL.
        """
        parts = web_url(url)
        secure = parts.scheme == "https"
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._method = method
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
        self._idle: list[tuple[StreamReader, StreamWriter, float]] = []

    async def ask(self, body: bytes = b"", sink: Sink | None = None) -> Answer:
        """Send one request and return the answer. Deadlines are the caller's.

        Args:
            body: of the request.
            sink: also gets each part of the answer's body at the moment it comes.

        Raises:
            BadAnswer, OSError: no proper answer.
        """
        reader, writer = await self._connection()
        keep = False
        try:
            writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
            await writer.drain()
            answer, whole = await self._read(reader, sink)
            keep = whole and answer.headers.get("connection", "").lower() != "close"
            return answer
        except asyncio.IncompleteReadError as fault:
            raise BadAnswer("the server closed the connection before its answer ended") from fault
        except (asyncio.LimitOverrunError, ValueError) as fault:
            raise BadAnswer(f"not HTTP/1.1: {fault}") from fault
        finally:
            if keep and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append((reader, writer, time.monotonic()))
            else:
                writer.close()

    async def close(self) -> None:
        """Close every idle connection."""
        for _, writer, _ in self._idle:
            writer.close()
        self._idle.clear()

    async def _connection(self) -> tuple[StreamReader, StreamWriter]:
        while self._idle:
            reader, writer, since_s = self._idle.pop()
            if not reader.at_eof() and time.monotonic() - since_s < IDLE_MAX_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(
            self._host, self._port, limit=HEADER_BYTES_MAX, ssl=self._tls
        )

    async def _read(self, reader: StreamReader, sink: Sink | None) -> tuple[Answer, bool]:
        for _ in range(HEADS_MAX):
            status, headers = await _read_head(reader)
            if status >= 200:
                break
        else:
            raise BadAnswer("interim answers without end")
        if self._method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b""), True
        parts: list[bytes] = []
        total = 0
        async for part in _parts(reader, headers):
            total += len(part)
            if total > BODY_BYTES_MAX:
                raise BadAnswer(f"a body of more than {BODY_BYTES_MAX >> 20} MiB")
            parts.append(part)
            if sink is not None:
                sink(part)
        return Answer(status, headers, b"".join(parts)), not _until_closed(headers)


async def _read_head(reader: StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise BadAnswer(f"not HTTP/1: {first[:40]}")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return int(status), headers


def _until_closed(headers: Mapping[str, str]) -> bool:
    """Whether only the end of the connection ends the body."""
    return "content-length" not in headers and "transfer-encoding" not in headers


async def _parts(reader: StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if not 0 < size <= BODY_BYTES_MAX:
                raise BadAnswer(f"a body of more than {BODY_BYTES_MAX >> 20} MiB")
            yield (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif _until_closed(headers):
        while part := await reader.read(PART_BYTES):
            yield part
    elif "transfer-encoding" in headers:
        raise BadAnswer("a transfer encoding other than chunked")
    else:
        left = int(headers["content-length"])
        if not 0 <= left <= BODY_BYTES_MAX:
            raise BadAnswer(f"a body of {left} bytes")
        while left:
            part = await reader.read(min(left, PART_BYTES))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)
            yield part
