"""Which devices are looked at for a feeder: all of a few, of many those that stand near its cut."""

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.repair.offers import Prices

FEW = 12
"""Of a feeder with no more devices below it all are looked at, in more ways than one."""

NEAR = 12
"""Of a feeder with more, so many whole devices and as many divisible ones: those that rank nearest
to its cut. Most of what a rung leaves free is found among the nearest few."""

MOST = 512
"""Devices that are ranked for one feeder. Of more, evenly chosen ones: what is lost at the cut of a
large feeder is a rung of thousands, and among so many some stand near it."""

WIDTHS = (FEW, 48, MOST)
"""Feeders are worked out together with others of about as many devices. What one of them gets does
not depend on which others are there: tables are as wide as this, whoever is in them."""


def below(fleet: Fleet, movable: Bools, at: Ints, feeders: Ints) -> tuple[Ints, Ints]:
    """Devices below some feeders.

    Args:
        fleet: all devices.
        movable: those that may be among them; shape (n,).
        at: the row of the tree in which the feeders stand; shape (feeders of the tree,).
        feeders: the feeders.

    Returns:
        Of each device its place in `feeders`, which never falls, and the device; shape (m,) each.
    """
    slot_of = np.full(len(at) + 1, -1)
    slot_of[feeders] = np.arange(len(feeders))
    slot = slot_of[at[fleet.feeder]]
    device = np.flatnonzero((slot >= 0) & movable)
    slot = slot[device]
    if (slot[1:] < slot[:-1]).any():
        order = np.argsort(slot, kind="stable")
        slot, device = slot[order], device[order]
    return slot, device


def looked_at(
    prices: Prices, watts_w: Floats, slot: Ints, device: Ints, rows: int, width: int
) -> Ints:
    """A row of devices for each of `rows` feeders, -1 where it has fewer.

    Args:
        prices: by which devices are ranked.
        watts_w: lease watts at present; shape (n,).
        slot, device: as of `below`.
        rows: how many feeders.
        width: one of WIDTHS, no less than the most devices of a feeder but for MOST.
    """
    if width == MOST:
        slot, device = _evenly(slot, device, rows)
    if not len(device):
        return np.full((rows, 0), -1)
    count = np.bincount(slot, minlength=rows)
    place = np.arange(len(slot)) - (np.cumsum(count) - count)[slot]
    table = np.full((rows, width), -1)
    table[slot, place] = device
    if width == FEW:
        return table
    up, down = np.full((2, rows, width), np.inf)
    up[slot, place], down[slot, place] = _distances(prices, watts_w, device)
    row = np.arange(rows)[:, None]
    first = np.argpartition(up, NEAR // 2 - 1, axis=1)[:, : NEAR // 2]
    down[row, first] = np.where(up[row, first] < np.inf, -np.inf, down[row, first])
    chosen = np.sort(np.argpartition(down, NEAR - 1, axis=1)[:, :NEAR], axis=1)
    return table[row, chosen]


def _distances(prices: Prices, watts_w: Floats, device: Ints) -> tuple[Floats, Floats]:
    """How late each device's next rung would be taken, and how early its last given up, by rank;
    infinite where it has none."""
    ladder, lowest = prices.ladder, prices.fleet.first[device]
    here = prices.points_at(device, watts_w[device])
    above = np.where(here > lowest, ladder.steps.above[here], ladder.steps.first[device])
    up = np.where(above >= 0, -ladder.rank_usd_per_mwh[above], np.inf)
    return up, np.where(here > lowest, ladder.rank_usd_per_mwh[here], np.inf)


def _evenly(slot: Ints, device: Ints, rows: int) -> tuple[Ints, Ints]:
    """At most MOST devices of each slot, evenly chosen; `slot` never falls."""
    count = np.bincount(slot, minlength=rows)
    place = np.arange(len(slot)) - (np.cumsum(count) - count)[slot]
    share = np.minimum(MOST / np.maximum(count, 1), 1.0)[slot]
    some = np.floor((place + 1) * share) > np.floor(place * share)
    return slot[some], device[some]
