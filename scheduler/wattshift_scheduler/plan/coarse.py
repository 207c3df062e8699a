"""The same day in longer intervals: solved at once, it says what prices to begin with."""

from dataclasses import replace

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.words import Ahead


def coarsened(ahead: Ahead, by: int) -> Ahead:
    """`ahead` with `by` intervals made one; the last one may be shorter in truth."""
    return replace(
        ahead,
        step_s=ahead.step_s * by,
        price=_band(ahead.price, by),
        cap_w=mean(ahead.cap_w, by),
        other=_band(ahead.other, by),
        services=_band(ahead.services, by),
        solar=None if ahead.solar is None else _band(ahead.solar, by),
        carbon_g_per_kwh=None
        if ahead.carbon_g_per_kwh is None
        else _band(ahead.carbon_g_per_kwh, by),
        prospect=None,
        zones=tuple(replace(one, services_w=mean(one.services_w, by)) for one in ahead.zones),
        # A chance is one of an interval: a longer one has that of all in it.
        peaks=tuple(
            one
            if one.chance is None
            else replace(one, chance=np.minimum(mean(one.chance, by) * by, 1.0))
            for one in ahead.peaks
        ),
    )


def mean(values: Floats, by: int) -> Floats:
    """The mean of each run of `by` values; the last run holds what is left."""
    begins = np.arange(0, len(values), by)
    counts = np.diff(np.append(begins, len(values)))
    return np.asarray(np.add.reduceat(values, begins) / counts)


def _band(band: Band, by: int) -> Band:
    return Band(mean(band.low, by), mean(band.mid, by), mean(band.high, by))
