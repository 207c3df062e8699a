"""What of each device stays the same while the fleet does: watts of its ends, and how fast it is.

Few times differ in a fleet: devices are counted by them, so that what is gone by any deadline is a
look into sums.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import ALL, Floats, Ints, Rows, frozen, summed
from wattshift_scheduler.fleet import Fleet

GATE_S = 0.1
"""What a gate needs to shed, s: one exchange with its agent and the launches in flight."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The devices of a fleet; shape (n,) each where not said else.

    Attributes:
        fleet: whose devices.
        times_s: in which times devices come down to their lowest point, rising, s; (times,).
        speed: which of these is each device's.
        up_s: time to its highest point, without the building of a table, s.
        base_w, top_w: lease watts of its lowest and of its highest point, W.
        least_w: what it is meant to draw at its lowest point, W.
        slack: by how much a lease is more than what the device is meant to draw, a factor.
    """

    fleet: Fleet
    times_s: Floats
    speed: Ints
    up_s: Floats
    base_w: Floats
    top_w: Floats
    least_w: Floats
    slack: Floats

    @classmethod
    def of(cls, fleet: Fleet) -> "Fixed":
        """Worked out once for a fleet."""
        low, top = fleet.first[:-1], fleet.first[1:] - 1
        times_s, speed = np.unique(down_s(fleet), return_inverse=True)
        return cls(
            fleet=fleet,
            times_s=frozen(times_s),
            speed=frozen(speed.astype(np.int64)),
            up_s=frozen(np.where(fleet.fenced, GATE_S, fleet.point_transition_s[top])),
            base_w=frozen(fleet.point_limit_w[low]),
            top_w=frozen(fleet.point_limit_w[top]),
            least_w=frozen(fleet.point_w[low]),
            slack=frozen(1.0 + np.where(fleet.continuous, 0.0, fleet.tolerance)),
        )

    def in_time(self, within_s: float) -> int:
        """How many of the times, from the shortest, are no longer than so many seconds."""
        return int(np.searchsorted(self.times_s, within_s, side="right"))

    def by_speed(self, amounts: Floats, rows: Rows = ALL) -> Floats:
        """Sum a figure of some devices by the time that they need; shape (times,)."""
        return summed(self.speed[rows], amounts, len(self.times_s))

    def nominal_w(self, lease_w: Floats, rows: Rows = ALL) -> Floats:
        """What some devices are meant to draw above their lowest point with such leases, W; NaN
        for a lease that is unknown; shape (rows,)."""
        watts_w: Floats = np.maximum(lease_w / self.slack[rows] - self.least_w[rows], 0.0)
        return watts_w


def down_s(fleet: Fleet) -> Floats:
    """Until each device has come down to its lowest point, s; shape (n,)."""
    return np.where(fleet.fenced, GATE_S, fleet.point_transition_s[fleet.first[:-1]])
