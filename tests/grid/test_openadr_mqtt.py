"""Notices by MQTT over a real broker: found, followed, bounded, and found again after a loss."""

import asyncio
import contextlib
import gc
import json
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.grid import openadr_rig as rig
from tests.ports import free_port

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.openadr.client import VtnClient
from wattshift_cluster.grid.openadr.failures import VtnNonsense, VtnRefused
from wattshift_cluster.grid.openadr.listener import Listener, end_if_cancelled
from wattshift_cluster.grid.openadr.topics import (
    Address,
    Broker,
    Greeting,
    Topics,
    find_topics,
)
from wattshift_cluster.grid.openadr.words import Notification, ObjectType
from wattshift_cluster.grid.vtn.publisher import BrokerSettings
from wattshift_cluster.grid.vtn.server import VtnSettings

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto broker is installed")
OPEN = "allow_anonymous true"


@dataclass
class Mosquitto:
    """A broker on HOST; `lines` go into its configuration file."""

    folder: Path
    lines: tuple[str, ...]
    scheme: str = "mqtt"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{rig.HOST}:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        if self.port == 0:
            self.port = free_port(rig.HOST)
        file = self.folder / "mosquitto.conf"
        text = "\n".join([f"listener {self.port} {rig.HOST}", *self.lines, "log_type none", ""])
        file.write_text(text)
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None

    async def answers(self) -> None:
        async with asyncio.timeout(rig.WAIT_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(rig.HOST, self.port)
                    writer.close()
                    return
                assert self.process is not None
                assert self.process.poll() is None, "the broker ended"
                await asyncio.sleep(0.01)


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, scheme: str = "mqtt") -> Iterator[Mosquitto]:
    # A broker that is started by root gives root up, and reads its files as somebody else.
    made = Mosquitto(folder, (*lines, "user root"), scheme)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Site:
    """A listener, and what it passed on."""

    def __init__(self, topics: Topics, **more: Any) -> None:
        self.notices: list[Notification] = []
        self.connected = 0
        self.listener = Listener(
            topics,
            self.notices.append,
            on_connected=self.on_connected,
            rng=random.Random(7),
            **{"verify": False, **more},
        )

    def on_connected(self) -> None:
        self.connected += 1

    def names(self) -> list[tuple[str, str, str]]:
        return [
            (
                one.object_type.value,
                one.operation.value,
                str(one.object.get("eventName") or one.object.get("programName")),
            )
            for one in self.notices
        ]


@asynccontextmanager
async def listening(topics: Topics | None, **more: Any) -> AsyncIterator[Site]:
    assert topics is not None
    site = Site(topics, **more)
    task = asyncio.create_task(site.listener.run())
    try:
        await rig.until(lambda: site.connected == 1, "the first connection")
        yield site
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def settings(url: str, **more: Any) -> VtnSettings:
    return VtnSettings(
        clients=rig.LOGINS, broker=BrokerSettings(url, **more), callback_verify=False
    )


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattshift_cluster.grid.openadr.listener.FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("wattshift_cluster.grid.openadr.listener.LONGEST_PAUSE_S", 0.2)


def test_a_site_hears_what_is_public_and_what_is_meant_for_it(tmp_path: Path) -> None:
    async def scene(broker: Mosquitto) -> None:
        await broker.answers()
        async with (
            rig.vtn(settings(broker.url)) as vtn,
            rig.client(vtn.url, tmp_path) as client,
        ):
            program = await rig.program(vtn)
            await rig.grant(vtn, rig.SITE, "my-site", ["north"])
            ven = (await client.register("my-site", [])).ven
            topics = await client.topics(ven_id=ven.id, program_ids=[program])
            async with listening(topics) as site:
                await rig.program(vtn, "a second program")
                for name, targets in (("all", []), ("north", ["north", "x"]), ("south", ["south"])):
                    body = rig.event(program, eventName=name, targets=targets)
                    row = await vtn.post(ObjectType.EVENT, body)
                vtn.delete(ObjectType.EVENT, row["id"])
                await vtn.post(ObjectType.EVENT, rig.event(program, eventName="last"))
                await rig.until(lambda: ("EVENT", "CREATE", "last") in site.names(), "the last")
                assert [name for name in site.names() if name[2] != "curtailment"] == [
                    ("PROGRAM", "CREATE", "a second program"),
                    ("EVENT", "CREATE", "all"),
                    ("EVENT", "CREATE", "north"),
                    ("EVENT", "CREATE", "last"),
                ]
                (north,) = [one for one in site.notices if one.object.get("eventName") == "north"]
                assert north.object["targets"] == ["north"]
                assert site.listener.fault is None

    with mosquitto(tmp_path, OPEN) as broker:
        rig.run(scene(broker))


