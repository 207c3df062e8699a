"""The stock Antminer: its configuration is changed safely or not at all; pyasic for comparison.

Pools are compared with those of the emulated machine, which does to a write what the firmware's own
script does.
"""

import asyncio
import contextlib
import json
import time

import pytest
from tests.asic.confirm import confirmed
from tests.ports import own_address

from wattshift_cluster.asic.antminer import AntminerDriver
from wattshift_cluster.asic.antminer_conf import Doubtful, check
from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.asic.http import AsicUnauthorised
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import Found
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.emulate.antminer import RESTART_S, Antminer
from wattshift_cluster.emulate.antminer_conf import fresh_conf
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.http import HttpResponse
from wattshift_cluster.emulate.listener import EmulatedMiner
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import S21

SPEED = 100.0
WAIT_S = (RESTART_S + 12.0) / SPEED
"""Real seconds after which the accelerated machine has restarted and settled."""

SECRET = "hunter2"
OWNERS = Credentials("root")


def clock():
    return time.monotonic() * SPEED


@contextlib.asynccontextmanager
async def machine_of(firmware_class=Antminer):
    """A machine whose firmware the test can reach into, with its address."""
    machine = Machine("rig", S21, seed=7, clock=clock, full=True)
    firmware = firmware_class(Body(machine, 7, clock, ignoring=bool, blank=bool))
    firmware.machine = machine
    where, tasks, servers = own_address(), set(), []

    def serving(wire):
        async def serve(reader, writer):
            tasks.add(asyncio.current_task())
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.CancelledError):
                await wire(reader, writer)
            writer.close()

        return serve

    try:
        for port, wire in firmware.wires().items():
            servers.append(await asyncio.start_server(serving(wire), where, port))
    except PermissionError:
        pytest.skip("port 80 needs a privilege here")
    try:
        yield where, firmware
    finally:
        for server in servers:
            server.close()
        for task in tasks:
            task.cancel()


def driver_at(where, *, credentials=OWNERS, model="Antminer S21", nameplate_w=None):
    found = Found("antminer", model, "1.0")
    ability = ABILITIES["antminer"]
    return AntminerDriver(Setup(where, found, ability, credentials, 2.0, nameplate_w=nameplate_w))


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def pyasic_at(where):
    pytest.importorskip("pyasic")
    from pyasic.miners.factory import MINER_CLASSES, MinerTypes

    miner = MINER_CLASSES[MinerTypes.ANTMINER]["ANTMINER S21"](where)
    miner.web.pwd = "root"
    return miner


def pools(firmware):
    return [dict(pool) for pool in firmware.conf["pools"]]


def test_it_is_found_identified_and_read():
    async def main():
        miner = EmulatedMiner("rig", "antminer", own_address(), seed=7, clock=clock, full=True)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 needs a privilege here")
        try:
            driver = await connect(miner.address, credentials=OWNERS, deadline_s=1.0)
            identity = await driver.identify()
            await driver.prepare()
            polled, read = await driver.poll(), await driver.read()
            await driver.close()
            await miner.inject(Fault.BLANK)
            blank = await driver.poll(), await driver.read()
            await miner.inject(Fault.MUTE)
            with pytest.raises(AsicUnreachable, match="no answer within"):
                await driver.poll()
            return identity, polled, read, blank, miner.machine.hashrate_h_per_s()
        finally:
            await driver.close()
            await miner.stop()

    identity, polled, read, blank, true_h_per_s = run(main())
    assert (identity.model, identity.nameplate_w) == ("Antminer S21", 3500)
    assert identity.mac.startswith("02:")
    assert identity.mac == identity.mac.upper()
    assert identity.serial.startswith("EMULATED")
    assert [p.mode for p in identity.points] == ["sleep", "normal"]
    assert identity.points[0].watts_w == identity.safe_w == 75
    assert identity.points[1].hashrate_h_per_s == 200e12
    for reading in (polled, read):
        assert reading.watts_w is None, "it reports none, which is not zero"
        assert reading.hashrate_h_per_s == pytest.approx(true_h_per_s, rel=0.02)
        assert not confirmed(reading, identity.points[1], 0.05)
    assert read.mode == "normal"
    assert 60 < read.temperature_c < 90
    assert [reading.hashrate_h_per_s for reading in blank] == [None, None]


def test_a_model_that_nobody_rates_is_refused():
    async def main():
        async with machine_of() as (where, _):
            unknown = driver_at(where, model="Antminer X99", credentials=None)
            with pytest.raises(AsicRefused, match="does not rate a Antminer X99"):
                await unknown.identify()
            told = driver_at(where, model="Antminer X99", credentials=None, nameplate_w=4000.0)
            return await told.identify()

    identity = run(main())
    assert identity.nameplate_w == 4000.0
    assert identity.points[1].hashrate_h_per_s == 200e12, "the machine names its own"


