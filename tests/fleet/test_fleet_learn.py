"""Learning watts and times from meters: properties over noise, wild samples, and other machines."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.fleet.learn import Learnt, Tally
from wattshift_cluster.fleet.levels import (
    Trace,
    level,
    settling_s,
    step_at,
)

SEEDS = st.integers(0, 10_000)


def trace(seed, events, *, base_w=20_000.0, noise_w=20.0, span_s=240, ramp_s=5.0, wild=0.0):
    """A meter at 1 Hz; each event is (at_s, watts) that come or go along a ramp."""
    rng = np.random.default_rng(seed)
    at_s = np.arange(float(span_s))
    watts_w = np.full(span_s, base_w) + rng.normal(0.0, noise_w, span_s)
    for event_s, change_w in events:
        watts_w += change_w * np.clip((at_s - event_s) / ramp_s, 0.0, 1.0)
    if wild:
        hit = rng.random(span_s) < wild
        watts_w[hit] += rng.choice([-1.0, 1.0], int(hit.sum())) * 50_000.0
    return Trace(at_s, watts_w)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(800.0, 6000.0), st.floats(0.0, 60.0), st.sampled_from([0.0, 0.05]))
def test_a_step_is_found_through_noise_and_wild_samples(seed, step_w, noise_w, wild):
    found = step_at(trace(seed, [(100.0, -step_w)], noise_w=noise_w, wild=wild), 100.0, 20.0, 60.0)
    if found is None:
        return  # a window that happens to look like a drift is given up, never guessed
    assert found.watts_w == pytest.approx(step_w, abs=6.0 * found.error_w + 0.5)
    assert found.error_w <= 0.4 * noise_w + 1e-9


def test_a_step_is_found_nearly_always():
    runs = [step_at(trace(seed, [(100.0, -3000.0)]), 100.0, 20.0, 60.0) for seed in range(100)]
    assert sum(one is not None for one in runs) >= 95


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(52.0, 88.0), st.sampled_from([-3000.0, 2500.0]))
def test_a_load_that_nobody_named_is_seen_in_the_window_and_given_up(seed, other_s, other_w):
    meter = trace(seed, [(100.0, -3000.0), (other_s, other_w)])
    found = step_at(meter, 100.0, 20.0, 60.0)
    assert found is None or found.watts_w == pytest.approx(3000.0, abs=100.0)


def test_too_few_or_unknown_samples_are_no_level():
    assert level(np.full(4, 100.0)) is None
    assert level(np.array([100.0] * 6 + [math.nan] * 6)) is None
    assert level(np.linspace(0.0, 5000.0, 60)) is None, "a ramp is not a level"


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(2.0, 40.0))
def test_a_transition_time_is_that_of_the_ramp(seed, ramp_s):
    meter = trace(seed, [(100.0, -3000.0)], ramp_s=ramp_s)
    found = step_at(meter, 100.0, 60.0, 60.0)
    if found is None:
        return
    took_s = settling_s(meter, 100.0, found)
    assert took_s is None or took_s <= 100.0
    if took_s is not None and took_s < 60.0:
        assert 0.9 * ramp_s - 2.0 <= took_s + 0.1 * ramp_s + 1.0


def test_times_are_close_to_the_ramp():
    meter = trace(3, [(100.0, -3000.0)], ramp_s=12.0, noise_w=5.0)
    found = step_at(meter, 100.0, 30.0, 60.0)
    assert settling_s(meter, 100.0, found) == pytest.approx(12.0, abs=1.5)
    never = Trace(meter.at_s[:105], meter.watts_w[:105])
    assert settling_s(never, 100.0, found) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 6000.0), min_size=2, max_size=30))
def test_a_tally_is_mean_and_standard_error(values):
    tally = Tally()
    for value in values:
        tally = tally.add(value)
    assert tally.mean == pytest.approx(np.mean(values), abs=1e-6)
    expected = np.std(values, ddof=1) / math.sqrt(len(values))
    assert tally.error == pytest.approx(expected, abs=1e-3)
    assert tally.most == max(values)


def test_one_observation_keeps_its_own_error_and_none_has_none():
    assert math.isnan(Tally().error)
    assert Tally().add(3400.0, 12.0).error == 12.0


def test_a_stock_machine_gets_watts_from_the_feeders_meter():
    learnt = Learnt()
    for seed in range(8):
        step = step_at(trace(seed, [(100.0, -3370.0)]), 100.0, 20.0, 60.0)
        if step is not None:
            learnt = learnt.with_sleep_step("default", step, standby_w=30.0)
    watts_w, error_w = learnt.watts_w("default")
    assert watts_w == pytest.approx(3400.0, abs=5.0 * error_w)
    assert 0.0 < error_w < 40.0
    assert learnt.watts_w("low") is None, "unknown is not zero"


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.floats(0.8, 1.2))
def test_a_factor_corrects_the_firmware_and_nonsense_does_not_move_it(seed, factor):
    rng = np.random.default_rng(seed)
    learnt = Learnt()
    for _ in range(12):
        learnt = learnt.with_claim(3000.0, 3000.0 * factor * (1.0 + rng.normal(0.0, 0.005)))
    settled = learnt
    for meter_w in (0.0, 30_000.0, math.nan, math.inf, 3000.0 * factor * 1.3):
        learnt = learnt.with_claim(3000.0, meter_w)
    assert learnt == settled.with_claim(0.0, 100.0) == settled
    assert learnt.corrected_w(3200.0) == pytest.approx(3200.0 * factor, rel=0.01)


def test_a_meter_of_another_machine_teaches_nothing():
    for meter_w in (0.0, 1400.0, 6100.0, -3000.0, math.nan):
        assert Learnt().with_claim(3000.0, meter_w) == Learnt()


def test_a_factor_seen_once_is_not_used_yet():
    assert Learnt().with_claim(3000.0, 3300.0).corrected_w(3000.0) == 3000.0


def test_what_was_learnt_survives_a_file_and_garbage_does_not_pass():
    learnt = Learnt().with_point("290MHz", 1190.0, 4.0).with_times(down_s=4.5, up_s=80.0)
    learnt = learnt.with_claim(1200.0, 1290.0)
    assert Learnt.from_dict(json.loads(json.dumps(learnt.to_dict(), allow_nan=False))) == learnt
    empty = json.loads(json.dumps(Learnt().to_dict(), allow_nan=False))
    assert Learnt.from_dict(empty).up.n == 0
    good = learnt.to_dict()
    bad = {**good["points"]["290MHz"], "m2": -1.0}
    for raw in (
        None,
        {},
        {**good, "version": 99},
        {**good, "points": {"x": {"n": 1}}},
        {**good, "up": {**good["up"], "mean": math.nan}},
        {**good, "points": {"x": bad}},
        {**good, "points": {str(n): good["up"] for n in range(100)}},
    ):
        with pytest.raises(ValueError, match=r"usable|missing|not a record"):
            Learnt.from_dict(raw)
