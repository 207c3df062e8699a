"""A connection to port 4433 that is kept between requests, for one machine.

The firmware serves any number of requests per connection, so a command needs no handshake and a
poll costs half. What makes it safe to keep: a connection that failed, was broken off or carried
more than one answer is closed, so that no late answer is ever taken for the next one; before each
request the socket is looked at, for a machine hangs up on idle clients without a word.
"""

import asyncio
import resource
import socket
import sys
from typing import ClassVar

from wattshift_cluster.asic.driver import AsicUnreachable
from wattshift_cluster.asic.wire import (
    FRAMED_PORT,
    Json,
    bounded,
    connected,
    frame,
    framed_exchange,
    parsed,
)


def _most_held() -> int:
    """Half of the files that this process may open: the rest is for everything else."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if most == resource.RLIM_INFINITY else most // 2


class FramedLine:
    """The requests to one machine, one after the other.

    Beyond half of the process's open files nothing is kept: then each request connects anew.

    Args:
        address: of the machine.
        deadline_s: for each request, a second try included.

    Attributes:
        opened: how many connections were opened. Another number than before: another machine may
            be at the other end.
    """

    _in_use: ClassVar[int] = 0

    def __init__(self, address: str, deadline_s: float) -> None:
        self.address = address
        self.deadline_s = deadline_s
        self.opened = 0
        self._kept: socket.socket | None = None
        self._turn = asyncio.Lock()

    def __del__(self) -> None:
        self._drop()

    async def ask(self, request: Json, *, repeatable: bool) -> Json:
        """Send one request and return its reply.

        Args:
            request: with its "cmd", which the reply has to name if it names one.
            repeatable: whether it may be sent again, once, where a kept connection turns out dead.
                True for reads alone: a command may have arrived although its answer did not.

        Raises:
            AsicUnreachable: no usable answer in time, or one to another question.
        """
        doing = str(request["cmd"])
        async with self._turn, bounded(self.address, doing, self.deadline_s):
            payload = await self._exchanged(frame(request), repeatable)
        try:
            reply = parsed(self.address, doing, payload)
            named = reply.get("desc")
            if isinstance(named, str) and named.startswith(("get.", "set.")) and named != doing:
                raise AsicUnreachable(self.address, doing, "it answered another question")
        except AsicUnreachable:
            self._drop()
            raise
        return reply

    async def close(self) -> None:
        """Hang up, once the request under way is over."""
        async with self._turn:
            self._drop()

    async def _exchanged(self, request: bytes, repeatable: bool) -> bytes:
        sock = self._alive()
        if sock is not None:
            try:
                return await self._on(sock, request)
            except (ConnectionError, asyncio.IncompleteReadError):
                if not repeatable:
                    raise
        sock = await connected(self.address, FRAMED_PORT)
        self.opened += 1
        return await self._on(sock, request)

    async def _on(self, sock: socket.socket, request: bytes) -> bytes:
        try:
            payload = await framed_exchange(sock, request)
        except BaseException:
            sock.close()
            raise
        if FramedLine._in_use < _most_held():
            self._kept = sock
            FramedLine._in_use += 1
        else:
            sock.close()
        return payload

    @property
    def is_open(self) -> bool:
        """Whether a connection is held on which the machine has neither hung up nor spoken."""
        if self._kept is None:
            return False
        try:
            self._kept.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def _alive(self) -> socket.socket | None:
        """Take the held connection out; None where there is none that can be used."""
        sock = self._kept if self.is_open else None
        if sock is None:
            self._drop()
        else:
            self._kept = None
            FramedLine._in_use -= 1
        return sock

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
            FramedLine._in_use -= 1
