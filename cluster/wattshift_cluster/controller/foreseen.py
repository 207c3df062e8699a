"""What the cap will be next: the first moment at which the lowest cap that is told changes."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from wattshift_cluster.controller.signal_views import time_of
from wattshift_scheduler.in_force.effective import standing_caps
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.state import State

EDGES_MAX = 48
"""Moments that are looked at: a utility may tell two months of 5-minute intervals."""

View = dict[str, Any]


def next_cap(state: State, now_s: float) -> View:
    """The next of the lowest caps (the `next_cap_…` of api.site_views.SiteView), overrides put in.

    As its source states it: ramps, holds and windows may keep the effective cap below. None where
    nothing changes at the next EDGES_MAX moments at which a cap begins or ends.
    """
    caps = standing_caps(state, now_s)
    lowest_w = _lowest_w(state, caps, now_s)
    moments = {at_s for one in caps for at_s in (one.starts_s, one.ends_s) if at_s is not None}
    for at_s in islice(sorted(at_s for at_s in moments if at_s > now_s), EDGES_MAX):
        limit_w = _lowest_w(state, caps, at_s)
        if limit_w != lowest_w:
            holds = (one for one in caps if one.in_force(at_s) and one.limit_w == limit_w)
            return _view(limit_w, at_s, next(holds, None))
    return dict.fromkeys(("next_cap_w", "next_cap_at", "next_cap_origin", "next_cap_name"))


def _lowest_w(state: State, caps: Iterable[Cap], at_s: float) -> float:
    connection_w = float(state.site.tree.limit_w[0])
    return min([connection_w, *(one.limit_w for one in caps if one.in_force(at_s))])


def _view(limit_w: float, at_s: float, cap: Cap | None) -> View:
    return {
        "next_cap_w": limit_w,
        "next_cap_at": time_of(at_s),
        "next_cap_origin": "connection" if cap is None else cap.origin,
        "next_cap_name": None if cap is None else cap.name or cap.id,
    }
