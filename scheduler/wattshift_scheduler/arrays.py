"""The column types of the core. Bulk data are numpy columns: 100,000 objects cost 100 ms."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Texts: TypeAlias = npt.NDArray[np.object_]


def frozen(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `column` marked read-only, so that a shared column can never be changed in place."""
    column.flags.writeable = False
    return column


def summed(bins: Ints, amounts: Floats, count: int) -> Floats:
    """Sum `amounts` into `count` bins; shape (count,)."""
    return np.bincount(bins, amounts, count).astype(np.float64)
