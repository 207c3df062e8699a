"""The walk up the ladder at the feeders below the root: which rungs, or parts of them, fit there.

From the leaves up, every full feeder keeps the best of what the feeders below it have let through,
and what is left of its room, less than a rung, goes to the next rung that fits or divides.
For watts that divide this is optimal: the objective is separable and concave and the limits are
nested (a laminar family, hence a polymatroid; Federgruen and Groenevelt 1986). Whole rungs lose at
most one rung at each full feeder.

Only rungs below full feeders are sorted, those of one row of the tree at once. Sums are of whole
grains, so they are exact, and it makes no difference which feeders are worked out together.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, Keys, summed
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import GRAIN_W, climbed, spread, whole_grains
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.rungs import points_of

ROUNDED_W = 8 * GRAIN_W
"""What rounding to grains may add up to under one feeder: it keeps no rung out."""

MOST_PADDED = 1.5
"""Rows are sorted in one table, the shorter ones filled up, if it is no larger than so many times
what it holds."""

NEXT_RUNGS = 24
"""Rungs after a feeder's cut among which one is looked for that takes what is left."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a walk is asked; `n` devices.

    Attributes:
        ladder, tree, eligible, credit_w, price_usd_per_mwh, take: as of `allocate`.
        room_w: watts that each feeder can give, whole grains, the root's infinite; (feeders,).
    """

    ladder: Ladder
    tree: FeederTree
    eligible: Bools
    credit_w: Floats
    price_usd_per_mwh: float
    take: Bools | None
    room_w: Floats

    def movable(self) -> Bools:
        """Devices that may leave their lowest point; shape (n,)."""
        return self.eligible if self.take is None else self.eligible & self.take

    def running(self) -> Bools:
        """Devices that are to run at this price if there is room; shape (n,)."""
        ladder = self.ladder
        first = ladder.steps.first
        if self.take is None:
            worth: Bools = ladder.rank_usd_per_mwh[first] > self.price_usd_per_mwh
            return worth & (first >= 0) & self.eligible
        return self.eligible & self.take & (first >= 0)


def in_grains(room_w: Floats) -> Floats:
    """Room in whole grains, W."""
    grains: Floats = np.floor(room_w / GRAIN_W) * GRAIN_W
    return grains


@dataclass(frozen=True, slots=True)
class Ends:
    """Where some devices end, whole rungs or not; shape (m,) each.

    Attributes:
        device: columns, rising.
        top: the point that each is said to run at, in the table of points.
        lease_w: its lease watts.
        rung: where the rung ends that it reached, in the table of points.
    """

    device: Ints
    top: Ints
    lease_w: Floats
    rung: Ints

    @classmethod
    def none(cls) -> "Ends":
        """Of no devices."""
        whole = np.zeros(0, dtype=np.int64)
        return cls(whole, whole, np.zeros(0), whole)

    def of(self, rows: Bools | Ints) -> "Ends":
        """Some of them."""
        return Ends(self.device[rows], self.top[rows], self.lease_w[rows], self.rung[rows])

    def joined(self, others: "Ends") -> "Ends":
        """These and others, by device."""
        if not len(others.device):
            return self
        device, top, lease_w, rung = (
            np.concatenate((getattr(self, name), getattr(others, name)))
            for name in ("device", "top", "lease_w", "rung")
        )
        return Ends(device, top, lease_w, rung).of(np.argsort(device, kind="stable"))


@dataclass(slots=True)
class Walk:
    """What is given below the root; `p` points. Changed while it is made alone.

    Attributes:
        given_w: watts given to the rung that ends at each point; shape (p,).
        own_w: what is given to devices at each feeder itself; shape (feeders,).
        blocked: the best rung that each feeder has kept out, in whole or in part; -1 for none;
            shape (feeders,).
        floors: devices that run at so much whatever the feeders give: overlapping compute counts
            it already.
        parts: rungs of which a part was given, rising.
    """

    given_w: Floats
    own_w: Floats
    blocked: Ints
    floors: Ends
    parts: Ints


def walked(asked: Asked, devices: Ints | None = None, last: Walk | None = None) -> Walk:
    """Walk up the feeders below the root.

    Args:
        asked: what is there.
        devices: columns to walk for; None: all. With some, all devices that share a feeder below
            the root with one of them must be among them.
        last: a walk that holds for all other devices; with `devices`.
    """
    fleet, tree, feeders = asked.ladder.fleet, asked.tree, len(asked.tree.names)
    if last is None or devices is None:
        given_w, floors = _wanted(asked, None)
        own_w = by_feeder(fleet, given_w, feeders)
        none = np.zeros(0, dtype=np.int64)
        walk = Walk(given_w, own_w, np.full(feeders, -1), floors, none)
        ours = np.ones(feeders, dtype=np.bool_)
    else:
        ours = carrying(tree, fleet.feeder[devices])
        walk = _renewed(asked, devices, last, ours)
    ours[0] = False
    for at in tree.ancestors[:0:-1]:
        _kept(asked, walk, at, ours)
    parts_w = walk.given_w[walk.parts]
    walk.parts = walk.parts[(parts_w > 0) & (parts_w < wanted_w(asked, walk.parts))]
    return walk


def _renewed(asked: Asked, devices: Ints, last: Walk, ours: Bools) -> Walk:
    """A walk about to begin anew for some devices and the feeders that carry them."""
    fleet = asked.ladder.fleet
    at = spread(fleet.first, devices)
    given_w, floors = _wanted(asked, devices)
    others = np.ones(len(fleet), dtype=np.bool_)
    others[devices] = False
    own = np.zeros(len(ours), dtype=np.bool_)
    own[fleet.feeder[devices]] = True
    own_w = summed(fleet.point_feeder[at], given_w, len(ours))
    walk = Walk(
        given_w=last.given_w.copy(),
        own_w=np.where(own, own_w, last.own_w),
        blocked=np.where(ours, -1, last.blocked),
        floors=floors.joined(last.floors.of(others[last.floors.device])),
        parts=last.parts[others[fleet.point_device[last.parts]]],
    )
    walk.given_w[at] = given_w
    return walk


def by_feeder(fleet: Fleet, given_w: Floats, feeders: int) -> Floats:
    """Watts given to the points of all devices, at the devices' own feeders, W; (feeders,)."""
    if not len(fleet):
        return np.zeros(feeders)
    # Neighbours in the fleet mostly hang on one feeder: they are summed first.
    begin = np.flatnonzero(np.append(True, fleet.feeder[1:] != fleet.feeder[:-1]))
    return summed(fleet.feeder[begin], np.add.reduceat(given_w, fleet.first[begin]), feeders)


