"""Each fault of an emulated machine, as a client's socket meets it."""

import asyncio
import json
import os
import random
import struct
import time

import pytest
from tests.ports import own_address

from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.frames import Frame, mistyped
from wattshift_cluster.emulate.listener import EmulatedMiner

WAIT_S = 20.0


def on_miner(test, kind="luxos", *, clock=time.monotonic, full=True, **options):
    """Run a coroutine function against one machine that listens."""

    async def main():
        address = own_address()
        miner = EmulatedMiner("rig", kind, address, seed=7, clock=clock, full=full, **options)
        await miner.start()
        try:
            return await asyncio.wait_for(test(miner), WAIT_S)
        finally:
            await miner.stop()

    return asyncio.run(main())


async def send(miner, request, *, port=4028):
    reader, writer = await asyncio.open_connection(miner.address, port)
    writer.write(request)
    return reader, writer


async def raw(miner, command="summary", within_s=5.0):
    """All bytes of one answer on port 4028."""
    reader, writer = await send(miner, json.dumps({"command": command}).encode())
    try:
        return await asyncio.wait_for(reader.read(), within_s)
    finally:
        writer.close()


async def ask(miner, command="summary"):
    return json.loads((await raw(miner, command)).rstrip(b"\x00"))


async def v3(reader, writer, request):
    body = json.dumps(request).encode()
    writer.write(struct.pack("<I", len(body)) + body)
    (length,) = struct.unpack("<I", await reader.readexactly(4))
    return json.loads(await reader.readexactly(length))


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


INFO = {"cmd": "get.device.info"}


async def silent(miner, within_s=0.6):
    """Whether connecting meets nothing at all."""
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(miner.address, miner.ports[0]), within_s
        )
    except TimeoutError:
        return True
    writer.close()
    return False


