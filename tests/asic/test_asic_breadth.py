"""Firmware that only pyasic knows, driven through it against ports that speak as it does.

The stand-ins hold a state of their own and record what arrives, so that a test can tell what was
done from what was said.
"""

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
from tests.ports import own_address

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.asic.pyasic_any import BREADTH
from wattshift_cluster.asic.pyasic_handle import MAKES
from wattshift_cluster.emulate.faults import Fault

OWNERS = Credentials("the owner's")
DEADLINE_S = 1.0


class Rig:
    """One machine: ports, and what came in at them."""

    def __init__(self):
        self.address = own_address()
        self.asleep = False
        self.seen = []
        self.broken = False
        self.ports = {}

    def cgminer(self, answer, port=4028):
        async def serve(reader, writer):
            request = json.loads(await reader.read(65536))
            self.seen.append(request)
            if self.broken:
                writer.write(b"garbage")
                return
            reply = answer(request["command"], str(request.get("parameter", "")))
            writer.write(json.dumps(reply or ERROR).encode() + b"\x00")

        self.ports[port] = serve

    def http(self, answer, port):
        async def serve(reader, writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split("\r\n")[0].split(" ")
            length = next(
                (int(h[15:]) for h in head.lower().split("\r\n") if h.startswith("content-length")),
                0,
            )
            raw = await reader.readexactly(length)
            body = json.loads(raw) if raw else None
            self.seen.append((method, path, body))
            status, reply = answer(method, urlsplit(path).path, body)
            payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(payload)}", "", ""]
            writer.write("\r\n".join(lines).encode() + payload)

        self.ports[port] = serve


