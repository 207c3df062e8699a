"""BitAxe through our driver, against real sockets; watts are compared with the truth."""

import asyncio
import time

import pytest
from tests.asic.confirm import confirmed
from tests.ports import own_address

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner

SPEED = 100.0
"""Emulated seconds per real second."""

RAMP_S = 0.2


def on_miner(scenario, *, kind="bitaxe", full=True, deadline_s=2.0, **options):
    async def main():
        address = own_address()
        clock = lambda: time.monotonic() * SPEED  # noqa: E731
        miner = EmulatedMiner("rig", kind, address, seed=7, clock=clock, full=full)
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 is not for this user here")
        try:
            driver = await connect(address, deadline_s=deadline_s, **options)
            await asyncio.wait_for(scenario(miner, driver), 60)
            assert miner.machine.pool_writes == 0
            await driver.close()
        finally:
            await miner.stop()

    asyncio.run(main())


def test_it_is_identified_with_two_points():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert identity.model == "BitAxe Gamma"
        assert identity.firmware == "ESP-Miner v2.14.0"
        assert identity.mac is not None
        assert [p.mode for p in identity.points] == ["sleep", "full"]
        assert identity.points[1].watts_w == 18, "its rating, as it is not overclocked"
        assert identity.points[1].hashrate_h_per_s == 1.2e12
        assert identity.nameplate_w == identity.power_on_w == 40, "what its board can draw at most"

    on_miner(scenario)


def test_the_owners_word_for_the_nameplate_counts():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert identity.nameplate_w == 25
        assert identity.points[1].watts_w == 18

    on_miner(scenario, nameplate_w=25.0)


def test_pause_and_resume_where_pyasic_has_neither():
    import pyasic

    async def scenario(miner, driver):
        raw = await pyasic.get_miner(miner.address)
        assert await raw.stop_mining() is False, "hazard 4"
        assert not miner.machine.asleep
        identity = await driver.identify()
        since_s = boot_s()
        await driver.sleep()
        await driver.sleep()
        await asyncio.sleep(RAMP_S)
        asleep = await driver.poll()
        assert miner.machine.watts_w() <= 3
        assert (asleep.mode, asleep.hashrate_h_per_s) == ("sleep", 0.0)
        assert confirmed(asleep, identity.points[0], identity.tolerance, since_boot_s=since_s)
        assert miner.machine.commands == 1, "what is paused is not paused again"
        await driver.wake()
        await driver.set_point("full", 18.0)
        await asyncio.sleep(RAMP_S)
        reading = await driver.read()
        assert reading.mode == "full"
        assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)
        assert reading.watts_w == pytest.approx(18, rel=0.07)
        assert reading.hashrate_h_per_s == pytest.approx(1.2e12, rel=0.07)
        await driver.set_point("sleep", 0.0)
        assert miner.machine.asleep

    on_miner(scenario)


def test_old_firmware_is_read_and_told_to_be_updated():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert [(p.mode, p.watts_w) for p in identity.points] == [("as-found", 40.0)]
        assert identity.safe_w == identity.nameplate_w == 40
        points = [driver.set_point(mode, 40.0) for mode in ("full", "as-found")]
        for command in (driver.sleep(), driver.wake(), *points):
            with pytest.raises(AsicRefused, match=r"update to 2\.14"):
                await command
        assert miner.machine.commands == 0
        reading = await driver.poll()
        assert reading.mode is None
        assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)

    on_miner(scenario, kind="bitaxe_2_9")


def test_what_does_not_fit_is_refused_and_not_sent():
    async def scenario(miner, driver):
        with pytest.raises(AsicRefused, match="the lease allows 10 W"):
            await driver.set_point("full", 10.0)
        with pytest.raises(AsicRefused, match="no such point"):
            await driver.set_point("490MHz", 40.0)
        assert miner.machine.asleep
        assert miner.machine.commands == 0

    on_miner(scenario, full=False)


def test_a_garbled_answer_never_makes_it_another_machine():
    async def scenario(miner, driver):
        before = await driver.identify()
        await miner.inject(Fault.WRONG_TYPE)
        for _ in range(12):
            try:
                garbled = await driver.identify()
            except (AsicRefused, AsicUnreachable):
                continue
            assert {p.mode for p in garbled.points} <= {p.mode for p in before.points}
            assert garbled.points[0] == before.points[0]
        await miner.inject(Fault.NONE)
        assert (await driver.identify()).points == before.points

    on_miner(scenario)


def test_faults_are_named_and_never_read_as_zero():
    async def scenario(miner, driver):
        await miner.inject(Fault.IGNORE)
        with pytest.raises(AsicRefused, match="hashes on"):
            await driver.sleep()
        await miner.inject(Fault.BLANK)
        blank = await driver.poll()
        assert (blank.watts_w, blank.hashrate_h_per_s) == (None, None)
        for fault in (Fault.MUTE, Fault.GARBAGE, Fault.REFUSE):
            await miner.inject(fault)
            with pytest.raises(AsicUnreachable):
                await driver.poll()
        await miner.inject(Fault.NONE)
        await driver.sleep()
        assert miner.machine.asleep

    on_miner(scenario, deadline_s=0.5)
