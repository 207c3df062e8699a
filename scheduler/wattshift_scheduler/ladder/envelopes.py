"""Which operating points are worth stopping at: the concave envelope of each device's points.

Inside an envelope a device would be worse off than by a mix of the envelope's ends. The edges of
the envelopes are the rungs of the ladder. They are kept on the fleet's own table of points, each
with the point that it leads to: so nothing is copied or moved where every point lies on its
envelope, and a device's rungs stand in the order in which they must be taken.

Spans are kept in whole grains as well. Sums of grains are exact, whatever their order: what is
brought up to date is equal to what is worked out anew, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, frozen
from wattshift_scheduler.fleet import Fleet

GRAIN_W = 2.0**-18
"""Four microwatts: sums of whole grains are exact up to 34 GW."""


def whole_grains(watts_w: Floats) -> Floats:
    """The nearest whole numbers of grains, W."""
    return np.rint(watts_w / GRAIN_W) * GRAIN_W


def climbed(watts_w: Floats) -> Floats:
    """Sums of whole grains, up to and with each, W; shape as given.

    They are added as whole numbers: a sum of floats waits for the one before it to be rounded.
    """
    grains = (watts_w * (1.0 / GRAIN_W)).astype(np.int64)
    sums_w = np.cumsum(grains).astype(np.float64)
    sums_w *= GRAIN_W
    return sums_w


def envelopes(watts_w: Floats, usd_per_h: Floats) -> Bools:
    """Which points lie on the upper concave envelope of their device; shape (devices, points).

    Points must rise in watts. Both ends always lie on it. From each point the envelope goes on to
    the one that is reached most steeply, the furthest of equals (the gift-wrapping of a hull).
    """
    count = watts_w.shape[1]
    on = np.zeros(watts_w.shape, dtype=np.bool_)
    row, at = np.arange(len(watts_w)), np.zeros(len(watts_w), dtype=np.int64)
    on[:, 0] = True
    while (at < count - 1).any():
        rise_w = watts_w - watts_w[row, at][:, None]
        rise_usd = usd_per_h - usd_per_h[row, at][:, None]
        steep = np.full(watts_w.shape, -np.inf)
        np.divide(rise_usd, rise_w, out=steep, where=rise_w > 0)
        at = count - 1 - np.argmax(steep[:, ::-1], axis=1)
        on[row, at] = True
    return on


def spread(first: Ints, devices: Ints) -> Ints:
    """The points of some devices, device by device: indices into the table of points.

    Args:
        first: as of a fleet.
        devices: columns; shape (m,).
    """
    if not len(devices):
        return np.zeros(0, dtype=np.int64)
    # Neighbours are spread together: most picks are of whole racks.
    begin = np.flatnonzero(np.append(True, devices[1:] != devices[:-1] + 1))
    end = np.append(begin[1:], len(devices)) - 1
    starts = first[devices[begin]]
    counts = first[devices[end] + 1] - starts
    ends = np.cumsum(counts)
    points = np.repeat(starts - (ends - counts), counts)
    points += np.arange(len(points))
    return points


@dataclass(frozen=True, slots=True)
class Steps:
    """The rungs that envelopes come to, on the table of points. `n` devices, `p` points.

    Attributes:
        on: whether a rung ends at the point; shape (p,).
        start: the point that the rung leads from; of a point inside an envelope, that of the rung
            which passes over it; of a lowest point itself; shape (p,).
        above: where the next rung of the device ends; -1 at its top; shape (p,).
        first: where each device's first rung ends; -1 where it has none; shape (n,).
        height_w: lease watts above the device's lowest point in whole grains, W; shape (p,).
        span_w: of the rung, in whole grains; 0 where none ends; shape (p,).
        hollow: devices with a point inside their envelope; shape (n,).
        bent: whether there is any.
    """

    on: Bools
    start: Ints
    above: Ints
    first: Ints
    height_w: Floats
    span_w: Floats
    hollow: Bools
    bent: bool

    @classmethod
    def plain(cls, fleet: Fleet) -> "Steps":
        """All points lie on their envelopes."""
        lowest, top = fleet.first[:-1], fleet.first[1:] - 1
        count = len(fleet.point_limit_w)
        on = np.ones(count, dtype=np.bool_)
        on[lowest] = False
        start, above = np.arange(count) - 1, np.arange(count) + 1
        start[lowest] = lowest
        above[top] = -1
        base_w = np.repeat(fleet.point_limit_w[lowest], np.diff(fleet.first))
        height_w = whole_grains(fleet.point_limit_w - base_w)
        return cls(
            on=frozen(on),
            start=frozen(start),
            above=frozen(above),
            first=frozen(np.where(top > lowest, lowest + 1, -1)),
            height_w=frozen(height_w),
            span_w=frozen(height_w - height_w[start]),
            hollow=frozen(np.zeros(len(fleet), dtype=np.bool_)),
            bent=False,
        )

    def redrawn(self, fleet: Fleet, drawn: Sequence[tuple[Ints, Bools]]) -> "Steps":
        """The same with the envelopes of some devices as they are now.

        Args:
            fleet: the devices.
            drawn: columns of devices with `c` points each, and which of their points lie on their
                envelopes; shape (m,) and (m, c).
        """
        changed = []
        for devices, on in drawn:
            at = spread(fleet.first, devices).reshape(on.shape)
            differ = np.flatnonzero((on[:, 1:] != self.on[at[:, 1:]]).any(axis=1))
            if len(differ):
                changed.append((devices[differ], on[differ], at[differ]))
        if not changed:
            return self
        parts = (self.on, self.start, self.above, self.first, self.span_w, self.hollow)
        on_, start_, above_, first_, span_w, hollow_ = (part.copy() for part in parts)
        for devices, on, at in changed:
            row, count = np.arange(len(on))[:, None], on.shape[1]
            marks = np.where(on, np.arange(count), 0)
            # Of each point the nearest on the envelope below it, and the nearest above.
            below = np.maximum.accumulate(marks, axis=1)
            start_[at[:, 1:]] = at[row, below[:, :-1]]
            marks = np.where(on, np.arange(count), count)
            after = np.minimum.accumulate(marks[:, ::-1], axis=1)[:, ::-1]
            above_[at[:, :-1]] = at[row, after[:, 1:]]
            on_[at[:, 1:]] = on[:, 1:]
            first_[devices] = at[row[:, 0], after[:, 1]]
            hollow_[devices] = ~on.all(axis=1)
            span = self.height_w[at[:, 1:]] - self.height_w[start_[at[:, 1:]]]
            span_w[at[:, 1:]] = np.where(on[:, 1:], span, 0.0)
        return Steps(
            on=frozen(on_),
            start=frozen(start_),
            above=frozen(above_),
            first=frozen(first_),
            height_w=self.height_w,
            span_w=frozen(span_w),
            hollow=frozen(hollow_),
            bent=bool(hollow_.any()),
        )