def carrying(tree: FeederTree, feeder: Ints) -> Bools:
    """Feeders that carry one of these; shape (feeders,)."""
    marked = np.zeros(len(tree.names))
    marked[feeder] = 1.0
    found: Bools = tree.totals(marked) > 0
    return found


def _wanted(asked: Asked, devices: Ints | None) -> tuple[Floats, Ends]:
    """Watts that count of each rung that is wanted, and where devices end that need none."""
    ladder = asked.ladder
    fleet, steps, price = ladder.fleet, ladder.steps, asked.price_usd_per_mwh
    some: slice | Ints = slice(None) if devices is None else devices
    at: slice | Ints = slice(None) if devices is None else spread(fleet.first, devices)
    counts = np.diff(fleet.first)[some]
    begin = np.cumsum(counts) - counts
    if asked.take is None:
        good = ladder.rank_usd_per_mwh[at] > price
    else:
        good = ladder.worth_usd_per_mwh[at] > price
        first = steps.first[some]
        good[(first - fleet.first[:-1][some] + begin)[first >= 0]] = True
    movable = asked.movable()[some]
    if not movable.all():
        good &= np.repeat(movable, counts)
    want_w: Floats = steps.span_w[at] * good
    overlap = np.flatnonzero(movable & (asked.credit_w[some] > ladder.base_w[some]))
    if not len(overlap):
        return want_w, Ends.none()
    here = spread(np.append(begin, len(want_w)), overlap)
    there = spread(fleet.first, overlap if devices is None else devices[overlap])
    low_w, high_w = counted(asked, there)
    on = good[here] & steps.on[there]
    want_w[here] = np.where(on, high_w - low_w, 0.0)
    return want_w, _floors(asked, there[on], low_w[on], high_w[on])


def counted(asked: Asked, points: Ints) -> tuple[Floats, Floats]:
    """Watts that count at the feeders below and above the rungs that end at some points."""
    ladder, device = asked.ladder, asked.ladder.fleet.point_device[points]
    steps = ladder.steps
    covered_w = whole_grains(np.maximum(asked.credit_w[device] - ladder.base_w[device], 0.0))
    low_w = np.maximum(steps.height_w[steps.start[points]] - covered_w, 0.0)
    return low_w, np.maximum(steps.height_w[points] - covered_w, 0.0)


def wanted_w(asked: Asked, rungs: Ints) -> Floats:
    """Watts that count of some rungs."""
    low_w, high_w = counted(asked, rungs)
    return high_w - low_w


def _floors(asked: Asked, rung: Ints, low_w: Floats, high_w: Floats) -> Ends:
    """Where devices end with the watts of these wanted rungs that compute counts already."""
    fleet, start = asked.ladder.fleet, asked.ladder.steps.start[rung]
    device = fleet.point_device[rung]
    whole = high_w <= 0.0
    credit_w = asked.credit_w[device]
    part = ~whole & (low_w <= 0.0) & (credit_w > fleet.point_limit_w[start])
    part &= fleet.continuous[device]
    lease_w = np.where(whole, fleet.point_limit_w[rung], credit_w)
    reached = np.flatnonzero(whole | part)
    # Of each device the last, which is the highest.
    of = device[reached]
    last = reached[np.append(of[1:] != of[:-1], True)[: len(reached)]]
    return Ends(device[last], rung[last], lease_w[last], rung[last])


