"""A running controller with all its feeds and a site meter, beside a scenario; no agents."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.jsonhttp import address, serve_json
from wattshift_scheduler import events as ev
from wattshift_scheduler.site import Device, OperatingPoint

PATIENCE_S = 20.0
HOST = "127.63.251.1"
SITE = """
[site]
name = "s"
state_dir = "state"
tick = "100ms"
[[feeders]]
name = "main"
limit = "40kW"
"""
METER = """
[meter]
url = "http://{meter}/p"
exports = true
"""
AGENT = """
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "main"
"""


class Play:
    """What a scenario has: the controller, its front, and the meter, whose watts it sets."""

    def __init__(self, controller: Controller, watts_w: float) -> None:
        self.c, self.front, self.watts_w = controller, Front(controller), watts_w

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)

    def alarms(self) -> dict[str, str]:
        return {one["id"]: one["text"] for one in self.front.site()["alarms"]}

    def source(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.front.signals()["sources"].get(name, {})
        return found

    def caps(self, name: str) -> dict[str, float]:
        return {one["id"]: one["limit_w"] for one in self.source(name).get("caps", ())}

    def joins(self) -> None:
        """A rig of 6 kW that sleeps at 100 W."""
        points = (OperatingPoint("sleep", 100.0, 0.0, 1.0), OperatingPoint("on", 6e3, 1e14, 1.0))
        rig = Device(
            "rig", "asic", "rack", "main", points, 6e3, 0.05, False, False, 100.0, 6e3, None
        )
        self.c.inbox.put([ev.DeviceJoined((rig,))])

    def rig_draws(self, watts_w: float) -> None:
        """The rig says what it draws."""
        one, no = np.full(1, np.nan), np.zeros(1, dtype=np.bool_)
        at_s = np.full(1, self.c.clock.now_s())
        told = ev.Readings(
            devices=("rig",),
            at_s=at_s,
            watts_w=np.array([watts_w]),
            limit_w=one,
            hashrate_h_per_s=one,
            held_w=one,
            held_for_s=one,
            held_mode=("",),
            foreign=no,
            failed=no,
        )
        self.c.inbox.put([told])


Scenario = Callable[[Play], Awaitable[None]]


def play(folder: Path, more: str, scenario: Scenario, watts_w: float = 9e3) -> None:
    """Run a controller of such a site with its feeds, beside a scenario.

    Args:
        more: of site.toml; `{meter}` is where the meter answers.
        watts_w: what the meter shows at first, W.
    """
    asyncio.run(_played(folder, more, scenario, watts_w))


async def _played(folder: Path, more: str, scenario: Scenario, watts_w: float) -> None:
    shown: list[Play] = []

    def body() -> dict[str, Any]:
        return {"watts_w": shown[0].watts_w, "at_s": time.time(), "quality": "emulated"}

    server = await serve_json(HOST, 0, {"/p": body})
    (folder / "t").write_bytes(b"t" * 32)
    (folder / "t").chmod(0o600)
    (folder / "site.toml").write_text(SITE + more.replace("{meter}", address(server)))
    config = load_site(folder / "site.toml", environ={})
    journal = Journal.open(folder / "journal.sqlite")
    controller = Controller(config, journal, SteadyClock(), Tokens({"rack": b"t" * 32}, None))
    shown.append(Play(controller, watts_w))
    stop = asyncio.Event()
    try:
        running = asyncio.create_task(controller.run(stop, feeds_of(controller)))
        try:
            await scenario(shown[0])
            assert not running.done()
        finally:
            stop.set()
            await running
    finally:
        server.close()
        journal.close()
