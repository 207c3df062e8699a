"""A site with one GPU behind a gate and one ASIC, a controller with all its feeds, and its HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.agent.protocol import Counters, DeviceInfo, Point, Reading
from wattshift_cluster.api.app import create_app
from wattshift_cluster.api.server import start
from wattshift_cluster.api.tokens import Role, TokenStore
from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller import hashprice
from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_cluster.wire import server

TOKEN = b"t" * 32
HOST = "127.66.0.2"
PATIENCE_S = 20.0
SITE = """
[site]
name = "money"
state_dir = "state"
tick = "100ms"
[[feeders]]
name = "main"
limit = "100kW"
[[agents]]
name = "host"
address = "{host}:{port}"
token_file = "t"
feeder = "main"
[grid]
prices = "prices.csv"
poll = "100ms"
[economics]
history = "hashprice.json"
[values]
pool_fee_pct = 2
reserve_usd_per_mwh = {reserve}
[mining]
devices = ["*"]
"""
GPU_W, GPU_H_PER_S = 350.0, 2e9
ASIC_W, ASIC_H_PER_S = 3000.0, 1.5e14


@dataclass
class Host:
    """An agent whose devices draw what their leases say, and whose GPU finds shares."""

    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    difficulty: float = 0.0

    async def handle(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        results = []
        for lease in fields.get("leases", []):
            self.held[lease["device"]] = lease
            results.append({"device": lease["device"], "sequence": lease["sequence"]})
        clock = {"boot_id": boot_id(), "boot_s": boot_s(), "inventory_version": 1, "epoch": 1}
        accepted = [{**row, "accepted": True, "reason": None} for row in results]
        infos = [_info("gpu0", "gpu"), _info("asic-1", "asic")]
        rows = [self._row(info) for info in infos]
        devices = [info.wire() for info in infos]
        return {**clock, "devices": devices, "readings": rows, "results": accepted}

    def _row(self, info: DeviceInfo) -> dict[str, Any]:
        lease = self.held.get(info.id)
        watts_w = info.points[0].watts_w if lease is None else lease["watts_w"]
        top = info.points[-1]
        share = watts_w / top.watts_w if watts_w > info.points[0].watts_w else 0.0
        counters = Counters()
        if info.id == "gpu0":
            # One unit of difficulty each time it is read: far more than it really finds.
            self.difficulty += 1.0 if share else 0.0
            counters = Counters(accepted_difficulty=self.difficulty)
        reading = Reading(
            info.id,
            boot_s(),
            info.quality,
            watts_w,
            hashrate_h_per_s=share * top.hashrate_h_per_s,
            counters=counters,
        )
        return reading.wire(lease)


def _info(device: str, kind: Any) -> DeviceInfo:
    gpu = kind == "gpu"
    top = Point("mine", GPU_W, GPU_H_PER_S, 0.01) if gpu else Point("full", ASIC_W, ASIC_H_PER_S, 0)
    return DeviceInfo(
        id=device,
        kind=kind,
        model="m",
        firmware="1",
        algorithm="sha256d",
        nameplate_w=top.watts_w,
        tolerance=0.0,
        continuous=gpu,
        fenced=gpu,
        safe_w=0.0,
        power_on_w=0.0,
        host=None,
        quality="measured" if gpu else "emulated",
        points=(Point("idle", 0.0, 0.0, 0.01) if gpu else Point("sleep", 20.0, 0.0, 1.0), top),
    )


@dataclass
class Running:
    """The site while it runs."""

    front: Front
    controller: Controller
    folder: Path
    url: str
    secrets: dict[str, str]

    async def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait for something to hold; returns what it gave."""
        for _ in range(round(PATIENCE_S / 0.02)):
            if found := holds():
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")

    def device(self, name: str) -> dict[str, Any]:
        """A device as /v1/devices shows it; empty before it is known."""
        found: dict[str, Any] = next((dict(d) for d in self.front.devices() if d["id"] == name), {})
        return found

    def money(self, name: str) -> dict[str, Any]:
        """A device as /v1/economics shows it."""
        view: dict[str, Any] = self.front.economics(name, 10)["devices"][0]
        return view

    def price(self, usd_per_mwh: float) -> None:
        """Energy costs this from now on."""
        price_file(self.folder, usd_per_mwh)

    def hashprice(self, text: str) -> None:
        """Replace the file that the feed follows."""
        (self.folder / "hashprice.json").write_text(text)


def price_file(folder: Path, usd_per_mwh: float) -> None:
    text = f"time,usd_per_mwh\n1000000000,{usd_per_mwh}\n4000000000,{usd_per_mwh}\n"
    new = folder / "prices.new"
    new.write_text(text)
    new.replace(folder / "prices.csv")


@asynccontextmanager
async def site(
    folder: Path, *, price: float, reserve: float, stated: str
) -> AsyncIterator[Running]:
    """Start agent, controller and HTTP; all of it ends with the block."""
    agent = await server.serve(HOST, 0, name="host", token=TOKEN, handler=Host().handle)
    port = agent.sockets[0].getsockname()[1]
    (folder / "site.toml").write_text(SITE.format(host=HOST, port=port, reserve=reserve))
    (folder / "hashprice.json").write_text(stated)
    price_file(folder, price)
    journal = Journal.open(folder / "journal.sqlite")
    config = load_site(folder / "site.toml", environ={})
    controller = Controller(config, journal, SteadyClock(), Tokens({"host": TOKEN}, None))
    front, store, stop = Front(controller), TokenStore(folder), asyncio.Event()
    secrets = {role.name.lower(): store.create(role.name.lower(), role)[0] for role in Role}
    api = await start(create_app(front, store), HOST, 0)
    running = asyncio.create_task(controller.run(stop, feeds_of(controller)))
    try:
        yield Running(front, controller, folder, api.url, secrets)
    finally:
        stop.set()
        await running
        await api.close()
        agent.close()
        journal.close()


STATED = '{"usd_per_ph_day": 42.31}'


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario at a site of its own, with quick looks at its files."""
    monkeypatch.setattr(hashprice, "LOOK_S", 0.05)
    monkeypatch.setattr(hashprice, "FILE_PERIOD_MOST_S", 0.05)

    def run(scenario: Callable[[Running], Awaitable[None]], **named: Any) -> None:
        async def whole() -> None:
            defaults: dict[str, Any] = {"price": 40.0, "reserve": 50.0, "stated": STATED}
            async with site(tmp_path, **defaults | named) as running:
                await scenario(running)

        asyncio.run(whole())

    return run
