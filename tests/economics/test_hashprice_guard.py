"""Figures that cannot be, jumps that are held, and who confirms them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.economics.figures import BOUNDS, Seen
from wattshift_cluster.economics.guard import Guard


def guard(name: str = "usd_per_btc", *values: float, confirm: int = 3) -> Guard:
    one = Guard(name, BOUNDS[name], jump=10.0, confirm_samples=confirm)
    for at, value in enumerate(values, 1):
        one.offer(Seen(value, float(at)))
    return one


def good(one: Guard) -> float | None:
    return None if one.good is None else one.good.value


def settled(one: Guard) -> float | None:
    """The good figure where nothing is held."""
    return good(one) if one.held is None else None


@pytest.mark.parametrize("wrong", [-3.0, 0.0, math.nan, math.inf, -math.inf, 1e300])
def test_what_cannot_be_is_held_however_often_it_is_said(wrong: float) -> None:
    one = guard("usd_per_btc", 100_000.0, *[wrong] * 20)
    assert good(one) == 100_000.0
    assert one.held is not None
    assert "outside" in one.held.reason
    assert not one.confirm(), "no person can make it true either"
    one.offer(Seen(100_500.0, 99.0))
    assert settled(one) == 100_500.0


@pytest.mark.parametrize("jump", [1e6, 1e4, 9e6])
def test_a_tenfold_jump_is_held_and_flagged(jump: float) -> None:
    one = guard("usd_per_btc", 100_000.0, jump)
    assert good(one) == 100_000.0
    assert one.good is not None
    assert one.good.at_s == 1.0, "the good one grows old meanwhile"
    assert one.held is not None
    assert "jump" in one.held.reason
    one.offer(Seen(101_000.0, 9.0))
    assert settled(one) == 101_000.0


def test_a_change_below_the_factor_is_news() -> None:
    assert good(guard("usd_per_btc", 100_000.0, 990_000.0)) == 990_000.0
    assert good(guard("usd_per_btc", 100_000.0, 10_100.0)) == 10_100.0


def test_later_samples_confirm_a_jump() -> None:
    one = guard("usd_per_btc", 10_000.0, 500_000.0, 510_000.0, 520_000.0)
    assert good(one) == 10_000.0, "two later samples are not three"
    one.offer(Seen(515_000.0, 9.0))
    assert settled(one) == 515_000.0


def test_the_same_sample_again_confirms_nothing() -> None:
    one = guard("usd_per_btc", 10_000.0, 500_000.0)
    for _ in range(20):
        one.offer(Seen(500_000.0, 2.0))
    assert good(one) == 10_000.0


def test_samples_that_disagree_confirm_nothing() -> None:
    one = guard("usd_per_btc", 10_000.0, 500_000.0, 9e6, 500_000.0, 9e6, 500_000.0, 9e6)
    assert good(one) == 10_000.0


def test_a_person_confirms_at_once() -> None:
    one = guard("usd_per_btc", 10_000.0, 500_000.0)
    assert one.confirm()
    assert settled(one) == 500_000.0
    assert not one.confirm()


def test_an_older_sample_is_ignored() -> None:
    one = guard("usd_per_btc", 100.0, 110.0)
    one.offer(Seen(90.0, 1.5))
    assert good(one) == 110.0


def test_no_retarget_changes_difficulty_more_than_fourfold() -> None:
    assert good(guard("difficulty", 1e14, 3.9e14)) == 3.9e14
    assert good(guard("difficulty", 1e14, 4.1e14)) == 1e14


def test_fees_may_be_none_and_noise_of_them_is_no_jump() -> None:
    assert good(guard("fees_btc", 0.0, 0.04, 0.001)) == 0.001
    assert good(guard("fees_btc", 0.04, 8.0)) == 0.04


PRICES = st.one_of(st.floats(), st.sampled_from([9e3, 1e4, 1.1e4, 1e5, 2e6, 2.1e6, -1.0]))


@settings(max_examples=50)
@given(st.lists(PRICES, max_size=30), st.integers(2, 5))
def test_whatever_comes_the_good_figure_can_be_true(values: list[float], confirm: int) -> None:
    """And it never moves tenfold but after the samples that confirm it."""
    one = guard(confirm=confirm)
    before, since = None, 0
    for at, value in enumerate(values, 1):
        one.offer(Seen(value, float(at)))
        now = good(one)
        since += 1
        if now != before:
            assert now is not None
            assert 1.0 <= now <= 1e8
            if before is not None and max(now / before, before / now) >= 10.0:
                assert since > confirm
            before, since = now, 0
