"""Whole rungs within a rung of the best: small exchanges at every feeder that binds.

Walking up the ladder leaves less than one rung free at each binding feeder, and of a few large
rungs that is much: where 5.9 kW would fit and 3.5 kW are worth a little more by watt, 41 % of 6 kW.
So at each such feeder, from the leaves up, the devices around the cut are looked at once more and
the best exchange is made: some climb, some step down, some stop inside their envelope where nothing
else fits. Divisible devices take what is left and give way first. That goes on until nothing is
better, so that to repair what has been repaired changes nothing.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.feeder_tree import FeederTree
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.repair.combinations import Bound
from wattshift_scheduler.ladder.repair.exchanges import Exchange, Shape, Standing, best
from wattshift_scheduler.ladder.repair.near import FEW, MOST, WIDTHS, below, looked_at
from wattshift_scheduler.ladder.repair.offers import CENT_W, Points, Prices, Rungs


@dataclass(frozen=True, slots=True)
class Way:
    """How a kind of feeders is treated.

    Attributes:
        shapes: what is tried, one after the other.
        enough: part of what a feeder earns below which nothing more is looked for.
    """

    shapes: tuple[Shape, ...]
    enough: float


ENOUGH = 3e-3
"""Of a feeder with many devices, as of what it draws: less than what watts are known to."""

EASY = Way((Shape(6, 5, 0), Shape(9, 3, 0)), 1e-6)
"""A few devices, none divides and no limit but the feeder's holds: whole devices in two halves."""

HARD = Way((Shape(6, 3, 3), Shape(4, 5, 5), Shape(9, 2, 4)), 1e-6)
"""A few devices otherwise: up to a thousand combinations at once, in three ways of choosing."""

EASY_MANY = Way((Shape(6, 3, 0),), ENOUGH)
HARD_MANY = Way((Shape(4, 3, 2),), ENOUGH)
"""Many devices: the gain is small, and there may be hundreds of such feeders."""

ROUNDS = 16
"""Exchanges one after the other at one feeder, at most: a bound on the time."""

SWEEPS = 6
"""From the leaves to the root, at most."""


def repaired(
    tree: FeederTree,
    ladder: Ladder,
    *,
    price_usd_per_mwh: float,
    credit_w: Floats,
    watts_w: Floats,
    movable: Bools,
    left_w: Floats,
    binding: Bools,
    unfenced_left_w: float = math.inf,
) -> Floats:
    """Improve an allocation that fits; it fits afterwards, too.

    Args:
        tree: the feeders.
        ladder: the devices, and what their points are worth.
        price_usd_per_mwh: energy price; while it is unknown nothing is moved.
        credit_w: watts of each device that are counted already; shape (n,).
        watts_w: lease watts of each device as the walk left them; shape (n,).
        movable: devices that may change: all that are to run if there is room; shape (n,).
        left_w: watts that each feeder has left, W; infinite where nothing binds; shape (feeders,).
        binding: feeders that keep something out that is worth its energy, the root too where that
            is the unfenced devices' share of it; shape (feeders,).
        unfenced_left_w: watts by which devices that are not fenced may draw more together, where
            others gave way for it; infinite where nothing is reserved.

    Returns:
        Lease watts of each device, W; shape (n,).
    """
    if not binding.any() or not math.isfinite(price_usd_per_mwh):
        return watts_w
    prices = Prices(ladder, price_usd_per_mwh, credit_w)
    # An exchange takes divisible devices in any part, also one between rest and work.
    movable = movable & ~ladder.fleet.rests_apart
    work = _Work(tree, prices, movable, binding, watts_w, left_w, unfenced_left_w)
    for _ in range(SWEEPS):
        moved = False
        for at in tree.ancestors[::-1]:
            moved |= work.level(at)
        if not moved:
            break
    return work.watts_w


