"""What our own requests make of slow, broken and lying machines, and of what they report."""

import asyncio
import contextlib
import json
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ports import own_address

from wattshift_cluster.asic import held, wire
from wattshift_cluster.asic.driver import AsicUnreachable
from wattshift_cluster.asic.held import FramedLine
from wattshift_cluster.asic.models import rating
from wattshift_cluster.asic.reported import first, hashes, number, rows, text, under, watts
from wattshift_cluster.asic.wire import ask_cgminer, ask_framed

ADDRESS = own_address()
SUMMARY = {"cmd": "get.miner.status", "param": "summary"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "value",
    [None, "", "n/a", "nan", "inf", -1, float("nan"), True, [], {}, "-3", 10**400, "1" * 5000],
)
def test_a_value_that_is_no_quantity_is_unknown(value):
    assert number(value) is None


@pytest.mark.parametrize(("value", "parsed"), [(0, 0.0), ("59756.06", 59756.06), (25.4, 25.4)])
def test_quantities(value, parsed):
    assert number(value) == parsed


@pytest.mark.parametrize("value", [1e6, 100_001, "3441000", -1, float("inf")])
def test_watts_that_no_miner_draws_are_unknown(value):
    assert watts(value) is None


def test_watts_and_hashes():
    assert watts("12000") == 12000
    assert watts(0) == 0
    assert hashes(186.0, 1e12) == 186e12
    assert hashes(186e12, 1e12) is None, "H/s taken for TH/s"


@given(JSON)
def test_any_reply_is_survived(reply):
    assert isinstance(rows(reply, "a"), list)
    assert isinstance(first(reply, "a"), dict)
    assert isinstance(under(reply, "a"), dict)
    assert text(reply) is None or text(reply)
    parsed = number(reply)
    assert parsed is None or parsed >= 0


def test_ratings_are_found_by_the_whole_name_only():
    assert rating("Antminer S19k Pro").watts_w == 2760
    assert rating("M60S_VK40").watts_w == 3441
    assert rating("M50S++VK30").watts_w == 3300
    assert rating("Antminer S21 Pro Max") is None
    assert rating("") is None


@contextlib.asynccontextmanager
async def serving(serve, port):
    """A machine that does as `serve` does with each connection."""
    tasks = set()

    async def guarded(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, ADDRESS, port)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def framed(reply):
    payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return struct.pack("<I", len(payload)) + payload


async def request(reader):
    (length,) = struct.unpack("<I", await reader.readexactly(4))
    return json.loads(await reader.readexactly(length))


def answering(*replies):
    """Serves connections that answer each request with the next of `replies`, then hang up."""
    left = list(replies)

    async def serve(reader, writer):
        while left:
            await request(reader)
            writer.write(left.pop(0))
            await writer.drain()

    return serve


# One exchange


async def once(port, *, deadline_s):
    if port == wire.FRAMED_PORT:
        return await ask_framed(ADDRESS, "get.device.info", None, deadline_s=deadline_s)
    return await ask_cgminer(ADDRESS, "summary", deadline_s=deadline_s)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b'{"STATUS":[',
        b'[{"STATUS":"S"}]\x00',
        b"null\x00",
        b"\xff\xfe\x00",
        b"[" * 100_000 + b"\x00",
        b'{"Power":' + b"9" * 5000 + b"}\x00",
    ],
    ids=["nothing", "half", "a list", "null", "no text", "a deep nest", "a long number"],
)
def test_an_answer_that_is_no_object_is_an_error(reply):
    async def serve(reader, writer):
        await reader.read(4096)
        writer.write(reply)
        await writer.drain()

    async def main():
        async with serving(serve, wire.CGMINER_PORT):
            with pytest.raises(AsicUnreachable, match="not a JSON object"):
                await ask_cgminer(ADDRESS, "summary", deadline_s=10.0)

    asyncio.run(main())


