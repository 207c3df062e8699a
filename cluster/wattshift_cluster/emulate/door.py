"""One TCP port of one emulated machine: open, shut, or dark (the machine is off the network).

A shut port refuses. A dark one does not answer at all, which is what a client of a machine without
power meets: the port listens with a queue of one that is kept full, so the kernel drops every
further SYN.
"""

import asyncio
import errno
import socket
from collections.abc import Callable

BACKLOG = 1024
ACCEPTS_AT_ONCE = 64
"""Connections taken before other ports get their turn."""

DEFER_S = 10
"""How long the kernel holds back a connection on which no byte has come."""

RETRY_S = 0.1
"""Pause in accepting when the process is out of open files."""

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Door:
    """One port.

    Args:
        address, port: where it listens.
        accepted: is given each connection, not blocking; it owns it from then on.
        after_data: whether the client speaks first, so that a connection need not be looked at
            before it has.
    """

    def __init__(
        self,
        address: str,
        port: int,
        accepted: Callable[[socket.socket], None],
        *,
        after_data: bool,
    ) -> None:
        self._where = address, port
        self._accepted = accepted
        self._after_data = after_data
        self._socket: socket.socket | None = None
        self._filler: socket.socket | None = None
        self._retry: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Take connections. Raises OSError where the port cannot be had."""
        listening = self._listening()
        self._empty()
        if self._after_data:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_S)
        listening.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(listening, self._accept)

    def shut(self) -> None:
        """Refuse connections."""
        self._pause()
        self._empty()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def darken(self) -> None:
        """Answer nothing, not even a SYN. Raises OSError where the port cannot be had."""
        listening = self._listening()
        self._pause()
        if self._filler is None:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
            listening.listen(0)
            self._filler = socket.socket()
            self._filler.setblocking(False)
            self._filler.connect_ex(self._where)

    def _listening(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket()
            try:
                made.setblocking(False)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(self._where)
                made.listen(0)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _pause(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)

    def _empty(self) -> None:
        if self._filler is not None:
            self._filler.close()
            self._filler = None

    def _accept(self) -> None:
        listening = self._socket
        for _ in range(ACCEPTS_AT_ONCE):
            if listening is None or listening is not self._socket:
                return
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self.open)
                return
            connection.setblocking(False)
            self._accepted(connection)
