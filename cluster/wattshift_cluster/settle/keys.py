"""The key that signs the evidence: Ed25519, made at first use, readable by its owner alone.

The public half lies in the folder of the log, so that the folder can be handed over; whoever
checks it should hold that half from an earlier day and not take it from the same hands.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from wattshift_cluster.errors import NotFound, WattshiftError

PRIVATE_NAME = "evidence.key"
PUBLIC_NAME = "evidence.pub"
KEY_BYTES_MOST = 4096


class KeyInvalid(WattshiftError):
    """A key file that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """The private key."""

    _key: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The public half, 64 hexadecimal digits."""
        return _hex(self._key.public_key())

    def sign(self, text: str) -> str:
        """The signature of a text, 128 hexadecimal digits."""
        return self._key.sign(text.encode()).hex()

    def public_pem(self) -> bytes:
        """The public half as a PEM file."""
        public = self._key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signer_at(path: Path) -> Signer:
    """The key in a file, made there with mode 0600 if need be. Raises: KeyInvalid, OSError."""
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # Written whole under another name first: a half written key must never be found.
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        return Signer(key)
    if path.stat().st_mode & 0o077:
        raise KeyInvalid(f"{path}: others may read the key; chmod 600 it, or make a new one")
    try:
        found = load_pem_private_key(_bounded(path), None)
    except (ValueError, TypeError):
        raise KeyInvalid(f"{path}: not a private key without a password") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise KeyInvalid(f"{path}: not an Ed25519 key")
    return Signer(found)


def public_at(path: Path) -> str:
    """The public key in a PEM file, 64 hexadecimal digits. Raises: NotFound, KeyInvalid."""
    try:
        found = load_pem_public_key(_bounded(path))
    except OSError as fault:
        raise NotFound(f"{path}: {fault.strerror}") from None
    except (ValueError, TypeError):
        raise KeyInvalid(f"{path}: not a public key in PEM") from None
    if not isinstance(found, Ed25519PublicKey):
        raise KeyInvalid(f"{path}: not an Ed25519 key")
    return _hex(found)


def signed_by(public: str, text: str, signature: str) -> bool:
    """Whether a signature of a text is that of a public key, all in hexadecimal digits."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), text.encode())
    except (ValueError, InvalidSignature):
        return False
    return True


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(KEY_BYTES_MOST)


def _hex(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
