"""Connect to an ASIC: find out what it is and return the driver that fits.

pyasic identifies the machine and carries every command; samples are native requests, which have a
deadline and cost less (see `wire`). What cannot be identified safely
is refused: a stock Antminer, for one, whose pools pyasic's stop can erase.
"""

from dataclasses import dataclass, field, replace

from wattshift_cluster.asic.driver import AsicDriver
from wattshift_cluster.asic.luxos import LuxosDriver
from wattshift_cluster.asic.models import ABILITIES, Ability
from wattshift_cluster.asic.probe import probe
from wattshift_cluster.asic.pyasic_handle import handle_for
from wattshift_cluster.asic.whatsminer import WhatsminerDriver

DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the owner configured for a machine; never guessed, a maker's default included."""

    password: str = field(repr=False)


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
        AsicRefused: no driver for what answered, or pyasic is missing.
    """
    found = await probe(address, deadline_s=deadline_s)
    handle = await handle_for(address, found, deadline_s=deadline_s)
    ability: Ability = ABILITIES[found.kind]
    if transitions is not None:
        ability = replace(ability, sleep_s=transitions.sleep_s, settle_s=transitions.settle_s)
    if credentials is not None and ability.needs_password:
        handle.use_password(credentials.password)
    if found.kind == "luxos":
        return LuxosDriver(handle, ability)
    may_command = credentials is not None or not ability.needs_password
    return WhatsminerDriver(handle, ability, may_command=may_command)
