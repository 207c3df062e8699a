"""An emulated PDU's SNMP agent: the objects of a `tables.Row`, v2c and v3, GET and SET.

What it answers to is an argument, so that it cannot agree with the driver by sharing its table:
tests give it objects and numbers that they wrote down themselves.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto.rfc1902 import Gauge32, Integer32
from pysnmp.proto.rfc1905 import noSuchInstance
from pysnmp.smi.error import NotWritableError, PySnmpError, WrongValueError
from pysnmp.smi.instrum import AbstractMibInstrumController

from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip

_INTERNET = (1, 3, 6, 1)


@dataclass(frozen=True, slots=True)
class Objects:
    """What stands where: OIDs with `{i}` for the outlet's index.

    `on` and `off` are (object, value to be written); `state` is (object, on value, off value).
    `watts` counts in `per_w` units of one W, and in as many decimal `digits` as `decimals` says.
    """

    state: tuple[str, int, int]
    on: tuple[str, int]
    off: tuple[str, int]
    watts: str | None = None
    per_w: float = 1.0
    decimals: str | None = None
    digits: int = 0


class EmulatedSnmpPdu:
    """One agent on one UDP port.

    Args:
        strip: its outlets; their ids are the indexes.
        objects: what it answers to.
        community: v2c community that may read and write; None: v2c is off.
        user: v3 (name, password, privacy key or None), SHA-256 and AES-128; None: v3 is off.
    """

    def __init__(
        self,
        strip: Strip,
        objects: Objects,
        *,
        community: str | None = None,
        user: tuple[str, str, str | None] | None = None,
    ) -> None:
        self.strip = strip
        self._objects = objects
        self._community = community
        self._user = user
        self._engine: Any = None
        self.port = 0

    async def start(self, host: str, port: int = 161) -> None:
        """Listen. Raises OSError where the port is in use or not allowed."""
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            probe.bind((host, port))
            port = probe.getsockname()[1]
        finally:
            probe.close()
        self._engine = agent = engine.SnmpEngine()
        transport = udp.UdpTransport().open_server_mode((host, port))
        config.add_transport(agent, udp.DOMAIN_NAME, transport)
        if self._community is not None:
            config.add_v1_system(agent, "area", self._community)
            config.add_vacm_user(agent, 2, "area", "noAuthNoPriv", _INTERNET, _INTERNET)
        if self._user is not None:
            self._add_user(agent, *self._user)
        served = context.SnmpContext(agent)
        served.unregister_context_name(b"")
        served.register_context_name(b"", _Outlets(self.strip, self._objects))
        cmdrsp.GetCommandResponder(agent, served)
        cmdrsp.SetCommandResponder(agent, served)
        await transport._lport
        self.port = port

    async def stop(self) -> None:
        """Close the port."""
        if self._engine is not None:
            self._engine.close_dispatcher()
            self._engine = None

    def _add_user(self, agent: Any, name: str, password: str, privacy: str | None) -> None:
        config.add_v3_user(
            agent,
            name,
            config.USM_AUTH_HMAC192_SHA256,
            password,
            config.USM_PRIV_NONE if privacy is None else config.USM_PRIV_CFB128_AES,
            privacy,
        )
        level = "authNoPriv" if privacy is None else "authPriv"
        config.add_vacm_user(agent, 3, name, level, _INTERNET, _INTERNET)


class _Outlets(AbstractMibInstrumController):  # type: ignore[misc]
    """GET and SET of the strip's objects."""

    def __init__(self, strip: Strip, objects: Objects) -> None:
        self._strip = strip
        self._objects = objects
        self._reads: dict[str, Callable[[], Any]] = {}
        self._writes: dict[tuple[str, int], tuple[str, bool]] = {}
        for outlet in strip.outlets:
            self._reads[_at(objects.state[0], outlet)] = partial(self._state, outlet)
            if objects.watts is not None:
                self._reads[_at(objects.watts, outlet)] = partial(self._watts, outlet)
            if objects.decimals is not None:
                self._reads[_at(objects.decimals, outlet)] = partial(Gauge32, objects.digits)
            self._writes[_at(objects.on[0], outlet), objects.on[1]] = (outlet, True)
            self._writes[_at(objects.off[0], outlet), objects.off[1]] = (outlet, False)

    def read_variables(self, *wanted: Any, **_: Any) -> list[tuple[Any, Any]]:
        """Answer a GET."""
        self._hang()
        found = []
        for name, _value in wanted:
            read = self._reads.get(str(name))
            found.append((name, noSuchInstance if read is None else read()))
        return found

    def write_variables(self, *wanted: Any, **_: Any) -> list[tuple[Any, Any]]:
        """Answer a SET."""
        self._hang()
        for at, (name, value) in enumerate(wanted):
            order = self._writes.get((str(name), int(value)))
            if order is None:
                known = any(oid == str(name) for oid, _ in self._writes)
                raise WrongValueError(idx=at) if known else NotWritableError(idx=at)
            outlet, on = order
            if not self._strip.command(outlet, on=on):
                raise NotWritableError(idx=at)
        return list(wanted)

    def _state(self, outlet: str) -> Any:
        _, on_value, off_value = self._objects.state
        return Integer32(on_value if self._strip.on(outlet) else off_value)

    def _watts(self, outlet: str) -> Any:
        watts_w = self._strip.reported_w(outlet)
        if watts_w is None:
            return noSuchInstance
        return Integer32(round(watts_w * self._objects.per_w * 10**self._objects.digits))

    def _hang(self) -> None:
        if self._strip.fault is OutletFault.MUTE:
            raise PySnmpError("a mute agent answers nothing")


def _at(template: str, outlet: str) -> str:
    return template.replace("{i}", outlet) if "{i}" in template else f"{template}.{outlet}"
