"""HiGHS, the only solver of plans: on one thread, within its time, imported when a plan is made."""

from collections.abc import Callable
from typing import Any

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.plan.sheet import Program
from wattshift_scheduler.plan.words import PlannerMissing

WHOLE_GAP = 2e-4
"""Gap that HiGHS may leave where machines are whole."""

WHOLE_SHARE = 0.6
"""Of the time that is left, what whole machines may take."""


class Highs:
    """HiGHS, with what is left of its time."""

    def __init__(self, time_limit_s: float, clock: Callable[[], float] | None) -> None:
        try:
            import highspy
        except ImportError as why:
            raise PlannerMissing("a plan needs HiGHS: install the package highspy") from why
        self._api: Any = highspy
        # Its threads are the process's: if they were made for another number, it solves nothing.
        highspy.Highs.resetGlobalScheduler(True)
        self._limit_s, self._clock = time_limit_s, clock
        self._began_s = clock() if clock else 0.0
        self._solved_s = 0.0

    def spent_s(self) -> float:
        """Time used, s."""
        return self._clock() - self._began_s if self._clock else self._solved_s

    def solved(self, program: Program, *, whole: bool = False) -> tuple[Floats, Floats] | None:
        """Values and duals (no duals where `whole`); None where none were found in time.

        Raises RuntimeError where HiGHS takes no such program: then time is not what lacked.
        """
        api = self._api
        left_s = max(self._limit_s - self.spent_s(), 0.0) * (WHOLE_SHARE if whole else 1.0)
        if left_s <= 0.0:
            return None
        solver = api.Highs()
        # Presolving takes longer than it saves where most of a program was never written.
        options = {"threads": 1, "parallel": "off", "random_seed": 0, "time_limit": left_s}
        options |= {"output_flag": False, "mip_rel_gap": WHOLE_GAP}
        for name, value in {**options, "presolve": "on" if whole else "off"}.items():
            solver.setOptionValue(name, value)
        solver.passModel(_lp(api, program, whole))
        if solver.run() == api.HighsStatus.kError:
            raise RuntimeError("HiGHS refused a program: nothing was solved")
        if solver.getModelStatus() == api.HighsModelStatus.kUnknown and not whole:
            # Out by more than is allowed: once more, by the other way.
            solver.setOptionValue("presolve", "on")
            solver.run()
        self._solved_s += solver.getRunTime()
        status, found = solver.getModelStatus(), solver.getSolution()
        best = status == api.HighsModelStatus.kOptimal
        if not best and not (whole and found.value_valid):
            return None
        return np.array(found.col_value), np.array(found.row_dual)


def _lp(api: Any, program: Program, whole: bool) -> Any:
    lp = api.HighsLp()
    lp.num_col_, lp.num_row_ = len(program.cost), len(program.row_low)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = program.cost, program.low, program.high
    lp.row_lower_, lp.row_upper_ = program.row_low, program.row_high
    lp.a_matrix_.format_ = api.MatrixFormat.kColwise
    lp.a_matrix_.start_ = _short(program.start)
    lp.a_matrix_.index_ = _short(program.index)
    lp.a_matrix_.value_ = program.value
    if whole:
        kinds = (api.HighsVarType.kContinuous, api.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(one)] for one in program.whole]
    return lp


def _short(whole: Ints) -> Any:
    return whole.astype(np.int32)
