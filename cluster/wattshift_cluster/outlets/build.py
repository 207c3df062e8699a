"""From a section of agent.toml to a PDU; a protocol's library is imported only when needed."""

from typing import assert_never

from wattshift_cluster.config.fields import split_address
from wattshift_cluster.config.outlets import Pdu as Section
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.outlets.driver import Pdu, Wire
from wattshift_cluster.outlets.secrets import read_secret

PORTS = {"snmp": 161, "modbus": 502}


def build(section: Section) -> Pdu:
    """The PDU that a section describes; nothing is sent.

    Raises:
        ConfigInvalid: its model is unknown, a secret cannot be read, or its library is missing.
    """
    try:
        wire = _wire(section)
    except ModuleNotFoundError as missing:
        needed = f"needs the extra 'asic' ({missing.name} is not installed)"
        raise ConfigInvalid([_fault(section, "protocol", section.protocol, needed)]) from None
    return Pdu(section.name, wire, deadline_s=section.deadline_s, settle_s=section.settle_s)


def _wire(section: Section) -> Wire:
    if section.protocol == "snmp":
        return _snmp(section)
    if section.protocol == "modbus":
        return _modbus(section)
    if section.protocol == "redfish":
        return _redfish(section)
    assert_never(section.protocol)


def _snmp(section: Section) -> Wire:
    from wattshift_cluster.outlets.snmp import Access, SnmpWire
    from wattshift_cluster.outlets.tables import ROWS, own_row

    row = own_row(section.row) if section.row is not None else ROWS.get(section.model or "")
    if row is None:
        known = f"unknown PDU model (known: {', '.join(ROWS)}; others need a [pdus.row])"
        raise ConfigInvalid([_fault(section, "model", section.model, known)])
    host, port = _endpoint(section)
    if section.community_file is not None:
        access = Access(community=read_secret(section.community_file, "community_file"))
    else:
        assert section.password_file is not None, "checked by the section"
        private = section.privacy_file
        access = Access(
            username=section.username,
            password=read_secret(section.password_file, "password_file"),
            privacy=None if private is None else read_secret(private, "privacy_file"),
            authentication=section.authentication,
        )
    return SnmpWire(section.name, host, port, row, access, deadline_s=section.deadline_s)


def _modbus(section: Section) -> Wire:
    from wattshift_cluster.outlets.modbus import Contactor, ModbusWire

    host, port = _endpoint(section)
    contactors = {
        one.id: Contactor(one.coil, one.state_at, one.watts_at, one.watts_scale)
        for one in section.outlets
        if one.coil is not None
    }
    return ModbusWire(
        section.name,
        host,
        port,
        section.unit,
        contactors,
        None if section.watchdog is None else section.watchdog.register_at,
        deadline_s=section.deadline_s,
    )


def _redfish(section: Section) -> Wire:
    from wattshift_cluster.outlets.redfish import Login, RedfishWire

    assert section.username is not None, "checked by the section"
    assert section.password_file is not None, "checked by the section"
    return RedfishWire(
        section.name,
        section.address,
        section.path,
        Login(section.username, read_secret(section.password_file, "password_file")),
        None if section.ca_file is None else str(section.ca_file),
        deadline_s=section.deadline_s,
    )


def _endpoint(section: Section) -> tuple[str, int]:
    """Host and port; the protocol's own port where none is given."""
    has_port = section.address.count(":") == 1 or section.address.startswith("[")
    try:
        default = "" if has_port else f":{PORTS[section.protocol]}"
        return split_address(section.address + default)
    except ValueError as wrong:
        raise ConfigInvalid([_fault(section, "address", section.address, str(wrong))]) from None


def _fault(section: Section, key: str, value: str | None, message: str) -> Fault:
    return Fault("agent.toml", f"pdus[{section.name}].{key}", value, message)
