"""Curves: spans laid out, gaps, overlaps, and one curve in another's place."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.grid.curves.steps import (
    Span,
    filled,
    laid,
    overlaid,
    since,
    spans,
    value_at,
)
from wattshift_cluster.grid.said import Steps

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15), st.integers(-5, 5)), max_size=8)


def curve(rows: list[tuple[int, int, int]], told_s: float = 0.0) -> Steps | None:
    return laid([Span(a, a + length, float(v)) for a, length, v in rows], told_s).steps


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def naive(rows: list[tuple[int, int, int]], at_s: float) -> float:
    """The span that began last holds, if it still runs and is the only one that began then."""
    begun = [row for row in rows if row[0] <= at_s]
    if not begun:
        return math.nan
    latest = max(row[0] for row in begun)
    mine = [row for row in begun if row[0] == latest]
    values = {row[2] for row in mine}
    ends = max(row[0] + row[1] for row in mine)
    return float(mine[0][2]) if len(values) == 1 and at_s < ends else math.nan


@settings(max_examples=80)
@given(SPANS)
def test_spans_hold_as_a_plain_search_says(rows: list[tuple[int, int, int]]) -> None:
    steps = curve(rows)
    for at in range(-1, 80):
        assert same(value_at(steps, at + 0.5), naive(rows, at + 0.5))


@settings(max_examples=80)
@given(SPANS, SPANS)
def test_a_newer_curve_holds_wherever_it_speaks(
    old: list[tuple[int, int, int]], new: list[tuple[int, int, int]]
) -> None:
    older, newer = curve(old), curve(new, 9.0)
    if newer is None:
        return
    both = overlaid(older, newer)
    assert both.told_s == 9.0
    for at in range(-1, 80):
        speaks = newer.times_s[0] <= at + 0.5 < newer.ends_s
        expected = value_at(newer if speaks else older, at + 0.5)
        assert same(value_at(both, at + 0.5), expected)
    first = filled(older, newer)
    for at in range(-1, 80):
        known = value_at(older, at + 0.5)
        expected = value_at(newer, at + 0.5) if math.isnan(known) else known
        assert same(value_at(first, at + 0.5), expected)


@settings(max_examples=50)
@given(SPANS, st.integers(-5, 90))
def test_the_past_can_be_left_out(rows: list[tuple[int, int, int]], cut: int) -> None:
    steps = curve(rows)
    if steps is None:
        return
    left = since(steps, cut)
    for at in range(max(cut, -1), 90):
        assert same(value_at(left, at + 0.5), value_at(steps, at + 0.5))
    assert left is None or len(left.times_s) <= len(steps.times_s)


def test_what_was_not_taken_as_it_stood_is_noted() -> None:
    rows = [Span(0, 10, 1.0), Span(5, 10, 2.0), Span(20, 30, 3.0), Span(20, 30, 4.0)]
    done = laid([*rows, Span(7, 7, 9.0), Span(9, 8, 9.0)], 0.0)
    assert done.notes == (
        "1 times have two values: unknown",
        "1 values overlap the next one, which holds",
    )
    assert done.steps is not None
    assert [value_at(done.steps, at) for at in (2, 7)] == [1.0, 2.0]
    assert math.isnan(value_at(done.steps, 12))
    assert math.isnan(value_at(done.steps, 25))
    assert laid([], 0.0).steps is None
    # Twice the same is no contradiction.
    assert laid([Span(0, 1, 5.0), Span(0, 1, 5.0)], 0.0).notes == ()


def test_the_last_value_without_an_end_holds_as_long_as_the_one_before_it() -> None:
    rows = [Span(0, math.inf, 1.0), Span(900, math.inf, 2.0)]
    done = laid(rows, 0.0).steps
    assert done is not None
    assert done.ends_s == 1800
    assert laid(rows, 0.0, hold_s=60).steps.ends_s == 960  # type: ignore[union-attr]
    assert [span.ends_s for span in spans(done)] == [900, 1800]