ERROR = {"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]}
DONE = {"STATUS": [{"STATUS": "S", "Code": 0, "Msg": "success"}]}


def avalon():
    rig = Rig()

    def answer(command, parameter):
        if command == "version":
            row = {"PROD": "AvalonMiner 1466", "MODEL": "1466", "MAC": "b4a2eb010203"}
            return {"STATUS": DONE["STATUS"], "VERSION": [row]}
        if command == "devs":
            mhs = 0.0 if rig.asleep else 150e6
            return {"STATUS": DONE["STATUS"], "DEVS": [{"MHS 1m": mhs}]}
        if command == "estats":
            watts = 40 if rig.asleep else 3111
            mm = f"Temp[33] WALLPOWER[{watts}] MPO[3300] Led[0]"
            return {"STATUS": DONE["STATUS"], "STATS": [{"MM ID0": mm}]}
        if command == "ascset" and parameter.split(",")[1] in ("softoff", "softon"):
            rig.asleep = ",softoff," in parameter
            return DONE
        return None

    rig.cgminer(answer)
    return rig


def bosminer():
    rig = Rig()

    def answer(command, parameter):
        rows = {
            "version": ("VERSION", {"BOSminer+": "0.2.0-36c56a9", "API": "3.7"}),
            "devdetails": ("DEVDETAILS", {"Model": "Antminer S19j Pro"}),
            "summary": ("SUMMARY", {"MHS 1m": 0.0 if rig.asleep else 100e6}),
            "tunerstatus": (
                "TUNERSTATUS",
                {"ApproximateMinerPowerConsumption": 30 if rig.asleep else 2900},
            ),
        }
        if command in rows:
            key, row = rows[command]
            return {"STATUS": DONE["STATUS"], key: [row]}
        if command in ("pause", "resume"):
            rig.asleep = command == "pause"
            return {"STATUS": DONE["STATUS"], command.upper(): [True]}
        return None

    rig.cgminer(answer)
    return rig


def epic():
    rig = Rig()

    def answer(method, path, body):
        if path == "/summary":
            watts, mhs = (30.0, 0.0) if rig.asleep else (3250.0, 70e6)
            boards = [{"Index": i, "Hashrate": [mhs, 98.0]} for i in range(3)]
            return 200, {"Power Supply Stats": {"Input Power": watts}, "HBs": boards}
        if path == "/capabilities":
            return 200, {"Model": "Antminer S21"}
        if path == "/network":
            return 200, {"dhcp": {"mac_address": "62:f7:5e:0a:0b:0c"}}
        if path == "/miner" and method == "POST":
            if body["password"] != OWNERS.password:
                return 200, {"success": False, "error": "bad password"}
            rig.asleep = body["param"] == "Stop"
            return 200, {"success": True}
        return 404, {}

    rig.http(answer, 4028)
    rig.http(lambda *_: (200, b"<title>Miner Web Dashboard</title>"), 80)
    return rig


def auradine():
    rig = Rig()

    def spoken(command, parameter):
        rows = {
            "version": ("VERSION", {"GCMiner": "2.1.0", "API": "1"}),
            "devdetails": ("DEVDETAILS", {"Model": "AT2880"}),
            "summary": ("SUMMARY", {"MHS 5s": 0.0 if rig.asleep else 240e6}),
        }
        if command in rows:
            key, row = rows[command]
            return {"STATUS": DONE["STATUS"], key: [row]}
        return None

    def answer(method, path, body):
        ok = {"STATUS": [{"STATUS": "S"}]}
        if path == "/token":
            if body["password"] != OWNERS.password:
                return 401, {"STATUS": [{"STATUS": "E", "Msg": "no"}]}
            return 200, {**ok, "Token": [{"Token": "t"}]}
        if path == "/psu":
            return 200, {**ok, "PSU": [{"PowerIn": "30W" if rig.asleep else "3870.5W"}]}
        if path == "/ipreport":
            return 200, {**ok, "IPReport": [{"mac": "62:f7:5e:01:01:01", "version": "1"}]}
        if path == "/mode" and method == "POST":
            rig.asleep = body["sleep"] == "on"
            return 200, ok
        return 404, {}

    rig.cgminer(spoken)
    rig.http(answer, 8080)
    return rig


def goldshell():
    rig = Rig()

    def answer(command, parameter):
        rows = {
            "version": ("VERSION", {"BFGMiner": "5.5", "API": "3.3", "Type": "Goldshell CK5"}),
            "summary": ("SUMMARY", {"MHS 20s": 12e6}),
        }
        if command in rows:
            key, row = rows[command]
            return {"STATUS": DONE["STATUS"], key: [row]}
        return None

    rig.cgminer(answer)
    rig.http(lambda *_: (200, b"<title>x</title>cloud-box"), 80)
    return rig


def marathon():
    rig = Rig()
    row = {"VERSION": [{"Type": "Antminer S19 (kaonsu)", "API": "3.1"}]}
    rig.cgminer(lambda command, _: row if command == "version" else None)
    rig.http(lambda *_: (401, b""), 80)
    return rig


def on_rig(rig, test):
    async def main():
        async with AsyncExitStack() as stack:
            for port, serve in rig.ports.items():

                async def handle(reader, writer, serve=serve):
                    try:
                        await serve(reader, writer)
                    except (OSError, asyncio.IncompleteReadError, ValueError):
                        pass
                    finally:
                        writer.close()

                try:
                    server = await asyncio.start_server(handle, rig.address, port)
                except PermissionError:
                    pytest.skip(f"port {port} needs net.ipv4.ip_unprivileged_port_start")
                stack.callback(server.close)
            return await asyncio.wait_for(test(rig), 60)

    return asyncio.run(main())


async def driver_of(rig, **options):
    options = {"credentials": OWNERS, "deadline_s": DEADLINE_S, "nameplate_w": 4000.0} | options
    return await connect(rig.address, **options)


@pytest.mark.parametrize(
    ("make", "model", "watts_w", "hashes", "mac"),
    [
        (avalon, "AvalonMiner 1466", 3111, 150e12, "B4:A2:EB:01:02:03"),
        (bosminer, "Antminer S19j Pro", 2900, 100e12, None),
        (epic, "Antminer S21", 3250, 210e12, "62:F7:5E:0A:0B:0C"),
        (auradine, "AT2880", 3870, 240e12, "62:F7:5E:01:01:01"),
    ],
)
def test_it_is_read_put_to_sleep_and_woken(make, model, watts_w, hashes, mac):
    async def scenario(rig):
        driver = await driver_of(rig)
        identity = await driver.identify()
        assert (identity.model, identity.mac, identity.algorithm) == (model, mac, "sha256d")
        assert [point.mode for point in identity.points] == ["sleep", "full"]
        assert identity.safe_w == identity.points[0].watts_w < 100
        assert identity.nameplate_w == identity.points[1].watts_w == 4000
        full = await driver.read()
        assert (full.watts_w, full.hashrate_h_per_s) == (watts_w, pytest.approx(hashes))
        await driver.sleep()
        await driver.sleep()
        assert rig.asleep
        asleep = await driver.poll()
        assert asleep.watts_w <= 40
        assert asleep.hashrate_h_per_s == 0.0
        with pytest.raises(AsicRefused, match="lease allows 2000 W"):
            await driver.set_point("full", 2000)
        with pytest.raises(AsicRefused, match="no such point"):
            await driver.set_point("limit:2000", 2000)
        assert rig.asleep
        await driver.set_point("full", 4000)
        assert not rig.asleep

    on_rig(make(), scenario)


@pytest.mark.parametrize("make", [avalon, bosminer, epic, auradine, goldshell, marathon])
def test_nothing_is_asked_that_carries_a_password_or_a_pool(make):
    """Without the owner's word: no login, no maker's password, and never a configuration."""

    async def scenario(rig):
        try:
            driver = await driver_of(rig, credentials=None)
            await driver.identify()
            await driver.read()
        except AsicRefused:
            assert make is marathon
        said = json.dumps(rig.seen).lower()
        for word in ("password", "passwd", "pwd", "login", "token", "auth", "pool", "config"):
            assert word not in said, word
        assert not any(one[0] == "POST" for one in rig.seen if isinstance(one, tuple))

    on_rig(make(), scenario)


@pytest.mark.parametrize("make", [epic, auradine])
def test_commands_that_want_a_password_are_refused_without_one(make):
    async def scenario(rig):
        driver = await driver_of(rig, credentials=None)
        identity = await driver.identify()
        assert [point.mode for point in identity.points] == ["as-found"]
        assert identity.safe_w == identity.nameplate_w
        for command in (driver.sleep, driver.wake):
            with pytest.raises(AsicRefused, match="no password"):
                await command()
        wrong = await driver_of(rig, credentials=Credentials("wrong"))
        with pytest.raises((AsicRefused, AsicUnreachable)) as refused:
            await wrong.sleep()
        assert "wrong" not in str(refused.value)
        assert not rig.asleep

    on_rig(make(), scenario)


def test_what_is_not_reported_stays_unknown():
    async def scenario(rig):
        reading = await (await driver_of(rig, credentials=None)).read()
        assert reading.watts_w is None
        assert reading.hashrate_h_per_s is not None

    on_rig(auradine(), scenario)
    on_rig(goldshell(), scenario)


@pytest.mark.parametrize("make", [goldshell, marathon])
def test_what_cannot_be_put_to_sleep_safely_is_refused(make):
    async def scenario(rig):
        driver = await driver_of(rig)
        before = len(rig.seen)
        for command in (driver.sleep, driver.wake):
            with pytest.raises(AsicRefused, match="pyasic would"):
                await command()
        assert len(rig.seen) == before, "it was asked all the same"

    on_rig(make(), scenario)


def test_a_model_that_nobody_rates_needs_its_owner_s_nameplate():
    async def scenario(rig):
        driver = await driver_of(rig, nameplate_w=None)
        with pytest.raises(AsicRefused, match="no rating of a AT2880"):
            await driver.identify()

    on_rig(auradine(), scenario)


@pytest.mark.parametrize("make", [avalon, bosminer, epic, auradine])
def test_a_machine_that_died_is_unreachable_and_not_at_zero(make):
    async def scenario(rig):
        driver = await driver_of(rig)
        await driver.identify()
        return driver

    async def dead():
        for call in (driver.poll, driver.read, driver.identify, driver.sleep, driver.wake):
            with pytest.raises(AsicUnreachable, match=r"refused|failed"):
                await call()

    driver = on_rig(make(), scenario)
    asyncio.run(dead())


@pytest.mark.parametrize("make", [avalon, bosminer, epic, auradine])
def test_garbage_and_silence_cost_a_deadline(make):
    async def scenario(rig):
        driver = await driver_of(rig, deadline_s=0.4)
        await driver.identify()
        return driver

    rig = make()
    driver = on_rig(rig, scenario)

    async def junk(reader, writer):
        await reader.read(1000)
        writer.write(b"\x00junk{" * 300_000)

    async def mute(reader, writer):
        await asyncio.sleep(20)

    async def asked(_):
        for call in (driver.poll, driver.sleep):
            began = time.monotonic()
            # pyasic says False alike to what was refused and to what it could not read.
            with pytest.raises((AsicUnreachable, AsicRefused)):
                await call()
            assert time.monotonic() - began < 2

    for serve in (junk, mute):
        rig.ports = dict.fromkeys(rig.ports, serve)
        on_rig(rig, asked)


def test_one_value_that_cannot_be_parsed_does_not_cost_the_others():
    async def scenario(rig):
        driver = await driver_of(rig)
        reading = await driver.poll()
        assert reading.watts_w is None
        assert reading.hashrate_h_per_s == pytest.approx(100e12)

    rig = bosminer()
    plain = rig.ports[4028]

    async def odd(reader, writer):
        class Caught:
            def write(self, data):
                writer.write(data.replace(b'[{"ApproximateMinerPowerConsumption": 2900}]', b"7"))

        await plain(reader, Caught())

    rig.ports[4028] = odd
    on_rig(rig, scenario)


def test_watts_that_no_machine_can_draw_are_unknown():
    async def scenario(rig):
        assert (await (await driver_of(rig)).poll()).watts_w is None

    rig = auradine()
    plain = rig.ports[8080]

    async def huge(reader, writer):
        class Caught:
            def write(self, data):
                writer.write(data.replace(b"3870.5W", b"9870000"))

        await plain(reader, Caught())

    rig.ports[8080] = huge
    on_rig(rig, scenario)


def test_a_longer_or_packed_answer_is_not_read():
    import gzip

    async def scenario(rig):
        driver = await driver_of(rig)
        with pytest.raises(AsicUnreachable):
            await driver.poll()

    for headers, body in (
        ([], b"[" + b"1," * 700_000 + b"1]"),
        (["Content-Encoding: gzip"], gzip.compress(json.dumps({"HBs": []}).encode())),
    ):
        rig = epic()

        async def answer(reader, writer, headers=headers, body=body):
            await reader.readuntil(b"\r\n\r\n")
            lines = ["HTTP/1.1 200 x", f"Content-Length: {len(body)}", *headers, "", ""]
            writer.write("\r\n".join(lines).encode() + body)

        rig.ports[4028] = answer
        on_rig(rig, scenario)


def test_a_timeout_leaves_no_connection_behind():
    """pyasic's own exchange leaves it open until the machine hangs up."""

    async def scenario(rig):
        driver = await driver_of(rig, deadline_s=0.1)
        gone = []

        async def mute(reader, writer):
            await reader.read(1000)
            gone.append(await asyncio.wait_for(reader.read(1), 10))

        rig.serve = mute
        for _ in range(5):
            with pytest.raises(AsicUnreachable):
                await driver.poll()
        for _ in range(100):
            if len(gone) == 5:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"only {len(gone)} of 5 connections were closed")

    rig = avalon()
    rig.serve = rig.ports[4028]
    rig.ports[4028] = lambda reader, writer: rig.serve(reader, writer)
    on_rig(rig, scenario)


