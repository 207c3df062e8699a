"""An energy counter that is followed across its wraps, pure.

A counter of n bits starts again from zero; that is corrected where the meter's width is known and
the energy fits what the connection can have carried since. Anything else that a counter cannot do
makes the energy unknown, and it counts anew from where two samples in a row agree.
"""

import math
from dataclasses import dataclass, replace

from wattshift_cluster.grid.meters.reading import Finding, Flaw

CARRIES_SHARE = 2.0
"""Share of its limit that a connection can carry for minutes, until its breaker trips."""

SLACK_H = 0.1
"""Hours at the limit that a step may be larger: counters step in units of their own."""

S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class Count:
    """What is remembered of a counter.

    Attributes:
        plain_wh, at_s: the last value that was believed, as read, and when, steady s.
        added_wh: what its wraps add to it, Wh.
        odd_wh, odd_s: a value that was not believed, and when; None: the last one was.
    """

    plain_wh: float | None = None
    at_s: float = 0.0
    added_wh: float = 0.0
    odd_wh: float | None = None
    odd_s: float = 0.0


def count(
    memory: Count, plain_wh: float | None, wraps_wh: float | None, at_s: float, limit_w: float
) -> tuple[Count, float | None, Finding | None]:
    """Take one value; what to remember, the energy it stands for, Wh, and what was found.

    Args:
        memory: of the samples before.
        plain_wh: as read, Wh; None or NaN is unknown.
        wraps_wh: where it starts again, Wh; None: never, or not known.
        at_s: when, on a clock that nobody sets, s.
        limit_w: the connection's limit, W.
    """
    if plain_wh is None or not math.isfinite(plain_wh):
        return memory, None, None
    if memory.plain_wh is None:
        return Count(plain_wh, at_s), plain_wh, None
    most_wh = _most_wh(limit_w, at_s - memory.at_s)
    step_wh = plain_wh - memory.plain_wh
    once = wraps_wh is None or most_wh < wraps_wh
    if once and 0.0 <= step_wh <= most_wh:
        return _believed(memory, plain_wh, at_s), plain_wh + memory.added_wh, None
    if once and wraps_wh is not None and 0.0 <= step_wh + wraps_wh <= most_wh:
        known = _believed(replace(memory, added_wh=memory.added_wh + wraps_wh), plain_wh, at_s)
        text = f"the energy counter started again after {wraps_wh:,.0f} Wh; it is followed"
        return known, plain_wh + known.added_wh, Finding(Flaw.WRAPPED, text)
    return _odd(memory, plain_wh, at_s, limit_w)


def _odd(
    memory: Count, plain_wh: float, at_s: float, limit_w: float
) -> tuple[Count, float | None, Finding]:
    """A value that does not follow from the last: believed when the one before agrees with it."""
    assert memory.plain_wh is not None
    flaw = Flaw.COUNTER_BACK if plain_wh < memory.plain_wh else Flaw.COUNTER_JUMP
    from_to = f"from {memory.plain_wh:,.0f} to {plain_wh:,.0f} Wh"
    if memory.odd_wh is not None:
        step_wh = plain_wh - memory.odd_wh
        if 0.0 <= step_wh <= _most_wh(limit_w, at_s - memory.odd_s):
            text = f"the energy counter went {from_to} and counts anew"
            return Count(plain_wh, at_s), plain_wh, Finding(flaw, text)
    text = f"the energy counter went {from_to}: not believed"
    return replace(memory, odd_wh=plain_wh, odd_s=at_s), None, Finding(flaw, text)


def _believed(memory: Count, plain_wh: float, at_s: float) -> Count:
    return Count(plain_wh, at_s, memory.added_wh)


def _most_wh(limit_w: float, passed_s: float) -> float:
    """The most that the connection can have carried, Wh."""
    return limit_w * (CARRIES_SHARE * max(passed_s, 0.0) / S_PER_H + SLACK_H)
