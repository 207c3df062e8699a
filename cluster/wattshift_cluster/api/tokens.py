"""Bearer tokens and their roles, kept as SHA-256 hashes in one file of mode 0600.

A token is shown once, when it is made; the file holds only its hash, so a copied file opens
nothing. 256 random bits need no slow hash. The server re-reads the file when it changes, so a
token made or revoked by the CLI counts from the next request on. A file that others may read or
write is refused rather than trusted.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound

TOKENS_MAX = 256
NAME_MAX = 64
PREFIX = "wattshift_"


class Role(IntEnum):
    """What a token may do; each role includes the ones below it."""

    VIEWER = 1  # read everything
    OPERATOR = 2  # submit and steer jobs, set caps, inject events
    ADMIN = 3  # make and revoke tokens


ROLE_NAMES = tuple(role.name.lower() for role in Role)


def role_of(name: str) -> Role:
    """Return the role of that name. Raises ConfigInvalid."""
    if name not in ROLE_NAMES:
        allowed = ", ".join(ROLE_NAMES)
        raise ConfigInvalid([Fault("token", "role", name, f"must be one of {allowed}")])
    return Role[name.upper()]


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token.

    Attributes:
        id: short name for listing and revoking; not secret.
        name: what the owner calls it.
        role: viewer, operator or admin.
        sha256: hash of the secret, hex.
        created_at: RFC 3339 UTC.
        expires_at_s: Unix time, s; None if it never ends.
    """

    id: str
    name: str
    role: str
    sha256: str
    created_at: str
    expires_at_s: float | None = None

    def view(self) -> dict[str, Any]:
        """Return what may be shown."""
        ends = None if self.expires_at_s is None else rfc3339(self.expires_at_s)
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role,
            "created_at": self.created_at,
            "expires_at": ends,
        }


def rfc3339(at_s: float) -> str:
    """Return a Unix time in s as RFC 3339 UTC text with millisecond resolution."""
    text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def digest(secret: str) -> str:
    """Return the hash under which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenStore:
    """The token file `tokens.json` of a state directory; safe for several processes."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "tokens.json"
        self._seen: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Token] = {}

    def create(self, name: str, role: Role, ttl_s: float | None = None) -> tuple[str, Token]:
        """Make a token and return (secret, kept part); the secret exists only here.

        Args:
            name: what the owner calls it, 1 to 64 characters.
            role: what it may do.
            ttl_s: life in s; None for ever.

        Raises:
            ConfigInvalid: the name is empty or too long, or the store is full.
        """
        if not 1 <= len(name) <= NAME_MAX:
            fault = Fault("token", "name", name[:NAME_MAX], f"must be 1 to {NAME_MAX} characters")
            raise ConfigInvalid([fault])
        secret = PREFIX + secrets.token_urlsafe(32)
        now_s = time.time()
        token = Token(
            id=secrets.token_hex(4),
            name=name,
            role=role.name.lower(),
            sha256=digest(secret),
            created_at=rfc3339(now_s),
            expires_at_s=None if ttl_s is None else now_s + ttl_s,
        )
        with self._locked():
            kept = self._read()
            if len(kept) >= TOKENS_MAX:
                raise ConfigInvalid([f"{self.path}: already {TOKENS_MAX} tokens; revoke one first"])
            self._write([*kept, token])
        return secret, token

    def tokens(self) -> list[Token]:
        """Return what is kept, oldest first."""
        return self._read()

    def revoke(self, token_id: str) -> Token:
        """Forget a token by its id. Raises NotFound."""
        with self._locked():
            kept = self._read()
            gone = next((token for token in kept if token.id == token_id), None)
            if gone is None:
                raise NotFound(f"no token {token_id}")
            self._write([token for token in kept if token.id != token_id])
        return gone

    def find(self, secret: str) -> Token | None:
        """Return the token that this secret opens; None if there is none or it has ended."""
        self._refresh()
        token = self._by_hash.get(digest(secret))
        if token is None or (token.expires_at_s is not None and token.expires_at_s <= time.time()):
            return None
        return token

    def _refresh(self) -> None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._by_hash = None, {}
            return
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._by_hash = {token.sha256: token for token in self._read()}
            self._seen = seen

    def _read(self) -> list[Token]:
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
            if mode & 0o077:
                raise ConfigInvalid(
                    [f"{self.path}: mode {mode:04o} lets others in; run: chmod 600 {self.path}"]
                )
            rows = json.loads(self.path.read_text())
            return [Token(**row) for row in rows["tokens"]]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigInvalid([f"{self.path}: not a token file: {error}"]) from error

    def _write(self, tokens: list[Token]) -> None:
        body = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1)
        write_private(self.path, body)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path.with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Replace a file by one of mode 0600, whole or not at all, also over a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
