"""How steady a draw was: variation, ramps, range, and how much of it swings in a band.

The three figures of a grid's specification are those of "Power Stabilization for AI Training
Datacenters" (arXiv 2508.14318): ramp rate, dynamic range, and the share of energy in a band of
0.1 to 20 Hz. What a sensor cannot show is None here, never zero.

Formulas: Welch's averaged periodogram (P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 1967) with
a Hann window and half overlap. With a rectangular window over all samples it is the plain
periodogram, whose sum is the variance (Parseval). A mean over T seconds has the response
sinc(f T), whose half-energy point lies at 0.443 / T.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SECOND_S = 1.0
NYQUIST_SHARE = 0.8
"""Of half the sensor's update rate; beyond, images of higher frequencies mix in. 10 Hz: 4 Hz."""

HALF_ENERGY = 0.443
PERIODS_LEAST = 2.0
"""A swing of which a segment holds fewer periods is not told apart from a drift."""

SEGMENTS = 4
LEAST_SAMPLES = 16
FLAT_W2 = 1e-12


@dataclass(frozen=True, slots=True)
class Band:
    """Frequencies and what swings between them.

    Attributes:
        low_hz, high_hz: as asked, cut to what the sensor can show.
        share: of the energy of all that varies; None where nothing varies.
        rms_w: root mean square of the swings in the band, W.
    """

    low_hz: float
    high_hz: float
    share: float | None
    rms_w: float


def second_means(watts_w: Sequence[float], rate_hz: float) -> Floats:
    """Means over whole seconds of equally spaced samples; a rest at the end is left out."""
    per_second = round(rate_hz * SECOND_S)
    assert per_second >= 1, "at least one sample a second"
    whole = len(watts_w) // per_second
    seconds: Floats = np.asarray(watts_w[: whole * per_second], dtype=float).reshape(whole, -1)
    return np.asarray(np.mean(seconds, axis=1))


def variation(watts_w: Sequence[float], rate_hz: float) -> float | None:
    """Coefficient of variation of the 1 s means: standard deviation / mean; None if unknown."""
    means_w = second_means(watts_w, rate_hz)
    if len(means_w) < 2 or not np.all(np.isfinite(means_w)) or np.mean(means_w) <= 0:
        return None
    return float(np.std(means_w) / np.mean(means_w))


def ramp_w_per_s(watts_w: Sequence[float], rate_hz: float) -> float | None:
    """Largest change between two samples one second apart, W/s; None if unknown."""
    levels_w = np.asarray(watts_w, dtype=float)
    apart = round(rate_hz * SECOND_S)
    if len(levels_w) <= apart or not np.all(np.isfinite(levels_w)):
        return None
    return float(np.max(np.abs(levels_w[apart:] - levels_w[:-apart])) / SECOND_S)


def dynamic_range_w(watts_w: Sequence[float]) -> float | None:
    """Highest less lowest sample, W; None if unknown."""
    levels_w = np.asarray(watts_w, dtype=float)
    if not len(levels_w) or not np.all(np.isfinite(levels_w)):
        return None
    return float(np.ptp(levels_w))


def highest_shown_hz(update_hz: float, averaging_s: float) -> float:
    """The highest frequency that a sensor shows with at least half of its energy.

    Args:
        update_hz: new values per second of the sensor, or reads of it if those are fewer.
        averaging_s: span that each value is the mean of, s; 0 for a momentary value.
    """
    by_rate_hz = NYQUIST_SHARE * update_hz / 2
    return by_rate_hz if averaging_s <= 0 else min(by_rate_hz, HALF_ENERGY / averaging_s)


def spectrum(
    watts_w: Sequence[float], rate_hz: float, segment: int, *, tapered: bool = True
) -> tuple[Floats, Floats]:
    """Frequencies, Hz, and the part of the variance at each, W²; one-sided, without the mean.

    Args:
        watts_w: equally spaced samples, W.
        rate_hz: samples per second.
        segment: samples per periodogram; they overlap by half.
        tapered: with a Hann window; without one the parts sum to the variance exactly.
    """
    levels_w = np.asarray(watts_w, dtype=float)
    levels_w = levels_w - np.mean(levels_w)
    window = np.hanning(segment + 1)[:-1] if tapered else np.ones(segment)
    starts = range(0, len(levels_w) - segment + 1, max(1, segment // 2))
    pieces = [np.abs(np.fft.rfft(levels_w[k : k + segment] * window)) ** 2 for k in starts]
    parts: Floats = np.mean(pieces, axis=0) / (segment * float(np.sum(window**2)))
    parts[1 : (segment + 1) // 2] *= 2  # the negative frequencies; the middle one has no twin
    frequencies_hz: Floats = np.asarray(np.fft.rfftfreq(segment, 1 / rate_hz), dtype=float)
    return frequencies_hz, parts


def band(
    watts_w: Sequence[float],
    rate_hz: float,
    *,
    low_hz: float,
    high_hz: float,
    update_hz: float | None = None,
    averaging_s: float = 0.0,
) -> Band | None:
    """What swings between two frequencies, as far as the sampling shows it.

    Args:
        watts_w: equally spaced samples, W.
        rate_hz: samples per second.
        low_hz, high_hz: the band; its upper end is cut to `highest_shown_hz`.
        update_hz: new values per second of the sensor; None: every sample is one.
        averaging_s: span that each value is the mean of, s.

    Returns:
        None where a sample is unknown, or the record is too short or too coarse for the lower end.
    """
    levels_w = np.asarray(watts_w, dtype=float)
    shown_hz = min(high_hz, highest_shown_hz(min(rate_hz, update_hz or rate_hz), averaging_s))
    segment = max(math.ceil(PERIODS_LEAST * rate_hz / low_hz), 2 * len(levels_w) // (SEGMENTS + 1))
    too_short = len(levels_w) < max(segment, LEAST_SAMPLES)
    if too_short or shown_hz <= low_hz or not np.all(np.isfinite(levels_w)):
        return None
    frequencies_hz, parts_w2 = spectrum(watts_w, rate_hz, segment)
    within = (frequencies_hz >= low_hz) & (frequencies_hz <= shown_hz)
    total_w2, inside_w2 = float(np.sum(parts_w2)), float(np.sum(parts_w2[within]))
    share = inside_w2 / total_w2 if total_w2 > FLAT_W2 else None
    return Band(low_hz, shown_hz, share, math.sqrt(inside_w2))
