"""Scores beside PJM's: each figure against arithmetic done by hand, and what is unknown."""

import math
import warnings

import numpy as np
import pytest

from wattshift_scheduler.scores import base_point, delivery, fast, spectrum
from wattshift_scheduler.scores.caps import CapKept, cap_kept
from wattshift_scheduler.scores.delivery import dfs_factor, ers_factor, peaks
from wattshift_scheduler.scores.fast import DYNAMIC_CONTAINMENT, droop_tracking

NAN = math.nan


def test_deviation_from_a_base_point_is_told_per_five_minutes() -> None:
    base_w = np.repeat([1000.0, 2000.0, 0.0], 75)
    metered_w = np.repeat([1100.0, 1900.0, 10.0], 75)
    found = base_point.deviation_pct(base_w, metered_w, sample_s=4.0)
    assert found[:2] == pytest.approx([10.0, -5.0])
    assert math.isnan(found[2]), "a share of nothing is not known"
    metered_w[3] = NAN
    assert math.isnan(base_point.deviation_pct(base_w, metered_w, sample_s=4.0)[0])


def test_what_is_left_of_an_interval_is_not_told() -> None:
    assert len(base_point.deviation_pct(np.ones(149), np.ones(149), sample_s=4.0)) == 1


def test_time_to_95_pct_of_an_instruction() -> None:
    metered_w = np.array([1000.0, 800.0, NAN, 626.0, 625.0, 624.0])
    # 95 % of the way from 1000 W to 600 W is 620 W.
    assert math.isnan(base_point.time_to_share_s(metered_w, 1000.0, 600.0, 10.0))
    done_w = np.append(metered_w, [620.0, 600.0])
    assert base_point.time_to_share_s(done_w, 1000.0, 600.0, 10.0) == 60.0
    assert base_point.time_to_share_s(done_w[::-1], 600.0, 1000.0, 10.0) == 70.0
    assert base_point.time_to_share_s(metered_w, 500.0, 500.0, 10.0) == 0.0


def test_ramps_are_judged_minute_by_minute_both_ways() -> None:
    at_minutes_w = np.array([0.0, 100.0, 90.0, 40.0, NAN, 40.0, 41.0])
    metered_w = np.repeat(at_minutes_w, 6)
    found = base_point.ramps(metered_w, 10.0, up_w_per_min=60.0, down_w_per_min=20.0)
    assert (found.violations, found.minutes, found.unknown) == (2, 4, 2)
    assert (found.steepest_up_w, found.steepest_down_w) == (100.0, 50.0)
    assert found.violations_per_minute == 0.5
    free = base_point.ramps(metered_w, 10.0, math.inf, math.inf)
    assert free.violations == 0
    assert math.isnan(base_point.ramps(metered_w[:6], 10.0, 1.0, 1.0).violations_per_minute)


def test_a_fast_response_is_timed_from_its_trigger() -> None:
    at_s = np.array([0.0, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5])
    metered_w = np.array([900.0, 1000.0, 980.0, NAN, 940.0, 520.0, 500.0])
    found = fast.response(at_s, metered_w, trigger_s=1.0, due_w=500.0)
    assert found.t_init_s == pytest.approx(0.3)
    assert found.t_full_s == pytest.approx(0.4)
    assert found.within(0.5, 1.0)
    assert not found.within(0.25, 1.0)
    assert not found.within(0.5, 0.25)
    never = fast.response(at_s, np.full(7, 1000.0), 1.0, 500.0)
    assert math.isnan(never.t_full_s)
    assert not never.within(math.inf, math.inf)
    assert math.isnan(fast.response(at_s[2:], metered_w[2:], 1.0, 500.0).t_init_s)


def test_dynamic_containment_asks_for_its_stated_points() -> None:
    frequency_hz = np.array([50.0, 49.985, 49.8, 49.5, 49.0, 50.2, 50.5, NAN])
    due = DYNAMIC_CONTAINMENT.due(frequency_hz, 50.0)
    assert due[:7] == pytest.approx([0.0, 0.0, 0.05, 1.0, 1.0, -0.05, -1.0], abs=1e-9)
    assert math.isnan(due[7])


def test_a_droop_may_be_followed_late_but_not_missed() -> None:
    due = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    done = np.array([0.0, 0.0, 0.0, 0.0, 0.97, 1.0])
    assert droop_tracking(due, done, samples_late=2, band_share=0.05).inside_share == 1.0
    early = droop_tracking(due, done, samples_late=1, band_share=0.05)
    assert early.inside_share == pytest.approx(5 / 6)
    assert early.worst == pytest.approx(0.95)
    blind = droop_tracking(due, np.append(done[:5], NAN), 2, 0.05)
    assert (blind.inside_share, blind.unknown) == (1.0, 1)
    assert math.isnan(droop_tracking(due, np.full(6, NAN), 2, 0.05).inside_share)


