"""What each device could give back now: watts that sensors show, and how fast they are gone.

Only watts that are drawn now can be shed: an idle device has nothing to give. A gate gives its
watts within one launch of its agent's answer; everything else within its own transition time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattshift_scheduler.arrays import EARLY_S, Bools, Floats
from wattshift_scheduler.fixed import GATE_S, Fixed
from wattshift_scheduler.leases import Telemetry
from wattshift_scheduler.state import State


@dataclass(frozen=True, slots=True)
class Shown:
    """Watts that sensors show of devices that answer and obey, above their lowest points.

    Attributes:
        fixed: of the fleet.
        watts_w: of each device; 0 where nothing is known; shape (n,).
        by_time_w: of all that need no longer than each of `fixed.times_s`, W; shape (times,).
        seen, agents, granted: what it was worked out from: readings, who answers, and which
            devices have a lease; shape (n,).
        until_s: before this moment only news of those change it, our clock.
    """

    fixed: Fixed
    watts_w: Floats
    by_time_w: Floats
    seen: Telemetry
    agents: Mapping[str, Any]
    granted: Bools
    until_s: float

    def by_w(self, deadline_s: float) -> float:
        """Watts that can be gone by a deadline, W."""
        count = self.fixed.in_time(deadline_s)
        return float(self.by_time_w[count - 1]) if count else 0.0

    @property
    def total_w(self) -> float:
        """All of them, W."""
        return float(self.by_time_w[-1]) if len(self.by_time_w) else 0.0

    def holds(self, state: State, now_s: float) -> bool:
        """Whether it is what a look would find now."""
        same = self.fixed.fleet is state.fleet and self.seen is state.seen
        if not (same and self.agents is state.agents and now_s < self.until_s):
            return False
        return np.array_equal(self.granted, state.ledger.point >= 0)


@dataclass(frozen=True, slots=True)
class Sheddable:
    """Per device: watts that sensors show, watts that leases say, times down and up again.

    Attributes:
        shown: above its lowest point, by a fresh reading.
        leased_w: above its lowest point, by its lease; shape (n,).
        down_s: until they are gone, s; shape (n,).
        up_s: until they are there again, s; shape (n,).
    """

    shown: Shown
    leased_w: Floats
    down_s: Floats
    up_s: Floats


def shown(state: State, now_s: float, last: Shown | None = None) -> Shown:
    """What sensors show now; nothing of a device that does not answer or obey us.

    Args:
        state: its readings, and who answers.
        now_s: our clock, s.
        last: an earlier look. The answer is the same without it.
    """
    if last is not None and last.holds(state, now_s):
        return last
    fleet, seen, stale_s = state.fleet, state.seen, state.site.rules.stale_after_s
    fixed = last.fixed if last is not None and last.fixed.fleet is fleet else Fixed.of(fleet)
    silent, until_s = _silent(state, now_s)
    fresh, granted = now_s - seen.at_s <= stale_s, state.ledger.point >= 0
    known = fresh & granted & ~silent & ~seen.foreign & (seen.watts_w > fixed.least_w)
    watts_w = np.where(known, seen.watts_w - fixed.least_w, 0.0)
    first_s = float(seen.at_s.min(where=fresh, initial=np.inf))
    return Shown(
        fixed=fixed,
        watts_w=watts_w,
        by_time_w=np.cumsum(fixed.by_speed(watts_w)),
        seen=seen,
        agents=state.agents,
        granted=granted,
        until_s=min(until_s, first_s + stale_s - EARLY_S),
    )


def _silent(state: State, now_s: float) -> tuple[Bools, float]:
    """Devices whose agent does not answer now, shape (n,), and before when only news of agents
    change that, our clock."""
    carried = state.carried
    if carried is not None and carried.fleet is state.fleet:
        heard = carried.heard
        if heard.agents is state.agents and now_s < heard.until_s:
            return carried.orders.spread(heard.silent), heard.until_s
    return state.silent(now_s), -np.inf


def sheddable(state: State, now_s: float) -> Sheddable:
    """What each device could give back now; nothing of one that does not answer or obey us."""
    fleet, ledger, seen_w = state.fleet, state.ledger, shown(state, now_s, kept_shown(state))
    fixed = seen_w.fixed
    usable = ~state.silent(now_s) & ~state.seen.foreign & (ledger.point >= 0)
    held = fleet.first[:-1] + np.maximum(ledger.point, 0)
    return Sheddable(
        shown=seen_w,
        leased_w=np.where(usable, np.maximum(ledger.lease_w - fixed.least_w, 0.0), 0.0),
        down_s=fixed.times_s[fixed.speed],
        up_s=np.where(fleet.fenced, GATE_S, fleet.point_transition_s[held]),
    )


def kept_shown(state: State) -> Shown | None:
    """The last look that a decision took, if it did."""
    kept = None if state.carried is None else state.carried.promised
    found: Shown | None = None if kept is None else kept.devices.shown
    return found
