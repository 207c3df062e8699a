"""Commissioning by feeders' meters, end to end: machines, agents, controller, HTTP, the command.

Emulated machines speak their firmware's protocol on loopback and move 40 times as fast as the
emulator's usual ones; their truth port stands for the feeders' meters. One machine hangs on another
feeder than the site file says.
"""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.ports import own_net

from wattshift_cluster.agent.asics.contact import connect_by_probe
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.rhythm import Rhythm
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.build import Asics
from wattshift_cluster.agent.service import Agent
from wattshift_cluster.api import server as http
from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.tokens import Role, TokenStore
from wattshift_cluster.cli import commission as command
from wattshift_cluster.cli.main import main
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import feeders
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.truth import TruthServer
from wattshift_cluster.wire import server as wire
from wattshift_cluster.wire.epochs import EpochFile

SPEED = 40.0
NET = own_net()
TOKEN = b"t" * 32
WIRED = {"rig-1": "row-a", "rig-2": "row-b"}
"""Where they really hang. The site file has both on row-a."""

PATIENCE_S = 30.0


def fast_s() -> float:
    return time.monotonic() * SPEED


class Hurried:
    """A real driver, whose machine's times are told as they are on the emulator's faster clock."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    async def identify(self) -> Any:
        found = await self.driver.identify()
        points = tuple(replace(one, transition_s=one.transition_s / SPEED) for one in found.points)
        return replace(found, points=points)


async def connect(asic: Asic) -> Any:
    return Hurried(await connect_by_probe(asic))


class Site:
    """All of it, in an event loop of a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.stack = AsyncExitStack()
        self.url = self.token = ""
        self.front: Any = None
        self.miners = [
            EmulatedMiner(
                name, "luxos", f"{NET}.{n}", seed=n, clock=fast_s, full=True, feeder=WIRED[name]
            )
            for n, name in enumerate(WIRED, 11)
        ]

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        self.wait(self.stack.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5.0)
        self.loop.close()

    async def start(self) -> None:
        for miner in self.miners:
            await miner.start()
            self.stack.push_async_callback(miner.stop)
        truth = await TruthServer(self.miners, time.monotonic).start(f"{NET}.1", 0)
        self.stack.callback(truth.close)
        meters = "http://{}:{}/v1/feeders/".format(*truth.sockets[0].getsockname())
        agent = await self._agent()
        (self.folder / "site.toml").write_text(
            f'[site]\nname = "s"\nstate_dir = "state"\ntick = "100ms"\nlease_renew = "1s"\n'
            '[[feeders]]\nname = "main"\nlimit = "20kW"\n'
            f'[[feeders]]\nname = "row-a"\nparent = "main"\nlimit = "10kW"\n'
            f'meter = "{meters}row-a/power"\n'
            f'[[feeders]]\nname = "row-b"\nparent = "main"\nlimit = "10kW"\n'
            f'meter = "{meters}row-b/power"\n'
            f'[[agents]]\nname = "rack"\naddress = "{agent}"\ntoken_file = "t"\nfeeder = "row-a"\n'
            '[grid]\ndefault_price_usd_per_mwh = 10\n[mining]\ndevices = ["*"]\n'
        )
        await self._controller()

    async def _agent(self) -> str:
        rhythm = Rhythm(poll_s=0.05, settle_s=0.2)
        lanes = Lanes(rhythm=rhythm)
        asics = [
            Asic(id=miner.machine.id, address=miner.address, emulated=True) for miner in self.miners
        ]
        devices = tuple(AsicDevice(asic, None, connect, lanes=lanes) for asic in asics)
        keeper = Keeper(None)
        parts = Asics(devices, AsicSweep(devices, lanes, keeper), keeper)
        agent = Agent("rack", devices, EpochFile(self.folder), asics=parts)
        running = asyncio.create_task(agent.run())
        listener = await wire.serve(f"{NET}.1", 0, name="rack", token=TOKEN, handler=agent.handle)
        self.stack.push_async_callback(ended, running)
        self.stack.callback(listener.close)
        await asyncio.gather(*(device.identified.wait() for device in devices))
        return "{}:{}".format(*listener.sockets[0].getsockname())

    async def _controller(self) -> None:
        config = load_site(self.folder / "site.toml", environ={})
        journal = Journal.open(self.folder / "journal.sqlite")
        self.stack.callback(journal.close)
        controller = Controller(config, journal, SteadyClock(), Tokens({"rack": TOKEN}, None))
        controller.feeders = feeders.FeederMeters(config, period_s=0.02)
        self.front = Front(controller)
        store = TokenStore(self.folder)
        api = await http.start(create_app(self.front, store), f"{NET}.1", 0)
        self.stack.push_async_callback(api.close)
        stop = asyncio.Event()
        running = asyncio.create_task(controller.run(stop, feeds_of(controller)))

        async def end() -> None:
            stop.set()
            await running

        self.stack.push_async_callback(end)
        self.url = api.url
        self.token = store.create("kim", Role.OPERATOR, None)[0]

    def at_work(self) -> bool:
        rows = self.front.devices()
        return len(rows) == len(WIRED) and all(
            row["state"] == "confirmed" and (row["watts_w"] or 0.0) > 2000.0 for row in rows
        )


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(command, "PULSE_S", (0.1, 3600.0))
    monkeypatch.setattr(command, "PERIOD_S", 0.03)
    (tmp_path / "t").write_bytes(TOKEN)
    (tmp_path / "t").chmod(0o600)
    made = Site(tmp_path)
    try:
        made.wait(made.start())
        yield made
    finally:
        made.close()


def test_the_machine_on_the_wrong_feeder_is_named_by_the_feeders_meters(
    site: Site, tmp_path: Path
) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not site.at_work() and time.monotonic() < ends_s:
        time.sleep(0.05)
    assert site.at_work(), site.front.devices()
    reach = ("--url", site.url, "--token", site.token, "--record", str(tmp_path / "record.json"))
    words = ("--pulse", "1s", "--yes", "-o", "json", *reach)
    done = CliRunner().invoke(main, ["commission", *words])
    assert done.exit_code == 1, done.output
    rows = {
        row["device"]: row for row in json.loads((tmp_path / "record.json").read_text())["devices"]
    }
    assert rows["rig-1"]["verdict"] == "confirmed", rows["rig-1"]["text"]
    assert rows["rig-1"]["meter"] == "row-a"
    assert rows["rig-2"]["verdict"] == "wrong feeder", rows["rig-2"]["text"]
    assert rows["rig-2"]["meter"] == "row-b"
    assert "its step stands on row-b, not on row-a" in rows["rig-2"]["text"]
    assert rows["rig-1"]["step_w"] == pytest.approx(2760.0, rel=0.15)
    assert "Meters: row-a, row-b" in done.stderr
    assert [miner.machine.asleep for miner in site.miners] == [False, False]
