"""One GET of a server's metrics, with a deadline and a limit on everything.

HTTP/1.1 over plain asyncio streams: the agent runs where no client library is installed. An answer
whose end cannot be told from a break is no observation, for the missing part may be the busy one.
"""

import asyncio
import errno
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from wattshift_cluster.agent.observe.prometheus import (
    MAX_BODY_BYTES,
    ObservationFailed,
    Samples,
    parse,
)

MAX_HEAD_BYTES = 16 << 10

INLINE_BYTES = 64 << 10
"""A body up to this size is read where we are, in 1 to 2 ms; a larger one by a thread."""

_NO_IPV6 = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})


class NobodyListens(ObservationFailed):
    """The kernel says that no process listens at this address of this machine."""


async def scrape(url: str, wanted: Collection[str], deadline_s: float) -> Samples:
    """GET `url` once and read the wanted samples.

    Args:
        url: http or https; redirects are not followed.
        wanted: see `parse`.
        deadline_s: of everything together, s.

    Raises:
        NobodyListens: nothing listens at a loopback address.
        ObservationFailed: no proper answer in time.
    """
    try:
        async with asyncio.timeout(deadline_s):
            body = await _get(url)
            if len(body) <= INLINE_BYTES:
                return parse(body, wanted)
            return await asyncio.to_thread(parse, body, wanted)
    except TimeoutError as fault:
        raise ObservationFailed(f"no answer within {deadline_s:g} s") from fault
    except ConnectionRefusedError as fault:
        here = is_loopback(urlsplit(url).hostname or "")
        kind = NobodyListens if here else ObservationFailed
        raise kind("nothing listens at its address") from fault
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
        raise ObservationFailed("the answer broke off or is not HTTP") from fault
    except (OSError, ValueError) as fault:
        raise ObservationFailed(str(fault) or type(fault).__name__) from fault


def is_loopback(host: str) -> bool:
    """Whether a host's name is this machine's own, so that a refusal comes from our own kernel."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None


async def _get(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ObservationFailed("its URL is not http://host:port/path")
    secure = parts.scheme == "https"
    reader, writer = await _connect(parts.hostname, parts.port or (443 if secure else 80), secure)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
            "Accept: text/plain;version=0.0.4\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        await writer.drain()
        return await _read_body(reader, await _read_head(reader))
    finally:
        writer.transport.abort()


async def _connect(
    host: str, port: int, secure: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect. `localhost` has two addresses, and only both refusals mean that nobody listens."""
    refused: OSError | None = None
    for address in ("127.0.0.1", "::1") if host == "localhost" else (host,):
        try:
            return await asyncio.open_connection(
                address,
                port,
                ssl=True if secure else None,
                server_hostname=host if secure else None,
                limit=MAX_HEAD_BYTES,
            )
        except ConnectionRefusedError as fault:
            refused = fault
        except OSError as fault:
            if refused is None or fault.errno not in _NO_IPV6:
                raise
    assert refused is not None, "every attempt failed"
    raise refused


async def _read_head(reader: asyncio.StreamReader) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ObservationFailed("the answer is not HTTP/1")
    if not status.startswith("200"):
        raise ObservationFailed(f"HTTP status {status[:3]}")
    pairs = (line.partition(":") for line in lines if line)
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    kind = fields.get("content-type", "text/plain").partition(";")[0].strip().lower()
    if kind != "text/plain":
        raise ObservationFailed(f"not Prometheus text but {kind[:40]}")
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise ObservationFailed("the answer is compressed, which nobody asked for")
    return fields


async def _read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    if (length := fields.get("content-length")) is None:
        raise ObservationFailed("the answer has no length, so its end cannot be told from a break")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise ObservationFailed(f"a body of {length[:20]} bytes")
    return await reader.readexactly(int(length))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        if not 0 < size <= MAX_BODY_BYTES - len(body):
            raise ObservationFailed(f"a body of more than {MAX_BODY_BYTES} bytes")
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ObservationFailed("a chunk has no end")
    return bytes(body)
