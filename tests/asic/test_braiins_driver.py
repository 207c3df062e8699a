"""Braiins OS through our driver, against real sockets; watts are compared with the truth."""

import asyncio
import itertools
import time

import pytest
from tests.asic.confirm import confirmed
from tests.ports import own_address

from wattshift_cluster.asic.braiins_curve import (
    Curve,
    Range,
    Rung,
    from_profile,
    from_range,
    range_of,
)
from wattshift_cluster.asic.connect import connect
from wattshift_cluster.asic.driver import AsicRefused, AsicUnreachable, Credentials
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.emulate import braiins_rest
from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.http import HttpResponse
from wattshift_cluster.emulate.listener import EmulatedMiner

OWNERS = Credentials("the owner's")
SPEED = 100.0
"""Emulated seconds per real second."""

RAMP_S = 0.2


def on_miner(scenario, *, kind="braiins", full=True, owners=OWNERS, deadline_s=2.0):
    async def main():
        address = own_address()
        miner = EmulatedMiner(
            "rig",
            kind,
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


def by_target(identity):
    return {int(p.mode.partition(":")[2]): p for p in identity.points[1:]}


def test_it_is_identified_with_the_targets_of_its_efficiency_profile():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert identity.model == "Antminer S21 Pro"
        assert identity.firmware == "Braiins OS 26.04"
        assert (identity.mac, identity.serial) == (
            miner.firmware.mac.upper(),
            miner.firmware.serial,
        )
        assert identity.points[0].mode == "sleep"
        points = by_target(identity)
        assert (min(points), max(points), len(points)) == (1500, 3510, 8)
        for target_w, point in points.items():
            assert point.watts_w == pytest.approx(target_w * 1.02 * 1.05, rel=0.001)
        assert points[3510].hashrate_h_per_s == pytest.approx(234e12)
        assert points[1500].hashrate_h_per_s > 234e12 * 1500 / 3510, (
            "its own curve, no straight line"
        )
        assert identity.continuous
        assert identity.nameplate_w == identity.power_on_w == points[3510].watts_w

    on_miner(scenario)


def test_without_a_profile_the_constraints_are_divided_evenly():
    async def scenario(miner, driver):
        points = by_target(await driver.identify())
        assert list(points) == [1500, 1902, 2304, 2706, 3108, 3510]
        assert points[1500].hashrate_h_per_s == pytest.approx(234e12 * 1500 / 3510)
        assert points[3510].watts_w == pytest.approx(3510 * 1.05)

    on_miner(scenario, kind="braiins_25_07")


def test_a_set_point_is_reached_on_the_fly_and_confirmed_by_watts():
    async def scenario(miner, driver):
        identity = await driver.identify()
        for target_w in (2361, 1500, 3510):
            point = by_target(identity)[target_w]
            accepted_s = boot_s()
            await driver.set_point(point.mode, point.watts_w)
            assert miner.machine.hashrate_h_per_s() > 0, "it hashes on"
            await asyncio.sleep(RAMP_S)
            reading = await driver.read()
            assert miner.machine.mode == reading.mode == point.mode
            assert miner.machine.watts_w() == pytest.approx(target_w, rel=0.036)
            assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)
            assert reading.hashrate_h_per_s == pytest.approx(point.hashrate_h_per_s, rel=0.03)
            assert reading.estimated
            assert reading.power_limit_w == target_w
            assert reading.temperature_c is not None
            assert confirmed(reading, point, identity.tolerance, since_boot_s=accepted_s)
            assert not confirmed(reading, identity.points[0], 0.05)
        assert miner.firmware.restarts == 0

    on_miner(scenario)


def test_pyasic_restarts_mining_for_what_we_set_on_the_fly():
    import pyasic

    async def scenario(miner, driver):
        point = by_target(await driver.identify())[2361]
        await driver.set_point(point.mode, point.watts_w)
        assert miner.firmware.restarts == 0
        raw = await pyasic.get_miner(miner.address)
        raw.web.pwd = OWNERS.password
        assert await raw.set_power_limit(2649)
        assert miner.firmware.restarts == 1, "hazard 13"

    on_miner(scenario)


