"""What a load came to: quantiles, objectives and rates of known outcomes."""

from typing import Any

import pytest

from wattshift_cluster.inference.load_report import (
    CAUSES_MAX,
    Objectives,
    Tally,
    figures,
    histogram,
    quantile,
    spread,
)
from wattshift_cluster.inference.open_loop import Outcome, Reply


def outcome(after_s: float, latency_ms: float | None, cause: str | None = None) -> Outcome:
    late_ms = None if cause == "overrun" else 0.1
    return Outcome(1e9 + after_s, after_s, after_s, late_ms, latency_ms, cause, cause, Reply(200))


def report(tally: Tally, seconds: float = 10.0, **objectives: float) -> dict[str, Any]:
    return figures(tally, seconds, Objectives(**objectives), {})


def test_quantiles_are_nearest_ranks_and_unknown_where_too_few_stand_behind_them() -> None:
    ranked = [float(n) for n in range(1, 1001)]
    assert quantile(ranked, 0.5) == 500
    assert quantile(ranked, 0.95) == 950
    assert quantile(ranked, 0.999) == 999
    assert quantile(ranked[:999], 0.999) is None
    assert quantile(ranked[:99], 0.99) is None
    assert quantile(ranked[:100], 0.99) == 99
    assert quantile([7.0], 0.95) == 7.0
    assert quantile([], 0.5) is None
    assert spread([]) is None


def test_a_failure_is_later_than_any_answer() -> None:
    tally = Tally()
    for n in range(96):
        tally.note(outcome(n / 10, 100.0))
    for _ in range(4):
        tally.note(outcome(9.7, 1.0, "connection refused"))
    (kept,) = report(tally, p95_ms=100.0)["objectives"]
    assert (kept["met"], kept["found_ms"], kept["within_pct"]) == (True, 100.0, 96.0)
    tally.note(outcome(9.8, None, "overrun"))
    tally.note(outcome(9.9, None, "overrun"))
    found = report(tally, p95_ms=100.0)
    (missed,) = found["objectives"]
    assert missed["met"] is False
    assert missed["found_ms"] is None
    assert (found["due"], found["sent"], found["answered"], found["failed"]) == (102, 100, 96, 6)
    assert found["failed_by"] == {"connection refused": 4, "overrun": 2}
    assert found["latency_ms"]["max"] == 100.0, "of answers alone"
    assert [part["failed"] for part in found["slices"]] == [0] * 9 + [6]


def test_nothing_at_all_keeps_no_objective_and_knows_no_figure() -> None:
    found = report(Tally(), p95_ms=1.0, itl_p95_ms=1.0)
    assert [one["met"] for one in found["objectives"]] == [False, False]
    assert found["latency_ms"] is None
    assert found["tokens_per_s"] is None
    assert found["rate_due_per_s"] == 0


def test_what_was_due_in_the_warm_up_does_not_count() -> None:
    tally = Tally(warmup_s=5.0)
    for n in range(10):
        tally.note(outcome(float(n), 1000.0 if n < 5 else 10.0))
    found = report(tally, seconds=10.0)
    assert (found["warmup_requests"], found["due"], found["seconds"]) == (5, 5, 5.0)
    assert found["latency_ms"]["max"] == 10.0
    assert found["rate_due_per_s"] == 1.0


def test_an_overloaded_server_answers_at_the_rate_at_which_it_answered() -> None:
    tally = Tally()
    for n in range(100):
        tally.note(outcome(n / 10, 10_000.0 * n / 99))
    found = report(tally, seconds=10.0)
    assert found["rate_due_per_s"] == 10.0
    assert found["rate_answered_per_s"] == pytest.approx(100 / 19.9, rel=0.001)


def test_times_to_the_first_token_count_from_due_and_gaps_between_parts() -> None:
    tally = Tally()
    reply = Reply(200, text_s=(1.25, 1.30, 1.40), tokens=11)
    tally.note(Outcome(1e9, 1.0, 0.0, 0.1, 500.0, reply=reply))
    found = report(tally, seconds=1.0, ttft_p95_ms=249.0, itl_p95_ms=100.1)
    assert found["ttft_ms"]["max"] == pytest.approx(250)
    assert (found["itl_ms"]["n"], found["itl_ms"]["max"]) == (2, pytest.approx(100))
    assert found["tpot_ms"]["max"] == pytest.approx(15)
    assert found["tokens_per_s"] == 11
    assert [one["met"] for one in found["objectives"]] == [False, True]


def test_bars_hold_every_answer_and_causes_are_bounded() -> None:
    assert sum(histogram([0.5, 1.0, 1.1, 59_999.0, 1e9])) == 5
    assert histogram([1e9])[-1] == 1
    assert histogram([1.0])[0] == 1
    tally = Tally()
    for n in range(CAUSES_MAX + 50):
        tally.note(outcome(1.0, 1.0, f"cause {n}"))
    assert len(tally.failed_by) == CAUSES_MAX + 1
    assert tally.failed == CAUSES_MAX + 50
