"""Rows of a hand-written table, each with its line, and the cells that both feeds share."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from wattshift_cluster.errors import ConfigInvalid, Fault

MAX_ROWS = 200_000
MAX_FAULTS = 50

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line in the file, 1 being the first, and its cells by column."""

    line: int
    cells: Mapping[str, object]


@dataclass(slots=True)
class Faults:
    """Collects the faults of a file, so that it is mended in one go."""

    file: str
    found: list[Fault | str] = field(default_factory=list)

    def add(self, line: int, column: str, value: object, message: str) -> None:
        """Note one; after MAX_FAULTS the rest is not listed."""
        if len(self.found) < MAX_FAULTS:
            shown = None if value is None else str(value)[:60]
            self.found.append(Fault(f"{self.file}:{line}", column, shown, message))

    def cell(self, row: Row, column: str, parse: Callable[[object], Value]) -> Value | None:
        """Parse one cell; None after noting the fault."""
        value = row.cells.get(column)
        try:
            return parse(value)
        except ValueError as fault:
            self.add(row.line, column, value, str(fault))
            return None

    def raise_any(self) -> None:
        """Raises: ConfigInvalid, if there is any fault."""
        if self.found:
            raise ConfigInvalid(self.found)


def read_csv(
    text: str, file: str, *, needed: Sequence[str], allowed: Sequence[str] | None
) -> list[Row]:
    """Rows of a CSV with a header line; blank lines and lines that begin with # are skipped.

    Args:
        allowed: columns that may stand there; None: any, as in the tables of others.

    Raises:
        ConfigInvalid: a column is missing or unknown, a row is too long, or there are too many.
    """
    kept = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    faults = Faults(file)
    columns = f"columns: {','.join(needed if allowed is None else allowed)}"
    if not kept:
        faults.add(1, "", None, f"no header line; {columns}")
        faults.raise_any()
    names = [name.strip() for name in _split(kept[0][1])]
    for missing in [name for name in needed if name not in names]:
        faults.add(kept[0][0], missing, None, f"column missing; {columns}")
    for unknown in [name for name in names if allowed is not None and name not in allowed]:
        faults.add(kept[0][0], unknown, None, f"unknown column; {columns}")
    if len(kept) > MAX_ROWS + 1:
        faults.add(kept[MAX_ROWS + 1][0], "", None, f"more than {MAX_ROWS} rows")
    faults.raise_any()
    rows = []
    for number, line in kept[1:]:
        cells = [cell.strip() for cell in _split(line)]
        if len(cells) > len(names):
            faults.add(number, "", line, f"{len(cells)} cells for {len(names)} columns")
        filled = zip(names, cells, strict=False)
        rows.append(Row(number, {name: cell for name, cell in filled if cell}))
    faults.raise_any()
    return rows


def unix_s(value: object) -> float:
    """Unix time, s, from `2026-11-23T14:00:00Z`, a TOML date-time or a number of seconds.

    Raises:
        ValueError: no such time, or one without a zone, which nobody could place.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A whole number too large for a float is no time either, and must not end the reader.
        return _within(float(max(min(value, 1e18), -1e18)))
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("not a time; write for example 2026-11-23T14:00:00Z") from None
    if not isinstance(value, datetime):
        raise ValueError("missing; write for example 2026-11-23T14:00:00Z")
    if value.tzinfo is None:
        raise ValueError("no zone; end it with Z for UTC, or with an offset such as +01:00")
    return _within(value.timestamp())


def _within(seconds_s: float) -> float:
    if not 0 <= seconds_s < 4_102_444_800:  # the year 2100; also refuses NaN
        raise ValueError("not a unix time between 1970 and 2100")
    return seconds_s


def _split(line: str) -> list[str]:
    return next(csv.reader(io.StringIO(line)), [])
