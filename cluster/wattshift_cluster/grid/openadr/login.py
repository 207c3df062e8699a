"""The VEN's login: OAuth2 client credentials (RFC 6749, 4.4), with the token kept while it is good.

Where the token comes from is told by `GET auth/server` (OpenADR 3.1); a VTN that knows no such path
(3.0) has it at `auth/token`. A token is renewed before it ends, and once more when the VTN refuses
it; the secret is read from its file each time, so that it can be changed while the site runs.
"""

import asyncio
import base64
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.openadr.exchange import Exchange, Request
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused

MOST_SECRET_BYTES = 4096
MOST_TOKEN_CHARACTERS = 16_384
"""A signed token with many claims has a few thousand."""

EARLY_S = 30.0
"""A token is renewed so long before its end, or a tenth of its life if that is less."""

UNTOLD_LIFE_S = 3600.0
LONGEST_LIFE_S = 7 * 86_400.0
"""What a server says beyond this is not believed; a refused token is renewed anyhow."""

VEN_SCOPES = (
    "read_targets",
    "read_ven_objects",
    "write_reports",
    "write_subscriptions",
    "write_vens",
)
"""What a VEN may ask for in 3.1; 3.0 knows `read_all` instead of the first two."""

SCOPES_3_0 = ("read_all", "write_reports", "write_subscriptions", "write_vens")
NO_SUCH_PATH = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_s: float


class Login:
    """Tokens for one VTN."""

    def __init__(
        self,
        client_id: str,
        secret_file: Path,
        *,
        scopes: Sequence[str] | None = None,
        token_url: str | None = None,
        basic: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read or sent yet.

        Args:
            client_id: as the VTN's owner gave it.
            secret_file: holds the secret; only its owner may read it.
            scopes: to ask for; None: those of a VEN, after the VTN's version.
            token_url: where tokens are; None: as the VTN says.
            basic: send id and secret as HTTP Basic instead of in the form, as some servers want.
            clock: monotonic seconds.
        """
        self.client_id = client_id
        self._secret_file = secret_file
        self._scopes = None if scopes is None else tuple(scopes)
        self._token_url = token_url
        self._basic = basic
        self._clock = clock
        self._found: str | None = token_url
        self._token: _Token | None = None
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Login({self.client_id!r})"

    async def token(
        self, exchange: Exchange, *, version: str = "3.1", refused: str | None = None
    ) -> str:
        """A token that is good now.

        Args:
            exchange: how to reach the VTN.
            version: of OpenADR, for the scopes.
            refused: the token that the VTN did not take: it is not given again.

        Raises:
            ConfigInvalid: the secret's file.
            VtnUnreachable, VtnRefused, VtnNonsense: the token server.
        """
        async with self._asking:
            kept = self._token
            if kept and kept.text != refused and self._clock() < kept.renew_s:
                return kept.text
            self._token = await self._ask(exchange, version)
            return self._token.text

    async def _ask(self, exchange: Exchange, version: str) -> _Token:
        if self._found is None:
            self._found = await discover(exchange)
        default = SCOPES_3_0 if version.startswith("3.0") else VEN_SCOPES
        form = {"grant_type": "client_credentials"}
        if scope := " ".join(default if self._scopes is None else self._scopes):
            form["scope"] = scope
        secret = read_secret(self._secret_file)
        headers = {}
        if self._basic:
            # RFC 6749, 2.3.1: both are form-encoded before Basic encodes them.
            pair = f"{quote(self.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": self.client_id, "client_secret": secret}
        asked_s = self._clock()
        try:
            said = await exchange.send(Request("POST", self._found, form=form, headers=headers))
        except VtnRefused as no:
            if no.status in NO_SUCH_PATH:
                self._found = self._token_url
            raise
        text, life_s = _read(said)
        return _Token(text, asked_s + life_s - min(EARLY_S, life_s / 10))


async def discover(exchange: Exchange) -> str:
    """The address of the token server, as `GET auth/server` tells it.

    Raises:
        VtnUnreachable, VtnRefused: no answer, or another refusal than "no such path".
        VtnNonsense: an address that must not be sent a secret.
    """
    try:
        said = await exchange.send(Request("GET", "auth/server"))
    except VtnRefused as no:
        if no.status not in NO_SUCH_PATH:
            raise
        return exchange.base_url + "auth/token"
    url = said.get("tokenURL") if isinstance(said, dict) else None
    if not isinstance(url, str):
        raise VtnNonsense("auth/server: no tokenURL")
    at, base = urlsplit(url), urlsplit(exchange.base_url)
    if at.scheme == "" and at.netloc == "" and at.path:
        return url.lstrip("/") if not url.startswith("//") else url
    if not at.hostname or at.scheme not in ("http", "https"):
        raise VtnNonsense("auth/server: tokenURL is no address")
    if at.scheme == "http" and base.scheme == "https":
        raise VtnNonsense("auth/server: tokenURL leaves TLS; no secret is sent there")
    return url


def read_secret(path: Path) -> str:
    """The secret in a file, without white space around it.

    Raises:
        ConfigInvalid: missing, empty, too long, or readable by others; never shows what it holds.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MOST_SECRET_BYTES + 1)
    except OSError as fault:
        raise _invalid(path, fault.strerror or "cannot be read") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _invalid(path, f"others may use it (mode {stat.S_IMODE(mode):o}); chmod 600 it")
    try:
        secret = raw.decode().strip()
    except UnicodeDecodeError:
        raise _invalid(path, "is not UTF-8 text") from None
    if not secret or len(raw) > MOST_SECRET_BYTES:
        raise _invalid(path, f"holds no secret of 1 to {MOST_SECRET_BYTES} bytes")
    return secret


def _invalid(path: Path, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault(str(path), "secret", None, message)])


def _read(said: Any) -> tuple[str, float]:
    """Token and its life, s. Raises VtnNonsense."""
    text = said.get("access_token") if isinstance(said, dict) else None
    if not isinstance(text, str) or not 0 < len(text) <= MOST_TOKEN_CHARACTERS:
        raise VtnNonsense("auth/token: no access_token")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise VtnNonsense("auth/token: the access_token is not one word of ASCII")
    if str(said.get("token_type", "Bearer")).lower() != "bearer":
        raise VtnNonsense("auth/token: the token is of no Bearer kind")
    life_s = said.get("expires_in", UNTOLD_LIFE_S)
    if isinstance(life_s, bool) or not isinstance(life_s, int | float):
        life_s = UNTOLD_LIFE_S
    return text, max(0.0, min(float(life_s), LONGEST_LIFE_S))
