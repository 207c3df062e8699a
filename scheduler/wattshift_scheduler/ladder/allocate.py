"""Walk up the ladder under the feeder tree: which device runs at which point.

What hangs below the root is settled first (`walk`), each full feeder repaired (`repair`), then the
root's room cuts off the worst of what is left (`capped`). The first two are kept from one decision
to the next (`filled`): a new cap is then a search.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, frozen, summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.ladder import HORIZONS, Ladder
from wattshift_scheduler.ladder.repair.repaired import repaired
from wattshift_scheduler.ladder.walk.below import Asked, in_grains
from wattshift_scheduler.ladder.walk.capped import Capped
from wattshift_scheduler.ladder.walk.filled import SMALL_DEVICES, Settled, points_at
from wattshift_scheduler.site import FeederTree

CENT_W = 1e-6
"""Watts below which two sums count as equal."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What one allocation hands to the next.

    Attributes:
        settled: what is settled below the root.
        others: the same as of ladders of other horizons, the latest first.
        capped: the cut there.
        at_root_w: the root's room and its reserve, W.
        top, watts_w: the answer: where each device runs, in the table of points, and its lease.
    """

    settled: Settled
    others: tuple[Settled, ...]
    capped: Capped
    at_root_w: tuple[float, float]
    top: Ints
    watts_w: Floats

    def like(self, ladder: Ladder) -> tuple[Settled, tuple[Settled, ...]]:
        """What to start from with this ladder: what was settled with it or with the one that it
        was made of; and what else to keep."""
        known = (self.settled, *self.others)
        tokens = {ladder.token, ladder.turned.token if ladder.turned else None}
        best = next((one for one in known if one.asked.ladder.token in tokens), self.settled)
        # Without its own horizon's it starts anew, and what was settled last is for another.
        others = tuple(one for one in known if one.asked.ladder.horizon_s != ladder.horizon_s)
        return best, others[: HORIZONS - 1]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where every device should run. `n` devices.

    Attributes:
        point: operating point of each device, counted from its first; shape (n,).
        watts_w: lease watts of each device, W; shape (n,).
        binding: feeders that kept a rung, or a part of one, out: with more room there it would be
            taken.
        feeder_usd_per_mwh: gross value of the best rung that each feeder alone keeps out, 0 where
            it keeps none out: what one more watt there would earn; shape (feeders,).
        filled: what the next allocation can start from.
    """

    point: Ints
    watts_w: Floats
    binding: tuple[str, ...]
    feeder_usd_per_mwh: Floats
    filled: Filled
    _next: list[Floats] = field(default_factory=list, compare=False, repr=False)

    @property
    def marginal_usd_per_mwh(self) -> float:
        """Gross value of the least valuable rung taken, in whole or in part; NaN if none was."""
        ladder = self.filled.settled.asked.ladder
        running = np.flatnonzero(self.watts_w > ladder.base_w + CENT_W)
        if not len(running):
            return float("nan")
        # The worth of a device's rungs falls, but for a first one that a cycle's cost made up for.
        first = float(ladder.first_usd_per_mwh[running].min())
        ends = _rung_of(ladder, running, self.point[running])
        return min(first, float(ladder.worth_usd_per_mwh[ends].min()))

    @property
    def next_usd_per_mwh(self) -> Floats:
        """Gross value of the next watt: of the rung above, or of a rung of which only a part is
        taken; NaN at the top of a device; shape (n,). Worked out when that is first asked for."""
        if not self._next:
            self._next.append(self.next_of(np.arange(len(self.point))))
        return self._next[0]

    def next_of(self, columns: Ints) -> Floats:
        """The same of some devices."""
        ladder = self.filled.settled.asked.ladder
        at = ladder.fleet.first[columns] + self.point[columns]
        part = self.watts_w[columns] < ladder.fleet.point_limit_w[at] - CENT_W
        ahead = np.where(part & ladder.steps.on[at], at, ladder.steps.above[at])
        return np.where(ahead >= 0, ladder.worth_usd_per_mwh[ahead], np.nan)


def _rung_of(ladder: Ladder, columns: Ints, point: Ints) -> Ints:
    """Where the rung ends that a device is on, in the table of points: of one that has stopped
    inside its envelope the rung that passes over it."""
    at = ladder.fleet.first[columns] + point
    return np.where(ladder.steps.on[at], at, ladder.steps.above[at])


