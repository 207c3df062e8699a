"""Our policy on the bench: the same core, with a plan handed to it as the planner would.

A plan is made when an interval begins, every `period_s`, and stands until the next one; between two
of them the core goes on by the last. An event that does not bind is followed where the plan sheds
for it: that is how an owner opts in, and from then on it binds. What is told to the core is
otherwise what it is told without.
"""

import time
from dataclasses import dataclass, field

import numpy as np
from benchmarks.economics_ahead import Foresight
from benchmarks.economics_case import Event
from benchmarks.economics_core import Core
from benchmarks.economics_peaks import Watch
from benchmarks.economics_world import World

from wattshift_scheduler import events as ev
from wattshift_scheduler.plan.classes import kinds_of
from wattshift_scheduler.plan.solve import Warm, planned
from wattshift_scheduler.plan.words import Plan, Standing
from wattshift_scheduler.signals.words import Cap

FOLLOWS_SHARE = 0.9
"""Of what was promised: where the plan sheds so much of it on average, the event is followed."""

PLAN_LIMIT_S = 20.0


@dataclass
class Ours(Core):
    """The core with a plan. One per case.

    Attributes:
        period_s: from one plan to the next.
        solve_s: what each took.
        plan: the last one.
    """

    period_s: float = 900.0
    solve_s: list[float] = field(default_factory=list)
    plan: Plan | None = None
    _foresight: Foresight | None = None
    _warm: Warm | None = None
    _answers: dict[str, bool] = field(default_factory=dict)
    _due_s: float = float("-inf")

    def _signals(self, world: World) -> list[ev.Event]:
        plan = self._planned(world)
        told = super()._signals(world)
        return told if plan is None else [*told, ev.PlanUpdated(plan)]

    def follows(self, world: World, one: Event) -> bool:
        """Where the first plan that knows of it sheds for it; such an answer binds."""
        if one.name not in self._answers and self.plan is not None:
            first = one.starts - round(self.plan.start_s / world.case.trace.step_s)
            drawn_w = self.plan.site_w[max(first, 0) : first + one.ends - one.starts]
            most_w = one.limit_w + (1.0 - FOLLOWS_SHARE) * one.reduction_w
            self._answers[one.name] = bool(np.mean(drawn_w) <= most_w)
        return self._answers.get(one.name, False)

    def peak_caps(self, world: World) -> tuple[Cap, ...]:
        """None: the plan weighs peaks."""
        return ()

    def _planned(self, world: World) -> Standing | None:
        """A new plan if one is due."""
        if world.now_s < self._due_s or self.state is None or not len(self.state.fleet):
            return None
        if self._foresight is None:
            watch = Watch(world.case) if world.case.season else None
            self._foresight = Foresight(world.case, watch)
        self._due_s = world.now_s + self.period_s
        state = self.state
        kinds, _ = kinds_of(state.fleet, state.values, state.ledger, state.seen, world.now_s)
        began_s = time.perf_counter()
        promised = {name for name, follows in self._answers.items() if follows}
        ahead = self._foresight.ahead(world, kinds, promised)
        plan, self._warm = planned(ahead, time_limit_s=PLAN_LIMIT_S, warm=self._warm)
        self.solve_s.append(time.perf_counter() - began_s)
        if not plan.usable:
            return None
        self.plan = plan
        return Standing.of(plan, stands_s=self.period_s + 1.0)
