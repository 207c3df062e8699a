"""Figures from a file that somebody keeps: a CSV or JSON history, or one static JSON object.

A history is a series of steps: each row holds from its time to the next one's, so it can be written
ahead, and replayed by the simulator. A static object without a time was observed when the file was
last written. The file is read again whenever it changes; a version with faults is reported, and the
last good one stays.
"""

import asyncio
import bisect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattshift_cluster.economics.figures import BOUNDS, Answer, Seen, SourceFailed
from wattshift_cluster.errors import ConfigInvalid, Fault
from wattshift_cluster.grid.rows import MAX_ROWS, Faults, Row, read_csv, unix_s
from wattshift_cluster.grid.watched import WatchedFile
from wattshift_scheduler.hashprice import Network, Scheme, subsidy_btc

STATED = "usd_per_ph_day"
NEEDED = ("difficulty", "height", "usd_per_btc")
"""What a hashprice follows from where none is stated; fees may be unknown."""


@dataclass(frozen=True, slots=True)
class History:
    """Rows of figures, times rising. A time of None: as old as the file.

    Attributes:
        times_s: unix time of each row, s; empty for a static object without a time.
        rows: the figures of each row, by name.
    """

    times_s: tuple[float, ...]
    rows: tuple[dict[str, float], ...]


class FileSource:
    """A file of figures, followed as it changes."""

    def __init__(self, path: Path) -> None:
        """Read it for the first time. Raises ConfigInvalid, each fault with file and line."""
        self.name, self.local = str(path), True
        self._file = WatchedFile(path, parse)

    async def read(self, now_s: float) -> Answer:
        """See figures.Source. Reads and parses beside the event loop."""
        history = await asyncio.to_thread(self._file.read)
        fault = str(self._file.fault) if self._file.fault else ""
        if not history.times_s:
            try:
                written_s = self._file.path.stat().st_mtime
            except OSError as gone:
                raise SourceFailed(f"{self.name}: {gone.strerror}") from gone
            return Answer(_seen(history.rows[0], min(written_s, now_s)), fault)
        at = bisect.bisect_right(history.times_s, now_s) - 1
        if at < 0:
            raise SourceFailed(f"{self.name}: {fault or 'the history begins later'}")
        return Answer(_seen(history.rows[at], history.times_s[at]), fault)

    async def close(self) -> None:
        """See figures.Source; nothing is held open."""


def _seen(row: dict[str, float], at_s: float) -> dict[str, Seen]:
    return {name: Seen(value, at_s) for name, value in row.items()}


def parse(text: str, file: str) -> History:
    """A history or static object, CSV unless it begins like JSON. Raises ConfigInvalid."""
    if text.lstrip()[:1] in ("{", "["):
        return _parse_json(text, file)
    faults = Faults(file)
    columns = ("time", *BOUNDS)
    return _history(read_csv(text, file, needed=("time",), allowed=columns), faults, static=False)


def _parse_json(text: str, file: str) -> History:
    faults = Faults(file)
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise ConfigInvalid([Fault(file, "", None, f"not JSON: {fault}")]) from None
    static = isinstance(body, dict)
    rows = [body] if static else body
    if len(rows) > MAX_ROWS:
        raise ConfigInvalid([Fault(file, "", None, f"more than {MAX_ROWS} rows")])
    for place, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            faults.add(place, "", row, "not an object of figures")
            continue
        for key in row.keys() - BOUNDS.keys() - {"time"}:
            faults.add(place, str(key)[:60], None, f"unknown; allowed: time, {', '.join(BOUNDS)}")
    faults.raise_any()
    return _history([Row(place, row) for place, row in enumerate(rows, 1)], faults, static=static)


def _history(rows: list[Row], faults: Faults, *, static: bool) -> History:
    times_s: list[float] = []
    kept: list[dict[str, float]] = []
    for row in rows:
        timeless = static and "time" not in row.cells
        time_s = 0.0 if timeless else faults.cell(row, "time", unix_s)
        figures = {
            name: value
            for name in BOUNDS
            if name in row.cells and (value := faults.cell(row, name, _figure)) is not None
        }
        if STATED not in figures and not all(name in figures for name in NEEDED):
            faults.add(row.line, "", None, f"needs {STATED}, or {', '.join(NEEDED)}")
        if time_s is None:
            continue
        if times_s and time_s <= times_s[-1]:
            faults.add(row.line, "time", row.cells["time"], "not after the row before")
            continue
        times_s.append(time_s)
        kept.append(figures)
    if not rows:
        faults.add(1, "", None, "no figures")
    faults.raise_any()
    return History(() if static and "time" not in rows[0].cells else tuple(times_s), tuple(kept))


def _figure(value: object) -> float:
    """A plain number. Whether it can be true is the guard's business, not the file's."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("not a number") from None


def hashprice_of(figures: dict[str, float], scheme: Scheme) -> float | None:
    """USD per PH/s and day that follow from a row; None where its figures give none.

    A stated hashprice is taken as the pool's word. Unknown fees count as none.
    """
    if STATED in figures:
        return figures[STATED]
    if not all(name in figures for name in NEEDED):
        return None
    network = Network(
        difficulty=figures["difficulty"],
        subsidy_btc=subsidy_btc(int(figures["height"])),
        fees_btc=figures.get("fees_btc", 0.0),
        usd_per_btc=figures["usd_per_btc"],
    )
    return network.usd_per_ph_day(scheme)
