"""No raise between an event's notice and its start: mining keeps to what it was leased before it.

A baseline that is driven up after the notice is fined and voids the event, so a committed event
binds mining to the mean of its plan over the quarter of an hour before it was told.
"""

import math
from collections.abc import Iterable, Mapping

from wattshift_scheduler.signals.minutes import MINUTE_S, Minutes
from wattshift_scheduler.signals.words import GridEvent

BEFORE_S = 900.0
"""Span of the plan that counts as "before": three 5-minute or one 15-minute settlement interval."""

LEAST_S = MINUTE_S
"""Less of the plan than this says nothing: a controller has just started."""

Plans = Mapping[tuple[str, str], float]
"""By source and id of an event, watts leased to mining before its notice; NaN: not known yet."""


def remembered(
    events: Iterable[GridEvent], before: Plans, plan: Minutes, now_s: float
) -> dict[tuple[str, str], float]:
    """The plan before the notice of every committed event that stands, fixed once it is known.

    Args:
        events: of all sources.
        before: as of the last decision.
        plan: watts leased to mining, counted up to now.
        now_s: our clock, s.
    """
    found: dict[tuple[str, str], float] = {}
    for event in events:
        if not (event.commitment_w > 0 and event.stands(now_s)):
            continue
        key = (event.source, event.id)
        known_w = before.get(key, math.nan)
        if math.isnan(known_w):
            known_w = _before_w(plan, min(event.notified_s, now_s), now_s)
        found[key] = known_w
    return found


def _before_w(plan: Minutes, notified_s: float, now_s: float) -> float:
    """The plan before the notice; where that is not remembered, the plan up to now, W."""
    told_w = plan.mean_w(notified_s - BEFORE_S, notified_s, LEAST_S)
    return plan.mean_w(now_s - BEFORE_S, now_s, LEAST_S) if math.isnan(told_w) else told_w


def bound(
    events: Iterable[GridEvent], plans: Plans, leased_w: float, now_s: float
) -> tuple[float, str]:
    """The most that mining may be leased now, W, infinite without; and the event that binds it.

    Args:
        events: of all sources.
        plans: from `remembered`; while one is not known, mining keeps to what it holds.
        leased_w: what mining holds now, W.
        now_s: our clock, s.
    """
    lowest_w, name = math.inf, ""
    for event in events:
        plan_w = plans.get((event.source, event.id))
        if plan_w is None or not event.notified_s <= now_s < event.starts_s:
            continue
        most_w = leased_w if math.isnan(plan_w) else plan_w
        if most_w < lowest_w:
            lowest_w, name = most_w, event.id
    return lowest_w, name
