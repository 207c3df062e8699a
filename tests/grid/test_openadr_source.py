"""The whole OpenADR 3 source against the loopback VTN: login, register, poll, notices, report."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.config.openadr import OpenAdr
from wattshift_cluster.grid.openadr.source import OpenAdrSource
from wattshift_cluster.grid.openadr.words import ObjectType
from wattshift_cluster.grid.said import Said
from wattshift_cluster.grid.vtn.publisher import BrokerSettings
from wattshift_cluster.grid.vtn.server import VtnSettings
from wattshift_scheduler.signals.arbitrate import arbitrate

rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("openadr_rig.py"))))
ven_rig: Any = SimpleNamespace(**run_path(str(Path(__file__).with_name("ven_rig.py"))))
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


class Site:
    """A running source and what it says."""

    def __init__(self, folder: Path, url: str, **more: Any) -> None:
        config = OpenAdr(
            url=url,
            client_id=rig.SITE.id,
            secret_file=rig.secret_file(folder, rig.SITE),
            verify=False,
            ven_name="my-site",
            subscription_w=600e3,
            **{"poll_s": 3600, **more},
        )
        self.said: list[Said] = []
        self.source = OpenAdrSource(config, folder, readings=ven_rig.SteadyReadings())

    @property
    def last(self) -> Said:
        return self.said[-1]

    def cap_w(self) -> float:
        return arbitrate(self.last.caps, 10e6, time.time()).cap_w if self.said else 0.0

    def heard(self) -> bool:
        return bool(self.said) and self.last.fault is None


@asynccontextmanager
async def site(folder: Path, url: str, **more: Any) -> AsyncIterator[Site]:
    made = Site(folder, url, **more)
    task = asyncio.create_task(made.source.run(made.said.append))
    try:
        await rig.until(lambda: made.heard() or task.done(), "the first answer")
        yield made
    finally:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome


def test_a_webhook_brings_caps_at_once_and_takes_them_away(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn:
            program = await rig.program(vtn)
            port = free_port()
            hook = {"listen": f"{rig.HOST}:{port}", "url": f"http://{rig.HOST}:{port}/told"}
            async with site(tmp_path, vtn.url, webhook=hook) as made:
                await rig.until(
                    lambda: len(vtn.objects(ObjectType.SUBSCRIPTION)) == 1, "a subscription"
                )
                assert made.cap_w() == 600e3
                row = await vtn.post(ObjectType.EVENT, rig.now_event(program, 300))
                await rig.until(lambda: made.cap_w() == 300e3, "the cap")
                await vtn.put(ObjectType.EVENT, row["id"], rig.now_event(program, 900))
                await rig.until(lambda: made.cap_w() == 900e3, "the raised cap")
                vtn.delete(ObjectType.EVENT, row["id"])
                await rig.until(lambda: made.cap_w() == 600e3, "the subscription again")

    rig.run(scene())


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto broker is installed")
def test_mqtt_brings_caps_at_once_and_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        settings = VtnSettings(
            clients=rig.LOGINS,
            callback_verify=False,
            broker=BrokerSettings(f"mqtt://{rig.HOST}:{port}"),
        )
        async with rig.vtn(settings) as vtn:
            program = await rig.program(vtn)
            async with site(tmp_path, vtn.url, mqtt=True) as made:
                # Connecting makes it poll once; after that only notices can tell.
                row = await vtn.post(ObjectType.EVENT, rig.now_event(program, 300))
                await rig.until(lambda: made.cap_w() == 300e3, "the cap")
                await vtn.put(ObjectType.EVENT, row["id"], rig.now_event(program, 200))
                await rig.until(lambda: made.cap_w() == 200e3, "the lower cap")
                assert made.last.notes == ()
                brokers[0].kill()
                await rig.until(lambda: "the broker" in str(made.last.notes), "the loss told")
                brokers.append(started())
                await rig.until(lambda: made.last.notes == (), "its return")
                assert made.cap_w() == 200e3

    assert MOSQUITTO is not None
    port = free_port()
    file = tmp_path / "mosquitto.conf"
    # A broker that is started by root gives root up, and reads its file as somebody else.
    file.write_text(f"listener {port} {rig.HOST}\nallow_anonymous true\nuser root\n")

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(MOSQUITTO), "-c", str(file)], stderr=subprocess.DEVNULL)

    brokers = [started()]
    try:
        rig.run(scene())
    finally:
        for broker in brokers:
            broker.kill()
            broker.wait(timeout=10)


def test_a_vtn_that_dies_takes_nothing_back_and_is_followed_when_it_returns(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn:
            program = await rig.program(vtn)
            await vtn.post(ObjectType.EVENT, rig.now_event(program, 300))
            async with site(tmp_path, vtn.url, poll_s=1) as made:
                await rig.until(lambda: made.cap_w() == 300e3, "the cap")
                address = vtn.url.removeprefix("http://").split(":")
                await vtn.stop()
                await rig.until(lambda: made.last.fault is not None, "the loss")
                assert made.cap_w() == 300e3
                made.source.power_lost()
                assert made.cap_w() == 600e3
                await vtn.start(rig.HOST, int(address[1].rstrip("/")))
                made.source.power_lost()
                await rig.until(lambda: made.cap_w() == 300e3, "the limit again")

    rig.run(scene())


def test_targets_and_resources_are_ours_and_reports_arrive(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn:
            await rig.grant(vtn, rig.SITE, "my-site", ["zone-7"])
            program = await rig.program(vtn)
            asks = [{"payloadType": "DEMAND", "startInterval": 0, "historical": False}]
            body = rig.now_event(program, 300, targets=["zone-7"], reportDescriptors=asks)
            await vtn.post(ObjectType.EVENT, body)
            await vtn.post(ObjectType.EVENT, rig.now_event(program, 100, targets=["zone-8"]))
            resources = [{"name": "miners", "work": "mining", "max_w": 400e3}]
            async with site(tmp_path, vtn.url, resources=resources) as made:
                await rig.until(lambda: made.cap_w() == 300e3, "our cap alone")
                await rig.until(lambda: len(vtn.objects(ObjectType.REPORT)) == 1, "a report")
                (report,) = vtn.objects(ObjectType.REPORT)
                (part,) = report["resources"]
                assert part["resourceName"] == "miners"
                assert part["intervals"][0]["payloads"] == [{"type": "DEMAND", "values": [500.0]}]
                (resource,) = vtn.objects(ObjectType.RESOURCE)
                assert resource["attributes"] == [
                    {"type": "MAX_POWER_CONSUMPTION", "values": [400.0]}
                ]

    rig.run(scene())


def test_an_address_that_is_taken_costs_the_webhook_and_not_the_source(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn:
            taken = vtn.url.removeprefix("http://").rstrip("/")
            hook = {"listen": taken, "url": f"http://{taken}/told"}
            async with site(tmp_path, vtn.url, webhook=hook, mqtt=True) as made:
                assert any("no webhook" in note for note in made.last.notes)
                await rig.until(
                    lambda: any("no notices by MQTT" in note for note in made.last.notes),
                    "the note about MQTT",
                )

    rig.run(scene())
