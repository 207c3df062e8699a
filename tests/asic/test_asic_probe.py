"""Identification: real sockets that say what each firmware says, or nonsense, or nothing."""

import asyncio
import gzip
import json
import struct
import time
from contextlib import AsyncExitStack

import pytest
from tests.ports import own_address

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.asic.kinds import KINDS
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import NAMES, Found, probe
from wattshift_cluster.emulate.kinds import KINDS as EMULATED

DEADLINE_S = 0.6
LUX = {"VERSION": [{"Type": "Antminer S21", "LUXminer": "2025.4.8-57b", "API": "3.7"}]}
STOCK = {"VERSION": [{"Type": "Antminer S21", "Miner": "uart_trans.1.3", "API": "3.1"}]}
BTMINER = {"STATUS": [{"Description": "btminer"}], "VERSION": [{"API": "2.0.5"}]}
INFO = {
    "code": 0,
    "msg": {"miner": {"type": "M60S_VK40"}, "system": {"fwversion": "20251209.16.Rel2"}},
}


def speaks(replies):
    """A cgminer port: JSON in, the reply of that command with a NUL out."""

    async def serve(reader, writer):
        command = json.loads(await reader.read(4096))["command"]
        reply = replies.get(command, {"STATUS": [{"STATUS": "E", "Code": 14}]})
        writer.write(json.dumps(reply).encode() + b"\x00")

    return serve


def framed(reply):
    async def serve(reader, writer):
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        await reader.readexactly(length)
        body = json.dumps(reply).encode()
        writer.write(struct.pack("<I", len(body)) + body)

    return serve


def page(body=b"", *, status="200 OK", headers=(), keep=False):
    async def serve(reader, writer):
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET / HTTP/1.1\r\n")
        assert b"authorization" not in asked.lower()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        if keep:
            await writer.drain()
            await asyncio.sleep(30)

    return serve


def realm(name):
    return page(
        status="401 Unauthorized", headers=(f'WWW-Authenticate: Digest realm="{name}", nonce="1"',)
    )


async def mute(reader, writer):
    await asyncio.sleep(30)


def says(payload, *, again=1):
    async def serve(reader, writer):
        await reader.read(4096)
        for _ in range(again):
            writer.write(payload)
            await writer.drain()

    return serve


def closing(serve):
    async def handle(reader, writer):
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    return handle


def on_ports(test, ports, *, deadline_s=DEADLINE_S):
    """Run a probe (or another question) against a machine that serves those ports."""

    async def main():
        address = own_address()
        async with AsyncExitStack() as stack:
            for port, serve in ports.items():
                try:
                    server = await asyncio.start_server(closing(serve), address, port)
                except PermissionError:
                    pytest.skip(f"port {port} needs net.ipv4.ip_unprivileged_port_start")
                stack.callback(server.close)
            return await asyncio.wait_for(test(address), 30)

    return asyncio.run(main())


def found_at(ports, **options):
    return on_ports(lambda address: probe(address, deadline_s=DEADLINE_S), ports, **options)


