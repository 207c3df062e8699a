"""Connect to an ASIC: find out what it is and return the driver that fits.

A native probe says which firmware answers; the driver of that firmware is a row of `kinds`. What
cannot be identified safely is refused.
"""

from dataclasses import dataclass, replace

from wattshift_cluster.asic.driver import AsicDriver, AsicRefused, Credentials
from wattshift_cluster.asic.kinds import KINDS
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import NAMES, Found, probe
from wattshift_cluster.asic.pyasic_rs_any import NAME, rs_driver
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
    nameplate_w: float | None = None,
    prefer: str | None = None,
) -> AsicDriver:
    """Identify the machine at `address` and return its driver.

    Args:
        address: IPv4 address; the ports are the firmware's own.
        credentials: the owner's, for firmware that wants a password. LuxOS wants none. Without
            them such a machine is read and its commands are refused here.
        transitions: measured on this machine, if they were.
        deadline_s: for each exchange.
        nameplate_w: the most it draws, W, by its owner's word, for a model that no table rates.
        prefer: "pyasic_rs" lets that library drive the machine instead of the first choice.

    Raises:
        AsicUnreachable: nothing usable answered.
        AsicRefused: no driver for what answered, or a library that it needs is missing.
    """
    found = await probe(address, deadline_s=deadline_s)
    return await driver_for(
        address,
        found,
        credentials=credentials,
        transitions=transitions,
        deadline_s=deadline_s,
        nameplate_w=nameplate_w,
        prefer=prefer,
    )


async def driver_for(
    address: str,
    found: Found,
    *,
    credentials: Credentials | None = None,
    transitions: Transitions | None = None,
    deadline_s: float = DEADLINE_S,
    nameplate_w: float | None = None,
    prefer: str | None = None,
) -> AsicDriver:
    """Return the driver of a machine that a probe has found; arguments and errors as `connect`."""
    if found.kind not in KINDS or found.kind not in ABILITIES:
        reason = f"no driver for {NAMES.get(found.kind, found.kind)} ({found.model})"
        raise AsicRefused(address, "identify", reason)
    ability = ABILITIES[found.kind]
    if transitions is not None:
        ability = replace(ability, sleep_s=transitions.sleep_s, settle_s=transitions.settle_s)
    setup = Setup(address, found, ability, credentials, deadline_s, prefer, nameplate_w)
    assert prefer in (None, NAME), f"no such library: {prefer}"
    return await (rs_driver(setup) if prefer == NAME else KINDS[found.kind](setup))
