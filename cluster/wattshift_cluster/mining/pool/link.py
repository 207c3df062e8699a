"""The pool's side of one connection: handshake, jobs sent, shares judged."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.job import Extranonce, JobFault, parse_difficulty, parse_mask
from wattshift_cluster.mining.lines import LineFault, Message
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats
from wattshift_cluster.mining.pool.template import Template
from wattshift_cluster.mining.pool.verdict import IssuedJob, ShareRefused, judge
from wattshift_cluster.mining.session import WANTED_MASK

log = structlog.get_logger()

MAX_USERS_PER_LINK = 16


class MethodRefused(Exception):
    """A request that is answered with an error: `code` and `text`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class MinerLink:
    """One connected miner.

    A difficulty belongs to the job that was sent with it, so after a change each share is still
    judged by the difficulty under which it was worked on.
    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        settings: PoolSettings,
        stats: PoolStats,
        clock_s: Callable[[], float],
        newest: Callable[[], Template],
    ) -> None:
        """Args: number: unique in the pool, becomes extranonce1; newest: the latest template."""
        self.number = number
        self._reader, self._writer = reader, writer
        self._settings, self._stats = settings, stats
        self._clock_s, self._newest = clock_s, newest
        self._extranonce = Extranonce(number.to_bytes(4, "big"), settings.extranonce2_size)
        self._difficulty = settings.difficulty
        self._mask = 0
        self._revision = 0
        self._subscribed = False
        self._users: set[str] = set()
        self._issued: OrderedDict[str, IssuedJob] = OrderedDict()

    async def run(self) -> None:
        """Serve until the miner leaves, falls silent or breaks the protocol."""
        try:
            while True:
                ready = self._subscribed and self._users
                deadline_s = self._settings.idle_s if ready else self._settings.handshake_s
                message = await lines.read_message(self._reader, deadline_s)
                if message is None:
                    return
                if message.method is not None:
                    await self._answer(message)
        except (OSError, TimeoutError, LineFault) as fault:
            log.info("pool.hung_up", link=self.number, reason=str(fault) or type(fault).__name__)

    def hang_up(self) -> None:
        """Close this connection; `run` then ends."""
        self._writer.close()

    def announce(self, template: Template, *, clean: bool) -> None:
        """Send a job made of `template`; a miner that does not read is dropped."""
        if not (self._subscribed and self._users):
            return
        job = template.job(
            f"{template.number:x}.{self._revision:x}",
            extranonce=self._extranonce,
            difficulty=self._difficulty,
            mask=self._mask,
            clean=clean,
        )
        self._issued[job.job_id] = IssuedJob(job, template)
        while len(self._issued) > self._settings.jobs_kept:
            self._issued.popitem(last=False)
        self._post("mining.notify", job.notify())

    def _post(self, method: str, params: list[Any]) -> None:
        try:
            lines.post(self._writer, {"id": None, "method": method, "params": params})
        except LineFault:
            log.warning("pool.slow_miner", link=self.number)
            self._writer.transport.abort()

    async def _answer(self, message: Message) -> None:
        """Answer one request, then send what follows from it."""
        handler = {
            "mining.configure": self._configure,
            "mining.subscribe": self._subscribe,
            "mining.authorize": self._authorize,
            "mining.suggest_difficulty": self._suggest,
            "mining.extranonce.subscribe": lambda _: True,
            "mining.submit": self._submit,
        }.get(message.method or "")
        body: dict[str, Any] = {"id": message.id, "result": False, "error": None}
        try:
            if handler is None:
                raise MethodRefused(lines.MALFORMED, "Unknown method")
            body["result"] = handler(message.params)
        except (MethodRefused, ShareRefused) as refused:
            body["error"] = [refused.code, refused.text, None]
        await lines.send(self._writer, body)
        if body["error"] is None:
            self._follow_up(message.method or "")

    def _follow_up(self, method: str) -> None:
        """Difficulty after subscribing, a first job after logging in, both after a suggestion."""
        if method in ("mining.subscribe", "mining.suggest_difficulty"):
            self._post("mining.set_difficulty", [self._difficulty])
        if method in ("mining.subscribe", "mining.authorize", "mining.suggest_difficulty"):
            self.announce(self._newest(), clean=not self._issued)

    def _configure(self, params: list[Any]) -> dict[str, Any]:
        """BIP 310; an extension that we do not have is simply absent from the answer."""
        wanted, options = [*params, None, None][:2]
        if not isinstance(wanted, list) or "version-rolling" not in wanted:
            return {}
        options = options if isinstance(options, dict) else {}
        try:
            asked = parse_mask(options.get("version-rolling.mask", f"{WANTED_MASK:08x}"))
        except JobFault as fault:
            raise MethodRefused(lines.MALFORMED, str(fault)) from fault
        self._mask = asked & WANTED_MASK
        self._revision += 1
        return {"version-rolling": True, "version-rolling.mask": f"{self._mask:08x}"}

    def _subscribe(self, _params: list[Any]) -> list[Any]:
        self._subscribed = True
        first, size = self._extranonce.extranonce1.hex(), self._extranonce.extranonce2_size
        return [[["mining.notify", f"{self.number:08x}"]], first, size]

    def _authorize(self, params: list[Any]) -> bool:
        user = params[0] if params else None
        if not isinstance(user, str) or not 0 < len(user) <= 128 or not user.isprintable():
            raise MethodRefused(lines.UNAUTHORIZED, "User must be 1 to 128 characters")
        if len(self._users) >= MAX_USERS_PER_LINK:
            raise MethodRefused(lines.UNAUTHORIZED, "Too many users on one connection")
        self._users.add(user)
        return True

    def _suggest(self, params: list[Any]) -> bool:
        try:
            self._difficulty = parse_difficulty(params[0] if params else None)
        except JobFault as fault:
            raise MethodRefused(lines.MALFORMED, str(fault)) from fault
        self._revision += 1
        return True

    def _submit(self, params: list[Any]) -> bool:
        now_s = self._clock_s()
        if not self._subscribed:
            self._stats.reject(None, "Not subscribed")
            raise MethodRefused(lines.NOT_SUBSCRIBED, "Not subscribed")
        try:
            credit = judge(
                params,
                users=self._users,
                issued=self._issued,
                now_s=now_s,
                grace_s=self._settings.grace_s,
            )
        except ShareRefused as refused:
            user = params[0] if params and isinstance(params[0], str) else None
            self._stats.reject(user if user in self._users else None, refused.text)
            raise
        self._stats.credit(credit, now_s)
        return True
