"""When a grid's peak will come, out of a forecast of its load: the chance of each interval.

Transmission is billed by what a site drew in the one interval of a month in which the whole grid
drew most (ERCOT's four of summer, others' twelve of the year). Nobody knows it until the month is
over, so that a forecast yields chances. The error of a forecast is taken as two independent normal
ones: one that a day's intervals share, and one of each interval. The chance that an interval is the
first one of its day and above all that was before follows from the product of distributions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.signals.words import Cap, CapKind

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST_INTERVALS = 1_500
"""A fortnight of quarters of an hour; beyond it no load forecast says anything."""

GRID = 240
"""Points of load at which distributions are evaluated, over ten deviations: 0.04 of one apart."""

NODES = 9
"""Of the Gauss-Hermite rule for the error that a day shares."""

LEAST_SHARE = 1e-4
"""Least relative error of an interval: no forecast is exact, and none may divide by zero."""


@dataclass(frozen=True, slots=True)
class Load:
    """A forecast of a grid's load by interval; only intervals that count towards a peak.

    Attributes:
        starts_s: when each begins, rising, s.
        load_w: its mean, W; finite.
        period: number of the billing period in which it falls.
        day: number of the day in which it falls, rising.
    """

    starts_s: Floats
    load_w: Floats
    period: Whole
    day: Whole

    def __post_init__(self) -> None:
        sizes = {len(self.starts_s), len(self.load_w), len(self.period), len(self.day)}
        assert len(sizes) == 1, "columns of one table are equally long"
        assert len(self.starts_s) <= MOST_INTERVALS, "a forecast is cut to MOST_INTERVALS"
        assert np.isfinite(self.load_w).all(), "an interval without a forecast is left out"


@dataclass(frozen=True, slots=True)
class Errors:
    """Standard deviations of a load forecast, as shares of the load.

    Attributes:
        day: of what a day's intervals share.
        own: of each interval.
    """

    day: float = 0.02
    own: float = 0.01


@dataclass(frozen=True, slots=True)
class Later:
    """Days of a period that lie beyond the forecast: their highest loads, taken as normal.

    Attributes:
        days: how many that are independent of each other.
        mean_w, deviation_w: of the highest load of such a day, W; the deviation above zero.
    """

    days: float
    mean_w: float
    deviation_w: float


def chances(
    load: Load,
    so_far_w: Mapping[int, float],
    errors: Errors | Mapping[int, Errors],
    *,
    final: bool = False,
    later: Mapping[int, Later] | None = None,
) -> Floats:
    """For each interval the chance that it sets its period's new peak.

    Args:
        load: the forecast.
        so_far_w: highest load of each period until now, W; NaN or missing: unknown, so that the
            first day is sure to set one.
        errors: of the forecast; or by day, of every day in it.
        final: count only a peak that later days leave standing. Then the chances of a period add up
            to that of any new peak, which is one at the most; else those of each day do.
        later: by period, days beyond the forecast that may be higher yet; only with `final`.
    """
    found = np.zeros(len(load.load_w))
    by_day = {
        int(day): errors if isinstance(errors, Errors) else errors[int(day)]
        for day in np.unique(load.day)
    }
    for period in np.unique(load.period):
        mine = np.flatnonzero(load.period == period)
        least_w = so_far_w.get(int(period), math.nan)
        beyond = (later or {}).get(int(period)) if final else None
        found[mine] = _in_period(load.load_w[mine], load.day[mine], least_w, by_day, final, beyond)
    return found


def _in_period(
    load_w: Floats,
    day: Whole,
    so_far_w: float,
    errors: Mapping[int, Errors],
    final: bool,
    later: Later | None,
) -> Floats:
    found = np.zeros(len(load_w))
    days = [int(one) for one in np.unique(day)]
    own = {one: max(errors[one].own, LEAST_SHARE) for one in days}
    near = {one: _near(load_w, day == one, own[one]) for one in days}
    for one, mine in near.items():
        spread_w = 5.0 * math.hypot(errors[one].day, own[one]) * np.abs(load_w[mine])
        # The day's highest lies above this in all but a millionth of cases.
        lowest_w = float(np.max(load_w[mine] - spread_w))
        highest_w = float(np.max(load_w[mine] + spread_w))
        least_w = lowest_w if math.isnan(so_far_w) else max(so_far_w, lowest_w)
        if least_w >= highest_w:
            continue
        grid_w = np.linspace(least_w, highest_w, GRID)
        standing = np.ones(GRID) if later is None else _stands(later, grid_w)
        for other, theirs in near.items():
            if other < one or (final and other > one):
                standing = standing * _below(load_w[theirs], grid_w, errors[other].day, own[other])
        below = _below(load_w[mine], grid_w, errors[one].day, own[one])
        gain = np.diff(below) * (standing[1:] + standing[:-1]) / 2.0
        found[mine] = _whose(load_w[mine], grid_w, errors[one].day, own[one]) @ gain
    # The steps of the grid count a little too much or too little; one interval is the peak at most.
    return found / max(float(found.sum()), 1.0) if final else found


def _stands(later: Later, grid_w: Floats) -> Floats:
    """The chance that no day beyond the forecast is above each load of the grid."""
    logs = _log_normal((grid_w - later.mean_w) / later.deviation_w)
    return np.asarray(np.exp(later.days * logs), dtype=np.float64)


def _near(load_w: Floats, of_day: npt.NDArray[np.bool_], own: float) -> Whole:
    """The day's intervals that can be its highest: ten of their own deviations below at most."""
    lowest_w = np.max(load_w[of_day]) - 10.0 * own * np.max(np.abs(load_w[of_day]))
    return np.flatnonzero(of_day & (load_w >= lowest_w))


