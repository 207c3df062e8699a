"""Steady draws, steps between them, and how long they take, out of a meter's samples. Pure.

Two meters know what a machine draws: the outlet of a PDU, and the feeder's meter at a moment when
exactly one machine switched. Both give steps; windows in which anything else moved give nothing.
Levels are medians, so that single wild samples do not count, and each has a standard error.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_SAMPLES = 5
LEAST_KNOWN = 0.8
"""Share of a window's samples that must be numbers."""

MEDIAN_LOSS = math.sqrt(math.pi / 2)
"""A median's standard error is larger than a mean's by this for Gaussian noise."""

MAD_TO_SD = 1.4826
STEADY_SIGMAS = 6.0
"""Of a part of a window against the whole; the noise itself is known to a third only."""

GRAIN_W, GRAIN_SHARE = 1.0, 0.001
"""The last digit of a meter or firmware, which flips: a whole watt, or a thousandth of the draw."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Samples of one meter, ascending in time; NaN where it said nothing.

    Attributes:
        at_s: times, s.
        watts_w: draw, W.
    """

    at_s: Floats
    watts_w: Floats

    def between(self, from_s: float, to_s: float) -> Floats:
        """Samples from `from_s` up to, not including, `to_s`."""
        low, high = np.searchsorted(self.at_s, (from_s, to_s))
        return self.watts_w[low:high]


@dataclass(frozen=True, slots=True)
class Level:
    """A steady draw: its median, the standard error of that, and the noise of one sample, W."""

    watts_w: float
    error_w: float
    noise_w: float


@dataclass(frozen=True, slots=True)
class Step:
    """A change between two levels; `watts_w` is positive where the draw fell, W."""

    watts_w: float
    error_w: float
    before: Level
    after: Level


def level(samples: Floats) -> Level | None:
    """The steady draw in a window; None where too little is known or it does not hold still.

    It must neither drift from its first half to its second, nor be elsewhere for a few samples in a
    row. What moves within the last two or three samples of a window cannot be told from noise.
    """
    known = samples[np.isfinite(samples)]
    if len(known) < LEAST_SAMPLES or len(known) < LEAST_KNOWN * len(samples):
        return None
    middle_w = float(np.median(known))
    noise_w = MAD_TO_SD * float(np.median(np.abs(known - middle_w)))
    # Neighbours differ by the noise alone, however far a window drifts.
    jitter_w = MAD_TO_SD * float(np.median(np.abs(np.diff(known)))) / math.sqrt(2.0)
    grain_w = max(GRAIN_W, GRAIN_SHARE * middle_w)
    for parts in (2, len(known) // LEAST_SAMPLES):
        pieces = np.array_split(known, parts)
        away_w = max(abs(float(np.median(piece)) - middle_w) for piece in pieces)
        sigma_w = MEDIAN_LOSS * jitter_w / math.sqrt(min(len(piece) for piece in pieces))
        if away_w > STEADY_SIGMAS * sigma_w + grain_w:
            return None
    return Level(middle_w, MEDIAN_LOSS * noise_w / math.sqrt(len(known)), noise_w)


def step_at(trace: Trace, switched_s: float, settle_s: float, window_s: float) -> Step | None:
    """The step of a meter around one switching; None where it cannot be told.

    Args:
        trace: the meter.
        switched_s: when the command was accepted.
        settle_s: after this the new level counts, s.
        window_s: length of the windows before and after, s.
    """
    before = level(trace.between(switched_s - window_s, switched_s))
    after = level(trace.between(switched_s + settle_s, switched_s + settle_s + window_s))
    if before is None or after is None:
        return None
    error_w = math.hypot(before.error_w, after.error_w)
    return Step(before.watts_w - after.watts_w, error_w, before, after)


def settling_s(trace: Trace, switched_s: float, step: Step) -> float | None:
    """Seconds from the switching until the draw stays at its new level; None where it never does.

    The band is 5 % of the step, or three times the noise where that is more.
    """
    low = int(np.searchsorted(trace.at_s, switched_s))
    at_s, watts_w = trace.at_s[low:], trace.watts_w[low:]
    known = np.isfinite(watts_w)
    at_s, watts_w = at_s[known], watts_w[known]
    noise_w = max(step.before.noise_w, step.after.noise_w)
    band_w = max(0.05 * abs(step.watts_w), 3.0 * noise_w)
    outside = np.flatnonzero(np.abs(watts_w - step.after.watts_w) > band_w)
    settled = 0 if len(outside) == 0 else int(outside[-1]) + 1
    return float(at_s[settled]) - switched_s if settled < len(at_s) else None
