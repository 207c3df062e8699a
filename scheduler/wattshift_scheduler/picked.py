"""Columns that are worked out when they are read, not when they are made.

A cut may move 100,000 devices. To pick their names and what explains each move costs more than to
decide on them; whoever sends or journals the decision reads them later.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.arrays import Ints, Texts


class Picked(Sequence[str]):
    """Some texts of a column that never changes; equal to any sequence of the same texts."""

    __slots__ = ("_column", "_rows")

    def __init__(self, column: Texts, rows: Ints) -> None:
        """Pick.

        Args:
            column: texts, never written to.
            rows: which of them, in order; shape (picked,), never written to either.
        """
        self._column = column
        self._rows = rows

    def _parts(self) -> tuple[Texts, Ints]:
        return self._column, self._rows

    def rows_of(self, column: Texts) -> Ints | None:
        """Which rows of a column these are, in order; None: they were picked from another."""
        mine, rows = self._parts()
        return rows if mine is column else None

    def __len__(self) -> int:
        return len(self._parts()[1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts())

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> "Picked": ...

    def __getitem__(self, at: int | slice) -> "str | Picked":
        column, rows = self._parts()
        if isinstance(at, slice):
            return Picked(column, rows[at])
        return str(column[rows[at]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(other) == len(self) and self._texts() == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self._texts()))

    def __repr__(self) -> str:
        return f"Picked({self._texts()!r})"

    def _texts(self) -> list[str]:
        column, rows = self._parts()
        texts: list[str] = column[rows].tolist()
        return texts


class PickedLater(Picked):
    """The same where even the rows are worked out when the first text is read."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], tuple[Texts, Ints]]) -> None:
        """Prepare; `make` gives the column and the rows."""
        self._make: Callable[[], tuple[Texts, Ints]] | None = make

    def _parts(self) -> tuple[Texts, Ints]:
        if self._make is not None:
            (self._column, self._rows), self._make = self._make(), None
        return self._column, self._rows


class Later:
    """A column of figures that is worked out when the first of them is read."""

    __slots__ = ("_column", "_make")

    def __init__(self, make: Callable[[], npt.NDArray[Any]]) -> None:
        """Prepare.

        Args:
            make: works the column out, from columns that are never written to.
        """
        self._make: Callable[[], npt.NDArray[Any]] | None = make
        self._column: npt.NDArray[Any] = np.zeros(0)

    def __getitem__(self, at: int) -> Any:
        return self._made()[at]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self._made(), dtype=dtype, copy=copy)

    def _made(self) -> npt.NDArray[Any]:
        if self._make is not None:
            self._column, self._make = self._make(), None
        return self._column
