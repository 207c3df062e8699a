"""The physics: ramps, noise, seeds. No sockets and no waiting; the clock is a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.emulate.machine import REPORT_NOISE, Machine
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
