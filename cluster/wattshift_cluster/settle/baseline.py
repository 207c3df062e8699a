"""The baseline of one event by its program's method, from the site's own samples.

Days are compared on the program's own clock: an interval and the same clock time of earlier days,
over daylight saving too. A day is 24 hours that begin twelve hours before the event, so that what
the same day showed before it always lies inside.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from wattshift_cluster.config.settlement import SettledProgram, Settlement, zone_of
from wattshift_cluster.settle.intervals import Doubts, Metered, Samples, metered
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.baselines import (
    FIVE_OF_TEN,
    RRMSE_MOST,
    TEN_OF_TEN,
    HighOf,
    back_tested,
    before_after,
    excluded,
    firm_service_level,
    high_of,
)
from wattshift_scheduler.signals.words import GridEvent

DAYS_BACK = 45
"""Days that are looked at: ten of a kind, with holidays and events between them."""

BEFORE_S = 43_200.0
DAY_S = 86_400.0
METHODS = {"high_10_of_10": TEN_OF_TEN, "high_5_of_10": FIVE_OF_TEN}


@dataclass(frozen=True, slots=True)
class Told:
    """A baseline: W for each interval, NaN unknown; what adjusted it, NaN nothing; and notes."""

    watts_w: Floats
    adjustment: float
    notes: tuple[str, ...]


def doubts_of(terms: Settlement) -> Doubts:
    """How a site's samples are read, by its terms."""
    return Doubts(
        gap_most_s=terms.meter_gap_s,
        most_w=math.inf if terms.meter_most_w is None else terms.meter_most_w,
        jump_w=math.inf if terms.meter_jump_w is None else terms.meter_jump_w,
        generates=terms.generates,
    )


def baseline(
    program: SettledProgram,
    terms: Settlement,
    samples: Samples,
    event: Metered,
    others: Iterable[GridEvent],
) -> Told:
    """The baseline of each interval of `event`, whose first one begins with the event.

    Args:
        program, terms: what was agreed.
        samples: of the site meter, back to DAYS_BACK days before where days are compared.
        event: the event's intervals.
        others: all events: their days are not compared with.
    """
    n = len(event.starts_s)
    if program.method == "fsl":
        assert program.fsl_w is not None, "checked where the terms are read"
        return Told(firm_service_level(program.fsl_w, n), math.nan, ())
    if program.method == "before_after":
        return _before(program, terms, samples, event)
    method = METHODS[program.method]
    return _compared(program, terms, samples, event, others, method)


def _before(program: SettledProgram, terms: Settlement, samples: Samples, event: Metered) -> Told:
    count = round(program.window_s / program.interval_s)
    ends_s = float(event.starts_s[0]) - program.lead_s
    starts_s: Floats = ends_s - program.interval_s * np.arange(count, 0, -1, dtype=np.float64)
    before = metered(samples, starts_s, starts_s + program.interval_s, doubts_of(terms))
    both_w = np.concatenate([before.mean_w, event.mean_w])
    watts_w = before_after(both_w, count, count)
    notes = () if np.isfinite(watts_w).all() else ("the meter before the event is not known",)
    return Told(watts_w, math.nan, notes)


def _compared(
    program: SettledProgram,
    terms: Settlement,
    samples: Samples,
    event: Metered,
    others: Iterable[GridEvent],
    method: HighOf,
) -> Told:
    zone = zone_of(terms.zone)
    first_s = math.floor(event.starts_s[0] / program.interval_s) * program.interval_s
    per_day = round(DAY_S / program.interval_s)
    starts = round(BEFORE_S / program.interval_s)
    rows = np.floor((event.starts_s - first_s) / program.interval_s).astype(np.int64) + starts
    ends = int(rows[-1]) + 1
    if ends > per_day:
        unknown = np.full(len(rows), math.nan)
        return Told(unknown, math.nan, ("longer than 12 h: days cannot be compared",))
    begin = datetime.fromtimestamp(first_s, zone)
    days = [begin.date() - timedelta(n) for n in range(DAYS_BACK, 0, -1)]
    # The same clock time of each day; over a change of the clock these are not 24 h apart.
    begins_s = [
        datetime.combine(day, begin.time(), zone).timestamp() - BEFORE_S
        for day in (*days, begin.date())
    ]
    grid_s = np.add.outer(np.array(begins_s), np.arange(per_day) * program.interval_s)
    flat_s = grid_s.ravel()
    found = metered(samples, flat_s, flat_s + program.interval_s, doubts_of(terms))
    days_w = found.mean_w.reshape(grid_s.shape)
    called = [datetime.fromtimestamp(one.starts_s, zone).date() for one in others]
    exclude = excluded(days, begin.date(), called, terms.holidays)
    told = high_of(
        days_w[:-1],
        best=method.best,
        of=method.of,
        starts=starts,
        ends=ends,
        exclude=exclude,
        adjust=method.adjust,
        today_w=days_w[-1],
    )
    error = back_tested(days_w[:-1], method, starts, ends, exclude)
    notes = (*told.notes, *_accuracy(error), f"days {_listed(days, told.days)}")
    return Told(told.watts_w[rows], told.adjustment, notes)


def _accuracy(error: float) -> tuple[str, ...]:
    if math.isnan(error):
        return ("its error is not known: too few days",)
    verdict = "within" if error <= RRMSE_MOST else "ABOVE"
    return (f"relative error {error:.1%}, {verdict} {RRMSE_MOST:.0%}",)


def _listed(days: list[date], rows: tuple[int, ...]) -> str:
    return ", ".join(str(days[row]) for row in rows) or "none"
