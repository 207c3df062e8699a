"""The guard of a meter: each flaw by its name, and never a figure below what was metered."""

import asyncio
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from wattshift_cluster.grid.meters.counter import Count, count
from wattshift_cluster.grid.meters.guard import Memory, Raw, Rules, Verdict, judge
from wattshift_cluster.grid.meters.guarded import GuardedMeter
from wattshift_cluster.grid.meters.reading import Flaw, MeterReading

RULES = Rules(limit_w=20_000.0)
SOLAR = Rules(limit_w=20_000.0, exports=True)


def told(verdict: Verdict) -> list[Flaw]:
    return [one.flaw for one in verdict.findings]


def run(
    rules: Rules, watts: Sequence[float | None], devices: Sequence[float | None], step_s: float = 1
) -> list[Verdict]:
    memory, verdicts = Memory(), []
    for at, (watts_w, devices_w) in enumerate(zip(watts, devices, strict=True)):
        raw = Raw(watts_w, 1000.0 + at * step_s, at * step_s, devices_w=devices_w)
        memory, verdict = judge(rules, memory, raw)
        verdicts.append(verdict)
    return verdicts


def test_what_is_plausible_is_believed_as_it_is() -> None:
    for rules in (RULES, SOLAR):
        found = run(rules, [0.0, 9000.0, 21_000.0, 39_999.0], [None] * 4)
        assert [one.watts_w for one in found] == [0.0, 9000.0, 21_000.0, 39_999.0]
        assert [told(one) for one in found] == [[]] * 4


@pytest.mark.parametrize("watts_w", [math.nan, math.inf, -math.inf])
def test_no_number_is_unknown(watts_w: float) -> None:
    (found,) = run(RULES, [watts_w], [9000.0])
    assert (found.watts_w, told(found)) == (None, [Flaw.NAN])


def test_a_clock_that_goes_back_makes_one_sample_unknown() -> None:
    memory = Memory()
    seen = []
    for at_s in (100.0, 101.0, 41.0, 42.0):
        memory, verdict = judge(RULES, memory, Raw(9000.0, at_s, at_s, energy_wh=5.0, hz=50.0))
        seen.append((verdict.watts_w, verdict.energy_wh, verdict.hz, told(verdict)))
    good: tuple[object, ...] = (9000.0, 5.0, 50.0, [])
    assert seen == [good, good, (None, None, None, [Flaw.BACKWARDS]), good]
    assert (
        "went back by 60.0 s" in judge(RULES, Memory(101.0), Raw(1.0, 41.0, 0))[1].findings[0].text
    )


def test_a_negative_reading_is_unknown_where_nothing_is_exported() -> None:
    noise, cold, small = run(RULES, [-99.0, -5000.0, -5000.0], [None, None, 300.0])
    assert (noise.watts_w, told(noise)) == (0.0, [])
    for found in (cold, small):
        assert (found.watts_w, told(found)) == (None, [Flaw.NEGATIVE])


def test_a_swapped_sign_is_corrected_where_the_devices_agree() -> None:
    right, less, more = run(RULES, [-9000.0, -5000.0, -19_000.0], [8500.0] * 3)
    assert (right.watts_w, told(right)) == (9000.0, [Flaw.SWAPPED])
    for found in (less, more):
        assert (found.watts_w, told(found)) == (None, [Flaw.NEGATIVE])


def test_a_swapped_sign_with_solar_is_found_by_steps_the_wrong_way() -> None:
    levels = [4000.0, 12_000.0, 5000.0, 14_000.0, 6000.0]
    devices = [level for level in levels for _ in range(31)]
    flat = [-one + 300.0 for one in devices]
    swapped = run(SOLAR, flat, devices)
    assert (swapped[-1].watts_w, told(swapped[-1])) == (None, [Flaw.SWAPPED])
    assert told(swapped[60]) == []
    surplus = [one - 15_000.0 for one in devices]
    assert all(not told(one) for one in run(SOLAR, surplus, devices))
    mended = run(SOLAR, [*flat, *(12_000.0,) * 31], [*devices, *(12_000.0,) * 31])
    assert told(mended[-1]) == []


def test_more_than_the_connection_carries_is_unknown_until_it_persists() -> None:
    found = run(RULES, [9000.0, 45_000.0, 9000.0, 45_000.0, 46_000.0, 47_000.0], [None] * 6)
    assert [one.watts_w for one in found] == [9000.0, None, 9000.0, None, None, 47_000.0]
    assert [told(one) for one in found] == [[], [Flaw.BEYOND], [], *[[Flaw.BEYOND]] * 3]
    never = run(RULES, [2e6] * 9 + [-45_000.0] * 9, [None] * 18)
    assert all(one.watts_w is None and told(one) == [Flaw.BEYOND] for one in never)


