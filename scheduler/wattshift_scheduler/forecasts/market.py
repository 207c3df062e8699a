"""What energy will cost, out of what is posted: the same for a live site and for the bench.

A market posts prices before their time, and others may hold by then: real-time prices follow
day-ahead ones. What followed what is learnt from the past (`follows`); where what was posted always
held, it stands as it is. Beyond what is posted, posted prices are foreseen as the same time of day
had them.
"""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.chain import Prospect
from wattshift_scheduler.forecasts.follows import Follows
from wattshift_scheduler.forecasts.forecast import Band, seasonal

LEARNT_S = 182.0 * 86_400.0
"""The past from which it is learnt what follows posted prices: dear hours are few."""

DAYS_S = 28.0 * 86_400.0
"""The past by whose times of day prices are foreseen that are not posted yet."""

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Past:
    """Intervals of the past, of one length, rising: when each began, s, what was posted for it
    beforehand, and what held, USD/MWh; finite; shape (past,) each."""

    times_s: Floats
    posted: Floats
    price: Floats

    def lately(self, span_s: float) -> "Past":
        """The last `span_s` seconds of it."""
        if not len(self.times_s):
            return self
        first = int(np.searchsorted(self.times_s, self.times_s[-1] - span_s, side="right"))
        return Past(self.times_s[first:], self.posted[first:], self.price[first:])


@dataclass(frozen=True, slots=True)
class Market:
    """What is known of a market by now.

    Attributes:
        follows: what follows posted prices.
        step_s: length of the intervals that it was learnt from, s.
    """

    follows: Follows
    step_s: float

    @classmethod
    def learnt(cls, past: Past, step_s: float) -> "Market":
        """From the past, whose intervals are `step_s` long."""
        known = past.lately(LEARNT_S)
        return cls(Follows.learnt(known.posted, known.price, round(HOUR_S / step_s)), step_s)

    @property
    def sure(self) -> bool:
        """Whether what is posted holds."""
        return self.follows.sure

    def foreseen(
        self, past: Past, posted: Floats, starts_s: Floats, step_s: float
    ) -> tuple[Band, Prospect | None]:
        """The price of each interval from the one on that runs, and how it may move on.

        Args:
            past: ends with the interval that runs.
            posted: prices ahead, the first of the interval that runs, USD/MWh; NaN: not posted yet;
                shape (n,).
            starts_s: when each interval begins; shape (n,).
            step_s: how long each is, s.
        """
        hour = max(round(HOUR_S / step_s), 1)
        last = past.lately(HOUR_S)
        args = (_completed(past, posted, starts_s), last.posted, last.price, hour)
        return self.follows.band(*args), self.follows.prospect(*args)


def _completed(past: Past, posted: Floats, starts_s: Floats) -> Floats:
    """Posted prices, and beyond them what they were at the same time of day."""
    missing = np.flatnonzero(np.isnan(posted))
    if not len(missing):
        return posted
    known = np.flatnonzero(~np.isnan(posted))
    times_s = np.concatenate([past.times_s, starts_s[known]])
    values = np.concatenate([past.posted, posted[known]])
    times_s, first = np.unique(times_s, return_index=True)
    rows = times_s >= times_s[-1] - DAYS_S
    found = posted.copy()
    found[missing] = seasonal(times_s[rows], values[first][rows], starts_s[missing]).mid
    return found
