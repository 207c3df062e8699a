"""PJM's legacy M12 score: hand-computed windows, what unknown samples do, and published values."""

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.m12 import SHIFTS, WINDOW, pjm_legacy_m12

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
reference: Any = importlib.import_module("benchmarks.regd_reference")
cannot: Any = importlib.import_module("benchmarks.cannot")
sys.path.remove(str(ROOT))

HOUR = 360
TAIL = SHIFTS - 1
ONE_WINDOW = WINDOW + TAIL
FLIPS = np.where(np.arange(HOUR + TAIL) % 2, -0.5, 0.5)
"""A signal that jumps at every sample, so that no shift of one sample helps precision."""


def wandering(count: int, seed: int = 1) -> Floats:
    steps = np.random.default_rng(seed).normal(0.0, 0.05, count)
    return np.clip(np.cumsum(steps), -1.0, 1.0)


def test_a_response_that_is_the_signal_is_perfect() -> None:
    found = pjm_legacy_m12(FLIPS, FLIPS)
    assert (found.correlation, found.delay, found.precision, found.score) == pytest.approx(
        [1.0] * 4
    )
    assert found.hours.shape == (1, 3)
    assert found.worst_hour == pytest.approx(1.0)


def test_a_lag_of_three_samples_costs_a_tenth_of_the_delay() -> None:
    signal = wandering(HOUR + TAIL)
    late = np.concatenate([np.full(3, signal[0]), signal[:-3]])
    found = pjm_legacy_m12(signal, late)
    # 3 x 10 s of 300 s; a window may trade a little correlation for less delay, never the reverse.
    assert found.delay >= 0.9 - 1e-9
    assert found.correlation + found.delay >= 1.9 - 1e-9


def test_precision_is_the_error_over_the_mean_of_the_hour() -> None:
    found = pjm_legacy_m12(FLIPS, FLIPS + 0.1)
    assert found.correlation == pytest.approx(1.0)
    assert found.precision == pytest.approx(1.0 - 0.1 / 0.5)
    assert found.score == pytest.approx((1.0 + 1.0 + 0.8) / 3.0)


def test_a_quiet_window_is_held_against_its_hour_and_not_against_itself() -> None:
    signal = FLIPS.copy()
    signal[:WINDOW] *= 0.1
    found = pjm_legacy_m12(signal, signal + 0.1)
    mean = 0.5 * (11 + 0.1) / 12
    assert found.precision == pytest.approx(1.0 - 0.1 / mean)


def test_ten_seconds_of_propagation_are_free_of_precision() -> None:
    late = np.concatenate([[FLIPS[0]], FLIPS[:-1]])
    assert pjm_legacy_m12(FLIPS, late).precision == pytest.approx(1.0)
    signal = np.repeat([0.5, -0.5], WINDOW // 2)
    signal = np.concatenate([signal, np.full(TAIL, -0.5)])
    two_late = np.concatenate([signal[:2], signal[:-2]])
    # After the free shift one of the 30 samples is still 1.0 off, of a mean of 0.5.
    assert pjm_legacy_m12(signal, two_late).precision == pytest.approx(1.0 - 1.0 / 30 / 0.5)


def test_a_flat_signal_is_compared_by_slopes() -> None:
    flat = np.full(ONE_WINDOW, 0.4)
    assert pjm_legacy_m12(flat, flat).correlation == pytest.approx(1.0)
    rising: Floats = 0.4 + 0.01 * np.arange(ONE_WINDOW, dtype=np.float64)
    assert pjm_legacy_m12(flat, rising).correlation == pytest.approx(0.99)


def test_a_flat_response_to_a_signal_that_moves_correlates_nothing() -> None:
    found = pjm_legacy_m12(FLIPS, np.zeros(len(FLIPS)))
    assert (found.correlation, found.delay, found.precision) == pytest.approx((0.0, 1.0, 0.0))


def test_the_opposite_scores_no_less_than_nothing() -> None:
    rising = np.linspace(-0.5, 0.5, ONE_WINDOW)
    found = pjm_legacy_m12(rising, -rising)
    assert (found.correlation, found.delay) == (0.0, 1.0)


def test_a_better_likeness_long_after_does_not_outweigh_its_delay() -> None:
    signal = np.sin(2 * np.pi * np.arange(ONE_WINDOW) / 20)
    response = signal.copy()
    response[:20] += np.random.default_rng(4).normal(0.0, 0.1, 20)
    found = pjm_legacy_m12(signal, response)
    assert found.delay == 1.0
    assert 0.95 < found.correlation < 1.0


def test_the_last_window_needs_its_five_minutes_more() -> None:
    assert math.isnan(pjm_legacy_m12(FLIPS[: ONE_WINDOW - 1], FLIPS[: ONE_WINDOW - 1]).score)
    assert pjm_legacy_m12(FLIPS[:ONE_WINDOW], FLIPS[:ONE_WINDOW]).score == pytest.approx(1.0)


def test_nothing_known_is_a_score_of_nothing() -> None:
    found = pjm_legacy_m12(FLIPS, np.full(len(FLIPS), math.nan))
    assert (found.score, found.unknown_windows) == (0.0, 12)


def test_an_unknown_signal_sample_costs_its_window() -> None:
    signal = FLIPS.copy()
    signal[5] = math.nan
    found = pjm_legacy_m12(signal, FLIPS)
    assert found.score == pytest.approx(11 / 12)
    assert found.unknown_windows == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(0, HOUR + TAIL - 1), min_size=1, max_size=40))
def test_losing_samples_of_the_response_never_raises_a_score(seed: int, lost: list[int]) -> None:
    signal = wandering(HOUR + TAIL, seed)
    noise = np.random.default_rng(seed).normal(0.0, 0.2, len(signal))
    response = np.roll(signal, 2) + noise
    gaps = response.copy()
    gaps[lost] = math.nan
    assert pjm_legacy_m12(signal, gaps).score <= pjm_legacy_m12(signal, response).score + 1e-12


def test_the_published_table_is_reproduced() -> None:
    """Grid reference, section 5.1: thirteen rows to three places; the bar is 0.002."""
    try:
        signal = reference.signal()
    except cannot.CannotRunHere as why:
        pytest.skip(str(why))
    off = {row.name: reference.error_of(row, signal) for row in reference.rows(signal)}
    assert len(off) == 13
    assert max(off.values()) <= 0.001, off
