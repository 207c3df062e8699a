"""A table of rows turned into a curve: whose columns or keys hold what, and what is wrong in it.

A file that the site's owner keeps is refused whole, each fault with its line. An answer of a server
is taken as far as it can be: a row without a usable value is a gap, and every fault is noted.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.curves.steps import Laid, Span, laid, overlaid
from wattshift_cluster.grid.curves.times import TableTimes
from wattshift_cluster.grid.rows import MAX_ROWS, Faults, Row, read_csv
from wattshift_cluster.grid.said import Steps

MOST_ISSUES = 500
"""Forecasts of one table; three weeks of hourly ones."""

ReadValue = Callable[[object], float]
"""A cell to a value in the curve's unit. Raises ValueError, with the reason."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Where things stand in somebody's table.

    Attributes:
        time, value: columns of a CSV, keys of the rows of a JSON list.
        end: when a value ends; None or missing: at the next one.
        issued: when it was published, in the row or, by a path with dots, in the whole answer;
            None: when it was read.
        rows: path with dots to the list of rows; empty: the answer is the list, or the only row.
        where: only rows that hold these texts count.
        zone: of times that name none.
        number_s: what 1 is where a time is a number, s.
        hold_s: the longest that a value holds, s; None: until the next one.
        last_s: how long the last value holds that has no end, s; None: as the one before it.
    """

    time: str = "time"
    value: str = "value"
    end: str | None = "end"
    issued: str | None = "issued"
    rows: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo | None = None
    number_s: float = 1.0
    hold_s: float | None = None
    last_s: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Curves of one table by the time of their issue, oldest first; NaN: it names none.

    Attributes:
        issues: each with its `told_s`.
        notes: what was not taken as it stood.
    """

    issues: tuple[Steps, ...]
    notes: tuple[str, ...] = ()

    def issued_by(self, now_s: float) -> int:
        """How many of the issues are known at `now_s`."""
        return sum(not issue.told_s > now_s for issue in self.issues)

    def known(self, now_s: float, read_s: float) -> Steps | None:
        """What is known at `now_s`: newer issues over older ones, and none from the future.

        Args:
            now_s: unix time, s.
            read_s: when the table was written or read, for issues that name no time, s.
        """
        found: Steps | None = None
        for issue in self.issues:
            told_s = read_s if math.isnan(issue.told_s) else issue.told_s
            if told_s <= now_s:
                dated = Steps(issue.times_s, issue.values, issue.ends_s, told_s)
                found = overlaid(found, dated)
        return found


def of_csv(
    text: str,
    file: str,
    shape: Shape,
    read: ReadValue,
    *,
    allowed: Sequence[str] | None = None,
) -> Table:
    """A table that the site's owner keeps; the times of an issue must rise.

    Args:
        allowed: columns that may stand in it; None: any.

    Raises:
        ConfigInvalid: all faults of the file, each with file:line.
    """
    rows = read_csv(text, file, needed=(shape.time, shape.value), allowed=allowed)
    faults = Faults(file)
    table = _table(rows, shape, read, faults, {}, rising=True)
    if not table.issues and not faults.found:
        faults.add(1, "", None, "no values")
    faults.raise_any()
    return table


def of_answer(text: str, source: str, shape: Shape, read: ReadValue, *, is_csv: bool) -> Table:
    """A table that a server told. Raises: ConfigInvalid, where nothing of it can be used."""
    if is_csv:
        rows = read_csv(text, source, needed=(shape.time, shape.value), allowed=None)
        return _usable(rows, source, shape, read, {})
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigInvalid([Fault(source, "", None, "the answer is not JSON")]) from None
    return of_body(body, source, shape, read)


def of_body(body: object, source: str, shape: Shape, read: ReadValue) -> Table:
    """A table out of a JSON answer. Raises: ConfigInvalid, where nothing of it can be used."""
    return _usable(_rows_of(body, source, shape), source, shape, read, body)


def _usable(rows: Iterable[Row], source: str, shape: Shape, read: ReadValue, body: object) -> Table:
    faults = Faults(source)
    table = _table(rows, shape, read, faults, body)
    if not table.issues:
        faults.add(1, "", None, "no values")
        faults.raise_any()
    return Table(table.issues, (*table.notes, *_summed(faults)))