def test_a_cap_is_kept_by_watts_energy_time_and_speed() -> None:
    at_s = np.array([0.0, 2.0, 4.0, 5.0, 9.0])
    metered_w = np.array([1500.0, 1200.0, 1000.0, NAN, 1100.0])
    found = cap_kept(at_s, metered_w, 1000.0, ends_s=10.0)
    # 500 W for 2 s, 200 W for 2 s, 100 W for 1 s; 4 s unknown.
    assert found == CapKept(500.0, 1500.0, 5.0, 4.0, 4.0)
    moving_w = np.array([1500.0, 1100.0, 1000.0, 1000.0, 1000.0])
    assert cap_kept(at_s, metered_w, moving_w, 10.0).overshoot_j == pytest.approx(300.0)
    assert math.isnan(cap_kept(at_s, metered_w, 900.0, 10.0).to_cap_s)
    assert cap_kept(np.zeros(0), np.zeros(0), 1.0, 0.0).above_s == 0.0


def test_the_share_in_the_band_is_that_of_its_sine() -> None:
    at_s = np.arange(4096) * 0.05
    slow, fast_one = np.sin(2 * np.pi * 0.02 * at_s), np.sin(2 * np.pi * 1.0 * at_s)
    found = spectrum.in_band(1000.0 + 30.0 * slow + 10.0 * fast_one, 0.05)
    assert found.share == pytest.approx(100 / 1000, abs=0.005)
    assert (found.low_hz, found.high_hz) == (0.1, 10.0)
    assert found.peak_to_peak_w == pytest.approx(80.0, abs=1.0)
    assert spectrum.in_band(1000.0 + slow, 0.05).share < 0.001
    assert spectrum.in_band(np.full(64, 5.0), 0.05).share == 0.0


def test_sampling_that_cannot_show_the_band_says_so() -> None:
    assert math.isnan(spectrum.in_band(np.arange(64.0), 10.0).share)
    broken = np.arange(64.0)
    broken[3] = NAN
    found = spectrum.in_band(broken, 1.0)
    assert math.isnan(found.share)
    assert found.peak_to_peak_w == 63.0


@pytest.mark.parametrize(
    ("delivered_pct", "factor"),
    [
        (150.0, 1.2), (120.0, 1.2), (119.0, 1.19), (100.0, 1.0), (50.0, 0.5), (49.9, 0.0),
        (24.0, 0.0), (0.0, 0.0), (-10.0, -0.1), (-500.0, -1.2),
    ],
)  # fmt: skip
def test_the_dfs_factor(delivered_pct: float, factor: float) -> None:
    assert dfs_factor(delivered_pct) == pytest.approx(factor)


def test_an_unknown_delivery_has_no_factor() -> None:
    assert math.isnan(dfs_factor(NAN))
    assert math.isnan(ers_factor(NAN))


def test_an_ers_resource_below_85_pct_is_squared() -> None:
    assert [ers_factor(x) for x in (1.3, 0.85, 0.8, -0.2)] == pytest.approx([1.0, 0.85, 0.64, 0.0])


def test_a_shed_is_held_against_its_commitment() -> None:
    found = delivery.shed(np.full(4, 1000.0), np.array([500.0, 700.0, 1100.0, 500.0]), 400.0)
    assert found.reduction_w.tolist() == [500.0, 300.0, -100.0, 500.0]
    assert found.performance == pytest.approx(300.0 / 400.0)
    blind = delivery.shed(np.full(2, 1000.0), np.array([500.0, NAN]), 400.0)
    assert math.isnan(blind.performance)
    assert blind.unknown == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(delivery.shed(np.zeros(0), np.zeros(0), 400.0).performance)


def test_peaks_that_cannot_be_told_count_as_missed() -> None:
    system_w = np.array([1.0, 5.0, 2.0, 7.0, 7.0, 3.0, NAN, 9.0])
    month = np.array([1, 1, 1, 2, 2, 2, 3, 3])
    out = np.array([False, True, False, False, True, False, True, True])
    found = peaks(system_w, month, out)
    assert (found.rows, found.hits, found.unknown, found.curtailed) == ((1, 3), 1, 1, 4)
    assert found.hit_rate == pytest.approx(1 / 3)
    none = peaks(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
    assert math.isnan(none.hit_rate)
