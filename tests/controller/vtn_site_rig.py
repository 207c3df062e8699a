"""A running controller that listens to a VTN on loopback, for the tests of both together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.service import Controller

HERE = Path(__file__).parent
rig: Any = SimpleNamespace(**run_path(str(HERE / "controller_rig.py")))
wire: Any = SimpleNamespace(**run_path(str(HERE.parent / "grid" / "openadr_rig.py")))
UTILITY = """
[[openadr]]
name = "utility"
url = "{url}"
client_id = "site"
secret_file = "site.secret"
verify = false
ven_name = "my-site"
subscription = "600kW"
poll = "{poll}"
"""
HOOK = """
[openadr.webhook]
listen = "{at}"
url = "http://{at}/told"
"""


@asynccontextmanager
async def running(folder: Path, more: str) -> AsyncIterator[Controller]:
    """A controller with its feeds, by the steady clock; `more` is of site.toml."""
    wire.secret_file(folder, wire.SITE)
    made: Controller = rig.controller(folder, SteadyClock(), more)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop, feeds_of(made)))
    try:
        yield made
    finally:
        stop.set()
        await task
        made.journal.close()


async def holds(made: Controller, cap_w: float) -> None:
    """Wait until the controller plans with this cap."""
    await wire.until(lambda: made.state.outlook.cap_w == cap_w, f"a cap of {cap_w} W")


async def comes_back(made: Controller, vtn: Any) -> None:
    """Start a stopped VTN where it was, and wait until the site has heard it."""
    port = int(vtn.url.removeprefix("http://").rstrip("/").split(":")[1])
    await vtn.start(wire.HOST, port)
    await wire.until(lambda: made.sources.fault("utility") is None, "its return")
