"""Ray's own token: where a driver finds it, and what is wrong with it.

Ray looks in RAY_AUTH_TOKEN, then in the file that RAY_AUTH_TOKEN_PATH names, then in
~/.ray/auth_token; and in none of them unless RAY_AUTH_MODE is "token" (measured with 2.60: a driver
that was given a token but no mode is turned away). A cluster without tokens does not mind one.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
DEFAULT_FILE = ".ray/auth_token"
MAKE = "ray get-auth-token --generate"


@dataclass(frozen=True, slots=True)
class TokenFound:
    """A driver's token.

    Attributes:
        source: the variable or the file that holds it; None without a token. Never the token.
        environment: what to add to the driver's environment, so that it is used.
        warning, mend: what should be mended, and the command; None and empty if nothing.
    """

    source: str | None
    environment: Mapping[str, str]
    warning: str | None = None
    mend: str = ""


def find_token(environment: Mapping[str, str], home: Path) -> TokenFound:
    """The token that Ray would use, by Ray's own order; `home` is the user's."""
    if environment.get(MODE, "token") != "token":
        return TokenFound(None, {})
    wanted = {MODE: "token"}
    if environment.get(TOKEN):
        return TokenFound(TOKEN, wanted)
    named = environment.get(TOKEN_PATH)
    path = Path(named) if named else home / DEFAULT_FILE
    try:
        mode = path.stat().st_mode
        empty = not path.read_text().strip()
    except (OSError, ValueError):
        if named is None:
            return TokenFound(None, {})
        return TokenFound(None, {}, f"{TOKEN_PATH} names {path}, which cannot be read", MAKE)
    if empty:
        return TokenFound(None, {}, f"{path} holds no token", MAKE)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return TokenFound(str(path), wanted, f"others can read {path}", f"chmod 600 {path}")
    return TokenFound(str(path), wanted)


def no_entry(found: TokenFound) -> str:
    """Why a Ray that listens does not let a driver in, as far as can be told from outside."""
    ways = f"{TOKEN} or {TOKEN_PATH}"
    if found.source is None:
        told = f" ({found.warning})" if found.warning else ""
        return f"Ray lets nobody in without its token{told}; give it in {ways}"
    return f"Ray does not accept the token from {found.source}, or no Ray listens there; see {ways}"
