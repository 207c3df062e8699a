"""The drivers by firmware: what `probe` names, and who drives it."""

from collections.abc import Awaitable, Callable

from wattshift_cluster.asic import pyasic_handle, pyasic_rs_any
from wattshift_cluster.asic.antminer import AntminerDriver
from wattshift_cluster.asic.bitaxe import BitaxeDriver
from wattshift_cluster.asic.braiins import BraiinsDriver
from wattshift_cluster.asic.driver import AsicDriver
from wattshift_cluster.asic.luxos import LuxosDriver
from wattshift_cluster.asic.pyasic_any import BREADTH, any_driver
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.vnish import VnishDriver
from wattshift_cluster.asic.whatsminer import WhatsminerDriver
from wattshift_cluster.asic.whatsminer_v2 import WhatsminerV2Driver

Make = Callable[[Setup], Awaitable[AsicDriver]]


def _own(driver: Callable[[Setup], AsicDriver]) -> Make:
    """A driver of ours: made from the setup alone, nothing is sent for it."""

    async def make(setup: Setup) -> AsicDriver:
        return driver(setup)

    return make


async def _breadth(setup: Setup) -> AsicDriver:
    """Firmware without a driver of its own: pyasic, or pyasic-rs where that alone is installed."""
    if not pyasic_handle.installed() and pyasic_rs_any.installed():
        return await pyasic_rs_any.rs_driver(setup)
    return await any_driver(setup)


KINDS: dict[str, Make] = {
    "antminer": _own(AntminerDriver),
    "bitaxe": _own(BitaxeDriver),
    "braiins": _own(BraiinsDriver),
    "luxos": _own(LuxosDriver),
    "vnish": _own(VnishDriver),
    "whatsminer": _own(WhatsminerDriver),
    "whatsminer_v2": _own(WhatsminerV2Driver),
    **dict.fromkeys(BREADTH, _breadth),
}