@pytest.mark.parametrize("port", [wire.CGMINER_PORT, wire.FRAMED_PORT])
def test_a_flood_ends_at_the_limit(port):
    sent = 0

    async def serve(reader, writer):
        nonlocal sent
        await reader.read(4096)
        if port == wire.FRAMED_PORT:
            writer.write(struct.pack("<I", 2**31))
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async def main():
        async with serving(serve, port):
            with pytest.raises(AsicUnreachable, match=r"goes on after|announced a reply of"):
                await once(port, deadline_s=10.0)
            await asyncio.sleep(0.05)

    asyncio.run(main())
    assert sent < 16 * wire.REPLY_LIMIT


@pytest.mark.parametrize("port", [wire.CGMINER_PORT, wire.FRAMED_PORT])
def test_a_trickle_ends_at_the_deadline(port):
    async def serve(reader, writer):
        await reader.read(4096)
        writer.write(struct.pack("<I", 1000))
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def main():
        began = time.monotonic()
        async with serving(serve, port):
            with pytest.raises(AsicUnreachable, match=r"no answer within 0.2 s"):
                await once(port, deadline_s=0.2)
        assert time.monotonic() - began < 5.0

    asyncio.run(main())


def test_what_some_firmware_gets_wrong_in_json_is_forgiven():
    async def serve(reader, writer):
        await reader.read(4096)
        writer.write(b'{"STATUS":"S","Msg":"two\nlines",}\x00')
        await writer.drain()

    async def main():
        async with serving(serve, wire.CGMINER_PORT):
            return await ask_cgminer(ADDRESS, "summary", deadline_s=10.0)

    assert asyncio.run(main()) == {"STATUS": "S", "Msg": "two\nlines"}


def test_a_closed_door_is_called_so():
    async def main():
        for asked in (
            ask_cgminer(ADDRESS, "summary", deadline_s=10.0),
            ask_framed(ADDRESS, "get.device.info", None, deadline_s=10.0),
            FramedLine(ADDRESS, 10.0).ask(SUMMARY, repeatable=True),
        ):
            with pytest.raises(AsicUnreachable, match="Connection refused"):
                await asked

    asyncio.run(main())


def test_not_more_than_the_named_number_at_a_time(monkeypatch):
    monkeypatch.setattr(wire, "MAX_EXCHANGES", 3)
    most = now = 0

    async def serve(reader, writer):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await reader.read(4096)
        await asyncio.sleep(0.02)
        writer.write(b"{}\x00")
        await writer.drain()
        now -= 1

    async def main():
        async with serving(serve, wire.CGMINER_PORT):
            asked = (ask_cgminer(ADDRESS, "summary", deadline_s=10.0) for _ in range(12))
            assert await asyncio.gather(*asked) == [{}] * 12

    asyncio.run(main())
    assert most == 3


# The held connection, port 4433


def on_line(serve, test, *, deadline_s=10.0):
    connections = 0

    async def counted(reader, writer):
        nonlocal connections
        connections += 1
        await serve(reader, writer)

    async def main():
        line = FramedLine(ADDRESS, deadline_s)
        async with serving(counted, wire.FRAMED_PORT):
            try:
                await test(line)
            finally:
                await line.close()
        assert line._kept is None

    before = FramedLine._in_use
    asyncio.run(main())
    assert FramedLine._in_use == before
    return connections


def ok(n, **more):
    return framed({"code": 0, "n": n, **more})


def test_many_requests_take_one_connection():
    async def test(line):
        for n in range(20):
            assert (await line.ask(SUMMARY, repeatable=True))["n"] == n

    assert on_line(answering(*(ok(n) for n in range(20))), test) == 1


def test_a_connection_that_the_machine_gave_up_is_opened_again():
    """It hangs up while nobody asks: then the next request, a command too, connects anew."""

    async def serve(reader, writer):
        await request(reader)
        writer.write(ok(1))
        await writer.drain()

    async def test(line):
        for repeatable in (True, False, True):
            await line.ask(SUMMARY, repeatable=repeatable)
            await asyncio.sleep(0.05)

    assert on_line(serve, test) == 3


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_connection_that_dies_under_a_request_is_retried_once_and_for_readings_alone(repeatable):
    asked = 0

    async def serve(reader, writer):
        nonlocal asked
        while True:
            await request(reader)
            asked += 1
            if asked == 2:
                return
            writer.write(ok(asked))
            await writer.drain()

    async def test(line):
        await line.ask(SUMMARY, repeatable=True)
        if repeatable:
            assert (await line.ask(SUMMARY, repeatable=True))["n"] == 3
        else:
            with pytest.raises(AsicUnreachable):
                await line.ask(SUMMARY, repeatable=False)
            assert asked == 2, "a command may have arrived although its answer did not"

    assert on_line(serve, test) == (2 if repeatable else 1)


