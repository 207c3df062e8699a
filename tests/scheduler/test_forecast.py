"""Forecasts hold what they promise: quantiles on seeded and real series, gaps, short pasts."""

import csv
import gzip
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.forecast import Band, burst_w, seasonal
from wattshift_scheduler.forecasts.usual import DAY_S

STEP_S = 900.0
DAY = int(DAY_S / STEP_S)


def _covered(times_s: Floats, values: Floats, first: int, ahead: int, every: int) -> float:
    """Share of what came that lay within the band, over forecasts from rolling origins."""
    inside = []
    for at in range(first, len(values) - ahead, every):
        low = max(at - 28 * DAY, 0)
        band = seasonal(times_s[low:at], values[low:at], times_s[at : at + ahead])
        came = values[at : at + ahead]
        inside.append((came >= band.low) & (came <= band.high))
    return float(np.mean(np.concatenate(inside)))


def _load(days: int, seed: int) -> tuple[Floats, Floats]:
    """A load with days, weekends and a drift that comes and goes (an AR(1) process)."""
    dice = np.random.default_rng(seed)
    times_s = np.arange(days * DAY) * STEP_S
    hour = times_s / 3600.0 % 24
    weekend = (np.floor(times_s / DAY_S) + 3) % 7 >= 5
    noise, last = np.zeros(len(times_s)), 0.0
    for i, shock in enumerate(dice.normal(0.0, 0.05, len(times_s))):
        last = 0.95 * last + shock
        noise[i] = last
    usual = 100.0 * (1.0 + 0.5 * np.sin(hour / 24 * 2 * np.pi)) * np.where(weekend, 0.6, 1.0)
    return times_s, usual * np.exp(noise)


def _column(path: str, column: str, only: dict[str, str] | None = None) -> list[dict[str, str]]:
    folder = os.environ.get("WATTSHIFT_DATA")
    file = Path(folder or "") / path
    if not folder or not file.exists():
        pytest.skip(f"{path} is not in WATTSHIFT_DATA")
    with gzip.open(file, "rt") as text:
        rows = [row for row in csv.DictReader(text) if row[column]]
    return [row for row in rows if all(row[k] == v for k, v in (only or {}).items())]


@pytest.mark.parametrize("seed", range(3))
def test_eight_in_ten_of_a_seeded_load_lie_in_the_band(seed: int) -> None:
    times_s, values = _load(60, seed)
    assert 0.70 <= _covered(times_s, values, 28 * DAY, DAY, 61) <= 0.90


@pytest.mark.parametrize("column", ["HB_SOUTH_RTM", "HB_SOUTH_DAM"])
def test_eight_in_ten_of_texan_prices_lie_in_the_band(column: str) -> None:
    rows = _column("grid/ercot_hbsouth_dam_rtm_15min.csv.gz", column)
    zoned = (datetime.fromisoformat(row["time"]).replace(tzinfo=UTC) for row in rows)
    times_s = np.array([at.timestamp() for at in zoned])
    values = np.array([float(row[column]) for row in rows])
    assert 0.70 <= _covered(times_s, values, 28 * DAY, DAY, 523) <= 0.90


def test_requests_of_a_served_model_lie_in_the_band_after_a_week() -> None:
    path = "workload/servegen_total_rate_10min.csv.gz"
    inside = []
    for model in ("m-large", "m-mid", "m-small"):
        rows = _column(path, "total_rate_rps", {"model": model})
        times_s = np.array([float(row["t_s"]) for row in rows])
        values = np.array([float(row["total_rate_rps"]) for row in rows])
        inside.append(_covered(times_s, values, 7 * 144, 144, 53))
    assert 0.70 <= float(np.mean(inside)) <= 0.90


def test_it_is_better_than_yesterday_and_moved_by_the_last_hours() -> None:
    times_s, values = _load(60, 7)
    ours, naive = [], []
    for at in range(28 * DAY, 59 * DAY, 97):
        soon = slice(at, at + 8)
        band = seasonal(times_s[:at], values[:at], times_s[at : at + DAY])
        ours.append(np.abs(band.mid[:8] - values[soon]).mean())
        naive.append(np.abs(values[at - DAY : at - DAY + 8] - values[soon]).mean())
    assert np.mean(ours) < 0.6 * np.mean(naive)


