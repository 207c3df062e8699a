"""A site of one machine whose controller logs evidence; its agent is played."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.evidence import EvidenceFeed
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_cluster.settle.bodies import SITE
from wattshift_cluster.settle.lines import Kind, Line
from wattshift_cluster.settle.log import Pace
from wattshift_cluster.settle.verify import verify
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.site import Device, OperatingPoint

START_S = 1_900_000_200.0
"""The event's start, on a border of the intervals; it is told 10 minutes before."""


SITE_FILE = """
[site]
name = "yard"
state_dir = "state"
margin_pct = 0
other_load = "500W"
[[feeders]]
name = "main"
limit = "10kW"
[[agents]]
name = "rack"
address = "127.0.0.1:1"
token_file = "token"
feeder = "main"
[grid]
default_price_usd_per_mwh = 20
[mining]
devices = ["*"]
[settlement]
resource = "yard-1"
[[settlement.programs]]
name = "peak"
method = "before_after"
price = 100
[[settlement.hosted]]
tenant = "acme"
devices = ["rig"]
overhead_pct = 10
"""


RIG = Device(
    "rig",
    "asic",
    "rack",
    "main",
    (OperatingPoint("sleep", 30, 0, 5), OperatingPoint("full", 3000, 1e14, 5)),
    3000.0,
)


EVENT = GridEvent("e1", "utility", "peak", START_S - 600, START_S, START_S + 600, 2000.0)


class HandClock:
    """Unix time as it is set."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


def reading(watts_w: float | None, at_s: float, age_s: float = 0.0) -> MeterReading:
    return MeterReading(watts_w, at_s, age_s, "emulated")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - a thread has no event for tests
            await asyncio.sleep(0.002)


class Yard:
    """A site of one machine that follows its lease at once, its agent played by the test."""

    def __init__(self, folder: Path, at_s: float = START_S - 1600) -> None:
        self.folder, self.clock = folder, HandClock(at_s)
        folder.mkdir(exist_ok=True)
        (folder / "site.toml").write_text(SITE_FILE)
        (folder / "token").write_text("0" * 64)
        config = load_site(folder / "site.toml", environ={})
        self.journal = Journal.open(config.site.state_dir / "journal.sqlite")
        self.c = Controller(config, self.journal, self.clock, Tokens({"rack": b"0" * 32}, None))
        self.c.outlet.send = self._granted  # type: ignore[method-assign]
        self.c.roster.offered("rack", [{"id": "rig", "quality": "measured"}])
        self.c.inbox.put([ev.DeviceJoined((RIG,))])
        self.watts_w = 3000.0
        self.evidence = config.site.state_dir / "evidence"

    @contextlib.asynccontextmanager
    async def logging(self) -> AsyncIterator[EvidenceFeed]:
        """The evidence feed at work, cancelled in the end as the controller does."""
        feed = EvidenceFeed(self.c, self.evidence, pace=Pace(retry_s=0.01), again_s=0.01)
        task = asyncio.create_task(feed.run())
        try:
            await until(lambda: feed._energies is not None or task.done())
            yield feed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def turn(self, *events: ev.Event) -> None:
        """One turn, with fresh readings of the machine and of the meter."""
        now_s = self.clock.at_s
        hashes = 1e14 if self.watts_w > 30.0 else 0.0
        row = {"device": "rig", "watts_w": self.watts_w, "hashrate_h_per_s": hashes}
        self.c.roster.read([row], now_s)
        one, no = np.ones(1), np.zeros(1, dtype=np.bool_)
        read = (("rig",), now_s * one, self.watts_w * one, math.nan * one, hashes * one)
        held = (self.watts_w * one, 10.0 * one, ("full" if hashes else "sleep",), no, no)
        self.c.inbox.put([ev.AgentSeen("rack", "boot", now_s, now_s), ev.Readings(*read, *held)])
        self.c.inbox.put(list(events))
        self.c.turn(self.c.inbox.take())
        if self.c.witness is not None:
            told_w = 500.0 + self.watts_w + 0.01 * (now_s % 7)
            self.c.witness.sampled(SITE, reading(told_w, now_s), now_s)

    def _granted(self, command: Any) -> None:
        """Do as the core commands, at once."""
        assert isinstance(command, GrantLeases)
        self.watts_w = 30.0 if command.modes[-1] == "sleep" else 3000.0
        yes = np.ones(len(command.devices), dtype=np.bool_)
        words = ("",) * len(command.devices)
        reply = ev.LeasesReplied(command.id, command.devices, command.sequence, yes, words)
        self.c.inbox.put([reply])

    def play(self, to_s: float, feed: EvidenceFeed) -> None:
        while self.clock.at_s < to_s:
            self.clock.at_s += 4.0
            self.turn()
            feed.look()


def lines_of(folder: Path, kind: Kind | None = None) -> list[Line]:
    """The lines of a log that must hold."""
    lines: list[Line] = []
    found = verify(folder, (), lines.append)
    assert found.ok, found.fault
    return [line for line in lines if kind in (None, line.kind)]
