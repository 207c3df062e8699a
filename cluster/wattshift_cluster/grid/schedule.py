"""A file of caps that the grid contract, the utility or an operator laid down in advance.

    starts,ends,limit,kind                        # schedule.csv
    2026-11-23T14:00:00Z,2026-11-23T14:30:00Z,9.8kW,event

or in TOML, one [[caps]] table each with the same keys. `ends` may be empty (until further notice),
`kind` too ("cap"). Times are ISO 8601 with a zone, or unix seconds; limits take units. Overlapping
entries are fine: the lowest holds.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from wattshift_cluster.config.quantities import parse_watts
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.grid.rows import MAX_ROWS, Faults, Row, read_csv, unix_s
from wattshift_cluster.grid.watched import WatchedFile

Kind = Literal["cap", "breaker", "demand", "contract", "operator", "event", "emergency"]
KINDS: tuple[str, ...] = get_args(Kind)
NEEDED = ("starts", "limit")
COLUMNS = ("starts", "ends", "limit", "kind")

_TABLE = re.compile(r"\s*\[\[\s*caps\s*\]\]")


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """One cap.

    Attributes:
        id: stable while the entry does not change; unique in its file.
        starts_s, ends_s: unix time, s; the end is exclusive, None is open.
        limit_w: most that the site may draw, W.
        kind: who or what it comes from.
        line: where it stands in the file.
    """

    id: str
    starts_s: float
    ends_s: float | None
    limit_w: float
    kind: Kind
    line: int

    def in_force(self, now_s: float) -> bool:
        """Whether this entry binds at `now_s`, unix time."""
        return self.starts_s <= now_s and (self.ends_s is None or now_s < self.ends_s)


class Schedule:
    """A schedule file that follows its own changes."""

    def __init__(self, path: Path) -> None:
        """Read `path` (.csv or .toml). Raises: ConfigInvalid, each fault with file:line."""
        self._file = WatchedFile(path, parse_schedule)

    @property
    def fault(self) -> ConfigInvalid | None:
        """Why the newest version of the file is not in force; None when it is."""
        return self._file.fault

    def entries(self) -> tuple[ScheduleEntry, ...]:
        """All entries by start, past ones too. Stats the file; does not raise."""
        return self._file.read()


def parse_schedule(text: str, file: str) -> tuple[ScheduleEntry, ...]:
    """The entries of a schedule, by start.

    Raises:
        ConfigInvalid: all faults of the file, each with file:line.
    """
    rows = _toml_rows(text, file) if file.endswith(".toml") else _csv_rows(text, file)
    faults = Faults(file)
    entries = [entry for row in rows if (entry := _entry(row, faults)) is not None]
    faults.raise_any()
    return tuple(sorted(entries, key=lambda entry: (entry.starts_s, entry.line)))


def _entry(row: Row, faults: Faults) -> ScheduleEntry | None:
    before = len(faults.found)
    starts_s = faults.cell(row, "starts", unix_s)
    limit_w = faults.cell(row, "limit", _limit_w)
    ends_s = faults.cell(row, "ends", unix_s) if "ends" in row.cells else None
    kind = row.cells.get("kind", "cap")
    if kind not in KINDS:
        faults.add(row.line, "kind", kind, f"unknown; allowed: {', '.join(KINDS)}")
    if starts_s is not None and ends_s is not None and ends_s <= starts_s:
        faults.add(row.line, "ends", row.cells["ends"], "must be after starts")
    if len(faults.found) > before or starts_s is None or limit_w is None:
        return None
    identity = f"{starts_s:.0f}-{'open' if ends_s is None else f'{ends_s:.0f}'}-line{row.line}"
    return ScheduleEntry(identity, starts_s, ends_s, limit_w, cast("Kind", kind), row.line)


def _limit_w(value: object) -> float:
    if value is None:
        raise ValueError("missing; write for example 9.8kW")
    limit_w = parse_watts(value)
    if limit_w < 0:
        raise ValueError("a cap cannot be negative")
    return limit_w


def _csv_rows(text: str, file: str) -> Sequence[Row]:
    return read_csv(text, file, needed=NEEDED, allowed=COLUMNS)


def _toml_rows(text: str, file: str) -> Sequence[Row]:
    """One row for each [[caps]]; its line is that of the table's header."""
    faults = Faults(file)
    try:
        body = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        at = re.search(r"line (\d+)", str(fault))
        faults.add(int(at.group(1)) if at else 1, "", None, f"not TOML: {fault}")
        faults.raise_any()
        raise  # unreachable: a fault was just added
    for key in body.keys() - {"caps"}:
        faults.add(1, key, None, "unknown key; a schedule holds [[caps]] tables only")
    tables = body.get("caps", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.add(1, "caps", None, "must be [[caps]] tables")
        tables = []
    if len(tables) > MAX_ROWS:
        faults.add(1, "caps", None, f"more than {MAX_ROWS} entries")
    headers = [n for n, line in enumerate(text.splitlines(), 1) if _TABLE.match(line)]
    lines = headers if len(headers) == len(tables) else [1] * len(tables)
    for line, table in zip(lines, tables, strict=True):
        for key in table.keys() - set(COLUMNS):
            faults.add(line, key, None, f"unknown key; allowed: {', '.join(COLUMNS)}")
    faults.raise_any()
    return [Row(line, table) for line, table in zip(lines, tables, strict=True)]
