"""Meters over MQTT, through a real broker: plain numbers, JSON, kept messages, and what fails."""

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.ports import free_port

from wattshift_cluster.grid.meters.mqtt import Broker, MqttMeter, Spot, Spots
from wattshift_cluster.grid.meters.pause import Pause
from wattshift_cluster.grid.meters.pointer import number_at, parse, parts_of, time_at
from wattshift_cluster.grid.meters.reading import MeterReading

HOST = "127.8.5.1"
WAIT_S = 30.0
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto broker is installed")
OPEN = "allow_anonymous true"
PLAIN = Spots(Spot("site/watts"))


async def until(meter: MqttMeter, holds: Callable[[MeterReading], bool], what: str) -> MeterReading:
    reading = meter.reading()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            while True:
                reading = await meter.poll()
                if holds(reading):
                    return reading
                await asyncio.sleep(0.01)
    raise AssertionError(f"{what}: {reading}")


async def watts(meter: MqttMeter, watts_w: float | None) -> MeterReading:
    return await until(meter, lambda one: one.watts_w == watts_w, f"{watts_w} W")


async def listens(meter: MqttMeter) -> None:
    await until(meter, lambda one: one.fault == "no message yet", "a subscription")


class Running:
    """A broker of the test's own; `lines` go into its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port(HOST)
        self.file = folder / "mosquitto.conf"
        text = "\n".join([f"listener {self.port} {HOST}", *lines, "user root", "log_type none", ""])
        self.file.write_text(text)
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> subprocess.Popen[bytes]:
        assert MOSQUITTO is not None
        return subprocess.Popen(
            [MOSQUITTO, "-c", str(self.file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def start(self) -> None:
        self.process = self.launch()
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, self.port)
                    writer.close()
                    return
                assert self.process.poll() is None, "the broker ended"
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None


@asynccontextmanager
async def broker(folder: Path, *lines: str) -> AsyncIterator[Running]:
    running = Running(folder, *(lines or (OPEN,)))
    await running.start()
    try:
        yield running
    finally:
        running.stop()


@asynccontextmanager
async def following(port: int, spots: Spots, **more: Any) -> AsyncIterator[MqttMeter]:
    where = more.pop("where", Broker(HOST, port))
    meter = MqttMeter(
        where,
        spots,
        **{"stale_after_s": 60.0, "pause": Pause(random.Random(1), most_s=0.3), **more},
    )
    try:
        yield meter
    finally:
        await meter.close()


@needs_broker
def test_plain_numbers_are_taken_as_they_come_and_nonsense_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            broker(tmp_path) as running,
            following(running.port, Spots(Spot("site/watts", scale=-1000.0))) as meter,
            aiomqtt.Client(HOST, running.port) as device,
        ):
            assert (await meter.poll()).watts_w is None
            await listens(meter)
            await device.publish("site/other", "1")
            await device.publish("site/watts", "-9.5")
            reading = await watts(meter, 9500.0)
            assert (reading.fault, reading.quality, reading.hz) == (None, "measured", None)
            assert reading.at_s == pytest.approx(time.time(), abs=WAIT_S)
            for payload, words in (
                (b"off", "neither JSON nor a number"),
                (b"{}", "the message is no number"),
                (b"x" * 65_537, "larger than 65536 bytes"),
            ):
                await device.publish("site/watts", payload)
                await until(meter, lambda one, w=words: w in str(one.fault), words)  # type: ignore[misc]
                assert meter.reading().watts_w == 9500.0, "the last one holds until it is stale"
            await device.publish("site/watts", "nan")
            told = await until(meter, lambda one: one.watts_w != one.watts_w, "no number")
            assert told.fault is None, "the guard says what that is"
            await device.publish("site/watts", "null")
            assert (await watts(meter, None)).fault == "the meter does not know"

    asyncio.run(scene())


@needs_broker
def test_values_are_found_by_pointer_on_their_topics_with_the_meters_own_time(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        wall, steady = [1_800_000_000.0], [0.0]
        spots = Spots(
            Spot("m/1", ("ENERGY", "Power"), 1000.0),
            energy=Spot("m/1", ("ENERGY", "Total"), 1000.0),
            frequency=Spot("m/grid", ("hz",)),
            voltages=(Spot("m/1", ("volts", "0")), Spot("m/1", ("volts", "1"))),
            at=("Time",),
        )

        def message(at: object, kw: float) -> str:
            energy = {"Power": kw, "Total": 12.5}
            return json.dumps({"Time": at, "ENERGY": energy, "volts": [231.0, 229.0]})

        async with (
            broker(tmp_path) as running,
            following(
                running.port, spots, stale_after_s=3.0,
                wall_s=lambda: wall[0], steady_s=lambda: steady[0],
            ) as meter,
            aiomqtt.Client(HOST, running.port) as device,
        ):  # fmt: skip
            await meter.poll()
            await listens(meter)
            await device.publish("m/grid", '{"hz": 49.97}')
            await device.publish("m/1", message(wall[0] - 1, 9.5))
            reading = await watts(meter, 9500.0)
            assert (reading.energy_wh, reading.hz, reading.volts_v) == (12_500.0, 49.97, 229.0)
            assert reading.age_s == pytest.approx(1.0)
            await device.publish("m/1", message((wall[0] - 0.5) * 1000, 9.6))
            assert (await watts(meter, 9600.0)).at_s == wall[0] - 0.5
            await device.publish("m/1", message("2027-01-15T09:00:00+01:00", 9.7))
            assert (await watts(meter, 9700.0)).at_s == wall[0]
            for at, words in ((wall[0] + 60, "ahead of ours"), ("2027-01-15T09:00:00", "zone")):
                await device.publish("m/1", message(at, 1.0))
                await until(meter, lambda one, w=words: w in str(one.fault), words)  # type: ignore[misc]
            steady[0] += 3.5
            stale = meter.reading()
            assert (stale.watts_w, stale.hz, stale.volts_v) == (None, None, None)
            wall[0] += 3.5
            await device.publish("m/1", message(wall[0], 9.8))
            assert (await watts(meter, 9800.0)).hz is None, "the frequency is old by now"

    asyncio.run(scene())


@needs_broker
def test_what_the_broker_had_kept_is_old_unless_it_says_how_old(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            broker(tmp_path) as running,
            aiomqtt.Client(HOST, running.port) as device,
        ):
            await device.publish("site/watts", "9500", retain=True, qos=1)
            body = {"w": 9500, "t": time.time() - 3600}
            await device.publish("site/json", json.dumps(body), retain=True, qos=1)
            async with following(running.port, PLAIN) as meter:
                await until(meter, lambda one: "kept message" in str(one.fault), "a kept one")
                assert meter.reading().watts_w is None
                await device.publish("site/watts", "9400", retain=True, qos=1)
                await watts(meter, 9400.0)
            timed = Spots(Spot("site/json", ("w",)), at=("t",))
            async with following(running.port, timed) as meter:
                await until(meter, lambda one: one.at_s == body["t"], "the kept one")
                assert (meter.reading().watts_w, meter.reading().fault) == (None, "stale")

    asyncio.run(scene())


@needs_broker
def test_a_broker_that_was_away_is_found_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with broker(tmp_path) as running, following(running.port, PLAIN) as meter:
            await meter.poll()
            await listens(meter)
            running.stop()
            await until(meter, lambda one: "broker:" in str(one.fault), "the loss is told")
            await running.start()
            await listens(meter)
            async with aiomqtt.Client(HOST, running.port) as device:
                await device.publish("site/watts", "9500")
                assert (await watts(meter, 9500.0)).fault is None

    asyncio.run(scene())


@needs_broker
def test_a_broker_that_wants_a_password_gets_it_from_its_file(tmp_path: Path) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("no mosquitto_passwd is installed")
    accounts, secret = tmp_path / "accounts", tmp_path / "secret"
    subprocess.run([tool, "-b", "-c", str(accounts), "site", "hunter-7"], check=True, timeout=30)
    secret.write_text("wrong-3\n")
    secret.chmod(0o600)

    async def scene() -> None:
        async with broker(tmp_path, "allow_anonymous false", f"password_file {accounts}") as run:
            where = Broker(HOST, run.port, "site", secret)
            async with following(run.port, PLAIN, where=where) as meter:
                await until(meter, lambda one: "broker:" in str(one.fault), "a refusal")
                assert "wrong-3" not in str(meter.reading()) + repr(where)
                secret.write_text("hunter-7\n")
                await listens(meter)

    asyncio.run(scene())


def test_numbers_and_times_in_messages() -> None:
    body = {"a/b": {"~": [1, "2.5", None, True, {}]}, "big": 10**400, "nan": float("nan")}
    steps = parts_of("/a~1b/~0/1")
    assert number_at(body, steps) == 2.5
    assert number_at(body, parts_of("/a~1b/~0/2")) is None
    for pointer in ("/big", "/nan"):
        value = number_at(body, parts_of(pointer))
        assert value is not None
        assert value != value
    for pointer in ("/a~1b/~0/3", "/a~1b/~0/4", "/a~1b/~0/5", "/a~1b/~0/x", "/none", ""):
        with pytest.raises(ValueError, match=r"no number|nothing at"):
            number_at(body, parts_of(pointer))
    for pointer in ("a", "/~2", "/x" * 17):
        with pytest.raises(ValueError, match="JSON pointer"):
            parts_of(pointer)
    assert parse(b" +1.5 ") == 1.5
    with pytest.raises(ValueError, match="neither JSON"):
        parse(b"[" * 60_000)
    assert time_at({"t": 1_800_000_000_500}, ("t",)) == 1_800_000_000.5
    with pytest.raises(ValueError, match="no time"):
        time_at({"t": None}, ("t",))
