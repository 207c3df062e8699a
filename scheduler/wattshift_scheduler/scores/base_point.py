"""How a load follows a dispatcher: deviation from its base point, time to an instruction, ramps.

ERCOT-like (its protocols as quoted in the grid reference, sections 4.1 and 5.2): a base point is
told every five minutes, the deviation is a share of it over those minutes, reserves are judged by
the time to 95 % of what was instructed, and a load's ramps by MW a minute.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats

INTERVAL_S = 300.0
"""ERCOT's dispatch runs every five minutes."""

MINUTE_S = 60.0


def deviation_pct(
    base_point_w: Floats, metered_w: Floats, sample_s: float, interval_s: float = INTERVAL_S
) -> Floats:
    """Deviation of the mean draw from the mean base point, % of it, per interval.

    Args:
        base_point_w, metered_w: what was told and what was drawn, W; shape (n,).
        sample_s: spacing of the samples, s; the interval is a whole number of them.
        interval_s: length of an interval, s.

    Returns:
        %, positive above the base point; shape (n // samples of an interval,). NaN where a sample
        of the interval is unknown, or where the base point is zero.
    """
    told_w = _means(base_point_w, sample_s, interval_s)
    drawn_w = _means(metered_w, sample_s, interval_s)
    share = np.full(len(told_w), math.nan)
    np.divide(drawn_w - told_w, told_w, out=share, where=told_w > 0)
    return 100.0 * share


def time_to_share_s(
    metered_w: Floats, from_w: float, to_w: float, sample_s: float, share: float = 0.95
) -> float:
    """From an instruction until so much of it was done for the first time, s; NaN if it never was.

    Args:
        metered_w: samples from the instruction on, the first at that moment, W; shape (n,).
        from_w, to_w: what was drawn when it came, and what it asks for, W.
        sample_s: spacing of the samples, s.
        share: part of the way that counts as done (ERCOT's reserves: 95 %).

    An unknown sample counts as not there yet.
    """
    if from_w == to_w:
        return 0.0
    done = (metered_w - from_w) / (to_w - from_w)
    there = np.flatnonzero(np.isfinite(done) & (done >= share))
    return float(there[0]) * sample_s if there.size else math.nan


@dataclass(frozen=True, slots=True)
class Ramps:
    """Ramps against their limits.

    Attributes:
        violations: minutes in which a limit was broken.
        minutes: minutes that could be judged.
        unknown: minutes that could not, because a sample of them is unknown.
        steepest_up_w, steepest_down_w: largest change within a minute, W, not negative.
    """

    violations: int
    minutes: int
    unknown: int
    steepest_up_w: float
    steepest_down_w: float

    @property
    def violations_per_minute(self) -> float:
        """Share of the judged minutes that broke a limit; NaN where none could be judged."""
        return self.violations / self.minutes if self.minutes else math.nan


def ramps(metered_w: Floats, sample_s: float, up_w_per_min: float, down_w_per_min: float) -> Ramps:
    """Count the minutes whose net change breaks a ramp limit.

    Minutes follow one another without overlap, from the first sample on. Within one the change is
    that from its first sample to the first of the next: a limit in MW/min bounds that, and not the
    steps in between (those are the band's matter, see `spectrum`).

    Args:
        metered_w: W; shape (n,).
        sample_s: spacing of the samples, s; a minute is a whole number of them.
        up_w_per_min, down_w_per_min: limits of rise and fall, W/min; infinite: none.
    """
    edges_w = metered_w[:: _count(MINUTE_S, sample_s)]
    change_w = np.diff(edges_w)
    known: Bools = np.isfinite(change_w)
    judged_w = change_w[known]
    broken = (judged_w > up_w_per_min) | (judged_w < -down_w_per_min)
    return Ramps(
        violations=int(broken.sum()),
        minutes=len(judged_w),
        unknown=int((~known).sum()),
        steepest_up_w=float(judged_w.max(initial=0.0)),
        steepest_down_w=float((-judged_w).max(initial=0.0)),
    )


def _means(watts_w: Floats, sample_s: float, interval_s: float) -> Floats:
    samples = _count(interval_s, sample_s)
    whole = len(watts_w) // samples
    means: Floats = watts_w[: whole * samples].reshape(whole, samples).mean(axis=1)
    return means


def _count(span_s: float, sample_s: float) -> int:
    count = round(span_s / sample_s)
    assert count >= 1, "a span holds at least one sample"
    assert math.isclose(count * sample_s, span_s), "it is a whole number of samples"
    return count