def test_without_a_password_it_is_read_and_never_commanded():
    async def main():
        async with machine_of() as (where, firmware):
            driver = driver_at(where, credentials=None)
            assert (await driver.identify()).mac is None
            await driver.prepare()
            reading = await driver.read()
            assert reading.hashrate_h_per_s == pytest.approx(200e12, rel=0.06)
            assert reading.temperature_c is not None
            for command in (driver.sleep(), driver.wake(), driver.set_point("normal", 3500.0)):
                with pytest.raises(AsicRefused, match="no password"):
                    await command
            wrong = driver_at(where, credentials=Credentials(SECRET))
            for call in (wrong.sleep(), wrong.identify(), wrong.prepare()):
                with pytest.raises(AsicUnauthorised) as refused:
                    await call
                assert SECRET not in str(refused.value)
            assert (await wrong.poll()).hashrate_h_per_s is not None
            assert firmware.writes == 0

    run(main())


def test_sleep_and_wake_change_the_mode_and_nothing_else():
    async def main():
        async with machine_of() as (where, firmware):
            driver, before = driver_at(where), dict(firmware.conf)
            await driver.sleep()
            await driver.sleep()
            assert firmware.writes == 1, "a mode that is held is not written: it costs a restart"
            assert firmware.conf == {**before, "bitmain-work-mode": "1"}
            await asyncio.sleep(WAIT_S)
            asleep = await driver.read()
            assert (asleep.hashrate_h_per_s, asleep.mode) == (0.0, "sleep")
            assert firmware.machine.watts_w() < (await driver.identify()).safe_w
            with pytest.raises(AsicRefused, match="allows 2000 W"):
                await driver.set_point("normal", 2000.0)
            with pytest.raises(AsicRefused, match="no such point"):
                await driver.set_point("low", 3500.0)
            assert firmware.writes == 1
            await driver.set_point("normal", 3500.0)
            await driver.wake()
            assert firmware.writes == 2
            assert firmware.conf == before
            booting = await driver.poll()
            assert booting.hashrate_h_per_s == 0.0, "it starts: no hashrate, and yet it draws"
            await asyncio.sleep(WAIT_S)
            assert (await driver.poll()).hashrate_h_per_s == pytest.approx(200e12, rel=0.06)
            await driver.set_point("sleep", 0.0)
            assert firmware.machine.asleep
            await driver.close()

    run(main())


def test_the_owners_mode_frequency_and_fans_survive_where_pyasic_loses_them():
    """Hazard 2."""
    owners = {
        "bitmain-work-mode": "3",
        "bitmain-freq-level": "80",
        "bitmain-fan-ctrl": True,
        "bitmain-fan-pwm": "70",
        "bitmain-user-ip-cat": "1",
        "of-tomorrow": {"deep": [1, 2.5, None, True]},
    }

    async def main():
        async with machine_of() as (where, firmware):
            firmware.conf |= owners
            before, driver = dict(firmware.conf), driver_at(where)
            assert (await driver.read()).mode == "normal", "awake, in the mode of its owner"
            await driver.set_point("normal", 3500.0)
            assert firmware.writes == 0
            await driver.sleep()
            assert firmware.conf == {**before, "bitmain-work-mode": "1"}
            await driver.set_point("normal", 3500.0)
            assert firmware.conf == before
            raw = pyasic_at(where)
            assert await raw.stop_mining()
            assert await raw.resume_mining()
            lost = {name for name in before if firmware.conf.get(name) != before[name]}
            assert lost >= {"bitmain-work-mode", "bitmain-freq-level"}
            await driver.close()

    run(main())


def test_a_failed_read_erases_the_pools_with_pyasic_and_costs_us_one_refusal():
    """Hazard 1: one 503 at the wrong moment, and pyasic says True."""

    async def main():
        async with machine_of() as (where, firmware):
            before, driver = pools(firmware), driver_at(where)
            for command in (driver.sleep, driver.wake, driver.prepare):
                firmware.scripted.append(HttpResponse(503, b"busy"))
                with pytest.raises(AsicUnreachable, match="503"):
                    await command()
            assert (firmware.writes, pools(firmware)) == (0, before)
            await driver.sleep()
            assert (firmware.machine.asleep, pools(firmware)) == (True, before)
            await driver.close()

            firmware.scripted.append(HttpResponse(503, b"busy"))
            assert await pyasic_at(where).resume_mining() is True
            assert [pool["url"] for pool in pools(firmware)] == ["", "", ""]

    run(main())


