"""Promises that are filled one after the other, the shortest notice first, each the cheapest way.

What is ready for each and what every feeder carries is summed once, by the few times in which
devices come down and by feeder. From then on it follows the devices that are raised.
"""

from dataclasses import dataclass, field

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints, summed
from wattshift_scheduler.ladder.allocate import beyond, fit_prefix
from wattshift_scheduler.promises.given import LAST_TRIED, Turn
from wattshift_scheduler.promises.goals import Goal, Losses
from wattshift_scheduler.promises.holdable import CENT_W, MARGIN_SHARE, Devices, lost_usd_per_h
from wattshift_scheduler.promises.obligations import Need
from wattshift_scheduler.state import State

MANY = 16 * LAST_TRIED
"""Of more devices those alone are ranked that there is room for, where none of them fits wholly:
among the few that are tried hardly one would be."""


@dataclass(frozen=True, slots=True)
class Room:
    """What promises must keep to, W.

    Attributes:
        feeder_w: what each feeder can give to rungs, at the root what targets of mining and notices
            leave of it; shape (feeders,).
        open_w: what the root can give without those.
        services_w: of that, what is kept for bursts of services.
    """

    feeder_w: Floats
    open_w: float
    services_w: float

    def same(self, other: "Room") -> bool:
        """Whether both are as large."""
        sizes = (self.open_w, self.services_w) == (other.open_w, other.services_w)
        return sizes and np.array_equal(self.feeder_w, other.feeder_w)