def test_the_tables_speak_of_the_same_makes():
    assert set(BREADTH) == set(MAKES)
    unsafe = {"config", "pools", "is_mining", "errors", "fault_light"}
    for row in BREADTH.values():
        assert not unsafe & {*row.reads, *row.with_login}
        assert row.sleeps == (not row.why_not)


# The second library, on the emulated machines


@pytest.mark.parametrize(("kind", "password"), [("luxos", None), ("whatsminer", "super")])
def test_pyasic_rs_reads_and_drives_on_request(on_miner, kind, password):
    pytest.importorskip("pyasic_rs")
    owners = Credentials(password) if password else None

    async def scenario(miner):
        driver = await connect(
            miner.address, credentials=owners, deadline_s=2.0, prefer="pyasic_rs"
        )
        assert type(driver).__name__ == "RsDriver"
        native = await connect(miner.address, deadline_s=2.0)
        known, ours = await driver.identify(), await native.identify()
        assert (known.model, known.mac, known.algorithm) == (ours.model, ours.mac, "sha256d")
        assert [point.mode for point in known.points] == ["sleep", "full"]
        reading = await driver.read()
        assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.02)
        await driver.sleep()
        assert miner.machine.asleep
        with pytest.raises(AsicRefused, match="lease allows 900 W"):
            await driver.set_point("full", 900)
        assert miner.machine.asleep
        await driver.set_point("full", known.nameplate_w)
        assert not miner.machine.asleep
        await miner.inject(Fault.REFUSE)
        for call in (driver.poll, driver.identify, driver.sleep):
            with pytest.raises(AsicUnreachable, match=r"refused|failed"):
                await call()
        await native.close()

    on_miner(kind, scenario, full=True)