def test_a_blank_in_a_password_erases_the_pools_with_pyasic_and_is_left_alone_by_us():
    """The firmware's script passes a request on unquoted."""

    async def main():
        async with machine_of() as (where, firmware):
            firmware.conf["pools"][1]["pass"] = f"{SECRET} x"
            before, driver = pools(firmware), driver_at(where)
            with pytest.raises(AsicRefused, match="left alone: a value holds a blank") as refused:
                await driver.sleep()
            assert SECRET not in str(refused.value)
            assert (firmware.writes, pools(firmware)) == (0, before)
            await driver.close()
            assert await pyasic_at(where).stop_mining() is True
            assert not any(pool["url"] for pool in pools(firmware))

    run(main())


CONF = fresh_conf("w", asleep=False)
POOL = CONF["pools"][0]


def without(name):
    return {key: value for key, value in CONF.items() if key != name}


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"success": False, "message": "HTTP error occurred"},
        without("pools"),
        without("bitmain-work-mode"),
        without("bitmain-fan-ctrl"),
        without("bitmain-fan-pwm"),
        without("bitmain-freq-level"),
        {**CONF, "pools": []},
        {**CONF, "pools": {}},
        {**CONF, "pools": [POOL] * 9},
        {**CONF, "pools": [POOL, None]},
        {**CONF, "pools": [{**POOL, "user": None}]},
        {**CONF, "pools": [{"url": "a", "user": "b"}]},
        {**CONF, "pools": [dict.fromkeys(POOL, "")] * 3},
        {**CONF, "bitmain-work-mode": "9"},
        {**CONF, "bitmain-work-mode": None},
        {**CONF, "bitmain-work-mode": False},
        {**CONF, "bitmain-freq": float("inf")},
        {**CONF, "bitmain-freq": 'a"b'},
        {**CONF, "bitmain-freq": "a\\b"},
        {**CONF, "bitmain-freq": "ä"},
        {**CONF, "a b": 1},
        {**CONF, "many": list(range(600))},
    ],
)
def test_a_doubtful_configuration_is_never_written_back(conf):
    with pytest.raises(Doubtful):
        check(conf)

    async def main():
        async with machine_of() as (where, firmware):
            driver = driver_at(where)
            firmware.scripted.append(HttpResponse(200, conf))
            with pytest.raises(AsicRefused, match="left alone"):
                await driver.sleep()
            assert firmware.writes == 0
            await driver.close()

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(206, CONF),
        HttpResponse(204),
        HttpResponse(404, b"no"),
        HttpResponse(200, json.dumps(CONF).encode()[:-20]),
        HttpResponse(200, [CONF]),
        HttpResponse(200, b""),
    ],
)
def test_an_answer_that_is_not_whole_is_never_written_back(answer):
    async def main():
        async with machine_of() as (where, firmware):
            driver = driver_at(where)
            firmware.scripted.append(answer)
            with pytest.raises((AsicRefused, AsicUnreachable)):
                await driver.sleep()
            assert firmware.writes == 0
            await driver.close()

    run(main())


class Quiet(Antminer):
    """Tells no figures on its page, as a sleeping one may."""

    async def respond(self, request):
        answer = await super().respond(request)
        quiet = answer.status == 200 and request.path.endswith("/stats.cgi")
        return HttpResponse(200, {"STATS": []}) if quiet else answer


def test_a_mode_that_the_page_does_not_tell_is_read_from_the_configuration():
    async def main():
        async with machine_of(Quiet) as (where, firmware):
            driver = driver_at(where)
            for mode, point in (("0", "normal"), ("1", "sleep"), ("3", "normal"), ("2", "high")):
                firmware.conf["bitmain-work-mode"] = mode
                reading = await driver.read()
                assert (reading.mode, reading.hashrate_h_per_s) == (point, None)
            await driver.wake()
            assert firmware.writes == 0, "awake is awake"
            await driver.set_point("normal", 3500.0)
            assert firmware.conf["bitmain-work-mode"] == "3", "a high mode may exceed the nameplate"
            await driver.close()

    run(main())


class Forgetful(Antminer):
    """Loses its pools in the first write."""

    async def write_conf(self, request):
        answer = await super().write_conf(request)
        if self.writes == 1:
            self.conf = {**self.conf, "pools": [dict.fromkeys(POOL, "")] * 3}
        return answer


class Hopeless(Antminer):
    """Loses its pools in each write."""

    async def write_conf(self, request):
        answer = await super().write_conf(request)
        self.conf = {**self.conf, "pools": [dict.fromkeys(POOL, "")] * 3}
        return answer


