"""One stretch of a trace as a site meets it: seeded events and batch jobs, and what is known when.

What a policy may look at when an interval begins, the same for all of them but the clairvoyant:

- day-ahead prices as far as the market has posted them (half past one, for the whole next day);
- all earlier real-time prices, and that of the interval that begins: the market dispatches every
  five minutes and posts what it dispatches at, and the interval's settlement is their mean;
- events from their notice on, batch jobs from their submission on;
- the services' need of this interval, and all earlier ones;
- the grid's load until now, and a forecast of it whose errors are those that `signals.peaks` takes
  it to have: 2 % that a day shares, 1 % of each hour; of the day that runs they shrink by the hour,
  from three quarters of that at midnight to a quarter at five in the afternoon.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from benchmarks.economics_data import DAY_S, Trace
from benchmarks.economics_site import UNITS

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.signals.peaks import Errors, Load

CONNECTION_W = 20.6e6
"""Of the site: all its machines and GPUs at once, and a little."""

BASE_W = 20.25e6
"""What the site draws at most, and by its contract of demand response usually draws: what it draws
less in an event is reduced."""

RAMP_UP_W_PER_S = 20e6 * 0.04 / 60.0
"""Its connection's terms: 4 % of 20 MW a minute upwards (of the means of intervals)."""

EVENT_CHANCE, EVENT_FIRM = 0.5, 0.3
EVENT_PAYS = (60.0, 120.0, 250.0, 500.0)
EVENT_REDUCES_W = (5e6, 8e6, 12e6)
EVENT_HOURS, NOTICE_HOURS = (1, 3), (1, 3)
DEAREST_HOURS = 6
"""An event begins in one of the dearest hours of its day, as grids call for help then."""

JOBS_A_DAY = 3
BATCH_USD_PER_UNIT_H = 1.2
"""0.30 USD a GPU-hour, as work that may wait is sold; 300 USD/MWh."""

LATE_USD_PER_UNIT_H = 1.2
"""For work that is not done by its deadline, beyond its pay: as much again."""

CP_USD_PER_W = 0.060 / 4
"""About 60 USD a kW and year of transmission, a quarter for each of the four summer months, by the
draw in the one hour of the month in which the grid's load was highest (ERCOT's 4CP; assumed)."""

PEAK_HOUR = 17.0
"""About when the grid's load is highest on a day of summer."""


@dataclass(frozen=True)
class Event:
    """A call of the demand response programme; intervals count from the trace's first.

    Attributes:
        name: of it.
        notified, starts, ends: intervals, the end exclusive.
        reduction_w: below `BASE_W` is paid up to this, W.
        usd_per_mwh: for what is reduced.
        penalty_usd_per_mwh: for what is not.
        firm: the site may not draw more than its base less the reduction.
    """

    name: str
    notified: int
    starts: int
    ends: int
    reduction_w: float
    usd_per_mwh: float
    penalty_usd_per_mwh: float
    firm: bool

    @property
    def limit_w(self) -> float:
        """Below it nothing more is paid, W."""
        return BASE_W - self.reduction_w


@dataclass(frozen=True)
class BatchJob:
    """Deadline work.

    Attributes:
        name: of it.
        arrives, deadline: intervals, from the trace's first; done before `deadline` begins.
        unit_h: hours of one unit that it needs.
        most: units that it can use at once.
    """

    name: str
    arrives: int
    deadline: int
    unit_h: float
    most: int


@dataclass(frozen=True)
class Case:
    """Intervals `first` to `end` of a trace, with all that happens there.

    Attributes:
        trace: the market.
        first, end: intervals; the end exclusive.
        events, jobs: of this stretch, by time.
        season: months whose coincident peaks are charged.
        peaks: intervals that turn out to be coincident peaks.
        load_forecast_w: the grid's load as foreseen the day before; shape of the trace, or empty.
    """

    trace: Trace
    first: int
    end: int
    events: tuple[Event, ...] = ()
    jobs: tuple[BatchJob, ...] = ()
    season: tuple[int, ...] = ()
    peaks: tuple[int, ...] = ()
    load_forecast_w: Floats = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return self.end - self.first

    def known_events(self, i: int) -> tuple[Event, ...]:
        """Events that have been notified and are not over."""
        return tuple(one for one in self.events if one.notified <= i < one.ends)

    def running(self, i: int) -> tuple[Event, ...]:
        """Events in force."""
        return tuple(one for one in self.events if one.starts <= i < one.ends)

    def cap_w(self, i: int) -> float:
        """The hard cap in force: the connection, and firm events, W."""
        firm = [one.limit_w for one in self.running(i) if one.firm]
        return min([CONNECTION_W, *firm])

    def paid_usd_per_mwh(self, i: int) -> float:
        """What one more MWh costs beside its price, as long as an event pays for less of it."""
        return sum(one.usd_per_mwh + one.penalty_usd_per_mwh for one in self.running(i))

    @cached_property
    def needs(self) -> Ints:
        """Units that the services need, over the whole trace."""
        return np.ceil(UNITS * self.trace.share - 1e-9).astype(np.int64)

    @cached_property
    def foreseen(self) -> dict[int, tuple[Load, Floats]]:
        """What was foreseen of peaks, by the interval in which it was: the same for every policy,
        so it is worked out once."""
        return {}

    def need(self, i: int) -> int:
        """Units that the services need."""
        return int(self.needs[i])

    def open_jobs(self, i: int) -> tuple[BatchJob, ...]:
        """Jobs that have been submitted and whose deadline lies ahead."""
        return tuple(one for one in self.jobs if one.arrives <= i < one.deadline)

    def forecast(self, i: int, end: int) -> Floats:
        """The grid's load in `i` to `end`, within a day, as foreseen when `i` begins, W."""
        share = self.error_share(i, i)
        before_w, truth_w = self.load_forecast_w[i:end], self.trace.load_w[i:end]
        today = np.array([self.trace.day(k) == self.trace.day(i) for k in range(i, end)])
        return np.where(today, truth_w + share * (before_w - truth_w), before_w)

    def error_share(self, i: int, k: int) -> float:
        """What is left, when `i` begins, of the errors that a forecast of `k` had a day before."""
        if self.trace.day(k) > self.trace.day(i):
            return 1.0
        left_h = max(PEAK_HOUR - self.trace.local_s(i) / 3600.0, 0.0)
        return 0.25 + 0.5 * left_h / PEAK_HOUR