def test_pyasic_rs_sends_no_command_without_the_owner_s_password(on_miner):
    pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        driver = await connect(miner.address, deadline_s=2.0, prefer="pyasic_rs")
        assert [point.mode for point in (await driver.identify()).points] == ["as-found"]
        for command in (driver.sleep, driver.wake):
            with pytest.raises(AsicRefused, match="no password"):
                await command()
        assert not miner.machine.asleep
        wrong = await connect(
            miner.address, credentials=Credentials("no"), deadline_s=2.0, prefer="pyasic_rs"
        )
        with pytest.raises((AsicRefused, AsicUnreachable)):
            await wrong.sleep()
        assert not miner.machine.asleep

    on_miner("whatsminer", scenario, full=True)


def test_pyasic_rs_is_held_to_the_deadline(on_miner):
    pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        driver = await connect(miner.address, deadline_s=0.5, prefer="pyasic_rs")
        await miner.inject(Fault.MUTE)
        for call in (driver.poll, driver.sleep):
            began = time.monotonic()
            with pytest.raises(AsicUnreachable, match="no answer within"):
                await call()
            assert time.monotonic() - began < 3

    on_miner("luxos", scenario)


def test_pyasic_rs_is_not_given_a_machine_whose_maker_s_password_it_would_try():
    async def scenario(rig):
        with pytest.raises(AsicRefused, match="not used for a goldshell"):
            await driver_of(rig, prefer="pyasic_rs")

    on_rig(goldshell(), scenario)


@pytest.mark.parametrize(
    ("missing", "said"),
    [(["pyasic"], "pyasic-rs found no machine"), (["pyasic", "pyasic_rs"], "'wattshift[asic]'")],
)
def test_what_is_installed_decides_which_library_is_asked(missing, said):
    """In a process of its own, where a library is not to be found; nothing is at the address."""
    pytest.importorskip("pyasic_rs")
    code = f"""
        import asyncio, sys
        for name in {missing!r}:
            sys.modules[name] = None
        from wattshift_cluster.asic.connect import driver_for
        from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
        from wattshift_cluster.asic.probe import Found
        try:
            asyncio.run(driver_for("127.34.0.1", Found("bosminer", "Antminer S9", "1")))
        except (AsicRefused, AsicUnreachable) as why:
            print(why)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert said in ran.stdout