def test_after_a_broker_is_back_the_site_polls_and_listens_on(tmp_path: Path) -> None:
    async def scene(broker: Mosquitto) -> None:
        await broker.answers()
        async with (
            rig.vtn(settings(broker.url)) as vtn,
            rig.client(vtn.url, tmp_path) as client,
        ):
            program = await rig.program(vtn)
            async with listening(await client.topics(program_ids=[program])) as site:
                broker.stop()
                await rig.until(lambda: site.listener.fault is not None, "the loss is told")
                broker.start()
                await broker.answers()
                await rig.until(lambda: site.connected == 2, "the second connection")
                assert vtn.publisher is not None
                await rig.until(vtn.publisher.connected.is_set, "the VTN is back, too")
                await vtn.post(ObjectType.EVENT, rig.event(program, eventName="after"))
                await rig.until(lambda: ("EVENT", "CREATE", "after") in site.names(), "a notice")
                told = vtn.publisher
                await rig.until(lambda: told.published == 4, "two topics of each, none lost")
                assert site.listener.fault is None

    with mosquitto(tmp_path, OPEN) as broker:
        rig.run(scene(broker))


def test_a_vtn_with_nothing_to_publish_notices_a_lost_broker_and_leaves_no_error(
    tmp_path: Path,
) -> None:
    async def scene(broker: Mosquitto) -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: unheard.append(told))
        await broker.answers()
        async with rig.vtn(settings(broker.url)) as vtn:
            publisher = vtn.publisher
            assert publisher is not None
            await rig.until(publisher.connected.is_set, "the first connection")
            broker.stop()
            await rig.until(lambda: not publisher.connected.is_set(), "the loss")
            broker.start()
            await rig.until(publisher.connected.is_set, "the second connection")
        gc.collect()
        assert unheard == []

    with mosquitto(tmp_path, OPEN) as broker:
        rig.run(scene(broker))


def test_what_is_no_notice_or_old_is_dropped_and_counted(tmp_path: Path) -> None:
    def notice(at: str, kw: float) -> str:
        row = rig.event("p", kw) | {"id": "e", "modificationDateTime": at}
        return json.dumps({"objectType": "EVENT", "operation": "UPDATE", "object": row})

    async def scene(broker: Mosquitto) -> None:
        await broker.answers()
        topics = Topics(
            Broker((Address(rig.HOST, broker.port, tls=False),), Greeting.ANONYMOUS), ("t",)
        )
        async with aiomqtt.Client(rig.HOST, broker.port) as forger:
            kept = notice("2030-01-01T00:00:09Z", 999)
            await forger.publish("t", kept, qos=1, retain=True)
            async with listening(topics) as site:
                counts = site.listener.counts
                await rig.until(lambda: counts.retained == 1, "what the broker had kept")
                for payload in ("", "no notice", notice("2030-01-01T00:00:02Z", 100)):
                    await forger.publish("t", payload, qos=1)
                await forger.publish("t", notice("2030-01-01T00:00:01Z", 900), qos=1)
                await forger.publish("t", b"x" * (2 << 20), qos=1)
                await forger.publish("t", notice("2030-01-01T00:00:03Z", 50), qos=1)
                await rig.until(lambda: counts.taken == 2, "the last notice")
                assert counts.invalid == 2, "the huge one never came: MQTT 5 keeps it off"
                assert counts.repeated == 1
                limits = [one.object["intervals"][0]["payloads"][0] for one in site.notices]
                assert [one["values"] for one in limits] == [[100], [50]]

    with mosquitto(tmp_path, OPEN) as broker:
        rig.run(scene(broker))


