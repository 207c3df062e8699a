"""Serve the app inside the caller's event loop, with a limit on everything.

uvicorn's own signal handling is left out: the controller's process decides when to end.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
import uvicorn
from fastapi import FastAPI

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.serving import listen

CONNECTIONS_MAX = 128
KEEP_ALIVE_S = 15
GRACE_S = 3
START_DEADLINE_S = 10.0

log = structlog.get_logger()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM and SIGINT to the process that hosts this server."""
        yield


@dataclass(slots=True)
class RunningApi:
    """A server that answers; `url` is its base address."""

    url: str
    app: FastAPI
    _server: uvicorn.Server
    _task: asyncio.Task[None]

    async def close(self) -> None:
        """End every stream, finish running requests within GRACE_S, and stop."""
        await self.app.state.fanout.close()
        self._server.should_exit = True
        await self._task


async def start(app: FastAPI, host: str, port: int) -> RunningApi:
    """Listen and return once the server answers; port 0 picks a free one.

    Raises:
        WattshiftError: the address is in use or not ours.
    """
    listener = listen(host, port)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        lifespan="on",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        ws="none",
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="api-server")
    async with asyncio.timeout(START_DEADLINE_S):
        while not server.started:
            if task.done():
                await task
                raise WattshiftError("the API server ended before it answered")
            await asyncio.sleep(0.01)
    bound_host, bound_port = listener.getsockname()[:2]
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    url = f"http://{shown}:{bound_port}"
    log.info("api_listening", url=url)
    return RunningApi(url, app, server, task)
