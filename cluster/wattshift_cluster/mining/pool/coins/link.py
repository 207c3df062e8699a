"""A coin pool's side of one connection: login, jobs sent, shares judged."""

import asyncio
from collections import OrderedDict
from typing import Any, Protocol

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.lines import LineFault, Message
from wattshift_cluster.mining.pool.coins.judge import Issued, judge, target_of
from wattshift_cluster.mining.pool.coins.tongue import CoinTemplate, Notice, Tongue
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats
from wattshift_cluster.mining.pool.verdict import ShareRefused

log = structlog.get_logger()

MAX_USERS_PER_LINK = 16
QUIET = frozenset({"mining.extranonce.subscribe", "alph_submitHashrate", "eth_submitHashrate"})
"""What miners say that changes nothing here."""


class CoinDoor(Protocol):
    """What a connection asks of its pool."""

    settings: PoolSettings
    stats: PoolStats
    tongue: Tongue
    difficulty: float

    @property
    def template(self) -> CoinTemplate:
        """The newest template."""
        ...

    def now_s(self) -> float:
        """Unix time, s."""
        ...

    def cut(self) -> bool:
        """Whether the answer to this share is to be withheld, by hanging up."""
        ...


class CoinLink:
    """One connected miner.

    Attributes:
        issued: jobs sent to it.
    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        prefix: bytes,
        pool: CoinDoor,
    ) -> None:
        """Args: number: of this connection; prefix: of its nonces."""
        self.number = number
        self._reader, self._writer = reader, writer
        self._prefix = prefix
        self._pool = pool
        self._users: set[str] = set()
        self.issued: OrderedDict[str, Issued] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether this miner gets jobs."""
        return bool(self._users)

    async def run(self) -> None:
        """Serve until the miner leaves, falls silent or breaks the protocol."""
        reason = await lines.served(self._reader, self._patience_s, self._answer)
        if reason is not None:
            log.info("pool.hung_up", link=self.number, reason=reason)

    def hang_up(self) -> None:
        """Close this connection; `run` then ends."""
        self._writer.close()

    def announce(self, template: CoinTemplate) -> None:
        """Send a job made of `template`; a miner that does not read is dropped."""
        if not self.ready:
            return
        pool, difficulty = self._pool, self._pool.difficulty
        self.issued[template.job_id] = Issued(template, difficulty, self._prefix)
        while len(self.issued) > pool.settings.jobs_kept:
            self.issued.popitem(last=False)
        target = target_of(pool.tongue, difficulty)
        self._post(pool.tongue.work(template, target, difficulty))

    def move(self, prefix: bytes) -> None:
        """Give it another prefix for its next job."""
        self._prefix = prefix
        self._post(self._pool.tongue.moved(prefix))

    def post(self, method: str, params: list[Any]) -> None:
        """Send a notification without waiting."""
        self._post([(method, params)])

    def _post(self, notices: list[Notice]) -> None:
        if self._writer.is_closing():
            return
        try:
            for method, params in notices:
                lines.post(self._writer, {"id": None, "method": method, "params": params})
        except LineFault:
            log.warning("pool.slow_miner", link=self.number)
            self._writer.transport.abort()

    def _patience_s(self) -> float:
        settings = self._pool.settings
        return settings.idle_s if self.ready else settings.handshake_s

    async def _answer(self, message: Message) -> None:
        body: dict[str, Any] = {"id": message.id, "result": None, "error": None}
        tongue, first = self._pool.tongue, not self.ready
        try:
            match message.method:
                case "mining.subscribe":
                    body["result"] = tongue.subscribed(self._prefix, f"{self.number:032x}")
                case "mining.authorize":
                    body["result"] = self._authorize(message.params)
                case "mining.submit":
                    body["result"] = await self._submit(message.params)
                    if self._pool.cut():
                        self.hang_up()
                        return
                case method if method in QUIET:
                    body["result"] = True
                case _:
                    raise ShareRefused(lines.MALFORMED, "Unknown method")
        except ShareRefused as refused:
            body["error"] = [tongue.code(refused.code), refused.text, None]
        await lines.send(self._writer, body)
        if first and self.ready:
            self._post(tongue.greeting(self._prefix))
            self.announce(self._pool.template)

    def _authorize(self, params: list[Any]) -> bool:
        user = params[0] if params else None
        if not isinstance(user, str) or not 0 < len(user) <= 128 or not user.isprintable():
            raise ShareRefused(lines.UNAUTHORIZED, "User must be 1 to 128 characters")
        if len(self._users) >= MAX_USERS_PER_LINK:
            raise ShareRefused(lines.UNAUTHORIZED, "Too many users on one connection")
        self._users.add(user)
        return True

    async def _submit(self, params: list[Any]) -> bool:
        pool, user = self._pool, None
        try:
            if not self.ready:
                raise ShareRefused(lines.NOT_SUBSCRIBED, "Not logged in")
            solution = pool.tongue.solution(params, self._prefix)
            user = solution.user if solution.user in self._users else None
            # The reference of a coin may take its time, and other miners wait for nothing.
            credit = await asyncio.to_thread(
                judge,
                pool.tongue,
                solution,
                users=self._users,
                issued=dict(self.issued),
                now_s=pool.now_s(),
                grace_s=pool.settings.grace_s,
            )
        except ShareRefused as refused:
            pool.stats.reject(user, refused.text)
            raise
        pool.stats.credit(credit, pool.now_s())
        return True
