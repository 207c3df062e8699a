"""Prices ahead of a market: as posted where that holds, else as others followed."""

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.market import Market, Past

DAY, STEP_S = 96, 900.0


def times(first: int, end: int) -> Floats:
    return np.asarray(np.arange(first, end) * STEP_S, dtype=np.float64)


def starts(first: int, step_s: float, n: int) -> Floats:
    return np.asarray(first * STEP_S + step_s * np.arange(n), dtype=np.float64)


def posted(days: int) -> Floats:
    """Dear evenings, a little different every day."""
    dice = np.random.default_rng(1)
    usual = np.where(np.arange(DAY * days) % DAY >= 72, 200.0, 20.0)
    return usual * dice.uniform(0.9, 1.1, len(usual))


def past(days: int, factor: float = 1.0, noise: float = 0.0) -> Past:
    known = posted(days)
    price = known * factor * np.exp(np.random.default_rng(2).normal(0.0, noise, len(known)))
    return Past(times(0, len(known)), known, price)


def test_a_market_that_keeps_its_word_is_sure_though_a_clock_is_off() -> None:
    known = past(40)
    off = known.price.copy()
    off[::4] *= 1.01
    assert Market.learnt(Past(known.times_s, known.posted, off), STEP_S).sure
    assert not Market.learnt(past(40, noise=0.3), STEP_S).sure
    assert not Market.learnt(past(40, factor=0.7), STEP_S).sure


def test_prices_follow_the_posted_ones_and_beyond_them_the_time_of_day() -> None:
    known = past(40, factor=0.5)
    market = Market.learnt(known, STEP_S)
    n = DAY
    ahead = np.full(n, np.nan)
    ahead[: n // 2] = 20.0
    first = len(known.times_s) - 1
    band, prospect = market.foreseen(known, ahead, times(first, first + n), STEP_S)
    assert prospect is None, "how prices move on takes longer to learn"
    assert band.mid[1 : n // 2] == pytest.approx(10.0, rel=0.15)
    dear = (np.arange(first, first + n) % DAY >= 72)[n // 2 :]
    assert band.mid[n // 2 :][dear] == pytest.approx(100.0, rel=0.2)


def test_how_prices_move_on_is_known_after_two_months_and_by_longer_and_shorter_intervals() -> None:
    known = past(60, noise=0.3)
    market = Market.learnt(known, STEP_S)
    first = len(known.times_s) - 1
    fine, plain = (
        market.foreseen(known, np.full(n, 20.0), starts(first, step_s, n), step_s)[0]
        for step_s, n in ((300.0, 36), (900.0, 12))
    )
    assert np.array_equal(fine.high[::3], plain.high), "a lead is time, and no count of intervals"
    for step_s, n in ((900.0, 8), (300.0, 24), (3600.0, 2)):
        starts_s = starts(first, step_s, n)
        band, prospect = market.foreseen(known, np.full(n, 20.0), starts_s, step_s)
        assert prospect is not None
        assert prospect.price_usd_per_mwh.shape == (n, len(prospect.steps))
        assert band.low[0] == band.high[0] == pytest.approx(known.price[-1])
        assert (band.high[1:] > band.low[1:]).all()
    assert Market.learnt(known.lately(50 * 86_400.0), STEP_S).follows.chain is None
