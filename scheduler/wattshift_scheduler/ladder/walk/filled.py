"""What a walk up the ladder leaves to be decided at the root, kept from one decision to the next.

Everything below the root is settled first, as if the root gave any watts. What was given there
stands here in order of rank with its sums, so that a new room at the root, a cap, is a search in
those sums: of the rungs between the old cut and the new one alone anything changes.

It holds while ladder, tree, devices, credits, price and the rooms below the root do. If a few of
these change, the branches of the tree that they concern are settled anew. The answer is the same
bit for bit as without anything kept.
"""

from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, Keys, frozen
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.ladder.envelopes import GRAIN_W, climbed, spread, whole_grains
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.repair.repaired import repaired
from wattshift_scheduler.ladder.rungs import points_of
from wattshift_scheduler.ladder.walk.below import (
    Asked,
    Ends,
    Walk,
    carrying,
    counted,
    walked,
    wanted_w,
)

FEW_SHARE = 0.5
"""If a change concerns branches with more of the devices, all are settled anew."""


SMALL_DEVICES = 2048
"""In a larger fleet those feeders alone are repaired that have watts left worth it, and the root is
not: what is lost there is part of one rung of thousands."""

WORST_KEY = int(np.iinfo(np.int64).max)
"""Of a feeder that keeps nothing out: it comes after all keys."""

WORTHWHILE_SHARE = 0.01
"""Part of a feeder's room: if no more is left, a repair could bring as little."""


