"""Which of the caps holds now.

Caps of several sources never average out: the lowest one in force wins, and the answer names it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wattshift_scheduler.signals.words import Cap, CapKind, Override, Target

NO_CAP = "root feeder"
"""In place of a cap's id while none is in force."""


@dataclass(frozen=True, slots=True)
class Arbitrated:
    """What holds now, and why. Two are equal where nothing but figures in motion differs.

    Attributes:
        cap_w: the effective cap: the most that the site meter may show, W.
        origin, cap_id, cap_name, kind: of the lowest cap; kind None for the connection.
        stated_w: the limit that its source stated, or its override, W; None: no cap.
        waits: what keeps the effective cap below the lowest cap: a ramp, a hold; empty if nothing.
        overrides: recorded words that hold in place of caps.
        target, mining: targets that bind all work and mining alone; None where none does.
        aim_w, mining_w: what ramps leave of them now, W; infinite: they bind nothing.
        trim_w: what the meter adds to `aim_w`, W, so that it shows the target.
        conflict: ids of targets of equal priority that contradict each other.
        notice, notice_name, notice_w: the event whose notice bars a raise, what people call it,
            and the most that mining may be leased, W; infinite without.
        advice: a lower cap in force that is not sure enough to bind.
    """

    cap_w: float = field(compare=False)
    origin: str
    cap_id: str
    kind: CapKind | None = None
    stated_w: float | None = None
    waits: str = ""
    overrides: tuple[Override, ...] = ()
    target: Target | None = None
    mining: Target | None = None
    aim_w: float = field(default=math.inf, compare=False)
    mining_w: float = field(default=math.inf, compare=False)
    trim_w: float = field(default=0.0, compare=False)
    conflict: tuple[str, ...] = ()
    notice: str = ""
    notice_w: float = field(default=math.inf, compare=False)
    advice: Cap | None = None
    cap_name: str = ""
    notice_name: str = ""

    @property
    def bound(self) -> bool:
        """Whether a signal binds the site, and not its connection alone."""
        return self.cap_id != NO_CAP or bool(self.waits) or math.isfinite(self.aim_w)


def as_stated(cap: Cap) -> float:
    """The limit that the cap states, W."""
    return cap.limit_w


def arbitrate(
    caps: Iterable[Cap],
    connection_w: float,
    now_s: float,
    allows_w: Callable[[Cap], float] = as_stated,
) -> Arbitrated:
    """Choose the cap in force: the lowest of all active ones and the site's own connection.

    Args:
        caps: caps of every source.
        connection_w: limit of the root feeder, W.
        now_s: our clock, s.
        allows_w: what a cap allows now, W: not its limit where it binds the mean of a window.
    """
    best = Arbitrated(connection_w, "connection", NO_CAP)
    for cap in caps:
        if cap.in_force(now_s) and (cap_w := allows_w(cap)) < best.cap_w:
            best = Arbitrated(cap_w, cap.origin, cap.id, cap.kind, cap.limit_w, cap_name=cap.name)
    return best


def lasts_s(caps: Iterable[Cap], verdict: Arbitrated, now_s: float) -> float | None:
    """How long it is known that the limit in force, or a lower one, will hold, s.

    Caps that follow each other without a gap count as one. None where no cap is in force, or none
    of them has an end.
    """
    if verdict.cap_id == NO_CAP:
        return None
    limit_w = verdict.cap_w if verdict.stated_w is None else verdict.stated_w
    tight = [cap for cap in caps if cap.limit_w <= limit_w]
    until_s = now_s
    for cap in sorted(tight, key=lambda one: -math.inf if one.starts_s is None else one.starts_s):
        if cap.starts_s is not None and cap.starts_s > until_s:
            break
        if cap.ends_s is None:
            return None
        until_s = max(until_s, cap.ends_s)
    return until_s - now_s


def next_change_s(caps: Iterable[Cap | Target], now_s: float) -> float | None:
    """When the set of caps in force changes next, s; None if it never does."""
    edges = [edge for cap in caps for edge in (cap.starts_s, cap.ends_s) if edge is not None]
    later = [edge for edge in edges if edge > now_s]
    return min(later) if later else None
