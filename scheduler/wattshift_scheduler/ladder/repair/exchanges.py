"""The best exchange at a feeder: which devices near its cut change their points, all at once.

A few whole devices form the *core* of a feeder: those whose next step is nearly worth taking, and
those whose last one is nearly not. All combinations of their likeliest points are weighed. What
each leaves free, or asks back, divisible devices take or give: their rungs near the cut are the
*pool*. Feeders are rows, worked out together and each as if it were alone.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints, summed
from wattshift_scheduler.ladder.repair.combinations import Bound, Core, Limits, Pool, bounded, plain
from wattshift_scheduler.ladder.repair.offers import CENT_W, NEVER, Points, Rungs

LEAST_GAIN_USD_PER_H = 1e-9
"""An exchange that brings no more than this is not worth a command."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is tried.

    Attributes:
        devices: of a core.
        points: of each of these, the present one among them.
        rungs: of divisible devices that may give way, and as many that may take more.
    """

    devices: int
    points: int
    rungs: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How the offers at `f` feeders stand at present.

    Attributes:
        now_w, now_usd_per_h: watts that count, and value, of each whole device; shape (f, c).
        loss: what each other point would lose if watts were worth `usd_per_wh`; NEVER where it can
            not be had; shape (points, f, c).
        taken_w: of each divisible rung; shape (f, r).
        usd_per_wh: what one more watt at the feeder is worth at best, USD/h per W; shape (f,).
        usd_per_h: what all that is offered there earns; shape (f,).
    """

    now_w: Floats
    now_usd_per_h: Floats
    loss: Floats
    taken_w: Floats
    usd_per_wh: Floats
    usd_per_h: Floats

    @classmethod
    def of(
        cls, points: Points, rungs: Rungs, watts_w: Floats, slack_w: Floats, bounds: list[Bound]
    ) -> "Standing":
        """Weigh all offers at the present leases `watts_w`, shape (devices of the fleet,)."""
        here = points.at(watts_w)
        f, c = here.shape
        at = here, np.arange(f)[:, None], np.arange(c)[None]
        now_w, now_usd = points.need_w[at], points.usd_per_h[at]
        taken_w = rungs.taken_w(watts_w)
        drawn_w = now_w * points.real[0]
        most_w = _most_w(points, rungs, slack_w, bounds, drawn_w, taken_w)
        more_w, more_usd = points.need_w - now_w, points.usd_per_h - now_usd
        can = points.real & (more_w <= most_w[:, :c] + CENT_W)
        steep = more_usd / np.maximum(more_w, CENT_W)
        steep *= can & (more_w > CENT_W)
        worth = steep.max(axis=(0, 2), initial=0.0)
        can_open = (rungs.span_w - taken_w > CENT_W) & (most_w[:, c:] > CENT_W)
        worth = np.maximum(worth, (rungs.usd_per_wh * can_open).max(axis=1, initial=0.0))
        loss = worth[:, None] * more_w
        loss -= more_usd
        loss += NEVER * ~can
        loss[at] = NEVER
        usd = (now_usd * points.real[0]).sum(axis=1) + (taken_w * rungs.usd_per_wh).sum(axis=1)
        return cls(now_w, now_usd, loss, taken_w, worth, usd)

    def short_usd_per_h(self, rungs: Rungs, slack_w: Floats) -> Floats:
        """The most that any exchange could bring at each feeder, by its linear relaxation; (f,)."""
        gain = np.maximum(-self.loss.min(axis=0, initial=0.0), 0.0).sum(axis=1)
        dear = np.maximum(self.usd_per_wh[:, None] - rungs.usd_per_wh, 0.0) * self.taken_w
        short: Floats = gain + dear.sum(axis=1) + self.usd_per_wh * slack_w
        return short

    def of_feeders(self, rows: Ints) -> "Standing":
        """The same of some of the feeders."""
        return Standing(
            self.now_w[rows],
            self.now_usd_per_h[rows],
            self.loss[:, rows],
            self.taken_w[rows],
            self.usd_per_wh[rows],
            self.usd_per_h[rows],
        )


