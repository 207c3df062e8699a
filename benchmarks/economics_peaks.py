"""The grid's peaks as a site on the bench foresees them: `signals.peaks` on a forecast of the load.

Each interval of the next three days has its chance to be the month's peak, by the errors that a
forecast of it has by then. It hangs on the other days, too, and those beyond the forecast are taken
to be like the last days were. A peak that will not stand costs nothing.
"""

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
        month: those of a month add up to one at the most."""
        known = self.case.foreseen
        if i not in known:
            load = self._load(i)
            months_ahead = [int(one) for one in np.unique(load.period)]
            known[i] = (
                load,
                peaks.chances(
                    load,
                    {month: self._so_far_w(i, month) for month in months_ahead},
                    {int(day): self._errors(i, int(day)) for day in np.unique(load.day)},
                    final=True,
                    later={month: self._later(i, month) for month in months_ahead},
                ),
            )
        return known[i]

    def _load(self, i: int) -> peaks.Load:
        """What is foreseen of the days from that of `i` on, as far as their peaks count."""
        ahead = (self._day >= self._day[i]) & (self._day < self._day[i] + AHEAD_DAYS)
        rows = np.flatnonzero(ahead & self._counts)
        rows = rows[rows >= i]
        load_w = self.case.forecast(i, int(rows[-1]) + 1)[rows - i] if len(rows) else np.zeros(0)
        starts_s = np.asarray(rows * self.case.trace.step_s, dtype=np.float64)
        return peaks.Load(starts_s, load_w, self._month[rows], self._day[rows])

    def _errors(self, i: int, day: int) -> peaks.Errors:
        first = max(int(np.searchsorted(self._day, day)), i)
        share, usual = self.case.error_share(i, first), peaks.Errors()
        return peaks.Errors(usual.day * share, usual.own * share)

    def _so_far_w(self, i: int, month: int) -> float:
        """The month's highest load, as known when `i` begins, W."""
        return float(self.case.trace.load_w[:i][self._month[:i] == month].max(initial=0.0))

    def _later(self, i: int, month: int) -> peaks.Later:
        """The days of the month beyond the forecast, as the last days were.

        No trend is read out of the last days: one that goes on to the month's end is soon too sure
        of itself, and a peak that is missed costs a hundred that are watched in vain.
        """
        beyond = (self._month == month) & (self._day >= self._day[i] + AHEAD_DAYS)
        count = len(np.unique(self._day[beyond])) / WEATHER_DAYS
        days = np.unique(self._day[:i])[-LIKE_DAYS:]
        if not len(days):
            return peaks.Later(0.0, 0.0, 1.0)
        known_w = self.case.trace.load_w[:i]
        highest_w = np.array([known_w[self._day[:i] == one].max() for one in days])
        mean_w = float(highest_w.mean())
        return peaks.Later(count, mean_w, max(float(highest_w.std()), LEAST_SPREAD * mean_w))

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
