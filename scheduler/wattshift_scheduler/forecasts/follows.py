"""What real-time prices follow from day-ahead ones, learnt from the past alone.

Both are judged on an asinh scale: about a ratio for dear hours. The middle is a straight line with
a bend above the dearest tenth, moved by how far the price now lies beside it, which fades: dear
day-ahead hours are mostly followed by cheaper ones, and now and then by far dearer ones. How wide
the band is follows from what such forecasts missed at the same lead, apart for dear hours and for
times at which the market was upset.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.forecasts.chain import Chain, Prospect
from wattshift_scheduler.forecasts.forecast import Band

FADES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a deviation that may be left an hour later; the one that fitted the past best is used,
by the mean of errors without their square, for which a spike is one error and no more."""

NEWEST = (1.0, 0.75, 0.5, 0.25)
"""Weights of the newest interval beside the last hour's mean: a spike may be over at once."""

UPSET = 0.9
"""Quantile of deviations above which the market counts as upset: then forecasts miss by more."""

WIDTHS_H = 3
"""Hours ahead for which it is learnt by how much forecasts miss."""

LINEAR_USD_PER_MWH = 20.0
"""Below about this the asinh scale is linear."""

DEAR = 0.9
"""Quantile of day-ahead prices above which another slope may hold."""

ALIKE, ALIKE_SHARE = 0.05, 0.99
"""A market whose prices lie so near the posted ones on the scale, in all but a hundredth of the
past, keeps its word: what is posted holds. Rounding, or a clock that is seconds off, makes no other
price."""

HIGHEST_USD_PER_MWH = 3e4
"""No price is foreseen above this: it would be taken for a fault of its source."""

LEAST_PAST_H = 42
"""Hours of the past below which day-ahead prices are taken as they are."""

CHAIN_PAST_H = 56 * 24
"""Hours of the past below which it is not said how prices move on: spikes are few, and what four
weeks of them taught earned nothing for sure on the days that followed."""

LEAST_SEEN = 20
"""Forecasts of one sort below which their errors are no distribution: then those of all hold."""

Widths = tuple[tuple[float, float], ...]
"""Quantiles 0.1 and 0.9 of what was missed, by sort: twice that it was upset, and once that the
hour was dear."""


