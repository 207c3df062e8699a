"""What every loopback pool does: it listens, renews its jobs by the clock, and hangs up at the end.

It listens on loopback only; there is no setting to change that.
"""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import structlog

from wattshift_cluster.errors import Refused
from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats

log = structlog.get_logger()


class NotLoopback(Refused):
    """The pool was asked to listen where others could reach it."""


class Link(Protocol):
    """One miner's connection."""

    async def run(self) -> None:
        """Serve until the miner leaves, falls silent or breaks the protocol."""
        ...

    def hang_up(self) -> None:
        """Close this connection; `run` then ends."""
        ...


class Voidable(Protocol):
    """A block template.

    Attributes:
        number: of this template.
        retired_s: when another one voided it; None while it may be mined.
    """

    retired_s: float | None

    @property
    def number(self) -> int:
        """Of this template."""
        ...


LinkT = TypeVar("LinkT", bound=Link)
TemplateT = TypeVar("TemplateT", bound=Voidable)


class ListeningPool(ABC, Generic[LinkT, TemplateT]):
    """The sockets and the clock of a pool.

    Attributes:
        settings: its limits.
        stats: shares by outcome, reason and user.
        links: miners connected now.
        sessions: connections so far.
    """

    def __init__(
        self,
        settings: PoolSettings | None,
        clock_s: Callable[[], float],
        tls: ssl.SSLContext | None,
    ) -> None:
        """Nothing listens yet.

        Args:
            settings: its limits; None: the usual ones.
            clock_s: unix time, s; injected so that rules of time can be tested.
            tls: certificate and key to speak TLS with; None is plain text.
        """
        self.settings = settings or PoolSettings()
        self.stats = PoolStats()
        self.links: set[LinkT] = set()
        self.sessions = 0
        self._tls = tls
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._templates: list[TemplateT] = []
        self._uncut = 0
        self._server: asyncio.Server | None = None
        self._renewal: asyncio.Task[None] | None = None

    @abstractmethod
    def _next(self, now_s: float, *, clean: bool) -> TemplateT:
        """A new template; a clean one is of a new chain tip."""

    @abstractmethod
    def _announce(self, link: LinkT, *, clean: bool) -> None:
        """Tell a miner the newest template."""

    @abstractmethod
    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> LinkT:
        """A miner has connected, as number `sessions`."""

    def _left(self, link: LinkT) -> None:
        """A connection is over."""

    @property
    def template(self) -> TemplateT:
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
        log.info("pool.listening", at=str(bound), algorithm=self.settings.algorithm, pays="nobody")
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

    def cut_answers(self, count: int) -> None:
        """Judge the next `count` shares, but hang up instead of answering them.

        Their finders cannot know what became of them: they must submit them again.
        """
        self._uncut += count

    def cut(self) -> bool:
        """Whether the answer to this share is to be withheld, by hanging up."""
        cut = self._uncut > 0
        self._uncut -= cut
        return cut

    def new_job(self, *, clean: bool) -> None:
        """Announce a new template; a clean one is a new chain tip and voids all before it."""
        now_s = self._clock_s()
        if clean:
            for old in self._templates:
                old.retired_s = now_s if old.retired_s is None else old.retired_s
        self._templates.append(self._next(now_s, clean=clean))
        del self._templates[: -self.settings.jobs_kept]
        for link in list(self.links):
            self._announce(link, clean=clean)

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers."""
        return {
            "pool": "wattshift loopback",
            "pays": "nobody",
            "at_s": self._clock_s(),
            "uptime_s": self._clock_s() - self._started_s,
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
        link = self._link(reader, writer)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self._left(link)
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
