"""How long a look-ahead plan takes and how good it is: seeded days of a large site.

Each day is planned without a predecessor, and again one interval later from what the first plan
left. Times are wall clock of `planned`, from what is asked to the finished plan: building, all
programs and their duals, whole machines in the near hours. The gap is proven: by how much of the
money that moves any plan could be better.
"""

import dataclasses
import resource
import statistics
import time
from collections import Counter
from typing import Any

import numpy as np
from benchmarks import plan_loop
from benchmarks.plan_instances import instance, quarter_prices

from wattshift_scheduler.plan import solve
from wattshift_scheduler.plan.machines import Machines
from wattshift_scheduler.plan.words import Ahead, Plan

INTERVALS = 288
KINDS = 60
DAYS = 10
TIME_LIMIT_S = 60.0
"""More than the bar, so that a day that takes longer is measured and not cut off."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Solved:
    plan: Plan
    took_s: float


def run(days: int = DAYS, intervals: int = INTERVALS, kinds: int = KINDS) -> dict[str, Any]:
    """All figures of the benchmark `plan`."""
    cold: list[_Solved] = []
    warm: list[_Solved] = []
    for seed in range(days):
        left = None
        for shift, found in ((0, cold), (1, warm)):
            ahead = instance(seed, intervals=intervals, kinds=kinds, shift=shift)
            plan, left, took_s = _timed(ahead, left)
            found.append(_Solved(plan, took_s))
    rows, columns = _size(instance(0, intervals=intervals, kinds=kinds))
    both = [*cold, *warm]
    times_s = [one.took_s for one in both]
    gaps = [one.plan.gap for one in both if one.plan.usable]
    _, quality = quarter_prices()
    return {
        "intervals": intervals,
        "kinds": kinds,
        "days": days,
        "solve_s_p50": round(statistics.median(times_s), 3),
        "solve_s_p95": round(float(np.quantile(times_s, 0.95)), 3),
        "cold_s_p50": round(statistics.median(one.took_s for one in cold), 3),
        "warm_s_p50": round(statistics.median(one.took_s for one in warm), 3),
        "warm_ratio": round(
            statistics.median(one.took_s for one in warm)
            / statistics.median(one.took_s for one in cold),
            3,
        ),
        "gap": float(f"{max(gaps, default=float('nan')):.3g}"),
        "loop": plan_loop.figures(),
        "rows": rows,
        "columns": columns,
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1),
        "statuses": dict(Counter(one.plan.status for one in both)),
        "unsolved": sum(not one.plan.usable for one in both),
        "quality": quality,
    }


def _timed(ahead: Ahead, left: solve.Warm | None) -> tuple[Plan, solve.Warm | None, float]:
    begin_s = time.perf_counter()
    plan, left = solve.planned(ahead, time_limit_s=TIME_LIMIT_S, warm=left, clock=time.perf_counter)
    return plan, left, time.perf_counter() - begin_s


def _size(ahead: Ahead) -> tuple[int, int]:
    """Rows and columns of the whole program, of which each plan solves what is open."""
    from wattshift_scheduler.plan.demands import Demands
    from wattshift_scheduler.plan.model import built
    from wattshift_scheduler.plan.openings import Open

    machines = Machines.of(ahead)
    everything = Open.everything(machines, len(ahead))
    model = built(ahead, machines, Demands.of(ahead, machines), everything)
    return len(model.program.row_low), len(model.program.cost)
