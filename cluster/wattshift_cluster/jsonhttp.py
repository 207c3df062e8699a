"""A small HTTP server for read-only JSON: status pages of processes that must stay cheap.

Plain asyncio streams: no framework to import (start-up 0.1 s less) and about a tenth of a
millisecond a request. GET only, keep-alive, a limit on everything; errors are RFC 9457 problems.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

MAX_HEAD_BYTES = 8 * 1024
MAX_CONNECTIONS = 32
IDLE_S = 75.0
WRITE_DEADLINE_S = 5.0

Route = Callable[[], Mapping[str, Any]]


async def serve_json(host: str, port: int, routes: Mapping[str, Route]) -> asyncio.Server:
    """Serve each path in `routes` with what its function returns at that moment.

    Args:
        host, port: where to listen; port 0 picks a free one.
        routes: path → a function without arguments, quick, returning something JSON can hold.

    Raises:
        OSError: the port is taken.
    """
    open_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            if open_now <= MAX_CONNECTIONS:
                while await _exchange(reader, writer, routes):
                    pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that leaves, stalls or sends a huge head gets no answer
        finally:
            open_now -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    return await asyncio.start_server(serve, host, port, limit=MAX_HEAD_BYTES)


def address(server: asyncio.Server) -> str:
    """`host:port` of a server, with the port that it really got."""
    host, port = server.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Mapping[str, Route]
) -> bool:
    """One request and its answer; whether the connection stays open."""
    async with asyncio.timeout(IDLE_S):
        head = await reader.readuntil(b"\r\n\r\n")
    request, _, fields = head.partition(b"\r\n")
    parts = request.split()
    has_body = b"\r\ncontent-length:" in b"\r\n" + fields.lower()
    keep = b"connection: close" not in fields.lower() and not has_body
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        status, body = _problem(HTTPStatus.BAD_REQUEST)
        keep = False
    elif parts[0] not in (b"GET", b"HEAD"):
        status, body = _problem(HTTPStatus.METHOD_NOT_ALLOWED)
    elif (route := routes.get(parts[1].partition(b"?")[0].decode("latin-1"))) is None:
        status, body = _problem(HTTPStatus.NOT_FOUND)
    else:
        status, body = HTTPStatus.OK, json.dumps(route(), allow_nan=False).encode()
    kind = "application/json" if status is HTTPStatus.OK else "application/problem+json"
    allow = "Allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    writer.write(
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n{allow}"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
        + (b"" if parts and parts[0] == b"HEAD" else body)
    )
    async with asyncio.timeout(WRITE_DEADLINE_S):
        await writer.drain()
    return keep


def _problem(status: HTTPStatus) -> tuple[HTTPStatus, bytes]:
    body = {"type": "about:blank", "title": status.phrase, "status": status.value}
    return status, json.dumps(body).encode()
