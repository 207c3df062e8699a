"""PJM's performance score of regulation as its Manual 12 had it: the "PJM legacy M12 score".

PJM is said to have moved to another product in October 2025, so no figure here may be called "the
PJM score" of today. Sources of the formula: GMLC-1-4-2/battery_interface `reg_service.py`, and the
University of Michigan's `pjmScoringPassFailv5.m`, which cites Manual 12, section 4.5.6. Precision
is normalised by the hour's mean of the signal (GMLC's takes five minutes).

Two rules beside it: a site qualifies from 0.75 on, and an hour below 0.25 forfeits its credit.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats

SAMPLE_S = 10.0
"""Spacing of the samples that are scored, s."""

WINDOW = 30
"""Samples of a window: 5 minutes."""

SHIFTS = 31
"""Delays that are tried: 0 to 300 s."""

WINDOWS_AN_HOUR = 12

FLAT = 1e-4
"""Standard deviation, p.u., up to which a window counts as not moving."""

LEAST_MEAN = 1e-6
"""Floor of the hour's mean of the signal, p.u.: an hour of no signal divides by it."""

PROPAGATION = 2
"""Precision takes the better of so many delays: 0 and 10 s."""

QUALIFIES = 0.75
FORFEITS_BELOW = 0.25


@dataclass(frozen=True, slots=True)
class M12:
    """A score and its components, 0 to 1. NaN where nothing could be scored.

    Attributes:
        correlation, delay, precision: means over the hours.
        score: their mean.
        worst_hour: the lowest score of an hour.
        hours: correlation, delay and precision of each hour; shape (hours, 3).
        unknown_windows: windows of which a sample, of the signal or up to 300 s on, was unknown.
    """

    correlation: float
    delay: float
    precision: float
    score: float
    worst_hour: float
    hours: Floats
    unknown_windows: int


def pjm_legacy_m12(signal_pu: Floats, response_pu: Floats) -> M12:
    """Score a response against its signal.

    Args:
        signal_pu: regulation signal, p.u. of what was offered, -1 to 1, every 10 s; shape (n,).
        response_pu: what was delivered, p.u. of the same, at the same moments; shape (n,).

    A window needs the 300 s after it, so the last one of the data is not scored. A last part of an
    hour counts as an hour. Unknown samples count at their worst: a window of the signal with one
    scores 0, and a delay at which the response has one is no delay that fits; neither can raise a
    score above what the known samples would give.
    """
    assert signal_pu.shape == response_pu.shape, "one response for each sample of the signal"
    per_hour = WINDOW * WINDOWS_AN_HOUR
    rows: list[list[tuple[float, float, float]]] = []
    lost = 0
    for start in range(0, len(signal_pu) - WINDOW - SHIFTS + 2, WINDOW):
        hour = start // per_hour
        signal = signal_pu[start : start + WINDOW]
        reach = response_pu[start : start + WINDOW + SHIFTS - 1]
        mean = _mean_size(signal_pu[hour * per_hour : (hour + 1) * per_hour])
        lost += not (np.isfinite(signal).all() and np.isfinite(reach).all())
        if hour == len(rows):
            rows.append([])
        rows[hour].append(_window(signal, reach, mean))
    return _summed_up(rows, lost)


def _mean_size(hour: Floats) -> float:
    known = np.abs(hour[np.isfinite(hour)])
    return max(float(known.mean()), LEAST_MEAN) if known.size else LEAST_MEAN


def _window(signal: Floats, reach: Floats, mean_size: float) -> tuple[float, float, float]:
    """Correlation, delay and precision of one window; `reach` goes on 300 s after it."""
    if not np.isfinite(signal).all():
        return 0.0, 0.0, 0.0
    shifted = np.lib.stride_tricks.sliding_window_view(reach, WINDOW)
    known = np.isfinite(shifted).all(axis=1)
    if not known.any():
        return 0.0, 0.0, 0.0
    alike = np.full(SHIFTS, -np.inf)
    alike[known] = _alike(signal, shifted[known])
    longest_s = SAMPLE_S * (SHIFTS - 1)
    prompt = np.abs(SAMPLE_S * np.arange(SHIFTS) - longest_s) / longest_s
    best = int(np.argmax(alike + prompt))
    missed = np.abs(shifted[:PROPAGATION] - signal).mean(axis=1) / mean_size
    precise = np.where(np.isfinite(missed), np.maximum(1.0 - missed, 0.0), 0.0)
    return max(float(alike[best]), 0.0), float(prompt[best]), float(precise.max())


def _alike(signal: Floats, shifted: Floats) -> Floats:
    """Pearson's correlation with each row, and by slopes where the signal hardly moves."""
    signal_off = signal - signal.mean()
    rows_off = shifted - shifted.mean(axis=1, keepdims=True)
    if float(signal.std()) <= FLAT:
        steps = np.arange(WINDOW) - (WINDOW - 1) / 2
        line = steps / (steps @ steps)
        slopes: Floats = signal_off @ line - rows_off @ line
        by_slope: Floats = np.maximum(0.0, 1.0 - np.abs(slopes))
        return by_slope
    spread = shifted.std(axis=1)
    alike = np.zeros(len(shifted))
    both = signal.std() * spread
    np.divide(rows_off @ signal_off / WINDOW, both, out=alike, where=spread > FLAT)
    return alike


def _summed_up(rows: list[list[tuple[float, float, float]]], lost: int) -> M12:
    if not rows:
        nan = math.nan
        return M12(nan, nan, nan, nan, nan, np.zeros((0, 3)), lost)
    hours = np.array([np.mean(windows, axis=0) for windows in rows], dtype=np.float64)
    correlation, delay, precision = (float(one) for one in hours.mean(axis=0))
    score = (correlation + delay + precision) / 3.0
    return M12(correlation, delay, precision, score, float(hours.mean(axis=1).min()), hours, lost)