@pytest.mark.parametrize(
    ("ports", "kind", "model"),
    [
        ({4028: speaks({"version": LUX})}, "luxos", "Antminer S21"),
        ({4433: framed(INFO)}, "whatsminer", "M60S_VK40"),
        ({4433: framed(INFO), 4028: speaks({"version": BTMINER})}, "whatsminer", "M60S_VK40"),
        (
            {
                4028: speaks(
                    {
                        "version": BTMINER,
                        "devdetails": {"DEVDETAILS": [{"Driver": "bitmicro", "Model": "M50SVH30"}]},
                        "get_version": {
                            "Code": 131,
                            "Msg": {"api_ver": "2.0.5", "fw_ver": "20230911.12.Rel"},
                        },
                    }
                )
            },
            "whatsminer_v2",
            "M50SVH30",
        ),
        ({80: realm("antMiner Configuration")}, "antminer", "unknown"),
        (
            {80: realm("antMiner Configuration"), 4028: speaks({"version": STOCK})},
            "antminer",
            "Antminer S21",
        ),
        ({4028: speaks({"version": STOCK})}, "antminer", "Antminer S21"),
        (
            {
                4028: speaks(
                    {
                        "version": {"VERSION": [{"API": "3.7", "BOSer": "boser-openwrt 0.1.0"}]},
                        "devdetails": {"DEVDETAILS": [{"Model": "Antminer S21"}]},
                    }
                )
            },
            "braiins",
            "Antminer S21",
        ),
        (
            {4028: speaks({"version": {"VERSION": [{"API": "3.7", "BOSminer+": "0.2.0-ab"}]}})},
            "bosminer",
            "unknown",
        ),
        (
            {
                80: page(b"<title>Braiins OS</title>"),
                4028: speaks({"devdetails": {"DEVDETAILS": [{"Model": "Antminer S21"}]}}),
            },
            "braiins",
            "Antminer S21",
        ),
        (
            {80: page(b"<title>AnthillOS</title>"), 4028: speaks({"version": STOCK})},
            "vnish",
            "Antminer S21",
        ),
        ({80: page(b"<title>AxeOS</title>")}, "bitaxe", "unknown"),
        (
            {80: page(gzip.compress(b"<title>AxeOS"), headers=("Content-Encoding: gzip",))},
            "bitaxe",
            "unknown",
        ),
        ({80: page(b"<title>Miner Web Dashboard</title>"), 4028: page()}, "epic", "unknown"),
        (
            {4028: speaks({"version": {"VERSION": [{"PROD": "AvalonMiner 1466", "MAC": "b4"}]}})},
            "avalon",
            "AvalonMiner 1466",
        ),
        (
            {
                4028: speaks(
                    {
                        "version": {"VERSION": [{"GCMiner": "2.1", "FluxOS": "x"}]},
                        "devdetails": {"DEVDETAILS": [{"Model": "AT2880"}]},
                    }
                )
            },
            "auradine",
            "AT2880",
        ),
        (
            {
                80: realm("antMiner Configuration"),
                4028: speaks({"version": {"VERSION": [{"Type": "kaonsu", "API": "3.1"}]}}),
            },
            "marathon",
            "kaonsu",
        ),
        ({4028: speaks({"version": {"VERSION": [{"BFGMiner": "5"}]}})}, "goldshell", "unknown"),
        ({80: realm("blackMiner Configuration")}, "hammer", "unknown"),
    ],
)
def test_each_firmware_is_told_by_what_it_says(ports, kind, model):
    found = found_at(ports)
    assert (found.kind, found.model) == (kind, model)
    assert kind in NAMES


@pytest.mark.parametrize("kind", EMULATED)
def test_the_emulated_machines_are_told_apart(on_miner, kind):
    async def scenario(miner):
        return await probe(miner.address, deadline_s=2.0)

    try:
        found = on_miner(kind, scenario)
    except PermissionError as denied:
        pytest.skip(f"{kind} needs a port below 1024: {denied}")
    # A row may be an older version of a firmware: "bitaxe_2_9".
    named = max((name for name in NAMES if kind.startswith(name)), key=len)
    assert found.kind == named


def test_every_kind_with_a_driver_has_a_name_and_an_ability():
    assert set(KINDS) <= set(NAMES)
    assert set(KINDS) <= set(ABILITIES)


def test_the_answer_of_one_port_is_not_kept_waiting_by_another():
    began = time.monotonic()
    found = on_ports(
        lambda address: probe(address, deadline_s=20.0),
        {4028: speaks({"version": LUX}), 80: mute, 4433: mute},
    )
    assert found == Found("luxos", "Antminer S21", "2025.4.8-57b")
    assert time.monotonic() - began < 5


def test_a_page_whose_connection_is_kept_is_not_waited_for():
    began = time.monotonic()
    found = on_ports(
        lambda address: probe(address, deadline_s=20.0),
        {80: page(b"<title>AnthillOS</title>", keep=True)},
    )
    assert found.kind == "vnish"
    assert time.monotonic() - began < 5


