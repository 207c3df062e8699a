"""What the site drew and paid by the quarter of an hour: the past that a plan's forecasts rest on.

Four weeks of it, of prices half a year, are kept in a small file beside the journal, so that a
restart does not forget. A file that is missing or broken is as one that holds nothing: forecasts
then are wide.
"""

import json
import math
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from wattshift_scheduler.arrays import Floats

SLOT_S = 900.0
SLOTS_KEPT = 4 * 7 * 96
"""Four weeks: older days say little of tomorrow (`forecast.seasonal`)."""

LASTING_KEPT = 26 * 7 * 96
"""Half a year of prices: dear hours, by which it is learnt what follows posted ones, are few."""

GAP_MOST_S = 120.0
"""Samples further apart leave the time between them unknown."""

COUNTED_LEAST = 0.5
"""Share of a quarter that must be known before its mean counts, once it is over."""

VERSION = 1
FILE_MOST_BYTES = 4 << 20

Kept = Mapping[str, Sequence[tuple[int, float]]]
"""By series the number of each quarter, from 1970 on, and its mean."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Past:
    """A series of the past: when each of its intervals began, UTC, rising, and its mean."""

    times_s: Floats
    values: Floats

    @property
    def last(self) -> float:
        """The newest value; NaN where there is none."""
        return float(self.values[-1]) if len(self.values) else math.nan


@dataclass(slots=True)
class _Slot:
    number: int
    total: float = 0.0
    counted_s: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.counted_s if self.counted_s > 0 else math.nan


class PlanHistory:
    """The past of a few named series."""

    def __init__(
        self, names: Sequence[str], path: Path | None = None, *, lasting: Collection[str] = ()
    ) -> None:
        """Go on from the file, if there is one.

        Args:
            names: of the series.
            path: of the file; None keeps nothing.
            lasting: of those that are kept for half a year.
        """
        self._path = path
        self._most = {name: LASTING_KEPT if name in lasting else SLOTS_KEPT for name in names}
        held = {} if path is None else _load(path, self._most)
        self._slots = {name: OrderedDict(sorted(held.get(name, {}).items())) for name in names}
        self._running: dict[str, _Slot] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def sampled(self, values: Mapping[str, float | None], at_s: float) -> None:
        """Take what holds at a time, by series; None and NaN are unknown."""
        for name in self._slots:
            value = values.get(name)
            before = self._last.pop(name, None)
            if before is not None and 0.0 < at_s - before[0] <= GAP_MOST_S:
                self._count(name, before[1], before[0], at_s)
            if value is not None and math.isfinite(value):
                self._last[name] = (at_s, float(value))

    def past(self, name: str) -> Past:
        """What is known of a series, the quarter that runs as far as it has come."""
        rows = dict(self._slots[name])
        running = self._running.get(name)
        if running is not None and running.counted_s > 0:
            rows[running.number] = running.mean
        if name in self._last:
            at_s, value = self._last[name]
            rows.setdefault(math.floor(at_s / SLOT_S), value)
        times_s = np.array(sorted(rows), dtype=np.float64) * SLOT_S
        return Past(times_s, np.array([rows[n] for n in sorted(rows)], dtype=np.float64))

    def kept(self) -> Kept:
        """All that is kept, for `save` in another thread."""
        return {name: list(slots.items()) for name, slots in self._slots.items()}

    def save(self, kept: Kept) -> None:
        """Replace the file; blocks. A disk that refuses is told and no reason to stop."""
        if self._path is None:
            return
        rows = {
            name: [[n, float(f"{value:.7g}")] for n, value in slots] for name, slots in kept.items()
        }
        text = json.dumps({"version": VERSION, "slot_s": SLOT_S, "series": rows})
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as fault:
            log.error("plan.history_unwritable", path=str(self._path), reason=str(fault))

    def _count(self, name: str, value: float, from_s: float, to_s: float) -> None:
        while from_s < to_s:
            number = math.floor(from_s / SLOT_S)
            until_s = min((number + 1) * SLOT_S, to_s)
            running = self._running.get(name)
            if running is None or running.number != number:
                self._close(name)
                running = self._running[name] = _Slot(number)
            running.total += value * (until_s - from_s)
            running.counted_s += until_s - from_s
            from_s = until_s
        if to_s % SLOT_S == 0:
            self._close(name)

    def _close(self, name: str) -> None:
        running, slots = self._running.pop(name, None), self._slots[name]
        if running is None or running.counted_s < COUNTED_LEAST * SLOT_S:
            return
        slots[running.number] = running.mean
        while len(slots) > self._most[name]:
            slots.popitem(last=False)


def _load(path: Path, most: Mapping[str, int]) -> dict[str, dict[int, float]]:
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(FILE_MOST_BYTES))
        if (body["version"], body["slot_s"]) != (VERSION, SLOT_S):
            return {}
        return {
            name: {int(n): float(v) for n, v in rows[-most[name] :] if math.isfinite(float(v))}
            for name, rows in body["series"].items()
            if name in most
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        log.warning("plan.history_unreadable", path=str(path), reason=type(fault).__name__)
        return {}
