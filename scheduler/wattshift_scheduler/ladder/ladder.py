"""The ladder: every step of every device, in order of what its watts are worth.

Each device's operating points are reduced to their concave envelope (stopping inside it would be
worse than a mix of its ends), and the edges of all envelopes, the *rungs*, are ranked by value per
watt. Filling the site is walking up the ladder, shedding is walking down. Values are gross of the
energy price: the price is the same for every watt, so it says where the walk ends, never its order.

Between sleep and work lies the cost of a cycle. Spread over the time D that a decision is expected
to hold, it makes the first rung of a running machine worth more, because leaving it costs a cycle,
and that of a sleeping one less: a watt costs (lost value x D + cycle) / (watts x D). A card whose
table was freed has such a cost, too, until it has built that anew; one that only idles keeps it.

Rungs stand on the fleet's table of points. Nothing needs them in order before a feeder is full, and
then those alone that lie below it: `keys` sort them.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from wattshift_scheduler.arrays import ALL, Bools, Floats, Ints, Keys, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import Steps
from wattshift_scheduler.ladder.envelopes import envelopes as envelopes
from wattshift_scheduler.ladder.graded import Graded
from wattshift_scheduler.ladder.makes import Makes, makes_of
from wattshift_scheduler.ladder.ranking import Columns, alike, rank
from wattshift_scheduler.ladder.rungs import HOUR_S as HOUR_S
from wattshift_scheduler.ladder.rungs import Part, points_of
from wattshift_scheduler.values import Values

HORIZONS = 3
"""Orders that are kept, each for a time over which the cost of a cycle is spread: that of no end
known, and those of the caps that come and go."""

FEW_SHARE = 0.125
"""If no more of the devices have turned between sleep and work, those alone are ranked anew."""


@dataclass(frozen=True, slots=True)
class Turned:
    """How a ladder was made of another: some devices were ranked anew.

    Attributes:
        token: of the ladder before.
        devices: columns that were ranked anew, rising.
    """

    token: object
    devices: Ints


@dataclass(frozen=True, slots=True)
class Ordered:
    """All rungs, best first; `r` rungs, shape (r,) each.

    Attributes:
        device: column of the device that a rung belongs to.
        point: operating point that the rung ends at, counted from the device's first.
        start_w, end_w: lease watts below and above the rung, W.
        usd_per_mwh: what it ranks by, falling.
        gross_usd_per_mwh: what its watts earn before energy.
        first: whether it leads up from the device's lowest point.
    """

    device: Ints
    point: Ints
    start_w: Floats
    end_w: Floats
    usd_per_mwh: Floats
    gross_usd_per_mwh: Floats
    first: Bools


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs of the fleet and their order. `n` devices, `p` points.

    Attributes:
        fleet, values: what it was made of.
        steps: which rungs there are, on the table of points.
        rank_usd_per_mwh: what the rung that ends at each point ranks by: its gross value and,
            between sleep and work, the cycle's cost over the horizon; -inf where none ends;
            shape (p,).
        worth_usd_per_mwh: what that rung's watts earn before energy; shape (p,).
        keys: whole numbers that rise from the best rung to the worst, equals in the order of the
            table; the last `key_bits` bits are the point itself; of 64 bits, or of 32 where few
            ranks differ (`graded`); shape (p,).
        key_bits: in a fleet of a million points they leave so many to the rank that values differ
            in order if they differ by 1e-9 of themselves.
        base_w: lease watts of each device's lowest point, W; shape (n,).
        cycle_usd: what one sleep and wake of each device costs, USD; shape (n,).
        bonus_usd_per_h: what it is worth to be above the lowest point, USD/h; shape (n,).
        first_w, first_usd_per_mwh: span and gross value of each device's first rung; NaN where it
            has none; shape (n,).
        best_w, best_usd_per_mwh: the same of the step from its lowest point that earns most by
            watt: at a price above that it cannot but lose; shape (n,).
        awake: devices that were counted as running; shape (n,).
        cold: devices that rest and have a table to build before they earn; shape (n,).
        horizon_s: D, over which a cycle's cost was spread, s; infinite: it was not counted.
        makes: which devices are of one make; None: too few are, and each was ranked by itself.
        graded: the makes, ranked.
        token: tells this ladder from all others.
        turned: how it was made of another; None: it was made of the whole fleet.
        others: of the same fleet and values for other horizons, the latest first: a cap that comes
            and goes finds its order again.
    """

    fleet: Fleet
    values: Values
    steps: Steps
    rank_usd_per_mwh: Floats
    worth_usd_per_mwh: Floats
    keys: Keys
    key_bits: int
    base_w: Floats
    cycle_usd: Floats
    bonus_usd_per_h: Floats
    first_w: Floats
    first_usd_per_mwh: Floats
    best_w: Floats
    best_usd_per_mwh: Floats
    awake: Bools
    cold: Bools
    horizon_s: float
    makes: Makes | None = field(compare=False, repr=False)
    graded: Graded | None = field(compare=False, repr=False)
    token: object = field(default_factory=object, compare=False, repr=False)
    turned: Turned | None = field(default=None, compare=False, repr=False)
    others: "tuple[Ladder, ...]" = field(default=(), compare=False, repr=False)
    _ordered: list[Ordered] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        values: Values,
        awake: Bools | None = None,
        horizon_s: float = math.inf,
        cold: Bools | None = None,
        last: "Ladder | None" = None,
    ) -> "Ladder":
        """Rank the rungs of `fleet`.

        Args:
            fleet: the devices.
            values: what hashes and reserve are worth.
            awake: devices that run; None: none does.
            horizon_s: how long the next decision is expected to hold, s.
            cold: devices that have a table to build before they earn; None: none has.
            last: a ladder to start from. Of the same fleet, its envelopes are kept as far as the
                change allows; of the same values and horizon, too, only those devices are ranked
                anew that have turned. The answer is the same without it.
        """
        none = np.zeros(len(fleet), dtype=np.bool_)
        cold = none if awake is None or cold is None else cold & ~awake
        awake = none if awake is None else awake
        if last is None or last.fleet is not fleet:
            plain, makes = Steps.plain(fleet), makes_of(fleet)
            return _whole(fleet, values, awake, cold, horizon_s, plain, makes)
        if last.values != values:
            return _whole(fleet, values, awake, cold, horizon_s, last.steps, last.makes)
        known = (last, *last.others)
        others = tuple(replace(one, others=()) for one in known if one.horizon_s != horizon_s)
        others = others[: HORIZONS - 1]
        like = next((one for one in known if one.horizon_s == horizon_s), None)
        if like is not None:
            turned = np.flatnonzero(like._differs(awake, cold))
            if not len(turned):
                return like if like is last else replace(like, others=others)
            if len(turned) <= FEW_SHARE * len(fleet):
                return replace(_patched(like, turned, awake, cold), others=others)
        made = _whole(fleet, values, awake, cold, horizon_s, last.steps, last.makes)
        return replace(made, others=others)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.steps.on))

    def holds(self, awake: Bools, horizon_s: float, cold: Bools | None = None) -> bool:
        """Whether this order holds for devices that are `awake` or `cold`, and that horizon."""
        cold = np.zeros(len(awake), dtype=np.bool_) if cold is None else cold & ~awake
        return self.horizon_s == horizon_s and not self._differs(awake, cold).any()

    def _differs(self, awake: Bools, cold: Bools) -> Bools:
        counted = awake & (self.cycle_usd > 0) & ~self.cold
        different: Bools = (counted != self.awake) | (cold != self.cold)
        return different

    @property
    def ordered(self) -> Ordered:
        """All rungs in order; sorted when that is first asked for."""
        if not self._ordered:
            ends = points_of(np.sort(self.keys[self.steps.on]), self.key_bits)
            device, starts = self.fleet.point_device[ends], self.steps.start[ends]
            columns = (
                device,
                ends - self.fleet.first[device],
                self.fleet.point_limit_w[starts],
                self.fleet.point_limit_w[ends],
                self.rank_usd_per_mwh[ends],
                self.worth_usd_per_mwh[ends],
                self.steps.first[device] == ends,
            )
            self._ordered.append(Ordered(*(frozen(column) for column in columns)))
        return self._ordered[0]


