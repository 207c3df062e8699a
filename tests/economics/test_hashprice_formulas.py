"""The formulas against worked examples, and against each other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.hashprice import (
    Network,
    Scheme,
    break_even_usd_per_mwh,
    curtailment_credit_usd_per_mwh,
    j_per_th,
    next_halving,
    pay_back_h,
    retargeted,
    subsidy_btc,
    usd_per_difficulty,
)
from wattshift_scheduler.values import Values

EARLIER = Network(difficulty=1e14, subsidy_btc=3.125, fees_btc=0.0, usd_per_btc=100_000.0)
NOW = Network(difficulty=150e12, subsidy_btc=3.125, fees_btc=0.03, usd_per_btc=100_000.0)

positive = st.floats(1e-3, 1e18)
shares = st.floats(0.0, 0.99)


def test_the_worked_examples() -> None:
    """mining.md section 9: difficulty 100T without fees, and 150T with 0.03 BTC of them."""
    assert round(EARLIER.usd_per_ph_day(), 2) == 62.86
    assert round(NOW.usd_per_ph_day(), 2) == 42.31


@pytest.mark.parametrize(
    ("effort", "usd_per_mwh", "digits"),
    [(34.2, 51.55, 2), (21.5, 82.00, 2), (17.5, 100.7, 1), (15.0, 117.5, 1), (13.5, 130.6, 1)],
)
def test_the_worked_break_evens(effort: float, usd_per_mwh: float, digits: int) -> None:
    assert round(break_even_usd_per_mwh(NOW.usd_per_ph_day(), effort), digits) == usd_per_mwh


def test_the_subsidy_halves_by_height() -> None:
    heights = {0: 50.0, 209_999: 50.0, 210_000: 25.0, 839_999: 6.25, 840_000: 3.125}
    assert {height: subsidy_btc(height) for height in heights} == heights
    assert subsidy_btc(1_050_000) == 1.5625
    assert subsidy_btc(32 * 210_000) == 1e-8, "the last satoshi"
    assert subsidy_btc(33 * 210_000) == subsidy_btc(10**9) == 0.0
    assert next_halving(840_000) == next_halving(1_049_999) == 1_050_000
    with pytest.raises(ValueError, match="height -1"):
        subsidy_btc(-1)


def test_all_the_money_that_there_will_ever_be() -> None:
    """The sum of all subsidies is the known 20,999,999.9769 BTC."""
    total = sum(210_000 * round(subsidy_btc(n * 210_000) * 1e8) for n in range(64))
    assert total == 2_099_999_997_690_000


def test_the_retarget_is_bounded_by_four() -> None:
    two_weeks_s = 1_209_600.0
    assert retargeted(100.0, two_weeks_s) == 100.0
    assert retargeted(100.0, two_weeks_s / 2) == 200.0
    assert retargeted(100.0, 1.0) == 400.0
    assert retargeted(100.0, 1e9) == 25.0


def test_what_each_scheme_pays_for_a_share() -> None:
    """A share of difficulty 150e9 is a thousandth of a block."""
    one = 150e9
    paid = {how: NOW.share_btc(one, how, 0.0) for how in Scheme}
    assert paid[Scheme.PPS] == pytest.approx(3.125e-3)
    assert paid[Scheme.FPPS] == paid[Scheme.PPS_PLUS] == paid[Scheme.PPLNS]
    assert paid[Scheme.FPPS] == pytest.approx(3.155e-3)
    unlucky = {how: NOW.share_btc(one, how, 0.0, luck=0.5) for how in Scheme}
    assert unlucky[Scheme.PPS] == paid[Scheme.PPS]
    assert unlucky[Scheme.FPPS] == paid[Scheme.FPPS]
    assert unlucky[Scheme.PPS_PLUS] == pytest.approx(3.140e-3)
    assert unlucky[Scheme.PPLNS] == pytest.approx(1.5775e-3)
    assert NOW.share_btc(one, Scheme.FPPS, 0.02) == pytest.approx(0.98 * paid[Scheme.FPPS])


@settings(max_examples=50)
@given(positive, st.floats(0, 10), positive, st.floats(1e-6, 1e12), shares)
def test_a_share_is_worth_the_same_by_either_way(
    difficulty: float, fees: float, price: float, share: float, fee: float
) -> None:
    """By its part of a block, and by the hashes that it proves at the hashprice."""
    network = Network(difficulty, 3.125, fees, price)
    by_block = network.share_btc(share, Scheme.FPPS, fee) * price
    values = Values(network.usd_per_ph_day(), fee)
    by_hashes = share * usd_per_difficulty(values.usd_per_hash_hour)
    assert by_hashes == pytest.approx(by_block, rel=1e-9)


@settings(max_examples=50)
@given(st.floats(1.0, 1e3), st.floats(1.0, 1e3), st.floats(0.1, 1e4))
def test_at_break_even_an_hour_earns_its_energy(effort: float, price: float, watts: float) -> None:
    even = break_even_usd_per_mwh(price, effort)
    hashes_per_s = watts / effort * 1e12
    earned = hashes_per_s * Values(price).usd_per_hash_hour
    assert earned == pytest.approx(watts * even / 1e6, rel=1e-9)
    assert j_per_th(watts, hashes_per_s) == pytest.approx(effort)
    assert curtailment_credit_usd_per_mwh(even, even) == 0.0


def test_pay_back() -> None:
    assert pay_back_h(0.40, 0.20) == pytest.approx(2.0)
    assert pay_back_h(0.40, 0.0) is None
    assert pay_back_h(0.40, -1.0) is None
    assert pay_back_h(0.0, -1.0) == 0.0


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_nonsense_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Network(wrong, 3.125, 0.0, 1.0)
    with pytest.raises(ValueError, match="above zero"):
        Network(1.0, 3.125, 0.0, wrong)
    if wrong:
        with pytest.raises(ValueError, match="not negative"):
            Network(1.0, 3.125, wrong, 1.0)
    assert j_per_th(100.0, 0.0) is None


def test_an_unknown_hashprice_is_worth_nothing_and_is_not_zero() -> None:
    assert Values(None).usd_per_hash_hour == 0.0
    assert Values(None).hashprice_usd_per_ph_day is None
