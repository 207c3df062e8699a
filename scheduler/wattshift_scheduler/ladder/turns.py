"""Turns between sleep and work by the look-ahead plan, and how far it is believed.

The plan says what a device is worth that is up at the end of the interval. So one that runs sleeps
only if what it loses in the interval is more, and one that rests wakes only if what it earns in it
and is worth then is more than a cycle. That counts for the whole interval, however much of it is
left, so that no answer changes by itself within it.

A plan may be wrong, and each one may say another thing. So a turn by a price is followed by the
next one no sooner than a price is expected to hold, unless the rules without a plan want that one,
too; and once staying as it is has cost a device two cycles, the plan is no longer asked about it.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Rows

PATIENCE = 2.0
"""Cycles that a device may lose by following a plan: one is what a plan that is right could ask
for, and the other is the error of its prices."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Worths:
    """What the plan says in an interval.

    Attributes:
        awake_usd: worth of each device that is up over one at rest, at the interval's end, USD; NaN
            where the plan says nothing; shape (n,).
        step_s: length of the interval, s.
        plan, at, classes: what it was made from, so that the next decision can tell if it holds.
    """

    awake_usd: Floats
    step_s: float
    plan: object = None
    at: int = 0
    classes: object = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is weighed of some devices; shape (rows,) each.

    Attributes:
        runs: whether it runs.
        margin_usd_per_h: what it earns at most, or loses at least, by running; NaN without rungs.
        cycle_usd, regret_usd: what a sleep and wake costs, and what staying as it is has lost.
        called: the price calls for a turn.
        pays: without a plan it would pay for a cycle.
        turned_s: when it last turned, our clock.
        priced: by a price.
    """

    runs: Bools
    margin_usd_per_h: Floats
    cycle_usd: Floats
    regret_usd: Floats
    called: Bools
    pays: Bools
    turned_s: Floats
    priced: Bools


def turns(worths: Worths, facts: Facts, at: Rows, expected_s: float, now_s: float) -> Bools:
    """Which devices are to turn; those of which the plan knows nothing by the rules without it."""
    worth_usd, known = _worth(worths, facts, at)
    step_usd = facts.margin_usd_per_h * worths.step_s / HOUR_S
    sleeps, wakes = step_usd + worth_usd < 0.0, step_usd + worth_usd > facts.cycle_usd
    asked = np.where(facts.runs, sleeps, wakes)
    rested = ~facts.priced | (now_s - facts.turned_s >= expected_s)
    lost = facts.called & (facts.regret_usd >= PATIENCE * facts.cycle_usd)
    planned = facts.called & asked & (rested | facts.pays) | lost
    return np.where(known, planned, facts.called & facts.pays)


def until_s(
    worths: Worths,
    facts: Facts,
    at: Rows,
    losing_usd_per_h: Floats,
    expected_s: float,
    now_s: float,
) -> Floats:
    """When `turns` may say another thing by itself of a device that the plan knows; NaN of others,
    infinite if never."""
    _, known = _worth(worths, facts, at)
    lacks_usd = PATIENCE * facts.cycle_usd - facts.regret_usd
    with np.errstate(divide="ignore", invalid="ignore"):
        lost_s = now_s + lacks_usd / losing_usd_per_h * HOUR_S
    lost_s = np.where(losing_usd_per_h > 0.0, lost_s, np.inf)
    rested_s = np.where(facts.priced, facts.turned_s + expected_s, np.inf)
    soonest_s = np.minimum(lost_s, np.where(rested_s > now_s, rested_s, np.inf))
    return np.where(known, soonest_s, np.nan)


def _worth(worths: Worths, facts: Facts, at: Rows) -> tuple[Floats, Bools]:
    """What each is worth up, no more than its own cycle; and whether the plan knows."""
    worth_usd = worths.awake_usd[at]
    return np.minimum(worth_usd, facts.cycle_usd), ~np.isnan(worth_usd)
