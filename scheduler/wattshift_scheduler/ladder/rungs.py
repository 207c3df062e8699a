"""What rungs rank by: value per watt, and the cost of a cycle between sleep and work.

Everything is worked out for parts of a fleet whose devices have the same number of points: for
thousands at once, or for the few that have turned between sleep and work. The arithmetic is the
same, so both give the same bits. Tables are passed over as rarely as can be: that is the time it
takes at 100,000 devices.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, Keys
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.values import Values

QUICK_S = 1.0
"""A device that hashes again within this time loses nothing worth counting by a restart."""

HOUR_S = 3600.0

MOST_INT = np.iinfo(np.int64).max

WATTS = 1e6
"""In a MW: a USD per h and W is so many USD per MWh."""


@dataclass(frozen=True, slots=True)
class Part:
    """Devices with the same number of points: `m` devices, `c` points each.

    Attributes:
        rows: their columns in the fleet; shape (m,), or a slice.
        at: where their points stand in the fleet's table, device by device; shape (m x c,), or a
            slice.
        watts_w: lease watts of each point, W; shape (m, c).
        usd_per_h: what each point earns before energy, USD/h; shape (m, c).
    """

    rows: slice | Ints
    at: slice | Ints
    watts_w: Floats
    usd_per_h: Floats

    @classmethod
    def of(cls, fleet: Fleet, values: Values, devices: Ints) -> "Part":
        """The devices of these columns, one or more, rising."""
        begin, end = int(devices[0]), int(devices[-1]) + 1
        count = int(fleet.first[begin + 1] - fleet.first[begin])
        rows: slice | Ints = slice(begin, end)
        at: slice | Ints = slice(int(fleet.first[begin]), int(fleet.first[end]))
        if end - begin > len(devices):
            rows, at = devices, (fleet.first[devices][:, None] + np.arange(count)).reshape(-1)
        watts_w = fleet.point_limit_w[at].reshape(-1, count)
        usd_per_h = fleet.point_h_per_s[at] * values.usd_per_hash_hour
        if fleet.worded:
            usd_per_h += fleet.point_usd_per_h[at]
        usd_per_h = usd_per_h.reshape(-1, count)
        fenced = fleet.fenced[rows]
        if values.reserve_usd_per_mwh and fenced.any():
            usd_per_w = np.where(fenced, values.reserve_usd_per_mwh / WATTS, 0.0)
            usd_per_h += usd_per_w[:, None] * watts_w
        return cls(rows, at, watts_w, usd_per_h)

    def of_rows(self, rows: Ints) -> "Part":
        """Some of its devices, counted in it."""
        count = self.watts_w.shape[1]
        begin = self.at.start if isinstance(self.at, slice) else 0
        table = begin + np.arange(self.watts_w.size) if isinstance(self.at, slice) else self.at
        devices = self.rows
        if isinstance(devices, slice):
            devices = np.arange(devices.start, devices.stop)
        return Part(
            devices[rows],
            table.reshape(-1, count)[rows].reshape(-1),
            self.watts_w[rows],
            self.usd_per_h[rows],
        )


@dataclass(frozen=True, slots=True)
class Cycles:
    """What sleep and work cost and are worth, of the devices of a part; shape (m,) each.

    Attributes:
        cycle_usd: what one sleep and wake costs, USD; of a cold one building its table, too.
        bonus_usd_per_h: what it is worth to be above the lowest point, USD/h.
        awake, cold: as of `Ladder`.
    """

    cycle_usd: Floats
    bonus_usd_per_h: Floats
    awake: Bools
    cold: Bools

    @classmethod
    def of(cls, fleet: Fleet, part: Part, awake: Bools, cold: Bools, horizon_s: float) -> "Cycles":
        """Args: as `Ladder.of`, `awake` and `cold` of the part's devices."""
        top_usd_per_h = np.maximum(part.usd_per_h[:, -1], 0.0)
        up_s = fleet.point_transition_s[part.at].reshape(part.watts_w.shape)[:, -1]
        # Energy is not taken off: a machine that boots draws its watts and hashes nothing.
        lost_usd = top_usd_per_h * up_s / HOUR_S * (up_s >= QUICK_S)
        cycle_usd = fleet.wear_usd_per_cycle[part.rows] + lost_usd
        awake = awake & (cycle_usd > 0)
        if cold.any():
            # The energy of building is that of hashing for as long.
            build_usd = top_usd_per_h * fleet.table_build_s[part.rows] / HOUR_S
            cycle_usd = cycle_usd + np.where(cold, build_usd, 0.0)
        bonus_usd_per_h = np.where(awake, cycle_usd, -cycle_usd) * (HOUR_S / horizon_s)
        return cls(cycle_usd, bonus_usd_per_h, awake, cold)

    def of_rows(self, rows: Ints) -> "Cycles":
        """The same of some devices of the part."""
        return Cycles(*(getattr(self, name)[rows] for name in Cycles.__slots__))