def allocate(
    fleet: Fleet,
    ladder: Ladder,
    tree: FeederTree,
    *,
    room_w: Floats,
    eligible: Bools,
    credit_w: Floats,
    price_usd_per_mwh: float,
    take: Bools | None = None,
    reserve_w: float = 0.0,
    last: Filled | None = None,
) -> Allocation:
    """Choose the most valuable set of rungs that fits every feeder.

    Args:
        fleet, ladder, tree: what exists and in which order its watts are worth taking.
        room_w: watts that each feeder can still give to rungs below it, W; shape (feeders,).
        eligible: devices that may leave their lowest point; shape (n,). It and the other columns
            here are kept: they must not be changed afterwards.
        credit_w: watts of each device that are counted already, because it overlaps compute on its
            host through a gate; shape (n,).
        price_usd_per_mwh: energy price; rungs worth less stay untaken.
        take: devices that are to run at that price, the cost of a cycle counted; shape (n,). None:
            those whose first rung ranks above it.
        reserve_w: watts of what the root gives that must stay with fenced devices or free.
        last: from the last allocation. The answer is the same without it.
    """
    assert ladder.fleet is fleet, "the ladder is of another fleet"
    below_w = in_grains(np.maximum(room_w, 0.0))
    below_w[0] = np.inf
    asked = Asked(ladder, tree, eligible, credit_w, price_usd_per_mwh, take, below_w)
    like, others = (None, ()) if last is None else last.like(ladder)
    settled = Settled.of(asked, like)
    filled = _at_root(settled, others, room_w, reserve_w, last)
    feeder_usd = _kept_out(settled, filled.capped)
    return Allocation(
        point=filled.top - fleet.first[:-1],
        watts_w=filled.watts_w,
        binding=tuple(tree.names[i] for i in np.flatnonzero(np.isfinite(feeder_usd))),
        feeder_usd_per_mwh=np.where(np.isfinite(feeder_usd), feeder_usd, 0.0),
        filled=filled,
    )


def _at_root(
    settled: Settled,
    others: tuple[Settled, ...],
    room_w: Floats,
    reserve_w: float,
    last: Filled | None,
) -> Filled:
    """Cut at the root what is settled below it."""
    at_root_w = float(room_w[0]), reserve_w
    kept = last if last is not None and last.settled is settled else None
    if kept is not None and kept.at_root_w == at_root_w:
        return replace(kept, others=others)
    capped = Capped.of(settled, *at_root_w, kept.capped if kept else None)
    top, watts_w = capped.lease_w(settled)
    small = len(watts_w) <= SMALL_DEVICES
    if small and capped.first_out < len(settled.order):
        top, watts_w = _mended(settled, capped, at_root_w[0], top, watts_w)
    return Filled(settled, others, capped, at_root_w, frozen(top), frozen(watts_w))


def beyond(credit_w: Floats, watts_w: Floats) -> Floats:
    """Watts that count against the feeders: those above what overlapping compute counts already."""
    return np.maximum(watts_w - credit_w, 0.0)


def fit_prefix(tree: FeederTree, feeder: Ints, item_w: Floats, room_w: Floats) -> Bools:
    """Of items in order of preference keep, at every feeder, the longest prefix that fits.

    Args:
        tree: the feeder tree.
        feeder: feeder that each item hangs on; shape (items,).
        item_w: watts of each item, W; shape (items,).
        room_w: watts that each feeder can give to the items below it, W; shape (feeders,).
    """
    keep = np.ones(len(feeder), dtype=np.bool_)
    for at in tree.ancestors[::-1]:
        group = at[feeder]
        inside = keep & (group >= 0)
        total_w = summed(group[inside], item_w[inside], len(tree.names))
        for one in np.flatnonzero(total_w > room_w + CENT_W):
            rows = np.flatnonzero(inside & (group == one))
            keep[rows] = np.cumsum(item_w[rows]) <= room_w[one] + CENT_W
    return keep


def _kept_out(settled: Settled, capped: Capped) -> Floats:
    """What the best rung earns that each feeder alone keeps out; NaN for none; shape (feeders,)."""
    ladder = settled.asked.ladder
    blocked = settled.walk.blocked.copy()
    order, place = settled.order, capped.first_out
    blocked[0] = order.keys[place] & ((1 << ladder.key_bits) - 1) if place < len(order) else -1
    ours, worth = settled.alone(int(blocked[0])), np.full(len(blocked), np.nan)
    worth[ours] = ladder.worth_usd_per_mwh[blocked[ours]]
    return worth


def _mended(
    settled: Settled, capped: Capped, room_w: float, top: Ints, watts_w: Floats
) -> tuple[Ints, Floats]:
    """Points and leases after a repair of all feeders, the root too."""
    asked = settled.asked
    ladder, tree = asked.ladder, asked.tree
    fleet = ladder.fleet
    base_w = ladder.base_w
    counted_w = beyond(asked.credit_w, watts_w) - beyond(asked.credit_w, base_w)
    given_w = tree.totals(summed(fleet.feeder, counted_w, len(asked.room_w)))
    left_w = np.append(max(room_w, 0.0), asked.room_w[1:]) - given_w
    binding = settled.walk.blocked >= 0
    binding[0] = True
    better_w = repaired(
        tree,
        ladder,
        price_usd_per_mwh=asked.price_usd_per_mwh,
        credit_w=asked.credit_w,
        watts_w=watts_w,
        movable=asked.running(),
        left_w=left_w,
        unfenced_left_w=capped.others_left_w,
        binding=binding,
    )
    moved = np.flatnonzero(better_w != watts_w)
    if not len(moved):
        return top, watts_w
    top[moved] = points_at(ladder, moved, better_w[moved])
    return top, better_w
