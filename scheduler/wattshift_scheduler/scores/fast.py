"""How fast a fast reserve came: time to its beginning and to all of it, and droop followed.

Times that products ask for (grid reference, sections 4.1 and 4.4): ERCOT's fast responsive reserve
all within 0.25 s; the Nordic one within about 0.7 s (0.7, 1.0 or 1.3 s by trigger, not checked);
Britain's Dynamic Containment begins within 0.5 s and is there within 1 s, from a dead band of
0.015 Hz, 5 % at 0.2 Hz, all of it at 0.5 Hz.
"""

import math
from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Floats

BEGUN_SHARE = 0.05
"""Part of the response that counts as begun: a choice of this project, above a meter's noise."""

FULL_SHARE = 0.95
"""Part of it that counts as all: ERCOT's figure for reserves, taken for all products."""


@dataclass(frozen=True, slots=True)
class Response:
    """When a response came, s after its trigger; NaN: never."""

    t_init_s: float
    t_full_s: float

    def within(self, init_s: float, full_s: float) -> bool:
        """Whether it began and was complete in these times; what never came was not."""
        return self.t_init_s <= init_s and self.t_full_s <= full_s


def response(at_s: Floats, metered_w: Floats, trigger_s: float, due_w: float) -> Response:
    """Find when a reduction began and when it was complete, by the samples' own times.

    Args:
        at_s: when each sample was taken, rising, s; shape (n,).
        metered_w: the draw, W; shape (n,).
        trigger_s: when the trigger was crossed, s.
        due_w: the reduction that is due, W.

    It is counted from the last known sample at or before the trigger. The time of a sample is when
    it was taken; where it is a mean over a window, the window's end: so its length is counted in.
    Unknown samples count as nothing done.
    """
    assert due_w > 0, "a reduction is due"
    known = np.isfinite(metered_w)
    before = np.flatnonzero(known & (at_s <= trigger_s))
    if not before.size:
        return Response(math.nan, math.nan)
    from_w = float(metered_w[before[-1]])
    done = np.where(at_s > trigger_s, (from_w - metered_w) / due_w, -math.inf)

    def first_s(share: float) -> float:
        there = np.flatnonzero(done >= share)
        return float(at_s[there[0]]) - trigger_s if there.size else math.nan

    return Response(first_s(BEGUN_SHARE), first_s(FULL_SHARE))


@dataclass(frozen=True, slots=True)
class Droop:
    """What a service asks for by the deviation of frequency: straight lines between its points.

    Attributes:
        off_hz: deviations, rising from 0, Hz.
        share: of the whole response that is due at each, 0 to 1.
    """

    off_hz: tuple[float, ...]
    share: tuple[float, ...]

    def due(self, frequency_hz: Floats, nominal_hz: float) -> Floats:
        """Share that is due of each sample: positive sheds load; NaN where it is unknown."""
        off_hz = nominal_hz - frequency_hz
        size: Floats = np.interp(np.abs(off_hz), self.off_hz, self.share)
        return np.where(np.isfinite(off_hz), np.sign(off_hz) * size, math.nan)


DYNAMIC_CONTAINMENT = Droop((0.0, 0.015, 0.2, 0.5), (0.0, 0.0, 0.05, 1.0))
"""Britain's (neso.energy): linear between its stated points."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """How a response followed its droop.

    Attributes:
        inside_share: of the known samples that lay in the band; NaN where none is known.
        worst: furthest that one lay outside it, as a share of the whole response.
        unknown: samples that could not be judged.
    """

    inside_share: float
    worst: float
    unknown: int


def droop_tracking(
    due_share: Floats, done_share: Floats, samples_late: int, band_share: float
) -> Tracking:
    """Hold a response against the band around what was due.

    What is due may be delivered late by the product's time, so the band of a sample spans from the
    least to the most that was due over that time up to it, widened by `band_share` on both sides.
    NESO's own performance bounds were not read: this band is a choice of this project.

    Args:
        due_share, done_share: shares of the whole response; shape (n,).
        samples_late: how many samples a delivery may be late.
        band_share: half-width of the band, share of the whole response.
    """
    assert due_share.shape == done_share.shape, "one response for each sample"
    assert samples_late >= 0, "a delivery is late or on time"
    early = np.concatenate(
        [np.full(samples_late, due_share[0] if len(due_share) else 0.0), due_share]
    )
    spans = np.lib.stride_tricks.sliding_window_view(early, samples_late + 1)
    low, high = spans.min(axis=1) - band_share, spans.max(axis=1) + band_share
    outside = np.maximum(np.maximum(low - done_share, done_share - high), 0.0)
    known = np.isfinite(outside)
    inside = outside[known] <= 1e-12
    return Tracking(
        inside_share=float(inside.mean()) if inside.size else math.nan,
        worst=float(outside[known].max(initial=0.0)),
        unknown=int((~known).sum()),
    )
