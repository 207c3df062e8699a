"""The best that power caps alone can do for a given cut: a linear programme over Emerald's sweep.

Each job may spend any share of its time (or of its GPUs) at each step of the sweep, or stand still.
The weighted performance is to be the highest under the watts, with every job at or above the
throughput that its class is promised. No scheduler of whole steps can beat it.
"""

from collections.abc import Sequence

import highspy
import numpy as np
from benchmarks.emerald_data import Workload

from wattshift_scheduler.jobs import FLEXIBILITY_LOSS


def base_w(workloads: Sequence[Workload]) -> float:
    """What all jobs draw without a cap, W."""
    return sum(one.gpus * one.steps[0].watts_w for one in workloads)


def weights(workloads: Sequence[Workload]) -> dict[str, float]:
    """Each job's weight; they add up to 1."""
    total = sum(one.weight for one in workloads)
    return {one.name: one.weight / total for one in workloads}


def best_performance(workloads: Sequence[Workload], budget_w: float) -> float | None:
    """The highest weighted performance within `budget_w`; None if the promises cannot be kept."""
    share = weights(workloads)
    value: list[float] = []
    rows: list[list[tuple[int, float]]] = [[] for _ in range(1 + 2 * len(workloads))]
    for number, one in enumerate(workloads):
        for watts_w, throughput in [*((s.watts_w, s.throughput) for s in one.steps), (0.0, 0.0)]:
            column = len(value)
            value.append(share[one.name] * throughput)
            rows[0].append((column, one.gpus * watts_w))
            rows[1 + 2 * number].append((column, 1.0))
            rows[2 + 2 * number].append((column, throughput))
    low, high = [-np.inf], [budget_w]
    for one in workloads:
        low += [1.0, 1.0 - FLEXIBILITY_LOSS[one.flexibility]]
        high += [1.0, np.inf]
    return _solved(value, rows, low, high)


def _solved(
    value: list[float],
    rows: list[list[tuple[int, float]]],
    low: list[float],
    high: list[float],
) -> float | None:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(value), len(rows)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = np.array(value)
    model.col_lower_, model.col_upper_ = np.zeros(len(value)), np.ones(len(value))
    model.row_lower_, model.row_upper_ = np.array(low), np.array(high)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    starts = np.cumsum([0, *(len(row) for row in rows)])
    model.a_matrix_.start_ = starts.astype(np.int32)
    entries = [entry for row in rows for entry in row]
    model.a_matrix_.index_ = np.array([column for column, _ in entries], dtype=np.int32)
    model.a_matrix_.value_ = np.array([number for _, number in entries])
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return float(solver.getInfo().objective_function_value)
