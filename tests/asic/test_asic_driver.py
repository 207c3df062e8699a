"""The drivers, with the real pyasic, against real sockets; watts are compared with the truth."""

import asyncio
import time

import pytest

from wattshift_cluster.asic.confirm import confirmed
from wattshift_cluster.asic.connect import Transitions, connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.faults import Fault

KINDS = ("luxos", "whatsminer")
OWNERS = Credentials("super")
RAMP_S = 0.6
"""Real seconds after which the accelerated machine has settled."""


async def driver_of(miner, **options):
    return await connect(miner.address, credentials=OWNERS, deadline_s=1.0, **options)


async def hold(driver, mode):
    identity = await driver.identify()
    point = next(p for p in identity.points if p.mode == mode)
    accepted_s = boot_s()
    await driver.set_point(mode, point.watts_w)
    await asyncio.sleep(RAMP_S)
    return identity, point, accepted_s, await driver.read()


def test_luxos_is_identified_with_the_profiles_of_the_machine(on_miner):
    async def scenario(miner):
        return await (await driver_of(miner)).identify()

    identity = on_miner("luxos", scenario)
    assert identity.model == "Antminer S19k Pro"
    assert identity.firmware == "LuxOS 2025.4.8.220305"
    assert identity.mac is not None
    assert identity.mac.startswith("62:F7:5E:")
    modes = [p.mode for p in identity.points]
    assert modes[0] == "sleep"
    assert modes[-1] == "default"
    assert "615MHz" not in modes, "an overclocked profile must not be offered"
    assert [p.watts_w for p in identity.points] == sorted(p.watts_w for p in identity.points)
    assert next(p for p in identity.points if p.mode == "290MHz").watts_w == 1188
    assert next(p for p in identity.points if p.mode == "290MHz").hashrate_h_per_s == 59.8e12
    assert identity.nameplate_w == 2794
    assert identity.safe_w == identity.points[0].watts_w < 50


def test_whatsminer_is_identified_with_a_range_of_limits(on_miner):
    async def scenario(miner):
        return await (await driver_of(miner)).identify()

    identity = on_miner("whatsminer", scenario)
    assert identity.model == "M60S_VK40"
    assert identity.nameplate_w == 3441
    assert [p.mode for p in identity.points][:2] == ["sleep", "limit:1204"]
    assert identity.points[-1].mode == "limit:3441"
    assert identity.points[-1].hashrate_h_per_s == pytest.approx(186e12)
    assert len(identity.points) == 7


def test_commissioned_transitions_replace_the_table(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner, transitions=Transitions(sleep_s=2.0, settle_s=90.0))
        return (await driver.identify()).points

    points = on_miner("whatsminer", scenario)
    assert [p.transition_s for p in points] == [2.0, *[90.0] * 6]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("luxos", "190MHz", "465MHz"), ("whatsminer", "limit:1204", "limit:2546")],
)
def test_a_set_point_is_reached_and_read_back_by_watts(on_miner, kind, low, high):
    async def scenario(miner):
        driver = await driver_of(miner)
        for mode in (high, low):
            identity, point, since_s, reading = await hold(driver, mode)
            true_w = miner.machine.watts_w()
            assert miner.machine.mode == reading.mode == mode
            assert true_w == pytest.approx(point.watts_w, rel=0.02)
            assert reading.watts_w == pytest.approx(true_w, rel=0.011)
            assert reading.hashrate_h_per_s == pytest.approx(point.hashrate_h_per_s, rel=0.03)
            assert reading.temperature_c is not None
            assert confirmed(reading, point, identity.tolerance, since_boot_s=since_s)
            assert not confirmed(reading, identity.points[0], identity.tolerance)

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_sleep_and_wake(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        full_w = miner.machine.watts_w()
        await driver.sleep()
        await driver.sleep()
        await asyncio.sleep(RAMP_S)
        asleep = await driver.read()
        assert 20 < miner.machine.watts_w() < 30 < full_w
        assert asleep.hashrate_h_per_s == 0.0
        assert confirmed(asleep, (await driver.identify()).points[0], 0.05)
        await driver.wake()
        await driver.wake()
        await asyncio.sleep(RAMP_S)
        assert miner.machine.watts_w() == pytest.approx(full_w)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), [("luxos", "190MHz"), ("whatsminer", "limit:1204")])
def test_a_waking_machine_never_passes_a_higher_point(on_miner, kind, low):
    """The machine remembers full power; woken first and limited afterwards, it would overshoot."""

    async def scenario(miner):
        driver = await driver_of(miner)
        point = next(p for p in (await driver.identify()).points if p.mode == low)
        command = asyncio.create_task(driver.set_point(low, point.watts_w))
        seen_w = []
        while not command.done() or len(seen_w) < 150:
            seen_w.append(miner.machine.watts_w())
            if not miner.machine.asleep:
                assert miner.machine.mode == low
            await asyncio.sleep(0.004)
        await command
        assert max(seen_w) <= point.watts_w * 1.05
        assert max(seen_w) > point.watts_w * 0.9, "it never woke"

    on_miner(kind, scenario)


