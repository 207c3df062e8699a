"""The objects of each SNMP PDU family, as an emulated one answers to them.

Written down from the makers' MIBs a second time and not taken from `outlets.tables`: a driver that
was wrong about a number would otherwise be emulated to be right.
"""

from dataclasses import dataclass

from wattshift_cluster.emulate.outlets.snmp import Objects


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its objects, and what stands before an outlet's number in their index."""

    objects: Objects
    prefix: str = ""

    def index(self, number: int) -> str:
        """The index of an outlet by its number, 1 and up."""
        return f"{self.prefix}{number}"


FAMILIES = {
    # PowerNet-MIB, rPDU2OutletSwitched and rPDU2OutletMetered.
    "apc-rpdu2": Family(
        Objects(
            state=("1.3.6.1.4.1.318.1.1.26.9.2.3.1.5.{i}", 2, 1),
            on=("1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{i}", 1),
            off=("1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.{i}", 2),
            watts="1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.{i}",
        )
    ),
    # PDU2-MIB, outletSwitchControlTable and measurementsOutletSensor of activePower(5).
    "raritan-pdu2": Family(
        Objects(
            state=("1.3.6.1.4.1.13742.6.4.1.2.1.3.{i}", 7, 8),
            on=("1.3.6.1.4.1.13742.6.4.1.2.1.2.{i}", 1),
            off=("1.3.6.1.4.1.13742.6.4.1.2.1.2.{i}", 0),
            watts="1.3.6.1.4.1.13742.6.5.4.3.1.4.{i}.5",
            decimals="1.3.6.1.4.1.13742.6.3.5.4.1.7.{i}.5",
            digits=1,
        ),
        "1.",
    ),
    # Sentry4-MIB, st4OutletMonitor and st4OutletControl; index unit.cord.outlet.
    "servertech-sentry4": Family(
        Objects(
            state=("1.3.6.1.4.1.1718.4.1.8.3.1.1.{i}", 1, 2),
            on=("1.3.6.1.4.1.1718.4.1.8.5.1.2.{i}", 1),
            off=("1.3.6.1.4.1.1718.4.1.8.5.1.2.{i}", 2),
            watts="1.3.6.1.4.1.1718.4.1.8.3.1.7.{i}",
        ),
        "1.1.",
    ),
    # EATON-EPDU-MIB, outletControl and outletActivePower; index strapping.outlet.
    "eaton-epdu": Family(
        Objects(
            state=("1.3.6.1.4.1.534.6.6.7.6.6.1.2.{i}", 1, 0),
            on=("1.3.6.1.4.1.534.6.6.7.6.6.1.4.{i}", 0),
            off=("1.3.6.1.4.1.534.6.6.7.6.6.1.3.{i}", 0),
            watts="1.3.6.1.4.1.534.6.6.7.6.5.1.3.{i}",
        ),
        "0.",
    ),
}
