"""A day of PJM's RegD signal: our score against published ones, and the modelled fleet against it.

    reference_error_max  furthest that any figure of the thirteen published rows is from ours
    score, correlation, delay, precision
                         of the modelled fleet over the day: gates and ASICs, the real `step`, once
                         a second, on a target of site power that moves every two seconds
    one_sided_score      the same site from the top of its range, where it can only shed
    thin_range           a site whose range is small beside what its meter shows, so that the
                         meter's noise weighs more

The score is PJM's legacy Manual 12 one. Watts are modelled, with the meter's noise; agents answer
at once and gates take 10 ms, so what the figures hold is the controller's own delay of a sample.
The day is followed in pieces, each with a base point of its own, so that they can run side by side:
some ten minutes of one processor in all. Everything is seeded: the machine's speed changes nothing.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from benchmarks import regd_reference, regd_site
from benchmarks.regd_site import Followed

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.m12 import FORFEITS_BELOW, M12, QUALIFIES

PLACES = 4

PIECES = 4
"""Of the day: six hours each."""

SIDE_HOURS = 2
"""What the other two sites follow: enough to see them by, and no more of the machine's time."""


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    signal_pu = regd_reference.signal()
    errors = _reference(signal_pu)
    pieces = np.split(signal_pu, PIECES)
    beginning = signal_pu[: round(SIDE_HOURS * 3600.0 / regd_reference.SAMPLE_S)]
    say(f"the modelled fleet follows the day in {PIECES} pieces, two more sites {SIDE_HOURS} h")
    workers = min(os.cpu_count() or 1, PIECES + 2)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        followed = [pool.submit(regd_site.follow, piece) for piece in pieces]
        thin = pool.submit(regd_site.follow, beginning, regd_site.THIN)
        shed_only = pool.submit(regd_site.follow, beginning, one_sided=True)
        fleet = _fleet([one.result() for one in followed])
        thin_range, one_sided = _fleet([thin.result()]), _scored([shed_only.result()])
    return {
        "quality": "modelled watts and meter; the reference rows are computed",
        "reference_rows": len(errors),
        "reference_error_max": round(max(errors.values()), PLACES),
        "reference_row_worst": max(errors, key=lambda name: errors[name]),
        **fleet,
        "one_sided_score": round(one_sided.score, PLACES),
        "one_sided_hours": SIDE_HOURS,
        "thin_range": thin_range,
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


def _fleet(pieces: Sequence[Followed]) -> dict[str, object]:
    found, first = _scored(pieces), pieces[0]
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
        "range_w": round(first.range_w),
        "base_w": round(first.base_w),
        "base_below_aim_pct": round(100.0 * (1.0 - first.base_w / first.aimed_base_w), 2),
        "range_share_of_base": round(first.range_w / first.base_w, PLACES),
    }


def _scored(pieces: Sequence[Followed]) -> M12:
    return regd_reference.scored(
        np.concatenate([one.signal_pu for one in pieces]),
        np.concatenate([one.response_pu for one in pieces]),
    )


def say(text: str) -> None:
    """Tell a person what is going on."""
    print(f"regd: {text}", file=sys.stderr, flush=True)
