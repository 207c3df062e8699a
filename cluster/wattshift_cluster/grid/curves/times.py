"""A time as a table writes it: with a zone, as a number, or by the clock on a wall.

On the day on which clocks go back an hour is written twice: the second time that a table comes to
it, it is the later one. On the day on which they go forward an hour is missing: a time in it is
wrong. So a day has 23, 24 or 25 hours.
"""

import math
from datetime import UTC, datetime, tzinfo

from wattshift_cluster.grid.rows import unix_s


class TableTimes:
    """Reads the times of one table in its own order."""

    def __init__(self, zone: tzinfo | None, number_s: float = 1.0) -> None:
        """Begin a table.

        Args:
            zone: of times that name none; None: such times are refused.
            number_s: what 1 is where a time is a number, s: 0.001 for milliseconds.
        """
        self._zone = zone
        self._number_s = number_s
        self._last_s = float("-inf")

    def read(self, value: object) -> float:
        """Unix time, s. Raises: ValueError."""
        at_s = self._read(value)
        self._last_s = at_s
        return at_s

    def _read(self, value: object) -> float:
        number = _number(value)
        if number is not None:
            return unix_s(number * self._number_s)
        naive = _naive(value)
        if naive is None or self._zone is None:
            return unix_s(value)
        try:
            return self._local_s(naive, self._zone)
        except OverflowError:
            # The year 1, which some write for a time that they do not know.
            raise ValueError("not a unix time between 1970 and 2100") from None

    def _local_s(self, naive: datetime, zone: tzinfo) -> float:
        first = naive.replace(tzinfo=zone, fold=0)
        second = naive.replace(tzinfo=zone, fold=1)
        if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:
            raise ValueError(f"{naive} does not exist in {zone}: clocks went forward")
        again = first.timestamp() <= self._last_s < second.timestamp()
        return unix_s((second if again else first).timestamp())


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def _naive(value: object) -> datetime | None:
    """A time without a zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        return None
    return read if read.tzinfo is None else None
