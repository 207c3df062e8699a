"""Who may log in: clients with a role and a secret, and the tokens they were given."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from wattshift_cluster.grid.vtn.kinds import BL_SCOPES, READ_ALL, VEN_SCOPES
from wattshift_cluster.grid.vtn.problems import Problem

MAX_TOKENS = 1_000
"""Good at the same time; the oldest gives way."""

TOKEN_BYTES = 32


class Role(StrEnum):
    """What a client is."""

    VEN = "ven"
    BL = "bl"


SCOPES = {Role.VEN: VEN_SCOPES, Role.BL: BL_SCOPES}


@dataclass(frozen=True, slots=True)
class Client:
    """One who may log in."""

    id: str
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """One who has logged in, and what it may do."""

    id: str
    scopes: frozenset[str]
    until_s: float

    @property
    def everything(self) -> bool:
        """Whether it may read what is not its own."""
        return READ_ALL in self.scopes


class Clients:
    """The clients of one VTN and their tokens."""

    def __init__(
        self,
        clients: Sequence[Client],
        *,
        token_life_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: token_life_s: of each token, s; clock: monotonic seconds."""
        self._clients = {client.id: client for client in clients}
        self._life_s = token_life_s
        self._clock = clock
        self._tokens: dict[bytes, Caller] = {}
        self._stranger = Client("", Role.VEN, secrets.token_hex(TOKEN_BYTES))

    def login(self, grant: str, client_id: str, secret: str, scope: str) -> dict[str, Any]:
        """A token, as RFC 6749 (4.4.3) says it. Raises Problem (400, 401)."""
        if grant != "client_credentials":
            raise _error("unsupported_grant_type", "only client_credentials is spoken here")
        client = self._clients.get(client_id, self._stranger)
        # A stranger's secret is compared too, so that the time does not tell who is known.
        if not hmac.compare_digest(_digest(secret), _digest(client.secret)):
            problem = _error("invalid_client", "no such client, or another secret")
            problem.status = HTTPStatus.UNAUTHORIZED
            raise problem
        scopes = frozenset(scope.split()) or SCOPES[client.role]
        if not scopes <= SCOPES[client.role]:
            raise _error("invalid_scope", f"a {client.role.value} client has no such scope")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        while len(self._tokens) >= MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[_digest(token)] = Caller(client.id, scopes, self._clock() + self._life_s)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(self._life_s),
            "scope": " ".join(sorted(scopes)),
        }

    def caller(self, authorization: str | None) -> Caller:
        """Whose token this header holds. Raises Problem (401)."""
        kind, _, token = (authorization or "").partition(" ")
        caller = self._tokens.get(_digest(token.strip())) if kind.lower() == "bearer" else None
        if caller is None or self._clock() >= caller.until_s:
            raise Problem(HTTPStatus.UNAUTHORIZED, "a token of auth/token is needed, and in time")
        return caller

    def forget_tokens(self) -> None:
        """Take every token back: each client must log in again."""
        self._tokens.clear()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _error(word: str, detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail, word)