def _kept(asked: Asked, walk: Walk, at: Ints, ours: Bools) -> None:
    """Let no feeder of one row of the tree give more than it can; changes `walk`.

    Args:
        asked, walk: what is asked, and what was given so far.
        at: the row: the feeder that carries each feeder, -1 for none; shape (feeders,).
        ours: feeders to look at; shape (feeders,).
    """
    fleet, feeders = asked.ladder.fleet, len(ours)
    inside = at >= 0
    total_w = summed(at[inside], walk.own_w[inside], feeders)
    full = ours & (total_w > asked.room_w + ROUNDED_W)
    if not full.any():
        return
    points, group, end = _by_group(asked.ladder, walk.given_w, at, full)
    given_w = walk.given_w.take(points)
    climbed_w = climbed(given_w)
    begin = np.append(0, end[:-1])
    below_w = np.where(begin > 0, climbed_w[begin - 1], 0.0)
    limit_w = below_w + asked.room_w[group]
    cut = np.searchsorted(climbed_w, limit_w + ROUNDED_W, side="right")
    left_w = limit_w - np.where(cut > begin, climbed_w[cut - 1], below_w)
    out = np.repeat(end - np.cumsum(end - cut), end - cut)
    out += np.arange(len(out))
    gone = points[out]
    walk.given_w[gone] = 0.0
    # The feeders of devices are a column so short that it stays in a processor's cache.
    walk.own_w -= summed(fleet.feeder.take(fleet.devices_of(gone)), given_w[out], feeders)
    walk.blocked[group] = points[cut]
    place = _next_fitting(asked, walk, points, given_w, cut, end, left_w)
    takes = np.flatnonzero((place >= 0) & (left_w > 0))
    rung, more_w = points[place[takes]], np.minimum(left_w[takes], given_w[place[takes]])
    walk.given_w[rung] = more_w
    walk.own_w += summed(fleet.point_feeder[rung], more_w, feeders)
    walk.parts = np.union1d(walk.parts, rung)


def _next_fitting(
    asked: Asked, walk: Walk, points: Ints, given_w: Floats, cut: Ints, end: Ints, left_w: Floats
) -> Ints:
    """Of each feeder's rungs from the cut on the first that fits what is left, or divides, and
    waits for no lower one of its device: its place in `points`; -1 where none is near."""
    fleet, steps = asked.ladder.fleet, asked.ladder.steps
    place = cut[:, None] + np.arange(NEXT_RUNGS)
    inside = place < end[:, None]
    place = np.where(inside, place, 0)
    rung = points[place]
    device = fleet.devices_of(rung)
    start = steps.start[rung] if steps.bent else rung - 1
    good = fleet.divides(device, start) | (given_w[place] <= left_w[:, None])
    good &= inside & ((walk.given_w[start] > 0) | (start == fleet.first[device]))
    found = np.argmax(good, axis=1)
    row = np.arange(len(cut))
    return np.where(good[row, found], place[row, found], -1)


def _by_group(ladder: Ladder, given_w: Floats, at: Ints, full: Bools) -> tuple[Ints, Ints, Ints]:
    """All rungs below the full feeders of a row of the tree that were given anything.

    Returns:
        Where they end, feeder by feeder, the best first; those feeders; and where the rungs of
        each end.
    """
    fleet = ladder.fleet
    of_device = at[fleet.feeder]
    ours = np.append(full, False)[of_device]
    chosen = np.repeat(ours, fleet.points_each or np.diff(fleet.first))
    chosen &= given_w > 0
    points = np.flatnonzero(chosen)
    of_device = of_device[ours]
    last = np.flatnonzero(np.append(of_device[1:] != of_device[:-1], True))
    group = of_device[last]
    if len(np.unique(group)) == len(group):
        # Each feeder's devices stand together: so do their points.
        end = np.searchsorted(points, fleet.first[1:][ours][last])
    else:
        of_point = at[fleet.point_feeder[points]]
        order = np.argsort(of_point, kind="stable")
        points, of_point = points[order], of_point[order]
        end = np.flatnonzero(np.append(of_point[1:] != of_point[:-1], True)) + 1
        group = of_point[end - 1]
    keys = _rows_sorted(ladder.keys.take(points), np.diff(np.append(0, end)))
    return points_of(keys, ladder.key_bits), group, end


def _rows_sorted(keys: Keys, counts: Ints) -> Keys:
    """Keys that stand in rows of so many, one after the other, each row sorted.

    Plain whole numbers sort several times faster than indices by two keys, and short rows faster
    than one long column. Rows of about one length are sorted together.
    """
    size = np.frexp(counts.astype(np.float64))[1]
    begin = np.cumsum(counts) - counts
    if len(counts) * int(counts.max()) <= MOST_PADDED * len(keys):
        size[:] = 0
    for one in np.unique(size):
        rows = np.flatnonzero(size == one)
        inside = np.arange(int(counts[rows].max())) < counts[rows][:, None]
        table = np.full(inside.shape, np.iinfo(keys.dtype).max, dtype=keys.dtype)
        if len(rows) == len(counts):
            table[inside] = keys
            table.sort(axis=1)
            return table[inside]
        at = (begin[rows][:, None] + np.arange(inside.shape[1]))[inside]
        table[inside] = keys[at]
        table.sort(axis=1)
        keys[at] = table[inside]
    return keys
