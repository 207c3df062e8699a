"""Walk up the ladder under the feeder tree: which device runs at which point.

Taking rungs in order of value, and cutting the least valuable where a feeder is full, from the
leaves up, is optimal for continuous watts: the objective is separable and concave and the limits
are nested (a laminar family, hence a polymatroid; Federgruen and Groenevelt 1986). Whole rungs lose
at most one rung per binding feeder; what such a rung leaves free goes to the next rungs that fit,
at that feeder, and a last pass gives away what a cut higher up has freed below it.
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
        next_usd_per_mwh: gross value of the rung above, NaN at the top of a device; shape (n,).
        marginal_usd_per_mwh: gross value of the least valuable rung taken, NaN if none was.
        binding: feeders that kept a rung, or a part of one, out.
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
    take: Bools | None = None,
) -> Allocation:
    """Choose the most valuable set of rungs that fits every feeder.

    Args:
        fleet, ladder, tree: what exists and in which order its watts are worth taking.
        room_w: watts that each feeder can still give to rungs below it, W; shape (feeders,).
        eligible: devices that may leave their lowest point; shape (n,).
        credit_w: watts of each device that are counted already, because it overlaps compute on its
            host through a gate; shape (n,).
        price_usd_per_mwh: energy price; rungs worth less stay untaken.
        take: devices that are to run at that price, the cost of a cycle counted; shape (n,). None:
            those whose first rung ranks above it.
    """
    rungs = _wanted(ladder, eligible, price_usd_per_mwh, take)
    device, feeder = ladder.device[rungs], fleet.feeder[ladder.device[rungs]]
    counted_w = beyond(credit_w[device], ladder.end_w[rungs]) - beyond(
        credit_w[device], ladder.start_w[rungs]
    )
    given_w = fill(tree, feeder, device, counted_w, room_w, fleet.continuous[device])
    left_w = room_w - tree.totals(summed(feeder, given_w, len(tree.names)))
    _top_up(tree, feeder, device, counted_w, given_w, left_w, fleet.continuous[device])

    point = np.zeros(len(fleet), dtype=np.int64)
    watts_w = ladder.base_w.copy()
    reached_w = _reached(fleet, ladder, rungs, counted_w, given_w, credit_w)
    on = reached_w > ladder.start_w[rungs] + CENT_W
    np.maximum.at(point, device[on], ladder.point[rungs[on]])
    np.maximum.at(watts_w, device[on], reached_w[on])
    short = np.flatnonzero(given_w < counted_w - CENT_W)
    # Of each device the next rung alone: those above it wait for it, not for a feeder.
    kept_out = short[np.unique(device[short], return_index=True)[1]]
    taken = watts_w[device] > ladder.start_w[rungs] + CENT_W
    values = ladder.gross_usd_per_mwh[rungs]
    return Allocation(
        point=point,
        watts_w=watts_w,
        next_usd_per_mwh=_next_values(ladder, watts_w),
        marginal_usd_per_mwh=float(values[taken].min()) if taken.any() else float("nan"),
        binding=_binding(tree, feeder[kept_out], (counted_w - given_w)[kept_out], left_w),
    )


def _wanted(ladder: Ladder, eligible: Bools, price_usd_per_mwh: float, take: Bools | None) -> Ints:
    """Rungs that are worth their energy, best first, and the first one of whatever is to run."""
    if take is None:
        cut = ladder.worth_taking(price_usd_per_mwh)
        return np.flatnonzero(eligible[ladder.device[:cut]])
    worth = ladder.first | (ladder.gross_usd_per_mwh > price_usd_per_mwh)
    return np.flatnonzero(worth & (eligible & take)[ladder.device])


def fit_prefix(tree: FeederTree, feeder: Ints, item_w: Floats, room_w: Floats) -> Bools:
    """Of items in order of preference keep, at every feeder, the longest prefix that fits.

    Args:
        tree: the feeder tree.
        feeder: feeder that each item hangs on; shape (items,).
        item_w: watts of each item, W; shape (items,).
        room_w: watts that each feeder can give to the items below it, W; shape (feeders,).
    """
    keep = np.ones(len(feeder), dtype=np.bool_)
    for depth in range(len(tree.ancestors) - 1, -1, -1):
        at = tree.ancestors[depth][feeder]
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


def fill(
    tree: FeederTree, feeder: Ints, device: Ints, item_w: Floats, room_w: Floats, divisible: Bools
) -> Floats:
    """Give watts to items in order of preference, feeder by feeder from the leaves up.

    At every full feeder the longest prefix that fits is kept, then what is left goes to the next
    items that fit; a divisible one takes the rest. Truncating from the leaves up is what makes the
    divisible case optimal: a feeder passes up its own best watts only.

    Args:
        tree: the feeder tree.
        feeder, device: where each item hangs and whose it is; a device's items stand in the order
            in which they must be taken; shape (items,).
        item_w: watts of each item, W; shape (items,).
        room_w: watts that each feeder can give to the items below it, not negative, W.
        divisible: items of which any part may be taken; shape (items,).

    Returns:
        Watts given to each item, W; shape (items,).
    """
    given_w = item_w.copy()
    for depth in range(len(tree.ancestors) - 1, -1, -1):
        at = tree.ancestors[depth][feeder]
        inside = at >= 0
        total_w = summed(at[inside], given_w[inside], len(tree.names))
        full = np.flatnonzero(total_w > room_w + CENT_W)
        if not len(full):
            continue
        order = np.argsort(at, kind="stable")
        begin = np.searchsorted(at[order], full, side="left")
        end = np.searchsorted(at[order], full, side="right")
        for one, lo, hi in zip(full, begin, end, strict=True):
            rows = order[lo:hi]
            given_w[rows] = _filled(
                given_w[rows], item_w[rows], device[rows], divisible[rows], float(room_w[one])
            )
    return given_w


def _filled(
    want_w: Floats, item_w: Floats, device: Ints, divisible: Bools, room_w: float
) -> Floats:
    """One feeder's share of `fill`: `want_w` is what its children have let through."""
    total_w = np.cumsum(want_w)
    cut = int(np.searchsorted(total_w, room_w + CENT_W, side="right"))
    left_w = room_w - (float(total_w[cut - 1]) if cut else 0.0)
    given_w = want_w.copy()
    given_w[cut:] = 0.0
    # A device whose item was cut short, here or below, must not get its next one.
    short = set(device[:cut][want_w[:cut] < item_w[:cut] - CENT_W].tolist())
    for i in range(cut, min(cut + REPAIR_TRIES, len(want_w))):
        if left_w <= CENT_W:
            break
        if device[i] in short or want_w[i] <= 0.0:
            continue
        if want_w[i] <= left_w + CENT_W:
            given_w[i] = want_w[i]
        elif divisible[i]:
            given_w[i] = left_w
        left_w -= float(given_w[i])
        if given_w[i] < item_w[i] - CENT_W:
            short.add(int(device[i]))
    return given_w


