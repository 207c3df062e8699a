"""The drivers against real sockets; watts are compared with the truth."""

import asyncio
import time
from dataclasses import replace

import pytest
from tests.asic.confirm import confirmed

from wattshift_cluster.asic.connect import Transitions, connect, driver_for
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import Found
from wattshift_cluster.asic.setup import Setup
from wattshift_cluster.asic.whatsminer_points import Stated, identity
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate.faults import Fault

KINDS = ("luxos", "whatsminer", "whatsminer_v2")
PASSWORDS = {"luxos": "none", "whatsminer": "super", "whatsminer_v2": "admin"}
LOW = [("luxos", "190MHz"), ("whatsminer", "limit:1204"), ("whatsminer_v2", "limit:1155")]


async def driver_of(miner, *, deadline_s=5.0, **options):
    owners = Credentials(PASSWORDS[miner.machine.spec.kind])
    return await connect(miner.address, credentials=owners, deadline_s=deadline_s, **options)


async def settled(miner):
    """Wait until the draw stands still for longer than a machine takes to react."""
    began, still = time.monotonic(), 0
    while still < 7:
        assert time.monotonic() - began < 10
        watts_w = miner.machine.watts_w()
        await asyncio.sleep(0.01)
        still = still + 1 if miner.machine.watts_w() == watts_w else 0


async def hold(miner, driver, mode):
    identity = await driver.identify()
    point = next(p for p in identity.points if p.mode == mode)
    accepted_s = boot_s()
    await driver.set_point(mode, point.watts_w)
    await settled(miner)
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


def test_a_whatsminer_v2_is_identified_with_a_range_of_limits(on_miner):
    async def scenario(miner):
        return await (await driver_of(miner)).identify()

    identity = on_miner("whatsminer_v2", scenario)
    assert identity.model == "M50S++VK30"
    assert identity.firmware == "Whatsminer 20230914.17.Rel"
    assert identity.nameplate_w == 3300
    assert identity.mac.startswith("C4:08:28:")
    assert identity.serial.startswith("EMULATED")
    assert [p.mode for p in identity.points][:2] == ["sleep", "limit:1155"]
    assert identity.points[-1].mode == "limit:3300"
    assert identity.points[-1].hashrate_h_per_s == pytest.approx(138e12)


def test_commissioned_transitions_replace_the_table(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner, transitions=Transitions(sleep_s=2.0, settle_s=90.0))
        return (await driver.identify()).points

    points = on_miner("whatsminer", scenario)
    assert [p.transition_s for p in points] == [2.0, *[90.0] * 6]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("luxos", "190MHz", "465MHz"),
        ("whatsminer", "limit:1204", "limit:2546"),
        ("whatsminer_v2", "limit:1155", "limit:2442"),
    ],
)
def test_a_set_point_is_reached_and_read_back_by_watts(on_miner, kind, low, high):
    async def scenario(miner):
        driver = await driver_of(miner)
        for mode in (high, low):
            identity, point, since_s, reading = await hold(miner, driver, mode)
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
        await settled(miner)
        asleep = await driver.read()
        assert 20 < miner.machine.watts_w() < 30 < full_w
        assert asleep.hashrate_h_per_s == 0.0
        assert confirmed(asleep, (await driver.identify()).points[0], 0.05)
        await driver.wake()
        await driver.wake()
        await settled(miner)
        assert miner.machine.watts_w() == pytest.approx(full_w)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), LOW)
def test_a_waking_machine_never_passes_a_higher_point(on_miner, kind, low):
    """The machine remembers full power; woken first and limited afterwards, it would overshoot."""

    async def scenario(miner):
        driver = await driver_of(miner)
        point = next(p for p in (await driver.identify()).points if p.mode == low)
        wake, woken_to = miner.machine.wake, []

        def watched():
            wake()
            woken_to.append(miner.machine.mode)

        miner.machine.wake = watched
        await driver.set_point(low, point.watts_w)
        assert woken_to == [low]
        await settled(miner)
        assert miner.machine.watts_w() == pytest.approx(point.watts_w, rel=0.02)

    on_miner(kind, scenario)