def test_a_meter_that_stands_still_while_devices_move_is_unknown() -> None:
    devices = [9000.0] * 30 + [3000.0] * 60
    found = run(RULES, [9500.0] * 90, devices)
    assert [one.watts_w for one in found[:60]] == [9500.0] * 60
    assert all(one.watts_w is None and told(one) == [Flaw.FROZEN] for one in found[60:])
    assert "9,500 W for 60 s" in found[60].findings[0].text
    awake = run(RULES, [9500.0] * 90 + [3400.0], [*devices, 3000.0])
    assert awake[-1].watts_w == 3400.0


def test_a_meter_may_stand_still_while_the_site_does_or_nobody_knows() -> None:
    for devices in ([9000.0] * 200, [9000.0, 9900.0] * 100, [None] * 200):
        assert all(not told(one) for one in run(RULES, [9500.0] * 200, devices))
    late = [9000.0] * 12 + [3000.0] * 188
    assert all(not told(one) for one in run(RULES, [3400.0] * 200, late)), "devices tell later"


def test_a_frequency_or_voltage_that_no_grid_has_is_unknown() -> None:
    raw = Raw(9000.0, 1.0, 1.0, hz=5.0, volts_v=-3.0)
    verdict = judge(RULES, Memory(), raw)[1]
    assert (verdict.watts_w, verdict.hz, verdict.volts_v) == (9000.0, None, None)
    assert told(verdict) == [Flaw.IMPLAUSIBLE] * 2
    nan = judge(RULES, Memory(), replace(raw, hz=math.nan, volts_v=231.0))[1]
    assert (nan.hz, nan.volts_v) == (None, 231.0)


@pytest.mark.parametrize(("bits", "scale"), [(16, 100.0), (32, 0.1), (32, 1000.0)])
def test_a_counter_is_followed_across_its_wraps(bits: int, scale: float) -> None:
    """Against a counter without an end, read by somebody who simply adds up."""
    rng = random.Random(bits)
    wraps_wh = 2**bits * scale
    true = 2**bits - 3
    memory, at_s, wrapped = Count(), 0.0, 0
    for _ in range(300):
        memory, energy_wh, found = count(
            memory, (true % 2**bits) * scale, wraps_wh, at_s, limit_w=1e6
        )
        assert energy_wh == pytest.approx(true * scale, rel=1e-12)
        wrapped += found is not None and found.flaw is Flaw.WRAPPED
        passed_s = rng.uniform(1, 600)
        at_s += passed_s
        true += int(rng.uniform(0, 2e6 * passed_s / 3600) / scale)
    assert wrapped == true // 2**bits or wrapped == (true // 2**bits) - 1
    assert wrapped >= 1


def test_a_counter_that_goes_back_or_leaps_is_unknown_and_counts_anew() -> None:
    memory = Count()
    seen = []
    for at, plain_wh in enumerate(
        (9000.0, 9005.0, 100.0, 50.0, 9010.0, 90_000.0, 90_005.0, 3.0, 4.0)
    ):
        memory, energy_wh, found = count(memory, plain_wh, None, float(at), limit_w=20_000.0)
        seen.append((energy_wh, None if found is None else found.flaw))
    back, leap = Flaw.COUNTER_BACK, Flaw.COUNTER_JUMP
    assert seen == [
        (9000.0, None),
        (9005.0, None),
        (None, back),
        (None, back),
        (9010.0, None),
        (None, leap),
        (90_005.0, leap),
        (None, back),
        (4.0, back),
    ]


def test_a_gap_in_which_a_counter_may_have_wrapped_more_than_once_is_no_count() -> None:
    memory, _, _ = count(Count(), 60_000.0, 65_536.0, 0.0, limit_w=20_000.0)
    _, short_wh, found = count(memory, 1000.0, 65_536.0, 1800.0, limit_w=20_000.0)
    assert (short_wh, found and found.flaw) == (66_536.0, Flaw.WRAPPED)
    _, long_wh, found = count(memory, 61_000.0, 65_536.0, 7200.0, limit_w=20_000.0)
    assert (long_wh, found and found.flaw) == (None, Flaw.COUNTER_JUMP)