def test_a_machine_that_always_hangs_up_is_asked_no_third_time():
    asked = 0

    async def serve(reader, writer):
        nonlocal asked
        await request(reader)
        asked += 1

    async def test(line):
        with pytest.raises(AsicUnreachable, match="closed in the middle"):
            await line.ask(SUMMARY, repeatable=True)

    assert on_line(serve, test) == 1 == asked


def test_a_late_answer_is_never_taken_for_the_next_one():
    async def serve(reader, writer):
        asked = await request(reader)
        if asked["cmd"] == "get.slow":
            arrived.set()
            await late.wait()
        writer.write(ok(asked["cmd"]))
        await writer.drain()
        await reader.read(1)

    async def test(line):
        with pytest.raises(AsicUnreachable, match="no answer within"):
            await line.ask({"cmd": "get.slow"}, repeatable=True)
        line.deadline_s = 10.0
        late.set()
        assert (await line.ask({"cmd": "get.quick"}, repeatable=True))["n"] == "get.quick"
        late.clear()
        arrived.clear()
        broken_off = asyncio.create_task(line.ask({"cmd": "get.slow"}, repeatable=True))
        await arrived.wait()
        broken_off.cancel()
        with pytest.raises(asyncio.CancelledError):
            await broken_off
        late.set()
        assert (await line.ask({"cmd": "get.quick"}, repeatable=True))["n"] == "get.quick"

    arrived, late = asyncio.Event(), asyncio.Event()
    on_line(serve, test, deadline_s=0.2)


def test_what_was_sent_unasked_is_never_taken_for_an_answer():
    async def serve(reader, writer):
        await request(reader)
        writer.write(ok("asked"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(ok("unasked"))
        await writer.drain()
        await reader.read(1)

    async def test(line):
        for _ in range(3):
            assert (await line.ask(SUMMARY, repeatable=True))["n"] == "asked"
            await asyncio.sleep(0.1)

    assert on_line(serve, test) == 3


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (ok(1, desc="get.device.info"), "another question"),
        (ok(1) + b"{}", "more than it was asked"),
        (ok(1)[:-3], "in the middle of the answer"),
        (b"\x01", "in the middle of the answer"),
        (framed(b"{"), "not a JSON object"),
        (framed([1]), "not a JSON object"),
        (struct.pack("<I", 2**20 + 1), "announced"),
    ],
    ids=["another", "more", "half", "a byte", "no json", "a list", "too much"],
)
def test_an_unusable_answer_closes_the_connection(reply, told):
    async def test(line):
        with pytest.raises(AsicUnreachable, match=told):
            await line.ask(SUMMARY, repeatable=False)
        assert line._kept is None
        assert (await line.ask(SUMMARY, repeatable=False))["n"] == 2

    async def hung_up(reader, writer):
        # Half an answer is told from a slow one only once the connection is gone.
        await request(reader)
        writer.write(replies.pop(0))
        await writer.drain()

    replies = [reply, ok(2)]
    assert on_line(hung_up, test) == 2


def test_beyond_the_files_of_the_process_nothing_is_held(monkeypatch):
    monkeypatch.setattr(held, "_most_held", lambda: FramedLine._in_use)

    async def serve(reader, writer):
        await answering(ok(1))(reader, writer)

    async def test(line):
        for _ in range(3):
            await line.ask(SUMMARY, repeatable=False)
            assert line._kept is None

    assert on_line(serve, test) == 3


def test_the_room_imports_without_pyasic_or_ray():
    blocked = ("pyasic", "pyasic_rs", "ray", "passlib", "cryptography")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import wattshift_cluster.asic.connect, wattshift_cluster.emulate.process\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
