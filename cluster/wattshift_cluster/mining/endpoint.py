"""Where a pool listens: stratum+tcp://host:port, and what counts as loopback."""

import ipaddress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from wattshift_cluster.errors import WattshiftError


class EndpointInvalid(WattshiftError):
    """A pool or listen address that cannot be used."""

    exit_code: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host and TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """From `stratum+tcp://host:port`, `tcp://host:port` or `host:port`.

        Raises:
            EndpointInvalid: another scheme (TLS is not supported), no host or no port.
        """
        parts = urlsplit(text if "://" in text else f"//{text}")
        if parts.scheme not in ("", "tcp", "stratum+tcp"):
            raise EndpointInvalid(f"{text}: only stratum+tcp:// is supported")
        try:
            host, port = parts.hostname, parts.port
        except ValueError as fault:
            raise EndpointInvalid(f"{text}: {fault}") from fault
        if not host or port is None:
            raise EndpointInvalid(f"{text}: needs a host and a port")
        return cls(host, port)

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