def build_usd(fleet: Fleet, values: Values) -> Floats:
    """What each device does not earn at its top while it builds its table, USD; shape (n,)."""
    lost_usd = np.zeros(len(fleet))
    for devices in alike(fleet, np.arange(len(fleet))):
        part = Part.of(fleet, values, devices)
        build_h = fleet.table_build_s[part.rows] / HOUR_S
        lost_usd[part.rows] = np.maximum(part.usd_per_h[:, -1], 0.0) * build_h
    return lost_usd


def _whole(
    fleet: Fleet,
    values: Values,
    awake: Bools,
    cold: Bools,
    horizon_s: float,
    steps: Steps,
    makes: Makes | None,
) -> Ladder:
    n, count = len(fleet), len(fleet.point_limit_w)
    bits, graded = max(count, 1).bit_length(), None
    if makes is None:
        columns = Columns.empty(n, count)
        steps = rank(columns, fleet, values, steps, np.arange(n), awake, cold, horizon_s, bits)
    else:
        graded = Graded.of(makes, values, horizon_s, bits)
        columns = Columns.empty(n, count, graded.keys.dtype)
        steps = graded.tell(columns, fleet, steps, ALL, awake, cold)
    return Ladder(
        fleet=fleet,
        values=values,
        steps=steps,
        key_bits=bits,
        base_w=frozen(fleet.point_limit_w[fleet.first[:-1]]),
        horizon_s=horizon_s,
        makes=makes,
        graded=graded,
        **columns.frozen(),
    )


def _patched(last: Ladder, devices: Ints, awake: Bools, cold: Bools) -> Ladder:
    """`last` with some devices ranked anew, because they have turned."""
    columns, graded = Columns.of(last), last.graded
    fleet, steps, bits = last.fleet, last.steps, last.key_bits
    if graded is None:
        horizon_s = last.horizon_s
        steps = rank(columns, fleet, last.values, steps, devices, awake, cold, horizon_s, bits)
    else:
        steps = graded.tell(columns, fleet, steps, devices, awake, cold)
    return replace(
        last,
        steps=steps,
        token=object(),
        turned=Turned(last.token, devices),
        _ordered=[],
        **columns.frozen(),
    )