@dataclass(frozen=True, slots=True)
class Ranks:
    """What the rungs of a part are worth.

    Attributes:
        rank: what the rung ranks by that ends at each point, USD/MWh; -inf where none ends; (m, c).
        worth: what its watts earn; 0 where none ends; shape (m, c).
        first_w, first_usd_per_mwh, best_w, best_usd_per_mwh: as of `Ladder`; shape (m,).
        bent: devices of which a point lies inside the envelope, so that none of this holds; rising,
            counted in the part.
    """

    rank: Floats
    worth: Floats
    first_w: Floats
    first_usd_per_mwh: Floats
    best_w: Floats
    best_usd_per_mwh: Floats
    bent: Ints


def ranked(part: Part, bonus_usd_per_h: Floats, into: tuple[Floats, Floats]) -> Ranks:
    """Rank the rungs of a part as if every point lay on its device's envelope.

    A device is worth its best step from the bottom, the bonus counted once. The rungs of that step
    rank as one, so that none is taken before the one below it; those above keep theirs. Where the
    bonus is not negative that step is the first rung, as the envelope is drawn with it.

    Args:
        part: the devices.
        bonus_usd_per_h: what it is worth to be above the lowest point, USD/h; shape (m,).
        into: the tables of `rank` and `worth` to write; shape (m, c) each.
    """
    m, c = part.watts_w.shape
    rank, worth = into
    if c == 1:
        rank[:], worth[:] = -np.inf, 0.0
        none, empty = np.full(m, np.nan), np.zeros(0, dtype=np.int64)
        return Ranks(rank, worth, none, none, none, none, empty)
    # Along the whole table, over the devices' ends too: those are put right afterwards.
    span_w = np.empty((m, c))
    usd, watts_w = part.usd_per_h.reshape(-1), part.watts_w.reshape(-1)
    np.subtract(usd[1:], usd[:-1], out=worth.reshape(-1)[1:])
    np.subtract(watts_w[1:], watts_w[:-1], out=span_w.reshape(-1)[1:])
    worth[:, 0], span_w[:, 0] = 0.0, 1.0
    worth /= span_w
    worth *= WATTS
    first_w, first_usd = span_w[:, 1].copy(), worth[:, 1].copy()
    rank[:] = worth
    rank[:, 1] += np.maximum(bonus_usd_per_h, 0.0) / first_w * WATTS
    rises = np.zeros((m, c), dtype=np.bool_)
    np.greater_equal(rank.reshape(-1)[1:], rank.reshape(-1)[:-1], out=rises.reshape(-1)[1:])
    rises[:, 0] = False
    rises[:, 1] = False
    bent = np.flatnonzero(rises.any(axis=1)) if rises.any() else np.zeros(0, dtype=np.int64)
    asleep = np.flatnonzero(bonus_usd_per_h < 0)
    if len(asleep):
        some = part.watts_w.take(asleep, axis=0), part.usd_per_h.take(asleep, axis=0)
        best = _most(_from_below(*some, bonus_usd_per_h[asleep]))
        rank[asleep] = np.minimum(rank.take(asleep, axis=0), best[:, None])
        rank[asleep, 1] = best
    rank[:, 0] = -np.inf
    return Ranks(rank, worth, first_w, first_usd, first_w, first_usd, bent)


