"""Stratum V1 on the wire: JSON objects, one a line, with a limit on the line and a deadline on I/O.

Both ends use this module, so what one may send the other can read. Sources: the Stratum V1
practice recorded for ckpool (requests have an id, notifications have id null, an error is the
list [code, text, null] beside result false) and BIP 310 for `mining.configure`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

MAX_LINE_BYTES = 64 * 1024
"""Longest line accepted: a notify with 20 branches and two 16 KiB coinbase halves fits."""

WRITE_DEADLINE_S = 5.0
MAX_UNSENT_BYTES = 256 * 1024

STALE, DUPLICATE, LOW_DIFFICULTY, UNAUTHORIZED, NOT_SUBSCRIBED, MALFORMED = 21, 22, 23, 24, 25, 20
"""Error codes of a refused share; 20 is "other": malformed, ntime out of range, version mask."""


class LineFault(Exception):
    """The peer broke the framing: line too long, not JSON, not an object, or it stopped reading."""


@dataclass(frozen=True, slots=True)
class Message:
    """One line: a request (`method` and `id`), a notification (`method`) or an answer (`id`).

    Parameters that are an object are told as its only element.
    """

    id: int | str | None
    method: str | None
    params: list[Any]
    result: Any
    error: Any


def parse(line: bytes) -> Message:
    """Read one line.

    Raises:
        LineFault: not a JSON object, or fields of a wrong type.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as fault:
        raise LineFault(f"not JSON: {line[:60]!r}") from fault
    if not isinstance(body, dict):
        raise LineFault(f"not a JSON object: {line[:60]!r}")
    method, params, identity = body.get("method"), body.get("params"), body.get("id")
    if method is not None and not isinstance(method, str):
        raise LineFault("method is not text")
    if isinstance(identity, bool) or not isinstance(identity, int | str | None):
        raise LineFault("id is neither a number nor text")
    if isinstance(params, dict):  # Alephium's; whoever wants a list finds no use for its element
        params = [params]
    if params is not None and not isinstance(params, list):
        raise LineFault("params is neither a list nor an object")
    return Message(identity, method, params or [], body.get("result"), body.get("error"))


def encode(body: dict[str, Any]) -> bytes:
    """One line, newline included."""
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


async def read_message(reader: asyncio.StreamReader, deadline_s: float) -> Message | None:
    """Next message; None at the end of the stream.

    Raises:
        LineFault: the line is malformed or longer than the reader's limit.
        TimeoutError: nothing complete came within `deadline_s`.
    """
    async with asyncio.timeout(deadline_s):
        try:
            line = await reader.readline()
        except ValueError as fault:
            raise LineFault(f"line longer than {MAX_LINE_BYTES} bytes") from fault
    if not line.endswith(b"\n"):
        return None
    return parse(line)


async def served(
    reader: asyncio.StreamReader,
    deadline_s: Callable[[], float],
    answer: Callable[[Message], Awaitable[None]],
) -> str | None:
    """Have every request and notification answered, until the peer leaves or breaks the rules.

    Args:
        deadline_s: how long the peer may be silent now.
        answer: is waited for before the next one is read.

    Returns:
        What ended it; None: the peer left.
    """
    try:
        while (message := await read_message(reader, deadline_s())) is not None:
            if message.method is not None:
                await answer(message)
    except (OSError, TimeoutError, LineFault) as fault:
        return str(fault) or type(fault).__name__
    return None


async def send(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    """Write one line and wait until the peer takes it.

    Raises:
        LineFault: the peer does not read: the buffer is full, or the deadline passed.
        OSError: the connection is gone.
    """
    post(writer, body)
    try:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await writer.drain()
    except TimeoutError as fault:
        raise LineFault("the peer does not read") from fault


def post(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
    """Queue one line without waiting.

    Raises:
        LineFault: more than MAX_UNSENT_BYTES already wait for the peer.
    """
    if writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
        raise LineFault("the peer does not read")
    writer.write(encode(body))


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; one that does not close in a second is aborted."""
    writer.close()
    try:
        async with asyncio.timeout(1.0):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
