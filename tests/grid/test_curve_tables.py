"""Tables of others: shapes, zones, days of 23 and 25 hours, issues, units, and nonsense."""

import json
import math
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.curves.rows import Shape, at_path, of_answer, of_csv
from wattshift_cluster.grid.curves.steps import value_at
from wattshift_cluster.grid.curves.times import TableTimes
from wattshift_cluster.grid.market.prices import Money

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_S = 3600.0
AUTUMN_S = 1_792_879_200.0
"""2026-10-25T00:00 in Berlin, a day of 25 hours."""

read = Money().read


def test_the_day_of_25_hours_has_its_repeated_hour_twice() -> None:
    rows = [f"2026-10-25T{h:02}:{m:02},{h * 100 + m}" for h in (0, 1, 2) for m in (0, 30)]
    rows += [f"2026-10-25T02:{m:02},{900 + m}" for m in (0, 30)]
    rows += [f"2026-10-25T{h:02}:{m:02},{h * 100 + m}" for h in range(3, 24) for m in (0, 30)]
    text = "time,value\n" + "\n".join(rows)
    (day,) = of_csv(text, "p.csv", Shape(zone=BERLIN), read).issues
    assert day.ends_s - day.times_s[0] == 25 * HOUR_S
    assert day.times_s[0] == AUTUMN_S
    assert [value_at(day, AUTUMN_S + at * HOUR_S) for at in (2, 2.5, 3, 3.5, 4)] == [
        200, 230, 900, 930, 300,
    ]  # fmt: skip


def test_the_day_of_23_hours_has_no_skipped_hour() -> None:
    rows = [f"2026-03-29T{h:02}:00,{h}" for h in range(24) if h != 2]
    (day,) = of_csv("time,value\n" + "\n".join(rows), "p.csv", Shape(zone=BERLIN), read).issues
    assert day.ends_s - day.times_s[0] == 23 * HOUR_S
    with pytest.raises(ConfigInvalid, match="does not exist in Europe/Berlin"):
        of_csv("time,value\n2026-03-29T02:00,1", "p.csv", Shape(zone=BERLIN), read)


def test_a_time_without_a_zone_is_refused_where_nobody_told_one() -> None:
    with pytest.raises(ConfigInvalid, match="no zone"):
        of_csv("time,value\n2026-03-29T02:00,1", "p.csv", Shape(), read)
    assert TableTimes(BERLIN).read("2026-10-25T02:30+01:00") == AUTUMN_S + 3.5 * HOUR_S
    assert TableTimes(None, 0.001).read(1_792_879_200_000) == AUTUMN_S
    nonsense: list[object] = [10**400, float("nan"), True, None, [], "1e999", -5]
    for wrong in nonsense:
        with pytest.raises(ValueError, match=r"time|zone|missing"):
            TableTimes(BERLIN).read(wrong)


def test_shapes_of_others_are_read_where_they_say_so() -> None:
    awattar = {
        "data": [
            {"start_timestamp": 2e12 + n * 3.6e6, "end_timestamp": 2e12 + (n + 1) * 3.6e6,
             "marketprice": -10.0 + n} for n in (1, 0)
        ]
    }  # fmt: skip
    shape = Shape("start_timestamp", "marketprice", "end_timestamp", rows="data", number_s=0.001)
    euros = Money("EUR", usd_per={"EUR": 1.25}).read
    table = of_answer(json.dumps(awattar), "url", shape, euros, is_csv=False)
    assert table.notes == ()
    assert [value_at(table.issues[0], 2e9 + at) for at in (0, 3600)] == [-12.5, -11.25]
    assert math.isnan(value_at(table.issues[0], 2e9 + 7200))
    agile = {"results": [{"value_inc_vat": 0.21, "valid_from": "2026-09-01T12:00:00Z"}]}
    octopus = Shape("valid_from", "value_inc_vat", "valid_to", rows="results", last_s=1800)
    pounds = Money("GBP", 1000.0, {"GBP": 1.3}).read
    (half,) = of_answer(json.dumps(agile), "url", octopus, pounds, is_csv=False).issues
    assert list(half.values) == pytest.approx([273.0])
    assert half.ends_s - half.times_s[0] == 1800


