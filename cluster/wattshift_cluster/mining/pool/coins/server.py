"""A loopback pool of a coin: real words, every share checked by the reference, and it pays nobody.

It listens on loopback only, as the pool for sha256d does; there is no setting to change that. Its
difficulty stays what it is, and no session is resumed.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.coins.alephium import Alephium
from wattshift_cluster.mining.pool.coins.ergo import Ergo
from wattshift_cluster.mining.pool.coins.ethereum_classic import EthereumClassic
from wattshift_cluster.mining.pool.coins.judge import easiest
from wattshift_cluster.mining.pool.coins.kaspa import Kaspa
from wattshift_cluster.mining.pool.coins.link import CoinLink
from wattshift_cluster.mining.pool.coins.tongue import CoinTemplate, Templates, Tongue
from wattshift_cluster.mining.pool.server import NotLoopback
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats

log = structlog.get_logger()

TONGUES: dict[str, Callable[[], Tongue]] = {
    "autolykos2": Ergo,
    "etchash": EthereumClassic,
    "kheavyhash": Kaspa,
    "blake3": Alephium,
}
FIRST_HEIGHT = 1_000
"""Of the first block: the tables of coins that have one are smallest there."""


class CoinPool:
    """The pool server.

    Attributes:
        stats: shares by outcome, reason and user.
        links: miners connected now.
        sessions: connections so far.
        tongue: the coin.
        difficulty: of all its shares.
    """

    def __init__(
        self,
        tongue: Tongue,
        settings: PoolSettings | None = None,
        *,
        clock_s: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
        height: int = FIRST_HEIGHT,
    ) -> None:
        """Nothing listens yet.

        Args:
            clock_s: unix time, s.
            tls: certificate and key to speak TLS with; None is plain text.
            height: of the first block.
        """
        self.settings = settings or PoolSettings()
        self.stats = PoolStats()
        self.links: set[CoinLink] = set()
        self.sessions = 0
        self.tongue = tongue
        self.difficulty = max(self.settings.difficulty, easiest(tongue))
        self._tls = tls
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._source = Templates(tongue, self.settings.seed, height)
        self._templates: list[CoinTemplate] = []
        # So that a prefix of this pool is none of another one, nor of its own last life.
        self._prefixes = secrets.randbits(8 * tongue.prefix_bytes) if tongue.prefix_bytes else 0
        self._uncut = 0
        self._server: asyncio.Server | None = None
        self._renewal: asyncio.Task[None] | None = None

    @property
    def template(self) -> CoinTemplate:
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
        log.info("pool.listening", at=str(bound), algorithm=self.tongue.algorithm, pays="nobody")
        return bound

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.hang_up()
        for _ in range(100):
            if not self.links:
                break
            await asyncio.sleep(0.01)

    def cut_answers(self, count: int) -> None:
        """Judge the next `count` shares, but hang up instead of answering them."""
        self._uncut += count

    def cut(self) -> bool:
        """See `CoinDoor`."""
        cut = self._uncut > 0
        self._uncut -= cut
        return cut

    def rotate_prefixes(self) -> None:
        """Another prefix for every miner, from its next job on, which comes at once."""
        for link in list(self.links):
            if link.ready:
                link.move(self._prefix())
                link.announce(self.template)

    def new_job(self, *, clean: bool) -> None:
        """Announce a new template; a clean one voids all before it."""
        now_s = self._clock_s()
        if clean:
            for old in self._templates:
                old.retired_s = now_s if old.retired_s is None else old.retired_s
        self._templates.append(self._source.next(now_s, clean=clean))
        del self._templates[: -self.settings.jobs_kept]
        for link in list(self.links):
            link.announce(self.template)

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers."""
        return {
            "pool": "wattshift loopback",
            "pays": "nobody",
            "algorithm": self.tongue.algorithm,
            "at_s": self._clock_s(),
            "uptime_s": self._clock_s() - self._started_s,
            "difficulty": self.difficulty,
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
        link = CoinLink(self.sessions, reader, writer, prefix=self._prefix(), pool=self)
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)
            await lines.close(writer)

    def _prefix(self) -> bytes:
        size = self.tongue.prefix_bytes
        self._prefixes = (self._prefixes + 1) % (1 << (8 * size))
        return self._prefixes.to_bytes(size, "big")

    async def _renew(self) -> None:
        """New jobs by the clock, on a new block every `clean_every_s`."""
        loop = asyncio.get_running_loop()
        next_clean_s = loop.time() + self.settings.clean_every_s
        while True:
            await asyncio.sleep(
                min(self.settings.job_every_s, max(0.0, next_clean_s - loop.time()))
            )
            clean = loop.time() >= next_clean_s
            if clean:
                next_clean_s = loop.time() + self.settings.clean_every_s
            self.new_job(clean=clean)
