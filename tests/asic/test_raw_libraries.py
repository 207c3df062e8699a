"""Two independent clients drive the emulated LuxOS and Whatsminers, and where they go wrong.

pyasic 0.79 and pyasic-rs 0.8 show that the emulated wires are the real ones. Each test of a hazard
shows it on the raw library first and the driver doing right on the same machine after it.
"""

import asyncio
import logging
import time

import pytest
from tests.asic.confirm import confirmed

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.faults import Fault

pyasic = pytest.importorskip("pyasic")

PASSWORDS = {"luxos": "none", "whatsminer": "super", "whatsminer_v2": "admin"}
BACKENDS = {
    "luxos": "LUXMinerRPCAPI",
    "whatsminer": "BTMinerV3RPCAPI",
    "whatsminer_v2": "BTMinerRPCAPI",
}
KINDS = tuple(BACKENDS)
LIMITS = {"luxos": "440MHz", "whatsminer": "limit:2000", "whatsminer_v2": "limit:2000"}


@pytest.fixture(autouse=True)
def _quiet():
    """pyasic logs what goes wrong on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


async def raw(miner):
    return await asyncio.wait_for(pyasic.get_miner(miner.address), 20)


async def data_of(raw_miner, *include):
    return await asyncio.wait_for(raw_miner.get_data(include=list(include)), 20)


async def ours(miner):
    owners = Credentials(PASSWORDS[miner.machine.spec.kind])
    return await connect(miner.address, credentials=owners, deadline_s=5.0)


async def asleep(miner):
    began = time.monotonic()
    while miner.machine.watts_w() > 30:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_pyasic_identifies_reads_and_drives_it(on_miner, kind):
    async def scenario(miner):
        theirs = await raw(miner)
        assert type(theirs.rpc).__name__ == BACKENDS[kind]
        data = await data_of(theirs, "wattage", "hashrate", "hashboards")
        assert data.wattage == pytest.approx(miner.machine.watts_w(), rel=0.02)
        rate = miner.machine.hashrate_h_per_s() / 1e12
        assert float(data.hashrate) == pytest.approx(rate, rel=0.03)
        assert await theirs.set_power_limit(2000)
        assert miner.machine.mode == LIMITS[kind]
        assert await theirs.stop_mining()
        assert miner.machine.asleep
        assert await theirs.resume_mining()
        assert miner.machine.mode == LIMITS[kind]

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize("kind", KINDS)
def test_pyasic_rs_identifies_reads_and_drives_it(on_miner, kind):
    pyasic_rs = pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        theirs = await asyncio.wait_for(pyasic_rs.MinerFactory().get_miner(miner.address), 20)
        watts_w = await asyncio.wait_for(theirs.get_wattage(), 20)
        assert watts_w == pytest.approx(miner.machine.watts_w(), rel=0.02)
        assert await asyncio.wait_for(theirs.pause(), 20)
        assert miner.machine.asleep
        assert await asyncio.wait_for(theirs.resume(), 20)
        assert not miner.machine.asleep

    on_miner(kind, scenario, full=True)


def test_hazard_3_a_dead_machine_reads_as_mining(on_miner):
    async def scenario(miner):
        theirs, driver = await raw(miner), await ours(miner)
        await miner.inject(Fault.REFUSE)
        data = await data_of(theirs, "wattage", "hashrate", "is_mining")
        assert (data.wattage, data.is_mining) == (None, True)
        for call in (driver.poll(), driver.read()):
            with pytest.raises(AsicUnreachable):
                await call

    on_miner("luxos", scenario, full=True)


@pytest.mark.parametrize("kind", ["luxos", "whatsminer"])
def test_hazard_4_a_stopped_machine_is_still_called_mining(on_miner, kind):
    async def scenario(miner):
        theirs, driver = await raw(miner), await ours(miner)
        known = await driver.identify()
        assert await theirs.stop_mining()
        await asleep(miner)
        assert (await data_of(theirs, "is_mining")).is_mining is True
        reading = await driver.read()
        assert confirmed(reading, known.points[0], known.tolerance)
        assert reading.hashrate_h_per_s == 0
        await driver.close()

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_that_is_dropped_is_called_done_and_is_not_confirmed(on_miner, kind):
    async def scenario(miner):
        theirs, driver = await raw(miner), await ours(miner)
        known = await driver.identify()
        await miner.inject(Fault.IGNORE)
        assert await theirs.stop_mining() is True
        if kind == "luxos":
            # Its session stays open behind it, and ours must wait for that.
            await theirs.rpc.logoff()
        since_s = boot_s()
        await driver.sleep()
        assert not confirmed(
            await driver.poll(), known.points[0], known.tolerance, since_boot_s=since_s
        )
        await driver.close()

    on_miner(kind, scenario, full=True)


def test_hazard_7_a_whatsminer_that_speaks_on_4433_alone(on_miner):
    async def scenario(miner):
        miner._doors[miner.ports.index(4028)].shut()
        theirs = await raw(miner)
        assert type(theirs.rpc).__name__ == "BTMinerRPCAPI", "pyasic takes it for v2"
        assert (await data_of(theirs, "wattage")).wattage is None
        with pytest.raises(KeyError, match="Msg"):
            await theirs.stop_mining()
        assert not miner.machine.asleep
        driver = await ours(miner)
        assert (await driver.poll()).watts_w is not None
        await driver.sleep()
        assert miner.machine.asleep
        await driver.close()

    on_miner("whatsminer", scenario, full=True)


def test_hazard_8_a_profile_that_is_refused_leaves_thermal_tuning_off(on_miner):
    async def scenario(miner):
        firmware = miner._firmware
        works, busy = firmware._writes["profileset"], []

        def refuses(arguments):
            busy.append(arguments)
            return {"STATUS": [{"STATUS": "E", "Code": 1, "Msg": "busy"}]}

        firmware._writes["profileset"] = refuses
        theirs, driver = await raw(miner), await ours(miner)
        with pytest.raises(pyasic.APIError, match="busy"):
            await theirs.set_power_limit(2000)
        assert firmware._atm is False, "pyasic left it off"
        firmware._atm = True
        await theirs.rpc.logoff()
        with pytest.raises(AsicRefused, match="busy"):
            await driver.set_point("440MHz", 2000)
        await driver.close()
        assert firmware._atm is True
        assert len(busy) == 2
        firmware._writes["profileset"] = works
        await driver.set_point("440MHz", 2000)
        assert miner.machine.mode == "440MHz"
        await driver.close()

    on_miner("luxos", scenario, full=True)


def test_hazard_11_pyasic_rs_says_paused_although_the_command_was_dropped(on_miner):
    pyasic_rs = pytest.importorskip("pyasic_rs")

    async def scenario(miner):
        theirs = await asyncio.wait_for(pyasic_rs.MinerFactory().get_miner(miner.address), 20)
        driver = await ours(miner)

        def drops(data):
            raise ConnectionResetError

        miner._firmware._unsealed = drops
        assert await asyncio.wait_for(theirs.pause(), 20) is True
        assert not miner.machine.asleep
        with pytest.raises(AsicUnreachable):
            await driver.sleep()

    on_miner("whatsminer_v2", scenario, full=True)


@pytest.mark.parametrize("command", ["cmd", "command"])
def test_both_names_of_a_command_are_understood(on_miner, command):
    """pyasic writes "cmd" into a sealed command, pyasic-rs "command"."""

    async def scenario(miner):
        driver = await ours(miner)
        sealed = driver._sealed
        driver._sealed = lambda doing, request: sealed(
            doing, {command if name == "cmd" else name: value for name, value in request.items()}
        )
        await driver.sleep()
        assert miner.machine.asleep

    on_miner("whatsminer_v2", scenario, full=True)


def test_a_session_that_somebody_holds_is_taken_over_by_pyasic_and_not_by_us(on_miner):
    async def scenario(miner):
        theirs, driver = await raw(miner), await ours(miner)
        owners = await theirs.rpc.logon()
        name = owners["SESSION"][0]["SessionID"]
        assert await theirs.rpc.auth() == name, "pyasic asks whose it is and uses it"
        with pytest.raises(AsicRefused, match="another session is open"):
            await driver.sleep()
        assert miner._firmware._session[0] == name

    on_miner("luxos", scenario, full=True)
