"""Communities, passwords and keys: each in a file of its own that only its owner can read."""

import os
import stat
from pathlib import Path

from wattshift_cluster.errors import ConfigInvalid, Fault

MOST_BYTES = 256


def read_secret(path: Path, key: str) -> str:
    """The secret in a file, without white space around it.

    Raises:
        ConfigInvalid: missing, empty, too long, or readable by others; never shows what it holds.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise _invalid(path, key, fault.strerror or "cannot be read") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"others may use it (mode {stat.S_IMODE(mode):o}); chmod 600 it"
        raise _invalid(path, key, found)
    try:
        secret = raw.decode().strip()
    except UnicodeDecodeError:
        raise _invalid(path, key, "is not UTF-8 text") from None
    if not secret or len(raw) > MOST_BYTES:
        raise _invalid(path, key, f"holds no secret of 1 to {MOST_BYTES} bytes")
    return secret


def _invalid(path: Path, key: str, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault(str(path), key, None, message)])
