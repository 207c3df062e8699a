"""Devices of one make: alike in all that their rungs rank by, whatever values and horizon are.

A site mostly holds a few models. Where it does, one device of each make is ranked and the rest are
told (`graded`). Nothing of this is said by anybody: devices are alike if their figures are, bit for
bit, so that one answer holds for all of them.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import Bools, Ints, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import spread

LEAST_EACH = 32
"""Devices of a make, on average, from which on one of each is ranked. At half as many, to rank
those and to tell the rest takes as long as to rank all."""

Words = npt.NDArray[np.uint64]

MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)
"""Odd numbers that spread bits well (of SplitMix64; Steele, Lea and Flood 2014)."""

RANKED_BY = ("point_limit_w", "point_h_per_s", "point_usd_per_h", "point_transition_s")
"""Columns of points that ranks come from."""

RANKED_BY_TOO = ("fenced", "wear_usd_per_cycle", "table_build_s")
"""And those of devices."""

OF_DEVICES = (
    *("feeder", "nameplate_w", "tolerance", "fenced", "continuous", "safe_w", "agent", "host"),
    *("ids", "wear_usd_per_cycle", "table_bytes", "table_build_s", "rests_apart"),
)
OF_POINTS = (*RANKED_BY, "point_w", "modes")


@dataclass(frozen=True, slots=True)
class Makes:
    """The makes of a fleet. `n` devices, `k` makes.

    Attributes:
        of: the make of each device; shape (n,).
        count: k.
        fleet: one device of each make resting, then one of each running and, if any has a table to
            build, one of each that has to build it first; `ways` times k devices.
        ways: 2 or 3.
    """

    of: Ints
    count: int
    fleet: Fleet
    ways: int

    def rows(self, awake: Bools, cold: Bools, devices: slice | Ints) -> Ints:
        """Which of the makes' devices stands for each of some devices; shape (m,).

        Args:
            awake: devices that run; shape (n,).
            cold: others that have a table to build; shape (n,).
            devices: columns.
        """
        way = awake[devices].astype(np.int64)
        if self.ways > 2:
            way += 2 * cold[devices]
        way *= self.count
        way += self.of[devices]
        return way

    @property
    def awake(self) -> Bools:
        """Which of the makes' devices stand for such as run."""
        found: Bools = np.arange(self.ways * self.count) // self.count == 1
        return found

    @property
    def cold(self) -> Bools:
        """And which for such as have a table to build."""
        found: Bools = np.arange(self.ways * self.count) // self.count == 2
        return found


def makes_of(fleet: Fleet) -> Makes | None:
    """The makes of a fleet; None where there are too many to be worth it."""
    n = len(fleet)
    if n < LEAST_EACH:
        return None
    hashes = _hashes(fleet)
    distinct = np.sort(hashes)
    distinct = distinct[np.append(True, distinct[1:] != distinct[:-1])]
    if len(distinct) * LEAST_EACH > n:
        return None
    of, one = np.searchsorted(distinct, hashes), np.empty(len(distinct), dtype=np.int64)
    # Of each make the first, as that is written last.
    one[of[::-1]] = np.arange(n)[::-1]
    if not _alike(fleet, one[of]):
        return None
    ways = 3 if fleet.table_build_s.any() else 2
    return Makes(frozen(of), len(one), _picked(fleet, np.tile(one, ways)), ways)


def _words(column: npt.NDArray[Any]) -> Words:
    """A column's bits."""
    return np.ascontiguousarray(column, dtype=np.float64).view(np.uint64)


def _hashes(fleet: Fleet) -> Words:
    """A number of each device that is the same for devices alike, and hardly for others; (n,)."""
    place = np.arange(len(fleet.point_limit_w)) - fleet.first[fleet.point_device]
    mixed = place.astype(np.uint64)
    for name in RANKED_BY:
        mixed = _stirred(mixed, _words(getattr(fleet, name)))
    of_device = np.add.reduceat(mixed, fleet.first[:-1])
    for name in RANKED_BY_TOO:
        of_device = _stirred(of_device, _words(getattr(fleet, name)))
    return of_device


def _stirred(mixed: Words, words: Words) -> Words:
    found: Words = (mixed ^ (words * MIX[0])) * MIX[1]
    found ^= found >> np.uint64(29)
    found *= MIX[2]
    found ^= found >> np.uint64(32)
    return found


def _alike(fleet: Fleet, other: Ints) -> bool:
    """Whether each device is of the make of another; `other` are columns; shape (n,)."""
    counts = np.diff(fleet.first)
    if not np.array_equal(counts, counts[other]):
        return False
    at = spread(fleet.first, other)
    same = (np.array_equal(words, words[at]) for words in _each(fleet, RANKED_BY))
    too = (np.array_equal(words, words[other]) for words in _each(fleet, RANKED_BY_TOO))
    return all(same) and all(too)


def _each(fleet: Fleet, names: tuple[str, ...]) -> list[Words]:
    return [_words(getattr(fleet, name)) for name in names]


def _picked(fleet: Fleet, columns: Ints) -> Fleet:
    """A fleet of some devices of another; of one that is picked twice `index` knows the last."""
    at, counts = spread(fleet.first, columns), np.diff(fleet.first)[columns]
    devices = tuple(fleet.devices[i] for i in columns.tolist())
    picked: dict[str, Any] = {name: frozen(getattr(fleet, name)[columns]) for name in OF_DEVICES}
    picked |= {name: frozen(getattr(fleet, name)[at]) for name in OF_POINTS}
    return replace(
        fleet,
        devices=devices,
        index=MappingProxyType({device.id: i for i, device in enumerate(devices)}),
        first=frozen(np.concatenate(([0], np.cumsum(counts))).astype(np.int64)),
        point_device=frozen(np.repeat(np.arange(len(columns)), counts)),
        point_feeder=frozen(np.repeat(fleet.feeder[columns], counts)),
        **picked,
    )
