"""Sensors of the grid's frequency: a line feed, a meter's registers, a recorded day."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from tests.ports import free_port

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.frequency import FrequencyFeed, FrequencyMeter, FrequencyReplay
from wattshift_cluster.grid.frequency import feed as feed_room
from wattshift_cluster.grid.frequency.feed import Feed, LineInvalid, parse
from wattshift_cluster.grid.frequency.register import Registers
from wattshift_cluster.grid.frequency.replay import Replay
from wattshift_cluster.grid.frequency.sensor import FrequencySensor
from wattshift_scheduler.frequency.response import Sample

HOST = "127.61.0.1"


async def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    for _ in range(int(within_s / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came")


def listening(
    sensor: FrequencySensor, scenario: Callable[[list[Sample]], Awaitable[None]]
) -> list[Sample]:
    """Run a sensor beside a scenario; what it said."""
    said: list[Sample] = []

    async def both() -> None:
        running = asyncio.create_task(sensor.run(said.append))
        try:
            await scenario(said)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(both())
    return said


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (b"59.9731\n", Sample(10.0, 59.9731)),
        (b"59.9731 1.002\n", Sample(10.0, 59.9731, 1.002)),
        (b"  59.9731\t1.002 40\r\n", Sample(9.96, 59.9731, 1.002)),
        (b"59.9731 - 40\n", Sample(9.96, 59.9731)),
    ],
)
def test_a_line_is_a_sample(line: bytes, sample: Sample) -> None:
    assert parse(line, 10.0) == sample


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hz\n",
        b"nan\n",
        b"inf 1\n",
        b"60 x\n",
        b"60 1 -5\n",
        b"60 1 1e9\n",
        b"6 1 1 1\n",
        b"\xff\n",
    ],
)
def test_what_is_no_sample_is_refused(line: bytes) -> None:
    with pytest.raises(LineInvalid):
        parse(line, 10.0)


def test_a_feed_over_a_unix_socket_is_for_its_own_user(tmp_path: Path) -> None:
    path = tmp_path / "hz.sock"
    feed = Feed(FrequencyFeed(socket=path))

    async def scenario(said: list[Sample]) -> None:
        await until(path.exists)
        await until(lambda: path.stat().st_mode & 0o777 == 0o600)
        _, writer = await asyncio.open_unix_connection(path)
        before_s = boot_s()
        writer.write(b"59.98 1.01\nnonsense\n59.97 1.01 20\n")
        await until(lambda: len(said) == 2)
        assert before_s <= said[0].t_s <= boot_s()
        assert [one.hz for one in said] == [59.98, 59.97]
        assert feed.fault is None
        writer.close()
        await until(lambda: feed.fault is not None)
        assert feed.fault == "the feed has ended: it hung up"

    listening(feed, scenario)
    assert not path.exists()


async def connect(feed: Feed) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    await until(lambda: feed.port is not None)
    return await asyncio.open_connection(HOST, feed.port)


def test_one_sender_at_a_time(tmp_path: Path) -> None:
    feed = Feed(FrequencyFeed(listen=f"{HOST}:0"))

    async def scenario(said: list[Sample]) -> None:
        _, first = await connect(feed)
        first.write(b"60.0\n")
        await until(lambda: len(said) == 1)
        reader, second = await connect(feed)
        second.write(b"57.0\n")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        first.write(b"60.1\n")
        await until(lambda: len(said) == 2)
        assert 57.0 not in [one.hz for one in said]
        first.close()
        second.close()

    listening(feed, scenario)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (b"x" * 4096, "had no end"),
        (b"60 1\n" * 600, "lines a second"),
        (b"sixty\n" * 20, "no samples"),
        (b"60 1\n", "silent"),
    ],
)
def test_a_sender_out_of_order_is_let_go(
    lines: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_room, "SILENCE_S", 0.2)
    feed = Feed(FrequencyFeed(listen=f"{HOST}:0"))

    async def scenario(said: list[Sample]) -> None:
        reader, writer = await connect(feed)
        writer.write(lines)
        with suppress(ConnectionResetError):  # it may be let go while more comes
            assert await reader.read() == b""
        await until(lambda: feed.fault is not None and why in feed.fault)
        writer.close()
        _, again = await connect(feed)
        count = len(said)
        again.write(b"60.02\n")
        await until(lambda: len(said) == count + 1)
        again.close()

    listening(feed, scenario)


def test_a_door_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    feed = Feed(FrequencyFeed(socket=tmp_path / "nowhere" / "hz.sock"))

    async def scenario(said: list[Sample]) -> None:
        await until(lambda: feed.fault is not None)
        assert "cannot be opened" in str(feed.fault)

    listening(feed, scenario)


def meter(port: int, **more: Any) -> FrequencyMeter:
    return FrequencyMeter.model_validate(
        {
            "address": HOST,
            "port": port,
            "rate_hz": 50,
            "hz": {"address": 100},
            "volts": {"address": 102},
            "nominal_v": 400.0,
            **more,
        }
    )


def test_a_meter_s_registers_are_read_many_times_a_second() -> None:
    port = free_port()
    sensor = Registers(meter(port))

    async def scenario(said: list[Sample]) -> None:
        values = [SimData(100, values=[59.97, 404.0], datatype=DataType.FLOAT32)]
        server: Any = ModbusTcpServer(SimDevice(1, values), address=(HOST, port))
        await until(lambda: sensor.fault is not None)
        await server.serve_forever(background=True)
        await until(lambda: len(said) >= 10)
        assert sensor.fault is None
        await server.shutdown()
        await until(lambda: sensor.fault is not None)

    said = listening(sensor, scenario)
    assert said[0].hz == pytest.approx(59.97)
    assert said[0].v_pu == pytest.approx(1.01)
    gaps = [after.t_s - before.t_s for before, after in pairwise(said)]
    assert sorted(gaps)[len(gaps) // 2] < 0.2, "five a second is the least"


def test_registers_of_all_kinds() -> None:
    port = free_port()
    kinds = {"hz": {"address": 7, "type": "u16", "scale": 0.01}}
    kinds["volts"] = {"address": 3, "type": "u32", "scale": 0.1}
    sensor = Registers(meter(port, table="input", word_order="little", **kinds))

    async def scenario(said: list[Sample]) -> None:
        values = [SimData(3, values=[4104, 0, 0, 0, 5994], datatype=DataType.REGISTERS)]
        server: Any = ModbusTcpServer(SimDevice(1, values), address=(HOST, port))
        await server.serve_forever(background=True)
        await until(lambda: bool(said))
        await server.shutdown()

    said = listening(sensor, scenario)
    assert said[0].hz == pytest.approx(59.94)
    assert said[0].v_pu == pytest.approx(410.4 / 400.0)


def test_a_meter_that_has_no_such_register_says_so() -> None:
    port = free_port()
    sensor = Registers(meter(port))

    async def scenario(said: list[Sample]) -> None:
        values = [SimData(0, values=[1], datatype=DataType.REGISTERS)]
        server: Any = ModbusTcpServer(SimDevice(1, values), address=(HOST, port))
        await server.serve_forever(background=True)
        await until(lambda: "Modbus exception" in str(sensor.fault))
        assert said == []
        await server.shutdown()

    listening(sensor, scenario)


@pytest.mark.parametrize("packed", [False, True])
def test_a_recorded_day_is_played_at_its_own_pace(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("day.csv.gz" if packed else "day.csv")
    text = b"t_s,hz,v_pu\n5.0,60.0,1.0\n5.1,59.9,\n5.2,59.8,0.99\n"
    path.write_bytes(gzip.compress(text) if packed else text)
    sensor = Replay(FrequencyReplay(file=path))

    async def scenario(said: list[Sample]) -> None:
        await until(lambda: sensor.fault is not None)
        assert sensor.fault == "the record has ended"

    began_s = boot_s()
    said = listening(sensor, scenario)
    assert boot_s() - began_s >= 0.2
    assert [(one.hz, one.v_pu) for one in said] == [(60.0, 1.0), (59.9, None), (59.8, 0.99)]
    assert said[2].t_s - said[0].t_s == pytest.approx(0.2)


@pytest.mark.parametrize("text", [None, "t,hz\n1,60\n", "t_s,hz\n1,sixty\n"])
def test_a_record_that_cannot_be_read_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "day.csv"
    if text is not None:
        path.write_text(text)
    sensor = Replay(FrequencyReplay(file=path))

    async def scenario(said: list[Sample]) -> None:
        await until(lambda: sensor.fault is not None)
        assert "day.csv cannot be replayed" in str(sensor.fault)

    listening(sensor, scenario)