async def refuses(miner):
    try:
        _, writer = await asyncio.open_connection(miner.address, miner.ports[0])
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def eventually(check, within_s=10.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if await check():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not come to pass")


def test_slow_obeys_at_once_and_answers_late():
    async def test(miner):
        await miner.inject(Fault.SLOW, seconds=0.4)
        logon = {"command": "logon"}
        reader, writer = await send(miner, json.dumps(logon).encode())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        answer = json.loads((await reader.read()).rstrip(b"\x00"))
        writer.close()
        assert answer["STATUS"][0]["Code"] == 316, "whole and right, only late"
        await miner.inject(Fault.NONE)
        assert (await ask(miner))["SUMMARY"]

    on_miner(test)


def test_a_fault_meets_the_sessions_that_are_already_open():
    async def test(miner):
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        assert (await v3(reader, writer, INFO))["code"] == 0
        await miner.inject(Fault.SLOW, seconds=0.3)
        started_s = time.monotonic()
        assert (await v3(reader, writer, INFO))["code"] == 0
        assert time.monotonic() - started_s >= 0.29
        await miner.inject(Fault.WRONG_TYPE)
        assert (await v3(reader, writer, INFO))["code"] != 0
        await miner.inject(Fault.MUTE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(v3(reader, writer, INFO), 0.3)
        writer.close()

    on_miner(test, "whatsminer")


def test_mute_takes_connections_and_neither_answers_nor_obeys():
    async def test(miner):
        await miner.inject(Fault.MUTE)
        with pytest.raises(TimeoutError):
            await raw(miner, "logon", within_s=0.3)
        await miner.inject(Fault.NONE)
        assert (await ask(miner, "logon"))["STATUS"][0]["Code"] == 316, "it was never asked"

    on_miner(test)


def test_half_ends_within_the_json():
    async def test(miner):
        whole = await raw(miner)
        await miner.inject(Fault.HALF)
        half = await raw(miner)
        assert 0.3 * len(whole) < len(half) < 0.7 * len(whole)
        with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
            json.loads(half)

    on_miner(test)


def test_half_of_a_framed_answer_is_less_than_its_length_says():
    async def test(miner):
        await miner.inject(Fault.HALF)
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        with pytest.raises(asyncio.IncompleteReadError) as short:
            await v3(reader, writer, INFO)
        assert len(short.value.partial) > 50
        writer.close()

    on_miner(test, "whatsminer")


def numbers_in(value):
    if isinstance(value, dict):
        return sum(map(numbers_in, value.values()))
    if isinstance(value, list):
        return (
            0
            if len(value) == 1 and isinstance(value[0], int | float)
            else sum(map(numbers_in, value))
        )
    return isinstance(value, int | float)


def test_wrong_type_is_whole_json_whose_numbers_are_none():
    async def test(miner):
        right = (await ask(miner))["SUMMARY"][0]
        await miner.inject(Fault.WRONG_TYPE)
        wrong = [(await ask(miner))["SUMMARY"][0] for _ in range(8)]
        assert set(wrong[0]) == set(right)
        kinds = {type(row["GHS 5s"]) for row in wrong}
        assert not kinds & {int, float}
        assert len(kinds) > 1

    on_miner(test)


def test_frames_are_told_apart_and_lengths_stay_true():
    rng = random.Random(1)
    body = json.dumps({"a": 1, "b": "x"}).encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX: 1\r\n\r\n" % len(body) + body
    for data in (body + b"\x00", struct.pack("<I", len(body)) + body, http, body):
        frame = Frame.of(data)
        assert frame.body == body
        assert frame.telling(len(body)) + body + frame.tail == data
        again = Frame.of(mistyped(data, rng))
        assert again.telling(len(again.body)) == again.head
        assert json.loads(again.body)["b"] == "x"
        assert json.loads(again.body)["a"] != 1
    assert mistyped(b"<html>1</html>", rng) == b"<html>1</html>"


def test_garbage_is_no_json():
    async def test(miner):
        await miner.inject(Fault.GARBAGE)
        junk = await raw(miner)
        assert len(junk) == 96
        assert not junk.lstrip().startswith(b"{")

    on_miner(test)


def test_a_flood_does_not_end_and_the_emulator_stays_small():
    async def test(miner):
        await miner.inject(Fault.FLOOD)
        reader, writer = await send(miner, b'{"command":"summary"}')
        took = 0
        while took < 2_000_000:
            chunk = await asyncio.wait_for(reader.read(65_536), 5)
            assert chunk, "it must not end by itself"
            took += len(chunk)
        # A client that no longer reads stops it: nothing piles up in the emulator.
        before_mb = resident_mb()
        await asyncio.sleep(0.6)
        assert resident_mb() - before_mb < 8
        other = EmulatedMiner("b", "luxos", own_address(), seed=1, clock=time.monotonic)
        await other.start()
        assert (await ask(other))["SUMMARY"], "other machines are served meanwhile"
        await other.stop()
        writer.transport.abort()
        await miner.inject(Fault.NONE)
        assert (await ask(miner))["SUMMARY"]

    on_miner(test)


def test_ignore_says_done_and_does_nothing():
    async def test(miner):
        await miner.inject(Fault.IGNORE)
        session = (await ask(miner, "logon"))["SESSION"][0]["SessionID"]
        request = {"command": "curtail", "parameter": f"{session},sleep"}
        reader, writer = await send(miner, json.dumps(request).encode())
        said = json.loads((await reader.read()).rstrip(b"\x00"))
        writer.close()
        assert said["STATUS"][0]["Code"] == 335
        assert not miner.machine.asleep

    on_miner(test)


def test_blank_has_neither_watts_nor_hashrate():
    async def test(miner):
        await miner.inject(Fault.BLANK)
        both = await ask(miner, "power+summary")
        assert both["power"][0]["POWER"][0]["Watts"] is None
        assert both["summary"][0]["SUMMARY"][0]["GHS 5s"] is None

    on_miner(test)


def test_refuse_and_back():
    async def test(miner):
        await miner.inject(Fault.REFUSE)
        assert await refuses(miner)
        await miner.inject(Fault.NONE)
        assert (await ask(miner))["SUMMARY"]

    on_miner(test)


def test_offline_meets_silence_and_open_sessions_fall_silent():
    async def test(miner):
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        await v3(reader, writer, INFO)
        await miner.inject(Fault.OFFLINE)
        assert await silent(miner)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(v3(reader, writer, INFO), 0.4)
        assert miner.machine.watts_w() > 3000, "it hashes on, unseen"
        await miner.inject(Fault.NONE)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        assert (await v3(reader, writer, INFO))["code"] == 0
        writer.close()

    on_miner(test, "whatsminer")


def test_a_restart_kills_connections_refuses_and_comes_back_by_itself():
    async def test(miner):
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        salt = (await v3(reader, writer, INFO))["msg"]["salt"]
        miner.machine.sleep()
        await miner.inject(Fault.RESTART, seconds=0.6)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        assert await refuses(miner)
        assert miner.fault is Fault.RESTART

        async def back():
            return not await refuses(miner)

        await eventually(back)
        assert miner.fault is Fault.NONE
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        assert (await v3(reader, writer, INFO))["msg"]["salt"] != salt
        writer.close()
        assert not miner.machine.asleep, "a sleep that is no configuration is forgotten"

    on_miner(test, "whatsminer")


def test_a_power_cut_draws_nothing_answers_nothing_and_resumes_by_itself():
    async def test(miner):
        await miner.inject(Fault.POWER_CUT)
        assert miner.machine.watts_w() == 0.0
        assert not miner.outlet
        assert await silent(miner)
        await miner.inject(Fault.POWER_ON)
        assert (miner.fault, miner.outlet) == (Fault.NONE, True)
        assert await silent(miner, 0.2), "it boots first"

        async def hashes():
            return miner.machine.hashrate_h_per_s() > 1e14

        await eventually(hashes)
        assert (await ask(miner))["SUMMARY"]

    on_miner(test, clock=lambda: time.monotonic() * 10)


def test_an_outlet_is_no_fault_and_a_fault_does_not_switch_it_on():
    async def test(miner):
        await miner.set_outlet(False)
        await miner.inject(Fault.SLOW)
        await miner.inject(Fault.NONE)
        assert miner.machine.watts_w() == 0.0
        assert await silent(miner, 0.3)
        await miner.set_outlet(True)

        async def answers():
            return not await silent(miner, 0.3)

        await eventually(answers)

    on_miner(test, clock=lambda: time.monotonic() * 10)


def token(salt, command, password, at_s):
    import base64
    import hashlib

    signed = f"{command}{password}{salt}{at_s}".encode()
    return base64.b64encode(hashlib.sha256(signed).digest())[:8].decode()


async def stop_signed(miner, password):
    reader, writer = await asyncio.open_connection(miner.address, 4433)
    salt = (await v3(reader, writer, INFO))["msg"]["salt"]
    at_s, command = int(time.time()), "set.miner.service"
    reply = await v3(
        reader,
        writer,
        {
            "cmd": command,
            "param": "stop",
            "ts": at_s,
            "account": "super",
            "token": token(salt, command, password, at_s),
        },
    )
    writer.close()
    return reply["code"]


def test_a_changed_password_is_refused_until_it_is_changed_back():
    async def test(miner):
        await miner.inject(Fault.WRONG_PASSWORD)
        assert await stop_signed(miner, "super") == -4
        assert not miner.machine.asleep
        await miner.inject(Fault.NONE)
        assert await stop_signed(miner, "super") == 0
        assert miner.machine.asleep

    on_miner(test, "whatsminer")


def test_a_password_of_its_own_is_asked_for_and_never_shown():
    async def test(miner):
        assert await stop_signed(miner, "super") == -4
        assert await stop_signed(miner, "opensesame") == 0

    body = Body(None, 1, time.monotonic, bool, bool, password="opensesame")
    assert "opensesame" not in repr(body)

    on_miner(test, "whatsminer", password="opensesame")


def test_another_identity_is_that_of_the_other_machine():
    async def identity(miner):
        reader, writer = await asyncio.open_connection(miner.address, 4433)
        told = (await v3(reader, writer, INFO))["msg"]
        writer.close()
        return told["network"]["mac"], told["miner"]["miner-sn"]

    async def test(miner):
        own = await identity(miner)
        await miner.inject(Fault.OTHER_IDENTITY)
        stranger = await identity(miner)
        await miner.inject(Fault.OTHER_IDENTITY, identity=8)
        other = await identity(miner)
        assert len({own, stranger, other}) == 3
        twin = EmulatedMiner("t", "whatsminer", own_address(), seed=8, clock=time.monotonic)
        await twin.start()
        assert await identity(twin) == other
        await twin.stop()
        await miner.inject(Fault.NONE)
        assert await identity(miner) == own

    on_miner(test, "whatsminer")


def test_faults_follow_one_another_and_every_port_comes_back():
    async def test(miner):
        for fault in [*Fault, Fault.REFUSE, Fault.OFFLINE, Fault.REFUSE, Fault.POWER_CUT]:
            await miner.inject(fault, seconds=0.1)
        await miner.inject(Fault.NONE)

        async def answers():
            try:
                return bool((await ask(miner))["SUMMARY"])
            except (OSError, TimeoutError, ValueError):
                return False

        await eventually(answers)
        with pytest.raises(ValueError, match="seconds"):
            await miner.inject(Fault.SLOW, seconds=1e9)

    on_miner(test, clock=lambda: time.monotonic() * 10)


def test_a_thousand_connections_at_once_are_all_answered():
    async def test(miner):
        answers = await asyncio.gather(*(raw(miner, within_s=15) for _ in range(1000)))
        assert all(answer.endswith(b"}\x00") for answer in answers)

    on_miner(test)
