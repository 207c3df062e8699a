"""What each device could do for a promise: how fast, how surely, and at which loss."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.envelopes import spread
from wattshift_scheduler.promises.sheddable import GATE_S, down_s, sheddable
from wattshift_scheduler.state import State

CENT_W = 1e-6

SETTLES_S = 5.0
"""So long after a device has reached its point a reading says what it draws there, s: sensors take
means, and a card's clocks and a table need their time."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What is asked of each device; shape (n,) each.

    Attributes:
        down_s, up_s: times to its lowest and to its highest point, a table built, s.
        yields: the part of its watts that sensors show it draws, where it has settled; else 1.
        may: it may mine and can be relied on.
        base_w, lease_w: watts of its lowest point, and what it is leased, W.
        top_w: watts of its highest point, W.
    """

    down_s: Floats
    up_s: Floats
    yields: Floats
    may: Bools
    base_w: Floats
    lease_w: Floats
    top_w: Floats

    @classmethod
    def of(cls, state: State, now_s: float) -> "Devices":
        fleet, ledger, shed = state.fleet, state.ledger, sheddable(state, now_s)
        top, base_w = fleet.first[1:] - 1, state.ladder.base_w
        fresh = now_s - state.seen.at_s <= state.site.rules.stale_after_s
        up_s = np.where(fleet.fenced, GATE_S, fleet.point_transition_s[top])
        if state.present.orders.tabled:
            up_s = up_s + np.where(state.tables.cold(fleet), fleet.table_build_s, 0.0)
        settled = ledger.confirmed & (state.seen.at_s >= ledger.changed_s + up_s + SETTLES_S)
        told = settled & fresh & (ledger.point > 0)
        meant_w = nominal_w(state, ledger.lease_w)
        yields = np.ones(len(fleet))
        np.divide(shed.shown_w, meant_w, out=yields, where=told & (meant_w > CENT_W))
        return cls(
            down_s=down_s(state),
            up_s=up_s,
            yields=np.minimum(yields, 1.0),
            may=state.present.facts.free,
            base_w=base_w,
            lease_w=np.where(ledger.point >= 0, ledger.lease_w, base_w),
            top_w=fleet.point_limit_w[top],
        )


def nominal_w(state: State, lease_w: Floats) -> Floats:
    """What devices are meant to draw above their lowest point with such leases, W; shape (n,)."""
    fleet = state.fleet
    slack = np.where(fleet.continuous, 0.0, fleet.tolerance)
    least_w = fleet.point_w[fleet.first[:-1]]
    return np.nan_to_num(np.maximum(lease_w / (1.0 + slack) - least_w, 0.0), nan=0.0)


def lost_usd_per_h(
    state: State, rows: Ints, before_w: Floats, after_w: Floats, price: float
) -> Floats:
    """What some devices lose at a price by going from some watts to others, USD/h; (rows,)."""
    ladder, fleet = state.ladder, state.fleet
    at, counts = spread(fleet.first, rows), np.diff(fleet.first)[rows]
    end_w, start_w = fleet.point_limit_w[at], fleet.point_limit_w[ladder.steps.start[at]]
    low_w = np.maximum(start_w, np.repeat(before_w, counts))
    span_w = np.maximum(np.minimum(end_w, np.repeat(after_w, counts)) - low_w, 0.0)
    on = ladder.steps.on[at]
    earned = np.where(on, span_w * np.where(on, ladder.worth_usd_per_mwh[at], 0.0), 0.0)
    usd_per_h = np.add.reduceat(earned, np.cumsum(counts) - counts)
    lost: Floats = (price * (after_w - before_w) - usd_per_h) / 1e6
    return lost
