"""The overhead model: found under noise and outliers, bounded, and believed only where it fits."""

import numpy as np
import pytest

from wattshift_scheduler.signals.overhead import LEAST_PAIRS, Overhead, learnt, reserved_w

RNG = np.random.default_rng(7)
DEVICES_W = RNG.uniform(200e3, 900e3, 300)


def _site(fixed_w: float, share: float, noise_w: float = 500.0) -> np.ndarray:
    return fixed_w + (1.0 + share) * DEVICES_W + RNG.normal(0.0, noise_w, len(DEVICES_W))


def test_the_model_is_found_with_a_tenth_of_the_pairs_wrong() -> None:
    site_w = _site(20e3, 0.12)
    site_w[::10] += 300e3
    site_w[5] = np.nan
    found = learnt(DEVICES_W, site_w)
    assert found is not None
    assert found.fixed_w == pytest.approx(20e3, rel=0.05)
    assert found.share == pytest.approx(0.12, abs=0.002)
    assert found.residual_w < 1500.0
    assert found.pairs == 299


@pytest.mark.parametrize(("fixed_w", "share"), [(-50e3, 0.1), (10e3, -0.2), (0.0, 0.0)])
def test_its_figures_stay_within_bounds(fixed_w: float, share: float) -> None:
    site_w = _site(fixed_w, share)
    found = learnt(DEVICES_W, site_w)
    if found is not None:
        assert found.fixed_w >= 0.0
        assert 0.0 <= found.share <= 1.0


def test_too_few_pairs_a_standing_load_and_a_bad_fit_teach_nothing() -> None:
    few = LEAST_PAIRS - 1
    assert learnt(DEVICES_W[:few], _site(1e3, 0.1)[:few]) is None
    still_w = np.full(300, 500e3)
    assert learnt(still_w, still_w * 1.1) is None
    assert learnt(DEVICES_W, RNG.permutation(_site(1e3, 0.1))) is None
    assert learnt(np.array([]), np.array([])) is None


def test_a_cap_at_the_meter_becomes_a_budget_for_devices() -> None:
    model = Overhead(10_000.0, 0.25, 0.0, 100)
    other_w = reserved_w(model, 1_000.0, 110_000.0)
    devices_w = 110_000.0 - other_w
    assert devices_w * 1.25 + 10_000.0 == pytest.approx(110_000.0)
    assert reserved_w(None, 1_000.0, 110_000.0) == 1_000.0
    assert reserved_w(model, 50_000.0, 110_000.0) == 50_000.0
    assert reserved_w(model, 0.0, 5_000.0) == 5_000.0
