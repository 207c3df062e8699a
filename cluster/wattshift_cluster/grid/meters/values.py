"""The values that one look at a meter gives, before they are a sample."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Values:
    """None is unknown, NaN is what the meter gave for a number; fields as in `MeterReading`."""

    watts_w: float | None
    energy_wh: float | None = None
    hz: float | None = None
    volts_v: float | None = None
    wraps_wh: float | None = None


def lowest(volts_v: Sequence[float | None]) -> float | None:
    """The lowest phase, V; None where one of them is unknown: that may be the lowest."""
    known_v = [one for one in volts_v if one is not None]
    return min(known_v) if known_v and len(known_v) == len(volts_v) else None
