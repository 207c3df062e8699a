"""An ASGI app on a port of its own, inside the caller's event loop, with a limit on everything.

uvicorn's own signal handling is left out: the process that hosts the server decides when to end.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from wattshift_cluster.errors import ConfigInvalid, Fault, WattshiftError

CONNECTIONS_MAX = 64
KEEP_ALIVE_S = 75
"""Longer than the pauses between two notices of a busy VTN, so that each need not shake hands."""

GRACE_S = 1
BACKLOG = 64
START_DEADLINE_S = 10.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM and SIGINT to the process that hosts this server."""
        yield


@dataclass(frozen=True, slots=True)
class Certificate:
    """What to show to those who connect: PEM files of a certificate and its key."""

    cert: Path
    key: Path


@dataclass(slots=True)
class Serving:
    """A server that answers; `url` is its base address, without a slash at its end."""

    url: str
    _server: uvicorn.Server
    _task: asyncio.Task[None]

    async def close(self) -> None:
        """Finish running requests within GRACE_S and stop."""
        self._server.should_exit = True
        await self._task


async def serve(
    app: Any, host: str, port: int, *, name: str, certificate: Certificate | None = None
) -> Serving:
    """Listen and return once the server answers.

    Args:
        app: ASGI.
        host, port: where; port 0 picks a free one.
        name: of the task, for people.
        certificate: None: plain HTTP.

    Raises:
        WattshiftError: the address is in use or not ours.
        ConfigInvalid: the certificate cannot be used.
    """
    tls = None if certificate is None else _tls(certificate)
    listener = listen(host, port)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        ws="none",
        interface="asgi3",
        proxy_headers=False,
    )
    config.load()
    config.ssl = tls
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=name)
    async with asyncio.timeout(START_DEADLINE_S):
        while not server.started:
            if task.done():
                await task
                raise WattshiftError(f"{name} ended before it answered")
            await asyncio.sleep(0.005)
    bound_host, bound_port = listener.getsockname()[:2]
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    return Serving(f"{'http' if tls is None else 'https'}://{shown}:{bound_port}", server, task)


def _tls(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate.cert, certificate.key)
    except OSError as fault:  # ssl.SSLError is one
        raise ConfigInvalid([Fault(str(certificate.cert), "", None, str(fault))]) from None
    return context


def listen(host: str, port: int) -> socket.socket:
    """Return a bound listening socket. Raises WattshiftError."""
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay off only where the protocol is named; without it, every answer
    # waits 40 ms for the client's acknowledgement of its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise WattshiftError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
