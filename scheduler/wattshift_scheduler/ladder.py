"""The ladder: every step of every device, in order of what its watts are worth.

Each device's operating points are reduced to their concave envelope (stopping inside it would be
worse than a mix of its ends), and the edges of all envelopes, the *rungs*, are sorted by value per
watt. Filling the site is walking up the ladder, shedding is walking down. Values are gross of the
energy price: the price is the same for every watt, so it says where the walk ends, never its order.

Between sleep and work lies the cost of a cycle. Spread over the time D that a decision is expected
to hold, it makes the first rung of a running machine worth more, because leaving it costs a cycle,
and that of a sleeping one less: a watt costs (lost value x D + cycle) / (watts x D). A card whose
table was freed has such a cost, too, until it has built that anew; one that only idles keeps it.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.values import Values

QUICK_S = 1.0
"""A device that hashes again within this time loses nothing worth counting by a restart."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs of the fleet, best first. `r` rungs of `n` devices.

    Attributes:
        device: column of the device that a rung belongs to; shape (r,).
        point: operating point that the rung ends at, counted from the device's first; shape (r,).
        start_w, end_w: lease watts below and above the rung, W; shape (r,).
        usd_per_mwh: what the rung ranks by, falling: its gross value and, between sleep and work,
            the cycle's cost over the horizon; shape (r,).
        gross_usd_per_mwh: what the rung's watts earn before energy; shape (r,).
        first: whether the rung leads up from the device's lowest point; shape (r,).
        base_w: lease watts of each device's lowest point, W; shape (n,).
        cycle_usd: what one sleep and wake of each device costs, USD; shape (n,).
        first_w, first_usd_per_mwh: span and gross value of each device's first rung; NaN where it
            has none; shape (n,).
        best_w, best_usd_per_mwh: the same of the step from its lowest point that earns most by
            watt: at a price above that it cannot but lose; shape (n,).
        awake: devices that were counted as running; shape (n,).
        cold: devices that rest and have a table to build before they earn; shape (n,).
        horizon_s: D, over which a cycle's cost was spread, s; infinite: it was not counted.
    """

    device: Ints
    point: Ints
    start_w: Floats
    end_w: Floats
    usd_per_mwh: Floats
    gross_usd_per_mwh: Floats
    first: Bools
    base_w: Floats
    cycle_usd: Floats
    first_w: Floats
    first_usd_per_mwh: Floats
    best_w: Floats
    best_usd_per_mwh: Floats
    awake: Bools
    cold: Bools
    horizon_s: float

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        values: Values,
        awake: Bools | None = None,
        horizon_s: float = math.inf,
        cold: Bools | None = None,
    ) -> "Ladder":
        """Build and sort the rungs of `fleet`.

        Args:
            fleet: the devices.
            values: what hashes and reserve are worth.
            awake: devices that run; None: none does.
            horizon_s: how long the next decision is expected to hold, s.
            cold: devices that have a table to build before they earn; None: none has.
        """
        usd_per_h = _gross_usd_per_h(fleet, values)
        cycle_usd, none = _cycle_usd(fleet, usd_per_h), np.zeros(len(fleet), dtype=np.bool_)
        cold = none if awake is None or cold is None else cold & ~awake
        awake = none if awake is None else awake & (cycle_usd > 0)
        cycle_usd = cycle_usd + np.where(cold, _build_usd(fleet, usd_per_h), 0.0)
        bonus_usd_per_h = np.where(awake, cycle_usd, -cycle_usd) * (HOUR_S / horizon_s)
        rungs = _Rungs.of(fleet, usd_per_h, np.maximum(bonus_usd_per_h, 0.0))
        ranked = rungs.ranked(bonus_usd_per_h)
        # A device's rungs stand in the order in which they must be taken: a stable sort keeps it.
        order = np.argsort(-ranked, kind="stable")
        first_w, first_value, best_w, best_value = rungs.by_device(len(fleet))
        return cls(
            device=frozen(rungs.device[order]),
            point=frozen(rungs.point[order]),
            start_w=frozen(rungs.start_w[order]),
            end_w=frozen(rungs.end_w[order]),
            usd_per_mwh=frozen(ranked[order]),
            gross_usd_per_mwh=frozen(rungs.gross_usd_per_mwh[order]),
            first=frozen(rungs.first[order]),
            base_w=frozen(fleet.point_limit_w[fleet.first[:-1]]),
            cycle_usd=frozen(cycle_usd),
            first_w=frozen(first_w),
            first_usd_per_mwh=frozen(first_value),
            best_w=frozen(best_w),
            best_usd_per_mwh=frozen(best_value),
            awake=frozen(awake),
            cold=frozen(cold),
            horizon_s=horizon_s,
        )

    def __len__(self) -> int:
        return len(self.device)

    def worth_taking(self, price_usd_per_mwh: float) -> int:
        """How many rungs, from the top, rank above the energy they burn."""
        return int(np.searchsorted(-self.usd_per_mwh, -price_usd_per_mwh, side="left"))

    def holds(self, awake: Bools, horizon_s: float, cold: Bools | None = None) -> bool:
        """Whether this order holds for devices that are `awake` or `cold`, and that horizon."""
        same = np.array_equal(self.awake, awake & (self.cycle_usd > 0) & ~self.cold)
        same &= not self.cold.any() if cold is None else np.array_equal(self.cold, cold & ~awake)
        return self.horizon_s == horizon_s and same


def build_usd(fleet: Fleet, values: Values) -> Floats:
    """What each device does not earn at its top while it builds its table, USD; shape (n,)."""
    return _build_usd(fleet, _gross_usd_per_h(fleet, values))


def _gross_usd_per_h(fleet: Fleet, values: Values) -> Floats:
    """Value per hour of each point, before energy: hashes, an owner's word, reserve by gates."""
    fenced = np.repeat(fleet.fenced, np.diff(fleet.first))
    reserve = np.where(fenced, values.reserve_usd_per_mwh * fleet.point_limit_w / 1e6, 0.0)
    return fleet.point_h_per_s * values.usd_per_hash_hour + fleet.point_usd_per_h + reserve


