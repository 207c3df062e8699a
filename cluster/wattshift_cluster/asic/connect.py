"""Connect to an ASIC: find out what it is and return the driver that fits.

A native probe says which firmware answers; the driver of that firmware is a row of `kinds`. What
cannot be identified safely is refused.
"""

from dataclasses import dataclass, replace

from wattshift_cluster.asic.driver import AsicDriver, Credentials
from wattshift_cluster.asic.kinds import KINDS
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import probe
from wattshift_cluster.asic.setup import Setup

DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Transitions:
    """Seconds that commissioning measured on a machine, in place of the table's figures."""

    sleep_s: float
    settle_s: float


async def connect(
    address: str,
    *,
    credentials: Credentials | None = None,
    transitions: Transitions | None = None,
    deadline_s: float = DEADLINE_S,
) -> AsicDriver:
    """Identify the machine at `address` and return its driver.

    Args:
        address: IPv4 address; the ports are the firmware's own.
        credentials: the owner's, for firmware that wants a password. LuxOS wants none. Without
            them such a machine is read and its commands are refused here.
        transitions: measured on this machine, if they were.
        deadline_s: for each exchange.

    Raises:
        AsicUnreachable: nothing usable answered.
        AsicRefused: no driver for what answered, or a library that it needs is missing.
    """
    found = await probe(address, deadline_s=deadline_s)
    ability = ABILITIES[found.kind]
    if transitions is not None:
        ability = replace(ability, sleep_s=transitions.sleep_s, settle_s=transitions.settle_s)
    return await KINDS[found.kind](Setup(address, found, ability, credentials, deadline_s))
