"""Devices by kind: those alike are one, and where there are too many kinds, close ones are.

A plan is made of kinds and the control loop acts on devices, so both must name kinds alike: what a
device's kind is follows from the fleet alone, and neither from prices nor from what runs.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler import cycles
from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan.words import Kind
from wattshift_scheduler.rungs import Cycles, Part
from wattshift_scheduler.site import Rules
from wattshift_scheduler.values import Values

MOST = 60
"""Kinds of a plan, unless more are asked for: what is solved in a second or two."""

NOMINAL_USD_PER_HASH_H = 50.0 / 24.0 / 1e15
"""A hashprice of 50 USD/PH/day: it only puts devices in order, hashes beside an owner's word."""

ROUGH = 1e-9
"""Relative difference of two figures that are one: devices of one model are computed alike."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The kinds of a fleet.

    Attributes:
        fleet, most: what they are of.
        names: of each, unique.
        of: the kind of each device; shape (n,).
    """

    fleet: Fleet
    most: int
    names: tuple[str, ...]
    of: Ints

    @classmethod
    def among(cls, fleet: Fleet, most: int = MOST) -> "Classes":
        """Put each device into one of at most `most` kinds."""
        if not len(fleet):
            return cls(fleet, most, (), np.zeros(0, dtype=np.int64))
        alike, first = _alike(fleet)
        if len(first) > most:
            group = _grouped(fleet, alike, first, most)
            alike, first = _renumbered(group[alike])
        return cls(fleet, most, _names(fleet, first), alike)


def kinds_of(
    fleet: Fleet,
    values: Values,
    ledger: Ledger,
    seen: Telemetry,
    now_s: float,
    most: int = MOST,
    *,
    rules: Rules | None = None,
    turns: cycles.Turns | None = None,
) -> tuple[tuple[Kind, ...], Ints]:
    """The kinds of a fleet for a plan, and the kind of each device; shape (n,).

    Watts and money of a kind are the mean of its devices, so that sums are exact. Devices of a kind
    whose numbers of points differ are read between their own points.

    Args:
        fleet, values, ledger, seen: as the control loop has them.
        now_s: our clock, s.
        most: how many kinds there may be.
        rules: least times up and down, and from when on a reading is stale; None: the usual ones.
        turns: since when devices have been as they are; None: for long.
    """
    classes, rules = Classes.among(fleet, most), rules or Rules()
    count = len(classes.names)
    sizes = np.bincount(classes.of, minlength=count)
    points = np.diff(fleet.first)
    widest = np.zeros(count, dtype=np.int64)
    none = np.zeros(len(fleet), dtype=np.bool_)
    numbers = np.flatnonzero(np.bincount(points)) if len(points) else points
    for number in numbers:
        widest[classes.of[points == number]] = number
    watts_w, usd_per_h = (np.zeros((count, int(widest.max(initial=1)))) for _ in range(2))
    cycle_usd = np.zeros(count)
    for number in numbers:
        devices = np.flatnonzero(points == number)
        part, mine = Part.of(fleet, values, devices), classes.of[devices]
        cost = Cycles.of(fleet, part, none[devices], none[devices], np.inf).cycle_usd
        cycle_usd += np.bincount(mine, cost, count)
        for width in np.flatnonzero(np.bincount(widest[mine])):
            rows = np.flatnonzero(widest[mine] == width)
            spread, of = _between(int(number), int(width)), mine[rows]
            for total, column in ((watts_w, part.watts_w), (usd_per_h, part.usd_per_h)):
                for place in range(int(width)):
                    read = _read(column, rows, spread[:, place])
                    total[:, place] += np.bincount(of, read, count)
    top = fleet.first[1:] - 1
    up_s = np.bincount(classes.of, fleet.point_transition_s[top], count) / np.maximum(sizes, 1)
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    up = cycles.awake(ledger, seen, base_w, now_s, rules.stale_after_s)
    running = np.bincount(classes.of, up, count).astype(np.int64)
    since_s, first = _since_s(classes, turns, now_s), _firsts(classes.of, count)
    kinds = tuple(
        Kind(
            name=classes.names[i],
            count=int(sizes[i]),
            points_w=tuple((watts_w[i, : widest[i]] / sizes[i]).tolist()),
            usd_per_h=tuple((usd_per_h[i, : widest[i]] / sizes[i]).tolist()),
            fenced=bool(fleet.fenced[first[i]]),
            up_s=float(up_s[i]),
            cycle_usd=float(cycle_usd[i] / sizes[i]),
            min_up_s=rules.min_up_s if up_s[i] >= cycles.WARM_S else 0.0,
            min_down_s=rules.min_down_s if up_s[i] >= cycles.WARM_S else 0.0,
            running=int(running[i]),
            since_s=float(since_s[i]),
        )
        for i in range(count)
    )
    return kinds, classes.of


def _since_s(classes: Classes, turns: cycles.Turns | None, now_s: float) -> Floats:
    """For how long most devices of each kind have been as they are, s."""
    found = np.full(len(classes.names), np.inf)
    if turns is not None:
        # A few kinds in 16 bits are sorted by their digits, in one pass.
        few = len(found) <= np.iinfo(np.int16).max
        order = np.argsort(classes.of.astype(np.int16) if few else classes.of, kind="stable")
        ends = np.cumsum(np.bincount(classes.of, minlength=len(found)))
        for i, turned_s in enumerate(np.split(turns.turned_s[order], ends[:-1])):
            found[i] = max(float(np.median(now_s - turned_s)), 0.0)
    return found


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


