"""Which of the caps holds now.

Caps of several sources never average out: the lowest one in force wins, and the answer names it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from wattshift_scheduler.signals.words import Cap

NO_CAP = "root feeder"
"""In place of a cap's id while none is in force."""


@dataclass(frozen=True, slots=True)
class Arbitrated:
    """The cap that holds now, and why."""

    cap_w: float
    origin: str
    cap_id: str


def arbitrate(caps: Iterable[Cap], connection_w: float, now_s: float) -> Arbitrated:
    """Choose the cap in force: the lowest of all active ones and the site's own connection.

    Args:
        caps: caps of every source.
        connection_w: limit of the root feeder, W.
        now_s: our clock, s.
    """
    best = Arbitrated(connection_w, "connection", NO_CAP)
    for cap in caps:
        if cap.in_force(now_s) and cap.limit_w < best.cap_w:
            best = Arbitrated(cap.limit_w, cap.origin, cap.id)
    return best


def lasts_s(caps: Iterable[Cap], verdict: Arbitrated, now_s: float) -> float | None:
    """How long it is known that the limit in force, or a lower one, will hold, s.

    Caps that follow each other without a gap count as one. None where no cap is in force, or none
    of them has an end.
    """
    if verdict.cap_id == NO_CAP:
        return None
    tight = [cap for cap in caps if cap.limit_w <= verdict.cap_w]
    until_s = now_s
    for cap in sorted(tight, key=lambda one: -math.inf if one.starts_s is None else one.starts_s):
        if cap.starts_s is not None and cap.starts_s > until_s:
            break
        if cap.ends_s is None:
            return None
        until_s = max(until_s, cap.ends_s)
    return until_s - now_s


def next_change_s(caps: Iterable[Cap], now_s: float) -> float | None:
    """When the set of caps in force changes next, s; None if it never does."""
    edges = [edge for cap in caps for edge in (cap.starts_s, cap.ends_s) if edge is not None]
    later = [edge for edge in edges if edge > now_s]
    return min(later) if later else None
