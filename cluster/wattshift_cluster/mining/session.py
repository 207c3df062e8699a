"""One connection to a pool, from the handshake to its end: requests, answers and notifications.

A session never outlives its TCP connection and keeps no counters: those are the client's. Every
wait has a deadline, and every request that is still open when the session ends fails with
SessionEnded, so nobody waits for an answer that cannot come.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import (
    Extranonce,
    JobFault,
    StratumJob,
    parse_difficulty,
    parse_mask,
)
from wattshift_cluster.mining.lines import LineFault, Message

log = structlog.get_logger()

WANTED_MASK = 0x1FFFE000
"""Version bits that BIP 320 reserves for rolling."""

MAX_WAITING = 256
MOST_RECONNECT_WAIT_S = 300.0


class SessionEnded(Exception):
    """The session is over; the text says why."""


class PoolRefused(SessionEnded):
    """The pool refused subscription or authorization: trying again soon will not help."""


class AnswerMissing(Exception):
    """No answer to a request within its deadline."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """client.reconnect: where to go and how long to wait first."""

    endpoint: Endpoint
    wait_s: float


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Longest waits, s. `idle_s`: nothing at all from the pool; pools renew jobs every minute."""

    connect_s: float = 5.0
    configure_s: float = 2.0
    answer_s: float = 10.0
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Login:
    """What to say in the handshake."""

    user: str
    password: str = "x"
    agent: str = "wattshift"
    suggest_difficulty: float | None = None
    roll_versions: bool = True


