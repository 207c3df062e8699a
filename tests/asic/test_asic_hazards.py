"""Hazards of pyasic 0.79 and pyasic-rs 0.8.6 (mining notes, section 2), shown and then avoided.

Each test shows the hazard on the raw library against a machine that answers, and our driver being
safe before the same. Where each of the seventeen is tested:

     1  a failed configuration read erases the pools          test_antminer_driver
     2  stop and resume lose the owner's mode and frequency   test_antminer_driver
     3  a dead machine reads as mining                        test_raw_libraries (LuxOS), breadth
     4  `is_mining` stays true after a stop                   test_raw_libraries
     5  one value that cannot be parsed discards the sample   here, test_asic_breadth
     6  VNish: a power limit is never sent                    the tests of the VNish driver
     7  a Whatsminer on 4433 alone is taken for v2            test_raw_libraries, test_asic_probe
     8  LuxOS: an error leaves thermal tuning off             test_raw_libraries
     9  Braiins OS: one login per concurrent call             the tests of the Braiins driver
    10  `open_api` calls a host on the internet               here
    11  pyasic-rs says paused for a command that was dropped  test_raw_libraries
    12  Avalon: watts become a work level                     here
    13  Braiins OS: a power limit restarts the machine        the tests of the Braiins driver
    14  no overall deadline                                   here
    15  a limit of machines at once that limits nothing       here, test_fleet_scan
    16  flags that say nothing about power limits             here
    17  makers' passwords that are tried unasked              here, test_asic_breadth
"""

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
import time
from contextlib import AsyncExitStack
from dataclasses import fields

import pytest
from tests.ports import own_address, own_net

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicReading, AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.asic.probe import Found, probe
from wattshift_cluster.asic.pyasic_any import BREADTH, AnyDriver
from wattshift_cluster.asic.pyasic_handle import MAKES, miner_for
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.fleet.ranges import parse_ranges
from wattshift_cluster.fleet.scan import Limits, Scan

pyasic = pytest.importorskip("pyasic")


@pytest.fixture(autouse=True)
def _quiet():
    """pyasic logs what goes wrong on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


async def on_ports(stack, address, ports):
    for port, serve in ports.items():

        async def handle(reader, writer, serve=serve):
            try:
                await serve(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        try:
            server = await asyncio.start_server(handle, address, port)
        except PermissionError:
            pytest.skip(f"port {port} needs net.ipv4.ip_unprivileged_port_start")
        stack.callback(server.close)


def spoken(replies, seen):
    async def serve(reader, writer):
        request = json.loads(await reader.read(65536))
        seen.append(request)
        reply = replies.get(request["command"])
        error = {"STATUS": [{"STATUS": "E", "Code": 14, "Msg": "Invalid command"}]}
        writer.write(json.dumps(reply or error).encode() + b"\x00")

    return serve


OK = [{"STATUS": "S", "Code": 0, "Msg": "ASC 0 set OK"}]


def test_hazard_5_one_value_that_cannot_be_parsed_discards_the_sample():
    replies = {
        "version": {"STATUS": OK, "VERSION": [{"BOSminer+": "0.2.0", "API": "3.7"}]},
        "devdetails": {"STATUS": OK, "DEVDETAILS": [{"Model": "Antminer S9"}]},
        "summary": {"STATUS": OK, "SUMMARY": [{"MHS 1m": 13.5e6}]},
        "tunerstatus": {"STATUS": OK, "TUNERSTATUS": 7},
    }

    async def main():
        address = own_address()
        async with AsyncExitStack() as stack:
            await on_ports(stack, address, {4028: spoken(replies, [])})
            theirs = await asyncio.wait_for(pyasic.get_miner(address), 20)
            with pytest.raises(pyasic.APIError, match="Failed to call wattage"):
                await theirs.get_data(include=["hashrate", "wattage"])
            driver = await connect(address, deadline_s=1.0, nameplate_w=1400.0)
            reading = await driver.poll()
            assert reading.hashrate_h_per_s == pytest.approx(13.5e12)
            assert reading.watts_w is None

    asyncio.run(main())


OPEN_API = """
    import asyncio, socket
    asked = []
    def getaddrinfo(host, *rest, **more):
        asked.append(host.decode() if isinstance(host, bytes) else host)
        raise socket.gaierror("no names are looked up in a test")
    socket.getaddrinfo = getaddrinfo
    from pyasic.rpc.btminer import BTMinerRPCAPI
    from wattshift_cluster.asic.probe import Found
    from wattshift_cluster.asic.pyasic_handle import miner_for
    for loaded in (False, True):
        if loaded:
            asyncio.run(miner_for("127.0.0.1", Found("avalon", "unknown", "unknown")))
        try:
            asyncio.run(BTMinerRPCAPI("127.0.0.1").open_api())
        except Exception as error:
            print(type(error).__name__, *asked)
        asked.clear()
