"""Which decisions are open: those in which good schedules differ, or that a solved program uses."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Ints
from wattshift_scheduler.plan.machines import Machines, Schedules


@dataclass(frozen=True, slots=True)
class Open:
    """Decisions that are open; shape (k, n) each.

    Attributes:
        low, high: points that may be best for a machine that is up, counted from its lowest.
        may, must: whether it can be up, and cannot but be up.
    """

    low: Ints
    high: Ints
    may: Bools
    must: Bools

    @classmethod
    def between(cls, *found: Schedules) -> "Open":
        """All that differs between schedules."""
        points, awake = [one.point for one in found], [one.awake for one in found]
        return cls(
            np.minimum.reduce(points),
            np.maximum.reduce(points),
            np.logical_or.reduce(awake),
            np.logical_and.reduce(awake),
        )

    def joined(self, other: "Open") -> "Open":
        """What is open in either."""
        return Open(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.may | other.may,
            self.must & other.must,
        )

    def counted(self) -> Bools:
        """Machines whose sleep is open in any interval; shape (k,)."""
        return np.asarray((self.may != self.must).any(axis=1))

    @classmethod
    def everything(cls, machines: Machines, n: int) -> "Open":
        """Nothing is settled for `n` intervals, but what must stay as it is at the start."""
        shape = (len(machines), n)
        held = np.arange(n) < machines.held()[:, None]
        up = machines.up[:, None]
        high = np.broadcast_to(machines.points[:, None] - 1, shape)
        return cls(np.zeros(shape, dtype=np.int64), high, ~(held & ~up), held & up)