def _rows_of(body: object, source: str, shape: Shape) -> list[Row]:
    found = at_path(body, shape.rows)
    listed = [found] if isinstance(found, dict) else found
    if not isinstance(listed, list):
        told = (
            f"no list of rows at {shape.rows!r}" if shape.rows else "neither a list nor an object"
        )
        raise ConfigInvalid([Fault(source, "", None, told)])
    if len(listed) > MAX_ROWS:
        raise ConfigInvalid([Fault(source, "", None, f"more than {MAX_ROWS} rows")])
    return [Row(n, one if isinstance(one, dict) else {}) for n, one in enumerate(listed, 1)]


def at_path(body: object, path: str) -> object:
    """What stands at a path with dots; None where nothing does. Digits are places of a list."""
    for part in path.split(".") if path else ():
        if isinstance(body, dict):
            body = body.get(part)
        elif isinstance(body, list) and part.isascii() and part.isdigit() and len(part) < 6:
            body = body[int(part)] if int(part) < len(body) else None
        else:
            return None
    return body


def _table(
    rows: Iterable[Row],
    shape: Shape,
    read: ReadValue,
    faults: Faults,
    body: object,
    *,
    rising: bool = False,
) -> Table:
    reads = _Reads(shape, read, faults, body)
    by_issue: dict[float, list[Span]] = {}
    for row in rows:
        if any(str(row.cells.get(key)) != text for key, text in shape.where.items()):
            continue
        span = reads.span(row)
        if span is None:
            continue
        issue = by_issue.setdefault(reads.issued_s(row), [])
        if rising and issue and span.starts_s <= issue[-1].starts_s:
            faults.add(row.line, shape.time, row.cells[shape.time], "not after the row before")
            continue
        issue.append(span)
    if len(by_issue) > MOST_ISSUES:
        faults.add(1, shape.issued or "", None, f"more than {MOST_ISSUES} issues")
    kept = sorted(by_issue)[-MOST_ISSUES:]
    last_s = shape.hold_s if shape.last_s is None else shape.last_s
    return _joined(
        laid(by_issue[key], math.nan if key == NO_ISSUE_S else key, last_s) for key in kept
    )


NO_ISSUE_S = -math.inf
"""In place of the time of an issue that names none: it is older than all."""


class _Reads:
    """Reads the cells of one table in its own order, and collects what is wrong."""

    def __init__(self, shape: Shape, read: ReadValue, faults: Faults, body: object) -> None:
        self._shape, self._value, self._faults = shape, read, faults
        self._times = TableTimes(shape.zone, shape.number_s)
        self._ends = TableTimes(shape.zone, shape.number_s)
        self._issues = TableTimes(shape.zone, shape.number_s)
        self._of_all = None if shape.issued is None else at_path(body, shape.issued)

    def span(self, row: Row) -> Span | None:
        """The row's value with its span; NaN where it has none, None where it has no span."""
        shape, faults = self._shape, self._faults
        starts_s = faults.cell(row, shape.time, self._times.read)
        value = faults.cell(row, shape.value, self._value)
        if starts_s is None:
            return None
        ends_s = math.inf
        if shape.end is not None and row.cells.get(shape.end) is not None:
            told_s = faults.cell(row, shape.end, self._ends.read)
            if told_s is None:
                return None
            if not told_s > starts_s:
                faults.add(row.line, shape.end, row.cells[shape.end], "not after its beginning")
                return None
            ends_s = told_s
        if shape.hold_s is not None:
            ends_s = min(ends_s, starts_s + shape.hold_s)
        return Span(starts_s, ends_s, math.nan if value is None else value)

    def issued_s(self, row: Row) -> float:
        """When the row's issue was published, s."""
        column = self._shape.issued
        told = None if column is None else row.cells.get(column, self._of_all)
        if told is None:
            return NO_ISSUE_S
        found = self._faults.cell(Row(row.line, {"issued": told}), "issued", self._issues.read)
        return NO_ISSUE_S if found is None else found


def _joined(parts: Iterable[Laid]) -> Table:
    kept = [part for part in parts if part.steps is not None]
    issues = tuple(part.steps for part in kept if part.steps is not None)
    notes = tuple(dict.fromkeys(note for part in kept for note in part.notes))
    return Table(issues, notes)


def _summed(faults: Faults) -> tuple[str, ...]:
    """What is wrong with an answer in a few words: the first fault, and how many more."""
    if not faults.found:
        return ()
    more = len(faults.found) - 1
    return (f"{faults.found[0]}" + (f", and {more} more" if more else ""),)
