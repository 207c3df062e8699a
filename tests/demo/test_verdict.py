"""The verdict follows the evidence: each part of the promise breaks by its own evidence alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wattshift_cluster.demo import recorder
from wattshift_cluster.demo.verdict import Evidence, Request, judge, percentile

READY_S, CUT_S, RESTORE_S, END_S = 1000.0, 1020.0, 1040.0, 1060.0


def _samples() -> tuple[tuple[float, float | None], ...]:
    """15 kW before the cut, falling through the cap 2.5 s after it, back after the restore."""
    rows = []
    for i in range(300):
        at_s = READY_S + i * 0.2
        inside = CUT_S + 2.5 <= at_s < RESTORE_S
        rows.append((at_s, 9_000.0 if inside else 15_000.0))
    return tuple(rows)


def _requests(latency_ms: float = 40.0) -> tuple[Request, ...]:
    return tuple(Request(READY_S + i / 15.0, latency_ms, True) for i in range(900))


def _kept() -> Evidence:
    difficulty, shares = 0.002, 100
    return Evidence(
        ready_s=READY_S,
        cut_s=CUT_S,
        restore_s=RESTORE_S,
        end_s=END_S,
        cap_w=10_000.0,
        samples=_samples(),
        commanded=("lux-1", "wm-1"),
        command_s={"lux-1": CUT_S + 0.05, "wm-1": CUT_S + 0.08},
        requests=_requests(),
        shares_accepted=shares,
        shares_rejected=0,
        accepted_difficulty=difficulty * shares,
        hashes=difficulty * shares * 2.0**32,
        batch_items=96,
        batch_found=96,
        batch_duplicates=0,
    )


def test_a_kept_promise_and_its_figures() -> None:
    verdict = judge(_kept())
    assert verdict.kept
    assert verdict.figures == {
        "verdict": "kept",
        "time_to_cap_s": 2.6,
        "commands_out_s": 0.08,
        "samples_above_cap_after": 0,
        "inference_p99_ms": {"before": 40.0, "during": 40.0, "after": 40.0},
        "inference_requests": 900,
        "inference_requests_by_phase": {"before": 300, "during": 300, "after": 300},
        "inference_failed": 0,
        "shares_accepted": 100,
        "shares_rejected": 0,
        "hash_sigma": 0.0,
        "batch_items_lost": 0,
        "seconds": 60.0,
    }


def _late() -> Evidence:
    rows = tuple((t, 15_000.0 if CUT_S <= t < CUT_S + 6.5 else w) for t, w in _samples())
    return replace(_kept(), samples=rows)


def _once_above() -> Evidence:
    rows = tuple((t, 10_001.0 if 1030.0 <= t < 1030.2 else w) for t, w in _samples())
    return replace(_kept(), samples=rows)


def _blind() -> Evidence:
    rows = tuple((t, None if 1030.0 <= t < 1030.2 else w) for t, w in _samples())
    return replace(_kept(), samples=rows)


def _slow() -> Evidence:
    slow = (
        replace(r, latency_ms=501.0) if CUT_S <= r.sent_s < RESTORE_S else r for r in _requests()
    )
    return replace(_kept(), requests=tuple(slow))


def _failed() -> Evidence:
    rows = _requests()
    return replace(_kept(), requests=(replace(rows[0], ok=False), *rows[1:]))


BROKEN = {
    "time to cap": _late(),
    "later samples above the cap": _once_above(),
    "later samples above the cap, unreadable": _blind(),
    "commands out": replace(_kept(), command_s={"lux-1": CUT_S + 1.2, "wm-1": CUT_S}),
    "commands out, one never arrived": replace(_kept(), command_s={"lux-1": CUT_S}),
    "commands out, none was sent": replace(_kept(), commanded=()),
    "inference p99 in the cut": _slow(),
    "requests failed": _failed(),
    "requests in each phase": replace(_kept(), requests=_requests()[::2]),
    "shares rejected": replace(_kept(), shares_rejected=1),
    "shares accepted": replace(_kept(), shares_accepted=0),
    "accepted difficulty against hashes": replace(_kept(), hashes=_kept().hashes * 2),
    "batch items lost": replace(_kept(), batch_found=95),
    "batch items doubled": replace(_kept(), batch_duplicates=1),
}


@pytest.mark.parametrize("part", BROKEN)
def test_each_part_breaks_by_its_own_evidence(part: str) -> None:
    verdict = judge(BROKEN[part])
    assert not verdict.kept
    assert verdict.figures["verdict"] == "broken"
    assert part.split(",")[0] in {check.name for check in verdict.checks if not check.ok}


def test_latency_may_grow_with_what_it_was_before() -> None:
    slow_anyway = tuple(
        replace(r, latency_ms=700.0 if CUT_S <= r.sent_s < RESTORE_S else 500.0)
        for r in _requests()
    )
    assert judge(replace(_kept(), requests=slow_anyway)).kept


def test_the_cap_that_is_never_reached_is_unknown_not_zero() -> None:
    verdict = judge(replace(_kept(), samples=tuple((t, 15_000.0) for t, _ in _samples())))
    assert verdict.figures["time_to_cap_s"] is None
    assert verdict.figures["samples_above_cap_after"] is None
    assert not verdict.kept


def test_percentile_is_the_value_that_a_share_does_not_exceed() -> None:
    assert percentile([], 0.99) is None
    assert percentile([5.0], 0.99) == 5.0
    assert percentile(list(map(float, range(1, 101))), 0.99) == 99.0


def test_a_request_that_was_never_answered_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    rows = [
        {"sent_s": READY_S, "latency_ms": 40.0, "status": 200, "error": None},
        {"sent_s": READY_S + 1, "latency_ms": None, "status": None, "error": "overrun"},
    ]
    log = tmp_path / "requests.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, lost = recorder.requests(log)
    assert (good.ok, lost.ok) == (True, False)
    assert lost.latency_ms >= 10_000.0
