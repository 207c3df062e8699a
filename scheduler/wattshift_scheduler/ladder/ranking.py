"""A ladder's columns while they are made: for the whole fleet, or for the few that have turned.

Thousands of devices are ranked at once, so many as leave their tables in a processor's cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import Bools, Floats, Ints, Keys, frozen
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.envelopes import Steps, envelopes
from wattshift_scheduler.ladder.rungs import Cycles, Part, Ranks, keys_of, ranked, ranked_on
from wattshift_scheduler.values import Values

TOGETHER = 8192
"""Devices ranked at once."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a ladder while it is made; those of the same name there."""

    rank_usd_per_mwh: Floats
    worth_usd_per_mwh: Floats
    keys: Keys
    cycle_usd: Floats
    bonus_usd_per_h: Floats
    first_w: Floats
    first_usd_per_mwh: Floats
    best_w: Floats
    best_usd_per_mwh: Floats
    awake: Bools
    cold: Bools

    @classmethod
    def empty(cls, n: int, count: int, keys: npt.DTypeLike = np.int64) -> "Columns":
        """Of `n` devices with `count` points; `keys` are of that type."""
        return cls(
            rank_usd_per_mwh=np.empty(count),
            worth_usd_per_mwh=np.empty(count),
            keys=np.empty(count, dtype=keys),
            cycle_usd=np.empty(n),
            bonus_usd_per_h=np.empty(n),
            first_w=np.empty(n),
            first_usd_per_mwh=np.empty(n),
            best_w=np.empty(n),
            best_usd_per_mwh=np.empty(n),
            awake=np.empty(n, dtype=np.bool_),
            cold=np.empty(n, dtype=np.bool_),
        )

    @classmethod
    def of(cls, ladder: Any) -> "Columns":
        """Copies of a ladder's."""
        return cls(*(getattr(ladder, name).copy() for name in cls.__slots__))

    def frozen(self) -> dict[str, Any]:
        """All of them by name, to be changed no more."""
        return {name: frozen(getattr(self, name)) for name in self.__slots__}

    def tables(self, part: Part) -> tuple[Floats, Floats]:
        """The ranks and worths of a part, to be written: these columns' own rows if they stand
        together, else new tables; shape (m, c) each."""
        shape, at = part.watts_w.shape, part.at
        if isinstance(at, slice):
            rank, worth = self.rank_usd_per_mwh[at], self.worth_usd_per_mwh[at]
            return rank.reshape(shape), worth.reshape(shape)
        return np.empty(shape), np.empty(shape)

    def write(self, part: Part, cycles: Cycles, ranks: Ranks, bits: int) -> None:
        """The rows of a part; its ranks and worths are there already if they stand together."""
        at, rows, rank = part.at, part.rows, ranks.rank.reshape(-1)
        if isinstance(at, slice):
            keys_of(rank, np.arange(at.start, at.stop), bits, self.keys[at])
        else:
            self.rank_usd_per_mwh[at] = rank
            self.worth_usd_per_mwh[at] = ranks.worth.reshape(-1)
            self.keys[at] = keys_of(rank, at, bits)
        for name in ("cycle_usd", "bonus_usd_per_h", "awake", "cold"):
            getattr(self, name)[rows] = getattr(cycles, name)
        for name in ("first_w", "first_usd_per_mwh", "best_w", "best_usd_per_mwh"):
            getattr(self, name)[rows] = getattr(ranks, name)


def alike(fleet: Fleet, devices: Ints) -> Iterator[Ints]:
    """Devices by how many points they have, so many at once as stay in a processor's cache."""
    groups = [devices]
    if not fleet.points_each:
        counts = fleet.first[devices + 1] - fleet.first[devices]
        groups = [devices[counts == count] for count in np.unique(counts)]
    for same in groups:
        for begin in range(0, len(same), TOGETHER):
            yield same[begin : begin + TOGETHER]


def rank(
    columns: Columns,
    fleet: Fleet,
    values: Values,
    steps: Steps,
    devices: Ints,
    awake: Bools,
    cold: Bools,
    horizon_s: float,
    bits: int,
) -> Steps:
    """Write what the rungs of some devices rank by; returns the steps as they are now."""
    drawn: list[tuple[Ints, Bools]] = []
    for some in alike(fleet, devices):
        part = Part.of(fleet, values, some)
        cycles = Cycles.of(fleet, part, awake[part.rows], cold[part.rows], horizon_s)
        ranks = ranked(part, cycles.bonus_usd_per_h, columns.tables(part))
        columns.write(part, cycles, ranks, bits)
        bent, hollow = ranks.bent, steps.hollow[part.rows]
        if not (len(bent) or hollow.any()):
            continue
        looked = np.union1d(bent, np.flatnonzero(hollow))
        lifted = part.usd_per_h[looked]
        lifted[:, 1:] += np.maximum(cycles.bonus_usd_per_h[looked], 0.0)[:, None]
        on = envelopes(part.watts_w[looked], lifted)
        drawn.append((some[looked], on))
        on = on[np.searchsorted(looked, bent)]
        on[:, 0] = False
        part, cycles = part.of_rows(bent), cycles.of_rows(bent)
        columns.write(part, cycles, ranked_on(part, on, cycles.bonus_usd_per_h), bits)
    return steps.redrawn(fleet, drawn)
