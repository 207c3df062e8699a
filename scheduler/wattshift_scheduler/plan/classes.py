"""Devices by kind: those alike are one, and where there are too many kinds, close ones are.

A plan is made of kinds and the control loop acts on devices, so both must name kinds alike: what a
device's kind is follows from the fleet and its site alone, and neither from prices nor from what
runs. Where feeders below the connection can be full, kinds are split by them (`splitting`).
"""

from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints, frozen
from wattshift_scheduler.fixed import down_s as fleet_down_s
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan.binding import NOMINAL_USD_PER_HASH_H, can_be_full
from wattshift_scheduler.plan.limits import MOST_LIMITS
from wattshift_scheduler.plan.points import ROUGH, mean_points
from wattshift_scheduler.plan.splitting import Split, split
from wattshift_scheduler.plan.words import Kind
from wattshift_scheduler.site import Rules, Site
from wattshift_scheduler.values import Values

MOST = 60
"""Kinds of a plan, unless more are asked for: what is solved in a second or two."""

SHARE_OF_KINDS = 0.5
"""Of a plan's kinds that are left to differences of devices where feeders ask for more."""

LEAST_KINDS = 4
"""Kinds that are never put together: with and without gates, with and without points at work."""

NO_FEEDERS = frozen(np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Classes:
    """The kinds of a fleet.

    Attributes:
        fleet, site, most: what they are of; without a site no feeder counts.
        names: of each, unique.
        of: the kind of each device; shape (n,).
        under: names of the limits that all devices of each hang under.
        limits, loose: columns of the feeders that can be full: those with a limit in the plan, the
            most value at stake first, and those for which no kinds were left.
    """

    fleet: Fleet
    most: int
    names: tuple[str, ...]
    of: Ints
    site: Site | None = None
    under: tuple[tuple[str, ...], ...] = ()
    limits: Ints = field(default_factory=lambda: NO_FEEDERS)
    loose: Ints = field(default_factory=lambda: NO_FEEDERS)

    @classmethod
    def among(cls, fleet: Fleet, most: int = MOST, site: Site | None = None) -> "Classes":
        """Put each device into one of at most `most` kinds."""
        full = NO_FEEDERS if site is None else can_be_full(site, fleet)
        if not len(fleet):
            nobody, (few, others) = np.zeros(0, dtype=np.int64), np.split(full, [MOST_LIMITS])
            return cls(fleet, most, (), nobody, site, limits=few, loose=others)
        alike, first = _alike(fleet)
        if site is None or not len(full):
            alike, first = _few(fleet, alike, first, most)
            none = ((),) * len(first)
            return cls(fleet, most, _names(fleet, first, none), alike, site, none)
        found = _split(fleet, site, alike, first, full, most)
        first = _firsts(found.of, len(found.kind))
        names = tuple(tuple(site.tree.names[i] for i in one) for one in found.under)
        return cls(
            fleet, most, _names(fleet, first, names), found.of, site, names,
            found.limits, found.loose,
        )  # fmt: skip


def _few(fleet: Fleet, alike: Ints, first: Ints, most: int) -> tuple[Ints, Ints]:
    """At most `most` kinds, and the first device of each."""
    if len(first) <= most:
        return alike, first
    return _renumbered(_grouped(fleet, alike, first, most)[alike])


def _split(fleet: Fleet, site: Site, alike: Ints, first: Ints, full: Ints, most: int) -> Split:
    """Kinds split by feeders; where not all feeders find room, of kinds put together further."""
    few, _ = _few(fleet, alike, first, most)
    found = split(site.tree, fleet.feeder, few, full, most)
    fewer = max(round(most * SHARE_OF_KINDS), LEAST_KINDS)
    if not len(found.loose) or len(first) <= fewer:
        return found
    few, _ = _few(fleet, alike, first, fewer)
    return split(site.tree, fleet.feeder, few, full, most)


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
    classes: Classes | None = None,
    most_w: Floats | None = None,
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
        classes: the kinds, if they are known already.
        most_w: what each device may draw at the most, W; shape (n,). None: as much as it can.
    """
    classes, rules = classes or Classes.among(fleet, most), rules or Rules()
    count = len(classes.names)
    sizes = np.bincount(classes.of, minlength=count)
    points, cycle_usd = mean_points(fleet, values, classes.of, sizes, most_w)
    top = fleet.first[1:] - 1
    up_s = np.bincount(classes.of, fleet.point_transition_s[top], count) / np.maximum(sizes, 1)
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    up = cycles.awake(ledger, seen, base_w, now_s, rules.stale_after_s)
    running = np.bincount(classes.of, up, count).astype(np.int64)
    since_s, first = _since_s(classes, turns, now_s), _firsts(classes.of, count)
    down_s = np.zeros(count)
    np.maximum.at(down_s, classes.of, fleet_down_s(fleet))
    kinds = tuple(
        Kind(
            name=classes.names[i],
            count=int(sizes[i]),
            points_w=points[i][0],
            usd_per_h=points[i][1],
            fenced=bool(fleet.fenced[first[i]]),
            up_s=float(up_s[i]),
            cycle_usd=float(cycle_usd[i]),
            min_up_s=rules.min_up_s if up_s[i] >= cycles.WARM_S else 0.0,
            min_down_s=rules.min_down_s if up_s[i] >= cycles.WARM_S else 0.0,
            running=int(running[i]),
            since_s=float(since_s[i]),
            down_s=float(down_s[i]),
            under=classes.under[i] if classes.under else (),
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


def _names(fleet: Fleet, first: Ints, under: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Names for people, by each kind's first device and the limits above it; a number tells equal
    ones apart."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for column, above in zip(first.tolist(), under, strict=True):
        device = fleet.devices[column]
        low, high = fleet.first[column], fleet.first[column + 1] - 1
        low_w, top_w = float(fleet.point_limit_w[low]), float(fleet.point_limit_w[high])
        name = f"{device.kind} {low_w:.0f}..{top_w:.0f} W"
        hashes = float(fleet.point_h_per_s[high])
        if hashes > 0.0:
            name += f" {_per_joule(top_w, hashes)}"
        if above:
            name += f" under {' and '.join(above)}"
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return tuple(found)


def _per_joule(watts_w: float, h_per_s: float) -> str:
    """What hashes cost, in the unit that a miner knows for them."""
    for unit, size in (("TH", 1e12), ("GH", 1e9), ("MH", 1e6)):
        if h_per_s >= size:
            return f"{watts_w / h_per_s * size:.1f} J/{unit}"
    return f"{watts_w / h_per_s:.3g} J/H"
