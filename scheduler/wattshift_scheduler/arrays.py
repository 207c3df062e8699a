"""The column types of the core. Bulk data are numpy columns: 100,000 objects cost 100 ms."""

from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Texts: TypeAlias = npt.NDArray[np.object_]
Keys: TypeAlias = npt.NDArray[np.integer[Any]]
"""Whole numbers of 32 or 64 bits: what is sorted takes as few as it needs."""
Rows: TypeAlias = slice | Ints
"""Which rows of a column: some by their numbers, rising, or `ALL`."""

ALL: Final = slice(None)

EARLY_S: Final = 1e-3
"""A figure that changes by itself at a moment is looked at anew so much before it: times of day in
s carry a rounding error of less than a microsecond, and to look once too often changes nothing."""


def rows_of(columns: Ints) -> slice | None:
    """The rows that columns are, if they follow each other: a slice is read and written much
    faster. None: they do not, or there is none."""
    if not len(columns):
        return None
    begin, end = int(columns[0]), int(columns[-1]) + 1
    if begin < 0 or end - begin != len(columns) or not (np.diff(columns) == 1).all():
        return None
    return slice(begin, end)


def frozen(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `column` marked read-only, so that a shared column can never be changed in place."""
    column.flags.writeable = False
    return column


def summed(bins: Ints, amounts: Floats, count: int) -> Floats:
    """Sum `amounts` into `count` bins; shape (count,)."""
    return np.bincount(bins, amounts, count).astype(np.float64)


Column = TypeVar("Column", bound=npt.NDArray[Any])
"""Any column: what comes out is of the type that went in."""


def put(column: Column, at: Rows, values: npt.NDArray[Any] | float | bool) -> Column:
    """The column with `values` in the rows `at`: itself where they are there already, else a copy.

    So who holds the same column again knows without a look that nothing has changed.
    """
    there = column[at]
    same = there == values
    if column.dtype.kind == "f":
        same |= np.isnan(there) & np.isnan(values)
    if same.all():
        return column
    changed = column.copy()
    changed[at] = values
    return changed
