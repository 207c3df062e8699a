"""Quantities: what is read, what is refused, and that showing one can be read back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.config.quantities import (
    QuantityInvalid,
    format_seconds,
    format_watts,
    parse_seconds,
    parse_usd,
    parse_usd_per_mwh,
    parse_watts,
)


@pytest.mark.parametrize(
    ("text", "watts_w"),
    [
        ("1.2MW", 1.2e6),
        ("800kW", 8e5),
        ("150W", 150.0),
        ("150", 150.0),
        (150, 150.0),
        (" 2 GW ", 2e9),
    ],
)
def test_watts_are_read_with_their_unit(text: object, watts_w: float) -> None:
    assert parse_watts(text) == watts_w


@pytest.mark.parametrize(
    ("text", "seconds_s"),
    [("250ms", 0.25), ("15s", 15.0), ("5m", 300.0), ("5min", 300.0), ("1h30m", 5400.0), (2.5, 2.5)],
)
def test_durations_are_read_with_their_unit(text: object, seconds_s: float) -> None:
    assert parse_seconds(text) == seconds_s


def test_money_and_prices() -> None:
    assert parse_usd("$12.50") == parse_usd("12.50USD") == 12.5
    assert parse_usd_per_mwh("0.04 USD/kWh") == pytest.approx(40.0)
    assert parse_usd_per_mwh("-12") == -12.0, "negative prices are normal"


@pytest.mark.parametrize("wrong", ["", "W", "1.2.3W", "12 apples", "1h30x", None, True, [1], "nan"])
def test_what_is_not_a_quantity_is_refused(wrong: object) -> None:
    for parse in (parse_watts, parse_seconds):
        with pytest.raises(QuantityInvalid):
            parse(wrong)


def test_case_is_not_guessed() -> None:
    with pytest.raises(QuantityInvalid, match="write MW"):
        parse_watts("5mW")


@pytest.mark.parametrize("amount", [math.inf, -math.inf, math.nan, "1e400"])
def test_infinity_is_no_quantity(amount: object) -> None:
    with pytest.raises(QuantityInvalid):
        parse_watts(amount)


@given(st.floats(min_value=-1e10, max_value=1e10))
def test_shown_watts_read_back_to_what_was_shown(watts_w: float) -> None:
    assert parse_watts(format_watts(watts_w)) == pytest.approx(watts_w, rel=1e-5)


@given(st.floats(min_value=1e-3, max_value=1e8))
def test_shown_seconds_read_back_to_what_was_shown(seconds_s: float) -> None:
    assert parse_seconds(format_seconds(seconds_s)) == pytest.approx(seconds_s, rel=1e-5)