def test_atm_is_restored_after_a_profile_and_after_a_failure(on_miner):
    async def scenario(miner):
        driver = await driver_of(miner)
        await hold(miner, driver, "390MHz")
        assert (await driver._config())["IsAtmEnabled"] is True
        await miner.inject(Fault.IGNORE)
        with pytest.raises(AsicRefused, match="accepted, but the profile is still 390MHz"):
            await driver.set_point("190MHz", 1000)
        assert (await driver._config())["IsAtmEnabled"] is True

    on_miner("luxos", scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mute_machine_hits_the_deadline(on_miner, kind):
    async def scenario(miner):
        await miner.inject(Fault.MUTE)
        owners = Credentials(PASSWORDS[kind])
        driver = await driver_for(
            miner.address, Found(kind, "M60S", "1"), credentials=owners, deadline_s=0.1
        )
        for call in (driver.poll, driver.read, driver.sleep, driver.wake, driver.identify):
            began = time.monotonic()
            with pytest.raises(AsicUnreachable, match="no answer within"):
                await call()
            assert 0.09 < time.monotonic() - began < 2.0
        began = time.monotonic()
        with pytest.raises(AsicUnreachable):
            await driver_of(miner, deadline_s=0.1)
        assert time.monotonic() - began < 2.0

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_that_falls_silent_on_an_open_connection_hits_the_deadline(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner, deadline_s=2.0)
        await driver.prepare()
        await miner.inject(Fault.MUTE)
        with pytest.raises(AsicUnreachable):
            await driver.poll()
        await miner.inject(Fault.NONE)
        assert (await driver.poll()).watts_w is not None
        await driver.close()

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
        for call in (driver.poll, driver.read, driver.sleep, driver.identify):
            with pytest.raises(AsicUnreachable):
                await call()

    on_miner(kind, scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_not_reported_stays_unknown(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await miner.inject(Fault.BLANK)
        for reading in (await driver.poll(), await driver.read()):
            assert reading.watts_w is None
            assert reading.hashrate_h_per_s is None
        assert not confirmed(reading, (await driver.identify()).points[-1], 0.05)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), LOW)
def test_a_command_without_effect_is_not_confirmed(on_miner, kind, low):
    async def scenario(miner):
        driver = await driver_of(miner)
        asleep = (await driver.identify()).points[0]
        await miner.inject(Fault.IGNORE)
        await driver.sleep()
        await settled(miner)
        assert not confirmed(await driver.read(), asleep, 0.05)
        with pytest.raises(AsicRefused, match="accepted, but"):
            await driver.set_point(low, 1500)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("luxos", "540MHz"), ("whatsminer", "limit:2099"), ("whatsminer_v2", "limit:2013")],
)
def test_a_point_above_the_lease_is_refused(on_miner, kind, mode):
    async def scenario(miner):
        driver = await driver_of(miner)
        with pytest.raises(AsicRefused, match="lease allows 900 W"):
            await driver.set_point(mode, 900)
        with pytest.raises(AsicRefused, match="no such"):
            await driver.set_point("turbo", 9000)
        assert miner.machine.asleep

    on_miner(kind, scenario)


@pytest.mark.parametrize(
    ("kind", "told"), [("whatsminer", "invalid token"), ("whatsminer_v2", "enc json load err")]
)
def test_no_password_is_tried_without_the_owners_word(on_miner, kind, told):
    async def scenario(miner):
        driver = await connect(miner.address, deadline_s=5.0)
        await driver.prepare()
        assert (await driver.read()).watts_w is not None
        with pytest.raises(AsicRefused, match="no password"):
            await driver.sleep()
        wrong = await connect(miner.address, credentials=Credentials("guess"), deadline_s=5.0)
        with pytest.raises(AsicRefused, match=told) as refusal:
            await wrong.sleep()
        assert "guess" not in str(refusal.value) + repr(wrong._setup)
        assert not miner.machine.asleep

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_poll_gives_watts_and_hashrate(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        reading = await driver.poll()
        assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.02)
        assert reading.hashrate_h_per_s == pytest.approx(miner.machine.hashrate_h_per_s(), rel=0.02)

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize("kind", KINDS)
def test_prepare_changes_nothing_and_can_be_repeated(on_miner, kind):
    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.prepare()
        await driver.prepare()
        assert miner.machine.commands == 0
        await driver.sleep()
        assert miner.machine.asleep
        await driver.close()
        await driver.wake()
        assert not miner.machine.asleep, "what was let go is fetched again"
        await driver.close()

    on_miner(kind, scenario, full=True)


@pytest.mark.parametrize(("kind", "low"), LOW)
def test_a_point_that_is_held_already_costs_no_command(on_miner, kind, low):
    """On a Whatsminer each setting of the limit restarts mining."""

    async def scenario(miner):
        driver = await driver_of(miner)
        await driver.set_point(low, 1500)
        given = miner.machine.commands
        await driver.set_point(low, 1500)
        assert miner.machine.commands == given > 0

    on_miner(kind, scenario, full=True)


def test_a_model_that_nobody_rates_needs_its_owners_word(on_miner):
    """The limit in force is no rating: it may have been set low by us, an hour ago."""

    async def scenario(miner):
        found = Found("whatsminer", "M99_VK1", "20251209")
        setup = Setup(miner.address, found, ABILITIES["whatsminer"], None, 1.0)
        stated = Stated("M99_VK1", "20251209", None, None, 200e12)
        with pytest.raises(AsicRefused, match="nameplate_w"):
            identity(setup, stated)
        known = identity(replace(setup, nameplate_w=4000.0), stated)
        assert known.nameplate_w == known.points[-1].watts_w == 4000
        assert known.points[-1].hashrate_h_per_s == 200e12

    on_miner("whatsminer", scenario)


def test_a_whatsminer_that_answers_only_on_4433_is_driven_as_v3(on_miner):
    async def scenario(miner):
        miner._doors[miner.ports.index(4028)].shut()
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