def ranked_on(part: Part, on: Bools, bonus_usd_per_h: Floats) -> Ranks:
    """The same where rungs end at some of the points alone; `on` is their mask, shape (m, c)."""
    m, c = part.watts_w.shape
    row = np.arange(m)
    mark = np.maximum.accumulate(np.where(on, np.arange(c), 0), axis=1)
    start = np.concatenate((np.zeros((m, 1), dtype=np.int64), mark[:, :-1]), axis=1)
    span_w = part.watts_w - part.watts_w[row[:, None], start]
    rise = part.usd_per_h - part.usd_per_h[row[:, None], start]
    worth = np.divide(rise, span_w, out=np.zeros((m, c)), where=on) * WATTS
    first = np.argmax(on, axis=1)
    first_w, first_usd = span_w[row, first], worth[row, first]
    lifted = first_usd + np.maximum(bonus_usd_per_h, 0.0) / first_w * WATTS
    rank = np.where(on, worth, -np.inf)
    asleep = np.flatnonzero(bonus_usd_per_h < 0)
    if len(asleep):
        some = part.watts_w[asleep], part.usd_per_h[asleep]
        value = _from_below(*some, bonus_usd_per_h[asleep])
        lifted[asleep] = _most(np.where(on[asleep, 1:], value, -np.inf))
        rank[asleep] = np.minimum(rank[asleep], lifted[asleep][:, None])
    rank[row, first] = lifted
    value = _from_below(part.watts_w, part.usd_per_h, np.zeros(m))
    value = np.where(on[:, 1:], value, -np.inf)
    best_usd = _most(value)
    climbed_w = part.watts_w[:, 1:] - part.watts_w[:, :1]
    best_w = _most(np.where(value >= best_usd[:, None], climbed_w, 0.0))
    bent = np.arange(m)
    return Ranks(rank, worth, first_w, first_usd, best_w, best_usd, bent)


def _from_below(watts_w: Floats, usd_per_h: Floats, bonus_usd_per_h: Floats) -> Floats:
    """What the watts from a device's lowest point up to each other earn, USD/MWh; (m, c - 1)."""
    value = usd_per_h[:, 1:] - usd_per_h[:, :1]
    value += bonus_usd_per_h[:, None]
    value /= watts_w[:, 1:] - watts_w[:, :1]
    value *= WATTS
    return value


def _most(table: Floats) -> Floats:
    """The largest of each row; by columns, which are few and long."""
    most = table[:, 0]
    for column in range(1, table.shape[1]):
        most = np.maximum(most, table[:, column])
    return most


def points_of(keys: Keys, bits: int) -> Ints:
    """Where the rungs of some keys end, in the table of points: their last `bits` bits."""
    return (keys & ((1 << bits) - 1)).astype(np.int64, copy=False)


def keys_of(rank: Floats, at: Ints, bits: int, into: Keys | None = None) -> Keys:
    """Whole numbers that rise as the ranks fall; the last `bits` bits are `at`. Same shape; they
    are written to `into` where that is given, of 64 bits."""
    keys = np.empty(rank.shape, dtype=np.int64) if into is None else into
    np.subtract(0.0, rank, out=keys.view(np.float64))
    # The bits of a negative number fall as it rises; those of others rise with it.
    flip = keys >> 63
    flip &= MOST_INT
    keys ^= flip
    keys &= -(1 << bits)
    keys |= at
    return keys