FLOOD = b"A" * 65536
NONSENSE = {
    "mute": mute,
    "garbage": says(b"\x00\xff\x17garbage"),
    "nothing": says(b""),
    "half": says(b'{"VERSION": [{"Type": "Ant'),
    "flood": says(FLOOD, again=200),
    "a flood of brackets": says(b"[" * 300_000 + b"\x00"),
    "no object": says(b"[1, 2]\x00"),
    "announces gigabytes": says(b"\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_on_every_port_costs_one_deadline_and_one_reason(name):
    async def ask(address):
        began = time.monotonic()
        with pytest.raises(AsicUnreachable) as raised:
            await probe(address, deadline_s=DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S + 1.5
        return raised.value

    fault = on_ports(ask, dict.fromkeys((80, 4028, 4433), NONSENSE[name]))
    assert not isinstance(fault.__cause__, ConnectionRefusedError)
    assert len(str(fault)) < 200


def test_an_endless_page_is_read_to_its_limit_only():
    sent = 0

    async def endless(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n<title>AxeOS</title>")
        while True:
            writer.write(FLOOD)
            await writer.drain()
            sent += len(FLOOD)

    assert found_at({80: endless}).kind == "bitaxe"
    # What the sockets of both ends buffer is lost on top of the 64 KiB that are read.
    assert sent < 8 * 1024 * 1024


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize("port", [80, 4433])
def test_nonsense_on_one_port_hides_no_machine_behind_another(name, port):
    assert found_at({4028: speaks({"version": LUX}), port: NONSENSE[name]}).kind == "luxos"


@pytest.mark.parametrize(
    "row", [{"Type": 7}, {"Type": ["LUXminer"]}, {"Type": None}, "LUXminer", 3, [], {"": {}}]
)
def test_wrong_types_are_no_machine_and_no_crash(row):
    with pytest.raises((AsicRefused, AsicUnreachable)):
        found_at(
            {
                4028: speaks({"version": {"VERSION": [row]}, "devdetails": {"DEVDETAILS": row}}),
                4433: framed({"code": 0, "msg": {"miner": row, "system": row}}),
            }
        )


def test_what_answers_but_is_not_known_is_refused_and_silence_is_unreachable():
    unknown = {"VERSION": [{"Type": "Tumbler\n9000", "API": "1"}]}
    with pytest.raises(AsicRefused, match=r"this firmware \(Tumbler 9000\)"):
        found_at({4028: speaks({"version": unknown})})
    with pytest.raises(AsicRefused, match=r"this web server \(my printer\)"):
        found_at({80: page(b"<html><title>My printer</title>")})
    with pytest.raises(AsicUnreachable) as closed:
        found_at({})
    assert isinstance(closed.value.__cause__, ConnectionRefusedError)


def test_a_known_firmware_without_a_driver_is_named():
    with pytest.raises(AsicRefused, match=r"no driver for Hammer or VolcMiner"):
        on_ports(
            lambda address: connect(address, deadline_s=DEADLINE_S),
            {80: realm("blackMiner Configuration")},
        )


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"Code": 131, "Msg": {"api_ver": "3.0.2", "fw_ver": "20251209"}}, None),
        ({"Code": 131, "Msg": {"api_ver": "2.0.5", "fw_ver": "20230911"}}, "whatsminer_v2"),
        ({"Code": 14, "Msg": "invalid cmd"}, None),
    ],
)
def test_a_v3_whatsminer_whose_port_hangs_is_not_taken_for_a_v2(told, kind):
    ports = {4028: speaks({"version": BTMINER, "get_version": told}), 4433: mute}
    if kind is not None:
        assert found_at(ports).kind == kind
        return
    with pytest.raises(AsicUnreachable, match=r"get\.device\.info"):
        found_at(ports)


def test_a_machine_that_hides_its_page_is_still_an_antminer_and_a_slow_page_is_waited_for():
    assert found_at({4028: speaks({"version": STOCK}), 80: mute}).kind == "antminer"

    async def slow(reader, writer):
        await asyncio.sleep(DEADLINE_S / 3)
        await page(b"AnthillOS")(reader, writer)

    assert found_at({4028: speaks({"version": STOCK}), 80: slow}).kind == "vnish"
