"""The site meter held against the sum of its devices, pure: two figures for one truth.

The meter is preferred wherever it is known. Both are compared all the time, and where they stay
apart for longer than devices take to tell of a change, that is an alarm with both figures: a meter
that lies, a machine that hangs elsewhere, or load that nobody has told of.
"""

import math
from dataclasses import dataclass
from typing import Literal

Origin = Literal["meter", "devices", "unknown"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """When two figures are taken to disagree.

    Attributes:
        share: of the larger one by which they may differ.
        least_w: by which they may differ however small they are, W.
        after_s: how long they must differ, and agree again, s.
    """

    share: float = 0.1
    least_w: float = 500.0
    after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Beside:
    """What the site draws beside its devices: between two bounds, W. Generation is negative."""

    least_w: float = 0.0
    most_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered: whether they disagree, and since when the opposite is seen, steady s."""

    disagree: bool = False
    turned_s: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """Two figures and what follows.

    Attributes:
        watts_w: the better one, W; None is unknown.
        origin: which it is.
        disagree: whether they have been apart for too long.
        meter_w, expected_w: the meter, and the nearest that the devices' sum explains, W.
    """

    watts_w: float | None
    origin: Origin
    disagree: bool
    meter_w: float | None
    expected_w: float | None

    @property
    def text(self) -> str:
        """Both figures, for people."""
        meter, expected = _shown(self.meter_w), _shown(self.expected_w)
        return f"the site meter says {meter}, the devices and what is known beside them {expected}"


def compare(
    bounds: Bounds,
    seen: Seen,
    meter_w: float | None,
    devices_w: float | None,
    beside: Beside,
    now_s: float,
) -> tuple[Seen, Compared]:
    """Hold one reading against the devices. What is unknown proves nothing, either way.

    Args:
        bounds: when they disagree.
        seen: of the times before.
        meter_w: the site meter, W; None or NaN is unknown.
        devices_w: sum of the devices, W; None or NaN is unknown.
        beside: what is drawn beside them.
        now_s: on a clock that nobody sets, s.
    """
    meter_w, devices_w = _known(meter_w), _known(devices_w)
    if meter_w is None or devices_w is None:
        seen = Seen(seen.disagree)
        if meter_w is not None:
            return seen, Compared(meter_w, "meter", seen.disagree, meter_w, None)
        if devices_w is None:
            return seen, Compared(None, "unknown", seen.disagree, None, None)
        most_w = devices_w + beside.most_w
        return seen, Compared(most_w, "devices", seen.disagree, None, most_w)
    low_w, high_w = devices_w + beside.least_w, devices_w + beside.most_w
    expected_w = min(max(meter_w, low_w), high_w)
    larger_w = max(abs(meter_w), abs(expected_w))
    apart = abs(meter_w - expected_w) > max(bounds.share * larger_w, bounds.least_w)
    seen = _turned(bounds, seen, apart, now_s)
    return seen, Compared(meter_w, "meter", seen.disagree, meter_w, expected_w)


def _turned(bounds: Bounds, seen: Seen, apart: bool, now_s: float) -> Seen:
    if apart == seen.disagree:
        return Seen(seen.disagree)
    since_s = now_s if seen.turned_s is None else seen.turned_s
    if now_s - since_s >= bounds.after_s:
        return Seen(apart)
    return Seen(seen.disagree, since_s)


def _known(watts_w: float | None) -> float | None:
    return watts_w if watts_w is not None and math.isfinite(watts_w) else None


def _shown(watts_w: float | None) -> str:
    return "nothing" if watts_w is None else f"{watts_w:,.0f} W"
