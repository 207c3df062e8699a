"""The demand charge as a source of caps: the month's highest interval so far is not exceeded.

The site meter's samples come in by `sample`. What a month is billed for in any case is the cap of
its intervals; the month after it begins with what is planned.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from wattshift_cluster.grid.peaks.kept_highest import KeptHighest
from wattshift_cluster.grid.peaks.periods import Season
from wattshift_cluster.grid.said import Said, Say
from wattshift_scheduler.signals.billed import Demand, Month, billed_w, metered
from wattshift_scheduler.signals.words import Cap, CapKind

LOOK_S = 600.0
"""How often it is looked whether a span has ended, where nothing else wakes it."""


@dataclass(frozen=True, slots=True)
class DemandTerms:
    """What was agreed.

    Attributes:
        name: of the source; begins the caps' ids.
        season: when demand counts.
        window_s: length of a demand interval, s.
        planned_w: demand that is paid for in any case, or was planned, W.
        most_w: limit of the connection, W; more than that no interval can truly show.
    """

    name: str
    season: Season
    window_s: float
    planned_w: float
    most_w: float


class DemandSource:
    """The demand of one tariff (see `said.Source`)."""

    def __init__(
        self,
        terms: DemandTerms,
        kept: KeptHighest,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Go on from what was kept. `clock_s`: unix time, s."""
        self._terms, self._kept, self._clock_s = terms, kept, clock_s
        period = terms.season.period(clock_s())
        self._demand = Demand(Month(period, kept.of(period)))
        self._risen = asyncio.Event()
        self._said: Said | None = None

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        return self._terms.name

    def sample(self, watts_w: float, at_s: float) -> None:
        """Take a sample of the site meter: W, NaN unknown; unix time, s. Quick."""
        terms = self._terms
        middle_s = (math.floor(at_s / terms.window_s) - 0.5) * terms.window_s
        counts = middle_s >= 0 and terms.season.counts(middle_s)
        self._demand = metered(
            self._demand,
            watts_w,
            at_s,
            window_s=terms.window_s,
            most_w=terms.most_w,
            month=terms.season.period(middle_s) if counts else None,
        )
        month = self._demand.month
        if self._kept.raise_to(month.number, month.highest_w):
            self._risen.set()

    async def run(self, say: Say) -> None:
        """Speak until cancelled."""
        while True:
            self._risen.clear()
            self._speak(say)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._risen.wait()

    def caps(self, now_s: float) -> tuple[Cap, ...]:
        """Caps of the month that runs and of the next one, without what is over."""
        first = self._terms.season.period_starts_s(now_s)
        second = self._terms.season.period_ends_s(now_s)
        found = [*self._month(first), *self._month(second)]
        return tuple(cap for cap in found if cap.ends_s is not None and cap.ends_s > now_s)

    def _month(self, begins_s: float) -> Iterator[Cap]:
        terms = self._terms
        period = terms.season.period(begins_s)
        limit_w = billed_w(Month(period, self._kept.of(period)), period, terms.planned_w)
        for starts_s, ends_s in terms.season.spans(begins_s, terms.season.period_ends_s(begins_s)):
            yield Cap(
                f"{terms.name}-{starts_s:.0f}",
                terms.name,
                min(limit_w, terms.most_w),
                starts_s,
                ends_s,
                CapKind.INTERVAL,
                terms.window_s,
            )

    def _speak(self, say: Say) -> None:
        now_s = self._clock_s()
        said = Said(self._terms.name, now_s, caps=self.caps(now_s))
        if self._said is None or self._said.caps != said.caps:
            self._said = said
            say(said)

    def _pause_s(self) -> float:
        now_s = self._clock_s()
        ends = [cap.ends_s - now_s for cap in self.caps(now_s) if cap.ends_s is not None]
        return min([LOOK_S, *ends])