def test_a_broker_that_wants_the_token_gets_it(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    command = shutil.which("mosquitto_passwd")
    if command is None:
        pytest.skip("there is no mosquitto_passwd command")

    def let_in(name: str, word: str) -> None:
        subprocess.run(
            [str(command), "-b", str(passwords), name, word],
            check=True,
            capture_output=True,
            timeout=30,
        )

    async def scene(broker: Mosquitto) -> None:
        made = settings(
            broker.url, greeting=Greeting.OAUTH2_BEARER_TOKEN, username="vtn", password="word"
        )
        async with rig.vtn(made) as vtn, rig.client(vtn.url, tmp_path) as client:
            let_in("vtn", "word")
            token = await client.token()
            assert token is not None
            let_in("site", token)
            broker.start()
            await broker.answers()
            program = await rig.program(vtn)
            topics = await client.topics(program_ids=[program])
            async with listening(topics, client_id="site", token=client.token) as site:
                await vtn.post(ObjectType.EVENT, rig.event(program, eventName="cut"))
                await rig.until(lambda: ("EVENT", "CREATE", "cut") in site.names(), "a notice")
            nobody = Site(topics)
            task = asyncio.create_task(nobody.listener.run())
            await rig.until(lambda: "login" in str(nobody.listener.fault), "the refusal is told")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    broker = Mosquitto(
        tmp_path, ("allow_anonymous false", f"password_file {passwords}", "user root")
    )
    broker.port = free_port(rig.HOST)
    try:
        rig.run(scene(broker))
    finally:
        broker.stop()


def test_a_broker_that_wants_a_certificate_gets_the_vtns(tmp_path: Path) -> None:
    made = rig.certificates(tmp_path)
    lines = (
        OPEN,
        f"cafile {made.ca}",
        f"certfile {made.cert}",
        f"keyfile {made.key}",
        "require_certificate true",
    )

    async def scene(broker: Mosquitto) -> None:
        await broker.answers()
        told = settings(
            broker.url,
            greeting=Greeting.CERTIFICATE,
            ca_file=made.ca,
            client_cert=made.cert.read_text(),
            client_key=made.key.read_text(),
            cert_file=made.cert,
            key_file=made.key,
        )
        async with rig.vtn(told) as vtn, rig.client(vtn.url, tmp_path) as client:
            program = await rig.program(vtn)
            topics = await client.topics(program_ids=[program])
            assert topics is not None
            assert made.key.read_text() not in repr(topics)
            async with listening(topics, verify=True) as site:
                await vtn.post(ObjectType.EVENT, rig.event(program, eventName="cut"))
                await rig.until(lambda: ("EVENT", "CREATE", "cut") in site.names(), "by TLS")

    with mosquitto(tmp_path, *lines, scheme="mqtts") as broker:
        rig.run(scene(broker))


def test_a_cancellation_that_an_await_has_lost_is_not_lost() -> None:
    async def scene() -> None:
        async def loses() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            end_if_cancelled()
            await asyncio.sleep(60)

        end_if_cancelled()
        task = asyncio.create_task(loses())
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(rig.WAIT_S):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    rig.run(scene())


def test_a_vtn_without_a_broker_has_no_topics(tmp_path: Path) -> None:
    async def scene() -> None:
        async with rig.vtn() as vtn, rig.client(vtn.url, tmp_path) as client:
            assert await client.topics() is None

    rig.run(scene())


def binding(**more: Any) -> dict[str, Any]:
    told = {
        "URIS": ["mqtts://broker.example", "mqtt://broker.example:1884", "amqp://x", 7],
        "serialization": "JSON",
        "authentication": {"method": "ANONYMOUS"},
    }
    return {"WEBHOOK": True, "MQTT": told | more}


def found(said: Any, *, secure: bool = False, topics: Any = None) -> Topics | None:
    async def ask(path: str) -> Any:
        if path == "notifiers":
            return said
        if path == "notifiers/mqtt/topics/programs/p%2F1/events":
            raise VtnRefused(path, 403)
        return {"topics": topics or {"UPDATE": f"{path}/u", "DELETE": f"{path}/d"}}

    return asyncio.run(find_topics(ask, secure=secure, ven_id=None, program_ids=["p/1"]))


def test_a_site_that_checks_certificates_takes_no_plain_broker() -> None:
    both = found(binding())
    assert both is not None
    assert both.broker.addresses == (
        Address("broker.example", 8883, tls=True),
        Address("broker.example", 1884, tls=False),
    )
    assert both.names == (
        "notifiers/mqtt/topics/programs/u",
        "notifiers/mqtt/topics/programs/d",
    ), "what is not told to us is left out"
    only = found(binding(), secure=True)
    assert only is not None
    assert only.broker.addresses == (Address("broker.example", 8883, tls=True),)
    assert found(binding(URIS=["mqtt://broker.example"]), secure=True) is None


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"MQTT": 7},
        binding(URIS="mqtt://x"),
        binding(serialization="XML"),
        binding(authentication={"method": "MAGIC"}),
        binding(authentication=None),
        binding(authentication={"method": "CERTIFICATE", "caCert": 7}),
    ],
)
def test_a_binding_that_is_none_is_told(said: Any) -> None:
    with pytest.raises(VtnNonsense):
        found(said)


@pytest.mark.parametrize("topics", [7, {"ALL": 7}, {"UPDATE": "x" * 2000}, {"ALL": "a\0b"}])
def test_topics_that_are_none_are_told(topics: Any) -> None:
    with pytest.raises(VtnNonsense):
        found(binding(), topics=topics)


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://u:p@x", "mqtt://x:99999"])
def test_a_broker_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        BrokerSettings(url)


def test_a_client_of_3_0_asks_for_no_topics() -> None:
    client = VtnClient("http://127.7.3.9:9", None, version="3.0", verify=False)
    assert asyncio.run(client.topics(ven_id="v")) is None
