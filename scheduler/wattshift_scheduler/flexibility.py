"""How many watts the site can give back, by when, and when that reserve is there again.

Only watts that are drawn now can be shed: an idle device has nothing to give. A gate gives its
watts within one launch of its agent's answer; everything else within its own transition time.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.state import State

DEADLINES_S = (0.25, 1.0, 10.0, 600.0, 1800.0)
"""The deadlines that grid products ask for, s."""

GATE_S = 0.1
"""What a gate needs to shed, s: one exchange with its agent and the launches in flight."""


@dataclass(frozen=True, slots=True)
class Flexibility:
    """Watts deliverable within a deadline.

    Attributes:
        deadline_s: from the signal to the watts being gone, s.
        deliverable_w: watts that are gone by then, W.
        rearm_s: time after a restore until the same watts can be shed again, s; 0 if none.
    """

    deadline_s: float
    deliverable_w: float
    rearm_s: float


def flexibility(state: State, now_s: float) -> tuple[Flexibility, ...]:
    """What the site can shed within each deadline, tightest first."""
    fleet, ledger = state.fleet, state.ledger
    fresh = now_s - state.seen.at_s <= state.site.rules.stale_after_s
    drawn_w = np.where(fresh, np.nan_to_num(state.seen.watts_w, nan=0.0), 0.0)
    lowest = fleet.first[:-1]
    usable = ~state.silent(now_s) & ~state.seen.foreign & (ledger.point >= 0)
    shed_w = np.where(usable, np.maximum(drawn_w - fleet.point_w[lowest], 0.0), 0.0)
    down_s = np.where(fleet.fenced, GATE_S, fleet.point_transition_s[lowest])
    held = fleet.first[:-1] + np.maximum(ledger.point, 0)
    up_s = np.where(fleet.fenced, GATE_S, fleet.point_transition_s[held])
    return tuple(_within(deadline_s, shed_w, down_s, up_s) for deadline_s in DEADLINES_S)


def _within(deadline_s: float, shed_w: Floats, down_s: Floats, up_s: Floats) -> Flexibility:
    quick = (down_s <= deadline_s) & (shed_w > 0)
    rearm_s = float(up_s[quick].max()) if quick.any() else 0.0
    return Flexibility(deadline_s, float(shed_w[quick].sum()), rearm_s)