def _most_w(
    points: Points,
    rungs: Rungs,
    slack_w: Floats,
    bounds: list[Bound],
    drawn_w: Floats,
    taken_w: Floats,
) -> Floats:
    """What each offer could rise by at all: what is left, and what all others there draw."""
    drawn_w = np.concatenate((drawn_w, taken_w), axis=1)
    most_w: Floats = (slack_w + drawn_w.sum(axis=1))[:, None] - drawn_w
    device = np.concatenate((points.device, rungs.device), axis=1)
    for bound in bounds:
        group = bound.of(device)
        ours = group >= 0
        total_w = summed(group[ours], drawn_w[ours], len(bound.left_w)) + bound.left_w
        np.minimum(most_w, total_w[group] - drawn_w, out=most_w, where=ours)
    return most_w


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is to change at each of `f` feeders: `m` whole devices and `q` divisible rungs.

    Attributes:
        gain_usd_per_h: what it brings; 0: nothing is to change; shape (f,).
        device, lease_w, more_w: whole devices, what each is leased afterwards and how many more
            watts count; -1, and 0 W more, for none; shape (f, m).
        pool_device, pool_w: divisible devices, -1 for none, and the watts by which each rung
            changes; shape (f, q).
    """

    gain_usd_per_h: Floats
    device: Ints
    lease_w: Floats
    more_w: Floats
    pool_device: Ints
    pool_w: Floats

    def of_feeders(self, rows: Ints) -> "Exchange":
        """The same at some of the feeders."""
        return Exchange(*(getattr(self, name)[rows] for name in Exchange.__slots__))


def best(
    points: Points,
    rungs: Rungs,
    stand: Standing,
    slack_w: Floats,
    bounds: list[Bound],
    shape: Shape,
) -> Exchange:
    """The best exchange of one core at each feeder, within `slack_w` and all `bounds`."""
    chosen = _chosen(points, stand, shape.devices)
    core, pool = _core(points, stand, chosen, shape.points), _pool(rungs, stand, shape.rungs)
    f, m, _ = core.more_w.shape
    pick, amount_w = np.zeros((f, m), dtype=np.int64), pool.taken_w.copy()
    # Each feeder is treated alike whatever others are looked at with it.
    bound_by = (pool.span_w > 0.0).any(axis=1)
    limits = [Limits.of(bound, core, pool) for bound in bounds]
    for limit in limits:
        bound_by |= (limit.cores >= 0).any(axis=1)
    easy, hard = np.flatnonzero(~bound_by), np.flatnonzero(bound_by)
    if len(easy):
        pick[easy] = plain(core.of_feeders(easy), slack_w[easy])
    if len(hard):
        some = core.of_feeders(hard), pool.of_feeders(hard), slack_w[hard]
        pick[hard], amount_w[hard] = bounded(*some, [one.of_feeders(hard) for one in limits])
    at = np.arange(f)[:, None], np.arange(m)[None], pick
    gain = core.more_usd_per_h[at].sum(axis=1)
    gain += ((amount_w - pool.taken_w) * pool.usd_per_wh).sum(axis=1)
    good = gain > LEAST_GAIN_USD_PER_H
    return Exchange(
        gain_usd_per_h=gain * good,
        device=np.where((pick > 0) & good[:, None], core.device, -1),
        lease_w=points.lease_w[core.point[at], np.arange(f)[:, None], chosen],
        more_w=core.more_w[at] * good[:, None],
        pool_device=np.where(good[:, None], pool.device, -1),
        pool_w=(amount_w - pool.taken_w) * good[:, None],
    )


def _core(points: Points, stand: Standing, chosen: Ints, count: int) -> Core:
    """Of these devices, columns of the offers, the `count` points that would lose least."""
    f, m = chosen.shape
    row = np.arange(f)[:, None]
    loss = stand.loss[:, row, chosen]
    others = min(count - 1, len(loss))
    order = np.argsort(loss, axis=0, kind="stable")[:others]
    never = np.take_along_axis(loss, order, 0) >= NEVER / 2
    at = order, row[None], chosen[None]
    more = points.need_w[at] - stand.now_w[row, chosen]
    more_usd = points.usd_per_h[at] - stand.now_usd_per_h[row, chosen]
    more[never], more_usd[never] = NEVER, -NEVER
    columns = np.zeros((2, f, m, count))
    columns[:, :, :, others + 1 :] = np.array([NEVER, -NEVER])[:, None, None, None]
    columns[0, :, :, 1 : others + 1] = np.moveaxis(more, 0, 2)
    columns[1, :, :, 1 : others + 1] = np.moveaxis(more_usd, 0, 2)
    point = np.zeros((f, m, count), dtype=np.int64)
    point[:, :, 1 : others + 1] = np.moveaxis(order, 0, 2)
    return Core(points.device[row, chosen], point, columns[0], columns[1])


def _chosen(points: Points, stand: Standing, count: int) -> Ints:
    """Half of the devices by what their best step up loses, others by what the best down does."""
    f, c = stand.now_w.shape
    if c <= count:
        return np.broadcast_to(np.arange(c), (f, c))
    rises = points.need_w > stand.now_w + CENT_W
    up = (stand.loss + NEVER * ~rises).min(axis=0)
    down = (stand.loss + NEVER * rises).min(axis=0)
    half, row = count // 2, np.arange(f)[:, None]
    rank = np.where(down < NEVER / 2, down, NEVER / 2 + up)
    first = np.argsort(up, axis=1, kind="stable")[:, :half]
    rank[row, first] = np.where(up[row, first] < NEVER / 2, -np.inf, rank[row, first])
    return np.argsort(rank, axis=1, kind="stable")[:, :count]


def _pool(rungs: Rungs, stand: Standing, most: int) -> Pool:
    """Of what is taken the least valuable, and of what is open the most valuable rungs."""
    f, r = rungs.low_w.shape
    open_w = rungs.span_w - stand.taken_w
    row, count = np.arange(f)[:, None], min(most, r)
    gives = np.where(stand.taken_w > CENT_W, rungs.usd_per_wh, np.inf)
    takes = np.where(open_w > CENT_W, -rungs.usd_per_wh, np.inf)
    low = np.argsort(gives, axis=1, kind="stable")[:, :count]
    high = np.argsort(takes, axis=1, kind="stable")[:, :count]
    at, is_low = np.concatenate((low, high), axis=1), np.arange(2 * count)[None] < count
    span_w = np.where(is_low, stand.taken_w[row, at], open_w[row, at])
    order = np.argsort(-rungs.usd_per_wh[row, at], axis=1, kind="stable")
    at, is_low, span_w = (
        at[row, order],
        np.take_along_axis(is_low | (row < 0), order, 1),
        span_w[row, order],
    )
    return Pool(
        device=rungs.device[row, at],
        span_w=span_w,
        taken_w=span_w * is_low,
        usd_per_wh=rungs.usd_per_wh[row, at],
    )
