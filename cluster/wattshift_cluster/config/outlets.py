"""`[[pdus]]` of `agent.toml`: which device hangs on which switched outlet, and what may be done.

Credentials stand in files of their own and there is no default: an SNMP community, a password or a
key is used only where the owner named the file that holds it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wattshift_cluster.config.fields import (
    FilePath,
    Name,
    Section,
    Switch,
    number,
    seconds,
    watts,
    whole,
)

MAX_OUTLETS = 512
"""More than the largest rack PDU with its daisy chain has."""

_OID = r"^1(\.\d{1,10}){3,63}(\.\{i\}(\.\d{1,10}){0,8})?$"
_Oid = Annotated[str, Field(pattern=_OID, max_length=512)]


class SnmpRow(Section):
    """`[pdus.row]`: the objects of a PDU model that the built-in table does not know.

    `{i}` in an OID stands for the outlet's index; an OID without it gets the index at its end.
    `watts_scale` turns the reported number into W.
    """

    state: _Oid
    state_on: Annotated[int, whole(-1, 1_000_000)]
    state_off: Annotated[int, whole(-1, 1_000_000)]
    on: _Oid
    on_value: Annotated[int, whole(-1, 1_000_000)]
    off: _Oid
    off_value: Annotated[int, whole(-1, 1_000_000)]
    watts_oid: _Oid | None = Field(None, alias="watts")
    watts_scale: Annotated[float, number(1e-6, 1e6)] = 1.0


class Outlet(Section):
    """`[[pdus.outlets]]`: one outlet and the device behind it.

    `id` is the outlet's name on the PDU: its number (SNMP, with the unit before it where the PDU
    is one of a chain), or its Redfish id. A machine with several cords names each of its outlets;
    `power_on` is what it draws through this one when its power comes back.

    For Modbus, `coil` switches it, `state` is the discrete input of its auxiliary contact (the coil
    itself is read where there is none), and `watts` an input register in units of `watts_scale` W.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    device: Name
    power_on_w: Annotated[float, watts(0, 100_000)] = Field(alias="power_on")
    coil: Annotated[int, whole(0, 65_535)] | None = None
    state_at: Annotated[int, whole(0, 65_535)] | None = Field(None, alias="state")
    watts_at: Annotated[int, whole(0, 65_535)] | None = Field(None, alias="watts")
    watts_scale: Annotated[float, number(1e-6, 1e6)] = 1.0


class Watchdog(Section):
    """`[pdus.watchdog]`: the holding register that keeps a contactor closed while it is written.

    The contactor opens by itself `opens_after` after the last write; three writes fit into that.
    """

    register_at: Annotated[int, whole(0, 65_535)] = Field(alias="register")
    opens_after_s: Annotated[float, seconds(0.3, 300)] = Field(alias="opens_after")


class Pdu(Section):
    """`[[pdus]]`: one PDU, or one cabinet of contactors.

    `cut` is the owner's word that a device whose sleep was not confirmed in time may lose its
    power. `feeder` with `feeder_limit` is what its inlet may carry while outlets are switched on
    one after the other, `stagger` apart; until `boot` has passed each counts with its `power_on`.
    An outlet that was switched rests for `rest` before it is switched on again, because relays
    wear.
    """

    name: Name
    protocol: Literal["snmp", "modbus", "redfish"]
    address: str = Field(min_length=1, max_length=256)
    model: Name | None = None
    row: SnmpRow | None = None
    outlets: tuple[Outlet, ...] = Field(min_length=1, max_length=MAX_OUTLETS)
    cut: Switch = False
    feeder: Name
    feeder_limit_w: Annotated[float, watts(1)] = Field(alias="feeder_limit")
    stagger_s: Annotated[float, seconds(0.1, 3600)] = Field(5.0, alias="stagger")
    rest_s: Annotated[float, seconds(0, 86_400)] = Field(60.0, alias="rest")
    boot_s: Annotated[float, seconds(0, 7200)] = Field(300.0, alias="boot")
    settle_s: Annotated[float, seconds(0.1, 600)] = Field(5.0, alias="settle")
    deadline_s: Annotated[float, seconds(0.1, 30)] = Field(2.0, alias="deadline")
    emulated: Switch = False
    community_file: FilePath | None = None
    username: str | None = Field(None, min_length=1, max_length=256)
    password_file: FilePath | None = None
    privacy_file: FilePath | None = None
    authentication: Literal["sha256", "sha512", "sha1"] = "sha256"
    unit: Annotated[int, whole(0, 255)] = 1
    watchdog: Watchdog | None = None
    ca_file: FilePath | None = None
    path: str = Field("/redfish/v1/PowerEquipment/RackPDUs/1", pattern=r"^/redfish/[\w/.-]{1,200}$")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Each protocol has what it needs, and nothing that belongs to another one."""
        names = [one.id for one in self.outlets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"outlet given twice: {', '.join(twice)}")
        wrong = {"snmp": self._snmp, "modbus": self._modbus, "redfish": self._redfish}
        if fault := wrong[self.protocol]():
            raise ValueError(fault)
        return self

    def _snmp(self) -> str | None:
        if (self.model is None) == (self.row is None):
            return "SNMP needs a model or a row of its own, not both"
        if self.community_file is None and (self.username is None or self.password_file is None):
            return "SNMP needs username and password_file (v3), or community_file (v2c)"
        if self.community_file is not None and self.username is not None:
            return "SNMP takes username (v3) or community_file (v2c), not both"
        return None if self.watchdog is None else "only a Modbus contactor has a watchdog"

    def _modbus(self) -> str | None:
        bare = [one.id for one in self.outlets if one.coil is None]
        if bare:
            return f"Modbus needs a coil for outlet {', '.join(bare)}"
        if self.watchdog is not None and self.watchdog.opens_after_s < 3 * self.deadline_s:
            return "the watchdog must leave time for three deadlines"
        return None

    def _redfish(self) -> str | None:
        if not self.address.startswith(("https://", "http://127.", "http://localhost")):
            return "Redfish needs https://host; plain http would show the password"
        if self.username is None or self.password_file is None:
            return "Redfish needs username and password_file"
        return None if self.watchdog is None else "only a Modbus contactor has a watchdog"
