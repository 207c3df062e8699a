"""The power tree of a site: feeders with their limits, each hanging on one other or on two.

What hangs on a feeder with a second parent is fed from two sides. Either side must be able to carry
all of it alone, for the day on which the other is lost, so its load counts in full on both ways to
the root. With one parent each the limits are nested (a laminar family), and filling them from the
leaves up is optimal; with second parents the same walk stays safe and may leave watts unused.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints, frozen
from wattshift_scheduler.errors import SiteInvalid


def feeder_limit_w(
    amps: float, phases: int, min_voltage_v: float, power_factor: float = 0.95
) -> float:
    """Convert a breaker's amps per phase to the watts that are safe at the lowest voltage.

    Args:
        amps: rated current per phase, A.
        phases: 1, 2 or 3.
        min_voltage_v: lowest phase-to-neutral voltage that the site may see, V.
        power_factor: lowest power factor of the load, 0 to 1.
    """
    sane = amps > 0 and min_voltage_v > 0 and math.isfinite(amps * min_voltage_v)
    if not sane or phases not in (1, 2, 3) or not 0 < power_factor <= 1:
        raise SiteInvalid("feeder", "amps, phases (1 to 3), voltage and power factor must be > 0")
    return amps * phases * min_voltage_v * power_factor


@dataclass(frozen=True, slots=True)
class Feeder:
    """One limit in the power tree. The root has no parent and stands for the site's connection.

    Attributes:
        name: unique in the site.
        parent: the feeder that it hangs on; None for the root.
        limit_w: what it may carry, W.
        second_parent: the other feeder of one that is fed from two sides; None: one side.
        margin_share: part of its limit that is kept free; None: as the site's rules say.
    """

    name: str
    parent: str | None
    limit_w: float
    second_parent: str | None = None
    margin_share: float | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """The feeders that it hangs on: none, one or two."""
        return tuple(name for name in (self.parent, self.second_parent) if name is not None)


@dataclass(frozen=True, slots=True)
class FeederTree:
    """Feeders as columns, those above before those below. Index 0 is the root.

    Attributes:
        names: feeder names in column order.
        parent, second: index of each parent, -1 where there is none; shape (feeders,).
        limit_w: limit of each feeder, W; shape (feeders,).
        margin_share: part of it that is kept free, NaN: the site's; shape (feeders,).
        depth: feeders on the longest way up to the root; shape (feeders,).
        index: name to column.
        ancestors: each row holds some of the feeders above each feeder (itself among them), -1
            where it holds none; shape (rows, feeders). A feeder stands in one row only, the root in
            the first, and from the last row to the first each comes after all that lie below it.
        below, above: the same as pairs of a feeder and one that carries it; shape (pairs,).
        shared: whether something below it can be fed past it, so that a meter there may not see all
            that is counted there; shape (feeders,).
    """

    names: tuple[str, ...]
    parent: Ints
    second: Ints
    limit_w: Floats
    margin_share: Floats
    depth: Ints
    index: Mapping[str, int]
    ancestors: Ints
    below: Ints
    above: Ints
    shared: Bools

    @classmethod
    def of(cls, feeders: Iterable[Feeder]) -> "FeederTree":
        """Build the tree.

        Raises:
            SiteInvalid: naming the feeder: a loop, a duplicate, an unknown parent, a second parent
                that is no second way, a bad limit or margin; or no root, or more than one.
        """
        by_name: dict[str, Feeder] = {}
        for feeder in feeders:
            if feeder.name in by_name:
                raise SiteInvalid(feeder.name, "this feeder is named twice")
            _check_alone(feeder)
            by_name[feeder.name] = feeder
        roots = [f.name for f in by_name.values() if f.parent is None]
        if len(roots) != 1:
            raise SiteInvalid("feeders", f"exactly one root is needed, found {roots or 'none'}")
        for feeder in by_name.values():
            for parent in feeder.parents:
                if parent not in by_name:
                    raise SiteInvalid(feeder.name, f"its parent {parent!r} does not exist")
        depth = _depths(by_name)
        order = _above_first(by_name, depth)
        index = {name: i for i, name in enumerate(order)}
        rows = [by_name[name] for name in order]
        first = [-1 if f.parent is None else index[f.parent] for f in rows]
        second = [-1 if f.second_parent is None else index[f.second_parent] for f in rows]
        depths = np.array([depth[name] for name in order], dtype=np.int64)
        carriers = _carriers(rows, first, second)
        ancestors = _ancestors(carriers, depths)
        row, below = np.nonzero(ancestors >= 0)
        return cls(
            names=tuple(order),
            parent=frozen(np.array(first, dtype=np.int64)),
            second=frozen(np.array(second, dtype=np.int64)),
            limit_w=frozen(np.array([f.limit_w for f in rows], dtype=np.float64)),
            margin_share=frozen(np.array([_or_nan(f.margin_share) for f in rows])),
            depth=frozen(depths),
            index=MappingProxyType(index),
            ancestors=frozen(ancestors),
            below=frozen(below),
            above=frozen(ancestors[row, below]),
            shared=frozen(_shared(carriers, first, second)),
        )

    def path(self, feeder: int) -> tuple[int, ...]:
        """The feeders that carry what hangs on this one: the root first, itself last."""
        return tuple(int(at) for at in self.ancestors[:, feeder] if at >= 0)

    def usable_w(self, margin_share: float, least_share: float = 0.0) -> Floats:
        """What each feeder may carry after its margin, W; shape (feeders,).

        Args:
            margin_share: the site's margin, for feeders that have none of their own.
            least_share: below which no margin counts, not even a feeder's own.
        """
        return self.limit_w * (1.0 - self.shares(margin_share, least_share))

    def shares(self, margin_share: float, least_share: float = 0.0) -> Floats:
        """The part of each limit that is kept free; shape (feeders,). Args: as `usable_w`."""
        own = np.where(np.isnan(self.margin_share), margin_share, self.margin_share)
        return np.maximum(own, least_share)

    def any_above(self, marked: Bools) -> Bools:
        """For each feeder whether it or one of those that carry it is marked. Shape (feeders,)."""
        found: Bools = np.bincount(self.below, marked[self.above], len(self.names)) > 0
        return found

    def totals(self, load_w: Floats) -> Floats:
        """Sum per-feeder loads up the tree, in full on both sides of what has two. Shape
        (feeders,) in and out, W."""
        load = np.asarray(load_w, dtype=np.float64)
        if not load.any():
            return np.zeros(len(self.names))
        return np.bincount(self.above, load.take(self.below), len(self.names)).astype(np.float64)


def _check_alone(feeder: Feeder) -> None:
    if not (math.isfinite(feeder.limit_w) and feeder.limit_w > 0):
        raise SiteInvalid(feeder.name, f"its limit must be > 0 W, not {feeder.limit_w}")
    if feeder.margin_share is not None and not 0 <= feeder.margin_share < 1:
        raise SiteInvalid(feeder.name, f"its margin is not in 0 to 1: {feeder.margin_share}")
    if feeder.second_parent is not None:
        if feeder.parent is None:
            raise SiteInvalid(feeder.name, "it has a second parent and no first")
        if feeder.parent == feeder.second_parent:
            raise SiteInvalid(feeder.name, f"both its parents are {feeder.parent!r}")


def _or_nan(share: float | None) -> float:
    return math.nan if share is None else share


def _depths(by_name: Mapping[str, Feeder]) -> dict[str, int]:
    """Feeders on the longest way from each to the root. Raises SiteInvalid on a loop."""
    depth: dict[str, int] = {}
    waits = {f.name: len(f.parents) for f in by_name.values()}
    children: dict[str, list[str]] = {}
    for feeder in by_name.values():
        for parent in feeder.parents:
            children.setdefault(parent, []).append(feeder.name)
    ready = [name for name, count in waits.items() if count == 0]
    for name in ready:
        depth[name] = max((depth[p] + 1 for p in by_name[name].parents), default=0)
        for child in children.get(name, ()):
            waits[child] -= 1
            if waits[child] == 0:
                ready.append(child)
    if len(depth) < len(by_name):
        loop = _loop(by_name, {name for name in by_name if name not in depth})
        raise SiteInvalid(loop[0], f"it hangs in a loop: {' > '.join((*loop, loop[0]))}")
    return depth


def _loop(by_name: Mapping[str, Feeder], unplaced: set[str]) -> list[str]:
    """One loop among feeders of which each has an unplaced parent, from its first name on."""
    way = [min(unplaced)]
    while True:
        nearest = next(name for name in by_name[way[-1]].parents if name in unplaced)
        if nearest in way:
            loop = way[way.index(nearest) :]
            at = loop.index(min(loop))
            return loop[at:] + loop[:at]
        way.append(nearest)


def _above_first(by_name: Mapping[str, Feeder], depth: Mapping[str, int]) -> list[str]:
    """Names by depth, then in the order of their parents, then by name."""
    levels: dict[int, list[str]] = {}
    for name, at in depth.items():
        levels.setdefault(at, []).append(name)
    place: dict[str, int] = {}
    for at in sorted(levels):
        for name in sorted(levels[at], key=lambda n: (place.get(by_name[n].parent or "", -1), n)):
            place[name] = len(place)
    return list(place)


def _carriers(feeders: list[Feeder], first: list[int], second: list[int]) -> list[tuple[int, ...]]:
    """All feeders that carry each, itself last. Raises SiteInvalid: two parents are one way."""
    found: list[tuple[int, ...]] = []
    for i, feeder in enumerate(feeders):
        a, b = first[i], second[i]
        carried = found[a] if a >= 0 else ()
        if b >= 0:
            if b in found[a] or a in found[b]:
                names = f"{feeder.parent!r} and {feeder.second_parent!r}"
                raise SiteInvalid(feeder.name, f"its parents {names} lie on one path")
            carried = tuple(sorted({*found[a], *found[b]}))
        found.append((*carried, i))
    return found


def _shared(carriers: list[tuple[int, ...]], first: list[int], second: list[int]) -> Bools:
    """Feeders that carry one side only of something with two."""
    shared = np.zeros(len(carriers), dtype=np.bool_)
    for a, b in zip(first, second, strict=True):
        if b >= 0:
            shared[list(set(carriers[a]) ^ set(carriers[b]))] = True
    return shared


def _ancestors(carriers: list[tuple[int, ...]], depth: Ints) -> Ints:
    """The rows of `FeederTree.ancestors`."""
    apart: dict[int, set[int]] = {}
    for above in carriers:
        _note_apart(above, depth, apart)
    row_of = _rows(depth, apart)
    ancestors = np.full((max(row_of) + 1, len(carriers)), -1, dtype=np.int64)
    for i, above in enumerate(carriers):
        for at in above:
            ancestors[row_of[at], i] = at
    return ancestors


def _note_apart(carriers: tuple[int, ...], depth: Ints, apart: dict[int, set[int]]) -> None:
    """Feeders of one depth that carry the same one must stand in different rows."""
    if len(carriers) == depth[carriers[-1]] + 1:
        return
    for at in carriers:
        others = {one for one in carriers if one != at and depth[one] == depth[at]}
        if others:
            apart.setdefault(at, set()).update(others)


def _rows(depth: Ints, apart: Mapping[int, set[int]]) -> list[int]:
    """The row of each feeder: as few for each depth as the first that is free comes to."""
    slot: list[int] = []
    for i in range(len(depth)):
        taken = {slot[one] for one in apart.get(i, ()) if one < i}
        slot.append(next(n for n in range(len(taken) + 1) if n not in taken))
    slots = np.array(slot, dtype=np.int64)
    wide = np.zeros(int(depth.max()) + 1, dtype=np.int64)
    np.maximum.at(wide, depth, slots + 1)
    begin = np.concatenate(([0], np.cumsum(wide)[:-1]))
    return [int(row) for row in begin[depth] + slots]
