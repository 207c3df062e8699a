"""HTTP/1.1 as an emulated machine serves it: kept-alive connections, small bodies, digest logins.

`http` makes a wire of a function from request to response. A head, a body and an idle time beyond
the bounds end the connection, as on a real control board. `Digest` is the server's side of RFC 7616
with MD5 and qop "auth"; what else a firmware asks for (Basic, a bearer token) is its own affair.
"""

import asyncio
import hashlib
import hmac
import inspect
import json
import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from wattshift_cluster.emulate.wires import REQUEST_DEADLINE_S, REQUEST_LIMIT, Wire

KEEP_ALIVE_S = 60.0
"""An idle connection is closed after so long."""

MAX_HEADERS = 64
NONCES_KEPT = 64
"""Logins remembered by one machine; the oldest is told to log in again."""

NONCE_S = 300.0
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        method: in upper case.
        target: path and query as sent; a digest signs it.
        path: without the query.
        headers: by name in lower case.
        body: empty where there is none.
    """

    method: str
    target: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, str]:
        """The query's fields."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response. `body` other than bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, *, keep: bool, bodiless: bool) -> bytes:
        """The bytes on the wire."""
        raw = isinstance(self.body, bytes)
        body = self.body if raw else json.dumps(self.body).encode()
        lines = [f"HTTP/1.1 {self.status} {_PHRASES.get(self.status, 'Unknown')}"]
        if not any(name.lower() == "content-type" for name in self.headers):
            lines.append(f"Content-Type: {'text/html' if raw else 'application/json'}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"Content-Length: {len(body)}")
        if not keep:
            lines.append("Connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        return head if bodiless else head + body


Respond = Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]


def http(respond: Respond, *, keep_alive_s: float = KEEP_ALIVE_S) -> Wire:
    """Serve requests until the client leaves, asks to close, or is idle for `keep_alive_s`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(keep_alive_s):
                first = await reader.read(1)
            if not first:
                return
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                request = await _request(reader, first)
            if request is None:
                writer.write(HttpResponse(400).encoded(keep=False, bodiless=False))
                await writer.drain()
                return
            response = respond(request)
            if inspect.isawaitable(response):
                response = await response
            keep = request.headers.get("connection", "").lower() != "close"
            writer.write(response.encoded(keep=keep, bodiless=request.method == "HEAD"))
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await writer.drain()
            if not keep:
                return

    return serve


async def _request(reader: asyncio.StreamReader, first: bytes) -> HttpRequest | None:
    """Read the rest of one request; None for one that this server does not take."""
    try:
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    start, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = start.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or len(lines) > MAX_HEADERS:
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > REQUEST_LIMIT:
        return None
    body = await reader.readexactly(int(length))
    return HttpRequest(parts[0], parts[1], parts[1].partition("?")[0], headers, body)


class Digest:
    """Who may ask: one realm, its users, and the nonces given out.

    Args:
        realm: as the firmware names it.
        users: passwords by user name.
        seed: of the nonces.
        clock: monotonic seconds.
    """

    def __init__(
        self, realm: str, users: Mapping[str, str], *, seed: int, clock: Callable[[], float]
    ) -> None:
        self._realm = realm
        self._users = dict(users)
        self._random = random.Random(seed)
        self._clock = clock
        self._nonces: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def refusal(self, request: HttpRequest) -> HttpResponse | None:
        """None for a request signed with a known password; otherwise the 401 to send.

        A count that does not grow is refused; a nonce that is forgotten or too old is stale.
        """
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        given = {name.lower(): a or b for name, a, b in _PARAMETER.findall(rest)}
        if scheme.lower() != "digest" or not self._signed(request, given):
            return self._challenge(stale=False)
        made_s, used = self._nonces.get(given["nonce"], (-NONCE_S, 0))
        count = int(given["nc"], 16)
        if self._clock() - made_s >= NONCE_S or count <= used:
            return self._challenge(stale=True)
        self._nonces[given["nonce"]] = made_s, count
        return None

    def forget(self) -> None:
        """Forget every nonce, as at a restart."""
        self._nonces.clear()

    def _signed(self, request: HttpRequest, given: Mapping[str, str]) -> bool:
        password = self._users.get(given.get("username", ""))
        nonce, count, own = (given.get(name, "") for name in ("nonce", "nc", "cnonce"))
        if password is None or given.get("realm") != self._realm or given.get("qop") != "auth":
            return False
        if not re.fullmatch("[0-9a-fA-F]{8}", count):
            return False
        who = _md5(f"{given['username']}:{self._realm}:{password}")
        what = _md5(f"{request.method}:{request.target}")
        right = _md5(f"{who}:{nonce}:{count}:{own}:auth:{what}")
        return hmac.compare_digest(right.encode(), given.get("response", "").lower().encode())

    def _challenge(self, *, stale: bool) -> HttpResponse:
        nonce = f"{self._random.getrandbits(128):032x}"
        self._nonces[nonce] = self._clock(), 0
        while len(self._nonces) > NONCES_KEPT:
            self._nonces.popitem(last=False)
        says = f'Digest realm="{self._realm}", nonce="{nonce}", algorithm=MD5, qop="auth"'
        header = f"{says}, stale=true" if stale else says
        return HttpResponse(401, b"401 Unauthorized", {"WWW-Authenticate": header})


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
