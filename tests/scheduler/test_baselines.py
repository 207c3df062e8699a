"""Baselines: days chosen and adjusted as by hand, and what unknown intervals do to them."""

import math
from datetime import date, timedelta

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores import baselines
from wattshift_scheduler.scores.baselines import (
    FIVE_OF_TEN,
    TEN_OF_TEN,
    Adjustment,
    Baseline,
    HighOf,
    Kind,
    back_tested,
    high_of,
)

NAN = math.nan
HOURS = 24
EVENT = (16, 20)
TWO_OF_THREE = HighOf(2, 3)


def days(*levels_w: float) -> Floats:
    """Days of 24 hours; each holds its level, and 10 W more in each hour than in the one before."""
    return np.array([[level + 10.0 * hour for hour in range(HOURS)] for level in levels_w])


def told(days_w: Floats, today_w: Floats | None = None, method: HighOf = TWO_OF_THREE) -> Baseline:
    return high_of(
        days_w,
        best=method.best,
        of=method.of,
        starts=EVENT[0],
        ends=EVENT[1],
        adjust=method.adjust,
        today_w=today_w,
    )


def test_a_firm_service_level_is_a_level() -> None:
    assert baselines.firm_service_level(500.0, 3).tolist() == [500.0] * 3
    with pytest.raises(AssertionError):
        baselines.firm_service_level(NAN, 3)


def test_before_and_after_is_the_mean_before() -> None:
    metered_w = np.array([1.0, 100.0, 200.0, 300.0, 50.0, 60.0])
    assert baselines.before_after(metered_w, 4, 3).tolist() == [200.0, 200.0]
    metered_w[2] = NAN
    assert np.isnan(baselines.before_after(metered_w, 4, 3)).all(), "two of three are too few"


def test_the_highest_of_the_last_days_are_averaged_hour_by_hour() -> None:
    found = told(days(9000.0, 1000.0, 3000.0, 2000.0))
    assert found.days == (2, 3)
    assert found.watts_w[[0, 16]] == pytest.approx([2500.0, 2660.0])
    assert found.notes == ()
    assert math.isnan(found.adjustment)


def test_only_the_window_decides_which_day_is_high() -> None:
    three = days(1000.0, 1000.0, 1000.0)
    three[0, :16] = 1e6
    three[1, 16:20] += 1.0
    assert told(three, method=HighOf(1, 3)).days == (1,)


def test_of_equal_days_the_later_ones_count() -> None:
    assert told(days(1.0, 1.0, 1.0)).days == (1, 2)


def test_days_of_events_of_the_other_type_and_later_ones_are_excluded() -> None:
    monday = date(2026, 6, 1)
    fortnight = [monday + timedelta(i) for i in range(14)]
    event = date(2026, 6, 11)
    out = baselines.excluded(
        fortnight, event, events=[date(2026, 6, 9)], holidays=[date(2026, 6, 3)]
    )
    left = [day.day for day, barred in zip(fortnight, out, strict=True) if not barred]
    assert left == [1, 2, 4, 5, 8, 10]
    sunday = baselines.excluded(fortnight, date(2026, 6, 14), holidays=[date(2026, 6, 3)])
    left = [day.day for day, barred in zip(fortnight, sunday, strict=True) if not barred]
    assert left == [3, 6, 7, 13]


def test_what_is_excluded_is_no_part_of_it() -> None:
    found = high_of(
        days(9000.0, 1000.0, 9000.0, 2000.0), best=2, of=2, starts=16, ends=20,
        exclude=np.array([False, False, True, False]),
    )  # fmt: skip
    assert (found.days, found.skipped, found.notes) == ((1, 3), (), ())


def test_a_day_with_a_gap_in_the_window_is_passed_over_and_told() -> None:
    four = days(1000.0, 2000.0, 3000.0, 4000.0)
    four[3, 17] = NAN
    found = told(four)
    assert (found.days, found.skipped) == ((1, 2), (3,))
    assert any("passed over" in note for note in found.notes)


def test_a_gap_outside_the_window_is_averaged_from_the_other_days() -> None:
    three = days(1000.0, 2000.0, 3000.0)
    three[2, 3] = NAN
    found = told(three)
    assert found.watts_w[[3, 4]] == pytest.approx([2030.0, 2540.0])
    three[1, 3] = NAN
    assert math.isnan(told(three).watts_w[3])