def test_atm_is_restored_after_a_profile_and_after_a_failure(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await hold(driver, "390MHz")
        assert (await driver._config())["IsAtmEnabled"] is True
        with pytest.raises(AsicRefused):
            await driver._set_profile("no such profile")
        assert (await driver._config())["IsAtmEnabled"] is True

    on_miner("luxos", scenario)


def test_a_session_that_expired_is_opened_again(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.sleep()
        # The firmware forgets a session after 60 of its seconds; pyasic keeps using it.
        await asyncio.sleep(61 / 25)
        await driver.sleep()

    on_miner("luxos", scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mute_machine_hits_the_deadline(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.identify()
        await miner.inject(Fault.MUTE)
        for call in (driver.read, driver.sleep, driver.wake, driver.identify):
            began = time.monotonic()
            with pytest.raises(AsicUnreachable, match="no answer within"):
                await call()
            assert 0.9 < time.monotonic() - began < 1.6
        began = time.monotonic()
        with pytest.raises(AsicUnreachable):
            await driver_of(miner)
        assert time.monotonic() - began < 1.6

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_that_refuses_connections_is_unreachable(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.sleep()
        await driver.wake()
        await miner.inject(Fault.REFUSE)
        for call in (driver.read, driver.sleep, driver.identify):
            with pytest.raises(AsicUnreachable):
                await call()
        with pytest.raises(AsicUnreachable):
            await driver_of(miner)
        await miner.inject(Fault.NONE)
        assert (await driver.read()).watts_w is not None
        await driver.sleep()
        assert miner.machine.asleep, "a restarted machine knows no old session or salt"

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_an_error_and_not_zero(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.identify()
        await miner.inject(Fault.GARBAGE)
        for call in (driver.read, driver.sleep, driver.identify):
            with pytest.raises(AsicUnreachable):
                await call()

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_not_reported_stays_unknown(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await miner.inject(Fault.BLANK)
        reading = await driver.read()
        assert reading.watts_w is None
        assert reading.hashrate_h_per_s is None
        assert not confirmed(reading, (await driver.identify()).points[-1], 0.05)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), [("luxos", "190MHz"), ("whatsminer", "limit:1204")])
def test_a_command_without_effect_is_not_confirmed(on_miner, kind, low):
    async def scenario(miner):
        driver = await driver_of(miner)
        asleep = (await driver.identify()).points[0]
        await miner.inject(Fault.IGNORE)
        await driver.sleep()
        await asyncio.sleep(RAMP_S)
        assert not confirmed(await driver.read(), asleep, 0.05)
        with pytest.raises(AsicRefused, match="accepted, but"):
            await driver.set_point(low, 1500)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "mode"), [("luxos", "540MHz"), ("whatsminer", "limit:2099")])
def test_a_point_above_the_lease_is_refused(on_miner, kind, mode):
    async def scenario(miner):
        driver = await driver_of(miner)
        with pytest.raises(AsicRefused, match="lease allows 900 W"):
            await driver.set_point(mode, 900)
        with pytest.raises(AsicRefused, match="no such"):
            await driver.set_point("turbo", 9000)
        assert miner.machine.asleep

    on_miner(kind, scenario)


def test_no_password_is_tried_without_the_owners_word(on_miner):
    async def scenario(miner):
        driver = await connect(miner.address, deadline_s=1.0)
        assert (await driver.read()).watts_w is not None
        with pytest.raises(AsicRefused, match="no password"):
            await driver.sleep()
        wrong = await connect(miner.address, credentials=Credentials("guess"), deadline_s=1.0)
        with pytest.raises(AsicRefused, match="invalid token"):
            await wrong.sleep()
        assert not miner.machine.asleep

    on_miner("whatsminer", scenario, full=True)


def test_a_whatsminer_that_answers_only_on_4433_is_driven_as_v3(on_miner):
    async def scenario(miner):
        miner._servers.pop().close()
        driver = await driver_of(miner)
        await driver.sleep()
        assert miner.machine.asleep

    on_miner("whatsminer", scenario, full=True)


def test_old_samples_confirm_nothing(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        reading = await driver.read()
        point = (await driver.identify()).points[-1]
        assert confirmed(reading, point, 0.05, since_boot_s=reading.at_boot_s - 1)
        assert not confirmed(reading, point, 0.05, since_boot_s=boot_s())

    on_miner("luxos", scenario)
