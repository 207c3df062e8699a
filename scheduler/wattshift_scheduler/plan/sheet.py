"""A linear program as columns of numbers: variables, rows and entries, added in bulk by numpy.

A modelling library takes longer to build a plan than the solver takes to solve it.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import Bools, Floats, Ints

Bound = npt.ArrayLike


@dataclass(slots=True)
class Sheet:
    """A program that is being written: least `cost` x values, within bounds, rows within theirs."""

    columns: int = 0
    rows: int = 0
    _columns: list[tuple[Floats, Floats, Floats, Bools]] = field(default_factory=list)
    _rows: list[tuple[Floats, Floats]] = field(default_factory=list)
    _entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)

    def add(
        self,
        count: int,
        cost: Bound = 0.0,
        low: Bound = 0.0,
        high: Bound = math.inf,
        *,
        whole: bool = False,
    ) -> Ints:
        """Add `count` variables, of whole numbers where `whole`; returns their columns."""
        kind = np.full(count, whole)
        self._columns.append((_wide(cost, count), _wide(low, count), _wide(high, count), kind))
        self.columns += count
        return np.arange(self.columns - count, self.columns)

    def rule(self, count: int, low: Bound = -math.inf, high: Bound = math.inf) -> Ints:
        """Add `count` rows whose sums lie in `low` to `high`; returns them."""
        self._rows.append((_wide(low, count), _wide(high, count)))
        self.rows += count
        return np.arange(self.rows - count, self.rows)

    def put(self, rows: Ints, columns: Ints, values: Bound) -> None:
        """Add entries: rows, columns and values of one shape, or spread to one."""
        rows, columns, spread = np.broadcast_arrays(rows, columns, np.asarray(values, np.float64))
        self._entries.append((rows.ravel(), columns.ravel(), spread.ravel()))

    def closed(self) -> "Program":
        """The program, its entries in order of columns."""
        rows, columns, values = (
            np.concatenate([part[i] for part in self._entries]) for i in range(3)
        )
        order = np.lexsort((rows, columns))
        cost, low, high, whole = (
            np.concatenate([part[i] for part in self._columns]) for i in range(4)
        )
        return Program(
            cost=cost,
            low=low,
            high=high,
            whole=whole.astype(np.bool_),
            row_low=np.concatenate([part[0] for part in self._rows]),
            row_high=np.concatenate([part[1] for part in self._rows]),
            start=np.searchsorted(columns[order], np.arange(self.columns + 1)),
            index=rows[order],
            value=values[order],
        )


@dataclass(frozen=True, slots=True)
class Program:
    """A closed program: bounds and costs of its variables, its rows, and its entries by column."""

    cost: Floats
    low: Floats
    high: Floats
    whole: Bools
    row_low: Floats
    row_high: Floats
    start: Ints
    index: Ints
    value: Floats


def _wide(value: Bound, count: int) -> Floats:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))