def test_any_watts_between_two_points_are_kept_and_belong_to_the_upper_one():
    async def scenario(miner, driver):
        identity = await driver.identify()
        point = by_target(identity)[2361]
        below = by_target(identity)[2074]
        for leased_w in (point.watts_w - 1.0, (point.watts_w + below.watts_w) / 2):
            await driver.set_point(point.mode, leased_w)
            await asyncio.sleep(RAMP_S)
            assert 0.93 * leased_w < miner.machine.watts_w() <= leased_w
            assert (await driver.read()).mode == point.mode, "no foreign write"
        with pytest.raises(AsicRefused, match="the least is"):
            await driver.set_point("limit:1500", 1500.0)
        with pytest.raises(AsicRefused, match="no such point"):
            await driver.set_point("limit:1501", 3000.0)

    on_miner(scenario)


@pytest.mark.parametrize("kind", ["braiins", "braiins_25_07"])
def test_sleep_and_wake_keep_the_target(kind):
    async def scenario(miner, driver):
        identity = await driver.identify()
        await driver.set_point(identity.points[1].mode, identity.points[1].watts_w)
        await asyncio.sleep(RAMP_S)
        low_w = miner.machine.watts_w()
        await driver.sleep()
        await driver.sleep()
        await asyncio.sleep(RAMP_S)
        asleep = await driver.read()
        assert miner.machine.watts_w() < 30
        assert (asleep.mode, asleep.hashrate_h_per_s, asleep.power_limit_w) == ("sleep", 0.0, None)
        assert confirmed(asleep, identity.points[0], identity.tolerance)
        await driver.wake()
        await driver.wake()
        await asyncio.sleep(RAMP_S)
        assert miner.machine.watts_w() == pytest.approx(low_w)

    on_miner(scenario, kind=kind)


def test_a_waking_machine_never_passes_a_higher_target():
    async def scenario(miner, driver):
        point = (await driver.identify()).points[1]
        command = asyncio.create_task(driver.set_point(point.mode, point.watts_w))
        seen_w = []
        until_s = time.monotonic() + 0.3
        while not command.done() or time.monotonic() < until_s:
            seen_w.append(miner.machine.watts_w())
            assert miner.machine.asleep or miner.machine.mode == point.mode
            # After every turn of the loop, so that nothing between two requests is missed.
            await asyncio.sleep(0.004 if command.done() else 0)
        await command
        assert 0.9 * 1500 < max(seen_w) <= point.watts_w

    on_miner(scenario, full=False)


def test_one_login_serves_everything_and_a_dead_token_costs_one_more():
    async def scenario(miner, driver):
        await asyncio.gather(*(driver.poll() for _ in range(8)), driver.prepare(), driver.read())
        assert miner.firmware.logins == 1
        await driver.prepare()
        assert miner.firmware.logins == 1
        miner.firmware.restart()
        await asyncio.gather(driver.sleep(), *(driver.poll() for _ in range(4)))
        assert miner.firmware.logins == 2
        assert miner.machine.asleep

    on_miner(scenario)


def test_a_changed_password_is_tried_once_and_the_machine_stays_visible():
    async def scenario(miner, driver):
        await driver.identify()
        miner.firmware.change_password("somebody else's")
        for command in (driver.sleep, driver.wake, driver.prepare, driver.read):
            with pytest.raises(AsicRefused, match="refuses the password") as refusal:
                await command()
            assert OWNERS.password not in str(refusal.value)
        assert miner.firmware.refused_logins == 1
        assert not miner.machine.asleep
        reading = await driver.poll()
        assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)
        assert reading.hashrate_h_per_s == pytest.approx(234e12, rel=0.03)

    on_miner(scenario)


