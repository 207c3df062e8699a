"""Peaks of a grid: chances against a plain draw of many futures, what is watched, the caps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.signals.peaks import (
    Duty,
    Errors,
    Later,
    Load,
    chances,
    peak_caps,
    watched,
)
from wattshift_scheduler.signals.words import CapKind

ERRORS = Errors(0.02, 0.01)
HOURS = 24


def load_of(days: list[list[float]], step_s: float = 3600.0) -> Load:
    flat = np.array([one * 1e9 for day in days for one in day], dtype=np.float64)
    number = np.concatenate([np.full(len(day), n) for n, day in enumerate(days)])
    starts_s = np.arange(len(flat), dtype=np.float64) * step_s
    return Load(starts_s, flat, np.zeros(len(flat), dtype=np.int64), number.astype(np.int64))


def hot(peak_gw: float) -> list[float]:
    return [peak_gw - 12 + 12 * math.sin((hour - 11) / 24 * 2 * math.pi) for hour in range(HOURS)]


def drawn(load: Load, so_far_w: float, final: bool) -> np.ndarray:
    """The same chances by counting in 40,000 futures."""
    draws, rng = 40_000, np.random.default_rng(7)
    days = len(np.unique(load.day))
    shared = np.repeat(rng.standard_normal((draws, days)), HOURS, axis=1)
    own = rng.standard_normal((draws, len(load.load_w)))
    futures = load.load_w * (1 + ERRORS.day * shared + ERRORS.own * own)
    by_day = futures.reshape(draws, days, HOURS)
    peaks = by_day.max(axis=2)
    counted = np.zeros(len(load.load_w))
    for n in range(days):
        before = np.maximum.accumulate(peaks, axis=1)[:, n - 1] if n else np.full(draws, -np.inf)
        stands = peaks[:, n] > np.maximum(before, so_far_w)
        if final:
            stands &= peaks[:, n] >= peaks.max(axis=1)
        where = by_day[:, n].argmax(axis=1)[stands]
        counted[n * HOURS : (n + 1) * HOURS] += np.bincount(where, minlength=HOURS)
    return counted / draws


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("so_far_w", [70e9, 76e9])
def test_chances_are_those_of_many_futures(so_far_w: float, final: bool) -> None:
    load = load_of([hot(74), hot(77), hot(75)])
    found = chances(load, {0: so_far_w}, ERRORS, final=final)
    expected = drawn(load, so_far_w, final)
    assert np.abs(found - expected).max() < 0.015
    assert abs(found.sum() - expected.sum()) < 0.03


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.floats(40, 90), min_size=1, max_size=4),
    st.floats(30, 110),
    st.floats(0.0, 5.0),
)
def test_chances_are_chances_and_fall_where_more_was_reached(
    peaks_gw: list[float], so_far_gw: float, more_gw: float
) -> None:
    load = load_of([hot(peak) for peak in peaks_gw])
    for final in (False, True):
        found = chances(load, {0: so_far_gw * 1e9}, ERRORS, final=final)
        assert (found >= 0).all()
        by_day = [found[load.day == day].sum() for day in np.unique(load.day)]
        assert max(by_day) <= 1.0 + 1e-6
        if final:
            assert found.sum() <= 1.0 + 1e-9
        higher = chances(load, {0: (so_far_gw + more_gw) * 1e9}, ERRORS, final=final)
        assert higher.sum() <= found.sum() + 0.01


def test_the_chances_of_a_month_add_up_to_one_at_the_most_however_many_days_there_are() -> None:
    """Three days of which each may well bring a new peak, and twelve more beyond the forecast."""
    load = load_of([hot(77), hot(77), hot(77)])
    each = chances(load, {0: 74e9}, ERRORS)
    assert each.sum() > 1.3, "of each day by itself"
    alone = chances(load, {0: 74e9}, ERRORS, final=True)
    assert alone.sum() == pytest.approx(1.0, abs=0.02)
    assert alone.sum() <= 1.0 + 1e-9
    beyond = Later(4.0, 76e9, 2e9)
    found = chances(load, {0: 74e9}, ERRORS, final=True, later={0: beyond})
    rng, draws = np.random.default_rng(3), 40_000
    days = load.load_w.reshape(3, HOURS)
    shared = 1.0 + ERRORS.day * rng.standard_normal((draws, 3, 1))
    futures = days * (shared + ERRORS.own * rng.standard_normal((draws, 3, HOURS)))
    later_w = (76e9 + 2e9 * rng.standard_normal((draws, 4))).max(axis=1)
    stands = futures.max(axis=(1, 2)) > np.maximum(later_w, 74e9)
    assert found.sum() == pytest.approx(stands.mean(), abs=0.02)
    assert chances(load, {0: 74e9}, ERRORS, later={0: beyond}).sum() == pytest.approx(each.sum())


def test_a_day_that_is_foreseen_better_has_its_own_errors() -> None:
    load = load_of([hot(77), hot(77)])
    sharp = {0: Errors(0.001, 0.001), 1: ERRORS}
    found = chances(load, {0: 77.5e9}, sharp, final=True)
    assert found[:HOURS].sum() < 1e-3, "it is known to stay below"
    assert found[HOURS:].sum() > 0.2


def test_an_unknown_highest_makes_the_first_day_a_peak_and_each_month_its_own() -> None:
    load = load_of([hot(60), hot(80)])
    found = chances(load, {}, ERRORS)
    assert found[:HOURS].sum() == pytest.approx(1.0, abs=1e-3)
    assert found[HOURS:].sum() > 0.99
    assert chances(load, {0: math.nan}, ERRORS)[:HOURS].sum() == pytest.approx(1.0, abs=1e-3)
    only = chances(load, {0: 79e9}, ERRORS)
    assert only[:HOURS].sum() < 1e-6
    months = Load(load.starts_s, load.load_w, load.day + 5, load.day)
    each = chances(months, {5: 59e9, 6: 200e9}, ERRORS)
    assert each[:HOURS].sum() > 0.5
    assert each[HOURS:].sum() == 0.0


def test_the_fewest_intervals_are_watched_that_hold_the_share() -> None:
    load = load_of([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0]])
    chance = np.array([0.1, 0.4, 0.3, 0.1, 0.0, 0.0])
    assert watched(load, chance, 0.75).tolist() == [False, True, True, False, False, False]
    assert watched(load, chance, 1.0)[:4].all()
    assert watched(load, chance, 0.8).sum() == 3


def test_caps_follow_the_watched_intervals_with_the_day_s_chance() -> None:
    load = load_of([[1.0, 2.0, 3.0, 4.0, 1.0], [1.0, 2.0]])
    chance = np.array([0.0, 0.3, 0.3, 0.0, 0.2, 0.01, 0.02])
    caps = peak_caps(load, chance, Duty("cp", 2e5, 3600.0, cover=0.95))
    assert [(cap.starts_s, cap.ends_s) for cap in caps] == [(3600, 10_800), (14_400, 18_000)]
    assert {round(cap.confidence, 9) for cap in caps} == {0.8}
    one = caps[0]
    assert (one.id, one.origin, one.limit_w, one.window_s) == ("cp-3600", "cp", 2e5, 3600.0)
    assert one.kind is CapKind.INTERVAL
    all_of_it = peak_caps(load, chance, Duty("cp", 2e5, 3600.0, least_confidence=0.0))
    assert len(all_of_it) == 3


def test_a_quarter_of_an_hour_has_the_chance_of_its_day_and_not_a_quarter_of_it() -> None:
    hours = load_of([hot(77)])
    quarters = load_of([[gw for gw in hot(77) for _ in range(4)]], 900.0)
    caps = [
        peak_caps(load, chances(load, {0: 76e9}, ERRORS), Duty("cp", 1.0, step_s))
        for load, step_s in ((hours, 3600.0), (quarters, 900.0))
    ]
    assert caps[0][0].confidence == pytest.approx(caps[1][0].confidence, abs=0.15)


def test_nothing_forecast_is_nothing_to_do() -> None:
    empty = load_of([[]])
    assert peak_caps(empty, chances(empty, {}, ERRORS), Duty("cp", 1.0, 900.0)) == ()
