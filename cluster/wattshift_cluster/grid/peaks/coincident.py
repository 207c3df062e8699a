"""The peaks of the grid as a source of caps: a forecast of its load becomes a chance by interval.

A forecast that fails takes no cap back: what was said stays until its intervals are over.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import structlog

from wattshift_cluster.grid.curves.readers import CurveFailed, Reader
from wattshift_cluster.grid.curves.rows import ReadValue
from wattshift_cluster.grid.curves.steps import spans, value_at
from wattshift_cluster.grid.peaks.kept_highest import KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Said, Say, Steps
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.signals.peaks import (
    MOST_INTERVALS,
    Duty,
    Errors,
    Load,
    chances,
    peak_caps,
)
from wattshift_scheduler.signals.words import Cap

log = structlog.get_logger()

SANE_LOAD_W = (0.0, 5e12)
"""The greatest grid of the world peaks at about 1.5 TW."""


BELIEVED_MOST = 1.5
"""A load above this share of the forecast's highest is a fault of the meter or its unit: believed,
it would hide every peak of the month."""


def in_watts(factor_w: float) -> ReadValue:
    """Reads a load whose unit is so many watts."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError("no load")
        try:
            load_w = float(value) * factor_w
        except (ValueError, OverflowError):
            raise ValueError(f"{str(value)[:40]!r} is no load") from None
        least_w, most_w = SANE_LOAD_W
        if not least_w < load_w <= most_w:
            raise ValueError(f"{load_w:g} W is no load of a grid")
        return load_w

    return read


@dataclass(frozen=True, slots=True)
class PeakTerms:
    """Which peaks, and what the site does about them.

    Attributes:
        duty: the caps' name, watts and interval.
        season: when a peak counts.
        errors: of the forecast.
        final: see `signals.peaks.chances`.
        horizon_s: how far ahead, s.
        poll_s: pause between two questions, s.
        stale_after_s: age beyond which a forecast yields no new cap, s.
    """

    duty: Duty
    season: Season
    errors: Errors = field(default_factory=Errors)
    final: bool = False
    horizon_s: float = 172_800.0
    poll_s: float = 900.0
    stale_after_s: float = 43_200.0


class PeakSource:
    """Peaks of one grid (see `said.Source`)."""

    def __init__(
        self,
        terms: PeakTerms,
        forecast: Reader,
        actual: Reader | None,
        kept: KeptHighest,
        *,
        clock_s: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Nothing is asked yet.

        Args:
            forecast: the grid's load to come.
            actual: its load as it was, by which the month's highest is known; None: nobody tells.
            kept: that highest, from before a restart.
            clock_s: unix time, s.
            pause: sleeps so many seconds.
        """
        self._terms, self._forecast, self._actual, self._kept = terms, forecast, actual, kept
        self._clock_s, self._pause = clock_s, pause
        self._caps: tuple[Cap, ...] = ()
        self._ahead: tuple[Floats, Floats] | None = None
        self._heard_s = -math.inf

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._terms.duty.name

    @property
    def interval_s(self) -> float:
        """Over which the grid's operator averages, s."""
        return self._terms.duty.interval_s

    @property
    def ahead(self) -> tuple[Floats, Floats] | None:
        """When each interval that counts begins, and its chance to be its period's peak, which add
        up to one at the most; as last judged."""
        return self._ahead

    async def run(self, say: Say) -> None:
        """Ask and speak until cancelled; faults of the outside world are said, not raised."""
        try:
            while True:
                say(await self.refresh())
                await self._pause(self._terms.poll_s)
        finally:
            await self._forecast.close()
            if self._actual is not None:
                await self._actual.close()

    async def refresh(self) -> Said:
        """Ask once. Does not raise."""
        now_s = self._clock_s()
        notes: tuple[str, ...] = ()
        fault: str | None = None
        try:
            told = await self._forecast.read(now_s)
            notes, fault = told.notes, told.fault
            self._heard_s = self._clock_s()
            if told.steps is None:
                fault = "the forecast is not out yet"
            elif now_s - told.steps.told_s > self._terms.stale_after_s:
                fault = f"the forecast is {(now_s - told.steps.told_s) / 3600:.0f} h old"
            else:
                load = load_of(told.steps, self._terms, now_s)
                notes += await self._hear_actual(load, now_s)
                self._caps = await asyncio.to_thread(self._judge, load)
        except CurveFailed as failed:
            fault = str(failed)
        if fault is not None:
            log.warning("peaks.fault", source=self.name, reason=fault)
        self._caps = tuple(one for one in self._caps if one.ends_s is None or one.ends_s > now_s)
        return Said(self.name, self._heard_s, caps=self._caps, notes=notes, fault=fault)

    def _judge(self, load: Load) -> tuple[Cap, ...]:
        terms = self._terms
        chance = chances(load, self._kept.all(), terms.errors, final=terms.final)
        # Only a peak that stands is paid for: a plan weighs that chance, whatever caps insure.
        final = chances(load, self._kept.all(), terms.errors, final=True)
        self._ahead = (load.starts_s, final)
        return peak_caps(load, chance, terms.duty)

    async def _hear_actual(self, load: Load, now_s: float) -> tuple[str, ...]:
        """Learn what the load was; notes of what was not believed or is not known."""
        notes: list[str] = []
        most_w = BELIEVED_MOST * float(load.load_w.max(initial=0.0))
        try:
            told = None if self._actual is None else await self._actual.read(now_s)
        except CurveFailed as failed:
            notes.append(str(failed))
            told = None
        if told is not None:
            notes += [*told.notes, *([told.fault] if told.fault else [])]
            if told.steps is not None:
                for period, highest_w in highest_of(told.steps, self._terms, now_s).items():
                    if highest_w > most_w:
                        notes.append(f"a load of {highest_w:.3g} W is far above any forecast")
                    else:
                        self._kept.raise_to(period, highest_w)
        unknown = [one for one in np.unique(load.period) if math.isnan(self._kept.of(int(one)))]
        if unknown:
            notes.append("the month's highest load is not known: its first day counts as a peak")
        return tuple(notes)


def load_of(steps: Steps, terms: PeakTerms, now_s: float) -> Load:
    """The forecast by interval, from the one that runs; without what does not count or is unknown.

    Intervals begin at multiples of their length on the UTC clock.
    """
    interval_s = terms.duty.interval_s
    first = math.floor(now_s / interval_s)
    count = min(math.ceil(terms.horizon_s / interval_s), MOST_INTERVALS)
    rows: list[tuple[float, float, int, int]] = []
    for number in range(first, first + count):
        middle_s = (number + 0.5) * interval_s
        load_w = value_at(steps, middle_s)
        if math.isfinite(load_w) and terms.season.counts(middle_s):
            period, day = terms.season.period(middle_s), terms.season.day(middle_s)
            rows.append((number * interval_s, load_w, period, day))
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    whole = columns[:, 2:].astype(np.int64)
    return Load(columns[:, 0], columns[:, 1], whole[:, 0], whole[:, 1])


def highest_of(steps: Steps, terms: PeakTerms, now_s: float) -> dict[int, float]:
    """The highest load of each period among what has been, W."""
    found: dict[int, float] = {}
    for span in spans(steps):
        middle_s = (span.starts_s + min(span.ends_s, now_s)) / 2.0
        past = span.starts_s < now_s and math.isfinite(span.value)
        if past and terms.season.counts(middle_s):
            period = terms.season.period(middle_s)
            found[period] = max(span.value, found.get(period, 0.0))
    return found
