"""A plan that was cut off early: used if it is near the best, and thrown away if it is not."""

from dataclasses import replace

import numpy as np
import pytest

from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan import solve
from wattshift_scheduler.plan.guessing import Warm
from wattshift_scheduler.plan.words import Ahead, Kind, Plan

STEP_S = 900.0
N = 48
PRICES = Band.of(40.0 + 30.0 * np.sin(np.arange(N) / N * 2 * np.pi))


def _day() -> Ahead:
    """Half a day of 60 kinds of machines under a cap that two thirds of them fill."""
    kinds = tuple(
        Kind(
            f"k{i}", 3, (30.0, 2000.0, 3000.0), (0.0, 0.10 + 0.003 * i, 0.13 + 0.0035 * i),
            up_s=300.0, cycle_usd=0.1, running=3,
        )
        for i in range(60)
    )  # fmt: skip
    none = Band.of(np.zeros(N))
    cap_w = np.full(N, 360e3)
    return Ahead(0.0, STEP_S, PRICES, cap_w, other=none, services=none, kinds=kinds)


class Ends:
    """A clock by which the time is over after so many programs.

    Between two programs the solver asks it for what is left, once for each.
    """

    def __init__(self, programs: int) -> None:
        self._left = programs + 1  # the first look begins it

    def __call__(self) -> float:
        self._left -= 1
        return 0.0 if self._left >= 0 else 1e6


def _cut(day: Ahead, warm: Warm, programs: int) -> Plan:
    return solve.planned(day, near_s=0.0, time_limit_s=10.0, warm=warm, clock=Ends(programs))[0]


@pytest.fixture(scope="module")
def made() -> tuple[Ahead, Plan, Warm]:
    """A day, its plan with time enough, and what that leaves for the next one."""
    day = _day()
    whole, warm = solve.planned(day, near_s=0.0)
    assert whole.status == "optimal"
    assert warm is not None
    return day, whole, warm


def test_a_program_far_from_the_best_is_no_plan(made: tuple[Ahead, Plan, Warm]) -> None:
    """The last plan's prices let nobody work, so that nothing else was open in the one program."""
    day, whole, warm = made
    wrong = replace(warm, shadow_usd_per_mwh=PRICES.mid + 400.0)
    assert _cut(day, wrong, 1).status == "time-limit"
    after = _cut(day, wrong, 2)
    assert (after.status, after.usd) == ("optimal", pytest.approx(whole.usd))


def test_a_program_cut_off_near_the_best_is_used_and_says_its_gap(
    made: tuple[Ahead, Plan, Warm],
) -> None:
    day, whole, warm = made
    wave = 1.0 + 0.04 * np.sin(np.arange(N))
    cut = _cut(day, replace(warm, shadow_usd_per_mwh=warm.shadow_usd_per_mwh * wave), 1)
    assert cut.status == "feasible"
    assert solve.OPTIMAL_GAP < cut.gap <= 0.05
    assert whole.usd * 0.98 < cut.usd < whole.usd