def _shared(day_share: float) -> tuple[tuple[float, float], ...]:
    """Nodes of the error that a day shares, relative, and their weights."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return tuple(zip((day_share * nodes).tolist(), (weights / weights.sum()).tolist(), strict=True))


def _below(load_w: Floats, grid_w: Floats, day_share: float, own: float) -> Floats:
    """The chance that a whole day is below each load of the grid."""
    below = np.zeros(len(grid_w))
    for error, weight in _shared(day_share):
        z = _scaled(grid_w, load_w, error, own)
        below += weight * np.exp(_log_normal(z).sum(axis=0))
    return below


def _whose(load_w: Floats, grid_w: Floats, day_share: float, own: float) -> Floats:
    """Whose peak it is, by interval, if the day's peak lies in a step of the grid."""
    middle_w = (grid_w[1:] + grid_w[:-1]) / 2.0
    rates = np.zeros((len(load_w), len(middle_w)))
    for error, weight in _shared(day_share):
        z = _scaled(middle_w, load_w, error, own)
        logs = _log_normal(z)
        density = -0.5 * z * z - np.log(own * np.maximum(np.abs(load_w), 1.0))[:, None]
        rates += weight * np.exp(density - logs + logs.sum(axis=0))
    total = rates.sum(axis=0)
    even = np.full_like(rates, 1.0 / len(load_w))
    return np.asarray(np.divide(rates, total, out=even, where=total > 0), dtype=np.float64)


def _scaled(grid_w: Floats, load_w: Floats, error: float, own: float) -> Floats:
    """How many of its own deviations each interval is below each load of the grid."""
    mean_w = load_w * (1.0 + error)
    deviation_w = own * np.maximum(np.abs(load_w), 1.0)
    return np.asarray((grid_w[None, :] - mean_w[:, None]) / deviation_w[:, None])


def _log_normal(z: Floats) -> Floats:
    """Logarithm of the normal distribution, by formula 7.1.26 of Abramowitz and Stegun (absolute
    error below 1e-7); below -6 deviations by its leading asymptotic term."""
    x = np.abs(z) / math.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * x)
    series = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    tail = 0.5 * np.exp(-x * x) * sum(a * t ** (n + 1) for n, a in enumerate(series))
    middle = np.log(np.clip(np.where(z < 0, tail, 1.0 - tail), 1e-300, 1.0))
    far = -0.5 * z * z - np.log(np.maximum(-z, 1.0) * math.sqrt(2.0 * math.pi))
    return np.asarray(np.where(z < -6.0, far, middle))


def watched(load: Load, chance: Floats, cover: float) -> npt.NDArray[np.bool_]:
    """The fewest intervals of each day that together hold `cover` of its chance of a new peak."""
    found = np.zeros(len(chance), dtype=np.bool_)
    for one in np.unique(load.day):
        mine = np.flatnonzero(load.day == one)
        total = float(chance[mine].sum())
        if total <= 0.0:
            continue
        # Of equal ones those near the likeliest come first, so that what is watched hangs together.
        top_s = load.starts_s[mine[np.argmax(chance[mine])]]
        away_s = np.abs(load.starts_s[mine] - top_s)
        order = mine[np.lexsort((away_s, -np.round(chance[mine], 6)))]
        before = np.cumsum(chance[order]) - chance[order]
        found[order[before < cover * total]] = True
    return found


@dataclass(frozen=True, slots=True)
class Duty:
    """What the site does about a peak.

    Attributes:
        name: begins the caps' ids; also their origin.
        cap_w: what the site may draw in a watched interval, W.
        interval_s: over which the grid's operator averages, s.
        cover: share of a day's chance that the watched intervals hold.
        least_confidence: a day below it is left out altogether.
    """

    name: str
    cap_w: float
    interval_s: float
    cover: float = 0.9
    least_confidence: float = 0.05


def peak_caps(load: Load, chance: Floats, duty: Duty) -> tuple[Cap, ...]:
    """Caps on the watched intervals, those that follow each other as one.

    The confidence of a cap is the chance that its day's watched intervals hold a new peak: what
    binds is decided by the day, and not by how finely it is divided.
    """
    marked = watched(load, chance, duty.cover)
    sure = {int(one): float(chance[(load.day == one) & marked].sum()) for one in set(load.day)}
    caps: list[Cap] = []
    for at in np.flatnonzero(marked):
        confidence = min(sure[int(load.day[at])], 1.0)
        if confidence < duty.least_confidence:
            continue
        starts_s = float(load.starts_s[at])
        ends_s = starts_s + duty.interval_s
        last = caps[-1] if caps else None
        if last is not None and last.ends_s == starts_s and last.confidence == confidence:
            caps[-1] = _cap(duty, last.starts_s or 0.0, ends_s, confidence)
        else:
            caps.append(_cap(duty, starts_s, ends_s, confidence))
    return tuple(caps)


def _cap(duty: Duty, starts_s: float, ends_s: float, confidence: float) -> Cap:
    name = f"{duty.name}-{starts_s:.0f}"
    return Cap(
        name,
        duty.name,
        duty.cap_w,
        starts_s,
        ends_s,
        CapKind.INTERVAL,
        duty.interval_s,
        confidence=confidence,
    )
