"""Points of kinds, from those of their devices; and of devices that may not draw all they could."""

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.rungs import Cycles, Part
from wattshift_scheduler.values import Values

Points = tuple[tuple[float, ...], tuple[float, ...]]
"""Watts, W, and what is earned at them before energy, USD/h."""

ROUGH = 1e-9
"""Relative difference of two figures that are one: devices of one model are computed alike."""


def mean_points(
    fleet: Fleet, values: Values, of: Ints, sizes: Ints, most_w: Floats | None
) -> tuple[list[Points], Floats]:
    """The points of each kind, and what a cycle costs one of it, USD: means of its devices.

    Args:
        fleet, values: what they are and earn.
        of: the kind of each device; shape (n,).
        sizes: how many devices each kind has.
        most_w: what each device may draw at the most, W; shape (n,). None: as much as it can.
    """
    count, points = len(sizes), np.diff(fleet.first)
    widest, many = np.zeros(count, dtype=np.int64), np.maximum(sizes, 1)
    none = np.zeros(len(fleet), dtype=np.bool_)
    numbers = np.flatnonzero(np.bincount(points)) if len(points) else points
    for number in numbers:
        widest[of[points == number]] = number
    watts_w, usd_per_h = (np.zeros((count, int(widest.max(initial=1)))) for _ in range(2))
    cycle_usd = np.zeros(count)
    for number in numbers:
        devices = np.flatnonzero(points == number)
        part, mine = Part.of(fleet, values, devices), of[devices]
        cost = Cycles.of(fleet, part, none[devices], none[devices], np.inf).cycle_usd
        cycle_usd += np.bincount(mine, cost, count)
        drawn_w, earned = part.watts_w, part.usd_per_h
        if most_w is not None:
            drawn_w, earned = cut(drawn_w, earned, most_w[devices])
        for width in np.flatnonzero(np.bincount(widest[mine])):
            rows = np.flatnonzero(widest[mine] == width)
            spread = _between(int(number), int(width))
            for total, column in ((watts_w, drawn_w), (usd_per_h, earned)):
                for place in range(int(width)):
                    read = _read(column, rows, spread[:, place])
                    total[:, place] += np.bincount(mine[rows], read, count)
    means = (column / many[:, None] for column in (watts_w, usd_per_h))
    return [rising(*one) for one in zip(*means, widest, strict=True)], cycle_usd / many


def cut(watts_w: Floats, usd_per_h: Floats, most_w: Floats) -> tuple[Floats, Floats]:
    """Points of devices that may not draw more than so much; shape (m, c) each.

    A point above it becomes what lies there between the points next to it: below the first point at
    work that is a device which works for a part of the time.
    """
    if watts_w.shape[1] < 2:
        return watts_w, usd_per_h
    end_w = np.minimum(watts_w[:, -1], most_w)[:, None]
    high = np.clip((watts_w < end_w).sum(axis=1), 1, watts_w.shape[1] - 1)[:, None]
    (low_w, high_w), (low_usd, high_usd) = (
        (np.take_along_axis(column, high - 1, axis=1), np.take_along_axis(column, high, axis=1))
        for column in (watts_w, usd_per_h)
    )
    end_usd = low_usd + (end_w - low_w) / (high_w - low_w) * (high_usd - low_usd)
    above = watts_w > end_w
    return np.where(above, end_w, watts_w), np.where(above, end_usd, usd_per_h)


def rising(watts_w: Floats, usd_per_h: Floats, width: int) -> Points:
    """The points of a kind without those that no device draws more at than at the one before."""
    rises = np.diff(watts_w[:width]) > ROUGH * np.maximum(watts_w[1:width], 1.0)
    at = np.flatnonzero(np.append(True, rises))
    return tuple(watts_w[at].tolist()), tuple(usd_per_h[at].tolist())


def _between(number: int, width: int) -> Floats:
    """How to read `width` points off `number`: the first is the first, those at work are spread
    evenly over the others; shape (number, width)."""
    spread = np.zeros((number, width))
    spread[0, 0] = 1.0
    if number == 1 or width == 1:
        return spread
    at = np.linspace(1.0, number - 1.0, width - 1) if width > 2 else np.array([number - 1.0])
    low = np.minimum(at.astype(np.int64), number - 1)
    share = at - low
    columns = np.arange(1, width)
    spread[low, columns] += 1.0 - share
    spread[np.minimum(low + 1, number - 1), columns] += share
    return spread


def _read(column: Floats, rows: Ints, shares: Floats) -> Floats:
    """Some rows read at a place between their points: mostly one or two have a share in it."""
    read = np.zeros(len(rows))
    for point in np.flatnonzero(shares):
        read += column[rows, point] * shares[point]
    return read
