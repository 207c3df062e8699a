"""What a cap on a mean still allows: the watts for the rest of its demand interval.

A utility that bills demand measures the mean over each interval of the UTC clock. What has been
used of the interval is known from the meter, so the rest of it may carry what is left.
"""

import math
from collections.abc import Iterable

from wattshift_scheduler.signals.minutes import HOUR_S, MINUTE_S, Minutes
from wattshift_scheduler.signals.words import Cap


def averaged(cap: Cap) -> bool:
    """Whether the cap binds a mean.

    A window that is no whole number of minutes, or longer than the hour that is remembered, is held
    as a cap on every sample, which is stricter.
    """
    return 0.0 < cap.window_s <= HOUR_S and cap.window_s % MINUTE_S == 0.0


def allowed_w(cap: Cap, site: Minutes, connection_w: float) -> float:
    """Mean watts that a cap leaves for the rest of the window that runs, W.

    Never above the connection: near the end of a window the little time left would divide what is
    left into any figure. Time of the window that nobody metered counts at the connection.

    Args:
        cap: with or without a window.
        site: energy of the site, counted up to now.
        connection_w: the most that the site can draw, W.
    """
    if not averaged(cap):
        return cap.limit_w
    begins_s = _begins_s(cap.window_s, site.upto_s)
    left_j = cap.limit_w * cap.window_s - site.energy_j(begins_s, connection_w)
    left_s = begins_s + cap.window_s - site.upto_s
    return min(max(left_j, 0.0) / left_s, connection_w)


def next_edge_s(caps: Iterable[Cap], now_s: float) -> float | None:
    """When a window of a cap in force ends next, s; None without windows."""
    ends = [
        _begins_s(cap.window_s, now_s) + cap.window_s
        for cap in caps
        if averaged(cap) and cap.in_force(now_s)
    ]
    return min(ends, default=None)


def _begins_s(window_s: float, now_s: float) -> float:
    return math.floor(now_s / window_s) * window_s