def naive(rules: Rules, watts: Sequence[float], devices: Sequence[float | None]) -> list[object]:
    """What is believed at a site that cannot export, each time from the whole history, 1 Hz."""
    answers: list[object] = []
    for now, watts_w in enumerate(watts):
        far = [abs(one) > 2 * rules.limit_w for one in watts[: now + 1]]
        row = len(list(itertools.takewhile(bool, reversed(far))))
        begun = now
        while begun > 0 and watts[begun - 1] == watts_w:
            begun -= 1
        settled = [
            (at, one)
            for at in range(begun + 15, now + 1)
            if at > begun and (one := devices[at]) is not None
        ]
        apart_since = None
        for at, one in settled[1:]:
            if abs(one - settled[0][1]) < 0.05 * rules.limit_w:
                apart_since = None
            elif apart_since is None:
                apart_since = at
        frozen = apart_since is not None and now - apart_since >= rules.frozen_after_s
        device_w = devices[now]
        if far[-1]:
            taken = row >= 3 and 0 < watts_w <= 10 * rules.limit_w
            answers.append(watts_w if taken else None)
        elif frozen:
            answers.append(None)
        elif watts_w >= 0:
            answers.append(watts_w)
        elif watts_w >= -0.005 * rules.limit_w:
            answers.append(0.0)
        elif (
            device_w is not None
            and device_w >= 0.05 * rules.limit_w
            and 0.75 * device_w <= -watts_w <= 1.5 * device_w + 0.1 * rules.limit_w
        ):
            answers.append(-watts_w)
        else:
            answers.append(None)
    return answers


@pytest.mark.parametrize("seed", range(12))
def test_a_long_day_of_faults_is_judged_as_somebody_with_the_whole_record_would(seed: int) -> None:
    rng = random.Random(seed)
    rules = Rules(20_000.0, frozen_after_s=10.0)
    watts, devices = [], []
    level_w, shown_w, fault = 9000.0, 9300.0, "none"
    for at in range(300):
        if rng.random() < 0.04:
            level_w = rng.choice([0.0, 800.0, 4000.0, 9000.0, 15_000.0])
        if at % 30 == 0:
            fault = rng.choice(["none", "frozen", "frozen", "swapped", "noise", "beyond", "mad"])
        shown_w = {
            "none": level_w + 300.0,
            "frozen": shown_w,
            "swapped": -level_w - 300.0,
            "noise": rng.choice([-150.0, -60.0, 0.0]),
            "beyond": rng.choice([45_000.0, 45_000.0, 45_000.0, 3e5, -45_000.0]),
            "mad": rng.choice([-3e4, -1.0, 0.0, 2e4, 4e4, 5e4]),
        }[fault]
        watts.append(shown_w)
        devices.append(None if rng.random() < 0.1 else level_w + rng.uniform(-200, 200))
    found = run(rules, watts, devices)
    assert [one.watts_w for one in found] == naive(rules, watts, devices)
    for metered_w, one in zip(watts, found, strict=True):
        assert one.watts_w is None or one.watts_w >= metered_w, "never less than was metered"
        noise = -100.0 <= metered_w < 0
        assert one.watts_w == metered_w or one.findings or noise, "a change is told by name"


class Told:
    """A meter that says what the test has put."""

    def __init__(self, reading: MeterReading) -> None:
        self.told = reading
        self.polls = 0

    async def poll(self) -> MeterReading:
        self.polls += 1
        return self.told

    def reading(self) -> MeterReading:
        return self.told

    async def close(self) -> None:
        self.told = MeterReading(None, None, None, None, (), "closed")


async def _guarded() -> None:
    steady = [0.0]
    devices = [9000.0]
    inner = Told(MeterReading(9500.0, 100.0, 0.0, "measured", energy_wh=7.0, hz=50.0))
    meter = GuardedMeter(inner, RULES, devices_w=lambda: devices[0], steady_s=lambda: steady[0])
    assert (await meter.poll()).watts_w == 9500.0
    for at in range(200):
        steady[0] += 1
        devices[0] = 9000.0 if at < 50 else 3000.0
        assert (await meter.poll()).findings == (), "one sample is judged once"
    inner.told = replace(inner.told, at_s=300.0, watts_w=-9000.0)
    reading = meter.reading()
    assert (reading.watts_w, reading.fault) == (None, "-9,000 W at a site that cannot export")
    assert reading.hz == 50.0
    devices[0] = 9000.0
    inner.told = replace(inner.told, at_s=301.0)
    assert (await meter.poll()).watts_w == 9000.0
    assert meter.reading().fault is None
    assert [one.flaw for one in meter.reading().findings] == [Flaw.SWAPPED]
    inner.told = replace(inner.told, watts_w=None, energy_wh=None, hz=None, fault="stale")
    stale = meter.reading()
    assert (stale.watts_w, stale.energy_wh, stale.hz, stale.fault) == (None, None, None, "stale")


def test_a_guarded_meter_judges_each_sample_once_and_keeps_stale_unknown() -> None:
    asyncio.run(_guarded())
