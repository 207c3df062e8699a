"""The ladder: every step of every device, in order of what its watts are worth.

Each device's operating points are reduced to their concave envelope (stopping inside it would be
worse than a mix of its ends), and the edges of all envelopes, the *rungs*, are sorted by value per
watt. Filling the site is walking up the ladder, shedding is walking down. Values are gross of the
energy price: the price is the same for every watt, so it says where the walk ends, never its order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.values import Values


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs of the fleet, best first. `r` rungs.

    Attributes:
        device: column of the device that a rung belongs to; shape (r,).
        point: operating point that the rung ends at, counted from the device's first; shape (r,).
        start_w, end_w: lease watts below and above the rung, W; shape (r,).
        usd_per_mwh: gross value of the rung's watts, falling; shape (r,).
        base_w: lease watts of each device's lowest point, W; shape (n,).
    """

    device: Ints
    point: Ints
    start_w: Floats
    end_w: Floats
    usd_per_mwh: Floats
    base_w: Floats

    @classmethod
    def of(cls, fleet: Fleet, values: Values) -> "Ladder":
        """Build and sort the rungs of `fleet`. Devices with equal points share one envelope."""
        usd_per_h = _gross_usd_per_h(fleet, values)
        members: dict[tuple[object, ...], list[int]] = {}
        for column, one in enumerate(fleet.devices):
            shape = (one.points, one.tolerance, one.continuous, one.fenced)
            members.setdefault(shape, []).append(column)
        parts: list[tuple[Ints, Ints, Floats, Floats, Floats]] = []
        for columns in members.values():
            points = slice(int(fleet.first[columns[0]]), int(fleet.first[columns[0] + 1]))
            parts.append(_rungs(columns, fleet.point_limit_w[points], usd_per_h[points]))
        base_w = fleet.point_limit_w[fleet.first[:-1]]
        if not parts:
            empty_i, empty_f = np.zeros(0, dtype=np.int64), np.zeros(0)
            return cls(empty_i, empty_i, empty_f, empty_f, empty_f, base_w)
        device, point, start_w, end_w, value = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        order = np.lexsort((point, device, -value))
        return cls(
            device=frozen(device[order]),
            point=frozen(point[order]),
            start_w=frozen(start_w[order]),
            end_w=frozen(end_w[order]),
            usd_per_mwh=frozen(value[order]),
            base_w=frozen(base_w),
        )

    def __len__(self) -> int:
        return len(self.device)

    def worth_taking(self, price_usd_per_mwh: float) -> int:
        """How many rungs, from the top, are worth more than the energy they burn."""
        return int(np.searchsorted(-self.usd_per_mwh, -price_usd_per_mwh, side="left"))


def _gross_usd_per_h(fleet: Fleet, values: Values) -> Floats:
    """Value per hour of each point, before energy: hashes, and the reserve behind a gate."""
    fenced = np.repeat(fleet.fenced, np.diff(fleet.first))
    reserve = np.where(fenced, values.reserve_usd_per_mwh * fleet.point_limit_w / 1e6, 0.0)
    return fleet.point_h_per_s * values.usd_per_hash_hour + reserve


def envelope(watts_w: Floats, usd_per_h: Floats) -> Sequence[int]:
    """Indices of the points on the upper concave envelope, from the lowest watts up.

    Points must rise in watts. The last point of the envelope is the one of most value: watts above
    it would cost money even at a free energy price.
    """
    hull = [0]
    for i in range(1, len(watts_w)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            rise_ab = (usd_per_h[b] - usd_per_h[a]) * (watts_w[i] - watts_w[b])
            rise_bi = (usd_per_h[i] - usd_per_h[b]) * (watts_w[b] - watts_w[a])
            if rise_ab > rise_bi:
                break
            hull.pop()
        hull.append(i)
    return hull


def _rungs(
    columns: list[int], watts_w: Floats, usd_per_h: Floats
) -> tuple[Ints, Ints, Floats, Floats, Floats]:
    hull = np.array(envelope(watts_w, usd_per_h), dtype=np.int64)
    start, end = watts_w[hull[:-1]], watts_w[hull[1:]]
    slope = (usd_per_h[hull[1:]] - usd_per_h[hull[:-1]]) / (end - start) * 1e6
    count = len(columns)
    return (
        np.repeat(np.array(columns, dtype=np.int64), len(slope)),
        np.tile(hull[1:], count),
        np.tile(start, count),
        np.tile(end, count),
        np.tile(slope, count),
    )
