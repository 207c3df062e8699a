"""Which addresses may be swept: private ranges and loopback, at most a /16 at a time."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, ip_network

from wattshift_cluster.errors import WattshiftError

MOST_ADDRESSES = 65_536
"""One /16: what a sweep can get through within minutes."""

ALLOWED = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8")
)
"""RFC 1918 and loopback. Whoever owns other addresses is not asked for their consent here."""


class RangeForbidden(WattshiftError):
    """A range that is never swept: not private, or too large at once."""

    exit_code = 3


def parse_ranges(texts: Sequence[str]) -> tuple[IPv4Network, ...]:
    """Read addresses and CIDR ranges; overlapping ones are joined.

    Raises:
        ValueError: a text is neither.
        RangeForbidden: one is not private, not IPv4, or together they are more than a /16.
    """
    networks = []
    for text in texts:
        try:
            network = ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is no range; write for example 192.168.10.0/24") from None
        if not isinstance(network, IPv4Network):
            raise RangeForbidden(f"{text}: only IPv4 is scanned")
        if not any(network.subnet_of(allowed) for allowed in ALLOWED):
            names = ", ".join(map(str, ALLOWED))
            raise RangeForbidden(f"{text}: only private ranges are scanned ({names})")
        networks.append(network)
    joined = tuple(collapse_addresses(networks))
    if (many := sum(network.num_addresses for network in joined)) > MOST_ADDRESSES:
        raise RangeForbidden(f"{many} addresses are more than a /16: scan them one by one")
    return joined


def addresses(networks: Sequence[IPv4Network]) -> Iterator[str]:
    """Every address that a machine can have, in order; no network or broadcast address."""
    for network in networks:
        yield from map(str, network.hosts())


def count(networks: Sequence[IPv4Network]) -> int:
    """How many `addresses` there are."""
    return sum(network.num_addresses - (2 if network.prefixlen < 31 else 0) for network in networks)


def covered(networks: Sequence[IPv4Network], address: str) -> bool:
    """Whether an address lies in one of the ranges."""
    return any(IPv4Address(address) in network for network in networks)


def allowed(address: str) -> bool:
    """Whether a machine may be looked for there at all: a private IPv4 address, or loopback."""
    try:
        return any(IPv4Address(address) in network for network in ALLOWED)
    except ValueError:
        return False
