"""The drivers by firmware: what `probe` names, and who drives it."""

from collections.abc import Awaitable, Callable

from wattshift_cluster.asic.driver import AsicDriver
from wattshift_cluster.asic.luxos import LuxosDriver
from wattshift_cluster.asic.pyasic_handle import handle_for
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.whatsminer import WhatsminerDriver

Make = Callable[[Setup], Awaitable[AsicDriver]]


async def _luxos(setup: Setup) -> AsicDriver:
    handle = await handle_for(setup.address, setup.found, deadline_s=setup.deadline_s)
    return LuxosDriver(handle, setup.ability)


async def _whatsminer(setup: Setup) -> AsicDriver:
    handle = await handle_for(setup.address, setup.found, deadline_s=setup.deadline_s)
    if setup.credentials is not None:
        handle.use_password(setup.credentials.password)
    return WhatsminerDriver(handle, setup.ability, may_command=setup.may_command)


KINDS: dict[str, Make] = {
    "luxos": _luxos,
    "whatsminer": _whatsminer,
}
