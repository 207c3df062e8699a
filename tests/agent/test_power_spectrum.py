"""Figures of steadiness against signals whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.agent.power.spectrum import (
    band,
    dynamic_range_w,
    highest_shown_hz,
    ramp_w_per_s,
    second_means,
    spectrum,
    variation,
)

RATE_HZ = 20.0


def sines(seconds: float, *swings: tuple[float, float]) -> list[float]:
    """300 W and swings of (frequency, amplitude)."""
    at_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    waves = (height * np.sin(2 * np.pi * hz * at_s) for hz, height in swings)
    return (300.0 + sum(waves, np.zeros_like(at_s))).tolist()  # type: ignore[no-any-return]


@given(values=st.lists(st.floats(0, 1000), min_size=4, max_size=129))
@settings(max_examples=60, deadline=None)
def test_the_parts_add_up_to_the_variance(values: list[float]) -> None:
    _, parts_w2 = spectrum(values, RATE_HZ, len(values), tapered=False)
    assert np.sum(parts_w2) == pytest.approx(np.var(values), abs=1e-6)


def test_a_tapered_swing_keeps_its_energy() -> None:
    _, parts_w2 = spectrum(sines(120, (1.0, 40.0)), RATE_HZ, 400)
    assert np.sum(parts_w2) == pytest.approx(40**2 / 2, rel=0.02)


def test_the_share_in_a_band_is_that_of_the_swings_in_it() -> None:
    watts_w = sines(120, (0.5, 30.0), (6.0, 40.0))
    seen = band(watts_w, RATE_HZ, low_hz=0.1, high_hz=4.0)
    assert seen is not None
    assert seen.share == pytest.approx(900 / (900 + 1600), abs=0.02)
    assert seen.rms_w == pytest.approx(30 / math.sqrt(2), rel=0.03)


def test_the_band_is_cut_to_what_the_sensor_shows() -> None:
    watts_w = sines(60, (1.0, 10.0))
    nvml = band(watts_w, RATE_HZ, low_hz=0.1, high_hz=20.0, update_hz=10.0)
    assert nvml is not None
    assert nvml.high_hz == pytest.approx(4.0)
    averaged = band(watts_w, RATE_HZ, low_hz=0.1, high_hz=20.0, averaging_s=1.0)
    assert averaged is not None
    assert averaged.high_hz == pytest.approx(0.443)
    fast = band(sines(60, (1.0, 10.0)), RATE_HZ, low_hz=0.1, high_hz=20.0)
    assert fast is not None
    assert fast.high_hz < RATE_HZ / 2


def test_a_mean_over_a_second_really_halves_the_energy_there() -> None:
    hz = highest_shown_hz(1000.0, 1.0)
    at_s = np.arange(100_000) / 1000.0
    averaged = np.convolve(np.sin(2 * np.pi * hz * at_s), np.ones(1000) / 1000, "valid")
    assert np.var(averaged) / 0.5 == pytest.approx(0.5, abs=0.02)


def test_what_the_sampling_cannot_show_is_none() -> None:
    assert band(sines(10, (1.0, 10.0)), RATE_HZ, low_hz=0.1, high_hz=4.0) is None, "10 s: 1 period"
    slow = band(sines(100, (1.0, 10.0)), RATE_HZ, low_hz=0.5, high_hz=4.0, update_hz=1.0)
    assert slow is None, "a value a second shows nothing above 0.4 Hz"
    assert band([300.0] * 700 + [math.nan], RATE_HZ, low_hz=0.1, high_hz=4.0) is None
    flat = band([300.0] * 800, RATE_HZ, low_hz=0.1, high_hz=4.0)
    assert flat is not None
    assert flat.share is None
    assert flat.rms_w == pytest.approx(0.0, abs=1e-6)


def test_variation_is_that_of_whole_seconds() -> None:
    watts_w = [100.0] * 20 + [300.0] * 20 + [9999.0] * 3
    assert second_means(watts_w, RATE_HZ).tolist() == [100.0, 300.0]
    assert variation(watts_w, RATE_HZ) == pytest.approx(0.5)
    assert variation(sines(30, (5.0, 50.0)), RATE_HZ) == pytest.approx(0.0, abs=1e-9)
    assert variation([100.0] * 20, RATE_HZ) is None
    assert variation([math.nan] * 60, RATE_HZ) is None
    assert variation([0.0] * 60, RATE_HZ) is None


def test_ramp_and_range() -> None:
    slope = [100.0 + 2.5 * k for k in range(100)]
    assert ramp_w_per_s(slope, RATE_HZ) == pytest.approx(50.0)
    assert dynamic_range_w(slope) == pytest.approx(247.5)
    assert ramp_w_per_s(slope[:20], RATE_HZ) is None
    assert ramp_w_per_s([*slope, math.nan], RATE_HZ) is None
    assert dynamic_range_w([]) is None
    assert dynamic_range_w([1.0, math.nan]) is None
