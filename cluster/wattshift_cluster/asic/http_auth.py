"""How our HTTP client proves to a machine that it may ask: a fixed header, or a digest.

A digest (RFC 7616, MD5, qop "auth") keeps the server's nonce and counts its uses, so that a session
held ready costs one round trip per request. Whoever sends decides how often a challenge is met: a
forgotten nonce and a wrong password look alike, so it is once per request.
"""

import hashlib
import re
import secrets
from typing import Protocol

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_MOST_USES = 0xFFFF_FFFF


class Auth(Protocol):
    """What signs the requests of one session."""

    def header(self, method: str, target: str) -> str | None:
        """The Authorization header of the next request; None to send none."""
        ...

    def challenged(self, challenge: str) -> bool:
        """Look at a 401's WWW-Authenticate; whether the request is worth sending once more."""
        ...


class Fixed:
    """The same header each time, e.g. "Bearer …"; a 401 is final. Never shown."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self, method: str, target: str) -> str | None:
        """See `Auth`."""
        return self._value

    def challenged(self, challenge: str) -> bool:
        """See `Auth`."""
        return False


class Digest:
    """One user's digest login, with the nonce last given. Never shown.

    Args:
        username, password: the owner's.
    """

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._password = password
        self._secret = ""
        self._realm = self._nonce = self._opaque = ""
        self._uses = 0

    def header(self, method: str, target: str) -> str | None:
        """See `Auth`. None as long as the machine gave no nonce."""
        if not self._nonce or self._uses >= _MOST_USES:
            return None
        self._uses += 1
        count, own = f"{self._uses:08x}", secrets.token_hex(8)
        what = _md5(f"{method}:{target}")
        response = _md5(f"{self._secret}:{self._nonce}:{count}:{own}:auth:{what}")
        fields = [
            f'Digest username="{self._username}"',
            f'realm="{self._realm}"',
            f'nonce="{self._nonce}"',
            f'uri="{target}"',
            f'response="{response}"',
            "algorithm=MD5",
            "qop=auth",
            f"nc={count}",
            f'cnonce="{own}"',
        ]
        if self._opaque:
            fields.append(f'opaque="{self._opaque}"')
        return ", ".join(fields)

    def challenged(self, challenge: str) -> bool:
        """See `Auth`. False for a scheme other than MD5 with qop "auth"."""
        scheme, _, rest = challenge.partition(" ")
        given = {name.lower(): a or b for name, a, b in _PARAMETER.findall(rest)}
        offered = [way.strip() for way in given.get("qop", "").split(",")]
        if scheme.lower() != "digest" or given.get("algorithm", "MD5").upper() != "MD5":
            return False
        if "auth" not in offered or not given.get("nonce") or not challenge.isprintable():
            return False
        self._realm, self._nonce = given.get("realm", ""), given["nonce"]
        self._opaque, self._uses = given.get("opaque", ""), 0
        self._secret = _md5(f"{self._username}:{self._realm}:{self._password}")
        return True


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
