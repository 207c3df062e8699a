"""The request shapes that our own calls use: cgminer JSON on 4028, framed JSON on 4433.

pyasic opens a connection without a deadline, waits up to 100 s for an answer, turns a refused
connection into an empty reply, and costs several times the CPU of a hand-written request. So every
request is made here: one deadline, at most 1 MiB, at most 256 at a time in this process. A
cgminer port serves one request per connection; `held` keeps the framed one open.

Bare sockets, because an asyncio stream costs half as much again: 0.21 against 0.34 ms of CPU for
one exchange of 0.5 KiB, a Protocol 0.28 (measured on two cores with 1,000 emulated machines).
"""

import asyncio
import json
import os
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from wattshift_cluster.asic.driver import AsicUnreachable
from wattshift_cluster.asic.reported import Json as Json
from wattshift_cluster.asic.reported import first as first
from wattshift_cluster.asic.reported import number as number
from wattshift_cluster.asic.reported import rows as rows

CGMINER_PORT = 4028
FRAMED_PORT = 4433
REPLY_LIMIT = 1024 * 1024
MAX_EXCHANGES = 1024
"""At a time in one process, and at most a quarter of its open files: a thousand machines can be
commanded at once, and the second exchange of a command waits behind nobody's first."""

_CHUNK = 64 * 1024
_CLOSED = "the connection closed in the middle of the answer"

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@asynccontextmanager
async def bounded(address: str, doing: str, deadline_s: float) -> AsyncIterator[None]:
    """One exchange with a machine: waits for a free slot, then gives it `deadline_s` seconds.

    Raises:
        AsicUnreachable: no connection, no answer in time, or the connection broke.
    """
    loop = asyncio.get_running_loop()
    slots = _slots.get(loop)
    if slots is None:
        slots = _slots[loop] = asyncio.Semaphore(_most_exchanges())
    async with slots:
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError:
            raise AsicUnreachable(address, doing, f"no answer within {deadline_s:g} s") from None
        except asyncio.IncompleteReadError as error:
            raise AsicUnreachable(address, doing, _CLOSED) from error
        except OSError as error:
            # asyncio words a refused connection in two ways; the number has one meaning.
            known = os.strerror(error.errno) if error.errno else error.strerror
            reason = known or type(error).__name__
            raise AsicUnreachable(address, doing, reason) from error


def _most_exchanges() -> int:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    unlimited = files == resource.RLIM_INFINITY
    return MAX_EXCHANGES if unlimited else max(1, min(MAX_EXCHANGES, files // 4))


async def ask_cgminer(
    address: str, command: str, parameter: str | None = None, *, deadline_s: float
) -> Json:
    """Send one command to port 4028 and return its reply.

    Raises:
        AsicUnreachable: see `bounded`; also for a reply that is not a JSON object.
    """
    request: Json = {"command": command}
    if parameter is not None:
        request["parameter"] = parameter
    return await exchange_cgminer(address, command, request, deadline_s=deadline_s)


async def exchange_cgminer(address: str, doing: str, request: Json, *, deadline_s: float) -> Json:
    """Send any JSON object to port 4028 and return the reply.

    Args:
        doing: what the request is, for the error text.

    Raises:
        AsicUnreachable: see `ask_cgminer`.
    """
    payload = json.dumps(request).encode()
    loop = asyncio.get_running_loop()
    async with bounded(address, doing, deadline_s):
        with await connected(address, CGMINER_PORT) as sock:
            await loop.sock_sendall(sock, payload)
            received = await _until_end(sock)
    return parsed(address, doing, received.rstrip(b"\x00\r\n "))


async def ask_framed(address: str, command: str, param: str | None, *, deadline_s: float) -> Json:
    """Send one `get.*` command to port 4433 on a connection of its own and return its reply.

    Raises:
        AsicUnreachable: see `bounded`; also for a reply that is not a JSON object.
    """
    async with bounded(address, command, deadline_s):
        with await connected(address, FRAMED_PORT) as sock:
            received = await framed_exchange(sock, frame({"cmd": command, "param": param}))
    return parsed(address, command, received)


async def connected(address: str, port: int) -> socket.socket:
    """Open a connection; nothing stays open where that fails or is broken off. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def frame(request: Json) -> bytes:
    """A request as port 4433 takes it: its length in 4 bytes, little-endian, then JSON."""
    payload = json.dumps(request).encode()
    return struct.pack("<I", len(payload)) + payload


async def framed_exchange(sock: socket.socket, request: bytes) -> bytes:
    """Send one frame and return the payload of the one that answers.

    Raises:
        OSError: the connection broke, or the machine announced or sent more than it should.
        asyncio.IncompleteReadError: it ended early.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    received = await loop.sock_recv(sock, _CHUNK)
    wanted = 4
    while True:
        if len(received) >= 4:
            wanted = 4 + int.from_bytes(received[:4], "little")
            if wanted - 4 > REPLY_LIMIT:
                raise OSError(None, f"it announced a reply of {wanted - 4} bytes")
            if len(received) > wanted:
                raise OSError(None, "it sent more than it was asked")
            if len(received) == wanted:
                return bytes(received[4:])
        chunk = await loop.sock_recv(sock, _CHUNK) if received else b""
        if not chunk:
            raise asyncio.IncompleteReadError(bytes(received), wanted)
        received += chunk


async def _until_end(sock: socket.socket) -> bytes:
    """Read to the NUL that ends a cgminer reply, or to the end of the connection."""
    loop = asyncio.get_running_loop()
    received = bytearray(await loop.sock_recv(sock, _CHUNK))
    ended = not received
    while not ended and not received.endswith(b"\x00"):
        if len(received) > REPLY_LIMIT:
            raise OSError(None, f"its answer goes on after {REPLY_LIMIT} bytes")
        chunk = await loop.sock_recv(sock, _CHUNK)
        ended = not chunk
        received += chunk
    return bytes(received)


def parsed(address: str, doing: str, payload: bytes) -> Json:
    """The JSON object that a reply holds.

    Some firmware puts a line break inside a string or a comma before a brace (pyasic mends the
    same); where the text is no JSON as it stands, it is read a second time with those forgiven.

    Raises:
        AsicUnreachable: it is something else.
    """
    try:
        try:
            reply = json.loads(payload)
        except ValueError:
            reply = json.loads(payload.replace(b",}", b"}"), strict=False)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise AsicUnreachable(address, doing, "the answer is not a JSON object")
    return reply