class Session:
    """Speaks Stratum V1 over one connection.

    Attributes:
        redirect: set when the pool asked us to reconnect and we follow.
        configured: whether the pool survived mining.configure (None: not sent).
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        deadlines: Deadlines,
        on_job: Callable[[StratumJob], None],
    ) -> None:
        """Args: number: of this connection, stamped on its jobs; on_job: told of each new job."""
        self.number = number
        self.endpoint = endpoint
        self.redirect: Redirect | None = None
        self.configured: bool | None = None
        self._deadlines = deadlines
        self._on_job = on_job
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0
        self._job: StratumJob | None = None
        self._extranonce: Extranonce | None = None
        self._difficulty = 1.0
        self._mask = 0
        self._early_notify: list[Any] | None = None

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._answers)

    async def run(self, login: Login, on_ready: Callable[[], None]) -> None:
        """Connect, log in and listen until the session ends.

        Raises:
            SessionEnded: always, in the end.
        """
        try:
            async with asyncio.timeout(self._deadlines.connect_s):
                self._reader, self._writer = await asyncio.open_connection(
                    self.endpoint.host, self.endpoint.port, limit=lines.MAX_LINE_BYTES
                )
        except (OSError, TimeoutError) as fault:
            raise SessionEnded(f"cannot connect to {self.endpoint}: {_text(fault)}") from fault
        listener = asyncio.create_task(self._listen())
        try:
            await self._log_in(login, listener)
            on_ready()
            await listener
        finally:
            listener.cancel()
            self._fail_waiting("disconnected")
            await lines.close(self._writer)

    async def request(self, method: str, params: list[Any], deadline_s: float) -> Message:
        """Send a request and wait for its answer.

        Raises:
            AnswerMissing: none within `deadline_s`.
            SessionEnded: the session ended first, or too many requests are open.
        """
        if len(self._answers) >= MAX_WAITING:
            raise SessionEnded("too many requests without an answer")
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(deadline_s):
                await lines.send(self._writer, {"id": number, "method": method, "params": params})
                return await answer
        except TimeoutError as fault:
            raise AnswerMissing(f"no answer to {method} in {deadline_s} s") from fault
        except (OSError, LineFault) as fault:
            raise SessionEnded(_text(fault)) from fault
        finally:
            self._answers.pop(number, None)

    async def _log_in(self, login: Login, listener: asyncio.Task[None]) -> None:
        """The handshake; ends early with the listener's own error if that ends first."""
        handshake = asyncio.create_task(self._handshake(login))
        try:
            await asyncio.wait({handshake, listener}, return_when=asyncio.FIRST_COMPLETED)
            if listener.done():
                await listener
            await handshake
        finally:
            handshake.cancel()
            await asyncio.gather(handshake, return_exceptions=True)

    async def _handshake(self, login: Login) -> None:
        answer_s = self._deadlines.answer_s
        if login.roll_versions:
            await self._configure()
        try:
            reply = await self.request("mining.subscribe", [login.agent], answer_s)
            self._subscribed(reply)
            reply = await self.request("mining.authorize", [login.user, login.password], answer_s)
        except AnswerMissing as fault:
            raise SessionEnded(str(fault)) from fault
        if reply.error or reply.result is not True:
            raise PoolRefused(f"not authorized: {error_text(reply.error) or 'refused'}")
        if login.suggest_difficulty is not None:
            # Its answer, if any, does not matter: what counts is the set_difficulty that follows.
            self._last_id += 1
            body = {
                "id": self._last_id,
                "method": "mining.suggest_difficulty",
                "params": [login.suggest_difficulty],
            }
            await self._send(body)

    async def _configure(self) -> None:
        """Ask for version rolling; a pool that does not answer or hangs up simply has none."""
        self.configured = False
        extension = {
            "version-rolling.mask": f"{WANTED_MASK:08x}",
            "version-rolling.min-bit-count": 2,
        }
        try:
            reply = await self.request(
                "mining.configure", [["version-rolling"], extension], self._deadlines.configure_s
            )
        except AnswerMissing:
            return
        self.configured = True
        if isinstance(reply.result, dict) and reply.result.get("version-rolling") is True:
            try:
                self._mask = parse_mask(reply.result.get("version-rolling.mask")) & WANTED_MASK
            except JobFault as fault:
                log.warning("stratum.mask_ignored", reason=str(fault))

    def _subscribed(self, reply: Message) -> None:
        if reply.error or not isinstance(reply.result, list) or len(reply.result) < 3:
            raise PoolRefused(f"not subscribed: {error_text(reply.error) or reply.result!r:.80}")
        try:
            self._extranonce = Extranonce.parse(reply.result[1], reply.result[2])
        except JobFault as fault:
            raise SessionEnded(f"subscribe: {fault}") from fault
        if self._early_notify is not None:
            self._notify(self._early_notify)

    async def _listen(self) -> None:
        """Read until the end. Raises: SessionEnded, always."""
        try:
            while True:
                message = await lines.read_message(self._reader, self._deadlines.idle_s)
                if message is None:
                    raise SessionEnded("the pool closed the connection")
                if message.method is None:
                    self._answered(message)
                else:
                    await self._told(message.method, message)
        except TimeoutError as fault:
            raise SessionEnded(f"the pool was silent for {self._deadlines.idle_s} s") from fault
        except (OSError, LineFault, JobFault) as fault:
            raise SessionEnded(_text(fault)) from fault

    def _answered(self, message: Message) -> None:
        answer = self._answers.get(message.id) if isinstance(message.id, int) else None
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _told(self, method: str, message: Message) -> None:
        """React to what the pool says of itself; anything unknown is ignored."""
        params = message.params
        match method:
            case "mining.notify":
                self._notify(params)
            case "mining.set_difficulty":
                self._difficulty = parse_difficulty(params[0] if params else None)
            case "mining.set_extranonce":
                self._extranonce = Extranonce.parse(*[*params, None, None][:2])
            case "mining.set_version_mask":
                self._set_mask(params)
            case "client.reconnect":
                self._reconnect(params)
            case "client.show_message":
                log.info("stratum.message", pool=str(self.endpoint), text=str(params)[:200])
            case "client.get_version":
                await self._send({"id": message.id, "result": "wattshift", "error": None})
            case _:
                log.debug("stratum.ignored", method=method[:60])

    def _notify(self, params: list[Any]) -> None:
        if self._extranonce is None:  # a job may come before the subscribe answer
            self._early_notify = params
            return
        self._job = StratumJob.from_notify(
            params,
            extranonce=self._extranonce,
            difficulty=self._difficulty,
            version_mask=self._mask,
            session=self.number,
        )
        self._on_job(self._job)

    def _set_mask(self, params: list[Any]) -> None:
        """A new mask holds at once (BIP 310), but only for the bits that we asked for."""
        self._mask = parse_mask(params[0] if params else None) & WANTED_MASK
        job = self._job
        if job is not None and job.version_mask != self._mask:
            self._job = replace(job, version_mask=self._mask, clean=False)
            self._on_job(self._job)

    def _reconnect(self, params: list[Any]) -> None:
        """Follow to another port of the same host only; a pool must not send hash rate elsewhere.

        Raises:
            SessionEnded: when following.
        """
        host, port, wait = [*params, None, None, None][:3]
        if host not in (None, "", self.endpoint.host):
            log.warning("stratum.redirect_refused", pool=str(self.endpoint), to=str(host)[:100])
            return
        try:
            target = Endpoint(self.endpoint.host, int(port or self.endpoint.port))
            wait_s = min(max(float(wait or 0.0), 0.0), MOST_RECONNECT_WAIT_S)
        except (TypeError, ValueError) as fault:
            raise JobFault("client.reconnect with a port or wait that is not a number") from fault
        if not 0 < target.port < 65536:
            raise JobFault(f"client.reconnect to port {target.port}")
        self.redirect = Redirect(target, wait_s)
        raise SessionEnded("the pool asked to reconnect")

    async def _send(self, body: dict[str, Any]) -> None:
        try:
            await lines.send(self._writer, body)
        except (OSError, LineFault) as fault:
            raise SessionEnded(_text(fault)) from fault

    def _fail_waiting(self, why: str) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SessionEnded(why))
                answer.exception()  # a waiter that is gone already must not leave a warning


def error_text(error: Any) -> str | None:
    """An error as "code text"; pools send lists, objects or plain text."""
    if error is None or error is False:
        return None
    if isinstance(error, list) and error:
        return " ".join(str(part) for part in error[:2])[:80]
    if isinstance(error, dict):
        return f"{error.get('code', '')} {error.get('message', '')}".strip()[:80]
    return str(error)[:80]


def _text(fault: BaseException) -> str:
    return str(fault) or type(fault).__name__
