"""The proxy's listening socket, and room for thousands more."""

import resource
import socket

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.mining.endpoint import Endpoint

BACKLOG = 4096
"""All miners of a site come back in the same second after a break; the kernel caps it further."""

SEND_BUFFER_BYTES = 64 * 1024
"""What the kernel holds for a miner that does not read: some 20 jobs, and not megabytes."""

SPARE_FILES = 64

KEEPALIVE_S, DEAD_AFTER_MS = 60, 30_000
"""A miner whose cable was pulled is noticed by its kernel's silence."""


def listening(at: Endpoint) -> socket.socket:
    """A socket that listens at an address. Raises: OSError."""
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit these.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
        sock.bind((at.host, at.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def room_for(sessions: int) -> None:
    """Raise the process's own limit of open files so that this many connections fit.

    Raises:
        WattshiftError: the machine's hard limit is below that.
    """
    wanted = sessions + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise WattshiftError(
            f"{sessions} sessions need {wanted} open files and this process may have {hard}: "
            f"raise the hard limit (ulimit -Hn, LimitNOFILE=) or allow fewer sessions"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