def test_rows_can_be_chosen_and_values_end() -> None:
    text = "hub,time,value\nWEST,1000,40\nSOUTH,1000,41\nSOUTH,1900,42\n"
    (south,) = of_csv(text, "p.csv", Shape(where={"hub": "SOUTH"}, hold_s=300), read).issues
    assert [value_at(south, at) for at in (1000, 1299, 1900)] == [41, 41, 42]
    assert math.isnan(value_at(south, 1300))


def test_an_issue_counts_from_its_time_on_and_replaces_what_was_told_before() -> None:
    text = "issued,time,value\n0,1000,1\n0,2000,2\n0,3000,3\n1500,2000,20\n1500,2500,25\n"
    table = of_csv(text, "p.csv", Shape(), read)
    before, after = table.known(1499, 0), table.known(1500, 0)
    assert [value_at(before, at) for at in (1000, 2000, 2500, 3000)] == [1, 2, 2, 3]
    assert [value_at(after, at) for at in (1000, 2000, 2500, 3000)] == [1, 20, 25, 3]
    assert after is not None
    assert after.told_s == 1500
    assert table.known(-1, 0) is None


def test_a_server_s_nonsense_is_a_gap_and_is_noted() -> None:
    rows: list[object] = [
        {"time": 1000, "value": 40},
        {"time": 2000, "value": "NaN"},
        {"time": 3000, "value": None},
        {"time": 4000, "value": 1e9},
        {"time": "noon", "value": 1},
        {"time": 5000, "value": True},
        {"time": 6000, "value": -7, "end": 5000},
        {"time": 7000, "value": -7, "end": 8000},
        "row",
    ]
    table = of_answer(json.dumps(rows), "url", Shape(), read, is_csv=False)
    (steps,) = table.issues
    known = [value_at(steps, at) for at in (1500, 2500, 3500, 4500, 5500, 7500)]
    assert [known[0], known[5]] == [40, -7]
    assert all(math.isnan(value) for value in known[1:5])
    assert len(table.notes) == 1
    assert "and 7 more" in table.notes[0]
    for wrong in ("nope", "[]", "3", '{"a": {}}', "[[[[", "[{}]"):
        with pytest.raises(ConfigInvalid):
            of_answer(wrong, "url", Shape(rows="a" if "a" in wrong else ""), read, is_csv=False)
    assert at_path({"a": [{"b": 5}]}, "a.0.b") == 5
    assert at_path({"a": [{"b": 5}]}, "a.7.b") is None


def test_an_owner_s_file_is_refused_with_all_its_faults() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        of_csv("time,value,end\n1000,1,900\n2000,nan,\n1500,3,\nx,4,\n", "p.csv", Shape(), read)
    told = str(caught.value)
    assert [line.split(": ")[0] for line in told.splitlines()] == [
        "p.csv:2", "p.csv:3", "p.csv:4", "p.csv:5",
    ]  # fmt: skip


def test_a_currency_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="currency EUR has no rate"):
        Money("EUR").read(40.0)
    with pytest.raises(ValueError, match="no price"):
        Money().read("forty")
    with pytest.raises(ValueError, match="outside"):
        Money(per_mwh=1000.0).read(41.2)
    assert Money().read("-500.0") == -500.0


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
CELLS = ATOMS | st.sampled_from(["2026-09-01T12:00Z", "1e308", "0001-01-01", 1_788_264_000])
TABLES = st.lists(
    st.dictionaries(st.sampled_from(["time", "value", "end", "issued"]), CELLS | st.lists(CELLS)),
    max_size=5,
)


@settings(max_examples=150)
@given(TABLES | ATOMS | st.dictionaries(st.text(max_size=3), ATOMS))
def test_whatever_a_server_answers_is_a_sound_curve_or_refused(body: object) -> None:
    shape = Shape(zone=BERLIN)
    try:
        table = of_answer(json.dumps(body), "url", shape, read, is_csv=False)
    except ConfigInvalid:
        return
    known = table.known(math.inf, 5.0)
    assert known is not None
    edges = (*known.times_s, known.ends_s)
    assert all(before < after for before, after in pairwise(edges))
    assert all(math.isnan(value) or -5000 <= value <= 30_000 for value in known.values)
    assert all(0 <= edge < 1e10 for edge in edges)
