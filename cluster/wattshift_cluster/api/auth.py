"""Who may call what: FastAPI dependencies that ask for a bearer token of at least one role."""

from collections.abc import Callable

from fastapi import Request

from wattshift_cluster.api.problems import Problem
from wattshift_cluster.api.tokens import Role, Token, TokenStore


def bearer(request: Request) -> str | None:
    """Return the secret in the Authorization header, if it holds one."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def needs(role: Role) -> Callable[[Request], Token]:
    """Return a dependency that lets a request through from this role upward."""

    def check(request: Request) -> Token:
        store: TokenStore = request.app.state.tokens
        secret = bearer(request)
        token = store.find(secret) if secret else None
        if token is None:
            why = "send a token: Authorization: Bearer …" if secret is None else "unknown token"
            challenge = {"WWW-Authenticate": 'Bearer realm="wattshift"'}
            raise Problem(401, why, headers=challenge)
        if Role[token.role.upper()] < role:
            asked = role.name.lower()
            raise Problem(403, f"token {token.name!r} is a {token.role}; this needs {asked}")
        request.state.token = token
        return token

    return check


viewer = needs(Role.VIEWER)
operator = needs(Role.OPERATOR)
admin = needs(Role.ADMIN)
