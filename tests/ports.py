"""Ports and loopback addresses that no other test of a run is given.

A port that the kernel hands out may be handed out again, to the same test or to another at once, as
soon as it is closed. So these lie below the kernel's ephemeral range. A machine on the wire listens
at fixed ports (4028, 80): each has an address of its own. Every worker of a parallel run has a span
of both, and none is given twice.
"""

import itertools
import os
import socket

FIRST, LAST = 12_000, 32_000
"""Below every usual ephemeral range (Linux 32,768), above what services are registered at."""

WORKERS = 8
"""Workers with a span of their own; more than these share, and then only the look at the port keeps
them apart. A run without workers, which may go beside one with them, has the span after theirs."""

FIRST_NET, NETS = 128, 10 * 256
"""Where networks begin, 127.128.0.0, and how many of each 254 addresses a span has."""

_name = os.environ.get("PYTEST_XDIST_WORKER")
_worker = int(_name.removeprefix("gw")) % WORKERS if _name else WORKERS
_span = (LAST - FIRST) // (WORKERS + 1)
_begin = FIRST + _worker * _span
# Two runs on one machine begin at different places of a span.
_turn = (_begin + (os.getpid() + step) % _span for step in itertools.count())
_nets = (_worker * NETS + (os.getpid() * 61 + step) % NETS for step in range(NETS))


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


def own_net() -> str:
    """The first three numbers of a /24 on loopback that was not given before."""
    number = next(_nets)
    return f"127.{FIRST_NET + number // 256}.{number % 256}"


_addresses = (f"{net}.{host}" for net in iter(own_net, "") for host in range(1, 255))


def own_address() -> str:
    """An address on loopback that was not given before."""
    return next(_addresses)
