"""Emerald's field test on its own data: a 25 % cut of three hours, with and without mining.

All of it is modelled: the simulator's world with the real `step`, jobs and power caps as Emerald
measured them on 256 A100 (arXiv 2507.00909), watts of GPUs as in its sweep. A power cap takes at
once there, an ASIC five seconds.

    event                  a cut of 25 % with mining at a little more than a quarter of the load
    event_40               a cut of 40 %: mining first, then AI by class, the most flexible first
    event_ai_only          25 % without mining, and `ai_only_gap_to_lp_pct`: how far that lies below
                           the best that any mix of the sweep's power caps could do
    equal_interconnect     a year on one connection; see `emerald_year`

    ai_performance         throughput in the event over that of the same site without an event, by
                           Emerald's weights; `…_worst` that of the worst job
    slo_missed_beyond_pct  requests that miss their SLO, beyond those of the run without an event
    minutes_above          minutes whose mean lies above the cap
    undershoot_pct         how far the lowest minute lies below the cap, % of the load before
    settle_s               until the site is at or below the cap for good
"""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.emerald_data import Workload, workloads
from benchmarks.emerald_event import EVENT_S, Run, play
from benchmarks.emerald_lp import base_w, best_performance, weights
from benchmarks.emerald_year import NOTES, equal_interconnect

from wattshift_scheduler.jobs import FLEXIBILITY_LOSS

MINING_SHARE = 0.27
"""Of the site's load: a little more than the quarter that is to go, for what AI wavers."""

GAVE = 1e-6
"""Throughput below that of the run without an event by more than this was taken."""

PUBLISHED = {"ai_performance": 0.9096, "ai_performance_worst": 0.667, "minutes_above": 7}
"""Emerald's own event of 25 % on those jobs, from its raw data (2025-05-03, Phoenix)."""


def run() -> dict[str, object]:
    """Model; the keys are those of INTERFACES."""
    jobs = workloads()
    mining_w = base_w(jobs) * MINING_SHARE / (1.0 - MINING_SHARE)
    calm = _played(jobs, mining_w, None)
    quarter = _played(jobs, mining_w, 0.75 * calm.base_w())
    deep = _played(jobs, mining_w, 0.60 * calm.base_w())
    alone = _played(jobs, 0.0, None)
    alone_cut = _played(jobs, 0.0, 0.75 * alone.base_w())
    for note in NOTES:
        print(f"emerald: assumed: {note}", file=sys.stderr)
    return {
        "quality": "modelled",
        "data": "Emerald's sweep and jobs, ERCOT HB_SOUTH day-ahead, ServeGen m-large",
        "equal_interconnect": equal_interconnect(jobs),
        "equal_interconnect_any_hour": equal_interconnect(jobs, dearest=False),
        **_event("event", quarter, calm, 25),
        **_event("event_40", deep, calm, 40),
        **_event("event_ai_only", alone_cut, alone, 25),
        "event_published": PUBLISHED,
        "by_class_order_40": _by_class_order(jobs, _relative(deep, calm)),
        "by_class_order_ai_only": _by_class_order(jobs, _relative(alone_cut, alone)),
        "mining_share_pct": round(100 * MINING_SHARE, 1),
        "ai_only_gap_to_lp_pct": _gap_pct(jobs, alone_cut, alone),
        "ai_performance": _flat(quarter, calm),
        "slo_missed_beyond_pct": _beyond_pct(quarter, calm),
        "slo_missed_without_event_pct": round(100 * max(calm.missed().values()), 4),
        "undershoot_pct": _undershoot_pct(quarter),
        "notes": list(NOTES),
    }


def _played(jobs: Sequence[Workload], mining_w: float, limit_w: float | None) -> Run:
    began_s = time.monotonic()
    one = play(jobs, mining_w, limit_w)
    cap = "no event" if limit_w is None else f"a cap of {limit_w / 1000:.1f} kW"
    print(
        f"emerald: {cap}, mining {mining_w / 1000:.1f} kW: {len(one.moments)} slices, "
        f"{time.monotonic() - began_s:.1f} s",
        file=sys.stderr,
    )
    return one


def _event(name: str, cut: Run, calm: Run, shed_pct: int) -> dict[str, Any]:
    minutes_w, relative = cut.minute_means_w(), _relative(cut, calm)
    return {
        name: {
            "shed_pct": shed_pct,
            "hours": EVENT_S / 3600.0,
            "ai_performance": _flat(cut, calm),
            "ai_performance_worst": round(min(relative.values()), 5),
            "by_job": {job: round(value, 5) for job, value in relative.items()},
            "slo_missed_beyond_pct": _beyond_pct(cut, calm),
            "minutes_above": sum(watts_w > cut.limit_w + 1e-6 for watts_w in minutes_w),
            "undershoot_pct": _undershoot_pct(cut),
            "settle_s": cut.settle_s(),
        }
    }


def _undershoot_pct(cut: Run) -> float:
    below_w = cut.limit_w - min(cut.minute_means_w())
    return round(100 * max(below_w, 0.0) / cut.base_w(), 3)


def _relative(cut: Run, calm: Run) -> dict[str, float]:
    """Each job's throughput in the event over that of the run without one."""
    without = calm.performance()
    return {name: value / without[name] for name, value in cut.performance().items()}


def _weighted(cut: Run, calm: Run) -> float:
    share = weights(cut.workloads)
    return sum(share[name] * value for name, value in _relative(cut, calm).items())


def _flat(cut: Run, calm: Run) -> float:
    return round(_weighted(cut, calm), 5)


def _beyond_pct(cut: Run, calm: Run) -> float:
    """The worst job's misses in the event beyond its own without it, % of its requests."""
    without = calm.missed()
    return round(100 * max(miss - without[name] for name, miss in cut.missed().items()), 4)


def _gap_pct(jobs: Sequence[Workload], cut: Run, calm: Run) -> float:
    best = best_performance(jobs, cut.limit_w)
    return math.nan if best is None else round(100 * (best - _weighted(cut, calm)) / best, 3)


def _by_class_order(jobs: Sequence[Workload], performance: dict[str, float]) -> int:
    """1 if nobody gives more than its class, and nobody before every more flexible one gave."""
    for one in jobs:
        if performance[one.name] < 1.0 - FLEXIBILITY_LOSS[one.flexibility] - GAVE:
            return 0
        gave = performance[one.name] < 1.0 - GAVE
        before = [other for other in jobs if other.flexibility > one.flexibility]
        if gave and any(performance[other.name] >= 1.0 - GAVE for other in before):
            return 0
    return 1
