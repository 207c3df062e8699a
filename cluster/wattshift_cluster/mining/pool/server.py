"""A loopback Stratum V1 pool: real protocol, complete validation of each share, and it pays nobody.

It exists so that mining can be run, tested and demonstrated with no outside party. It listens on
loopback only; there is no setting to change that. Templates are synthetic (see `template`).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from wattshift_cluster.errors import Refused
from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.link import MinerLink
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats
from wattshift_cluster.mining.pool.template import PAYS_NOBODY, Template, TemplateSource

log = structlog.get_logger()


class NotLoopback(Refused):
    """The pool was asked to listen where others could reach it."""


class LoopbackPool:
    """The pool server.

    Attributes:
        stats: shares by outcome, reason and user.
        links: miners connected now.
    """

    def __init__(
        self, settings: PoolSettings | None = None, *, clock_s: Callable[[], float] = time.time
    ) -> None:
        """Args: clock_s: unix time, s; injected so that ntime rules can be tested."""
        self.settings = settings or PoolSettings()
        self.stats = PoolStats()
        self.links: set[MinerLink] = set()
        self.sessions = 0
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._source = TemplateSource(self.settings.seed, self.settings.extranonce_bytes)
        self._templates: list[Template] = []
        self._server: asyncio.Server | None = None
        self._renewal: asyncio.Task[None] | None = None

    @property
    def template(self) -> Template:
        """The newest template."""
        return self._templates[-1]

    async def start(self, listen: Endpoint) -> Endpoint:
        """Listen; returns the address with the real port.

        Raises:
            NotLoopback: `listen` is not on loopback.
            OSError: the port is taken.
        """
        if not listen.is_loopback:
            raise NotLoopback(f"{listen}: this pool pays nobody and listens on loopback only")
        self.new_job(clean=True)
        self._server = await asyncio.start_server(
            self._serve, listen.host, listen.port, limit=lines.MAX_LINE_BYTES
        )
        self._renewal = asyncio.create_task(self._renew())
        bound = Endpoint(*self._server.sockets[0].getsockname()[:2])
        log.info("pool.listening", at=str(bound), note=PAYS_NOBODY.decode())
        return bound

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        self.hang_up()
        for _ in range(100):
            if not self.links:
                break
            await asyncio.sleep(0.01)

    def hang_up(self) -> None:
        """Close every connection."""
        for link in list(self.links):
            link.hang_up()

    def new_job(self, *, clean: bool) -> None:
        """Announce a new template; a clean one is a new chain tip and voids all before it."""
        now_s = self._clock_s()
        if clean:
            for old in self._templates:
                old.retired_s = now_s if old.retired_s is None else old.retired_s
        self._templates.append(self._source.next(int(now_s), clean=clean))
        del self._templates[: -self.settings.jobs_kept]
        for link in list(self.links):
            link.announce(self.template, clean=clean)

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers; difficulty is that offered to new connections."""
        settings = self.settings
        return {
            "pool": "wattshift loopback",
            "pays": "nobody",
            "at_s": self._clock_s(),
            "uptime_s": self._clock_s() - self._started_s,
            "difficulty": settings.difficulty,
            "connections": len(self.links),
            "sessions": self.sessions,
            "templates": self.template.number,
            "shares": self.stats.total.view(),
            "users": {name: tally.view() for name, tally in self.stats.users.items()},
            **self.stats.total.view(),
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.links) >= self.settings.max_connections:
            log.warning("pool.full", connections=len(self.links))
            await lines.close(writer)
            return
        self.sessions += 1
        link = MinerLink(
            self.sessions,
            reader,
            writer,
            settings=self.settings,
            stats=self.stats,
            clock_s=self._clock_s,
            newest=lambda: self.template,
        )
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)
            await lines.close(writer)

    async def _renew(self) -> None:
        """New jobs by the clock: every `job_every_s`, on a new chain tip every `clean_every_s`."""
        loop = asyncio.get_running_loop()
        next_clean_s = loop.time() + self.settings.clean_every_s
        while True:
            wait_s = min(self.settings.job_every_s, max(0.0, next_clean_s - loop.time()))
            await asyncio.sleep(wait_s)
            clean = loop.time() >= next_clean_s
            if clean:
                next_clean_s = loop.time() + self.settings.clean_every_s
            self.new_job(clean=clean)