"""


def test_hazard_10_open_api_calls_a_host_on_the_internet():
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(OPEN_API)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == ["ConnectError wmt.pyasic.org", "AsicRefused"]


def test_hazard_12_an_avalon_takes_watts_for_a_work_level():
    replies = {
        "version": {"STATUS": OK, "VERSION": [{"PROD": "AvalonMiner 1466", "MAC": "b4a2eb01"}]},
        "devs": {"STATUS": OK, "DEVS": [{"MHS 1m": 150e6}]},
        "estats": {"STATUS": OK, "STATS": [{"MM ID0": "WALLPOWER[3100]"}]},
        "ascset": {"STATUS": OK},
    }
    seen = []

    async def main():
        address = own_address()
        async with AsyncExitStack() as stack:
            await on_ports(stack, address, {4028: spoken(replies, seen)})
            theirs = await asyncio.wait_for(pyasic.get_miner(address), 20)
            for watts_w in (150, 3000):
                assert await theirs.set_power_limit(watts_w) is True
            sent = [one["parameter"] for one in seen if one["command"] == "ascset"]
            assert sent == ["0,worklevel,set,2"] * 2, "150 W and 3,000 W are the same to it"
            seen.clear()
            driver = await connect(address, deadline_s=1.0)
            modes = [point.mode for point in (await driver.identify()).points]
            assert modes == ["sleep", "full"]
            for mode, watts_w in (("limit:2500", 2500), ("full", 2500)):
                with pytest.raises(AsicRefused):
                    await driver.set_point(mode, watts_w)
            assert all(one["command"] != "ascset" for one in seen)

    asyncio.run(main())


def test_hazard_14_a_mute_machine_holds_a_call_without_end(on_miner):
    async def scenario(miner):
        theirs = await asyncio.wait_for(pyasic.get_miner(miner.address), 20)
        driver = await connect(miner.address, deadline_s=0.5)
        await driver.identify()
        await miner.inject(Fault.MUTE)
        pending = asyncio.create_task(theirs.get_data(include=["wattage"]))
        for call in (driver.poll, driver.read, driver.identify, driver.sleep):
            began = time.monotonic()
            with pytest.raises(AsicUnreachable, match="no answer within"):
                await call()
            assert time.monotonic() - began < 2
        assert not pending.done()
        pending.cancel()
        await driver.close()

    on_miner("luxos", scenario)


def test_hazard_15_a_limit_that_limits_nothing():
    prefix, many, limit = own_net(), 40, 5
    now, most = set(), 0

    def mute_at(number):
        async def serve(reader, writer):
            nonlocal most
            if await reader.read(100):
                now.add(number)
                most = max(most, len(now))
            while await reader.read(1000):
                pass
            now.discard(number)

        return serve

    async def main():
        nonlocal most
        addresses = [f"{prefix}.{i}" for i in range(1, many + 1)]
        async with AsyncExitStack() as stack:
            for number, address in enumerate(addresses):
                await on_ports(stack, address, {4028: mute_at(number)})
            factory = pyasic.miners.factory.MinerFactory()
            raw = asyncio.ensure_future(factory.get_multiple_miners(addresses, limit=limit))
            async with asyncio.timeout(30):
                while most < many:  # noqa: ASYNC110 - all of them at once
                    await asyncio.sleep(0.01)
            assert not raw.done()
            left = [task for task in asyncio.all_tasks() if "get_miner" in repr(task)]
            for task in (raw, *left):
                task.cancel()
            await asyncio.gather(raw, *left, return_exceptions=True)
            for _ in range(500):
                if now:
                    await asyncio.sleep(0.01)
            assert not now
            most = 0
            ours = Scan(parse_ranges([f"{prefix}.0/28"]), Limits(limit, 0.3, 0.1))
            seen = [one async for one in ours.sightings()]
            assert len(seen) == 14
            assert 1 <= most <= limit

    asyncio.run(main())


def test_hazard_16_the_flags_do_not_say_who_takes_a_power_limit():
    from pyasic.miners import backends, base

    def flags(backend):
        return tuple(getattr(backend, name) for name in dir(backend) if name[:9] == "supports_")

    def overrides(backend, method):
        return getattr(backend, method) is not getattr(base.MinerProtocol, method)

    avalon, goldshell, stock = backends.AvalonMiner, backends.GoldshellMiner, backends.BMMiner
    assert flags(avalon) == flags(stock) == flags(backends.MaraMiner) == (False,) * 4
    assert overrides(avalon, "set_power_limit")
    assert overrides(backends.MaraMiner, "set_power_limit")
    assert not overrides(stock, "set_power_limit")
    assert goldshell.supports_power_modes
    assert not overrides(goldshell, "set_power_limit")
    for kind, row in BREADTH.items():
        _, speaker = MAKES[kind]
        backend = getattr(backends, speaker)
        if row.sleeps:
            assert overrides(backend, "stop_mining"), kind
            assert overrides(backend, "resume_mining"), kind


def test_hazard_17_makers_passwords_are_filled_in_and_tried_unasked():
    asked = []

    async def digest(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        asked.append(head)
        challenge = 'Digest realm="antMiner Configuration", nonce="1", qop="auth"'
        lines = ["HTTP/1.1 401 no", f"WWW-Authenticate: {challenge}", "Content-Length: 0", "", ""]
        writer.write("\r\n".join(lines).encode())

    async def main():
        address = own_address()
        async with AsyncExitStack() as stack:
            await on_ports(stack, address, {80: digest})
            await asyncio.wait_for(pyasic.get_miner(address), 20)
            assert any('authorization: digest username="root"' in head for head in asked)
            asked.clear()
            assert (await probe(address, deadline_s=1.0)).kind == "antminer"
            assert asked
            assert not any("authorization" in head for head in asked)
            for kind in BREADTH:
                await passwords_of(kind, address)

    async def passwords_of(kind, address):
        found = Found(kind, "unknown", "unknown")
        for credentials, filled in ((None, ""), (Credentials("the owner's"), "the owner's")):
            theirs = await miner_for(address, found)
            web = theirs.web
            driver = made(theirs, found, address, credentials)
            assert web is None or web.pwd == filled
            assert "owner's" not in repr(driver._setup)

    asyncio.run(main())


def made(theirs, found, address, credentials):
    from wattshift_cluster.asic.models import ABILITIES
    from wattshift_cluster.asic.setup import Setup

    return AnyDriver(Setup(address, found, ABILITIES[found.kind], credentials, 1.0), theirs)


def test_hazard_17_the_raw_passwords_are_the_makers():
    from pyasic import settings
    from pyasic.rpc.btminer import BTMinerV3RPCAPI
    from pyasic.web.braiins_os.boser import BOSerWebAPI

    assert BTMinerV3RPCAPI("127.0.0.1").pwd == "super"
    assert "default_bosminer_password" not in type(settings._settings).model_fields
    assert BOSerWebAPI("127.0.0.1").pwd == "root"


def test_a_reading_has_no_word_of_the_machine_about_mining():
    names = {field.name for field in fields(AsicReading)}
    assert "is_mining" not in names
    assert not any("mining" in field for row in BREADTH.values() for field in row.reads)
