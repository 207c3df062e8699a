"""The HTTP of an emulator's own port: truth to be read, switches to be thrown.

Small HTTP/1.1 without a framework, so that the emulator runs where nothing is installed: one
request per connection, bodies up to 512 KiB, 5 s per request.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from wattshift_cluster.emulate.chosen import BadRequest

BODY_LIMIT = 512 * 1024
HEADER_LIMIT = 16 * 1024
DEADLINE_S = 5.0
MAX_DETAIL = 2000
"""Characters of a refusal, however many machines it names."""

Response = tuple[HTTPStatus, str]
Route = Callable[[bytes], Awaitable[Response]]
Fallback = Callable[[str], Awaitable[Response | None]]


async def serve_control(
    host: str,
    port: int,
    routes: Mapping[tuple[str, str], Route],
    fallback: Fallback | None = None,
) -> asyncio.Server:
    """Listen; port 0 takes a free one.

    Args:
        host, port: where.
        routes: by method and path; each gets the body and may raise BadRequest.
        fallback: for a GET of any other path; None is no such path.

    Raises:
        OSError: the port is in use.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                status, body = await _respond(reader, routes, fallback)
                payload = body.encode()
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                    "Content-Type: application/json\r\n"
                    f"Content-Length: {len(payload)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + payload)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # The client left or stalled; there is nobody to answer.
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(serve, host, port, limit=HEADER_LIMIT)


async def _respond(
    reader: asyncio.StreamReader,
    routes: Mapping[tuple[str, str], Route],
    fallback: Fallback | None,
) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ")
    route = routes.get((words[0], words[1])) if len(words) == 3 else None
    if route is None:
        found = await fallback(words[1]) if fallback and words[0] == "GET" and words[1:] else None
        there = ", ".join(" ".join(known) for known in routes)
        return found or problem(HTTPStatus.NOT_FOUND, f"only {there} are here")
    length = _content_length(head[1:])
    if length is None or length > BODY_LIMIT:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {BODY_LIMIT} bytes")
    try:
        return await route(await reader.readexactly(length))
    except BadRequest as wrong:
        return problem(wrong.status, str(wrong))


def _content_length(headers: list[str]) -> int | None:
    for header in headers:
        name, _, value = header.partition(":")
        if name.strip().lower() == "content-length":
            return int(value) if value.strip().isdecimal() else None
    return 0


def problem(status: HTTPStatus, detail: str) -> Response:
    """An RFC 9457 problem."""
    return status, json.dumps(
        {"title": status.phrase, "status": status.value, "detail": detail[:MAX_DETAIL]}
    )