class _Work:
    """An allocation while it is repaired, and which feeders have still to be looked at."""

    def __init__(
        self,
        tree: FeederTree,
        prices: Prices,
        movable: Bools,
        binding: Bools,
        watts_w: Floats,
        left_w: Floats,
        unfenced_left_w: float,
    ) -> None:
        self.tree, self.prices, self.fleet = tree, prices, prices.fleet
        self.movable = movable
        self.watts_w, self.left_w = watts_w.copy(), left_w.copy()
        self.unfenced_left_w = np.array([unfenced_left_w])
        reserves = math.isfinite(unfenced_left_w)
        self.unfenced = -self.fleet.fenced.astype(np.int64) if reserves else None
        base_w, count = prices.ladder.base_w, len(binding)
        # What a feeder lets through may meet one above it that has kept nothing out so far.
        carries = tree.totals(binding.astype(np.float64)) > 0
        self.binding = binding | (carries & (left_w < self.fleet.nameplate_w.max(initial=0.0)))
        self.open = self.binding.copy()
        self.count = tree.totals(summed(self.fleet.feeder, movable.astype(np.float64), count))
        self.drawn_w = tree.totals(summed(self.fleet.feeder, watts_w - base_w, count))
        self.seen_w = np.full((2, len(binding)), np.nan)

    def slack_w(self, feeders: Ints) -> Floats:
        """What all that carry each of these feeders have left; shape of `feeders`."""
        path = self.tree.ancestors[:, feeders]
        least_w: Floats = np.where(path >= 0, self.left_w[path], np.inf).min(axis=0)
        return np.maximum(least_w, 0.0)

    def level(self, at: Ints) -> bool:
        """Look at the feeders of one row of the tree. Returns whether anything was exchanged."""
        feeders = np.flatnonzero(self.binding & (at == np.arange(len(at))))
        slack_w = self.slack_w(feeders)
        todo = slack_w != self.seen_w[0, feeders]
        todo |= self.unfenced_left_w[0] != self.seen_w[1, feeders]
        todo |= self.open[feeders]
        todo &= (self.count[feeders] <= FEW) | (slack_w > ENOUGH * self.drawn_w[feeders])
        feeders = feeders[todo]
        moved, least = False, 0
        for width in WIDTHS:
            count = self.count[feeders]
            ours = feeders[(count > least) & ((count <= width) | (width == MOST))]
            if len(ours):
                moved |= self._alike(at, ours, width)
            least = width
        return moved

    def _alike(self, at: Ints, feeders: Ints, width: int) -> bool:
        """Exchange at `feeders`, with up to `width` devices each, until nothing is better."""
        slot, device = below(self.fleet, self.movable, at, feeders)
        divides, tables = self.fleet.continuous[device], []
        for kind in (~divides, divides):
            some = slot[kind], device[kind], len(feeders), width
            tables.append(looked_at(self.prices, self.watts_w, *some))
        whole, parts = tables
        bounds = self._bounds(at, feeders, whole, parts)
        is_hard = (parts >= 0).any(axis=1)
        for bound in bounds:
            is_hard |= (bound.of(whole) >= 0).any(axis=1)
        easy, hard = np.flatnonzero(~is_hard), np.flatnonzero(is_hard)
        easy_way, hard_way = (EASY, HARD) if width == FEW else (EASY_MANY, HARD_MANY)
        moved = False
        if len(easy):
            moved |= self._tried(feeders[easy], whole[easy], parts[easy], [], easy_way)
        if len(hard):
            bounds = [bound.of_feeders(hard) for bound in bounds]
            moved |= self._tried(feeders[hard], whole[hard], parts[hard], bounds, hard_way)
        return moved

    def _tried(
        self, feeders: Ints, whole: Ints, parts: Ints, bounds: list[Bound], way: Way
    ) -> bool:
        """Exchange among these devices, one shape after the other."""
        points, rungs = Points.of(self.prices, whole), Rungs.of(self.prices, parts)
        offered = points, rungs, bounds
        moved = [self._rounds(feeders, *offered, shape, way.enough) for shape in way.shapes]
        # What the first shape may find now, or what other devices may: that is asked once more.
        late = moved[1:] if way in (EASY, HARD) else moved
        self.open[np.concatenate([feeders[:0], *late])] = True
        return any(len(one) for one in moved)

    def _rounds(
        self,
        feeders: Ints,
        points: Points,
        rungs: Rungs,
        bounds: list[Bound],
        shape: Shape,
        enough: float,
    ) -> Ints:
        """Exchange as long as one core of that shape finds anything better. Returns where."""
        moved = feeders[:0]
        for _ in range(ROUNDS):
            slack_w = self.slack_w(feeders)
            stand = Standing.of(points, rungs, self.watts_w, slack_w, bounds)
            self.seen_w[0, feeders], self.seen_w[1, feeders] = slack_w, self.unfenced_left_w[0]
            self.open[feeders] = False
            short = stand.usd_per_wh * slack_w
            if enough < ENOUGH:
                # Of a few devices also what the present choice may lose among themselves.
                short = stand.short_usd_per_h(rungs, slack_w)
            rows = np.flatnonzero(short > enough * stand.usd_per_h)
            if not len(rows):
                break
            if len(rows) < len(feeders):
                feeders, slack_w, points = feeders[rows], slack_w[rows], points.of_feeders(rows)
                rungs, stand = rungs.of_feeders(rows), stand.of_feeders(rows)
                bounds = [bound.of_feeders(rows) for bound in bounds]
            found = best(points, rungs, stand, slack_w, bounds, shape)
            rows = np.flatnonzero(found.gain_usd_per_h)
            if not len(rows):
                break
            feeders, points, rungs = feeders[rows], points.of_feeders(rows), rungs.of_feeders(rows)
            bounds, found = [b.of_feeders(rows) for b in bounds], found.of_feeders(rows)
            moved = moved if len(moved) else feeders
            self._apply(found.of_feeders(self._together(found)))
            self.open[feeders] = True
        return moved

    def _bounds(self, at: Ints, feeders: Ints, whole: Ints, parts: Ints) -> list[Bound]:
        """Limits that some of these devices share, besides those that all of a feeder do."""
        found = [
            Bound(self.fleet.feeder, other, other[feeders], self.left_w)
            for other in self.tree.ancestors
            if other is not at
        ]
        if self.unfenced is not None:
            none = np.full(len(feeders), -2)
            found.append(Bound(self.unfenced, np.array([0, -1]), none, self.unfenced_left_w))
        return [b for b in found if (b.of(whole) >= 0).any() or (b.of(parts) >= 0).any()]

    def _together(self, found: Exchange) -> Ints:
        """Which exchanges fit with each other, the most valuable first."""
        f = len(found.gain_usd_per_h)
        device = np.concatenate((found.device, found.pool_device), axis=1)
        more_w = np.concatenate((found.more_w, found.pool_w), axis=1)
        slot = np.repeat(np.arange(f), device.shape[1]).reshape(device.shape)[device >= 0]
        device, more_w = device[device >= 0], more_w[device >= 0]
        limits = [(at[self.fleet.feeder[device]], self.left_w) for at in self.tree.ancestors]
        if self.unfenced is not None:
            limits.append((self.unfenced[device], self.unfenced_left_w))
        order = np.argsort(-found.gain_usd_per_h, kind="stable")
        keep = np.ones(f, dtype=np.bool_)
        while True:
            before = int(keep.sum())
            for group, left_w in limits:
                inside = keep[slot] & (group >= 0)
                total_w = summed(group[inside], more_w[inside], len(left_w))
                for full in np.flatnonzero(total_w > np.maximum(left_w, 0.0) + CENT_W):
                    ours = inside & keep[slot] & (group == full)
                    load_w = np.maximum(summed(slot[ours], more_w[ours], f)[order], 0.0)
                    over = np.cumsum(load_w) > max(float(left_w[full]), 0.0) + CENT_W
                    keep[order[over & (load_w > 0.0)]] = False
            if keep.sum() == before:
                return np.flatnonzero(keep)
            if not keep.any():
                return order[:1]

    def _apply(self, found: Exchange) -> None:
        """Write exchanges into the leases and into what is left."""
        one = found.device >= 0
        self.watts_w[found.device[one]] = found.lease_w[one]
        pooled = (found.pool_device >= 0) & (found.pool_w != 0.0)
        parts, back = np.unique(found.pool_device[pooled], return_inverse=True)
        more_w = summed(back, found.pool_w[pooled], len(parts))
        counted_w = self.prices.counted_w(parts, self.watts_w[parts])
        self.watts_w[parts] = self.prices.lease_w(parts, counted_w + more_w)
        device = np.concatenate((found.device[one], parts))
        more_w = np.concatenate((found.more_w[one], more_w))
        for at in self.tree.ancestors:
            above = at[self.fleet.feeder[device]]
            inside = above >= 0
            more = summed(above[inside], more_w[inside], len(at))
            self.left_w -= more
            self.drawn_w += more
            self.open[above[inside]] = True
        self.unfenced_left_w -= more_w[~self.fleet.fenced[device]].sum()
        if (self.tree.second >= 0).any():
            self.open[:] = True