def _cycle_usd(fleet: Fleet, usd_per_h: Floats) -> Floats:
    """Wear, and what the device does not earn while it boots and warms up to its top; shape (n,).

    Energy is not taken off: a machine that boots draws its watts and hashes nothing with them.
    """
    top = fleet.first[1:] - 1
    up_s = fleet.point_transition_s[top]
    lost_usd = np.maximum(usd_per_h[top], 0.0) * up_s / HOUR_S
    return fleet.wear_usd_per_cycle + np.where(up_s >= QUICK_S, lost_usd, 0.0)


def _build_usd(fleet: Fleet, usd_per_h: Floats) -> Floats:
    """As `_cycle_usd`: the energy of building is that of hashing for as long."""
    top = fleet.first[1:] - 1
    lost_usd: Floats = np.maximum(usd_per_h[top], 0.0) * fleet.table_build_s / HOUR_S
    return lost_usd


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


@dataclass(frozen=True, slots=True)
class _Rungs:
    """The rungs of all devices, device by device, each device's from the lowest up.

    `climbed_w` and `earned_usd_per_h` count from the device's lowest point to the rung's end.
    """

    device: Ints
    point: Ints
    start_w: Floats
    end_w: Floats
    gross_usd_per_mwh: Floats
    first: Bools
    climbed_w: Floats
    earned_usd_per_h: Floats

    def ranked(self, bonus_usd_per_h: Floats) -> Floats:
        """What each rung ranks by when to be above sleep is worth `bonus_usd_per_h`, USD/MWh.

        A device is worth its best step from the bottom, the bonus counted once. The rungs of that
        step rank as one, so that none is taken before the one below it; those above keep theirs.
        """
        if not len(self.device):
            return self.gross_usd_per_mwh
        begin = np.flatnonzero(self.first)
        earned = self.earned_usd_per_h + bonus_usd_per_h[self.device]
        best = np.maximum.reduceat(earned / self.climbed_w * 1e6, begin)
        best = np.repeat(best, np.diff(np.append(begin, len(self.device))))
        return np.where(self.first, best, np.minimum(self.gross_usd_per_mwh, best))

    def by_device(self, n: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Span and gross value of each device's first rung, and of its best step from below."""
        columns = np.full((4, n), np.nan)
        if len(self.device):
            begin = np.flatnonzero(self.first)
            at, value = self.device[begin], self.earned_usd_per_h / self.climbed_w * 1e6
            columns[0, at] = (self.end_w - self.start_w)[begin]
            columns[1, at] = self.gross_usd_per_mwh[begin]
            columns[3, at] = np.maximum.reduceat(value, begin)
            most_w = np.where(value >= columns[3, self.device], self.climbed_w, 0.0)
            columns[2, at] = np.maximum.reduceat(most_w, begin)
        return columns[0], columns[1], columns[2], columns[3]

    @classmethod
    def of(cls, fleet: Fleet, usd_per_h: Floats, lift_usd_per_h: Floats) -> "_Rungs":
        """Envelopes of all devices; to be above its lowest point adds `lift_usd_per_h` to each."""
        counts = np.diff(fleet.first)
        parts = [_Rungs._empty()]
        for count in np.unique(counts[counts > 1]):
            columns = np.flatnonzero(counts == count)
            at = fleet.first[columns][:, None] + np.arange(count)
            watts_w, gross = fleet.point_limit_w[at], usd_per_h[at]
            lifted = gross.copy()
            lifted[:, 1:] += lift_usd_per_h[columns][:, None]
            parts.append(_Rungs._between(columns, watts_w, gross, envelopes(watts_w, lifted)))
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__]
        order = np.argsort(joined[0], kind="stable")
        return cls(*(column[order] for column in joined))

    @staticmethod
    def _between(columns: Ints, watts_w: Floats, gross: Floats, on: Bools) -> "_Rungs":
        row, point = np.nonzero(on)
        pairs = np.flatnonzero(row[1:] == row[:-1])
        row, low, high = row[pairs], point[pairs], point[pairs + 1]
        start_w, end_w = watts_w[row, low], watts_w[row, high]
        return _Rungs(
            device=columns[row],
            point=high,
            start_w=start_w,
            end_w=end_w,
            gross_usd_per_mwh=(gross[row, high] - gross[row, low]) / (end_w - start_w) * 1e6,
            first=low == 0,
            climbed_w=end_w - watts_w[row, 0],
            earned_usd_per_h=gross[row, high] - gross[row, 0],
        )

    @staticmethod
    def _empty() -> "_Rungs":
        whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
        return _Rungs(whole, whole, real, real, real, np.zeros(0, dtype=np.bool_), real, real)