def test_without_a_password_it_is_read_and_never_commanded():
    async def scenario(miner, driver):
        identity = await driver.identify()
        assert [p.mode for p in identity.points] == ["as-found"]
        assert identity.nameplate_w == identity.safe_w == 3510
        for reading in (await driver.poll(), await driver.read()):
            assert reading.watts_w == pytest.approx(miner.machine.watts_w(), rel=0.011)
            assert reading.estimated
        before = miner.machine.commands
        for command in (driver.sleep(), driver.wake(), driver.set_point("limit:1500", 3000.0)):
            with pytest.raises(AsicRefused, match="no password"):
                await command
        assert miner.machine.commands == before
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


@pytest.mark.parametrize("points", [[{"power_target": {"watt": "many"}}], "many", None])
def test_a_garbled_profile_is_not_taken_for_none(monkeypatch, points):
    asked = ("GET", "performance/efficiency-profile")
    garbled = HttpResponse(200, {"points": points})
    monkeypatch.setitem(braiins_rest._CLOSED, asked, lambda state, request: garbled)

    async def scenario(miner, driver):
        with pytest.raises(AsicUnreachable, match="profile is unreadable"):
            await driver.identify()

    on_miner(scenario)


def test_faults_are_named_and_never_read_as_zero():
    async def scenario(miner, driver):
        identity = await driver.identify()
        await miner.inject(Fault.IGNORE)
        with pytest.raises(AsicRefused, match="the target is 3510"):
            await driver.set_point(identity.points[1].mode, identity.points[1].watts_w)
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
        assert (await driver.poll()).watts_w is not None

    on_miner(scenario, deadline_s=0.5)


def test_a_lease_is_turned_into_a_target_that_stays_below_it():
    curve = Curve((Rung(900, 991.2, 38e12), Rung(1500, 1600.0, 66e12), Rung(3000, 3150.0, 130e12)))
    for leased_w in range(992, 3160, 7):
        target_w = curve.target_for("here", "limit:3000", float(leased_w))
        draw_w = next(
            a.draw_w + (target_w - a.target_w) / (b.target_w - a.target_w) * (b.draw_w - a.draw_w)
            for a, b in itertools.pairwise(curve.rungs)
            if target_w <= b.target_w
        )
        assert draw_w <= leased_w * 1.001
    assert curve.mode_of(899) == "limit:899"
    assert curve.mode_of(900) == "limit:900"
    assert curve.mode_of(901) == "limit:1500"
    assert curve.mode_of(3001) == "limit:3001"


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        "many",
        [None, 5, {}],
        [{"power_target": {"watt": "x"}, "hashrate": {"terahash_per_second": 5}}],
        [{"power_target": {"watt": 2000}, "hashrate": {"terahash_per_second": float("nan")}}],
        [{"power_target": {"watt": 2000}, "hashrate": {"terahash_per_second": 150}}],
    ],
)
def test_an_unusable_profile_is_none(points):
    assert from_profile({"points": points}, Range(1500, 3500, 4000), 3500, 0.05) is None


def test_a_profile_is_cut_to_what_is_allowed_and_its_draw_never_falls():
    rows = [
        {
            "power_target": {"watt": target_w},
            "consumption": {"watt": estimate_w},
            "hashrate": {"terahash_per_second": target_w / 15},
        }
        for target_w, estimate_w in (
            (900, 944),
            (2000, 2200),
            (2100, 2000),
            (3500, None),
            (4200, 1),
        )
    ]
    curve = from_profile({"points": rows[::-1]}, Range(1500, 3500, 4000), 3500, 0.05)
    assert [rung.target_w for rung in curve.rungs] == [2000, 2100, 3500]
    assert [round(rung.draw_w) for rung in curve.rungs] == [2310, 2310, 3675]


def test_constraints_that_tell_nothing_are_none_and_overclocking_is_not_offered():
    assert range_of({}) is None
    limits = {"min": {"watt": 2000}, "max": {"watt": 1000}}
    assert range_of({"tuner_constraints": {"power_target": limits}}) is None
    limits = {"min": {"watt": 1000}, "default": {"watt": 3500}, "max": {"watt": 5000}}
    allowed = range_of({"tuner_constraints": {"power_target": limits}})
    assert allowed == Range(1000, 3500, 5000)
    assert from_range(allowed, 3500.0, 234e12, 0.05).rungs[-1].target_w == 3500