@dataclass(slots=True)
class Filling:
    """Devices as they are raised for one promise after the other. `n` devices.

    Attributes:
        state, devices, room, price: what is there.
        watts_w: what each device has by now, W; shape (n,). Begins as what it should have without
            any promise.
        ready_w: of that what is drawn, by the time that it needs to be gone, W; shape (times,).
        own_w: what counts at the devices' own feeders above their lowest points, W; (feeders,).
        rising: devices that should have more than they keep without any promise, by column.
        losses: what is known, from the last decision, of what devices lose that only stay up.
        timed: whether it mattered when a promise begins.
        _spent: what every feeder had left when none of some devices could be raised, since the last
            one was; by what `Goal.like` says of these.
    """

    state: State
    devices: Devices
    room: Room
    price: float
    watts_w: Floats
    ready_w: Floats
    own_w: Floats
    rising: Ints
    losses: Losses | None = None
    timed: bool = False
    _goals: dict[bool, Goal] = field(default_factory=dict)
    _spent: dict[tuple[bool, int, float], Floats] = field(default_factory=dict)

    @classmethod
    def of(
        cls, state: State, devices: Devices, room: Room, price: float, wanted_w: Floats
    ) -> "Filling":
        """Nothing is raised yet; `wanted_w` is what every device should have, W; shape (n,)."""
        fixed, credit_w = devices.fixed, state.present.credit_w
        counted_w = beyond(credit_w, wanted_w) - beyond(credit_w, fixed.base_w)
        return cls(
            state=state,
            devices=devices,
            room=room,
            price=price,
            watts_w=wanted_w.copy(),
            ready_w=fixed.by_speed(fixed.nominal_w(wanted_w) * devices.yields),
            own_w=state.present.orders.by_feeder(counted_w, len(state.site.tree.names)),
            rising=np.flatnonzero(wanted_w > devices.least_w + CENT_W),
        )

    def still(self, before: Ints, need: Need) -> None:
        """Leave those devices as they are that were held up before and do not draw now.

        Inference has their cards. They cost nothing there, and once lowered they would be raised
        again.

        Args:
            before: columns of devices that were held up.
            need: the first promise.
        """
        one, fleet, tree = self.devices, self.state.fleet, self.state.site.tree
        rows = before[one.may[before] & ~one.able[before]]
        rows = rows[one.lease_w[rows] > self.watts_w[rows]]
        if not len(rows):
            return
        lease_w = one.lease_w[rows]
        rise_w = self._counted_w(rows, lease_w) - self._counted_w(rows, self.watts_w[rows])
        left_w = np.maximum(self._left_w(need), 0.0)
        fits = fit_prefix(tree, fleet.feeder[rows], rise_w, left_w)
        self._write(rows[fits], lease_w[fits])

    def fill(self, need: Need) -> None:
        """Raise devices for a promise: first what is up already, then what rests."""
        for wakes in (False, True):
            late, lacks_w = self._late(need), self.lacks_w(need)
            if lacks_w > CENT_W:
                self.timed |= wakes
                self._raise(self._goal(wakes), need, late, lacks_w)
            if len(late):
                self._make_room(late, need)

    def barred(self, need: Need) -> str:
        """Why no more could be raised; empty where nothing lacks or no device was left to raise."""
        if self.lacks_w(need) <= CENT_W or not len(self._goal(True).able(self.watts_w, need)):
            return ""
        if self.room.feeder_w[0] < self.room.open_w - CENT_W:
            return "a target or an event's notice leaves mining no more"
        return "caps, feeders and what services have leave mining no more"

    def lacks_w(self, need: Need) -> float:
        """By how much what is drawn and gone in time falls short, W; below 0: more is than must."""
        in_time = self.devices.fixed.in_time(need.within_s)
        return need.watts_w * (1.0 + MARGIN_SHARE) - float(self.ready_w[:in_time].sum())

    def lost_usd_per_h(self, rows: Ints, before_w: Floats) -> Floats:
        """What some devices lose that had so much before, USD/h; shape (rows,)."""
        after_w = self.watts_w[rows]
        lost, known = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.bool_)
        for goal in self._goals.values():
            found, there = goal.known(rows, before_w, after_w)
            lost, known = np.where(there, found, lost), known | there
        new = np.flatnonzero(~known)
        some = rows[new], before_w[new], after_w[new]
        lost[new] = lost_usd_per_h(self.state.ladder, *some, self.price)
        return lost

    def learnt(self) -> Losses | None:
        """What is known of those losses now."""
        return self._goals[False].losses() if False in self._goals else self.losses

    def _goal(self, wakes: bool) -> Goal:
        """Those that could be raised up to what they are leased, or up to their top."""
        if wakes not in self._goals:
            least_w = self.watts_w
            if len(self.rising):
                # What was to rise may be lowered again to make room.
                least_w = np.minimum(least_w, self.devices.least_w)
            goal = Goal.of(self.state, self.devices, self.price, least_w, wakes=wakes)
            if not wakes:
                goal.learn(self.losses)
            self._goals[wakes] = goal
        return self._goals[wakes]

    def _late(self, need: Need) -> Ints:
        """Devices that are not in time and would be raised."""
        one, rows = self.devices, self.rising
        if not len(rows):
            return rows
        late = one.fixed.speed[rows] >= one.fixed.in_time(need.within_s)
        return rows[late & (self.watts_w[rows] > one.least_w[rows] + CENT_W)]

    def _raise(self, goal: Goal, need: Need, late: Ints, lacks_w: float) -> None:
        """Raise devices, each in its turn, until nothing lacks."""
        left_w, like = self._left_w(need, late), goal.like(need)
        spent_w = self._spent.get(like)
        if spent_w is not None and (left_w <= spent_w).all():
            return
        places = goal.able(self.watts_w, need)
        turn = Turn.of(goal, places, self.watts_w, left_w)
        fits = np.flatnonzero(turn.fits())
        if not len(fits):
            self._spent[like] = left_w
            return
        if len(places) > MANY and not turn.fits(wholly=True).any():
            # There is room for a few steps of divisible devices alone.
            places, turn = places[fits], turn.of_rows(fits)
        turn = turn.of_rows(goal.ranked(places, self.watts_w, need, lacks_w))
        given_w = turn.given_w(lacks_w)
        some = np.flatnonzero(given_w > 0.0)
        rows = turn.rows[some]
        self._write(rows, self.watts_w[rows] + given_w[some])

    def _write(self, rows: Ints, watts_w: Floats) -> None:
        """Let some devices have so much, and every sum follow."""
        self._spent.clear()
        fixed, before_w = self.devices.fixed, self.watts_w[rows]
        nominal_w = fixed.nominal_w(watts_w, rows) - fixed.nominal_w(before_w, rows)
        self.ready_w += fixed.by_speed(nominal_w * self.devices.yields[rows], rows)
        counted_w = self._counted_w(rows, watts_w) - self._counted_w(rows, before_w)
        self.own_w += summed(self.state.fleet.feeder[rows], counted_w, len(self.own_w))
        self.watts_w[rows] = watts_w

    def _counted_w(self, rows: Ints, watts_w: Floats) -> Floats:
        """What counts of some devices at their feeders above their lowest points, W; (rows,)."""
        credit_w = self.state.present.credit_w[rows]
        return beyond(credit_w, watts_w) - beyond(credit_w, self.devices.fixed.base_w[rows])

    def _left_w(self, need: Need, unraised: Ints | None = None) -> Floats:
        """What every feeder has left, W: at the root no watt that is kept for services, but those
        of them that gates draw beyond what is promised.

        Args:
            need: the promise.
            unraised: devices that are counted as if they were not raised.
        """
        tree, own_w, watts_w = self.state.site.tree, self.own_w, self.watts_w
        if unraised is not None and len(unraised):
            least_w = self.devices.least_w[unraised]
            more_w = self._counted_w(unraised, watts_w[unraised])
            more_w = more_w - self._counted_w(unraised, least_w)
            own_w = own_w - summed(self.state.fleet.feeder[unraised], more_w, len(own_w))
            watts_w = watts_w.copy()
            watts_w[unraised] = least_w
        used_w = tree.totals(own_w)
        left_w: Floats = self.room.feeder_w - used_w
        if self.room.services_w <= 0.0:
            return left_w
        gates = self._gates()
        gates_w = self._counted_w(gates, watts_w[gates]) * self.devices.yields[gates]
        beyond_w = min(max(-self.lacks_w(need), 0.0), float(gates_w.sum()))
        kept_w = max(self.room.services_w - beyond_w, 0.0)
        left_w[0] = min(left_w[0], self.room.open_w - float(used_w[0]) - kept_w)
        return left_w

    def _gates(self) -> Ints:
        """Devices that services can have the watts of at once."""
        return self.state.present.orders.gates

    def _make_room(self, late: Ints, need: Need) -> None:
        """Undo raises of slower devices that no longer fit, the worst first."""
        tree, one, feeder = self.state.site.tree, self.devices, self.state.fleet.feeder
        worst = late[np.argsort(self.state.ladder.best_usd_per_mwh[late], kind="stable")]
        for ancestor in tree.ancestors[::-1]:
            left_w, above = self._left_w(need), ancestor[feeder[worst]]
            for at in np.unique(above[(above >= 0) & (left_w[above] < -CENT_W)]):
                mine = worst[above == at]
                least_w, now_w = one.least_w[mine], self.watts_w[mine]
                gains_w = self._counted_w(mine, now_w) - self._counted_w(mine, least_w)
                undone = np.cumsum(gains_w) - gains_w < -left_w[at] - CENT_W
                lower_w = np.minimum(now_w, least_w)
                self._write(mine[undone], lower_w[undone])