def test_a_band_widens_with_the_lead() -> None:
    times_s, values = _load(40, 1)
    band = seasonal(times_s[:-DAY], values[:-DAY], times_s[-DAY:])
    wide = (band.high - band.low) / band.mid
    assert wide[:2].mean() < 0.6 * wide[DAY // 2 :].mean()


def test_it_sees_the_past_alone() -> None:
    times_s, values = _load(40, 2)
    at = 30 * DAY
    other = values.copy()
    other[at:] = 1e6
    first = seasonal(times_s, values, times_s[at : at + DAY])
    again = seasonal(times_s, other, times_s[at : at + DAY])
    np.testing.assert_array_equal(first.high, again.high)


def test_gaps_are_unknown_and_not_zero() -> None:
    times_s, values = _load(60, 3)
    dice = np.random.default_rng(3)
    holed = values.copy()
    holed[dice.random(len(values)) < 0.3] = np.nan
    holed[40 * DAY : 42 * DAY] = np.nan
    inside = []
    for at in range(30 * DAY, 58 * DAY, 61):
        band = seasonal(times_s[:at], holed[:at], times_s[at : at + DAY])
        assert np.isfinite(band.mid).all()
        came = values[at : at + DAY]
        inside.append((came >= band.low) & (came <= band.high))
    assert 0.70 <= float(np.mean(np.concatenate(inside))) <= 0.90


def test_without_any_past_nothing_is_known() -> None:
    starts_s = np.arange(4) * STEP_S
    assert np.isnan(seasonal(np.zeros(0), np.zeros(0), starts_s).mid).all()
    band = seasonal(np.array([-STEP_S]), np.array([np.nan]), starts_s)
    assert np.isnan(band.low).all()
    assert np.isnan(band.high).all()


@pytest.mark.parametrize("known", [1, 5, 30, DAY])
def test_a_short_past_persists_in_a_wide_band(known: int) -> None:
    times_s, values = _load(30, 5)
    at = 10 * DAY
    past = slice(at - known, at)
    band = seasonal(times_s[past], values[past], times_s[at : at + 8])
    last = values[at - min(known, 4) : at].mean()
    np.testing.assert_allclose(band.mid, last)
    assert ((band.high - band.low) >= 0.9 * last).all()
    assert (band.low >= 0).all()


def test_what_was_never_negative_is_not_foreseen_so_and_a_price_may_be() -> None:
    times_s = np.arange(30 * DAY) * STEP_S
    noon = np.sin((times_s / DAY_S - 0.25) * 2 * np.pi)
    dice = np.random.default_rng(1)
    sun = np.maximum(noon, 0.0) * dice.uniform(0.2, 1.0, len(noon))
    ahead_s = times_s[-1] + STEP_S * (1 + np.arange(DAY))
    band = seasonal(times_s, sun, ahead_s)
    assert (band.low >= 0).all()
    assert band.high[:8].max() < 0.01  # It is night.
    assert (seasonal(times_s, -20.0 * sun, ahead_s).low < -5.0).any()


def test_steps_of_past_and_plan_may_differ() -> None:
    times_s, values = _load(30, 4)
    ahead_s = times_s[-1] + STEP_S + np.arange(288) * 300.0
    fine = seasonal(times_s, values, ahead_s)
    coarse = seasonal(times_s, values, ahead_s[::12])
    assert len(fine) == 288
    assert len(coarse) == 24
    hourly = fine.mid.reshape(24, 12).mean(axis=1)
    np.testing.assert_allclose(hourly, coarse.mid, rtol=0.2)


def test_tails_go_on_as_a_normal_distribution_does() -> None:
    band = Band(np.array([87.2]), np.array([100.0]), np.array([112.8]))
    assert band.quantile(0.5)[0] == 100.0
    assert band.quantile(0.1)[0] == 87.2
    assert band.quantile(0.9)[0] == 112.8
    assert band.quantile(0.7)[0] == pytest.approx(106.4)
    assert band.quantile(0.99)[0] == pytest.approx(123.2, abs=0.1)
    assert band.quantile(0.01)[0] == pytest.approx(76.8, abs=0.1)
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="quantile"):
            band.quantile(bad)


def test_what_is_no_band_or_no_series_is_refused() -> None:
    up, down = np.array([1.0, 2.0]), np.array([2.0, 1.0])
    with pytest.raises(ValueError, match="rise"):
        Band(up, down, up)
    with pytest.raises(ValueError, match="length"):
        Band(up, up, up[:1])
    with pytest.raises(ValueError, match="length"):
        seasonal(up, up[:1], up)
    with pytest.raises(ValueError, match="rise"):
        seasonal(down, up, up)
    with pytest.raises(ValueError, match="finite"):
        seasonal(np.array([math.nan, 1.0]), up, up)


def test_a_burst_is_the_largest_rise_within_the_time() -> None:
    looks = [(float(t), w) for t, w in enumerate([0.0, 10.0, 30.0, 20.0, 20.0, 60.0, 0.0])]
    assert burst_w(looks, 0.1, 1.0) == 40.0  # The next look counts: a step may have come at once.
    assert burst_w(looks, 2.0, 1.0) == 40.0
    assert burst_w(looks, 5.0, 1.0) == 60.0
    assert burst_w([(0.0, 5.0), (1.0, 5.0)], 1.0) == 0.0
    assert math.isnan(burst_w([(0.0, 5.0)], 1.0))
    assert burst_w([(0.0, 5.0), (1.0, math.nan), (2.0, 9.0)], 0.1) == 4.0


def test_a_burst_equals_what_looking_at_every_window_finds() -> None:
    dice = np.random.default_rng(11)
    for _ in range(50):
        at = np.cumsum(dice.exponential(1.0, 60))
        watts_w = np.cumsum(dice.normal(0.0, 50.0, 60)) + 500.0
        within_s, rises = float(dice.uniform(0.05, 8.0)), []
        for i in range(59):
            end = max(int(np.searchsorted(at, at[i] + within_s, side="right")), i + 2)
            rises.append(watts_w[i:end].max() - watts_w[i])
        found = burst_w(list(zip(at.tolist(), watts_w.tolist(), strict=True)), within_s, 0.9)
        rose = [rise for rise in rises if rise > 0]
        assert found == pytest.approx(float(np.quantile(rose, 0.9, method="higher")))