class Shared(Antminer):
    """Somebody else changes the pools in the same moment."""

    async def write_conf(self, request):
        answer = await super().write_conf(request)
        self.conf = {**self.conf, "pools": [{**POOL, "url": "stratum+tcp://new.example:1"}]}
        return answer


class Fanning(Antminer):
    """Resets its fans in a write."""

    async def write_conf(self, request):
        answer = await super().write_conf(request)
        self.conf = {**self.conf, "bitmain-fan-pwm": "55"}
        return answer


class Deaf(Antminer):
    """Says OK and writes nothing."""

    async def write_conf(self, request):
        self.writes += 1
        return HttpResponse(200, {"stats": "success", "code": "M000", "msg": "OK!"})


class Locked(Antminer):
    """Another write is under way."""

    async def write_conf(self, request):
        return HttpResponse(200, {"stats": "error", "code": "M001", "msg": "request busy"})


@pytest.mark.parametrize(
    ("firmware_class", "reason", "writes"),
    [
        (Forgetful, "lost its pools in the write; the same write brought them back", 2),
        (Hopeless, "they are NOT back", 2),
        (Shared, "the mode is set, but these changed with it: pools", 1),
        (Fanning, "the mode is set, but these changed with it: bitmain-fan-pwm", 1),
        (Deaf, "the mode did not change: .*OK!", 1),
        (Locked, "the mode did not change: .*request busy", 0),
    ],
)
def test_what_a_write_did_is_looked_at(firmware_class, reason, writes):
    async def main():
        async with machine_of(firmware_class) as (where, firmware):
            before, driver = pools(firmware), driver_at(where)
            with pytest.raises(AsicRefused, match=reason):
                await driver.sleep()
            assert firmware.writes == writes
            if firmware_class is Forgetful:
                assert pools(firmware) == before
            if firmware_class is Shared:
                assert "new.example" in pools(firmware)[0]["url"], "theirs is newer than ours"
            await driver.close()

    run(main())


def test_a_machine_that_lies_is_not_confirmed_by_its_mode():
    """Seen on an S19j Pro: the configuration says sleep, and it goes on hashing."""

    async def main():
        miner = EmulatedMiner("rig", "antminer", own_address(), seed=7, clock=clock, full=True)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 needs a privilege here")
        driver = await connect(miner.address, credentials=OWNERS, deadline_s=2.0)
        try:
            identity = await driver.identify()
            await miner.inject(Fault.IGNORE)
            await driver.sleep()
            await asyncio.sleep(WAIT_S)
            reading = await driver.read()
            assert reading.mode == "sleep"
            assert reading.hashrate_h_per_s > 150e12
            assert not confirmed(reading, identity.points[0], identity.tolerance)
        finally:
            await driver.close()
            await miner.stop()

    run(main())


FAULTS = [
    Fault.MUTE,
    Fault.SLOW,
    Fault.REFUSE,
    Fault.OFFLINE,
    Fault.GARBAGE,
    Fault.HALF,
    Fault.WRONG_TYPE,
    Fault.FLOOD,
    Fault.WRONG_PASSWORD,
    Fault.OTHER_IDENTITY,
]


def test_no_fault_costs_more_than_its_deadlines_nor_a_pool():
    async def under(fault):
        miner = EmulatedMiner("rig", "antminer", own_address(), seed=7, clock=clock, full=True)
        await miner.start()
        found = Found("antminer", "Antminer S21", "1.0")
        setup = Setup(miner.address, found, ABILITIES["antminer"], OWNERS, 0.5)
        driver = AntminerDriver(setup)
        try:
            await driver.prepare()
            await miner.inject(fault)
            started_s, refused = time.monotonic(), 0
            for call in (driver.poll, driver.read, driver.sleep):
                try:
                    reading = await call()
                    assert reading is None or reading.watts_w is None
                except (AsicUnreachable, AsicRefused):
                    refused += 1
            assert time.monotonic() - started_s < 20.0
            assert miner.machine.pool_writes == 0
            asleep = miner.machine.asleep
            await miner.inject(Fault.NONE)
            await driver.sleep()
            assert miner.machine.asleep
            assert miner.machine.pool_writes == 0
            return fault, refused, asleep
        finally:
            await driver.close()
            await miner.stop()

    async def main():
        try:
            return await asyncio.gather(*map(under, FAULTS))
        except PermissionError:
            pytest.skip("port 80 needs a privilege here")

    outcomes = {fault: (refused, asleep) for fault, refused, asleep in run(main())}
    for fault in [*FAULTS[:6], Fault.FLOOD]:
        assert outcomes[fault] == (3, False), fault
    refused, asleep = outcomes[Fault.WRONG_PASSWORD]
    assert 1 <= refused < 3, "its hashrate needs no password"
    assert not asleep