@dataclass(frozen=True, slots=True)
class Order:
    """The rungs that were given anything below the root, best first; shape (r,) each.

    Attributes:
        keys: as of the ladder.
        given_w: watts given to each, whole grains.
        sum_w: of these up to and with each rung.
    """

    keys: Keys
    given_w: Floats
    sum_w: Floats
    _fenced_w: list[Floats] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def of(cls, ladder: Ladder, given_w: Floats) -> "Order":
        """Sort what was given."""
        keys = ladder.keys.take(np.flatnonzero(given_w > 0))
        keys.sort()
        there_w = given_w.take(points_of(keys, ladder.key_bits))
        return cls(frozen(keys), frozen(there_w), frozen(climbed(there_w)))

    def __len__(self) -> int:
        return len(self.keys)

    def rungs(self, ladder: Ladder, some: slice | Ints) -> tuple[Ints, Ints, Ints]:
        """Of the rungs at some places where they end, in the table of points, the points that they
        lead from, and the devices' columns."""
        ends = points_of(self.keys[some], ladder.key_bits)
        start = ladder.steps.start[ends] if ladder.steps.bent else ends - 1
        return ends, start, ladder.fleet.devices_of(ends)

    def fenced_w(self, ladder: Ladder) -> Floats:
        """Watts given to devices behind gates, up to and with each rung."""
        if not self._fenced_w:
            fenced = ladder.fleet.fenced[self.rungs(ladder, slice(None))[2]]
            self._fenced_w.append(climbed(self.given_w * fenced))
        return self._fenced_w[0]


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything below the root. `n` devices, `p` points.

    Attributes:
        asked: what it answers.
        walk: the walk, its repair done.
        order: what was given, best first.
        top: where the highest rung ends of which each device was given anything; shape (n,).
        parts: devices of whose highest rung a part was given, and those that were moved.
        places: where these rungs stand in the order; shape of `parts`.
        branch: see `branches`.
    """

    asked: Asked
    walk: Walk
    order: Order
    top: Ints
    parts: Ends
    places: Ints
    branch: Ints
    _out: list[tuple[Ints, Ints]] = field(default_factory=list, compare=False, repr=False)

    def alone(self, first_out: int) -> Bools:
        """Feeders that keep a rung out which none above them would, if the root keeps out the rung
        that ends at this point, -1 for none; shape (feeders,). All but the root is known already.
        """
        if not self._out:
            blocked = self.walk.blocked.copy()
            blocked[0] = -1
            self._out.append(_out(self.asked, blocked))
        key, above_key = self._out[0]
        root_key = int(self.asked.ladder.keys[first_out]) if first_out >= 0 else WORST_KEY
        found: Bools = key < np.minimum(above_key, root_key)
        found[0] = first_out >= 0
        return found

    @classmethod
    def of(cls, asked: Asked, last: "Settled | None" = None) -> "Settled":
        """Settle, from what is still true of `last`."""
        if last is not None:
            touched = last._touched(asked)
            if touched is not None and not touched.any():
                return last
            if touched is not None:
                devices = np.flatnonzero(touched[last.branch[asked.ladder.fleet.feeder]])
                if len(devices) <= FEW_SHARE * len(asked.eligible):
                    return _settled(asked, last.branch, devices, last)
        return _settled(asked, branches(asked.tree), None, None)

    def _touched(self, asked: Asked) -> Bools | None:
        """Branches of which something may have changed; None: all; shape (feeders,)."""
        was = self.asked
        if was.tree is not asked.tree or was.price_usd_per_mwh != asked.price_usd_per_mwh:
            return None
        if (was.take is None) != (asked.take is None):
            return None
        fleet = asked.ladder.fleet
        changed = np.zeros(len(fleet), dtype=np.bool_)
        if was.ladder.token is not asked.ladder.token:
            turned = asked.ladder.turned
            if turned is None or turned.token is not was.ladder.token:
                return None
            changed[turned.devices] = True
        for name in ("eligible", "take", "credit_w"):
            before, now = getattr(was, name), getattr(asked, name)
            if before is not now:
                changed |= before != now
        touched = np.zeros(len(asked.room_w), dtype=np.bool_)
        touched[self.branch[fleet.feeder[changed]]] = True
        touched[self.branch[was.room_w != asked.room_w]] = True
        return touched


def branches(tree: FeederTree) -> Ints:
    """Which feeders hang together: share one below the root, or what hangs on them does.

    Returns:
        The lowest number of a feeder of the same branch; 0 for the root; shape (feeders,).
    """
    branch = np.arange(len(tree.names))
    below, above = tree.below[tree.above > 0], tree.above[tree.above > 0]
    while True:
        found = branch.copy()
        np.minimum.at(found, below, branch[above])
        np.minimum.at(found, above, found[below])
        if np.array_equal(found, branch):
            return branch
        branch = found


def _settled(asked: Asked, branch: Ints, devices: Ints | None, last: Settled | None) -> Settled:
    ladder = asked.ladder
    walk = walked(asked, devices, None if last is None else last.walk)
    parts = _parts(asked, walk)
    ours = np.ones(len(ladder.fleet), dtype=np.bool_)
    if last is not None:
        ours[:] = False
        ours[devices] = True
        # Where nothing was touched a repair stands in the watts given, and some are no more parts.
        parts = parts.of(ours[parts.device]).joined(last.parts.of(~ours[last.parts.device]))
    top = _tops(asked, walk.given_w)
    mended = _mended(asked, walk, ours, ended(asked, top.copy(), parts, walk.floors))
    if len(mended.device):
        mended = _regiven(asked, walk.given_w, mended)
        top[mended.device] = mended.rung
        moved = np.zeros(len(ours), dtype=np.bool_)
        moved[mended.device] = True
        given = walk.given_w[mended.rung] > 0
        parts = parts.of(~moved[parts.device]).joined(mended.of(given))
        # What lies wholly inside a credit counts nothing: it stands whatever the root gives.
        free = mended.of(~given & (mended.lease_w > ladder.base_w[mended.device]))
        if len(free.device):
            kept = ~np.isin(walk.floors.device, free.device)
            walk.floors = walk.floors.of(kept).joined(free)
    order = Order.of(ladder, walk.given_w)
    places = np.searchsorted(order.keys, ladder.keys[parts.rung])
    return Settled(asked, walk, order, top, parts, places, branch)


def _tops(asked: Asked, given_w: Floats) -> Ints:
    """Where the highest rung of each device ends that was given anything; shape (n,)."""
    fleet = asked.ladder.fleet
    top = fleet.first[:-1].copy()
    given = given_w > 0
    # Mostly one for each device; of more, in a device that skips points, the highest comes last.
    given[:-1] &= ~given[1:]
    points = np.flatnonzero(given)
    top[fleet.devices_of(points)] = points
    return top


def _parts(asked: Asked, walk: Walk) -> Ends:
    """Devices of whose highest rung a part was given."""
    fleet, rung = asked.ladder.fleet, walk.parts
    lease_w = fleet.point_limit_w[rung] - (wanted_w(asked, rung) - walk.given_w[rung])
    return Ends(fleet.point_device[rung], rung, lease_w, rung)


def ended(asked: Asked, top: Ints, parts: Ends, floors: Ends) -> Floats:
    """Lease watts of all devices; shape (n,). Changes `top`, which may be a floor's after that.

    Args:
        asked: what is asked.
        top: where the highest rung ends of which each device was given anything; shape (n,).
        parts: of those devices that were not given all of it.
        floors: see `Walk`.
    """
    lease_w: Floats = asked.ladder.fleet.point_limit_w.take(top)
    top[parts.device] = parts.top
    lease_w[parts.device] = parts.lease_w
    if len(floors.device):
        under = floors.of(lease_w[floors.device] < floors.lease_w)
        top[under.device] = under.top
        lease_w[under.device] = under.lease_w
    return lease_w


def _mended(asked: Asked, walk: Walk, ours: Bools, lease_w: Floats) -> Ends:
    """What a repair of the feeders below the root moves; `rung` and `top` are still unknown."""
    tree, ladder = asked.tree, asked.ladder
    left_w = asked.room_w - tree.totals(walk.own_w)
    binding = (walk.blocked >= 0) & carrying(tree, ladder.fleet.feeder[ours])
    if len(ours) > SMALL_DEVICES:
        binding &= (left_w > WORTHWHILE_SHARE * asked.room_w) & alone(asked, walk.blocked)
    if not binding.any():
        return Ends.none()
    better_w = repaired(
        tree,
        ladder,
        price_usd_per_mwh=asked.price_usd_per_mwh,
        credit_w=asked.credit_w,
        watts_w=lease_w,
        movable=asked.running(),
        left_w=left_w,
        binding=binding,
    )
    moved = np.flatnonzero(better_w != lease_w)
    return Ends(moved, moved, better_w[moved], moved)


def alone(asked: Asked, blocked: Ints) -> Bools:
    """Feeders that keep a rung out which none above them would; shape (feeders,).

    Args:
        asked: what is asked.
        blocked: the best rung that each feeder keeps out, -1 for none; shape (feeders,).
    """
    key, above_key = _out(asked, blocked)
    found: Bools = key < above_key
    return found


def _out(asked: Asked, blocked: Ints) -> tuple[Ints, Ints]:
    """The key of the best rung that each feeder keeps out, and the best of those above it; args as
    for `alone`."""
    tree, out = asked.tree, blocked >= 0
    key, above_key = np.full(len(blocked), WORST_KEY), np.full(len(blocked), WORST_KEY)
    key[out] = asked.ladder.keys[blocked[out]]
    apart = tree.below != tree.above
    np.minimum.at(above_key, tree.below[apart], key[tree.above[apart]])
    return key, above_key


def _regiven(asked: Asked, given_w: Floats, mended: Ends) -> Ends:
    """Write what moved devices were given into `given_w`, and say where they end."""
    fleet, steps = asked.ladder.fleet, asked.ladder.steps
    device, lease_w = mended.device, mended.lease_w
    at, counts = spread(fleet.first, device), np.diff(fleet.first)[device]
    low_w, high_w = counted(asked, at)
    over_w = lease_w - np.maximum(asked.credit_w[device], asked.ladder.base_w[device])
    over_w = np.repeat(np.maximum(whole_grains(over_w), 0.0), counts)
    given_w[at] = np.where(steps.on[at], np.clip(over_w, low_w, high_w) - low_w, 0.0)
    some = np.where(given_w[at] > 0, at, np.repeat(fleet.first[device], counts))
    rung = np.maximum.reduceat(some, np.cumsum(counts) - counts)
    return Ends(device, points_at(asked.ladder, device, lease_w), lease_w, rung)


def points_at(ladder: Ladder, devices: Ints, lease_w: Floats) -> Ints:
    """At which point devices run with such leases, in the table of points: the highest within the
    lease; of a divisible device the end of the rung that it is on."""
    fleet, steps = ladder.fleet, ladder.steps
    at, counts = spread(fleet.first, devices), np.diff(fleet.first)[devices]
    within = fleet.point_limit_w[at] <= np.repeat(lease_w, counts) + GRAIN_W
    top = np.maximum.reduceat(np.where(within, at, 0), np.cumsum(counts) - counts)
    on = fleet.continuous[devices] & (lease_w > fleet.point_limit_w[top] + GRAIN_W)
    return np.where(on, steps.above[top], top)
