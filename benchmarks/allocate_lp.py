"""The same allocation as a linear program for HiGHS: an upper bound for whole rungs, exact for
watts that divide; and, small, with whole rungs as integers."""

import time
from dataclasses import dataclass

import highspy
import numpy as np
import numpy.typing as npt
from benchmarks.allocate_site import Floats, Instance

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Solved:
    """What HiGHS says: the best value, USD/h, and how long it took, ms."""

    value: float
    build_ms: float
    solve_ms: float


def lp(one: Instance, whole: bool = False) -> Solved:
    """The best value that HiGHS finds; with `whole`, devices that do not divide take rungs whole.

    One variable a rung that ranks above its energy (its share, 0 to 1), one row a feeder; with
    `whole` one row more for each rung that must not be taken before the one below it.
    """
    begin_s = time.perf_counter()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    if not whole:
        # Tried: its simplex without a presolve is many times faster here than with one, or the
        # interior point method. We compare with the fastest.
        solver.setOptionValue("solver", "simplex")
        solver.setOptionValue("presolve", "off")
    solver.setOptionValue("mip_rel_gap", 1e-9)
    solver.passModel(_model(one, whole))
    built_s = time.perf_counter()
    solver.run()
    ended_s = time.perf_counter()
    assert solver.getModelStatus() == highspy.HighsModelStatus.kOptimal, "HiGHS found no optimum"
    return Solved(
        value=float(solver.getInfo().objective_function_value),
        build_ms=(built_s - begin_s) * 1e3,
        solve_ms=(ended_s - built_s) * 1e3,
    )


def _model(one: Instance, whole: bool) -> highspy.HighsLp:
    tree, rungs = one.tree, one.ladder.ordered
    worth = np.flatnonzero(rungs.usd_per_mwh > one.price_usd_per_mwh)
    device, span_w = rungs.device[worth], (rungs.end_w - rungs.start_w)[worth]
    columns, rows, entries = _feeder_rows(one, device, span_w)
    upper = one.room_w
    if whole:
        before = _rung_before(device)
        later = np.flatnonzero(before >= 0)
        at = len(tree.names) + np.arange(len(later))
        columns = np.concatenate((columns, later, before[later]))
        rows = np.concatenate((rows, at, at))
        entries = np.concatenate((entries, np.ones(len(later)), -np.ones(len(later))))
        upper = np.append(upper, np.zeros(len(later)))
    order = np.lexsort((columns, rows))
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(worth), len(upper)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = (rungs.usd_per_mwh[worth] - one.price_usd_per_mwh) * span_w / 1e6
    model.col_lower_, model.col_upper_ = np.zeros(len(worth)), np.ones(len(worth))
    model.row_lower_, model.row_upper_ = np.full(len(upper), -np.inf), upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    starts = np.searchsorted(rows[order], np.arange(len(upper) + 1))
    model.a_matrix_.start_ = starts.astype(np.int32)
    model.a_matrix_.index_ = columns[order].astype(np.int32)
    model.a_matrix_.value_ = entries[order]
    if whole:
        kinds = (highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous)
        model.integrality_ = [kinds[int(c)] for c in one.fleet.continuous[device]]
    return model


def _feeder_rows(one: Instance, device: Ints, span_w: Floats) -> tuple[Ints, Ints, Floats]:
    """Entries of the feeder rows: each rung stands in the row of every feeder that carries it."""
    columns, rows, entries = [], [], []
    for at in one.tree.ancestors:
        row = at[one.fleet.feeder[device]]
        inside = np.flatnonzero(row >= 0)
        columns.append(inside)
        rows.append(row[inside])
        entries.append(span_w[inside])
    return np.concatenate(columns), np.concatenate(rows), np.concatenate(entries)


def _rung_before(device: Ints) -> Ints:
    """For each rung the one below it on the same device, -1 for a device's first."""
    last: dict[int, int] = {}
    before = np.full(len(device), -1, dtype=np.int64)
    for i, one in enumerate(device.tolist()):
        before[i] = last.get(one, -1)
        last[one] = i
    return before
