"""A loopback Stratum V1 pool: real protocol, complete validation of each share, and it pays nobody.

It exists so that mining can be run, tested and demonstrated with no outside party. Templates are
synthetic (see `template`).
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.feed import WANTED_MASK
from wattshift_cluster.mining.job import Extranonce
from wattshift_cluster.mining.pool.link import MinerLink
from wattshift_cluster.mining.pool.listening import ListeningPool
from wattshift_cluster.mining.pool.sessions import MinerSession, SessionShelf
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.template import Template, TemplateSource


class LoopbackPool(ListeningPool[MinerLink, Template]):
    """The pool server; who is hung up on and comes back in time may resume its session.

    Attributes:
        resumed: of the sessions, those that went on with one of before.
        mask: version bits that may be rolled.
    """

    def __init__(
        self,
        settings: PoolSettings | None = None,
        *,
        clock_s: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """See `ListeningPool`."""
        super().__init__(settings, clock_s, tls)
        self.resumed = 0
        self.mask = WANTED_MASK
        kept = self.settings
        self._source = TemplateSource(kept.seed, kept.extranonce_bytes, kept.nbits)
        self._shelf = SessionShelf(kept)
        # So that an extranonce1 of this pool is none of another one, nor of its own last life.
        self._extranonces = secrets.randbits(32)

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

    def resume(self, name: str) -> MinerSession | None:
        """See `PoolDoor`: two connections with one extranonce1 would do the same work twice."""
        for link in list(self.links):
            if link.session is not None and link.session.id == name:
                self._left(link)
                link.hang_up()
        session = self._shelf.take(name, self._clock_s())
        self.resumed += session is not None
        return session

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers; difficulty is that offered to new connections."""
        settings = self.settings
        return {
            **super().status(),
            "difficulty": settings.difficulty,
            "shares_per_minute": settings.shares_per_minute,
            "resumed": self.resumed,
        }

    def _next(self, now_s: float, *, clean: bool) -> Template:
        return self._source.next(int(now_s), clean=clean)

    def _announce(self, link: MinerLink, *, clean: bool) -> None:
        link.announce(self.template, clean=clean)

    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> MinerLink:
        session = MinerSession.new(self._extranonce(), self.settings, self._clock_s())
        return MinerLink(self.sessions, reader, writer, session=session, pool=self)

    def _left(self, link: MinerLink) -> None:
        """Keep the session of a connection that is over."""
        session = link.leave()
        if session is not None and self.settings.resume_s > 0:
            self._shelf.put(session, self._clock_s())

    def _extranonce(self) -> Extranonce:
        self._extranonces = (self._extranonces + 1) % (1 << 32)
        return Extranonce(self._extranonces.to_bytes(4, "big"), self.settings.extranonce2_size)
