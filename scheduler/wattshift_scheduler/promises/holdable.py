"""What each device could do for a promise: how fast, how surely, and at which loss."""

from dataclasses import dataclass

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.fixed import Fixed
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.leases import Ledger
from wattshift_scheduler.promises.sheddable import Shown, shown
from wattshift_scheduler.state import State
from wattshift_scheduler.tables import Tables

CENT_W = 1e-6

MARGIN_SHARE = 0.02
"""So much more than was promised is held up: a meter of class 1 and a device's own noise come to as
much, and what lacks by them is missed. A device that yields no more is not held."""

SETTLES_S = 5.0
"""So long after a device has reached its point a reading says what it draws there, s: sensors take
means, and a card's clocks and a table need their time."""

TOGETHER = 4096
"""Devices whose losses are worked out at once: their tables stay in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What is asked of each device; shape (n,) each.

    Attributes:
        shown: what sensors show of it; with it `Fixed`.
        up_s: time to its highest point, a table built, s.
        slowest_up_s: the longest of these, s.
        yields: the part of its watts that sensors show it draws, where it has settled; else 1.
        may: it may mine and can be relied on.
        able: so it may, and draws what it is leased, or would.
        gains: what is ready of each watt by which its lease rises.
        step_w: in which steps it is leased, W; 0: at its points alone.
        lease_w: what it is leased, W.
        least_w: what it keeps if it is not raised, W.
        ledger, tables: what it was worked out from, beside `shown` and `may`.
    """

    shown: Shown
    up_s: Floats
    slowest_up_s: float
    yields: Floats
    may: Bools
    able: Bools
    gains: Floats
    step_w: Floats
    lease_w: Floats
    least_w: Floats
    ledger: Ledger
    tables: Tables

    @property
    def fixed(self) -> Fixed:
        """What stays the same while the fleet does."""
        return self.shown.fixed

    @classmethod
    def of(cls, state: State, now_s: float, last: "Devices | None" = None) -> "Devices":
        """Args: state, now_s; last: an earlier look. The answer is the same without it."""
        seen_w = shown(state, now_s, None if last is None else last.shown)
        if last is not None and last._holds(state, seen_w):
            return last
        fixed, ledger, seen = seen_w.fixed, state.ledger, state.seen
        up_s = fixed.up_s
        if state.present.orders.tabled:
            cold = state.tables.cold(state.fleet)
            up_s = up_s + np.where(cold, state.fleet.table_build_s, 0.0)
        told = ledger.confirmed & (seen.at_s >= ledger.changed_s + up_s + SETTLES_S)
        told &= (now_s - seen.at_s <= state.site.rules.stale_after_s) & (ledger.point > 0)
        meant_w = fixed.nominal_w(ledger.lease_w)
        yields = np.ones(len(told))
        np.divide(seen_w.watts_w, meant_w, out=yields, where=told & (meant_w > CENT_W))
        yields = np.minimum(yields, 1.0, out=yields)
        may, orders = state.present.facts.free, state.present.orders
        step_w = np.zeros(len(told))
        step_w[orders.continuous] = orders.step_w
        lease_w = np.where(ledger.point >= 0, ledger.lease_w, fixed.base_w)
        return cls(
            shown=seen_w,
            up_s=up_s,
            slowest_up_s=float(up_s.max(initial=0.0)),
            yields=yields,
            may=may,
            able=may & (yields > MARGIN_SHARE),
            gains=yields / fixed.slack,
            step_w=step_w,
            lease_w=lease_w,
            least_w=np.maximum(lease_w, fixed.base_w),
            ledger=ledger,
            tables=state.tables,
        )

    def _holds(self, state: State, seen_w: Shown) -> bool:
        """Whether it is what a look would find that sees the same watts."""
        was, now = self.ledger, state.ledger
        if self.shown is not seen_w or self.may is not state.present.facts.free:
            return False
        if self.tables is not state.tables and state.present.orders.tabled:
            return False
        names = ("point", "lease_w", "changed_s", "confirmed")
        return all(_same(getattr(was, name), getattr(now, name)) for name in names)


def _same(one: Floats | Ints | Bools, other: Floats | Ints | Bools) -> bool:
    return one is other or np.array_equal(one, other)


def lost_usd_per_h(
    ladder: Ladder, rows: Ints, before_w: Floats, after_w: Floats, price: float
) -> Floats:
    """What some devices lose at a price by going from some watts to others, USD/h; (rows,)."""
    fleet, lost = ladder.fleet, np.empty(len(rows))
    counts = fleet.first[rows + 1] - fleet.first[rows]
    for count in [fleet.points_each] if fleet.points_each else np.unique(counts).tolist():
        alike = np.flatnonzero(counts == count)
        for begin in range(0, len(alike), TOGETHER):
            some = alike[begin : begin + TOGETHER]
            usd_per_h = _earned(ladder, rows[some], count, before_w[some], after_w[some])
            lost[some] = price * (after_w[some] - before_w[some]) - usd_per_h
    lost /= 1e6
    return lost


def _earned(ladder: Ladder, rows: Ints, count: int, before_w: Floats, after_w: Floats) -> Floats:
    """What the watts between two leases earn, in millionths of a USD/h; shape (m,).

    Args:
        ladder: the rungs.
        rows: columns of devices that have `count` points each; shape (m,).
        before_w, after_w: their leases, W; shape (m,).
    """
    steps, fleet = ladder.steps, ladder.fleet
    tables = (fleet.point_limit_w, ladder.worth_usd_per_mwh)
    if fleet.points_each and not steps.bent:
        # Whole rows are picked, and each rung leads from the point before it.
        limit_w, worth = (table.reshape(-1, count).take(rows, axis=0) for table in tables)
        start_w = limit_w[:, :-1]
    else:
        at = fleet.first[rows][:, None] + np.arange(count)
        limit_w, worth = (table.take(at) for table in tables)
        start_w = fleet.point_limit_w.take(steps.start.take(at[:, 1:]))
        worth = worth * steps.on.take(at)
    span_w = np.minimum(limit_w[:, 1:], after_w[:, None])
    span_w -= np.maximum(start_w, before_w[:, None])
    np.maximum(span_w, 0.0, out=span_w)
    span_w *= worth[:, 1:]
    earned: Floats = span_w.sum(axis=1)
    return earned
