"""What the site and its mining drew, by the minute: for reports to utilities and for baselines.

Time without a sample is unknown and never zero, so a mean says which part of its span was known.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

MINUTE_S = 60.0
MINUTES_KEPT = 25 * 60
"""A day and the hour that runs: utilities ask for the day before at most."""

GAP_S = 5.0
"""Two samples further apart say nothing of the time between, where samples are taken oftener."""


@dataclass(slots=True)
class _Minute:
    energy_j: float = 0.0
    counted_s: float = 0.0
    peak_w: float = -math.inf


@dataclass(frozen=True, slots=True)
class Span:
    """A span of the past.

    Attributes:
        mean_w, peak_w: over what is known of it, W; NaN where nothing is.
        known_share: the part of it that is known, 0 to 1.
    """

    mean_w: float
    peak_w: float
    known_share: float


class History:
    """Watts of one thing by the minute of the UTC clock; the oldest minutes are dropped."""

    def __init__(self, gap_s: float = GAP_S) -> None:
        """Start without a sample; two that are further apart than `gap_s` make no line."""
        self._gap_s = gap_s
        self._minutes: OrderedDict[int, _Minute] = OrderedDict()
        self._last: tuple[float, float] | None = None

    def sampled(self, watts_w: float | None, at_s: float) -> None:
        """Count a sample; None or NaN breaks the line, one that is out of turn is dropped."""
        if watts_w is None or not math.isfinite(watts_w):
            self._last = None
            return
        before, self._last = self._last, (at_s, watts_w)
        if before is None or not 0.0 < at_s - before[0] <= self._gap_s:
            if before is not None and at_s <= before[0]:
                self._last = before
            return
        from_s, from_w = before
        slope_w_per_s = (watts_w - from_w) / (at_s - from_s)
        while from_s < at_s:
            number = math.floor(from_s / MINUTE_S)
            to_s = min((number + 1) * MINUTE_S, at_s)
            to_w = from_w + slope_w_per_s * (to_s - from_s)
            minute = self._minutes.setdefault(number, _Minute())
            minute.energy_j += (from_w + to_w) / 2.0 * (to_s - from_s)
            minute.counted_s += to_s - from_s
            minute.peak_w = max(minute.peak_w, from_w, to_w)
            from_s, from_w = to_s, to_w
        while len(self._minutes) > MINUTES_KEPT:
            self._minutes.popitem(last=False)

    def span(self, starts_s: float, ends_s: float) -> Span:
        """What is known of a span; a minute that it cuts counts with the minute's mean."""
        first, past = math.floor(starts_s / MINUTE_S), math.ceil(ends_s / MINUTE_S)
        energy_j = known_s = 0.0
        peak_w = -math.inf
        for number in range(max(first, past - MINUTES_KEPT), past):
            minute = self._minutes.get(number)
            if minute is None or not minute.counted_s:
                continue
            inside_s = min((number + 1) * MINUTE_S, ends_s) - max(number * MINUTE_S, starts_s)
            share = inside_s / MINUTE_S
            energy_j += minute.energy_j * share
            known_s += minute.counted_s * share
            peak_w = max(peak_w, minute.peak_w)
        if not known_s > 0:
            return Span(math.nan, math.nan, 0.0)
        return Span(energy_j / known_s, peak_w, min(known_s / (ends_s - starts_s), 1.0))