def test_too_few_days_are_no_baseline() -> None:
    short = told(days(1000.0))
    assert np.isnan(short.watts_w).all()
    assert short.days == ()
    assert "1 of 3 days" in short.notes
    enough = told(days(1000.0, 2000.0))
    assert enough.watts_w[0] == 1500.0
    assert "2 of 3 days" in enough.notes


def test_ten_of_ten_moves_by_what_the_morning_showed_up_to_a_fifth() -> None:
    ten = np.full((10, HOURS), 1000.0)
    today_w = np.full(HOURS, 1000.0)
    today_w[12:14] = 1100.0
    today_w[14:16] = 5000.0  # hours -2 and -1 are not looked at: there a notice could be gamed
    today_w[EVENT[0] :] = NAN
    found = told(ten, today_w, TEN_OF_TEN)
    assert found.adjustment == pytest.approx(1.1)
    assert found.watts_w[17] == pytest.approx(1100.0)
    assert found.raw_w[17] == 1000.0
    today_w[12:14] = 3000.0
    assert told(ten, today_w, TEN_OF_TEN).adjustment == pytest.approx(1.2)
    today_w[12:14] = 10.0
    assert told(ten, today_w, TEN_OF_TEN).adjustment == pytest.approx(0.8)


def test_five_of_ten_moves_by_watts_both_ways() -> None:
    ten = days(*(1000.0 * i for i in range(1, 11)))
    today_w = days(5000.0)[0]
    found = told(ten, today_w, FIVE_OF_TEN)
    assert found.days == (5, 6, 7, 8, 9)
    assert found.adjustment == pytest.approx(-3000.0)
    assert found.watts_w[17] == pytest.approx(8000.0 + 170.0 - 3000.0)
    bounded = HighOf(5, 10, Adjustment(Kind.WATTS, 0.1))
    assert told(ten, today_w, bounded).adjustment == pytest.approx(-0.1 * (8000.0 + 125.0))


def test_a_baseline_in_watts_is_not_moved_below_nothing() -> None:
    today_w = np.zeros(HOURS)
    ten = days(*([100.0] * 10))
    ten[:, 0] = 1.0
    assert told(ten, today_w, FIVE_OF_TEN).watts_w.min() == 0.0


@pytest.mark.parametrize("where", ["today", "days", "midnight"])
def test_an_adjustment_that_cannot_be_told_says_so(where: str) -> None:
    ten, today_w = np.full((10, HOURS), 1000.0), np.full(HOURS, 1200.0)
    starts = 1 if where == "midnight" else EVENT[0]
    if where == "today":
        today_w[12:14] = NAN
    if where == "days":
        ten[:, 12:14] = 0.0
    found = high_of(
        ten, best=10, of=10, starts=starts, ends=starts + 2,
        adjust=TEN_OF_TEN.adjust, today_w=today_w,
    )  # fmt: skip
    assert math.isnan(found.adjustment)
    assert found.watts_w[starts] == 1000.0
    assert any("not adjusted" in note for note in found.notes)


def test_rrmse_is_the_error_over_the_mean_draw() -> None:
    found = baselines.rrmse(np.array([110.0, 90.0]), np.array([100.0, 100.0]))
    assert found == pytest.approx(0.1)
    assert math.isnan(baselines.rrmse(np.array([110.0, NAN]), np.array([100.0, 100.0])))
    assert math.isnan(baselines.rrmse(np.ones(3), np.zeros(3)))


def test_a_method_is_tested_on_the_days_that_had_no_event() -> None:
    level_w = days(*([1000.0] * 6))
    assert back_tested(level_w, TWO_OF_THREE, *EVENT) == pytest.approx(0.0)
    jumpy = np.full((6, HOURS), 1000.0)
    jumpy[5] = 2000.0
    barred = np.array([False, False, False, True, False, False])
    # Days 2, 4 and 5 have two days before them; only day 5 is told wrong, by 1000 W.
    error_w = math.sqrt((0 + 0 + 1000.0**2) / 3)
    assert back_tested(jumpy, HighOf(2, 2), *EVENT, barred) == pytest.approx(error_w * 3 / 4000.0)
    assert math.isnan(back_tested(level_w[:1], TWO_OF_THREE, *EVENT))
