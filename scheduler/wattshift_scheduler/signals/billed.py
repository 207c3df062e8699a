"""The demand that a month is billed for: its highest mean over a demand interval, as metered.

What was reached once is paid for anyway; every watt above it costs anew. So the month's highest so
far is a cap, and never less than what is planned and will be paid in any case.
"""

import math
from dataclasses import dataclass, field, replace

from wattshift_scheduler.signals.minutes import Minutes

GAP_MOST_S = 60.0
"""Samples further apart leave the time between them unknown."""

COUNTED_LEAST = 0.95
"""Share of a demand interval that must have been metered before its mean counts."""


@dataclass(frozen=True, slots=True)
class Month:
    """One billing period: its number, and the highest mean that was metered in it, W; NaN none."""

    number: int
    highest_w: float = math.nan


@dataclass(frozen=True, slots=True)
class Demand:
    """What is remembered of the site's demand.

    Attributes:
        month: the period that runs.
        minutes: metered watts of the last hour.
    """

    month: Month
    minutes: Minutes = field(default_factory=Minutes)


def metered(
    demand: Demand,
    watts_w: float,
    at_s: float,
    *,
    window_s: float,
    most_w: float,
    month: int | None,
) -> Demand:
    """Take a sample of the site meter.

    An interval counts once it is over, if nearly all of it was metered and its mean is one that the
    connection can carry: a meter that jumps must not raise what the site may draw for a month.

    Args:
        watts_w: mean since the sample before, W; NaN: unknown.
        at_s: time of the sample, s; one that is not later than the last is ignored.
        window_s: length of a demand interval, s: whole minutes up to an hour.
        most_w: limit of the connection, W.
        month: number of the period in which the interval that ends falls; None: at that time
            nothing is billed.
    """
    before_s = demand.minutes.upto_s
    if not at_s > before_s:
        return demand
    gap = at_s - before_s > GAP_MOST_S
    minutes = demand.minutes.until(at_s, math.nan if gap else max(watts_w, 0.0))
    ended_s = math.floor(at_s / window_s) * window_s
    told = replace(demand, minutes=minutes)
    if month is None or not before_s < ended_s <= at_s or gap:
        return told
    mean_w = minutes.mean_w(ended_s - window_s, ended_s, COUNTED_LEAST * window_s)
    if not 0.0 <= mean_w <= most_w:
        return told
    known = demand.month if demand.month.number == month else Month(month)
    return replace(told, month=Month(month, float(max(mean_w, _least(known.highest_w)))))


def billed_w(month: Month, number: int, planned_w: float) -> float:
    """What period `number` is billed for in any case, W: its highest so far, or what is planned."""
    if month.number != number or math.isnan(month.highest_w):
        return planned_w
    return max(month.highest_w, planned_w)


def _least(highest_w: float) -> float:
    return 0.0 if math.isnan(highest_w) else highest_w
