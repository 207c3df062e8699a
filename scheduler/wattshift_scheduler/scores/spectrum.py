"""What a load does to the grid by its rhythm: energy in a band of frequencies, and peak to peak.

A typical specification for large loads (arXiv:2508.14318) allows at most 20 % of the energy in 0.1
to 20 Hz; training of AI models oscillates at 0.2 to 3 Hz. One utility bounds 25 MW peak to peak
(NERC Level 2 report, March 2026).
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats

BAND_LOW_HZ, BAND_HIGH_HZ = 0.1, 20.0

MOST_IN_BAND = 0.20


@dataclass(frozen=True, slots=True)
class Band:
    """The band's part of what varies.

    Attributes:
        share: energy in the band, of all that varies; NaN where the sampling cannot show it.
        low_hz, high_hz: the part of the band that the samples can show, Hz.
        peak_to_peak_w: largest less smallest sample, W; NaN where none is known.
    """

    share: float
    low_hz: float
    high_hz: float
    peak_to_peak_w: float


def in_band(
    metered_w: Floats,
    sample_s: float,
    low_hz: float = BAND_LOW_HZ,
    high_hz: float = BAND_HIGH_HZ,
) -> Band:
    """Work out the share of a load's varying energy that lies in a band, by Fourier transform.

    The mean is taken off, and a Hann window keeps the ends from leaking into the band. Samples show
    no more than half their rate, and nothing slower than one turn of the whole record: where that
    leaves nothing of the band, or where a sample is unknown, the share is NaN. A load that does not
    vary at all has a share of 0.

    Args:
        metered_w: W, evenly spaced; shape (n,).
        sample_s: spacing, s.
        low_hz, high_hz: the band, both ends in it, Hz.
    """
    assert sample_s > 0, "samples are spaced in time"
    assert 0 < low_hz < high_hz, "a band rises"
    known_w = metered_w[np.isfinite(metered_w)]
    peak_w = float(np.ptp(known_w)) if known_w.size else math.nan
    seen_high_hz = min(high_hz, 0.5 / sample_s)
    count = len(metered_w)
    if len(known_w) < count or count < 2:
        return Band(math.nan, low_hz, seen_high_hz, peak_w)
    seen_low_hz = max(low_hz, 1.0 / (count * sample_s))
    if seen_low_hz >= seen_high_hz:
        return Band(math.nan, seen_low_hz, seen_high_hz, peak_w)
    varies_w = (metered_w - metered_w.mean()) * np.hanning(count)
    energy = np.abs(np.fft.rfft(varies_w - varies_w.mean())) ** 2
    hz = np.fft.rfftfreq(count, sample_s)
    total = float(energy.sum())
    inside = float(energy[(hz >= low_hz) & (hz <= high_hz)].sum())
    return Band(inside / total if total > 0 else 0.0, seen_low_hz, seen_high_hz, peak_w)
