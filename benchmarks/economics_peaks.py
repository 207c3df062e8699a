"""The grid's peaks as a site on the bench foresees them: `signals.peaks` on a forecast of the load.

Each of the next three days has its chance to bring a new peak, by the errors that a forecast of it
has by then. Whether that stands until the month is over hangs on later days, too: those beyond the
forecast are taken to be like the last days were. A peak that will not stand costs nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from benchmarks.economics_case import Case, month_of, months

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.signals import peaks
from wattshift_scheduler.signals.words import Cap

AHEAD_DAYS = 3
SHED_TO_W = 0.75e6
"""What a site keeps to in a watched interval: its services, and machines at rest."""

LIKE_DAYS = 14
"""Past days by which those beyond the forecast are judged."""

WEATHER_DAYS = 3.0
"""Days that follow each other are alike: so many of them are one throw of the dice."""

LEAST_SPREAD = 0.02
"""Of the highest load of a day, whatever the last days were."""


@dataclass
class Watch:
    """Foresees the peaks of a case.

    Attributes:
        case: with load, its forecast, and the months whose peaks count.
    """

    case: Case
    _month: Ints = field(init=False)
    _day: Ints = field(init=False)
    _counts: Bools = field(init=False)

    def __post_init__(self) -> None:
        trace = self.case.trace
        self._month = months(trace)
        self._day = np.array([trace.day(i) for i in range(len(trace))])
        self._counts = np.array([month_of(int(one)) in self.case.season for one in self._month])

    def chances(self, i: int) -> tuple[peaks.Load, Floats]:
        """The load foreseen from interval `i` on, and each interval's chance to be the peak of its
        month."""
        known = self.case.foreseen
        if i not in known:
            found = list(self._days(i))
            load = peaks.Load(*(np.concatenate(rows) for rows in zip(*(
                (one.starts_s, one.load_w, one.period, one.day) for one, _ in found
            ), strict=True)))  # fmt: skip
            known[i] = (load, np.concatenate([chance for _, chance in found]))
        return known[i]

    def _days(self, i: int) -> Iterator[tuple[peaks.Load, Floats]]:
        """The days from that of `i` on, as far as their peaks count, with their chances."""
        for day in range(int(self._day[i]), int(self._day[i]) + AHEAD_DAYS):
            rows = np.flatnonzero((self._day == day) & self._counts)
            rows = rows[rows >= i]
            yield self._day_load(i, rows), self._day_chances(i, rows)

    def _day_load(self, i: int, rows: Ints) -> peaks.Load:
        trace = self.case.trace
        load_w = self.case.forecast(i, int(rows[-1]) + 1)[rows - i] if len(rows) else np.zeros(0)
        starts_s = np.asarray(rows * trace.step_s, dtype=np.float64)
        return peaks.Load(starts_s, load_w, self._month[rows], self._day[rows])

    def _day_chances(self, i: int, rows: Ints) -> Floats:
        if not len(rows):
            return np.zeros(0)
        load, usual = self._day_load(i, rows), peaks.Errors()
        month, day = int(load.period[0]), int(load.day[0])
        share = self.case.error_share(i, int(rows[0]))
        errors = peaks.Errors(usual.day * share, usual.own * share)
        chance = peaks.chances(load, {month: self._so_far_w(i, month, day)}, errors)
        stands = self._stands(i, month, day, float(load.load_w.max()))
        return np.asarray(chance * stands, dtype=np.float64)

    def _so_far_w(self, i: int, month: int, day: int) -> float:
        """The month's highest load before a day, as known and as foreseen when `i` begins, W."""
        known = self._month[:i] == month
        highest_w = float(self.case.trace.load_w[:i][known].max(initial=0.0))
        before = np.flatnonzero((self._month == month) & (self._day < day))
        before = before[before >= i]
        if len(before):
            foreseen_w = self.case.forecast(i, int(before[-1]) + 1)[before - i]
            highest_w = max(highest_w, float(foreseen_w.max()))
        return highest_w

    def _stands(self, i: int, month: int, day: int, load_w: float) -> float:
        """The chance that no later day of the month is higher than `load_w`.

        No trend is read out of the last days: one that goes on to the month's end is soon too sure
        of itself, and a peak that is missed costs a hundred that are watched in vain.
        """
        days = np.unique(self._day[:i])[-LIKE_DAYS:]
        if not len(days):
            return 1.0
        known_w = self.case.trace.load_w[:i]
        highest_w = np.array([known_w[self._day[:i] == one].max() for one in days])
        mean_w = float(highest_w.mean())
        spread = max(float(highest_w.std()) / mean_w, LEAST_SPREAD)
        later = len(np.unique(self._day[(self._month == month) & (self._day > day)]))
        z = (load_w / mean_w - 1.0) / spread
        return float((0.5 * math.erfc(-z / math.sqrt(2.0))) ** (later / WEATHER_DAYS))

    def caps(self, i: int, cover: float, least: float) -> tuple[Cap, ...]:
        """Caps on the intervals that hold `cover` of a day's chance, where that is `least`."""
        load, chance = self.chances(i)
        duty = peaks.Duty("peak", SHED_TO_W, self.case.trace.step_s, cover, least)
        return peaks.peak_caps(load, chance, duty)

    def by_interval(self, i: int, n: int) -> Floats:
        """The chance of each of the next `n` intervals to be its month's peak; shape (n,)."""
        load, chance = self.chances(i)
        found = np.zeros(n)
        at = np.round(load.starts_s / self.case.trace.step_s).astype(np.int64) - i
        inside = at < n
        found[at[inside]] = chance[inside]
        return found
