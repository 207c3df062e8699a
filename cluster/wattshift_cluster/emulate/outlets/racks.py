"""Which emulated PDUs there are, what hangs on each, and the `[[pdus]]` that drive them."""

import ipaddress
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wattshift_cluster.emulate.outlets.families import FAMILIES
from wattshift_cluster.emulate.outlets.plugs import Load

Protocol = Literal["snmp", "modbus", "redfish"]
PROTOCOLS: tuple[Protocol, ...] = ("snmp", "modbus", "redfish")
PORTS = {"snmp": 1161, "modbus": 1502, "redfish": 8443}
"""Ports that need no privilege; the protocols' own are 161, 502 and 443."""

USERNAME = "wattshift"
MOST_PDUS = 1024
WATTS_PER_UNIT_W = 10.0
_NOT_A_HOST = (0, 255)


@dataclass(frozen=True, slots=True)
class Rack:
    """One PDU and what hangs on it.

    Attributes:
        name: in messages, in the configuration and for faults.
        address, port: where it listens.
        family: of SNMP objects.
        loads: machines, in the order of its outlets, which count from 1 (a Modbus coil from 0).
        secret: community or password.
    """

    name: str
    protocol: Protocol
    address: str
    port: int
    family: str
    loads: tuple[Load, ...]
    secret: str = field(repr=False)

    @property
    def outlets(self) -> tuple[str, ...]:
        """Their ids as the emulated PDU knows them."""
        numbers = range(1, len(self.loads) + 1)
        if self.protocol == "snmp":
            return tuple(FAMILIES[self.family].index(number) for number in numbers)
        return tuple(str(number) for number in numbers)

    @property
    def feeder(self) -> str:
        """What its inlet hangs on."""
        return self.loads[0].feeder or self.name


def racks(
    loads: Sequence[Load], protocols: Sequence[Protocol], *, outlets: int, net: str, family: str
) -> list[Rack]:
    """Deal machines to PDUs, those of one feeder together; protocols take turns.

    Raises:
        ValueError: the net is not on loopback or too small, or there are too many PDUs.
    """
    space = ipaddress.ip_network(net)
    if not isinstance(space, ipaddress.IPv4Network) or space.network_address.packed[0] != 127:
        raise ValueError(f"{net}: emulated PDUs live in 127.0.0.0/8")
    shares = list(_shares(loads, outlets))
    if len(shares) > MOST_PDUS:
        raise ValueError(f"{len(shares)} PDUs are more than {MOST_PDUS}: give them more outlets")
    addresses = (str(one) for one in space if one.packed[-1] not in _NOT_A_HOST)
    made = [
        Rack(
            name=f"pdu-{number + 1}",
            protocol=(protocol := protocols[number % len(protocols)]),
            address=address,
            port=PORTS[protocol],
            family=family,
            loads=share,
            secret=secrets.token_urlsafe(18),
        )
        for number, (share, address) in enumerate(zip(shares, addresses, strict=False))
    ]
    if len(made) < len(shares):
        raise ValueError(f"{net} has room for {len(made)} PDUs, not for {len(shares)}")
    return made


def _shares(loads: Sequence[Load], outlets: int) -> Iterator[tuple[Load, ...]]:
    by_feeder: dict[str | None, list[Load]] = {}
    for load in loads:
        by_feeder.setdefault(load.feeder, []).append(load)
    for share in by_feeder.values():
        for first in range(0, len(share), outlets):
            yield tuple(share[first : first + outlets])


def keep_secrets(made: Sequence[Rack], folder: Path) -> None:
    """Write each PDU's secret into a file that only its owner can read. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for rack in made:
        if rack.protocol != "modbus":
            path = secret_file(rack, folder)
            path.touch(mode=0o600)
            path.chmod(0o600)
            path.write_text(rack.secret + "\n")


def secret_file(rack: Rack, folder: Path) -> Path:
    """Where that secret stands."""
    return folder / f"{rack.name}.secret"


def agent_fragment(
    made: Sequence[Rack], folder: Path, *, cut: bool, watchdog_s: float | None
) -> str:
    """`[[pdus]]` entries of an agent.toml that drive these PDUs.

    Args:
        made: they.
        folder: of the secrets.
        cut: whether the agent may cut a machine off whose sleep it cannot confirm.
        watchdog_s: after so long without being fed Modbus contactors open; None: they do not.
    """
    return "\n".join(_entry(rack, folder, cut=cut, watchdog_s=watchdog_s) for rack in made)


def _entry(rack: Rack, folder: Path, *, cut: bool, watchdog_s: float | None) -> str:
    http = "http://" if rack.protocol == "redfish" else ""
    lines = [
        "[[pdus]]",
        f"name = {json.dumps(rack.name)}",
        f'protocol = "{rack.protocol}"',
        f'address = "{http}{rack.address}:{rack.port}"',
        f"feeder = {json.dumps(rack.feeder)}",
        f'feeder_limit = "{sum(load.most_w for load in rack.loads):.0f}W"',
        f"cut = {'true' if cut else 'false'}",
        "emulated = true",
        'boot = "15s"',
        'stagger = "1s"',
    ]
    secret = json.dumps(str(secret_file(rack, folder)))
    if rack.protocol == "snmp":
        lines += [f'model = "{rack.family}"', f"community_file = {secret}"]
    elif rack.protocol == "redfish":
        lines += [f'username = "{USERNAME}"', f"password_file = {secret}"]
    for number, load in enumerate(rack.loads, 1):
        lines += [
            "[[pdus.outlets]]",
            f'id = "{number}"',
            f"device = {json.dumps(load.id)}",
            f'power_on = "{load.most_w:.0f}W"',
        ]
        if rack.protocol == "modbus":
            coil = f"coil = {number - 1}"
            lines += [coil, coil.replace("coil", "state"), coil.replace("coil", "watts")]
            lines.append(f"watts_scale = {WATTS_PER_UNIT_W:g}")
    if rack.protocol == "modbus" and watchdog_s is not None:
        lines += ["[pdus.watchdog]", "register = 100", f'opens_after = "{watchdog_s:g}s"']
    return "\n".join(lines) + "\n"
