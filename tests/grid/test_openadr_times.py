"""Durations, starts, random shifts, chains and loops of OpenADR intervals."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.grid.openadr.times import (
    Duration,
    Laid,
    TimeInvalid,
    lay_out,
    parse_duration,
    parse_start,
)
from wattshift_cluster.grid.openadr.words import Event

NOW = 1_800_000_000.0
DAY = 86_400.0


def stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def event(**parts: Any) -> Event:
    body = {"id": "e", "programID": "p", "intervals": intervals(1), **parts}
    return Event.model_validate(body)


def intervals(count: int, *periods: dict[str, str] | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": at, "payloads": [{"type": "SIMPLE", "values": [1]}]} for at in range(count)
    ]
    for row, period in zip(rows, periods, strict=False):
        if period is not None:
            row["intervalPeriod"] = period
    return rows


def laid(one: Event, draw: float = 0.0, now_s: float = NOW, first_s: float = NOW) -> Laid:
    return lay_out(one, first_s, lambda place: draw, now_s)


def spans(one: Event, **kw: float) -> list[tuple[float, float | None]]:
    return [
        (span.starts_s - NOW, None if span.ends_s is None else span.ends_s - NOW)
        for span in laid(one, **kw).spans
    ]


@pytest.mark.parametrize(
    ("text", "months", "seconds_s"),
    [
        ("PT1H", 0, 3600),
        ("PT0S", 0, 0),
        ("P1DT2H3M4.5S", 0, 86400 + 7200 + 180 + 4.5),
        ("P2W", 0, 14 * DAY),
        ("P1Y2M", 14, 0),
        ("-PT0S", 0, 0),
    ],
)
def test_durations_are_read(text: str, months: int, seconds_s: float) -> None:
    assert parse_duration(text) == Duration(months, seconds_s)


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "PT1X", "P1H", "PT-5S", "PT1,5S", "-PT1H"])
def test_what_is_no_duration_or_runs_backwards_is_refused(text: str) -> None:
    with pytest.raises(TimeInvalid):
        parse_duration(text)


def test_months_and_years_follow_the_calendar_and_infinity_has_no_end() -> None:
    end_january = datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp()
    after_s = parse_duration("P1M").after(end_january)
    assert after_s == datetime(2027, 2, 28, 12, tzinfo=UTC).timestamp()
    leap = datetime(2028, 2, 29, tzinfo=UTC).timestamp()
    assert parse_duration("P1Y").after(leap) == datetime(2029, 2, 28, tzinfo=UTC).timestamp()
    assert parse_duration("P9999Y").after(NOW) is None
    assert parse_duration("P900000000D").after(NOW) is None


def test_a_day_is_as_long_when_clocks_change() -> None:
    # In Berlin the night of 28 March 2027 loses an hour; the event is told with its offset.
    start_s = parse_start("2027-03-27T20:00:00+01:00")
    assert start_s == datetime(2027, 3, 27, 19, tzinfo=UTC).timestamp()
    assert parse_duration("P1D").after(start_s) == start_s + DAY


@pytest.mark.parametrize("text", ["0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z"])
def test_year_one_means_now(text: str) -> None:
    assert parse_start(text) is None


@pytest.mark.parametrize(
    "text",
    ["2027-01-01", "2027-01-01T00:00:00", "1969-01-01T00:00:00Z", "9999-01-01T00:00:00Z"],
)
def test_a_start_without_a_zone_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(TimeInvalid):
        parse_start(text)


def test_intervals_without_periods_follow_each_other() -> None:
    one = event(
        intervalPeriod={"start": stamp(NOW), "duration": "PT5M"},
        intervals=intervals(3, None, {"duration": "PT10M"}, None),
    )
    assert spans(one) == [(0, 300), (300, 900), (900, 1200)]


def test_an_interval_of_its_own_start_leaves_a_gap() -> None:
    one = event(
        intervalPeriod={"start": stamp(NOW), "duration": "PT5M"},
        intervals=intervals(3, None, {"start": stamp(NOW + 600)}, {"start": "0001-01-01"}),
    )
    assert spans(one) == [(0, 300), (600, 900), (900, 1200)]


def test_now_is_when_it_was_first_heard() -> None:
    one = event(intervalPeriod={"start": "0001-01-01", "duration": "P9999Y"})
    assert spans(one, first_s=NOW - 50.0) == [(-50, None)]


def test_without_a_length_it_holds_until_the_next_or_until_it_is_withdrawn() -> None:
    one = event(
        intervals=intervals(2, {"start": stamp(NOW)}, {"start": stamp(NOW + 60)}),
    )
    assert spans(one) == [(0, 60), (60, None)]
    assert any("no length" in note for note in laid(one).notes)


def test_without_any_start_it_counts_from_when_it_was_heard() -> None:
    one = event(intervalPeriod={"duration": "PT1H"})
    assert spans(one) == [(0, 3600)]
    assert any("no start" in note for note in laid(one).notes)


def test_no_length_in_year_one_is_how_an_event_is_called_off() -> None:
    gone = laid(event(intervalPeriod={"start": "0001-01-01", "duration": "PT0S"}))
    assert gone.called_off
    assert gone.spans == ()


def test_a_zero_duration_of_the_event_shortens_nothing() -> None:
    one = event(duration="PT0S", intervalPeriod={"start": stamp(NOW), "duration": "PT1H"})
    assert spans(one) == [(0, 3600)]


def test_the_events_duration_cuts_and_repeats() -> None:
    period = {"start": stamp(NOW), "duration": "PT1H"}
    cut = event(duration="PT90M", intervalPeriod=period, intervals=intervals(3))
    assert spans(cut) == [(0, 3600), (3600, 5400)]
    again = event(duration="PT5H", intervalPeriod=period, intervals=intervals(2))
    assert [start for start, _ in spans(again)] == [0, 3600, 7200, 10800, 14400]
    assert spans(again)[-1] == (14400, 18000)
    assert laid(again).ends_s == NOW + 5 * 3600


def test_an_endless_loop_is_laid_out_around_now_however_long_ago_it_began() -> None:
    one = event(
        duration="P9999Y",
        intervalPeriod={"start": stamp(NOW - 3000 * DAY), "duration": "PT12H"},
        intervals=intervals(2),
    )
    found = laid(one)
    assert found.ends_s is None
    assert any(span.starts_s <= NOW < (span.ends_s or 0) for span in found.spans)
    assert found.spans[-1].starts_s > NOW + 6 * DAY
    assert len(found.spans) < 40


def test_a_loop_of_nothing_holds_once() -> None:
    one = event(
        duration="P9999Y",
        intervalPeriod={"start": stamp(NOW), "duration": "PT0.001S"},
    )
    assert len(laid(one).spans) <= 1
    assert any("repeat every" in note for note in laid(one).notes)


@pytest.mark.parametrize(("draw", "shift"), [(1.0, 60.0), (-1.0, -60.0), (0.5, 30.0)])
def test_a_random_start_moves_the_start_and_never_ends_sooner(draw: float, shift: float) -> None:
    one = event(
        intervalPeriod={"start": stamp(NOW), "duration": "PT10M", "randomizeStart": "PT1M"},
        intervals=intervals(2),
    )
    late = max(0.0, shift)
    assert spans(one, draw=draw) == [(shift, 600 + late), (600 + shift, 1200 + late)]


def test_an_intervals_own_random_start_replaces_the_events() -> None:
    period = {"start": stamp(NOW), "duration": "PT10M", "randomizeStart": "PT1M"}
    own = {"start": stamp(NOW + 3600), "randomizeStart": "PT2M"}
    one = event(intervalPeriod=period, intervals=intervals(3, None, own, None))
    drawn = {-1: 1.0, 1: 0.25}
    found = lay_out(one, NOW, lambda place: drawn[place], NOW)
    assert [span.starts_s - NOW for span in found.spans] == [60, 3630, 4230]


@pytest.mark.parametrize(
    "period",
    [
        {"start": stamp(NOW), "duration": "-PT1H"},
        {"start": stamp(NOW), "duration": "one hour"},
        {"start": "tomorrow", "duration": "PT1H"},
        {"start": stamp(NOW), "duration": "PT1H", "randomizeStart": "P9999Y"},
    ],
)
def test_an_event_that_cannot_be_placed_is_refused(period: dict[str, str]) -> None:
    with pytest.raises(TimeInvalid):
        laid(event(intervalPeriod=period), draw=1.0)


def test_overlapping_intervals_are_told() -> None:
    one = event(
        intervalPeriod={"start": stamp(NOW), "duration": "PT10M"},
        intervals=intervals(2, None, {"start": stamp(NOW + 300)}),
    )
    assert any("overlap" in note for note in laid(one).notes)
    assert not any("overlap" in note for note in laid(event()).notes)


def test_what_follows_an_endless_interval_never_begins() -> None:
    one = event(intervalPeriod={"start": stamp(NOW), "duration": "P9999Y"}, intervals=intervals(2))
    assert spans(one) == [(0, None)]
    assert any("never begins" in note for note in laid(one).notes)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_duration, parse_start):
        try:
            read(text)
        except TimeInvalid:
            continue


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-1, 1),
    st.integers(0, 120),
    st.lists(st.integers(1, 3600), min_size=1, max_size=6),
)
def test_a_chain_stays_whole_under_any_shift(draw: float, widest: int, lengths: list[int]) -> None:
    """No moment between the shifted start and the told end is without an interval."""
    periods = [{"duration": f"PT{length}S"} for length in lengths]
    one = event(
        intervalPeriod={"start": stamp(NOW), "randomizeStart": f"PT{widest}S"},
        intervals=intervals(len(lengths), *periods),
    )
    found = spans(one, draw=draw)
    shift = draw * widest
    assert found[0][0] == pytest.approx(shift, abs=1e-3)
    assert found[-1][1] == pytest.approx(sum(lengths) + max(0, shift), abs=1e-3)
    for (_, ends), (starts, _) in pairwise(found):
        assert ends is not None
        assert starts <= ends + 1e-6