def case(trace: Trace, first: int, end: int, seed: int, *, season: tuple[int, ...] = ()) -> Case:
    """A stretch with its seeded events and jobs. The same trace, span and seed: the same case.

    Args:
        trace, first, end: which stretch.
        seed: of events, jobs and forecasts.
        season: months (1 to 12) whose coincident peaks are charged; none: no peak is.
    """
    events: list[Event] = []
    jobs: list[BatchJob] = []
    a_day = round(DAY_S / trace.step_s)
    for day in range(first, end - a_day + 1, a_day):
        dice = np.random.default_rng([seed, day])
        events += _events(trace, day, day + a_day, dice)
        jobs += _jobs(trace, day, day + a_day, dice)
    return Case(
        trace, first, end, tuple(events), tuple(jobs),
        season, coincident(trace, first, end, season),
        _foreseen(trace, seed) if season else np.zeros(0),
    )  # fmt: skip


def _events(trace: Trace, first: int, end: int, dice: np.random.Generator) -> list[Event]:
    hour = round(3600.0 / trace.step_s)
    if dice.random() >= EVENT_CHANCE:
        return []
    means = trace.ahead_usd_per_mwh[first:end].reshape(-1, hour).mean(axis=1)
    dearest = np.argsort(-means, kind="stable")[:DEAREST_HOURS]
    starts = first + hour * int(dice.choice(dearest[dearest >= NOTICE_HOURS[1]]))
    lasts = int(dice.integers(EVENT_HOURS[0], EVENT_HOURS[1] + 1)) * hour
    notice = int(dice.integers(NOTICE_HOURS[0], NOTICE_HOURS[1] + 1)) * hour
    pays = float(dice.choice(EVENT_PAYS))
    return [
        Event(
            f"event-{starts}", starts - notice, starts, min(starts + lasts, end),
            float(dice.choice(EVENT_REDUCES_W)), pays, 0.5 * pays, dice.random() < EVENT_FIRM,
        )
    ]  # fmt: skip


def _jobs(trace: Trace, first: int, end: int, dice: np.random.Generator) -> list[BatchJob]:
    """Jobs of one day, each with time for twice its work on what earlier ones leave free."""
    hour = round(3600.0 / trace.step_s)
    need = np.ceil(UNITS * trace.share[first:end] - 1e-9)
    free = (UNITS - need) * trace.hours
    found: list[BatchJob] = []
    for number in range(JOBS_A_DAY):
        arrives = int(dice.integers(0, 11)) * hour
        deadline = min(arrives + int(dice.integers(5, 14)) * hour, end - first)
        most = int(dice.choice((12, 20, 30)))
        can = np.minimum(free[arrives:deadline], most * trace.hours)
        wants = float(dice.uniform(0.2, 0.5)) * float(can.sum())
        if wants <= 0.0:
            continue
        free[arrives:deadline] -= can * (wants / can.sum()) * 1.5
        np.maximum(free, 0.0, out=free)
        name = f"job-{first}-{number}"
        found.append(BatchJob(name, first + arrives, first + deadline, round(wants, 2), most))
    return sorted(found, key=lambda one: (one.arrives, one.deadline, one.name))


def months(trace: Trace) -> Ints:
    """Number of the month (year x 12 + month) of each interval on the market's clock."""
    at = np.array([trace.at_s(i) + trace.offset_s[i] for i in range(len(trace))])
    return np.asarray(at.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64))


def month_of(number: int) -> int:
    """1 to 12."""
    return number % 12 + 1


def coincident(trace: Trace, first: int, end: int, season: tuple[int, ...]) -> tuple[int, ...]:
    """The interval of highest load of each month of the season that lies whole in the span."""
    month = months(trace)
    found = []
    for number in np.unique(month[first:end]):
        mine = np.flatnonzero(month == number)
        if month_of(int(number)) in season and mine[0] >= first and mine[-1] < end:
            found.append(int(mine[np.argmax(trace.load_w[mine])]))
    return tuple(found)


def _foreseen(trace: Trace, seed: int) -> Floats:
    """The grid's load as a forecast of the day before has it."""
    errors = Errors()
    dice = np.random.default_rng([seed, 4])
    days = np.array([trace.day(i) for i in range(len(trace))])
    shared = dice.normal(0.0, errors.day, days.max() - days.min() + 1)[days - days.min()]
    own = dice.normal(0.0, errors.own, len(trace))
    return np.asarray(trace.load_w * (1.0 + shared + own))


def spans(trace: Trace, count: int, from_share: float, seed: int) -> Sequence[int]:
    """First intervals of `count` seeded days, one from each equal part of the rest of the trace."""
    a_day = round(DAY_S / trace.step_s)
    days = len(trace) // a_day
    begin = round(days * from_share)
    edges = np.linspace(begin, days, count + 1).astype(int).tolist()
    dice = np.random.default_rng([seed, 12])
    return [int(dice.integers(a, b)) * a_day for a, b in itertools.pairwise(edges)]
