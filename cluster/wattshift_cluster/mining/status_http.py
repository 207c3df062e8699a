"""GET /v1/status of the pool: one route, one request a connection, by plain asyncio streams."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

MAX_HEAD_BYTES = 8 * 1024
DEADLINE_S = 5.0


async def serve_status(
    host: str, port: int, status: Callable[[], dict[str, Any]]
) -> asyncio.Server:
    """Answer GET /v1/status with what `status()` returns at that moment.

    Raises:
        OSError: the port is taken.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that leaves, stalls or sends a huge head gets no answer.
        with suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, status))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, host, port, limit=MAX_HEAD_BYTES)


def _answer(head: bytes, status: Callable[[], dict[str, Any]]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    code, kind = HTTPStatus.OK, "application/json"
    if path != b"/v1/status" or method != b"GET":
        known = path == b"/v1/status"
        code = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
        kind = "application/problem+json"
    problem = {"type": "about:blank", "title": code.phrase, "status": code.value}
    body = json.dumps(status() if code is HTTPStatus.OK else problem).encode()
    return (
        f"HTTP/1.1 {code.value} {code.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode() + body