@dataclass(frozen=True, slots=True)
class Follows:
    """What follows day-ahead prices, on the asinh scale.

    Attributes:
        at, slope, bend, knee: a straight line, and what the slope changes by above the knee.
        fade, dear_fade: share of a deviation that is left an hour later, if that hour is dear.
        newest: weight of the newest interval in it; the rest is the last hour's.
        upset: a deviation above this is one of the largest tenth.
        edges: by lead in intervals; the last lead holds from then on.
        chain: how deviations from the line move on, from one interval to the next; None: not known.
    """

    at: float = 0.0
    slope: float = 1.0
    bend: float = 0.0
    knee: float = 0.0
    fade: float = 0.0
    dear_fade: float = 0.0
    newest: float = 1.0
    upset: float = math.inf
    edges: tuple[Widths, ...] = (((0.0, 0.0),) * 4,)
    chain: Chain | None = None

    @classmethod
    def learnt(cls, ahead: Floats, price: Floats, hour: int) -> "Follows":
        """From the past.

        Args:
            ahead, price: of each past interval, in USD/MWh and finite; of one shape.
            hour: intervals in an hour.
        """
        x, y = scaled(ahead), scaled(price)
        if len(x) < LEAST_PAST_H * hour or np.quantile(np.abs(y - x), ALIKE_SHARE) <= ALIKE:
            return cls()
        knee = float(np.quantile(x, DEAR))
        columns = np.column_stack([np.ones(len(x)), x, np.maximum(x - knee, 0.0)])
        fitted, *_ = np.linalg.lstsq(columns, y, rcond=None)
        off = y - columns @ fitted
        before = np.convolve(off, np.ones(hour) / hour)[: len(off)]
        tried: list[tuple[float, float, float, float]] = []
        for newest in NEWEST:
            seen = newest * off + (1.0 - newest) * before
            usual, dear = (_best_fade(off, seen, mine, hour) for mine in (x <= knee, x > knee))
            tried.append((usual[0] + dear[0], usual[1], dear[1], newest))
        _, fade, dear_fade, weight = min(tried)
        seen = weight * off + (1.0 - weight) * before
        upset = float(np.quantile(np.abs(seen), UPSET))
        fades = np.where(x > knee, dear_fade, fade)
        edges = []
        for k in range(1, WIDTHS_H * hour + 1):
            missed = off[k:] - fades[k:] ** (k / hour) * seen[:-k]
            edges.append(_widths(missed, 2 * (np.abs(seen[:-k]) > upset) + (x[k:] > knee)))
        at, slope, bend = (float(one) for one in fitted)
        chain = Chain.learnt(off) if len(price) >= CHAIN_PAST_H * hour else None
        return cls(at, slope, bend, knee, fade, dear_fade, weight, upset, tuple(edges), chain)

    @property
    def sure(self) -> bool:
        """Whether what is posted is what holds: no other price was ever seen beside it."""
        return self == Follows()

    def of(self, ahead: Floats) -> Floats:
        """What day-ahead prices are followed by, on the scale."""
        x = scaled(ahead)
        return np.asarray(self.at + self.slope * x + self.bend * np.maximum(x - self.knee, 0.0))

    def band(self, ahead: Floats, lately_ahead: Floats, lately: Floats, hour: int) -> Band:
        """Prices from the interval on that runs, whose price is known, USD/MWh.

        Args:
            ahead: day-ahead prices of the intervals to be foreseen; shape (n,).
            lately_ahead, lately: day-ahead prices and prices of the last hour's intervals, of those
                that it was learnt from, the one that runs at the end.
            hour: intervals of `ahead` in an hour.
        """
        n = len(ahead)
        beside = scaled(lately) - self.of(lately_ahead)
        off = self.newest * float(beside[-1]) + (1.0 - self.newest) * float(beside.mean())
        dear = scaled(ahead) > self.knee
        fades = np.where(dear, self.dear_fade, self.fade) ** (np.arange(n) / hour)
        middle = self.of(ahead) + off * fades
        middle[:1] = scaled(lately[-1:])
        learnt = len(self.edges) / (WIDTHS_H * hour) if len(self.edges) > 1 else 1.0
        lead = np.minimum(np.ceil(np.arange(n) * learnt), len(self.edges)).astype(np.int64) - 1
        sort = 2 * int(abs(off) > self.upset) + dear
        wide = np.array(self.edges)[lead, sort]
        wide[:1] = 0.0
        return Band(*(_price(middle + edge) for edge in (wide[:, 0], 0.0, wide[:, 1])))

    def prospect(
        self, ahead: Floats, lately_ahead: Floats, lately: Floats, hour: int
    ) -> Prospect | None:
        """How prices may move on from the interval that runs; None where that is not known. Args as
        for `band`."""
        if self.chain is None:
            return None
        beside = scaled(lately) - self.of(lately_ahead)
        on_scale = self.of(ahead)[:, None] + self.chain.middles
        prices = np.minimum(_price(on_scale), HIGHEST_USD_PER_MWH)
        share = len(self.edges) / (WIDTHS_H * hour)
        return Prospect(prices, self.chain.over(share), self.chain.state(beside))


def scaled(price: Floats) -> Floats:
    """Prices on the asinh scale."""
    return np.asarray(np.arcsinh(price / LINEAR_USD_PER_MWH))


def _price(on_scale: Floats) -> Floats:
    return np.asarray(LINEAR_USD_PER_MWH * np.sinh(on_scale))


def _best_fade(off: Floats, seen: Floats, mine: Bools, hour: int) -> tuple[float, float]:
    """The error, on the scale, of what is foreseen of some intervals from up to two hours before,
    summed over them, and the fade that makes it the least."""
    leads = range(1, 2 * hour + 1)

    def missed(fade: float) -> float:
        return sum(
            float(np.abs(off[k:] - fade ** (k / hour) * seen[:-k])[mine[k:]].sum()) for k in leads
        )

    return min((missed(fade), fade) for fade in FADES)


def _widths(missed: Floats, sort: Floats) -> Widths:
    """Quantiles 0.1 and 0.9 of what forecasts missed, by sort; 0 is inside."""
    found = []
    for number in range(4):
        mine = missed[sort == number]
        low, high = np.quantile(mine if len(mine) >= LEAST_SEEN else missed, (0.1, 0.9))
        found.append((min(float(low), 0.0), max(float(high), 0.0)))
    return tuple(found)