def _top_up(
    tree: FeederTree,
    feeder: Ints,
    device: Ints,
    item_w: Floats,
    given_w: Floats,
    left_w: Floats,
    divisible: Bools,
) -> None:
    """Give what a cut higher up has freed below it, best item first; changes given_w and left_w."""
    short: set[int] = set()
    open_items = np.flatnonzero(given_w < item_w - CENT_W)
    for i in open_items[:REPAIR_TRIES]:
        path = _path(tree, int(feeder[i]))
        spare_w = float(min(left_w[path]))
        need_w = float(item_w[i] - given_w[i])
        more_w = 0.0
        if int(device[i]) not in short and spare_w > CENT_W:
            whole = need_w <= spare_w + CENT_W
            more_w = need_w if whole else (spare_w if divisible[i] else 0.0)
        given_w[i] += more_w
        left_w[path] -= more_w
        if more_w < need_w - CENT_W:
            short.add(int(device[i]))


def _reached(
    fleet: Fleet,
    ladder: Ladder,
    rungs: Ints,
    counted_w: Floats,
    given_w: Floats,
    credit_w: Floats,
) -> Floats:
    """Lease watts that each rung reaches with the watts given to it; shape (rungs,).

    Where compute counts a part of a rung already, that part comes first and costs nothing.
    """
    start_w, end_w = ladder.start_w[rungs], ladder.end_w[rungs]
    whole = given_w >= counted_w - CENT_W
    free_w = np.clip(credit_w[ladder.device[rungs]], start_w, end_w)
    part_w = np.where(fleet.continuous[ladder.device[rungs]], free_w + given_w, start_w)
    return np.where(whole, end_w, np.minimum(part_w, end_w))


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
    values[ladder.device[rungs]] = ladder.gross_usd_per_mwh[rungs]
    return values


def _binding(tree: FeederTree, feeder: Ints, item_w: Floats, left_w: Floats) -> tuple[str, ...]:
    """Feeders with less room than the least that a device below them still wants."""
    names: list[str] = []
    for depth in range(len(tree.ancestors)):
        at = tree.ancestors[depth][feeder]
        inside = at >= 0
        need_w = np.full(len(tree.names), np.inf)
        np.minimum.at(need_w, at[inside], item_w[inside])
        tight = np.isfinite(need_w) & (left_w < need_w - CENT_W)
        names.extend(tree.names[i] for i in np.flatnonzero(tight))
    return tuple(names)
