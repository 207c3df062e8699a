"""A day of PJM's RegD signal: our score against published ones, and the modelled fleet against it.

    reference_error_max  furthest that any figure of the thirteen published rows is from ours
    score, correlation, delay, precision
                         of the modelled fleet over the day: gates and ASICs, the real `step`, once
                         a second, on a target of site power that moves every two seconds
    one_sided_score      the same site from the top of its range, where it can only shed

The score is PJM's legacy Manual 12 one. Watts are modelled, with the meter's noise; agents answer
at once and gates take 10 ms, so what the figures hold is the controller's own delay of a sample.
Two runs of a day take some minutes; both are seeded, so the machine's speed changes nothing.
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks import regd_reference, regd_site
from benchmarks.regd_site import Followed

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.m12 import FORFEITS_BELOW, QUALIFIES

PLACES = 4


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    signal_pu = regd_reference.signal()
    errors = _reference(signal_pu)
    say("the modelled fleet follows the day, from the middle of its range and from its top")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as both:
        followed = both.submit(regd_site.follow, signal_pu)
        shed_only = both.submit(regd_site.follow, signal_pu, one_sided=True)
        return {
            "quality": "modelled watts and meter; the reference rows are computed",
            "reference_rows": len(errors),
            "reference_error_max": round(max(errors.values()), PLACES),
            "reference_row_worst": max(errors, key=lambda name: errors[name]),
            **_fleet(followed.result()),
            "one_sided_score": round(_score(shed_only.result()), PLACES),
            "control_period_s": regd_site.CONTROL_PERIOD_S,
        }


def _reference(signal_pu: Floats) -> dict[str, float]:
    """How far each row of the published table is from ours."""
    errors = {}
    for row in regd_reference.rows(signal_pu):
        errors[row.name] = regd_reference.error_of(row, signal_pu)
        found = regd_reference.scored(signal_pu, row.response_pu)
        say(f"{row.name:<22} score {found.score:.4f}, published {row.published[3]:.3f}, "
            f"furthest figure {errors[row.name]:.4f} off")  # fmt: skip
    return errors


def _fleet(one: Followed) -> dict[str, object]:
    found = regd_reference.scored(one.signal_pu, one.response_pu)
    hours = found.hours.mean(axis=1)
    return {
        "score": round(found.score, PLACES),
        "correlation": round(found.correlation, PLACES),
        "delay": round(found.delay, PLACES),
        "precision": round(found.precision, PLACES),
        "worst_hour": round(found.worst_hour, PLACES),
        "hours": len(hours),
        "hours_forfeited": int((hours < FORFEITS_BELOW).sum()),
        "qualifies": found.score >= QUALIFIES,
        "unknown_windows": found.unknown_windows,
        "range_w": round(one.range_w),
        "base_w": round(one.base_w),
        "range_share_of_base": round(one.range_w / one.base_w, PLACES),
        "devices": regd_site.GATES + regd_site.ASICS,
    }


def _score(one: Followed) -> float:
    return regd_reference.scored(one.signal_pu, one.response_pu).score


def say(text: str) -> None:
    """Tell a person what is going on."""
    print(f"regd: {text}", file=sys.stderr, flush=True)
