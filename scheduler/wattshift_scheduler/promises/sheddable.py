"""What each device could give back now: watts that sensors show, and how fast they are gone.

Only watts that are drawn now can be shed: an idle device has nothing to give. A gate gives its
watts within one launch of its agent's answer; everything else within its own transition time.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.state import State

GATE_S = 0.1
"""What a gate needs to shed, s: one exchange with its agent and the launches in flight."""


@dataclass(frozen=True, slots=True)
class Sheddable:
    """Per device: watts that sensors show, watts that leases say, times down and up again.

    Attributes:
        shown_w: above its lowest point, by a fresh reading; 0 where nothing is known; shape (n,).
        leased_w: above its lowest point, by its lease; shape (n,).
        down_s: until they are gone, s; shape (n,).
        up_s: until they are there again, s; shape (n,).
    """

    shown_w: Floats
    leased_w: Floats
    down_s: Floats
    up_s: Floats

    def by_w(self, deadline_s: float) -> float:
        """Shown watts that can be gone by a deadline, W."""
        return float(self.shown_w[self.down_s <= deadline_s].sum())


def sheddable(state: State, now_s: float) -> Sheddable:
    """What each device could give back now; nothing of one that does not answer or obey us."""
    fleet, ledger = state.fleet, state.ledger
    fresh = now_s - state.seen.at_s <= state.site.rules.stale_after_s
    drawn_w = np.where(fresh, np.nan_to_num(state.seen.watts_w, nan=0.0), 0.0)
    usable = ~state.silent(now_s) & ~state.seen.foreign & (ledger.point >= 0)
    held = fleet.first[:-1] + np.maximum(ledger.point, 0)
    least_w = fleet.point_w[fleet.first[:-1]]
    return Sheddable(
        shown_w=np.where(usable, np.maximum(drawn_w - least_w, 0.0), 0.0),
        leased_w=np.where(usable, np.maximum(ledger.lease_w - least_w, 0.0), 0.0),
        down_s=down_s(state),
        up_s=np.where(fleet.fenced, GATE_S, fleet.point_transition_s[held]),
    )


def down_s(state: State) -> Floats:
    """Until each device has come down to its lowest point, s; shape (n,)."""
    fleet = state.fleet
    return np.where(fleet.fenced, GATE_S, fleet.point_transition_s[fleet.first[:-1]])
