"""No raise between an event's notice and its start: mining keeps to what it was leased before it.

A baseline that is driven up after the notice is fined and voids the event, so a committed event
binds mining to the mean of its plan over the quarter of an hour before it was told, and a small
tolerance. Settlement judges a raise by the same words: `BEFORE_S` and `allowed_w`.

The tolerance never becomes a plan: what is leased within it is not counted as planned, so that no
chain of notices, and no restart amid one, raises mining further than once.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wattshift_scheduler.signals.minutes import MINUTE_S, Minutes
from wattshift_scheduler.signals.words import GridEvent

BEFORE_S = 900.0
"""Span of the plan that counts as "before": three 5-minute or one 15-minute settlement interval."""

LEAST_S = MINUTE_S
"""Less of the plan than this says nothing: a controller has just started."""

TOLERANCE_SHARE = 0.02
"""Of the plan before the notice, what does not count as a raise. A meter of class 1 and the plan's
own error come to as much; and a mean lies a hair below the rung that was held when a machine has
slept for some seconds of it, so that without a tolerance it would sleep until the event starts."""

Plans = Mapping[tuple[str, str], float]
"""By source and id of an event, watts leased to mining before its notice; NaN: not known yet."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a notice leaves to mining.

    Attributes:
        most_w: the most that may be leased, W; infinite without a notice.
        plan_w: the plan that it rests on, W; infinite without.
        event, name: the event, and what people call it; empty without.
    """

    most_w: float = math.inf
    plan_w: float = math.inf
    event: str = ""
    name: str = ""


def allowed_w(plan_w: float) -> float:
    """The most that is no raise above a plan, W."""
    return plan_w * (1.0 + TOLERANCE_SHARE)


def counted_w(leased_w: float, planned_w: float) -> float:
    """What of the watts leased to mining counts as planned, W; the tolerance does not.

    Args:
        leased_w: what mining holds, W.
        planned_w: the plan that a notice holds it to, W; infinite without one.
    """
    return min(leased_w, planned_w)


def remembered(
    events: Iterable[GridEvent], before: Plans, plan: Minutes, leased_w: float, now_s: float
) -> dict[tuple[str, str], float]:
    """The plan before the notice of every committed event that stands, fixed once it is known.

    Args:
        events: of all sources.
        before: as of the last decision.
        plan: watts leased to mining, counted up to now.
        leased_w: what mining holds now, W.
        now_s: our clock, s.
    """
    found: dict[tuple[str, str], float] = {}
    for event in events:
        if not (event.commitment_w > 0 and event.stands(now_s)):
            continue
        key = (event.source, event.id)
        known_w = before.get(key, math.nan)
        if math.isnan(known_w):
            known_w = _before_w(plan, min(event.notified_s, now_s), leased_w, now_s)
        found[key] = known_w
    return found


def _before_w(plan: Minutes, notified_s: float, leased_w: float, now_s: float) -> float:
    """The plan before the notice; where that is not remembered, what is held now, W."""
    told_w = plan.mean_w(notified_s - BEFORE_S, notified_s, LEAST_S)
    if not math.isnan(told_w):
        return told_w
    since_w = plan.mean_w(now_s - BEFORE_S, now_s, LEAST_S)
    return math.nan if math.isnan(since_w) else max(since_w, _held_w(leased_w))


def _held_w(leased_w: float) -> float:
    """The plan of mining that may stand within the tolerance already, W."""
    return leased_w / (1.0 + TOLERANCE_SHARE)


def bound(events: Iterable[GridEvent], plans: Plans, leased_w: float, now_s: float) -> Bound:
    """What the notices of events leave to mining now.

    Args:
        events: of all sources.
        plans: from `remembered`; while one is not known, mining keeps to what it holds.
        leased_w: what mining holds now, W.
        now_s: our clock, s.
    """
    lowest = Bound()
    for event in events:
        plan_w = plans.get((event.source, event.id))
        if plan_w is None or not event.notified_s <= now_s < event.starts_s:
            continue
        plan_w = _held_w(leased_w) if math.isnan(plan_w) else plan_w
        if plan_w < lowest.plan_w:
            lowest = Bound(allowed_w(plan_w), plan_w, event.id, event.name)
    return lowest
