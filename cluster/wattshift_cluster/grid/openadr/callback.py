"""The webhook receiver: a port of its own on which the VTN tells of changes.

    GET  PATH?echo=X    the handshake: X comes back, so that the VTN knows whom it will tell
    POST PATH           a notification, with the bearer token that the subscription named

The handshake answers plain text and believes nothing. A notification without the token is refused
with 401, with another one 403; the comparison takes the same time wherever they differ. What passes
is read within bounds, and dropped if it was heard already (`notices.Heard`).
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import structlog

from wattshift_cluster.grid.openadr.notices import (
    MAX_NOTICE_BYTES,
    Heard,
    NoticeInvalid,
    OnNotice,
    read_notice,
)
from wattshift_cluster.grid.serving import Certificate, Serving, serve

MAX_ECHO_CHARACTERS = 1024
BODY_DEADLINE_S = 10.0
"""For the whole body of one notification."""

LEAST_TOKEN_CHARACTERS = 16

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Counts:
    """What came to the receiver since it was made.

    Attributes:
        taken: notifications passed on.
        repeated: notifications that had been heard, or were older than what was heard.
        echoed: handshakes.
        unauthorised: without a token.
        forbidden: with another token than ours.
        invalid: with our token, and no notification.
    """

    taken: int = 0
    repeated: int = 0
    echoed: int = 0
    unauthorised: int = 0
    forbidden: int = 0
    invalid: int = 0


class Callback:
    """Receives notifications on one path of one address."""

    def __init__(
        self,
        bearer: str,
        on_notice: OnNotice,
        *,
        path: str = "/openadr",
        cert: Path | None = None,
        key: Path | None = None,
        heard: Heard | None = None,
    ) -> None:
        """Prepare; nothing listens yet.

        Args:
            bearer: the token that each notification must carry; at least 16 characters.
            on_notice: takes each one that is new, in the event loop; quick.
            path: of the callback address.
            cert, key: PEM files; None: plain HTTP, as behind a proxy that does TLS.
            heard: what was heard already, shared with other ways in.
        """
        assert len(bearer) >= LEAST_TOKEN_CHARACTERS, "a token that can be guessed is none"
        assert path.startswith("/"), "an absolute path"
        assert (cert is None) == (key is None), "a certificate comes with its key"
        self.counts = Counts()
        self._token = _digest(bearer.encode())
        self._on_notice = on_notice
        self._path = path
        self._certificate = None if cert is None or key is None else Certificate(cert, key)
        self._heard = heard or Heard()
        self._serving: Serving | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; the address that the VTN can be told, as seen from this host.

        Raises:
            WattshiftError: the address is in use or not ours.
            ConfigInvalid: the certificate cannot be used.
        """
        assert self._serving is None, "started once"
        self._serving = await serve(
            self._answer, host, port, name="openadr-callback", certificate=self._certificate
        )
        return self._serving.url + self._path

    async def close(self) -> None:
        """Stop listening."""
        if self._serving is not None:
            await self._serving.close()
            self._serving = None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != self._path:
            await _reply(send, HTTPStatus.NOT_FOUND)
        elif scope["method"] == "GET":
            await self._echo(scope, send)
        elif scope["method"] == "POST":
            await self._notified(scope, receive, send)
        else:
            await _reply(send, HTTPStatus.METHOD_NOT_ALLOWED)

    async def _echo(self, scope: Scope, send: Send) -> None:
        try:
            asked = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=8)
            (word,) = asked["echo"]
        except (ValueError, KeyError):
            await _reply(send, HTTPStatus.BAD_REQUEST)
            return
        if len(word) > MAX_ECHO_CHARACTERS or not word.isprintable():
            await _reply(send, HTTPStatus.BAD_REQUEST)
            return
        self.counts.echoed += 1
        await _reply(send, HTTPStatus.OK, word.encode())

    async def _notified(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await _reply(send, refusal)
            return
        try:
            notice = read_notice(await _body(receive))
        except (NoticeInvalid, TimeoutError) as fault:
            self.counts.invalid += 1
            log.warning("openadr_notice_invalid", why=str(fault) or "the body did not come in time")
            await _reply(send, HTTPStatus.BAD_REQUEST)
            return
        if self._heard.is_news(notice):
            self.counts.taken += 1
            self._on_notice(notice)
        else:
            self.counts.repeated += 1
        await _reply(send, HTTPStatus.OK)

    def _refusal(self, scope: Scope) -> HTTPStatus | None:
        """401 or 403; None where the token is ours."""
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = shown[0].partition(b" ") if len(shown) == 1 else (b"", b"", b"")
        peer = (scope.get("client") or ("unknown",))[0]
        if kind.lower() != b"bearer" or not token.strip():
            self.counts.unauthorised += 1
            _tell("openadr_notice_without_token", peer, self.counts.unauthorised)
            return HTTPStatus.UNAUTHORIZED
        if not hmac.compare_digest(_digest(token.strip()), self._token):
            self.counts.forbidden += 1
            _tell("openadr_notice_forged", peer, self.counts.forbidden)
            return HTTPStatus.FORBIDDEN
        return None


def _tell(what: str, peer: str, count: int) -> None:
    """Log the first, the second, the fourth and so on: a stranger must not fill the log."""
    if count & (count - 1) == 0:
        log.warning(what, peer=peer, count=count)


async def _body(receive: Receive) -> bytes:
    """The whole body. Raises NoticeInvalid where it is too large, TimeoutError where it is slow."""
    data = b""
    async with asyncio.timeout(BODY_DEADLINE_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise NoticeInvalid("the VTN hung up")
            data += bytes(message.get("body", b""))
            if len(data) > MAX_NOTICE_BYTES:
                raise NoticeInvalid(f"more than {MAX_NOTICE_BYTES} bytes")
            if not message.get("more_body", False):
                return data


async def _reply(send: Send, status: HTTPStatus, body: bytes = b"") -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(token: bytes) -> bytes:
    # Digests are of one length, so that the comparison does not tell that of the token.
    return hashlib.sha256(token).digest()
