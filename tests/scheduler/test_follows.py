"""What follows day-ahead prices: learnt from the past, and wide where forecasts missed."""

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.follows import Follows

HOUR, DAY = 4, 96
DAYS = 40


def dear_evenings(seed: int) -> Floats:
    """Day-ahead prices: about 20 USD/MWh, from ten in the evening on about 200."""
    known = np.where(np.arange(DAY * DAYS) % DAY >= 88, 200.0, 20.0)
    return known * np.random.default_rng(seed).uniform(0.8, 1.2, len(known))


def test_with_little_past_or_none_beside_it_a_posted_price_stands() -> None:
    known = dear_evenings(1)
    for past in (known[: 41 * HOUR], known):
        follows = Follows.learnt(past, past, HOUR)
        band = follows.band(known[:8], known[:1], known[:1], HOUR)
        assert band.mid == pytest.approx(known[:8])
        assert np.array_equal(band.low, band.high)
    short = slice(0, 41 * HOUR)
    assert Follows.learnt(known[short], 2.0 * known[short], HOUR) == Follows()


def test_dear_hours_are_foreseen_at_what_followed_them_and_the_price_in_force_stands() -> None:
    known = dear_evenings(2)
    price = np.where(known > 100.0, known / 2.0, known)
    follows = Follows.learnt(known, price, HOUR)
    ahead = np.array([20.0, 20.0, 200.0, 200.0])
    band = follows.band(ahead, np.full(4, 20.0), np.array([20.0, 20.0, 20.0, 25.0]), HOUR)
    assert band.low[0] == band.mid[0] == band.high[0] == pytest.approx(25.0)
    assert band.mid[2:] == pytest.approx([100.0, 100.0], rel=0.1)


def test_a_band_is_as_wide_as_forecasts_of_such_hours_missed() -> None:
    """Quiet hours are sure, dear ones are a guess: about eight in ten lie within their band."""
    known, dice = dear_evenings(3), np.random.default_rng(5)
    dear = known > 100.0
    price = np.where(dear, known * np.exp(dice.normal(0.0, 0.5, len(known))), known)
    follows = Follows.learnt(known[: 30 * DAY], price[: 30 * DAY], HOUR)
    inside, wide = [], []
    for i in range(30 * DAY, len(known) - 8):
        past = slice(i + 1 - HOUR, i + 1)
        band = follows.band(known[i : i + 8], known[past], price[past], HOUR)
        inside.append(
            (price[i + 1 : i + 8] >= band.low[1:]) & (price[i + 1 : i + 8] <= band.high[1:])
        )
        wide.append(band.high[1:] - band.low[1:])
    mine = np.array([dear[i + 1 : i + 8] for i in range(30 * DAY, len(known) - 8)])
    assert 0.65 <= float(np.array(inside)[mine].mean()) <= 0.9
    assert float(np.array(wide)[mine].mean()) > 10.0 * float(np.array(wide)[~mine].mean())
