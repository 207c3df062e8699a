"""Emulated PDUs beside emulated machines: three protocols, real drivers, and off is really off."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from tests.ports import own_net

from wattshift_cluster.cli.main import main
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.emulate.outlets.plugs import Load, Plug, Plugs
from wattshift_cluster.emulate.outlets.racks import Rack, racks
from wattshift_cluster.emulate.outlets.strip import Strip
from wattshift_cluster.emulate.pdu_process import _run
from wattshift_cluster.outlets.build import build
from wattshift_cluster.outlets.driver import PduRefused

NET = own_net()
WATTSHIFT = (sys.executable, "-c", "from wattshift_cluster.cli.main import main; main()", "emulate")
WAIT_S = 20.0


@contextmanager
def running(*words):
    child = subprocess.Popen(
        [*WATTSHIFT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = child.stdout.readline()
        if not line:
            pytest.fail(child.communicate(timeout=20)[1])
        yield json.loads(line), child
    finally:
        child.terminate()
        child.communicate(timeout=20)


def get(where, path):
    with urllib.request.urlopen(f"http://{where}{path}", timeout=10) as answer:
        return json.load(answer)


def post(where, path, body):
    request = urllib.request.Request(
        f"http://{where}{path}", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def until(holds, within_s=WAIT_S):
    async with asyncio.timeout(within_s):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def rack(tmp_path_factory):
    """Three machines, each on a PDU of its own protocol, and the agent.toml that drives them."""
    folder = tmp_path_factory.mktemp("pdus")
    flags = [f"--machine=luxos@{NET}.{10 + n},{n},full" for n in (1, 2, 3)]
    with running("asic", *flags, "--truth", f"{NET}.1:0") as (machines, _):
        words = ("--truth", machines["truth"], "--protocols", "snmp,modbus,redfish", "--outlets=1")
        places = ("--net", f"{NET}.64/28", "--control", f"{NET}.1:0", "--watchdog", "30s")
        files = ("--secrets", str(folder / "secrets"), "--write", str(folder / "pdus.toml"))
        with running("pdu", *words, *places, *files, "--cut") as (ready, child):
            (folder / "token").write_bytes(b"t" * 32)
            (folder / "token").chmod(0o600)
            asics = "".join(
                f'[[asics]]\nid = "asic-{n}"\naddress = "{NET}.{10 + n}"\nemulated = true\n'
                for n in (1, 2, 3)
            )
            (folder / "agent.toml").write_text(
                f'[agent]\nname = "a"\nlisten = "127.0.0.1:7411"\ntoken_file = "token"\n'
                f'state_dir = "s"\ngate_dir = "g"\n[hashing]\ndevices = "none"\n{asics}'
                + (folder / "pdus.toml").read_text()
            )
            config = load_agent(folder / "agent.toml")
            yield machines["truth"], ready, config, child


def row(truth, machine):
    return next(one for one in get(truth, "/v1/truth")["machines"] if one["id"] == machine)


def test_the_fragment_is_an_agents_configuration(rack):
    _, ready, config, _ = rack
    assert [one["protocol"] for one in ready["pdus"]] == ["snmp", "modbus", "redfish"]
    assert ready["machines"] == 3
    assert [pdu.protocol for pdu in config.pdus] == ["snmp", "modbus", "redfish"]
    assert all(pdu.cut and pdu.emulated for pdu in config.pdus)
    assert config.pdus[1].watchdog.opens_after_s == 30.0
    assert config.pdus[0].community_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [0, 1, 2], ids=["snmp", "modbus", "redfish"])
def test_an_outlets_off_takes_the_machines_power(rack, number):
    truth, _, config, _ = rack
    section = config.pdus[number]
    (outlet,) = section.outlets
    address = (f"{NET}.{11 + number}", 4028)

    async def play():
        driver = build(section)
        try:
            before = (await driver.read([outlet.id]))[outlet.id]
            assert before.on
            assert before.watts_w == pytest.approx(row(truth, outlet.device)["watts_w"], abs=60.0)
            off = await driver.switch(outlet.id, on=False)
            assert off.on is False
            await until(lambda: row(truth, outlet.device)["watts_w"] == 0.0)
            assert row(truth, outlet.device)["outlet"] is False
            assert not await asyncio.to_thread(answers, address), "a dead machine answered"
            await driver.switch(outlet.id, on=True)
            await until(lambda: row(truth, outlet.device)["outlet"] is True)
            await until(lambda: row(truth, outlet.device)["watts_w"] > 0.0)
        finally:
            await driver.close()

    asyncio.run(play())


def answers(address):
    try:
        with socket.create_connection(address, timeout=0.3) as connection:
            connection.settimeout(0.3)
            connection.sendall(b'{"command":"version"}')
            return bool(connection.recv(10))
    except OSError:
        return False


def test_faults_on_demand_and_what_a_liar_is_found_out_by(rack):
    truth, ready, config, _ = rack
    control, section = ready["control"], config.pdus[1]
    (outlet,) = section.outlets
    post(control, "/v1/faults", {"pdu": section.name, "fault": "lie"})

    async def play():
        driver = build(section.model_copy(update={"settle_s": 0.3}))
        try:
            with pytest.raises(PduRefused, match="still on"):
                await driver.switch(outlet.id, on=False)
        finally:
            await driver.close()

    asyncio.run(play())
    told = {one["pdu"]: one for one in get(control, "/v1/pdus")["pdus"]}
    assert told[section.name]["fault"] == "lie"
    assert told[section.name]["outlets"][0]["on"] is True
    assert row(truth, outlet.device)["outlet"] is True
    post(control, "/v1/faults", {"pdu": section.name, "fault": "none"})
    for body, status in (({"pdu": "pdu-9", "fault": "lie"}, 404), ({"fault": "lie"}, 400)):
        with pytest.raises(urllib.error.HTTPError) as wrong:
            post(control, "/v1/faults", body)
        assert wrong.value.code == status


def test_what_cannot_be_is_said(rack, tmp_path):
    truth, _, _, _ = rack

    def failed(*words):
        common = ("--truth", truth, "--secrets", str(tmp_path / "s"))
        return CliRunner().invoke(main, ["emulate", "pdu", *common, *words])

    nobody = failed("--truth", f"{NET}.2:9")
    assert nobody.exit_code == 5
    assert "no emulated machines at" in nobody.stderr
    for words, said in (
        (("--protocols", "ipmi"), "there are snmp, modbus, redfish"),
        (("--family", "abacus"), "there are apc-rpdu2"),
        (("--machines", "north-*"), "fits none of 3"),
        (("--net", "10.0.0.0/24"), "127.0.0.0/8"),
        (("--net", f"{NET}.0/31", "--outlets", "1"), "room for 1 PDUs"),
    ):
        wrong = failed(*words)
        assert wrong.exit_code == 3, wrong.stderr
        assert said in wrong.stderr


def test_a_port_that_is_taken_is_named(rack, capfd):
    _, _, config, _ = rack
    host, port = config.pdus[0].address.split(":")
    load = Load("m", ("127.0.0.1", 1), None, True, 0.0, 3000.0)
    taken = Rack("pdu-1", "snmp", host, int(port), "apc-rpdu2", (load,), "s3cret")
    assert asyncio.run(_run([taken], (f"{NET}.1", 0), None, None)) == 1
    said = capfd.readouterr().err
    assert f"cannot listen on {host}:{port}" in said
    assert "s3cret" not in said


def test_without_write_the_fragment_follows_the_ready_line(rack, tmp_path):
    truth, _, _, _ = rack
    words = ("--truth", truth, "--machines", "asic-2", "--net", f"{NET}.96/28")
    files = ("--secrets", str(tmp_path / "s"), "--control", f"{NET}.1:0")
    with running("pdu", *words, *files) as (_, child):
        lines = []
        while not lines or not lines[-1].startswith("power_on"):
            lines.append(child.stdout.readline())
    (pdu,) = tomllib.loads("".join(lines))["pdus"]
    assert pdu["outlets"][0]["device"] == "asic-2"


def test_the_machines_of_one_feeder_hang_on_pdus_of_theirs():
    loads = [Load(f"m{n}", ("127.0.0.1", 1), f"f{n % 2}", True, 0.0, 3000.0) for n in range(10)]
    made = racks(loads, ["snmp", "modbus"], outlets=3, net=f"{NET}.0/24", family="apc-rpdu2")
    assert [(one.feeder, len(one.loads)) for one in made] == [
        ("f0", 3),
        ("f0", 2),
        ("f1", 3),
        ("f1", 2),
    ]
    assert [one.protocol for one in made] == ["snmp", "modbus", "snmp", "modbus"]
    assert "secret" not in repr(made[0])


def test_when_the_machines_are_gone_their_draw_is_unknown(capfd):
    now = [100.0]
    strip = Strip(["1"], clock=lambda: now[0])
    load = Load("m", (f"{NET}.2", 9), None, True, 3100.0, 3300.0)

    async def play():
        cords = asyncio.create_task(Plugs([Plug(strip, "1", load)], lambda: now[0]).run())
        await asyncio.sleep(0.05)
        first = strip.reported_w("1")
        now[0] += 60.0
        later = strip.reported_w("1")
        strip.command("1", on=False)
        now[0] += 1.0
        cords.cancel()
        await asyncio.gather(cords, return_exceptions=True)
        return first, later, strip.reported_w("1")

    assert asyncio.run(play()) == (3100.0, None, 0.0), "a figure of before stands for nothing"
    assert "emulate: machines at" in capfd.readouterr().err


def test_machines_that_are_off_at_the_start_are_not_switched_on():
    switched = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        switched.extend([head] if head.startswith(b"POST") else [])
        body = json.dumps({"machines": []}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async def play():
        async with await asyncio.start_server(serve, f"{NET}.2", 0) as server:
            where = server.sockets[0].getsockname()
            strip = Strip(["1"], clock=time.monotonic)
            load = Load("m", where, None, False, 0.0, 3300.0)
            cords = asyncio.create_task(Plugs([Plug(strip, "1", load)], time.monotonic).run())
            await asyncio.sleep(0.4)
            cords.cancel()
            await asyncio.gather(cords, return_exceptions=True)
            return strip.on("1")

    assert asyncio.run(play()) is False
    assert switched == []
