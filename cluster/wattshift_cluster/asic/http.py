"""Our HTTP client for one machine: a connection held ready, every answer bounded and in time.

It connects to the machine's own address only, follows no redirect, knows no proxy and no cookie,
and takes an answer for what it is: 4xx is a refusal in the machine's words, anything that is not a
whole answer in time is silence. What arrives unasked ends the connection, so that one answer is
never taken for another's.
"""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.http_auth import Auth
from wattshift_cluster.asic.http_line import Garbled, HttpReply, Line, most_held, read_reply
from wattshift_cluster.asic.wire import Json, bounded, parsed

HTTP_PORT = 80
WORDS_LIMIT = 120
"""Characters of a machine's own words that go into an error."""


class AsicUnauthorised(AsicRefused):
    """The machine wants a login that it did not get: 401 or 403."""


class HttpSession:
    """One machine's HTTP interface, one exchange at a time.

    Every method raises AsicUnreachable where no whole answer came in time. Beyond a quarter of the
    process's open files no connection is kept: then each request connects anew.

    Args:
        address: IPv4 address of the machine. Raises ValueError for anything else.
        port: of the interface.
        deadline_s: for each exchange, a login or a new connection within it included.
        auth: signs the requests; may be replaced.
    """

    def __init__(
        self, address: str, *, port: int = HTTP_PORT, deadline_s: float, auth: Auth | None = None
    ) -> None:
        self._line: Line | None = None
        self.address = str(ipaddress.IPv4Address(address))
        self.auth = auth
        self._port = port
        self._deadline_s = deadline_s
        self._turn = asyncio.Lock()

    def __del__(self) -> None:
        self._hang_up()

    async def get_json(self, path: str) -> Json:
        """GET an object. Raises AsicRefused (4xx), AsicUnreachable (no object)."""
        return parsed(self.address, f"GET {path}", await self.send("GET", path))

    async def post_json(self, path: str, body: Any = None) -> Json:
        """POST and return the object answered; an empty answer is {}. Raises as `get_json`."""
        raw = await self.send("POST", path, body)
        return parsed(self.address, f"POST {path}", raw or b"{}")

    async def put_json(self, path: str, body: Any = None) -> Json:
        """PUT; see `post_json`."""
        return parsed(self.address, f"PUT {path}", await self.send("PUT", path, body) or b"{}")

    async def patch_json(self, path: str, body: Any = None) -> Json:
        """PATCH; see `post_json`."""
        return parsed(self.address, f"PATCH {path}", await self.send("PATCH", path, body) or b"{}")

    async def send(self, method: str, path: str, body: Any = None) -> bytes:
        """Ask and return the body of a 2xx answer.

        Raises:
            AsicUnauthorised: 401 or 403.
            AsicRefused: any other 4xx, with the first words of the answer.
            AsicUnreachable: any other status.
        """
        doing = f"{method} {path}"
        status, answer = await self.request(method, path, body)
        if 200 <= status < 300:
            return answer
        raise self.fault(doing, status, answer)

    def fault(self, doing: str, status: int, answer: bytes) -> AsicRefused | AsicUnreachable:
        """What an answer that is no success means; see `send`."""
        if status in (401, 403):
            reason = "no login was given" if self.auth is None else "the login was refused"
            return AsicUnauthorised(self.address, doing, f"{reason} ({status})")
        if 400 <= status < 500:
            return AsicRefused(self.address, doing, f"{status}: {words(answer)}")
        return AsicUnreachable(self.address, doing, f"answered status {status}")

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Ask and return status and body, whatever they are.

        A 401 is met with a new login once. A kept connection that breaks before a byte of the
        answer is opened anew and the request repeated, which for a set point asks for the same
        state; `request_slow` never does so.

        Args:
            method: e.g. "GET".
            path: with its query.
            body: sent as JSON; None for none.
        """
        content, doing = _content(body), f"{method} {path}"
        async with self._turn, bounded(self.address, doing, self._deadline_s), self._clean(doing):
            reply = await self._asked(method, path, content)
            if reply.status == 401 and self._may_retry(reply):
                reply = await self._asked(method, path, content)
            if Line.open_now > most_held():
                self._hang_up()
            return reply.status, reply.body

    async def request_slow(
        self, method: str, path: str, body: Any = None, *, patience_s: float
    ) -> tuple[int, bytes]:
        """As `request`, for what takes a machine long; others are asked while it thinks.

        It goes out once, on a connection of its own, and once more only where a login is wanted.

        Args:
            patience_s: how long the answer may take to begin.
        """
        content, doing = _content(body), f"{method} {path}"
        async with self._turn, self._clean(doing):
            for attempt in range(2):
                self._hang_up()
                async with bounded(self.address, doing, self._deadline_s):
                    line, _ = await self._ready()
                    line.write(self._head(method, path, content) + (content or b""))
                if not await line.spoken(patience_s):
                    raise AsicUnreachable(self.address, doing, f"no answer within {patience_s:g} s")
                async with bounded(self.address, doing, self._deadline_s):
                    reply = await read_reply(line)
                if attempt or reply.status != 401 or not self._may_retry(reply):
                    break
            self._hang_up()
            return reply.status, reply.body

    async def connect(self) -> None:
        """Hold a connection ready, without asking anything."""
        async with self._turn, bounded(self.address, "connect", self._deadline_s):
            await self._ready()

    async def close(self) -> None:
        """Let the connection go; a later request opens a new one."""
        self._hang_up()

    @asynccontextmanager
    async def _clean(self, doing: str) -> AsyncIterator[None]:
        """Leave no half answer behind: it must not meet the next question."""
        try:
            yield
        except Garbled as error:
            self._hang_up()
            raise AsicUnreachable(self.address, doing, str(error)) from None
        except BaseException:
            self._hang_up()
            raise

    def _may_retry(self, reply: HttpReply) -> bool:
        challenge = reply.headers.get("www-authenticate", "")
        return self.auth is not None and self.auth.challenged(challenge)

    async def _asked(self, method: str, path: str, content: bytes | None) -> HttpReply:
        line, fresh = await self._ready()
        try:
            return await self._exchange(line, method, path, content)
        except (OSError, asyncio.IncompleteReadError):
            self._hang_up()
            if fresh or line.answered:
                raise
        line, _ = await self._ready()
        return await self._exchange(line, method, path, content)

    async def _exchange(
        self, line: Line, method: str, path: str, content: bytes | None
    ) -> HttpReply:
        line.write(self._head(method, path, content) + (content or b""))
        reply = await read_reply(line)
        if not reply.keep or not line.done():
            self._hang_up()
        return reply

    def _head(self, method: str, path: str, content: bytes | None) -> bytes:
        assert path.startswith("/")
        assert path.isprintable()
        assert " " not in path
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.address}", "Accept: */*"]
        if content is not None:
            lines.append("Content-Type: application/json")
        if content is not None or method != "GET":
            lines.append(f"Content-Length: {len(content or b'')}")
        if self.auth and (header := self.auth.header(method, path)):
            lines.append(f"Authorization: {header}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _ready(self) -> tuple[Line, bool]:
        if self._line is not None and self._line.usable:
            return self._line, False
        self._hang_up()
        loop = asyncio.get_running_loop()
        _, self._line = await loop.create_connection(Line, self.address, self._port)
        return self._line, True

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


def _content(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body, separators=(",", ":")).encode()


def words(answer: bytes) -> str:
    """The first words of a refusal, fit for one line of a log."""
    text = " ".join(answer[: 4 * WORDS_LIMIT].decode("utf-8", "replace").split())
    text = "".join(c for c in text if c.isprintable())[:WORDS_LIMIT]
    return text or "no reason given"
