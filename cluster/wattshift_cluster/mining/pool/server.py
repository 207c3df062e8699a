"""A loopback Stratum V1 pool: real protocol, complete validation of each share, and it pays nobody.

It exists so that mining can be run, tested and demonstrated with no outside party. It listens on
loopback only; there is no setting to change that. Templates are synthetic (see `template`).
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

import structlog

from wattshift_cluster.errors import Refused
from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.feed import WANTED_MASK
from wattshift_cluster.mining.job import Extranonce
from wattshift_cluster.mining.pool.link import MinerLink
from wattshift_cluster.mining.pool.sessions import MinerSession, SessionShelf
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
        sessions: connections so far.
        resumed: of these, those that went on with a session of before.
        mask: version bits that may be rolled.
    """

    def __init__(
        self,
        settings: PoolSettings | None = None,
        *,
        clock_s: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing listens yet.

        Args:
            clock_s: unix time, s; injected so that ntime rules can be tested.
            tls: certificate and key to speak TLS with; None is plain text.
        """
        self.settings = settings or PoolSettings()
        self.stats = PoolStats()
        self.links: set[MinerLink] = set()
        self.sessions = 0
        self.resumed = 0
        self.mask = WANTED_MASK
        self._tls = tls
        self._clock_s = clock_s
        self._started_s = clock_s()
        settings = self.settings
        self._source = TemplateSource(settings.seed, settings.extranonce_bytes, settings.nbits)
        self._templates: list[Template] = []
        self._shelf = SessionShelf(settings)
        # So that an extranonce1 of this pool is none of another one, nor of its own last life.
        self._extranonces = secrets.randbits(32)
        self._uncut = 0
        self._server: asyncio.Server | None = None
        self._renewal: asyncio.Task[None] | None = None

    @property
    def template(self) -> Template:
        """The newest template."""
        return self._templates[-1]

    def now_s(self) -> float:
        """Unix time, s, by the pool's own clock."""
        return self._clock_s()

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
            self._serve, listen.host, listen.port, limit=lines.MAX_LINE_BYTES, ssl=self._tls
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
        """Close every connection; who comes back in time may resume its session."""
        for link in list(self.links):
            link.hang_up()

    def cut_answers(self, count: int) -> None:
        """Judge the next `count` shares, but hang up instead of answering them.

        Their finders cannot know what became of them: they must submit them again.
        """
        self._uncut += count

    def redirect(self, to: Endpoint, wait_s: float = 0.0) -> None:
        """Ask every miner to reconnect there."""
        for link in self.links:
            link.post("client.reconnect", [to.host, to.port, wait_s])

    def rotate_extranonces(self) -> None:
        """Another extranonce1 for every miner, from its next job on, which comes at once."""
        for link in list(self.links):
            if link.ready:
                link.move(self._extranonce())
                link.announce(self.template, clean=False)

    def set_version_mask(self, mask: int) -> None:
        """Allow these version bits at once, and no others."""
        self.mask = mask & WANTED_MASK
        for link in self.links:
            if link.ready:
                link.remask()

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

    def resume(self, name: str) -> MinerSession | None:
        """See `PoolDoor`: two connections with one extranonce1 would do the same work twice."""
        for link in list(self.links):
            if link.session is not None and link.session.id == name:
                self._part(link)
                link.hang_up()
        session = self._shelf.take(name, self._clock_s())
        self.resumed += session is not None
        return session

    def cut(self) -> bool:
        """See `PoolDoor`."""
        cut = self._uncut > 0
        self._uncut -= cut
        return cut

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers; difficulty is that offered to new connections."""
        settings = self.settings
        return {
            "pool": "wattshift loopback",
            "pays": "nobody",
            "at_s": self._clock_s(),
            "uptime_s": self._clock_s() - self._started_s,
            "difficulty": settings.difficulty,
            "shares_per_minute": settings.shares_per_minute,
            "connections": len(self.links),
            "sessions": self.sessions,
            "resumed": self.resumed,
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
        session = MinerSession.new(self._extranonce(), self.settings, self._clock_s())
        link = MinerLink(self.sessions, reader, writer, session=session, pool=self)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self._part(link)
            self.links.discard(link)
            await lines.close(writer)

    def _part(self, link: MinerLink) -> None:
        """Keep the session of a connection that is over."""
        session = link.leave()
        if session is not None and self.settings.resume_s > 0:
            self._shelf.put(session, self._clock_s())

    def _extranonce(self) -> Extranonce:
        self._extranonces = (self._extranonces + 1) % (1 << 32)
        return Extranonce(self._extranonces.to_bytes(4, "big"), self.settings.extranonce2_size)

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
