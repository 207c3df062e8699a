"""Work that is on its way out, and machines that need not turn for the time until it has gone.

A unit that leaves its node counts until Ray has said that it is gone, so a cut seems to lack its
watts for some seconds. Devices behind gates bridge that at once. A machine that takes as long to
come down as the unit to leave would help no sooner, and pay a cycle for nothing: it waits, for no
longer than a unit can take to leave. Nothing is raised meanwhile, so the site's watts only fall.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.compute.act import ASK_AGAIN_S, EVICT_AFTER_S
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.ladder.allocate import Allocation
from wattshift_scheduler.state import State

LEAVES_S = EVICT_AFTER_S + ASK_AGAIN_S
"""A unit that was told to leave is gone by then: it has ended at its checkpoint, or was evicted."""

WAITS_MOST_S = 2.0 * LEAVES_S
"""What has not left by then is not waited for: whatever keeps it may keep it for long."""

CENT_W = 1e-6


def leaving_w(
    state: State, spoken_w: Mapping[str, float], load_w: Mapping[str, float]
) -> Floats | None:
    """Watts that count under each feeder and will not once what leaves has left; None: no such.

    Args:
        state: holds the site.
        spoken_w: what is counted for each node, W.
        load_w: what is placed on it, W.
    """
    left_w = {name: max(watts_w - load_w.get(name, 0.0), 0.0) for name, watts_w in spoken_w.items()}
    if not any(left_w.values()):
        return None
    found: Floats = state.site.tree.totals(budget.compute_w(state, left_w))
    return found


def slow(state: State) -> Bools:
    """Devices that take as long to come down as a unit to leave; shape (n,)."""
    fleet = state.fleet
    found: Bools = ~fleet.fenced & (fleet.point_transition_s[fleet.first[:-1]] >= LEAVES_S)
    return found


def waited(
    state: State, wanted: Allocation, after: Callable[[], Allocation], now_s: float
) -> tuple[Allocation, float]:
    """The allocation in which slow machines wait for what leaves, and since when they do, our
    clock; NaN: none waits.

    Args:
        state: holds what is leased, and since when machines have been waiting.
        wanted: where every device should run now.
        after: gives the same for the time when all that leaves has left.
        now_s: our clock, s.
    """
    since_s = state.reserve.waits_s
    since_s = now_s if math.isnan(since_s) else since_s
    lease_w = state.ledger.lease_w
    falls = (state.ledger.point > 0) & (wanted.watts_w < lease_w - CENT_W)
    falls &= slow(state)
    if not falls.any() or now_s - since_s > WAITS_MOST_S:
        return wanted, math.nan
    later = after()
    stays = np.flatnonzero(falls & (later.watts_w > wanted.watts_w + CENT_W))
    if not len(stays):
        return wanted, math.nan
    point, watts_w = wanted.point.copy(), wanted.watts_w.copy()
    whole = later.watts_w[stays] >= lease_w[stays] - CENT_W
    point[stays] = np.where(whole, state.ledger.point[stays], later.point[stays])
    watts_w[stays] = np.where(whole, lease_w[stays], later.watts_w[stays])
    return replace(wanted, point=point, watts_w=watts_w, _next=[]), since_s
