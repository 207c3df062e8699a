"""client.reconnect: where a pool may send us, and how long we wait for it.

A pool, or whoever speaks in its place on an open connection, must not move hash rate to a
stranger. So a redirect is followed to the same host, or to a host of the same registered domain
that the owner has named. Where the owner has named addresses, another port of the same host must
be among them too.
"""

import ipaddress
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import JobFault
from wattshift_cluster.mining.refusals import brief

MOST_RECONNECT_WAIT_S = 300.0

SECOND_LEVELS = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})
"""Names that registries of countries put below their own: pool.example.co.uk is example.co.uk."""


class RedirectRefused(Exception):
    """A redirect that we do not follow; the session goes on."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """client.reconnect: where to go and how long to wait first."""

    endpoint: Endpoint
    wait_s: float


def redirected(
    params: list[Any], here: Endpoint, consented: Collection[Endpoint] | None
) -> Redirect:
    """Where client.reconnect [host, port, wait] leads; what is missing stays as it is.

    Args:
        here: the endpoint of this connection; a redirect never turns TLS off.
        consented: addresses that the owner has named; None where nobody has, as on loopback.

    Raises:
        RedirectRefused: to a host or port where we do not go.
        JobFault: port or wait are no numbers that make sense.
    """
    host, port, wait = [*params, None, None, None][:3]
    if host is not None and not isinstance(host, str):
        raise JobFault("client.reconnect with a host that is not text")
    target = replace(here, host=host or here.host, port=_port(port, here.port))
    wait_s = min(max(_number(wait, "wait"), 0.0), MOST_RECONNECT_WAIT_S)
    if not _may_follow(here, target, consented):
        raise RedirectRefused(brief(str(target)))
    return Redirect(target, wait_s)


def registered_domain(host: str) -> str:
    """The part of a host name that somebody registered: the last two labels, or three.

    An IP address has no such part; it stands for itself.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.lower().rstrip(".").split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVELS
    return ".".join(labels[-3 if country else -2 :])


def _may_follow(here: Endpoint, to: Endpoint, consented: Collection[Endpoint] | None) -> bool:
    if to.address == here.address:
        return True
    if consented is None:
        return to.host == here.host
    named = any(one.address == to.address and (to.tls or not one.tls) for one in consented)
    return named and registered_domain(to.host) == registered_domain(here.host)


def _port(value: Any, default: int) -> int:
    port = default if value is None or value == "" else _number(value, "port")
    if not 0 < port < 65536 or port != int(port):
        raise JobFault(f"client.reconnect to port {brief(value)}")
    return int(port)


def _number(value: Any, name: str) -> float:
    """A number, or its text: some pools send the port as text. 0 for nothing."""
    try:
        number = float(0.0 if value is None or value == "" else value)
    except (TypeError, ValueError, OverflowError) as fault:
        raise JobFault(f"client.reconnect with a {name} that is not a number") from fault
    if not math.isfinite(number):
        raise JobFault(f"client.reconnect with a {name} that is not finite")
    return number
