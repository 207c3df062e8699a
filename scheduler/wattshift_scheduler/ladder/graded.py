"""What the rungs of each make rank by, and that told to all of its devices.

With few makes there are few ranks. They are numbered, and a rung's key is that number and the rung
itself: it mostly fits 32 bits, which sort three times faster than 64.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Ints, Keys, Rows
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import Steps, spread
from wattshift_scheduler.ladder.makes import Makes
from wattshift_scheduler.ladder.ranking import Columns, rank
from wattshift_scheduler.values import Values

MOST_NARROW = int(np.iinfo(np.uint32).max)
"""The highest key of 32 bits: up to 4,095 ranks of 100,000 devices with six points each."""

BY_POINT = ("rank_usd_per_mwh", "worth_usd_per_mwh")
BY_DEVICE = (
    *("cycle_usd", "bonus_usd_per_h", "first_w", "first_usd_per_mwh"),
    *("best_w", "best_usd_per_mwh", "awake"),
)


@dataclass(frozen=True, slots=True)
class Graded:
    """The makes of a fleet, ranked.

    Attributes:
        makes: what was ranked.
        columns: of `makes.fleet`; those of keys are unused.
        steps: of `makes.fleet`.
        keys: of its points: what their keys have before the point itself.
    """

    makes: Makes
    columns: Columns
    steps: Steps
    keys: Keys

    @classmethod
    def of(cls, makes: Makes, values: Values, horizon_s: float, bits: int) -> "Graded":
        """Rank one device of each make.

        Args:
            makes: of the fleet.
            values, horizon_s: as of `Ladder.of`.
            bits: last bits of a key that are kept for the point.
        """
        few, n = makes.fleet, len(makes.fleet)
        columns = Columns.empty(n, len(few.point_limit_w))
        steps = Steps.plain(few)
        every, awake, cold = np.arange(n), makes.awake, makes.cold
        steps = rank(columns, few, values, steps, every, awake, cold, horizon_s, bits)
        # As everywhere ranks count as equal if they are but for the bits that name the point.
        ranks, number = np.unique(columns.keys >> bits, return_inverse=True)
        if len(ranks) << bits <= MOST_NARROW:
            return cls(makes, columns, steps, number.astype(np.uint32) << np.uint32(bits))
        return cls(makes, columns, steps, number.astype(np.int64) << bits)

    def tell(
        self, columns: Columns, fleet: Fleet, steps: Steps, devices: Rows, awake: Bools, cold: Bools
    ) -> Steps:
        """Write the columns of some devices; returns the steps as they are now.

        Args:
            columns, steps: of the fleet; `columns.keys` are of the type of these.
            fleet: the devices.
            devices: columns, rising, or all.
            awake, cold: as of `Ladder.of`; shape (n,).
        """
        rows = self.makes.rows(awake, cold, devices)
        for name in BY_DEVICE:
            getattr(columns, name)[devices] = getattr(self.columns, name).take(rows)
        columns.cold[devices] = cold[devices]
        if isinstance(devices, slice):
            self._tell_all(columns, fleet, rows)
        else:
            at, there = spread(fleet.first, devices), spread(self.makes.fleet.first, rows)
            for name in BY_POINT:
                getattr(columns, name)[at] = getattr(self.columns, name).take(there)
            columns.keys[at] = self.keys.take(there) | at.astype(self.keys.dtype)
        return self._redrawn(fleet, steps, devices, rows)

    def _tell_all(self, columns: Columns, fleet: Fleet, rows: Ints) -> None:
        """Write the columns of all points."""
        # Whole rows are copied where all are as long.
        each = fleet.points_each
        at, shape = (rows, (-1, each)) if each else (spread(self.makes.fleet.first, rows), (-1, 1))
        keys = columns.keys
        pairs = [(getattr(self.columns, name), getattr(columns, name)) for name in BY_POINT]
        for few, out in (*pairs, (self.keys, keys)):
            # All of them are there: "clip" spares a copy that "raise" makes.
            np.take(few.reshape(shape), at, axis=0, out=out.reshape(shape), mode="clip")
        keys |= np.arange(len(keys), dtype=keys.dtype)

    def _redrawn(self, fleet: Fleet, steps: Steps, devices: Rows, rows: Ints) -> Steps:
        """The envelopes of these devices as they are now."""
        if not (self.steps.bent or steps.bent):
            return steps
        looked = np.flatnonzero(self.steps.hollow[rows] | steps.hollow[devices])
        rows = rows[looked]
        some = looked if isinstance(devices, slice) else devices[looked]
        counts = np.diff(fleet.first)[some]
        drawn = []
        for count in np.unique(counts):
            same = np.flatnonzero(counts == count)
            on = self.steps.on[spread(self.makes.fleet.first, rows[same])].reshape(-1, count)
            on[:, 0] = True
            drawn.append((some[same], on))
        return steps.redrawn(fleet, drawn)
