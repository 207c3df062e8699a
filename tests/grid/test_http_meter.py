"""The meter client: deadlines, ages, and unknown that is never zero."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wattshift_cluster.grid.meters.http import HttpMeter
from wattshift_cluster.jsonhttp import address, serve_json


class Clocks:
    """A wall clock and a steady one that the test moves."""

    def __init__(self) -> None:
        self.wall_s, self.steady_s = 1_800_000_000.0, 50.0

    def pass_s(self, seconds_s: float) -> None:
        self.wall_s += seconds_s
        self.steady_s += seconds_s


def good(clocks: Clocks, **changes: Any) -> dict[str, Any]:
    parts = [{"name": "host cpu", "watts_w": 250.5, "quality": "modelled"}]
    body = {"watts_w": 250.5, "at_s": clocks.wall_s, "quality": "modelled", "parts": parts}
    return body | changes


def with_meter(
    body: Callable[[HttpMeter, dict[str, Any], Clocks], Awaitable[None]], **more: Any
) -> None:
    async def scene() -> None:
        clocks = Clocks()
        answer = good(clocks)
        server = await serve_json("127.0.0.1", 0, {"/v1/power": lambda: answer})
        meter = HttpMeter(
            f"http://{address(server)}/v1/power",
            wall_s=lambda: clocks.wall_s,
            steady_s=lambda: clocks.steady_s,
            **more,
        )
        try:
            await body(meter, answer, clocks)
        finally:
            await meter.close()
            server.close()

    asyncio.run(scene())


def test_a_reading_comes_with_its_age_and_turns_unknown_when_stale() -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        assert meter.reading().watts_w is None
        assert meter.reading().fault == "never read"
        clocks.pass_s(0.5)
        reading = await meter.poll()
        assert (reading.watts_w, reading.quality, reading.fault) == (250.5, "modelled", None)
        assert reading.age_s == pytest.approx(0.5)
        assert reading.parts[0].name == "host cpu"
        clocks.pass_s(2.4)
        assert meter.reading().watts_w == 250.5
        clocks.pass_s(0.2)
        stale = meter.reading()
        assert stale.watts_w is None
        assert stale.age_s == pytest.approx(3.1)
        assert stale.fault == "stale"

    with_meter(body)


def test_a_meter_that_repeats_an_old_sample_goes_stale_although_it_answers() -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        for _ in range(4):
            await meter.poll()
            clocks.pass_s(1)
        assert meter.reading().watts_w is None

    with_meter(body)


def test_a_step_of_the_wall_clock_neither_freshens_nor_ages() -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        await meter.poll()
        clocks.wall_s -= 3600
        assert meter.reading().age_s == 0.0
        clocks.steady_s += 10
        assert meter.reading().watts_w is None

    with_meter(body)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"watts_w": "250"}, "not a number"),
        ({"watts_w": True}, "not a number"),
        ({"watts_w": 1e15}, "not a possible number"),
        ({"at_s": None}, "at_s is missing"),
        ({"at_s": 1_800_000_100.0}, "ahead of ours"),
        ({"quality": "guessed"}, "quality"),
        ({"parts": "none"}, "parts"),
        ({"parts": [{}]}, "without a name"),
    ],
)
def test_a_malformed_answer_is_no_reading(changes: dict[str, Any], words: str) -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        answer.update(changes)
        reading = await meter.poll()
        assert reading.watts_w is None
        assert words in (reading.fault or "")

    with_meter(body)


def test_null_is_unknown_and_replaces_the_last_value() -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        await meter.poll()
        answer["watts_w"] = None
        reading = await meter.poll()
        assert reading.watts_w is None
        assert reading.fault == "the meter does not know"

    with_meter(body)


def test_a_failed_poll_keeps_the_last_reading_until_it_is_stale() -> None:
    async def body(meter: HttpMeter, answer: dict[str, Any], clocks: Clocks) -> None:
        await meter.poll()
        answer["quality"] = "broken"
        reading = await meter.poll()
        assert reading.watts_w == 250.5
        assert reading.fault is not None

    with_meter(body)


@pytest.mark.parametrize("kind", ["mute", "drip", "refuses", "status", "text", "list", "huge"])
def test_a_broken_meter_is_unknown_within_the_deadline(kind: str) -> None:
    answers = {
        "status": b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}",
        "text": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        "huge": b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n"
        + json.dumps(good(Clocks(), at_s=time.time())).encode().ljust(400_000),
        "drip": b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n",
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.get(kind, b""))
        if kind == "mute":
            await asyncio.sleep(3)
        # A byte now and then satisfies a time limit between two reads, but not the deadline.
        for _ in range(30 if kind == "drip" else 0):
            writer.write(b" ")
            await asyncio.sleep(0.1)
        writer.close()

    async def scene() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if kind == "refuses":
            server.close()
        meter = HttpMeter(f"http://127.0.0.1:{port}/", deadline_s=0.3)
        began = time.monotonic()
        reading = await meter.poll()
        assert time.monotonic() - began < 1.5
        assert reading.watts_w is None
        assert reading.fault
        await meter.close()
        server.close()

    asyncio.run(scene())
