"""What was seen of a device's draw, by cells of intensity and inference load.

A device may keep one intensity for hours. Forgetting by time alone would then lose what was known
of every other one; so a reading displaces older ones of its own cell, and a whole cell fades only
over days.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

INTENSITIES, INFERENCES = 21, 6
"""Cells per axis: every 5 % of intensity, every 20 % of inference load."""

MOST_WEIGHT = 30.0
"""Readings that a cell remembers; neighbours in time are no independent proof of each other."""

HALF_LIFE_S = 7 * 86400.0
"""Dust, seasons and drivers change a curve within weeks."""

_WEIGHT, _INTENSITY, _INFERENCE, _WATTS, _AT = range(5)


class Memory:
    """Weighted means per cell."""

    def __init__(self) -> None:
        """Nothing seen."""
        self._cells: Floats = np.zeros((INTENSITIES * INFERENCES, 5))
        self._now_s = 0.0

    def add(
        self, intensity: float, inference: float, watts_w: float, weight: float, at_s: float
    ) -> None:
        """Take in one reading.

        Args:
            intensity, inference: 0 to 1, over the span that `watts_w` is the mean of.
            watts_w: W.
            weight: how far the reading is believed, above 0 up to 1.
            at_s: when, on a clock that goes on over restarts, s.
        """
        row = round(intensity * (INTENSITIES - 1)) * INFERENCES
        cell = self._cells[row + round(inference * (INFERENCES - 1))]
        cell[_WEIGHT] = min(MOST_WEIGHT, cell[_WEIGHT] + weight)
        share = weight / cell[_WEIGHT]
        for field, value in ((_INTENSITY, intensity), (_INFERENCE, inference), (_WATTS, watts_w)):
            cell[field] += share * (value - cell[field])
        cell[_AT] = at_s
        self._now_s = max(self._now_s, at_s)

    def seen(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Weight, intensity, inference load and watts of each cell in which something was seen."""
        cells = self._cells[self._cells[:, _WEIGHT] > 0]
        age_s = np.maximum(0.0, self._now_s - cells[:, _AT])
        weight = cells[:, _WEIGHT] * 0.5 ** (age_s / HALF_LIFE_S)
        return weight, cells[:, _INTENSITY], cells[:, _INFERENCE], cells[:, _WATTS]

    def rows(self) -> list[list[float]]:
        """For a file: weight, intensity, inference load, watts and time of each seen cell."""
        return [[float(x) for x in cell] for cell in self._cells if cell[_WEIGHT] > 0]

    @classmethod
    def from_rows(cls, rows: object) -> "Memory":
        """From a file. Raises: ValueError when that is not what `rows` gave."""
        memory = cls()
        if not isinstance(rows, list) or len(rows) > len(memory._cells):
            raise ValueError("cells are a list, one entry per cell at most")
        for row in rows:
            weight, intensity, inference, watts_w, at_s = _row(row)
            shares = 0 <= intensity <= 1 and 0 <= inference <= 1
            if not (0 < weight <= MOST_WEIGHT and shares and watts_w >= 0):
                raise ValueError(f"no cell: {row}")
            memory.add(intensity, inference, watts_w, weight, at_s)
        return memory


def _row(row: object) -> Sequence[float]:
    if not isinstance(row, list) or len(row) != 5:
        raise ValueError("a cell is five numbers")
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in row):
        raise ValueError("a cell is five numbers")
    values = [float(x) for x in row]
    if not all(math.isfinite(x) for x in values):
        raise ValueError("a cell is five finite numbers")
    return values
