"""Telling across processes that a server has loaded and answers: one datagram, "ready".

Whoever started the server, or its first process, listens on a socket of Linux' abstract name space
and puts the name into WATTSHIFT_READY, which every descendant inherits. The name holds 128 random
bits and ends with the listener.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

READY_VARIABLE = "WATTSHIFT_READY"

_WORD = b"ready"
_SEND_S = 0.2
_BYTES_MAX = 16


class ReadyListener:
    """The hearing end; descendants of this process find it through the environment."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Listen, and say where in `environ`. Raises: OSError."""
        self.name = f"wattshift-ready-{os.urandom(16).hex()}"
        self._environ = environ
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(f"\0{self.name}")
        environ[READY_VARIABLE] = self.name

    def heard(self, wait_s: float) -> bool:
        """Whether the server said within `wait_s` seconds that it is ready."""
        self._socket.settimeout(wait_s)
        try:
            return self._socket.recv(_BYTES_MAX) == _WORD
        except (TimeoutError, BlockingIOError):
            return False

    def close(self) -> None:
        """Stop listening, and no longer say where."""
        self._socket.close()
        if self._environ.get(READY_VARIABLE) == self.name:
            del self._environ[READY_VARIABLE]


def ready(environ: Mapping[str, str] = os.environ) -> None:
    """Say that this server answers now; without a listener, or with one that went, nothing."""
    speaker = _speaker(environ)
    if speaker is not None:
        with speaker, suppress(OSError):
            speaker.send(_WORD)


def listened_to(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody waits for this server to be ready, and marks the gate until then."""
    speaker = _speaker(environ)
    if speaker is None:
        return False
    speaker.close()
    return True


def _speaker(environ: Mapping[str, str]) -> socket.socket | None:
    """A socket to the listener; None when there is none."""
    name = environ.get(READY_VARIABLE)
    if not name:
        return None
    speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    speaker.settimeout(_SEND_S)
    try:
        speaker.connect(f"\0{name}")
    except OSError:
        speaker.close()
        return None
    return speaker
