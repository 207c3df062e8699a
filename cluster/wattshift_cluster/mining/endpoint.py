"""Where a pool listens: stratum+tls:// or stratum+tcp://host:port, and what counts as loopback."""

import ipaddress
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from wattshift_cluster.errors import WattshiftError

PLAIN_SCHEMES = ("", "tcp", "stratum+tcp")
TLS_SCHEMES = ("tls", "ssl", "stratum+tls", "stratum+ssl")


class EndpointInvalid(WattshiftError):
    """A pool or listen address, or a certificate for it, that cannot be used."""

    exit_code: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host and TCP port, and whether TLS is spoken there."""

    host: str
    port: int
    tls: bool = field(default=False, kw_only=True)

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """From `stratum+tls://host:port` (or `+ssl`), `stratum+tcp://host:port` or `host:port`.

        Raises:
            EndpointInvalid: another scheme, no host or no port.
        """
        try:
            parts = urlsplit(text if "://" in text else f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError as fault:
            raise EndpointInvalid(f"{text}: {fault}") from fault
        if parts.scheme not in (*PLAIN_SCHEMES, *TLS_SCHEMES):
            raise EndpointInvalid(f"{text}: only stratum+tls:// and stratum+tcp:// are supported")
        if not host or port is None:
            raise EndpointInvalid(f"{text}: needs a host and a port")
        return cls(host, port, tls=parts.scheme in TLS_SCHEMES)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, whatever is spoken there."""
        return self.host, self.port

    @property
    def is_loopback(self) -> bool:
        """Whether this is 127.0.0.0/8, ::1 or the name localhost; other names count as outside."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
