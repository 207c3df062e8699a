"""The physics: ramps, noise, seeds. No sockets and no waiting; the clock is a number."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.emulate.machine import REPORT_NOISE, Machine
from wattshift_cluster.emulate.motion import Phase
from wattshift_cluster.emulate.specs import M60S, S19K_PRO

SEEDS = st.integers(0, 2**32)


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def machine_of(spec, seed=1, **options):
    clock = Clock()
    return clock, Machine("m", spec, seed=seed, clock=clock, **options)


@given(SEEDS, st.sampled_from([S19K_PRO, M60S]))
def test_down_within_5_s_and_up_within_10_s_from_any_seed(seed, spec):
    clock, machine = machine_of(spec, seed, full=True)
    full_w = machine.watts_w()
    assert full_w == pytest.approx(spec.curve[-3][0] if spec is S19K_PRO else 3441, rel=0.016)
    machine.sleep()
    clock.now_s += 0.19
    assert machine.watts_w() == full_w, "no firmware reacts in no time"
    clock.now_s += 4.81
    assert 20 < machine.watts_w() < 30
    machine.wake()
    clock.now_s += 4.0
    assert machine.watts_w() < full_w, "it ramps, it does not jump"
    clock.now_s += 6.0
    assert machine.watts_w() == pytest.approx(full_w)


@given(SEEDS, st.lists(st.tuples(st.floats(0, 6), st.sampled_from("swlhw")), max_size=12))
def test_the_draw_never_jumps(seed, script):
    clock, machine = machine_of(S19K_PRO, seed)
    act = {
        "s": machine.sleep,
        "w": machine.wake,
        "l": lambda: machine.set_profile("190MHz"),
        "h": lambda: machine.set_profile("default"),
    }
    for wait_s, command in script:
        before_w = machine.watts_w()
        act[command]()
        assert machine.watts_w() == pytest.approx(before_w)
        clock.now_s += wait_s
        assert 0 < machine.watts_w() <= 2794 * 1.011


def test_same_seed_same_machine_and_another_seed_another():
    draws = []
    for seed in (3, 3, 4):
        clock, machine = machine_of(S19K_PRO, seed)
        machine.set_profile("390MHz")
        machine.wake()
        clock.now_s += 2.0
        draws.append([machine.watts_w(), machine.reported_watts_w(), machine.reported_watts_w()])
    assert draws[0] == draws[1] != draws[2]


def test_noise_is_on_the_report_and_never_on_the_truth():
    _, machine = machine_of(S19K_PRO, full=True)
    true_w = machine.watts_w()
    reports = [machine.reported_watts_w() for _ in range(500)]
    assert {machine.watts_w() for _ in range(50)} == {true_w}
    assert max(abs(r / true_w - 1) for r in reports) <= REPORT_NOISE
    assert len(set(reports)) > 400


def test_profiles_draw_what_their_row_says():
    clock, machine = machine_of(S19K_PRO, full=True)
    for profile in S19K_PRO.profiles:
        assert machine.set_profile(profile.name)
        clock.now_s += 12.0
        assert machine.watts_w() == pytest.approx(profile.watts_w, rel=0.0101)
        assert machine.hashrate_h_per_s() == pytest.approx(profile.hashrate_h_per_s, rel=1e-6)
    assert not machine.set_profile("9000MHz")


@given(SEEDS, st.floats(1204, 3441))
def test_a_power_limit_is_held_from_below(seed, limit_w):
    clock, machine = machine_of(M60S, seed, full=True)
    assert machine.set_limit(limit_w)
    clock.now_s += 12.0
    assert 0.984 * limit_w <= machine.watts_w() <= limit_w
    assert not machine.set_limit(1203)
    assert not machine.set_limit(3442)
    assert not machine.set_profile("default")


def test_a_repeated_command_does_not_start_the_delay_again():
    clock, machine = machine_of(S19K_PRO, full=True)
    for _ in range(50):
        machine.sleep()
        clock.now_s += 0.1
    assert machine.watts_w() < 30


def test_no_hashes_asleep_nor_before_the_boards_are_up():
    clock, machine = machine_of(S19K_PRO)
    assert machine.hashrate_h_per_s() == 0.0
    machine.wake()
    assert machine.hashrate_h_per_s() == 0.0
    clock.now_s += 10.0
    assert machine.hashrate_h_per_s() == pytest.approx(121.8e12)
    machine.sleep()
    assert machine.hashrate_h_per_s() == 0.0
    assert machine.watts_w() > 2000, "the draw follows later"


def after(clock, machine, seconds):
    clock.now_s += seconds
    return machine.watts_w(), machine.hashrate_h_per_s(), machine.phase


def test_a_power_cut_is_at_once_and_power_brings_it_back_by_itself():
    clock, machine = machine_of(S19K_PRO, full=True)
    machine.set_profile("390MHz")
    clock.now_s += 12.0
    machine.power_off()
    assert after(clock, machine, 0.0) == (0.0, 0.0, Phase.OFF)
    machine.sleep()
    machine.wake()
    assert after(clock, machine, 60.0) == (0.0, 0.0, Phase.OFF)
    machine.power_on()
    watts_w, hashrate, phase = after(clock, machine, 1.0)
    assert (hashrate, phase) == (0.0, Phase.BOOTING)
    assert 0.0 < watts_w < 30.0
    assert machine.boots_s > 0.0
    watts_w, _, phase = after(clock, machine, 13.0)
    assert watts_w == pytest.approx(1657, rel=0.0101), "at the set point it had"
    assert phase is Phase.STEADY


@pytest.mark.parametrize("keeps", [True, False])
def test_a_sleep_outlives_a_restart_only_where_it_is_configuration(keeps):
    clock, machine = machine_of(replace(S19K_PRO, keeps_sleep=keeps), full=True)
    machine.sleep()
    clock.now_s += 6.0
    machine.restart()
    clock.now_s += 20.0
    assert machine.asleep is keeps
    assert (machine.hashrate_h_per_s() == 0.0) is keeps


def test_warm_air_lowers_the_clock_and_hot_air_shuts_down():
    clock, machine = machine_of(S19K_PRO, full=True)
    full_w = machine.watts_w()
    cool_c = machine.temperature_c()
    machine.set_ambient(40.5)
    watts_w, hashrate, _ = after(clock, machine, 12.0)
    assert watts_w == pytest.approx(full_w * 1916 / 2192)
    assert 0.0 < hashrate < 121.8e12
    assert machine.temperature_c() > cool_c
    machine.set_ambient(47.0)
    watts_w, hashrate, phase = after(clock, machine, 12.0)
    assert watts_w < 30.0
    assert (hashrate, phase) == (0.0, Phase.HOT)
    machine.set_ambient(44.0)
    assert after(clock, machine, 12.0)[2] is Phase.HOT, "it waits for cooler air"
    machine.set_ambient(26.0)
    assert after(clock, machine, 12.0)[0] == pytest.approx(full_w)
    assert machine.mode == "default", "the set point was never touched"
    assert machine.commands == 0


def test_a_real_machine_warms_up_without_hashes():
    clock, machine = machine_of(M60S, realism="real")
    machine.wake()
    _, hashrate, phase = after(clock, machine, 20.0)
    assert phase is Phase.WARMING
    assert hashrate == 0.0
    assert machine.watts_w() > 300.0
    machine.set_limit(2000.0)
    assert after(clock, machine, 1.0)[2] is Phase.WARMING, "a new limit does not end it"
    _, _, phase = after(clock, machine, 240.0)
    assert phase is Phase.STEADY
    assert machine.watts_w() == pytest.approx(2000, rel=0.02)


def test_a_new_limit_restarts_mining_on_a_real_whatsminer():
    clock, machine = machine_of(M60S, full=True, realism="real")
    machine.set_limit(2000.0)
    seen = {after(clock, machine, 1.0)[2] for _ in range(60)}
    assert {Phase.RESTARTING, Phase.WARMING} <= seen
    clock.now_s += 240.0
    assert machine.phase is Phase.STEADY
    clock, quick = machine_of(M60S, full=True)
    quick.set_limit(2000.0)
    assert Phase.RESTARTING not in {after(clock, quick, 0.2)[2] for _ in range(60)}


def test_a_raise_is_tuned_in_steps_where_the_firmware_tunes():
    clock, machine = machine_of(replace(M60S, kind="braiins", wander=0.0), realism="real")
    machine.set_limit(1300.0)
    machine.wake()
    clock.now_s += 1000.0
    low_w = machine.watts_w()
    machine.set_limit(3441.0)
    samples = [after(clock, machine, 1.0) for _ in range(600)]
    tuning = {round(watts_w) for watts_w, _, phase in samples if phase is Phase.TUNING}
    assert len(tuning) > 6
    drawn = [watts_w for watts_w, _, _ in samples]
    assert drawn == sorted(drawn)
    assert drawn[-1] == pytest.approx(3441, rel=0.02)
    assert all(hashrate > 0.0 for _, hashrate, _ in samples), "it hashes all the while"
    machine.set_limit(1300.0)
    assert after(clock, machine, 10.0)[0] == pytest.approx(low_w), "down needs no tuning"


def test_a_real_draw_wanders_slowly_and_the_same_moment_gives_the_same_watts():
    clock, machine = machine_of(S19K_PRO, full=True, realism="real")
    samples = [after(clock, machine, 1.0)[0] for _ in range(600)]
    mean_w = sum(samples) / len(samples)
    assert len({round(sample, 3) for sample in samples}) > 500
    assert max(abs(sample / mean_w - 1.0) for sample in samples) < 2.5 * S19K_PRO.wander
    steps = [abs(b / a - 1.0) for a, b in itertools.pairwise(samples)]
    assert max(steps) < 0.4 * S19K_PRO.wander, "slow"
    assert machine.watts_w() == machine.watts_w()


@given(SEEDS, st.lists(st.tuples(st.floats(0, 90), st.sampled_from("swlhrax")), max_size=10))
def test_no_script_makes_a_real_machine_jump_up_or_draw_too_much(seed, script):
    clock, machine = machine_of(
        replace(M60S, kind="braiins", wander=0.0), seed, realism="real", full=True
    )
    act = {
        "s": machine.sleep,
        "w": machine.wake,
        "l": lambda: machine.set_limit(1300.0),
        "h": lambda: machine.set_limit(3441.0),
        "r": machine.restart,
        "a": lambda: machine.set_ambient(43.0),
        "x": lambda: machine.set_ambient(20.0),
    }
    for wait_s, command in script:
        before_w = machine.watts_w()
        act[command]()
        assert machine.watts_w() == pytest.approx(before_w)
        for _ in range(5):
            clock.now_s += wait_s / 5
            watts_w, hashrate, phase = after(clock, machine, 0.0)
            assert 0.0 < watts_w <= 3441.0
            assert phase.hashes or hashrate == 0.0
    clock.now_s += 2000.0
    assert machine.phase in (Phase.STEADY, Phase.ASLEEP)
