"""A loopback pool of a coin: real words, every share checked by the reference, and it pays nobody.

Its difficulty stays what it is, and no session is resumed.
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

from wattshift_cluster.mining.pool.coins.alephium import Alephium
from wattshift_cluster.mining.pool.coins.ergo import Ergo
from wattshift_cluster.mining.pool.coins.ethereum_classic import EthereumClassic
from wattshift_cluster.mining.pool.coins.judge import easiest
from wattshift_cluster.mining.pool.coins.kaspa import Kaspa
from wattshift_cluster.mining.pool.coins.link import CoinLink
from wattshift_cluster.mining.pool.coins.tongue import CoinTemplate, Templates, Tongue
from wattshift_cluster.mining.pool.listening import ListeningPool
from wattshift_cluster.mining.pool.settings import PoolSettings

TONGUES: dict[str, Callable[[], Tongue]] = {
    "autolykos2": Ergo,
    "etchash": EthereumClassic,
    "kheavyhash": Kaspa,
    "blake3": Alephium,
}
FIRST_HEIGHT = 1_000
"""Of the first block: the tables of coins that have one are smallest there."""


class CoinPool(ListeningPool[CoinLink, CoinTemplate]):
    """The pool server.

    Attributes:
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
        """See `ListeningPool`. Args: height: of the first block."""
        super().__init__(settings, clock_s, tls)
        self.tongue = tongue
        self.difficulty = max(self.settings.difficulty, easiest(tongue))
        self._source = Templates(tongue, self.settings.seed, height)
        # So that a prefix of this pool is none of another one, nor of its own last life.
        self._prefixes = secrets.randbits(8 * tongue.prefix_bytes) if tongue.prefix_bytes else 0

    def rotate_prefixes(self) -> None:
        """Another prefix for every miner, from its next job on, which comes at once."""
        for link in list(self.links):
            if link.ready:
                link.move(self._prefix())
                link.announce(self.template)

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers."""
        of_coin = {"algorithm": self.tongue.algorithm, "difficulty": self.difficulty}
        return {**super().status(), **of_coin}

    def _next(self, now_s: float, *, clean: bool) -> CoinTemplate:
        return self._source.next(now_s, clean=clean)

    def _announce(self, link: CoinLink, *, clean: bool) -> None:
        link.announce(self.template)

    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> CoinLink:
        return CoinLink(self.sessions, reader, writer, prefix=self._prefix(), pool=self)

    def _prefix(self) -> bytes:
        size = self.tongue.prefix_bytes
        self._prefixes = (self._prefixes + 1) % (1 << (8 * size))
        return self._prefixes.to_bytes(size, "big")
