"""How a plan that stands acts on a decision: by prices and reservations, and never by a command.

    a price on top       what peaks, promises and deadlines make a watt dearer by, now
    what awake is worth  the turn between sleep and work, for machines whose kind the plan knows
    a reserve            watts for services, free or with devices behind gates
    a wait               a batch job that can afford it rests until its own hours (`waiting`)

Once a plan has expired none of that is left, and the ladder goes on alone. What a full cap makes a
watt worth is left out of the price on top: the ladder walks under the true cap, not a foreseen one.
"""

from collections.abc import Mapping

import numpy as np

from wattshift_scheduler.in_force import waiting
from wattshift_scheduler.ladder.turns import Worths
from wattshift_scheduler.plan.classes import Classes
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.state import State

LEAST_USD_PER_MWH = 1e-6
"""Less on top of a price is the solver's rounding."""


def beyond_usd_per_mwh(state: State, now_s: float) -> float:
    """What a MWh costs now beyond its price, by the plan: peaks, promises, deadlines; 0 without."""
    plan, at = _now(state, now_s)
    if plan is None:
        return 0.0
    beyond = plan.shadow_usd_per_mwh[at] - plan.price_usd_per_mwh[at]
    if plan.capped_usd_per_mwh is not None:
        beyond -= plan.capped_usd_per_mwh[at]
    return float(beyond) if beyond > LEAST_USD_PER_MWH else 0.0


def price_usd_per_mwh(state: State, now_s: float) -> float:
    """The price that the ladder walks to: that in force, and what the plan puts on top."""
    return state.price_usd_per_mwh() + beyond_usd_per_mwh(state, now_s)


def reserve_w(state: State, now_s: float) -> float:
    """Watts that the plan wants within reach of services now, W; 0 without a plan."""
    plan, at = _now(state, now_s)
    return 0.0 if plan is None else float(plan.reserve_w[at])


def worths(state: State, now_s: float, last: Worths | None) -> Worths | None:
    """What each device is worth up at the end of this interval; None without a plan.

    Args:
        state: its plan and its fleet.
        now_s: our clock, s.
        last: from the last decision; it is returned where it still holds.
    """
    plan, at = _now(state, now_s)
    if plan is None or not plan.awake_usd:
        return None
    classes = None if last is None else last.classes
    if not isinstance(classes, Classes) or classes.fleet is not state.fleet:
        classes = Classes.among(state.fleet, site=state.site)
    elif last is not None and last.plan is plan and last.at == at:
        return last
    by_kind = [plan.awake_usd.get(name) for name in classes.names]
    figures = np.array([np.nan if one is None else one[at] for one in by_kind])
    awake_usd = figures[classes.of] if len(figures) else np.zeros(0)
    return Worths(awake_usd, plan.step_s, plan, at, classes)


def waits_s(state: State, now_s: float) -> Mapping[str, float]:
    """Batch jobs that rest for a price, or start later for it, and until when, by id."""
    return waiting.rests_s(state, now_s, beyond_usd_per_mwh(state, now_s))


def needs_s(state: State, now_s: float) -> Mapping[str, float] | None:
    """For how long batch jobs must be at work before their deadlines, by id, s; None without a
    plan."""
    plan, _ = _now(state, now_s)
    return None if plan is None else plan.needs_s


def _now(state: State, now_s: float) -> tuple[Standing | None, int]:
    """The plan that may be acted on, and its interval."""
    at = None if state.plan is None else state.plan.at(now_s)
    return (None, 0) if at is None else (state.plan, at)
