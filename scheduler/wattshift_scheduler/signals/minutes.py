"""Watts over time, kept by the minute of the UTC clock: an hour of it, and what is not known."""

import math
from dataclasses import dataclass, replace

MINUTE_S = 60.0

HOUR_S = 3600.0

MOST_MINUTES = 61
"""An hour of whole minutes, the longest demand interval in use, and the minute that runs."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute: its number since 1970, the energy counted in it, and the seconds counted."""

    number: int
    energy_j: float
    counted_s: float


@dataclass(frozen=True, slots=True)
class Minutes:
    """Energy by the minute, oldest first; what was not counted is unknown and never zero.

    Attributes:
        rows: at most MOST_MINUTES of them.
        upto_s: time up to which it is counted, or was given up as unknown, s; -inf: never begun.
    """

    rows: tuple[Minute, ...] = ()
    upto_s: float = -math.inf

    def until(self, to_s: float, watts_w: float, first_w: float | None = None) -> "Minutes":
        """Count watts from `upto_s` to `to_s`; NaN, or the first time: unknown.

        Args:
            to_s: end of the span, s.
            watts_w: watts at its end, W.
            first_w: watts at its beginning, from where they went straight to the end, W; None: the
                same throughout.
        """
        if not to_s > self.upto_s:
            return self
        if not (math.isfinite(self.upto_s) and math.isfinite(watts_w)):
            return replace(self, upto_s=to_s)
        at_s, rows = max(self.upto_s, to_s - HOUR_S), list(self.rows)
        slope_w_per_s = 0.0 if first_w is None else (watts_w - first_w) / (to_s - self.upto_s)
        while at_s < to_s:
            number = math.floor(at_s / MINUTE_S)
            end_s = min((number + 1) * MINUTE_S, to_s)
            span_s = end_s - at_s
            energy_j = (watts_w - slope_w_per_s * (to_s - (at_s + end_s) / 2.0)) * span_s
            same = rows and rows[-1].number == number
            last = rows.pop() if same else Minute(number, 0.0, 0.0)
            rows.append(Minute(number, last.energy_j + energy_j, last.counted_s + span_s))
            at_s = end_s
        return Minutes(tuple(rows[-MOST_MINUTES:]), to_s)

    def energy_j(self, from_s: float, unknown_w: float) -> float:
        """Energy from `from_s`, a whole minute, up to `upto_s`; unknown time at `unknown_w`, J."""
        since = [row for row in self.rows if row.number * MINUTE_S >= from_s]
        unknown_s = self.upto_s - from_s - sum(row.counted_s for row in since)
        return sum(row.energy_j for row in since) + max(unknown_s, 0.0) * unknown_w

    def mean_w(self, from_s: float, to_s: float, least_s: float) -> float:
        """Mean over the minutes that touch a span, W; NaN where fewer than `least_s` are known."""
        inside = [row for row in self.rows if from_s - MINUTE_S < row.number * MINUTE_S < to_s]
        counted_s = sum(row.counted_s for row in inside)
        if not inside or counted_s < least_s:
            return math.nan
        return sum(row.energy_j for row in inside) / counted_s
