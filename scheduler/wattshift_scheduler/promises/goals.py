"""Up to where devices are raised for promises, and in which order: the cheapest first.

What a device loses by its rise is worked out once; from one promise to the next that of those alone
which have been raised meanwhile. Orders are of whole numbers, which sort several times faster than
indices by a figure; figures within 1e-9 of each other count as equal, in the order of the fleet.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.rungs import HOUR_S, keys_of, points_of
from wattshift_scheduler.promises.holdable import CENT_W, Devices, lost_usd_per_h
from wattshift_scheduler.promises.obligations import Need
from wattshift_scheduler.state import State

TIES_BITS = 20
"""Last bits of an order's figure that are not looked at: figures within 1e-9 of each other."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What some devices lose at a price by a rise; shape (m,) each.

    Attributes:
        ladder, price: what it was worked out from.
        rows: columns of the devices, rising.
        before_w, goal_w: from where to where, W; from NaN: not known.
        lost_usd_per_h: what they lose by that.
    """

    ladder: Ladder
    price: float
    rows: Ints
    goal_w: Floats
    before_w: Floats
    lost_usd_per_h: Floats


@dataclass(slots=True)
class Goal:
    """Devices that could be raised so far; `m` of `n`. What is known of their losses grows.

    Attributes:
        state, devices, price: what is asked.
        wakes: it may lead up from rest, which takes time and costs a cycle.
        rows: their columns, rising; shape (m,).
        goal_w: up to where each is raised, W; shape (m,).
    """

    state: State
    devices: Devices
    price: float
    wakes: bool
    rows: Ints
    goal_w: Floats
    _before_w: Floats = field(init=False)
    _lost: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._before_w, self._lost = np.full((2, len(self.rows)), np.nan)

    @classmethod
    def of(
        cls, state: State, devices: Devices, price: float, watts_w: Floats, *, wakes: bool
    ) -> "Goal":
        """All devices that may mine and draw what they are leased: up to their top if it `wakes`,
        else up to what they are leased.

        Args:
            state, devices, price, wakes: as of the class.
            watts_w: the least that each may be at before it is raised, W; shape (n,).
        """
        goal_w = devices.fixed.top_w if wakes else devices.lease_w
        rows = np.flatnonzero(devices.able & (goal_w > watts_w + CENT_W))
        return cls(state, devices, price, wakes, rows, goal_w[rows])

    def learn(self, last: "Losses | None") -> None:
        """Take over what is known of the losses if it is of the same."""
        if last is None or last.ladder is not self.state.ladder or last.price != self.price:
            return
        if np.array_equal(last.rows, self.rows) and np.array_equal(last.goal_w, self.goal_w):
            self._before_w, self._lost = last.before_w.copy(), last.lost_usd_per_h.copy()

    def losses(self) -> "Losses":
        """What is known of the losses, for the next decision."""
        ladder, rows, goal_w = self.state.ladder, self.rows, self.goal_w
        return Losses(ladder, self.price, rows, goal_w, self._before_w, self._lost)

    def like(self, need: Need) -> tuple[bool, int, float]:
        """What of a promise says who is in time for it: who is so for one is so for another."""
        fixed = self.devices.fixed
        all_up = not self.wakes or need.starts_in_s >= self.devices.slowest_up_s
        starts_in_s = math.inf if all_up else need.starts_in_s
        return self.wakes, fixed.in_time(need.within_s), starts_in_s

    def able(self, watts_w: Floats, need: Need) -> Ints:
        """Who of them can be raised and still be gone in time: places in `rows`, rising.

        Args:
            watts_w: what every device has now, W; shape (n,).
            need: the promise.
        """
        if not len(self.rows):
            return self.rows
        one, rows, now_w = self.devices, self.rows, watts_w[self.rows]
        able = self.goal_w > now_w + CENT_W
        _, in_time, starts_in_s = self.like(need)
        if in_time < len(one.fixed.times_s):
            able &= one.fixed.speed[rows] < in_time
        if math.isfinite(starts_in_s):
            # What is up already only has to stay; the rest has to come up before the start.
            lease_w = one.lease_w[rows]
            up = (now_w < lease_w - CENT_W) & (self.goal_w <= lease_w + CENT_W)
            able &= up | (one.up_s[rows] <= starts_in_s)
        return np.flatnonzero(able)

    def ranked(self, places: Ints, watts_w: Floats, need: Need, lacks_w: float) -> Ints:
        """Some of them, the cheapest first.

        Args:
            places, watts_w, need: as of `able`.
            lacks_w: what lacks for the promise, W.

        Returns:
            Where in `places` each stands.
        """
        one, rows = self.devices, self.rows[places]
        before_w = watts_w[rows]
        rise_w = self.goal_w[places] - before_w
        lost = self._lost_usd_per_h(places, before_w)
        if self.wakes:
            sleeps = np.maximum(before_w, one.lease_w[rows]) <= one.fixed.base_w[rows] + CENT_W
            cycle_usd = np.where(sleeps, self.state.ladder.cycle_usd[rows], 0.0)
            lost = lost + cycle_usd / max(need.starts_in_s, 1.0) * HOUR_S
        # Of one that knows no watts between, more than what lacks is lost for nothing.
        whole_w = np.minimum(rise_w, max(lacks_w, CENT_W))
        useful_w = np.where(one.step_w[rows] > 0.0, rise_w, whole_w)
        bits = max(len(places).bit_length(), TIES_BITS)
        keys = keys_of(-lost / useful_w, np.arange(len(places)), bits)
        keys.sort()
        return points_of(keys, bits)

    def known(self, rows: Ints, before_w: Floats, after_w: Floats) -> tuple[Floats, Bools]:
        """What some devices lose by going from some watts to others, USD/h, and of which of them
        that is known; shape (rows,) each."""
        if not len(self.rows):
            return np.zeros(len(rows)), np.zeros(len(rows), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        there = (self.rows[at] == rows) & (self._before_w[at] == before_w)
        return self._lost[at], there & (self.goal_w[at] == after_w)

    def _lost_usd_per_h(self, places: Ints, before_w: Floats) -> Floats:
        new = np.flatnonzero(self._before_w[places] != before_w)
        if len(new):
            at, now_w = places[new], before_w[new]
            some = self.rows[at], now_w, self.goal_w[at]
            self._lost[at] = lost_usd_per_h(self.state.ladder, *some, self.price)
            self._before_w[at] = now_w
        return self._lost[places]
