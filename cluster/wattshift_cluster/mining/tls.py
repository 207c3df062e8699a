"""TLS to a pool: the certificate is checked, by its authority or by its own fingerprint.

There is no way to switch the check off: a pool with a certificate that no authority has signed is
named by its SHA-256 fingerprint, which the owner compares once.
"""

import asyncio
import hashlib
import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.mining.endpoint import EndpointInvalid


class CertificateRefused(Exception):
    """The pool showed another certificate than the one whose fingerprint we were given."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificate is believed.

    Attributes:
        ca_file: authorities to believe instead of the system's; PEM.
        fingerprint: SHA-256 of the certificate (DER), as 64 hexadecimal digits, with or without
            colons; then that certificate alone is believed, whoever signed it.
    """

    ca_file: Path | None = None
    fingerprint: str | None = None


class Verifier:
    """Opens TLS for one `Trust`, and holds the other end to it.

    Attributes:
        context: what to open a connection with.
    """

    def __init__(self, trust: Trust) -> None:
        """Read the authorities.

        Raises:
            EndpointInvalid: `ca_file` cannot be used, or `fingerprint` is none.
        """
        self._pinned = None if trust.fingerprint is None else _digest(trust.fingerprint)
        try:
            self.context = ssl.create_default_context(
                cafile=None if trust.ca_file is None else str(trust.ca_file)
            )
        except OSError as fault:
            raise EndpointInvalid(f"{trust.ca_file}: no certificates: {fault}") from fault
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._pinned is not None and trust.ca_file is None:
            # `check` compares the certificate itself, which says more than any signature.
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE

    def check(self, writer: asyncio.StreamWriter) -> None:
        """Compare the certificate of an open connection, before a word is said on it.

        Raises:
            CertificateRefused: it is another one.
        """
        if self._pinned is None:
            return
        tunnel: Any = writer.get_extra_info("ssl_object")
        shown = hashlib.sha256(tunnel.getpeercert(binary_form=True) or b"").digest()
        if not hmac.compare_digest(shown, self._pinned):
            raise CertificateRefused(f"its certificate has the fingerprint {shown.hex()}")


def _digest(fingerprint: str) -> bytes:
    try:
        digest = bytes.fromhex(fingerprint.replace(":", ""))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise EndpointInvalid("a fingerprint is the SHA-256 of a certificate: 64 hex digits")
    return digest
