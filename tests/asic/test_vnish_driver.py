"""VNish through our driver, against real sockets; watts are compared with the truth."""

import asyncio
import time

import pytest
from tests.asic.confirm import confirmed
from tests.ports import own_address

from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.listener import EmulatedMiner

OWNERS = Credentials("the owner's")
SPEED = 100.0
"""Emulated seconds per real second."""

RAMP_S = 0.2


def on_miner(scenario, *, full=True, owners=OWNERS, deadline_s=2.0):
    async def main():
        address = own_address()
        miner = EmulatedMiner(
            "rig",
            "vnish",
            address,
            seed=7,
            clock=lambda: time.monotonic() * SPEED,
            full=full,
            password=OWNERS.password,
        )
        try:
            await miner.start()
        except PermissionError:
            pytest.skip("port 80 is not for this user here")
        try:
            driver = await connect(address, credentials=owners, deadline_s=deadline_s)
            await asyncio.wait_for(scenario(miner, driver), 60)
            assert miner.machine.pool_writes == 0
            await driver.close()
        finally:
            await miner.stop()

    asyncio.run(main())


def test_it_is_identified_with_its_tuned_presets():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert identity.model == "Antminer S19k Pro"
        assert identity.firmware == "VNish 1.2.7"
        assert identity.mac is not None
        assert identity.mac.startswith("5A:19:6E:")
        modes = [p.mode for p in identity.points]
        assert modes[:2] == ["sleep", "784"]
        assert modes[-1] == "2794", "an overclocked preset must not be offered"
        assert "2052" not in modes, "nor one that is not tuned"
        point = next(p for p in identity.points if p.mode == "1188")
        assert (point.watts_w, point.hashrate_h_per_s) == (1188.0, 60e12)
        assert identity.nameplate_w == 2794
        assert not identity.continuous

    on_miner(scenario)


def test_a_preset_is_reached_and_confirmed_by_watts_where_pyasic_sends_nothing():
    import pyasic

    async def scenario(miner, driver):
        raw = await pyasic.get_miner(miner.address)
        raw.web.pwd = OWNERS.password
        assert await raw.set_power_limit(2000) is False, "hazard 6"
        assert miner.machine.commands == 0
        identity = await driver.identify()
        for name in ("1916", "784"):
            point = next(p for p in identity.points if p.mode == name)
            accepted_s = boot_s()
            await driver.set_point(name, point.watts_w)
            await asyncio.sleep(RAMP_S)
            reading = await driver.read()
            assert miner.machine.mode == reading.mode == name
            assert miner.machine.watts_w() == pytest.approx(point.watts_w, rel=0.02)
            assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)
            assert reading.hashrate_h_per_s == pytest.approx(point.hashrate_h_per_s, rel=0.03)
            assert reading.temperature_c is not None
            assert confirmed(reading, point, identity.tolerance, since_boot_s=accepted_s)
            assert not confirmed(reading, identity.points[0], identity.tolerance)
        before = miner.machine.commands
        await driver.set_point("784", 784.0)
        assert miner.machine.commands == before, "a preset that is held is not written again"

    on_miner(scenario)


def test_what_does_not_fit_is_refused_and_not_sent():
    async def scenario(miner, driver):
        await driver.identify()
        before = miner.machine.commands
        for mode, watts_w, reason in (
            ("1188", 1000.0, "the lease allows 1000 W"),
            ("2954", 9000.0, "no such tuned preset"),
            ("disabled", 9000.0, "no such tuned preset"),
        ):
            with pytest.raises(AsicRefused, match=reason):
                await driver.set_point(mode, watts_w)
        assert miner.machine.commands == before

    on_miner(scenario)


def test_sleep_and_wake_keep_the_preset():
    async def scenario(miner, driver):
        identity = await driver.identify()
        await driver.set_point("1188", 1188.0)
        await driver.sleep()
        await driver.sleep()
        await asyncio.sleep(RAMP_S)
        asleep = await driver.poll()
        assert miner.machine.watts_w() < 30
        assert (asleep.mode, asleep.hashrate_h_per_s) == ("sleep", 0.0)
        assert confirmed(asleep, identity.points[0], identity.tolerance)
        await driver.wake()
        await driver.wake()
        await asyncio.sleep(RAMP_S)
        assert miner.machine.watts_w() == pytest.approx(1188, rel=0.02)
        assert (await driver.read()).mode == "1188"

    on_miner(scenario)


def test_a_waking_machine_never_passes_a_higher_preset():
    async def scenario(miner, driver):
        command = asyncio.create_task(driver.set_point("784", 784.0))
        seen_w = []
        until_s = time.monotonic() + 0.3
        while not command.done() or time.monotonic() < until_s:
            seen_w.append(miner.machine.watts_w())
            assert miner.machine.asleep or miner.machine.mode == "784"
            # After every turn of the loop, so that nothing between two requests is missed.
            await asyncio.sleep(0.004 if command.done() else 0)
        await command
        assert 0.9 * 784 < max(seen_w) <= 784 * 1.05

    on_miner(scenario, full=False)


def test_one_login_serves_everything_and_a_dead_token_costs_one_more():
    async def scenario(miner, driver):
        await asyncio.gather(*(driver.poll() for _ in range(8)))
        assert miner.firmware.logins == 0, "readings need none"
        await asyncio.gather(driver.prepare(), driver.identify(), driver.prepare())
        await driver.set_point("1188", 1188.0)
        assert miner.firmware.logins == 1
        miner.firmware.restart()
        await driver.sleep()
        assert miner.firmware.logins == 2
        assert miner.machine.asleep

    on_miner(scenario)


def test_a_changed_password_is_tried_once_and_readings_go_on():
    async def scenario(miner, driver):
        await driver.identify()
        miner.firmware.change_password("somebody else's")
        for command in (driver.sleep, lambda: driver.set_point("784", 784.0), driver.prepare):
            with pytest.raises(AsicRefused, match="refuses the password") as refusal:
                await command()
            assert OWNERS.password not in str(refusal.value)
        assert miner.firmware.refused_logins == 1
        assert miner.machine.commands == 0
        for reading in (await driver.poll(), await driver.read()):
            assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)

    on_miner(scenario)


def test_without_a_password_it_is_read_and_never_commanded():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert [p.mode for p in identity.points] == ["as-found"]
        assert (await driver.read()).mode == "2794"
        for command in (driver.sleep(), driver.set_point("as-found", 9000.0)):
            with pytest.raises(AsicRefused):
                await command
        assert miner.machine.commands == 0
        assert miner.firmware.refused_logins == 0, "no maker's password is tried"

    on_miner(scenario, owners=None)


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
        await driver.identify()
        await miner.inject(Fault.IGNORE)
        with pytest.raises(AsicRefused, match="the preset is 2794"):
            await driver.set_point("784", 784.0)
        with pytest.raises(AsicRefused, match="mines on"):
            await driver.sleep()
        await miner.inject(Fault.BLANK)
        blank = await driver.poll()
        assert (blank.watts_w, blank.hashrate_h_per_s) == (None, None)
        for fault in (Fault.MUTE, Fault.GARBAGE, Fault.REFUSE):
            await miner.inject(fault)
            with pytest.raises(AsicUnreachable):
                await driver.poll()
        await miner.inject(Fault.NONE)
        assert (await driver.poll()).watts_w is not None

    on_miner(scenario, deadline_s=0.5)
