"""The billed demand: which intervals count, and that a faulty meter raises nothing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.signals.billed import Demand, Month, billed_w, metered

QUARTER_S = 900.0
BASE_S = 1_788_264_000.0
MOST_W = 1e6


def fed(demand: Demand, samples: list[tuple[float, float]], month: int | None = 7) -> Demand:
    for at_s, watts_w in samples:
        demand = metered(demand, watts_w, at_s, window_s=QUARTER_S, most_w=MOST_W, month=month)
    return demand


def quarter(n: int, watts_w: float, step_s: float = 15.0) -> list[tuple[float, float]]:
    begins_s = BASE_S + n * QUARTER_S
    return [(begins_s + (k + 1) * step_s, watts_w) for k in range(int(QUARTER_S / step_s))]


def begun(at_s: float = BASE_S) -> Demand:
    return fed(Demand(Month(7)), [(at_s, 0.0)])


def test_the_highest_whole_interval_counts() -> None:
    demand = fed(begun(), [*quarter(0, 5e5), *quarter(1, 7e5), *quarter(2, 6e5)])
    assert demand.month.number == 7
    assert demand.month.highest_w == pytest.approx(7e5)
    # Of an interval that is not over nothing is known.
    half = fed(begun(), quarter(0, 9e5)[:-1])
    assert math.isnan(half.month.highest_w)


def test_an_interval_that_was_not_metered_does_not_count() -> None:
    begun_late = fed(Demand(Month(7)), quarter(0, 5e5)[8:])
    assert math.isnan(begun_late.month.highest_w)
    gap = fed(begun(), [*quarter(0, 5e5)[:20], *quarter(0, 5e5)[30:]])
    assert math.isnan(gap.month.highest_w)
    unknown = fed(
        begun(), [(at, math.nan if 20 < n < 30 else w) for n, (at, w) in enumerate(quarter(0, 5e5))]
    )
    assert math.isnan(unknown.month.highest_w)


def test_what_the_connection_cannot_carry_is_a_fault_of_the_meter() -> None:
    assert math.isnan(fed(begun(), quarter(0, 1.1e6)).month.highest_w)
    assert fed(begun(), quarter(0, -3e5)).month.highest_w == 0.0
    back = fed(fed(begun(), quarter(0, 5e5)), [(BASE_S, 9e5)])
    assert back.month.highest_w == pytest.approx(5e5)


def test_a_month_begins_anew_and_hours_that_are_not_billed_do_not_count() -> None:
    demand = fed(begun(), quarter(0, 5e5))
    demand = fed(demand, quarter(1, 9e5), month=None)
    assert demand.month.highest_w == pytest.approx(5e5)
    demand = fed(demand, quarter(2, 3e5), month=8)
    assert demand.month.number == 8
    assert demand.month.highest_w == pytest.approx(3e5)
    assert billed_w(demand.month, 8, 4e5) == 4e5
    assert billed_w(Month(8, 6e5), 8, 4e5) == 6e5
    assert billed_w(Month(8, 6e5), 9, 4e5) == 4e5
    assert billed_w(Month(8), 8, 4e5) == 4e5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1.2e6) | st.just(math.nan), min_size=1, max_size=6))
def test_the_highest_is_never_above_any_whole_interval(levels_w: list[float]) -> None:
    samples = [one for n, level_w in enumerate(levels_w) for one in quarter(n, level_w, 30.0)]
    highest_w = fed(begun(), samples).month.highest_w
    good = [level_w for level_w in levels_w if level_w <= MOST_W]
    if good:
        assert highest_w == pytest.approx(max(good))
    else:
        assert math.isnan(highest_w)
