"""The token that both ends of a link share, and the file that keeps it from everybody else."""

import os
import secrets
import stat
from pathlib import Path

from wattshift_cluster.errors import ConfigInvalid, Fault

LEAST_TOKEN_BYTES = 16
MOST_TOKEN_BYTES = 1024


def create_token(path: Path) -> bytes:
    """Write a fresh token of 256 bits to a new file that only its owner can read.

    Raises:
        FileExistsError: a token is never overwritten.
        OSError: the file cannot be written.
    """
    token = secrets.token_hex(32).encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(token + b"\n")
    return token


def read_token(path: Path) -> bytes:
    """The token in a file, without white space around it.

    Raises:
        ConfigInvalid: missing, readable by others, or of an impossible length.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(MOST_TOKEN_BYTES + 1).strip()
    except OSError as fault:
        raise _invalid(path, fault.strerror or str(fault)) from fault
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _invalid(path, f"others may use it (mode {stat.S_IMODE(mode):o}); chmod 600 it")
    if not LEAST_TOKEN_BYTES <= len(token) <= MOST_TOKEN_BYTES:
        raise _invalid(path, f"a token has {LEAST_TOKEN_BYTES} to {MOST_TOKEN_BYTES} bytes")
    return token


def _invalid(path: Path, message: str) -> ConfigInvalid:
    return ConfigInvalid([Fault(str(path), "token_file", None, message)])
