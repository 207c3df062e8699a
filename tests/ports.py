"""Ports for tests whose server must know its own before it starts.

A port that the kernel hands out may be handed out again, to the same test or to another at once, as
soon as it is closed. So these lie below the kernel's ephemeral range, each worker of a parallel run
has a span of its own, and none is given twice.
"""

import itertools
import os
import socket

FIRST, LAST = 12_000, 32_000
"""Below every usual ephemeral range (Linux 32,768), above what services are registered at."""

WORKERS = 8
"""Spans; more workers than this share one, and then only the look at the port keeps them apart."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_span = (LAST - FIRST) // WORKERS
_begin = FIRST + _worker * _span
# Two runs on one machine begin at different places of a span.
_turn = (_begin + (os.getpid() + step) % _span for step in itertools.count())


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port at which nobody listens on `host`, and that was not given before."""
    for port in itertools.islice(_turn, _span):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError(f"no port from {_begin} to {_begin + _span} is free on {host}")
