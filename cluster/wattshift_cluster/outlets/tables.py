"""The SNMP objects of each PDU family: a table of facts with its sources, no class per model.

Every family names on, off and their readings differently, and one even uses other numbers for what
is read than for what is written; that is why a row says each of them. `{i}` is the outlet's index,
to which a row gives the part that stands before it on a PDU that is not chained.
"""

from dataclasses import dataclass

from wattshift_cluster.config.outlets import SnmpRow

INDEX = "{i}"


@dataclass(frozen=True, slots=True)
class Row:
    """How one family of PDUs is read and switched.

    Attributes:
        state: outlet state; `state_on` and `state_off` are its only two settled values.
        on, on_value, off, off_value: what to write where.
        watts: draw of the outlet times `1 / watts_scale`, W; None: outlets are not metered.
        decimals: object that holds the decimal digits of `watts`, where the PDU says so itself.
        prefix: put before an outlet that was given as a bare number.
        source: where the figures stand.
    """

    state: str
    state_on: int
    state_off: int
    on: str
    on_value: int
    off: str
    off_value: int
    watts: str | None
    watts_scale: float
    decimals: str | None
    prefix: str
    source: str

    def oid(self, template: str, outlet: str) -> str:
        """The object of one outlet; a bare number gets the family's prefix."""
        index = outlet if "." in outlet else f"{self.prefix}{outlet}"
        return template.replace(INDEX, index) if INDEX in template else f"{template}.{index}"


_APC = "1.3.6.1.4.1.318.1.1.26.9"
_RARITAN = "1.3.6.1.4.1.13742.6"
_SENTRY4 = "1.3.6.1.4.1.1718.4.1.8"
_EATON = "1.3.6.1.4.1.534.6.6.7.6"

ROWS: dict[str, Row] = {
    # State is read from the switched table: the metered table's state column says "on" always.
    "apc-rpdu2": Row(
        state=f"{_APC}.2.3.1.5",
        state_on=2,
        state_off=1,
        on=f"{_APC}.2.4.1.5",
        on_value=1,
        off=f"{_APC}.2.4.1.5",
        off_value=2,
        watts=f"{_APC}.4.3.1.7",
        watts_scale=1.0,
        decimals=None,
        prefix="",
        source="PowerNet-MIB: rPDU2OutletSwitchedStatusState off(1) on(2), ControlCommand "
        "immediateOn(1) immediateOff(2), rPDU2OutletMeteredStatusPower in W",
    ),
    # Commands are off(0) and on(1), but the state reads on(7) and off(8).
    "raritan-pdu2": Row(
        state=f"{_RARITAN}.4.1.2.1.3",
        state_on=7,
        state_off=8,
        on=f"{_RARITAN}.4.1.2.1.2",
        on_value=1,
        off=f"{_RARITAN}.4.1.2.1.2",
        off_value=0,
        watts=f"{_RARITAN}.5.4.3.1.4.{INDEX}.5",
        watts_scale=1.0,
        decimals=f"{_RARITAN}.3.5.4.1.7.{INDEX}.5",
        prefix="1.",
        source="PDU2-MIB: outletSwitchingState, switchingOperation, "
        "measurementsOutletSensorValue and outletSensorDecimalDigits of activePower(5)",
    ),
    "servertech-sentry4": Row(
        state=f"{_SENTRY4}.3.1.1",
        state_on=1,
        state_off=2,
        on=f"{_SENTRY4}.5.1.2",
        on_value=1,
        off=f"{_SENTRY4}.5.1.2",
        off_value=2,
        watts=f"{_SENTRY4}.3.1.7",
        watts_scale=1.0,
        decimals=None,
        prefix="1.1.",
        source="Sentry4-MIB: st4OutletState on(1) off(2), st4OutletControlAction on(1) off(2), "
        "st4OutletActivePower in W; index unit.cord.outlet",
    ),
    # A command is a delay in seconds, written to one object for each direction.
    "eaton-epdu": Row(
        state=f"{_EATON}.6.1.2",
        state_on=1,
        state_off=0,
        on=f"{_EATON}.6.1.4",
        on_value=0,
        off=f"{_EATON}.6.1.3",
        off_value=0,
        watts=f"{_EATON}.5.1.3",
        watts_scale=1.0,
        decimals=None,
        prefix="0.",
        source="EATON-EPDU-MIB: outletControlStatus off(0) on(1), outletControlOnCmd and OffCmd "
        "(delay in s), outletWatts; index strapping.outlet",
    ),
}


def own_row(row: SnmpRow) -> Row:
    """A row that the owner wrote."""
    return Row(
        state=row.state,
        state_on=row.state_on,
        state_off=row.state_off,
        on=row.on,
        on_value=row.on_value,
        off=row.off,
        off_value=row.off_value,
        watts=row.watts_oid,
        watts_scale=row.watts_scale,
        decimals=None,
        prefix="",
        source="the agent's own configuration",
    )