def _alike(fleet: Fleet) -> tuple[Ints, Ints]:
    """A number for each device, equal where all that a plan asks of two is equal; and the first
    device of each number."""
    table = _figures(fleet)
    # A sum with odd weights tells devices apart but for accidents, which are looked for.
    most = np.maximum(table.max(axis=1), -table.min(axis=1))
    weights = np.sqrt(np.arange(2.0, len(table) + 2.0)) / (most + 1.0)
    alike, first = _renumbered(np.round(weights @ table, 12))
    other = np.flatnonzero(first[alike] != np.arange(len(fleet)))
    one = first[alike[other]]
    for figures in table:
        mine, its = figures.take(other), figures.take(one)
        apart = mine != its
        if apart.any() and (np.abs(mine - its) > ROUGH * np.maximum(np.abs(its), 1.0)).any():
            _, found, alike = np.unique(table, axis=1, return_index=True, return_inverse=True)
            return alike.reshape(-1).astype(np.int64), found.astype(np.int64)
    return alike, first


def _figures(fleet: Fleet) -> Floats:
    """All that a plan asks of devices, a figure a row; -1 where a device has fewer points than
    others; shape (figures, n)."""
    points, n = np.diff(fleet.first), len(fleet)
    wide = int(points.max())
    table = np.full((3 * wide + 6, n), -1.0)
    of_points = (fleet.point_limit_w, fleet.point_h_per_s, fleet.point_usd_per_h)
    for place in range(wide):
        rows = slice(None) if fleet.points_each else np.flatnonzero(points > place)
        at = fleet.first[:-1][rows] + place
        for i, column in enumerate(of_points):
            table[i * wide + place, rows] = column[at]
    table[-6] = points
    table[-5] = fleet.fenced
    table[-4] = fleet.point_transition_s[fleet.first[1:] - 1]
    table[-3] = fleet.wear_usd_per_cycle
    table[-2] = fleet.table_build_s
    table[-1] = fleet.continuous
    return table


def _renumbered(keys: Floats | Ints) -> tuple[Ints, Ints]:
    """Keys as numbers from 0 in their order, and the first device of each."""
    order = np.argsort(keys)
    begins = np.append(True, np.diff(keys[order]) > 0)
    alike = np.empty(len(keys), dtype=np.int64)
    alike[order] = np.cumsum(begins) - 1
    return alike, np.minimum.reduceat(order, np.flatnonzero(begins)).astype(np.int64)


def _firsts(of: Ints, count: int) -> Ints:
    """The first device of each of so many kinds."""
    first = np.zeros(count, dtype=np.int64)
    first[of[::-1]] = np.arange(len(of))[::-1]
    return first


def _grouped(fleet: Fleet, alike: Ints, first: Ints, most: int) -> Ints:
    """Kinds put together until there are at most `most`: only those behind gates with each other,
    only those with points at work with each other, and of those the closest by value per watt."""
    counts = np.bincount(alike, minlength=len(first)).astype(np.float64)
    top, many = fleet.first[first + 1] - 1, np.diff(fleet.first)[first] > 1
    top_w = np.maximum(fleet.point_limit_w[top], 1e-9)
    value = fleet.point_h_per_s[top] * NOMINAL_USD_PER_HASH_H + fleet.point_usd_per_h[top]
    apart = 2 * fleet.fenced[first].astype(np.int64) + many
    group, used = np.zeros(len(first), dtype=np.int64), 0
    sets = np.unique(apart)
    total_w = float((counts * top_w).sum())
    spare = most - len(sets)
    for one in sets:
        mine = np.flatnonzero(apart == one)
        watts_w = (counts * top_w)[mine]
        bins = 1 + int(spare * float(watts_w.sum()) / total_w)
        order = np.argsort(value[mine] / top_w[mine], kind="stable")
        before_w = np.cumsum(watts_w[order]) - watts_w[order] / 2.0
        share = before_w / max(float(watts_w.sum()), 1e-9)
        group[mine[order]] = used + np.minimum((share * bins).astype(np.int64), bins - 1)
        used += bins
    return group


def _names(fleet: Fleet, first: Ints) -> tuple[str, ...]:
    """Names for people, by each kind's first device; a number tells equal ones apart."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for column in first.tolist():
        device = fleet.devices[column]
        low, high = fleet.first[column], fleet.first[column + 1] - 1
        low_w, top_w = float(fleet.point_limit_w[low]), float(fleet.point_limit_w[high])
        name = f"{device.kind} {low_w:.0f}..{top_w:.0f} W"
        hashes = float(fleet.point_h_per_s[high])
        if hashes > 0.0:
            name += f" {_per_joule(top_w, hashes)}"
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return tuple(found)


def _per_joule(watts_w: float, h_per_s: float) -> str:
    """What hashes cost, in the unit that a miner knows for them."""
    for unit, size in (("TH", 1e12), ("GH", 1e9), ("MH", 1e6)):
        if h_per_s >= size:
            return f"{watts_w / h_per_s * size:.1f} J/{unit}"
    return f"{watts_w / h_per_s:.3g} J/H"
