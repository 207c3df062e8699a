"""A fleet in which some devices have come, gone or changed, made of the one before.

Devices come by the hundred, an agent's at once, and a fleet may have a hundred thousand: to read
every device anew takes seconds, to splice the columns hundredths of one. The result is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import Column, Ints, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.site import Device, FeederTree

OF_DEVICES = (
    *("feeder", "nameplate_w", "tolerance", "fenced", "continuous", "safe_w", "ids"),
    *("wear_usd_per_cycle", "table_bytes", "table_build_s", "rests_apart"),
)
"""Columns of devices, but for those that count names."""

OF_POINTS = (
    *("point_w", "point_limit_w", "point_h_per_s", "point_usd_per_h", "point_transition_s"),
    "modes",
)
"""Columns of points, but for those that follow from the devices'."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the devices of a fleet of `n` stood in the one before.

    Attributes:
        to, source: columns of devices that were there before, rising, and those that they had then;
            shape (kept,) each.
        other: columns of those of them that have other points now.
    """

    to: Ints
    source: Ints
    other: Ints

    @classmethod
    def of(cls, old: Fleet, new: Fleet) -> "Moved":
        """Look each device up by its id."""
        source = old.columns_of(device.id for device in new.devices)
        to = np.flatnonzero(source >= 0)
        pairs = zip(to.tolist(), source[to].tolist(), strict=True)
        other = [a for a, b in pairs if new.devices[a].points != old.devices[b].points]
        return cls(to, source[to], np.array(other, dtype=np.int64))

    def realigned(self, fresh: Column, known: Column) -> None:
        """Write what is known of kept devices into a column of the fleet."""
        fresh[self.to] = known.take(self.source)


def joined(
    old: Fleet, offered: Mapping[str, Device], tree: FeederTree
) -> tuple[Fleet, Moved, tuple[Device, ...]]:
    """A fleet with devices that are new, or known and have changed.

    Args:
        old: the fleet before.
        offered: devices by id.
        tree: the feeder tree.

    Returns:
        The fleet, `old` itself where nothing has changed; where its devices stood before; and the
        new devices.

    Raises:
        SiteInvalid: for a feeder that does not exist.
    """
    columns = old.columns_of(tuple(offered))
    devices, n = tuple(offered.values()), len(old)
    different = [
        c < 0 or old.devices[c] != d for c, d in zip(columns.tolist(), devices, strict=True)
    ]
    given = [device for device, other in zip(devices, different, strict=True) if other]
    columns = columns[np.array(different, dtype=np.bool_)]
    rows = np.arange(n)
    fresh = columns < 0
    if not given:
        return old, Moved(rows, rows, rows[:0]), ()
    part, at = Fleet.of(given, tree), n + np.arange(len(given))
    pick = np.concatenate((rows, at[fresh]))
    pick[columns[~fresh]] = at[~fresh]
    changed = np.flatnonzero(~fresh)
    other = [
        c
        for i, c in zip(changed.tolist(), columns[changed].tolist(), strict=True)
        if given[i].points != old.devices[c].points
    ]
    moved = Moved(rows, rows, np.array(sorted(other), dtype=np.int64))
    news = tuple(given[i] for i in np.flatnonzero(fresh).tolist())
    return _spliced(old, part, pick), moved, news


def left(old: Fleet, gone: Ints, tree: FeederTree) -> tuple[Fleet, Moved]:
    """A fleet without the devices of some columns, and where the others stood before."""
    stays = np.ones(len(old), dtype=np.bool_)
    stays[gone] = False
    kept = np.flatnonzero(stays)
    moved = Moved(np.arange(len(kept)), kept, kept[:0])
    return _spliced(old, Fleet.of((), tree), kept), moved


def _spliced(old: Fleet, part: Fleet, pick: Ints) -> Fleet:
    """A fleet of devices of two, which have columns as if the second followed the first."""
    rows = _Runs.of(pick, len(old))
    counts = rows.of_columns(np.diff(old.first), np.diff(part.first))
    points = rows.of_points(old, part)
    made: dict[str, Any] = {
        name: frozen(rows.of_columns(getattr(old, name), getattr(part, name)))
        for name in OF_DEVICES
    }
    made |= {
        name: frozen(points.of_columns(getattr(old, name), getattr(part, name)))
        for name in OF_POINTS
    }
    for names, number in (("agents", "agent"), ("hosts", "host")):
        made[names], made[number] = _named(old, part, names, number, rows)
    n = len(pick)
    return Fleet(
        devices=rows.of_tuples(old.devices, part.devices),
        index=MappingProxyType(dict(zip(made["ids"].tolist(), range(n), strict=True))),
        first=frozen(np.concatenate(([0], np.cumsum(counts))).astype(np.int64)),
        point_device=frozen(np.repeat(np.arange(n), counts)),
        point_feeder=frozen(np.repeat(made["feeder"], counts)),
        worded=bool(made["point_usd_per_h"].any()),
        points_each=int(counts[0]) if n and (counts == counts[0]).all() else 0,
        **made,
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Rows of two tables, the second counted on from the first, in runs that follow each other.

    Attributes:
        runs: whether each is of the second table, where it begins there and where it ends.
    """

    runs: Sequence[tuple[bool, int, int]]

    @classmethod
    def of(cls, pick: Ints, first: int) -> "_Runs":
        """The runs of picked rows; `first` is how many rows the first table has."""
        breaks = np.flatnonzero((np.diff(pick) != 1) | (pick[1:] == first)) + 1
        ends = [0, *breaks.tolist(), len(pick)] if len(pick) else []
        runs = [(int(pick[a]), int(pick[b - 1]) + 1) for a, b in pairwise(ends)]
        return cls(
            [(a >= first, a - first * (a >= first), b - first * (a >= first)) for a, b in runs]
        )

    def of_columns(self, old: Column, part: Column) -> npt.NDArray[Any]:
        """Those rows of a column."""
        if not self.runs:
            return old[:0].copy()
        return np.concatenate([(part if new else old)[a:b] for new, a, b in self.runs])

    def of_tuples(self, old: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[Any, ...]:
        """Those of a tuple."""
        found: list[Any] = []
        for new, a, b in self.runs:
            found.extend((part if new else old)[a:b])
        return tuple(found)

    def of_points(self, old: Fleet, part: Fleet) -> "_Runs":
        """The points of these devices."""
        return _Runs(
            [
                (new, int(one.first[a]), int(one.first[b]))
                for new, a, b in self.runs
                for one in ((part if new else old),)
            ]
        )


def _named(
    old: Fleet, part: Fleet, names: str, number: str, rows: _Runs
) -> tuple[tuple[str, ...], Ints]:
    """The distinct names of agents or hosts, sorted, and where each row's stands among them."""
    every = tuple(sorted({*getattr(old, names), *getattr(part, names)}))
    at = {name: i for i, name in enumerate(every)}

    def numbered(fleet: Fleet) -> Ints:
        # The last entry is what a device without one finds at index -1.
        place = np.array([*(at[name] for name in getattr(fleet, names)), -1], dtype=np.int64)
        numbers: Ints = place[getattr(fleet, number)]
        return numbers

    column = rows.of_columns(numbered(old), numbered(part))
    used = np.bincount(column[column >= 0], minlength=len(every)) > 0
    if not used.all():
        every = tuple(name for name, some in zip(every, used.tolist(), strict=True) if some)
        column = np.append(np.cumsum(used) - 1, -1)[column]
    return every, frozen(column)
