"""How Whatsminer commands are signed, by API v3 on port 4433 and by API v2 on port 4028.

v3 (maker's API page, pyasic, asic-rs): token = the first 8 characters of base64(sha256(command +
password + salt + time)), with the salt that `get.device.info` tells.

v2 (maker's API 2.0 document, pyasic, asic-rs): `get_token` tells time, salt and newsalt. With p the
hash part of md5crypt(password, salt), the AES-256 key is sha256(p) and the token the hash part of
md5crypt(p + time, newsalt). Requests and replies are AES in ECB, padded with zeros, in base64.

`cryptography` and `passlib` come with the `asic` extra and are loaded with the first v2 command.
"""

import base64
import hashlib
import importlib
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Json = dict[str, Any]
BLOCK = 16


def v3_token(command: str, password: str, salt: str, at_unix_s: int) -> str:
    """The token of one `set.*` command."""
    signed = f"{command}{password}{salt}{at_unix_s}".encode()
    return base64.b64encode(hashlib.sha256(signed).digest())[:8].decode()


@dataclass(frozen=True, slots=True)
class V2Secrets:
    """What v2 commands are signed and sealed with; as good as the password, so never shown."""

    token: str = field(repr=False)
    key: bytes = field(repr=False)


def v2_secrets(password: str, salt: str, time: str, newsalt: str) -> V2Secrets:
    """Derive token and key; costs 0.4 to 3 ms.

    Raises:
        ValueError: a salt is not one that md5crypt takes.
        ImportError: passlib or cryptography is not installed.
    """
    hashed = _md5crypt(password, salt)
    key = hashlib.sha256(hashed.encode()).digest()
    _aes(key)
    return V2Secrets(_md5crypt(hashed + time, newsalt), key)


def seal(key: bytes, request: Json) -> str:
    """Encrypt a request."""
    payload = json.dumps(request).encode()
    payload += bytes(-len(payload) % BLOCK)
    return base64.b64encode(_aes(key).encryptor().update(payload)).decode()


def unseal(key: bytes, sealed: str) -> Json:
    """Decrypt a reply or a request.

    Raises:
        ValueError: it is not sealed with this key, or holds no JSON object.
    """
    payload = base64.b64decode(sealed)
    if len(payload) % BLOCK:
        raise ValueError("not a whole number of blocks")
    try:
        opened = json.loads(_aes(key).decryptor().update(payload).rstrip(b"\x00"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(opened, dict):
        raise ValueError("not a JSON object")
    return opened


def _md5crypt(word: str, salt: str) -> str:
    made: str = _scheme().using(salt=salt).hash(word)
    return made.rpartition("$")[2]


@cache
def _scheme() -> Any:
    scheme = importlib.import_module("passlib.hash").md5_crypt
    if scheme.has_backend("os_crypt"):
        # The C library's, four times as fast; Python 3.13 no longer reaches it.
        scheme.set_backend("os_crypt")
    return scheme


def _aes(key: bytes) -> Any:
    ciphers = importlib.import_module("cryptography.hazmat.primitives.ciphers")
    return ciphers.Cipher(ciphers.algorithms.AES(key), ciphers.modes.ECB())
