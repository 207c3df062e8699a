"""One connection to a pool, from the handshake to its end: requests, answers and notifications.

A session never outlives its TCP connection and keeps no counters: those are the client's. Every
wait has a deadline, and every request that is still open when the session ends fails with
SessionEnded, so nobody waits for an answer that cannot come. Whatever a pool sends, what comes of
it is a job, an answer, a line in the log or SessionEnded, and nothing else.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection
from typing import Any

import structlog

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.dialect import Dialect
from wattshift_cluster.mining.dialects import bitcoin
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.feed import WANTED_MASK
from wattshift_cluster.mining.job import Extranonce, JobFault
from wattshift_cluster.mining.lines import LineFault, Message
from wattshift_cluster.mining.login import Deadlines, Login, Resume
from wattshift_cluster.mining.nonces import Job, Params
from wattshift_cluster.mining.redirect import Redirect, RedirectRefused, redirected
from wattshift_cluster.mining.refusals import brief, error_text
from wattshift_cluster.mining.tls import CertificateRefused, Verifier

__all__ = [
    "WANTED_MASK",
    "AnswerMissing",
    "Deadlines",
    "Login",
    "PoolRefused",
    "Redirect",
    "Resume",
    "Session",
    "SessionEnded",
    "error_text",
]

log = structlog.get_logger()

MAX_WAITING = 2048
"""Requests without an answer; a proxy of thousands of machines has a thousand shares on its way."""

MOST_MESSAGES = 20
"""Texts of a pool that are logged in one session; the others are only read."""


class SessionEnded(Exception):
    """The session is over; the text says why."""


class PoolRefused(SessionEnded):
    """The pool refused us, or we its certificate: trying again soon will not help."""


class AnswerMissing(Exception):
    """No answer to a request within its deadline."""


class Session:
    """Speaks a dialect of Stratum V1 over one connection.

    Attributes:
        feed: what the pool has told here.
        redirect: set when the pool asked us to reconnect and we follow.
        resumed: whether the pool went on with the session of `Login.resume`.
        configured, extras, resuming: whether the pool survived mining.configure, the subscription
            to extranonces, and a session id to resume (None: not sent; False: nothing came since).
        heard_s: when the last message came, on the loop's clock.
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        deadlines: Deadlines,
        on_job: Callable[[Job], None],
        *,
        dialect: Dialect = bitcoin.DIALECT,
        verifier: Verifier | None = None,
        consented: Collection[Endpoint] | None = None,
    ) -> None:
        """Prepare one connection.

        Args:
            number: of this connection, stamped on its jobs.
            on_job: told of each new job.
            dialect: how this coin's pools speak.
            verifier: of the certificate; needed where the endpoint speaks TLS.
            consented: where a redirect may lead; see `redirect`.
        """
        assert verifier is not None or not endpoint.tls, "TLS without a check of the certificate"
        self.number = number
        self.endpoint = endpoint
        self.feed = dialect.feed(number)
        self.redirect: Redirect | None = None
        self.resumed = False
        self.configured: bool | None = None
        self.extras: bool | None = None
        self.resuming: bool | None = None
        self.heard_s = 0.0
        self._verifier = verifier if endpoint.tls else None
        self._consented = consented
        self._dialect = dialect
        self._deadlines = deadlines
        self._on_job = on_job
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0
        self._subscribing: int | None = None
        self._resume: Extranonce | None = None
        self._messages = 0
        self._ending: SessionEnded | None = None
        self._over = False

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._answers)

    async def run(self, login: Login, on_ready: Callable[[], None]) -> None:
        """Connect, log in and listen until the session ends.

        Raises:
            SessionEnded: always, in the end.
        """
        await self.converse(*await self._connect(), login, on_ready)

    async def converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        login: Login,
        on_ready: Callable[[], None],
    ) -> None:
        """The same over a connection that is open already, which it closes.

        Raises:
            SessionEnded: always, in the end.
        """
        self._reader, self._writer = reader, writer
        listener = asyncio.create_task(self._listen())
        try:
            await self._log_in(login, listener)
            on_ready()
            await listener
        finally:
            listener.cancel()
            self._fail_waiting("disconnected")
            await lines.close(self._writer)

    def end(self, why: SessionEnded) -> None:
        """End it from our side: `run` raises `why`, and nothing more is sent."""
        self._ending = self._ending or why
        self._writer.transport.abort()

    async def request(self, method: str, params: Params, deadline_s: float) -> Message:
        """Send a request and wait for its answer.

        Raises:
            AnswerMissing: none within `deadline_s`.
            SessionEnded: the session ended first, or too many requests are open.
        """
        if self._over or self._ending is not None:
            raise SessionEnded("disconnected")
        if len(self._answers) >= MAX_WAITING:
            raise SessionEnded("too many requests without an answer")
        self._last_id += 1
        number = self._last_id
        if method == "mining.subscribe":
            self._subscribing = number
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

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        verifier = self._verifier
        try:
            async with asyncio.timeout(self._deadlines.connect_s):
                reader, writer = await asyncio.open_connection(
                    self.endpoint.host,
                    self.endpoint.port,
                    limit=lines.MAX_LINE_BYTES,
                    ssl=None if verifier is None else verifier.context,
                )
        except ssl.SSLCertVerificationError as fault:
            raise PoolRefused(f"{self.endpoint}: {fault.verify_message}") from fault
        except (OSError, TimeoutError, UnicodeError) as fault:
            raise SessionEnded(f"cannot connect to {self.endpoint}: {_text(fault)}") from fault
        self.heard_s = asyncio.get_running_loop().time()
        if verifier is not None:
            try:
                verifier.check(writer)
            except CertificateRefused as fault:
                writer.transport.abort()
                raise PoolRefused(f"{self.endpoint}: {fault}") from fault
        return reader, writer

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
        agreed = await self._configure(login)
        try:
            await self._subscribe(login)
            reply = await self.request("mining.authorize", [login.user, login.password], answer_s)
        except AnswerMissing as fault:
            raise SessionEnded(str(fault)) from fault
        if reply.error or reply.result is not True:
            raise PoolRefused(f"not authorized: {error_text(reply.error) or 'refused'}")
        # Neither answer matters: some pools never send one. What counts is what they do then.
        moves = self._dialect.moves and login.extranonce_changes
        if moves and "subscribe-extranonce" not in agreed:
            await self._tell("mining.extranonce.subscribe", [])
            self.extras = False
        if self._dialect.suggests and login.suggest_difficulty is not None:
            await self._tell("mining.suggest_difficulty", [login.suggest_difficulty])

    async def _configure(self, login: Login) -> frozenset[str]:
        """Ask for extensions; a pool that does not answer or hangs up simply has none."""
        params = login.configure() if self._dialect.extensions else None
        if params is None:
            return frozenset()
        self.configured = False
        try:
            reply = await self.request("mining.configure", params, self._deadlines.configure_s)
        except AnswerMissing:
            return frozenset()
        self.configured = True
        return self.feed.configured(reply.result)

    async def _subscribe(self, login: Login) -> None:
        """Subscribe, as the earlier session if there is one. The answer is read in `_answered`."""
        answer_s, resume = self._deadlines.answer_s, login.resume
        if self._dialect.subscribe is None:
            return
        first = [login.agent, *self._dialect.subscribe]
        refused = None
        if resume is not None:
            self.resuming, self._resume = False, resume.extranonce
            params = [login.agent, resume.session_id]
            refused = (await self.request("mining.subscribe", params, answer_s)).error
            self.resuming = True
        if resume is None or refused:
            self._resume = None
            refused = (await self.request("mining.subscribe", first, answer_s)).error
        if refused:
            raise PoolRefused(f"not subscribed: {error_text(refused)}")

    async def _listen(self) -> None:
        """Read until the end. Raises: SessionEnded, always."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                message = await lines.read_message(self._reader, self._deadlines.idle_s)
                if message is None:
                    raise self._ending or SessionEnded("the pool closed the connection")
                self.heard_s = loop.time()
                self.extras = self.extras if self.extras is None else True
                if message.method is None:
                    self._answered(message)
                else:
                    await self._told(message.method, message)
        except TimeoutError as fault:
            raise SessionEnded(f"the pool was silent for {self._deadlines.idle_s} s") from fault
        except (OSError, LineFault, JobFault) as fault:
            raise self._ending or SessionEnded(_text(fault)) from fault

    def _answered(self, message: Message) -> None:
        number = message.id if isinstance(message.id, int) else None
        answer = self._answers.get(number) if number is not None else None
        if answer is None or answer.done():
            return
        if number == self._subscribing and not message.error:
            # Here and now: the next line may be a set_extranonce, which must not come first.
            early = self.feed.subscribed(message.result)
            self.resumed = self._resume is not None and self._resume == self.feed.extranonce
            self._offer(early)
        answer.set_result(message)

    async def _told(self, method: str, message: Message) -> None:
        """React to what the pool says of itself; anything unknown is ignored."""
        params = message.params
        match method:
            case _ if method in self.feed.methods:
                self._offer(self.feed.told(method, params))
            case "client.reconnect":
                self._reconnect(params)
            case "client.show_message":
                self._messages += 1
                if self._messages <= MOST_MESSAGES:
                    text = brief(params[0] if params else "", 200)
                    log.info("stratum.message", pool=str(self.endpoint), text=text)
            case "client.get_version":
                await self._send({"id": message.id, "result": "wattshift", "error": None})
            case "mining.ping" | "client.ping":
                await self._send({"id": message.id, "result": "pong", "error": None})
            case _:
                log.debug("stratum.ignored", method=brief(method))

    def _offer(self, job: Job | None) -> None:
        if job is not None:
            self._on_job(job)

    def _reconnect(self, params: list[Any]) -> None:
        """Follow where we may. Raises: SessionEnded, when following."""
        try:
            self.redirect = redirected(params, self.endpoint, self._consented)
        except RedirectRefused as fault:
            log.warning("stratum.redirect_refused", pool=str(self.endpoint), to=str(fault))
            return
        raise SessionEnded("the pool asked to reconnect")

    async def _tell(self, method: str, params: list[Any]) -> None:
        """Send a request whose answer, if any, does not matter."""
        self._last_id += 1
        await self._send({"id": self._last_id, "method": method, "params": params})

    async def _send(self, body: dict[str, Any]) -> None:
        try:
            await lines.send(self._writer, body)
        except (OSError, LineFault) as fault:
            raise SessionEnded(_text(fault)) from fault

    def _fail_waiting(self, why: str) -> None:
        self._over = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SessionEnded(why))
                answer.exception()  # a waiter that is gone already must not leave a warning


def _text(fault: BaseException) -> str:
    return brief(str(fault) or type(fault).__name__, 200)
