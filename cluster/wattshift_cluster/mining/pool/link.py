"""The pool's side of one connection: handshake, jobs sent, shares judged."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.feed import WANTED_MASK
from wattshift_cluster.mining.job import Extranonce, JobFault, parse_difficulty, parse_mask
from wattshift_cluster.mining.lines import LineFault, Message
from wattshift_cluster.mining.pool.sessions import MinerSession
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.stats import PoolStats
from wattshift_cluster.mining.pool.template import Template
from wattshift_cluster.mining.pool.verdict import ShareRefused, judge

log = structlog.get_logger()

MAX_USERS_PER_LINK = 16

NEXT_JOB_FACTOR = 4.0
"""A difficulty that is wrong by more than this is not left until the next job is due."""

UNANSWERED = object()
"""The result of a request that gets no answer at all."""


class MethodRefused(Exception):
    """A request that is answered with an error: `code` and `text`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class PoolDoor(Protocol):
    """What a connection asks of its pool."""

    settings: PoolSettings
    stats: PoolStats

    @property
    def template(self) -> Template:
        """The newest template."""
        ...

    @property
    def mask(self) -> int:
        """Version bits that may be rolled."""
        ...

    def now_s(self) -> float:
        """Unix time, s."""
        ...

    def resume(self, name: str) -> MinerSession | None:
        """A session that was left, or is still held by a connection that is hung up on then."""
        ...

    def cut(self) -> bool:
        """Whether the answer to this share is to be withheld, by hanging up."""
        ...


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
        session: MinerSession,
        pool: PoolDoor,
    ) -> None:
        """Args: number: of this connection; session: a new one, for a miner that names none."""
        self.number = number
        self.session: MinerSession | None = session
        self.follows_extranonce = False
        self._reader, self._writer = reader, writer
        self._pool = pool
        self._subscribed = False
        self._users: set[str] = set()

    @property
    def ready(self) -> bool:
        """Whether this miner gets jobs: subscribed, authorized and not replaced."""
        return bool(self._subscribed and self._users and self.session is not None)

    async def run(self) -> None:
        """Serve until the miner leaves, falls silent or breaks the protocol."""
        reason = await lines.served(self._reader, self._patience_s, self._heard)
        if reason is not None:
            log.info("pool.hung_up", link=self.number, reason=reason)

    def hang_up(self) -> None:
        """Close this connection; `run` then ends."""
        self._writer.close()

    def abort(self) -> None:
        """Reset this connection: what was sent and not yet read is gone on both sides."""
        self._writer.transport.abort()

    def leave(self) -> MinerSession | None:
        """Part from the session, if the miner ever subscribed to it; this connection is over."""
        session, self.session = self.session, None
        return session if self._subscribed else None

    def announce(self, template: Template, *, clean: bool) -> None:
        """Send a job made of `template`; a miner that does not read is dropped."""
        if not self.ready:
            return
        session = self._session()
        vardiff = session.vardiff
        if vardiff is not None:
            wanted = vardiff.retarget(session.difficulty, self._pool.now_s())
            if wanted != session.difficulty:
                session.want(wanted)
                self.post("mining.set_difficulty", [session.difficulty])
        self.post("mining.notify", session.issue(template, clean=clean).job.notify())

    def move(self, extranonce: Extranonce) -> None:
        """Give it another extranonce for its next job; one that cannot follow is hung up on."""
        if not self.follows_extranonce:
            self.hang_up()
            return
        self._session().extranonce = extranonce
        self.post(
            "mining.set_extranonce", [extranonce.extranonce1.hex(), extranonce.extranonce2_size]
        )

    def remask(self) -> None:
        """Tell it which version bits the pool allows now, if that concerns it."""
        session, settings = self._session(), self._pool.settings
        if session.remask(self._pool.mask, self._pool.now_s() + settings.grace_s):
            self.post("mining.set_version_mask", [f"{session.mask:08x}"])

    def post(self, method: str, params: list[Any]) -> None:
        """Send a notification without waiting; nothing where the connection is over."""
        if self._writer.is_closing():
            return
        try:
            lines.post(self._writer, {"id": None, "method": method, "params": params})
        except LineFault:
            log.warning("pool.slow_miner", link=self.number)
            self._writer.transport.abort()

    def _session(self) -> MinerSession:
        assert self.session is not None, "this connection is over"
        return self.session

    def _patience_s(self) -> float:
        settings = self._pool.settings
        return settings.idle_s if self.ready else settings.handshake_s

    async def _heard(self, message: Message) -> None:
        if self.session is not None:  # else another connection took it, and this one is closing
            await self._answer(self.session, message)

    async def _answer(self, session: MinerSession, message: Message) -> None:
        """Answer one request, then send what follows from it."""
        handlers: dict[str, Callable[[list[Any]], Any]] = {
            "mining.configure": self._configure,
            "mining.subscribe": self._subscribe,
            "mining.authorize": self._authorize,
            "mining.suggest_difficulty": self._suggest,
            "mining.extranonce.subscribe": self._follow_extranonce,
            "mining.ping": lambda _: "pong",
            "mining.submit": self._submit,
        }
        handler = handlers.get(message.method or "", self._unknown)
        before = session.difficulty
        body: dict[str, Any] = {"id": message.id, "result": False, "error": None}
        try:
            body["result"] = handler(message.params)
        except (MethodRefused, ShareRefused) as refused:
            body["error"] = [refused.code, refused.text, None]
        if body["result"] is UNANSWERED:
            return
        if message.method == "mining.submit" and self._pool.cut():
            self.hang_up()
            return
        await lines.send(self._writer, body)
        if body["error"] is None and self.session is not None:
            self._follow_up(message.method or "", changed=self._session().difficulty != before)

    def _follow_up(self, method: str, *, changed: bool) -> None:
        """Difficulty after subscribing, first jobs after logging in, both after a suggestion."""
        session = self._session()
        if method in ("mining.subscribe", "mining.suggest_difficulty"):
            self.post("mining.set_difficulty", [session.difficulty])
        if method == "mining.authorize" or (method == "mining.subscribe" and self.ready):
            self._first_jobs(session)
        elif method == "mining.suggest_difficulty" and changed:
            self.announce(self._pool.template, clean=False)
        elif method == "mining.submit":
            self._hasten(session)

    def _first_jobs(self, session: MinerSession) -> None:
        """The jobs that a resumed session may go on with, oldest first, and the newest one."""
        if not self.ready:
            return
        valid = session.valid()
        # Difficulty and extranonce hold for all jobs that follow, so those of others stay unsaid.
        shape = (session.difficulty, session.extranonce)
        known = [one for one in valid if (one.job.difficulty, one.job.extranonce) == shape]
        for one in known:
            self.post("mining.notify", [*one.job.notify()[:8], False])
        if not known or known[-1].template is not self._pool.template:
            self.announce(self._pool.template, clean=not valid)

    def _hasten(self, session: MinerSession) -> None:
        """A new job at once where the difficulty is far from what this miner's speed asks for."""
        vardiff = session.vardiff
        if vardiff is None:
            return
        wanted = vardiff.retarget(session.difficulty, self._pool.now_s())
        far = max(wanted, session.difficulty) / min(wanted, session.difficulty) >= NEXT_JOB_FACTOR
        if wanted != session.difficulty:
            session.want(wanted)
            self.post("mining.set_difficulty", [session.difficulty])
            if far:
                self.announce(self._pool.template, clean=False)

    def _unknown(self, _params: list[Any]) -> Any:
        if self._pool.settings.silent_on_unknown:
            return UNANSWERED
        raise MethodRefused(lines.MALFORMED, "Unknown method")

    def _configure(self, params: list[Any]) -> dict[str, Any]:
        """BIP 310; an extension that we do not have is simply absent from the answer."""
        wanted, options = [*params, None, None][:2]
        if not isinstance(wanted, list):
            return {}
        options = options if isinstance(options, dict) else {}
        result: dict[str, Any] = {}
        if "version-rolling" in wanted:
            result |= self._roll(options.get("version-rolling.mask", f"{WANTED_MASK:08x}"))
        if "minimum-difficulty" in wanted:
            result["minimum-difficulty"] = self._floor(options.get("minimum-difficulty.value"))
        if "subscribe-extranonce" in wanted and not self._pool.settings.silent_on_unknown:
            result["subscribe-extranonce"] = self.follows_extranonce = True
        return result

    def _roll(self, asked: Any) -> dict[str, Any]:
        session = self._session()
        try:
            session.asked_mask = parse_mask(asked) & WANTED_MASK
        except JobFault as fault:
            raise MethodRefused(lines.MALFORMED, str(fault)) from fault
        session.mask = session.asked_mask & self._pool.mask
        return {"version-rolling": True, "version-rolling.mask": f"{session.mask:08x}"}

    def _floor(self, value: Any) -> bool | str:
        """Take the least difficulty that the miner wants; or why not, as BIP 310 has it."""
        session = self._session()
        try:
            session.least_difficulty = parse_difficulty(value)
        except JobFault as fault:
            return str(fault)
        session.want(session.difficulty)
        return True

    def _subscribe(self, params: list[Any]) -> list[Any]:
        fresh = self._session()
        name = params[1] if len(params) > 1 else None
        if isinstance(name, str) and not self._subscribed:
            old = self._pool.resume(name)
            if old is not None:
                old.asked_mask, old.least_difficulty = fresh.asked_mask, fresh.least_difficulty
                old.remask(self._pool.mask, self._pool.now_s() + self._pool.settings.grace_s)
                old.want(old.difficulty)
                self.session = old
        self._subscribed = True
        session = self._session()
        first, size = session.extranonce.extranonce1.hex(), session.extranonce.extranonce2_size
        return [[["mining.notify", session.id]], first, size]

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
            self._session().want(parse_difficulty(params[0] if params else None))
        except JobFault as fault:
            raise MethodRefused(lines.MALFORMED, str(fault)) from fault
        return True

    def _follow_extranonce(self, params: list[Any]) -> Any:
        if self._pool.settings.silent_on_unknown:
            return UNANSWERED
        self.follows_extranonce = True
        return True

    def _submit(self, params: list[Any]) -> bool:
        pool, session = self._pool, self._session()
        now_s = pool.now_s()
        if not self._subscribed:
            pool.stats.reject(None, "Not subscribed")
            raise MethodRefused(lines.NOT_SUBSCRIBED, "Not subscribed")
        try:
            credit = judge(
                params,
                users=self._users,
                issued=session.issued,
                now_s=now_s,
                grace_s=pool.settings.grace_s,
            )
        except ShareRefused as refused:
            user = params[0] if params and isinstance(params[0], str) else None
            pool.stats.reject(user if user in self._users else None, refused.text)
            raise
        if session.vardiff is not None:
            session.vardiff.credited()
        pool.stats.credit(credit, now_s)
        return True
