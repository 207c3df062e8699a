"""Walk up the ladder under the feeder tree: which device runs at which point.

Taking rungs in order of value, and dropping the least valuable where a feeder is full, is optimal
for continuous watts: the objective is separable and concave and the limits are nested (a laminar
family, hence a polymatroid; Federgruen and Groenevelt 1986). Whole rungs lose at most one rung per
binding feeder; a short repair pass then fills what is left with smaller rungs and with devices that
take any number of watts.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder import Ladder
from wattshift_scheduler.site import FeederTree

REPAIR_TRIES = 512
"""Rungs looked at to fill the remainder: a bound on the time, far above what a site needs."""

CENT_W = 1e-6
"""Watts below which two sums count as equal."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where every device should run. `n` devices.

    Attributes:
        point: operating point of each device, counted from its first; shape (n,).
        watts_w: lease watts of each device, W; shape (n,).
        next_usd_per_mwh: value of the rung above, NaN at the top of a device; shape (n,).
        marginal_usd_per_mwh: value of the least valuable rung taken, NaN if none was.
        binding: feeders that kept a rung out.
    """

    point: Ints
    watts_w: Floats
    next_usd_per_mwh: Floats
    marginal_usd_per_mwh: float
    binding: tuple[str, ...]


def allocate(
    fleet: Fleet,
    ladder: Ladder,
    tree: FeederTree,
    *,
    room_w: Floats,
    eligible: Bools,
    credit_w: Floats,
    price_usd_per_mwh: float,
) -> Allocation:
    """Choose the most valuable set of rungs that fits every feeder.

    Args:
        fleet, ladder, tree: what exists and in which order its watts are worth taking.
        room_w: watts that each feeder can still give to rungs below it, W; shape (feeders,).
        eligible: devices that may leave their lowest point; shape (n,).
        credit_w: watts of each device that are counted already, because it overlaps compute on its
            host through a gate; shape (n,).
        price_usd_per_mwh: energy price; rungs worth less stay untaken.
    """
    worth = slice(0, ladder.worth_taking(price_usd_per_mwh))
    rungs = np.flatnonzero(eligible[ladder.device[worth]])
    device = ladder.device[rungs]
    counted_w = beyond(credit_w[device], ladder.end_w[rungs]) - beyond(
        credit_w[device], ladder.start_w[rungs]
    )
    fits = fit_prefix(tree, fleet.feeder[device], counted_w, room_w)

    point = np.zeros(len(fleet), dtype=np.int64)
    watts_w = ladder.base_w.copy()
    np.maximum.at(point, device[fits], ladder.point[rungs[fits]])
    np.maximum.at(watts_w, device[fits], ladder.end_w[rungs[fits]])
    left_w = room_w - tree.totals(
        summed(fleet.feeder[device[fits]], counted_w[fits], len(tree.names))
    )
    if not fits.all():
        _repair(fleet, ladder, tree, rungs[~fits], counted_w[~fits], point, watts_w, left_w)
    taken = watts_w[device] > ladder.start_w[rungs] + CENT_W
    values = ladder.usd_per_mwh[rungs]
    return Allocation(
        point=point,
        watts_w=watts_w,
        next_usd_per_mwh=_next_values(ladder, watts_w),
        marginal_usd_per_mwh=float(values[taken].min()) if taken.any() else float("nan"),
        binding=_binding(tree, fleet.feeder[device[~taken]], counted_w[~taken], left_w),
    )


def fit_prefix(tree: FeederTree, feeder: Ints, item_w: Floats, room_w: Floats) -> Bools:
    """Of items in order of preference keep, at every feeder, the longest prefix that fits.

    Args:
        tree: the feeder tree.
        feeder: feeder that each item hangs on; shape (items,).
        item_w: watts of each item, W; shape (items,).
        room_w: watts that each feeder can give to the items below it, W; shape (feeders,).
    """
    keep = np.ones(len(feeder), dtype=np.bool_)
    for depth in range(int(tree.depth.max()), -1, -1):
        at = tree.ancestor_at(depth)[feeder]
        inside = keep & (at >= 0)
        total_w = summed(at[inside], item_w[inside], len(tree.names))
        full = np.flatnonzero(total_w > room_w + CENT_W)
        for one in full:
            rows = np.flatnonzero(inside & (at == one))
            keep[rows] = np.cumsum(item_w[rows]) <= room_w[one] + CENT_W
    return keep


def beyond(credit_w: Floats, watts_w: Floats) -> Floats:
    """Watts that count against the feeders: those above what overlapping compute counts already."""
    return np.maximum(watts_w - credit_w, 0.0)


def _repair(
    fleet: Fleet,
    ladder: Ladder,
    tree: FeederTree,
    dropped: Ints,
    dropped_w: Floats,
    point: Ints,
    watts_w: Floats,
    left_w: Floats,
) -> None:
    """Fill what the prefix left over, best rung first; changes point, watts_w and left_w."""
    for rung, need_w in zip(dropped[:REPAIR_TRIES], dropped_w[:REPAIR_TRIES], strict=True):
        column = int(ladder.device[rung])
        if watts_w[column] < ladder.start_w[rung] - CENT_W:
            continue
        path = _path(tree, int(fleet.feeder[column]))
        spare_w = float(min(left_w[path]))
        if need_w <= spare_w + CENT_W:
            share = 1.0
        elif fleet.continuous[column] and need_w > 0 and spare_w > CENT_W:
            share = spare_w / need_w
        else:
            continue
        span_w = ladder.end_w[rung] - ladder.start_w[rung]
        watts_w[column] = ladder.start_w[rung] + share * span_w
        point[column] = ladder.point[rung]
        left_w[path] -= share * need_w


def _path(tree: FeederTree, feeder: int) -> list[int]:
    path = []
    while feeder >= 0:
        path.append(feeder)
        feeder = int(tree.parent[feeder])
    return path


def _next_values(ladder: Ladder, watts_w: Floats) -> Floats:
    above = ladder.start_w >= watts_w[ladder.device] - CENT_W
    values = np.full(len(watts_w), np.nan)
    rungs = np.flatnonzero(above)[::-1]
    # Rungs stand best first, so writing them backwards leaves each device's nearest one.
    values[ladder.device[rungs]] = ladder.usd_per_mwh[rungs]
    return values


def _binding(tree: FeederTree, feeder: Ints, item_w: Floats, left_w: Floats) -> tuple[str, ...]:
    """Feeders with less room than the smallest rung that was kept out below them."""
    names: list[str] = []
    for depth in range(int(tree.depth.max()) + 1):
        at = tree.ancestor_at(depth)[feeder]
        needs = {int(one): item_w[at == one].min() for one in np.unique(at[at >= 0])}
        names.extend(tree.names[i] for i, need_w in needs.items() if left_w[i] < need_w - CENT_W)
    return tuple(names)
