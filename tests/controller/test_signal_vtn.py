"""A real controller and a real loopback VTN: by poll, by webhook, through loss and restart."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from wattshift_cluster.controller.clock import SteadyClock
from wattshift_cluster.controller.feeds import feeds_of
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.service import Controller
from wattshift_cluster.grid.openadr.words import ObjectType


def _beside(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


HERE = Path(__file__).parent
rig: Any = _beside(HERE / "controller_rig.py")
wire: Any = _beside(HERE.parent / "grid" / "openadr_rig.py")
SITE = """
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


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def now_event(program: str, limit_kw: float) -> Any:
    """A limit that began a second ago."""
    period = {"start": stamp(time.time() - 1), "duration": "PT1H"}
    return wire.event(program, limit_kw, intervalPeriod=period)


@asynccontextmanager
async def site(folder: Path, url: str, poll: str, more: str = "") -> AsyncIterator[Controller]:
    """A controller that listens to a VTN."""
    wire.secret_file(folder, wire.SITE)
    made = rig.controller(folder, SteadyClock(), SITE.format(url=url, poll=poll) + more)
    stop = asyncio.Event()
    task = asyncio.create_task(made.run(stop, feeds_of(made)))
    try:
        yield made
    finally:
        stop.set()
        await task
        made.journal.close()


async def holds(made: Controller, cap_w: float) -> None:
    await wire.until(lambda: made.state.outlook.cap_w == cap_w, f"a cap of {cap_w} W")


def test_a_poll_brings_the_cap_and_neither_loss_nor_restart_takes_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wire.vtn() as vtn:
            program = await wire.program(vtn)
            async with site(tmp_path, vtn.url, "1s") as made:
                await holds(made, 600e3)
                await vtn.post(ObjectType.EVENT, now_event(program, 300))
                await holds(made, 300e3)
                await vtn.stop()
                await wire.until(lambda: made.sources.fault("utility") is not None, "the loss")
                assert made.state.outlook.cap_w == 300e3
            # Its own memory is lost too, and the VTN is still away: the journal is what is left.
            (tmp_path / "state" / "openadr-utility.json").unlink()
            async with site(tmp_path, vtn.url, "1s") as made:
                assert made.state.outlook.cap_w == 300e3
                await wire.until(lambda: made.sources.said("utility") is not None, "a word")
                made.turn(made.inbox.take())
                assert made.state.outlook.cap_w == 300e3
                port = int(vtn.url.removeprefix("http://").rstrip("/").split(":")[1])
                await vtn.start(wire.HOST, port)
                await wire.until(lambda: made.sources.fault("utility") is None, "its return")
                assert made.state.outlook.cap_w == 300e3

    wire.run(scene())


def test_a_webhook_brings_it_at_once_and_an_override_lifts_it_for_a_while(tmp_path: Path) -> None:
    async def scene() -> None:
        with socket.socket() as probe:
            probe.bind((wire.HOST, 0))
            hook = HOOK.format(at=f"{wire.HOST}:{probe.getsockname()[1]}")
        async with (
            wire.vtn() as vtn,
            site(tmp_path, vtn.url, "1h", hook) as made,
        ):
            program = await wire.program(vtn)
            await wire.until(lambda: bool(vtn.objects(ObjectType.SUBSCRIPTION)), "a subscription")
            row = await vtn.post(ObjectType.EVENT, now_event(program, 300))
            await holds(made, 300e3)
            front = Front(made)
            (held,) = (cap for cap in front.caps() if cap["limit_w"] == 300e3)
            # The subscription's own cap comes after the event: nothing else holds meanwhile.
            ends_s = made.clock.now_s() + 0.5
            await front.override_cap(
                "utility", held["id"], 450e3, ends_s, by="ann", reason="called by phone"
            )
            assert made.state.outlook.cap_w == 450e3
            await holds(made, 300e3)
            assert made.clock.now_s() >= ends_s, "it ended by the clock, and nobody ended it"
            vtn.delete(ObjectType.EVENT, row["id"])
            await holds(made, 600e3)

    wire.run(scene())
