"""Mining that is held up for promises to the grid: what is to be gone must be drawn before (I8).

What a price, the plan or better work would let rest is held up while a promise needs its watts:
as much as lacks, the cheapest first. Inference, caps, feeders and faults are not asked: what they
leave no room for is not held, and what is kept for bursts of inference is not counted. A machine
too slow for the promise is not raised into such watts; none is lowered for them, for it would be
down too late for others to be up in time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler.allocate import Allocation, beyond, fit_prefix
from wattshift_scheduler.arrays import Floats, Ints, summed
from wattshift_scheduler.plan import acting
from wattshift_scheduler.promises.holdable import CENT_W, Devices, lost_usd_per_h, nominal_w
from wattshift_scheduler.promises.obligations import Need
from wattshift_scheduler.reserve import Held
from wattshift_scheduler.rungs import HOUR_S
from wattshift_scheduler.state import State
from wattshift_scheduler.walk.filled import points_at

MARGIN_SHARE = 0.02
"""So much more than was promised is held up: a meter of class 1 and a device's own noise come to as
much, and what lacks by them is missed."""

STEADY_STEPS = 5
"""A divisible device that is held keeps what it holds if that is no more steps above what is asked
of it: noise of sensors moves no lease."""

MOST_ROUNDS = 8
"""So often those are passed over for which no feeder has room, and the next ones are tried."""

LAST_TRIED = 512
"""Devices that are tried one by one for what then lacks, wholly or in part: a bound on the time."""


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


def held(
    state: State, wanted: Allocation, owed: Sequence[Need], room: Room, now_s: float
) -> tuple[Allocation, Held]:
    """The allocation in which promises have what they need, as far as there is room.

    Args:
        state: holds the fleet, the ladder and what is leased.
        wanted: where every device should run without any promise.
        owed: from `obligations.needs`, the tightest first; without any nothing costs time.
        room: what must be kept to.
        now_s: our clock, s.
    """
    if not owed or not len(state.fleet):
        return wanted, Held()
    most = max(owed, key=lambda need: need.watts_w)
    names = " and ".join(sorted({name for need in owed for name in need.names}))
    told = Held(names, most.watts_w, most.within_s, fleet=state.fleet)
    price = acting.price_usd_per_mwh(state, now_s)
    if not math.isfinite(price):
        return wanted, replace(told, barred="nothing mines while the energy price is unknown")
    devices, barred = Devices.of(state, now_s), ""
    watts_w = _Hold(state, devices, room, owed[0], price).stilled(wanted.watts_w)
    for need in owed:
        hold = _Hold(state, devices, room, need, price)
        for goal_w in (devices.lease_w, devices.top_w):
            watts_w = hold.filled(watts_w, goal_w)
        barred = barred or hold.barred(watts_w)
    rows = np.flatnonzero(watts_w > wanted.watts_w + CENT_W)
    told = replace(told, barred=barred)
    if not (watts_w != wanted.watts_w).any():
        return wanted, told
    before_w, after_w = wanted.watts_w[rows], watts_w[rows]
    lost = lost_usd_per_h(state, rows, before_w, after_w, price)
    told = replace(
        told,
        rows=rows,
        # What does not draw, for inference has its card, loses nothing.
        more_w=(after_w - before_w) * devices.yields[rows],
        lost_usd_per_mwh=lost / (after_w - before_w) * 1e6,
    )
    return _moved(state, wanted, watts_w), told


def lent(now: Held, plain: Allocation, before: Allocation, after: Allocation) -> Held:
    """What is still held up once gates have lent services what they lack.

    Args:
        now: what was held up.
        plain: where every device should run without any promise.
        before, after: the same with promises, and once gates have lent.
    """
    if not len(now.rows) or after is before:
        return now
    least_w = plain.watts_w[now.rows]
    left_w = np.maximum(after.watts_w[now.rows] - least_w, 0.0)
    return now.of(left_w / (before.watts_w[now.rows] - least_w))


@dataclass(frozen=True, slots=True)
class _Hold:
    """One promise to be filled."""

    state: State
    devices: Devices
    room: Room
    need: Need
    price: float

    def stilled(self, watts_w: Floats) -> Floats:
        """The watts with those devices as they are that were held up before and do not draw now.

        Inference has their cards. They cost nothing there, and once lowered they would be raised
        again.
        """
        state, one = self.state, self.devices
        if not len(state.held.rows) or state.held.fleet is not state.fleet:
            return watts_w
        rows = state.held.rows
        rows = rows[one.may[rows] & (one.yields[rows] <= MARGIN_SHARE)]
        rows = rows[one.lease_w[rows] > watts_w[rows]]
        if not len(rows):
            return watts_w
        as_held_w = watts_w.copy()
        as_held_w[rows] = one.lease_w[rows]
        rise_w = (self._counted_w(as_held_w) - self._counted_w(watts_w))[rows]
        tree, feeder = state.site.tree, state.fleet.feeder[rows]
        late = rows[~fit_prefix(tree, feeder, rise_w, np.maximum(self._left_w(watts_w), 0.0))]
        as_held_w[late] = watts_w[late]
        return as_held_w

    def filled(self, watts_w: Floats, goal_w: Floats) -> Floats:
        """The watts of all devices after what lacks was raised, no device above its goal."""
        lacks_w, slower = self._lacks_w(watts_w), self._slower(watts_w)
        if lacks_w > CENT_W:
            rows = self._able(watts_w, goal_w)
            slack_w = self._slack_w(watts_w, slower)
            given_w = self._given_w(rows, watts_w, goal_w, slack_w, lacks_w)
            watts_w = watts_w.copy()
            watts_w[rows] += given_w
        return self._made_room(watts_w, slower) if len(slower) else watts_w

    def barred(self, watts_w: Floats) -> str:
        """Why no more could be raised; empty where nothing lacks or no device was left to raise."""
        if self._lacks_w(watts_w) <= CENT_W or not len(self._able(watts_w, self.devices.top_w)):
            return ""
        if self.room.feeder_w[0] < self.room.open_w - CENT_W:
            return "a target or an event's notice leaves mining no more"
        return "caps, feeders and what services have leave mining no more"

    def _lacks_w(self, watts_w: Floats) -> float:
        """By how much what is drawn and gone in time falls short, W."""
        in_time = self.devices.down_s <= self.need.within_s
        ready_w = nominal_w(self.state, watts_w)[in_time] * self.devices.yields[in_time]
        return self.need.watts_w * (1.0 + MARGIN_SHARE) - float(ready_w.sum())

    def _able(self, watts_w: Floats, goal_w: Floats) -> Ints:
        """Devices that could be raised and still be gone in time, the cheapest first."""
        one, left_s = self.devices, self.need.starts_in_s
        # What is up already only has to stay; the rest has to come up before the start.
        up = (watts_w < one.lease_w - CENT_W) & (goal_w <= one.lease_w + CENT_W)
        in_time = (one.down_s <= self.need.within_s) & (up | (one.up_s <= left_s))
        able = in_time & one.may & (goal_w > watts_w + CENT_W) & (one.yields > MARGIN_SHARE)
        rows = np.flatnonzero(able)
        if not len(rows):
            return rows
        before_w, after_w = watts_w[rows], goal_w[rows]
        lost = lost_usd_per_h(self.state, rows, before_w, after_w, self.price)
        wakes = np.maximum(before_w, one.lease_w[rows]) <= one.base_w[rows] + CENT_W
        cycle_usd = np.where(wakes, self.state.ladder.cycle_usd[rows], 0.0)
        lost += cycle_usd / max(left_s, 1.0) * HOUR_S
        # Of one that knows no watts between, more than what lacks is lost for nothing.
        whole_w = np.minimum(after_w - before_w, max(self._lacks_w(watts_w), CENT_W))
        useful_w = np.where(self.state.fleet.continuous[rows], after_w - before_w, whole_w)
        return rows[np.argsort(lost / useful_w, kind="stable")]

    def _slower(self, watts_w: Floats) -> Ints:
        """Devices that are not in time and would be raised, the least valuable first."""
        late = self.devices.down_s > self.need.within_s
        rows = np.flatnonzero(late & (watts_w > self._least_w() + CENT_W))
        return rows[np.argsort(self.state.ladder.best_usd_per_mwh[rows], kind="stable")]

    def _least_w(self) -> Floats:
        """What a device keeps that is not raised, W."""
        return np.maximum(self.devices.lease_w, self.devices.base_w)

    def _counted_w(self, watts_w: Floats) -> Floats:
        """What counts at the devices' feeders above their lowest points, W; shape (n,)."""
        credit_w = self.state.present.credit_w
        return beyond(credit_w, watts_w) - beyond(credit_w, self.devices.base_w)

    def _left_w(self, watts_w: Floats) -> Floats:
        """What every feeder has left, W: at the root no watt that is kept for services, but those
        of them that gates draw beyond what is promised."""
        tree, fleet = self.state.site.tree, self.state.fleet
        counted_w = self._counted_w(watts_w)
        used_w = tree.totals(summed(fleet.feeder, counted_w, len(tree.names)))
        left_w = self.room.feeder_w - used_w
        if self.room.services_w <= 0.0:
            return left_w
        gates_w = float((counted_w * self.devices.yields)[fleet.fenced].sum())
        beyond_w = min(max(-self._lacks_w(watts_w), 0.0), gates_w)
        kept_w = max(self.room.services_w - beyond_w, 0.0)
        left_w[0] = min(left_w[0], self.room.open_w - float(used_w[0]) - kept_w)
        return left_w

    def _slack_w(self, watts_w: Floats, slower: Ints) -> Floats:
        """The same if nothing slower were raised, W."""
        unraised_w = watts_w.copy()
        unraised_w[slower] = self._least_w()[slower]
        return self._left_w(unraised_w)

    def _given_w(
        self, rows: Ints, watts_w: Floats, goal_w: Floats, slack_w: Floats, lacks_w: float
    ) -> Floats:
        """By how much some devices are raised, each in its turn until nothing lacks; (rows,)."""
        fleet, tree = self.state.fleet, self.state.site.tree
        rise_w, feeder = goal_w[rows] - watts_w[rows], fleet.feeder[rows]
        # A gate's watts count only above what the compute beside it counts already.
        free_w = np.clip(self.state.present.credit_w[rows] - watts_w[rows], 0.0, rise_w)
        slack = np.where(fleet.continuous, 0.0, fleet.tolerance)[rows]
        gains = self.devices.yields[rows] / (1.0 + slack)
        given_w, left_w, tried = np.zeros(len(rows)), slack_w.copy(), np.arange(len(rows))
        for _ in range(MOST_ROUNDS):
            before_w = np.cumsum(rise_w[tried] * gains[tried])
            some = tried[: int(np.searchsorted(before_w, lacks_w))]
            fits = some[fit_prefix(tree, feeder[some], (rise_w - free_w)[some], left_w)]
            given_w[fits] = rise_w[fits]
            lacks_w -= float((rise_w * gains)[fits].sum())
            used_w = summed(feeder[fits], (rise_w - free_w)[fits], len(left_w))
            left_w = left_w - tree.totals(used_w)
            tried = tried[len(some) :]
            if len(fits) == len(some) or not len(tried):
                break
        passed = np.flatnonzero(given_w[: len(rows) - len(tried)] == 0.0)
        for i in [*tried[:LAST_TRIED].tolist(), *passed[:LAST_TRIED].tolist()]:
            if lacks_w <= CENT_W:
                break
            at = list(tree.path(int(feeder[i])))
            can_w = float(free_w[i]) + max(float(left_w[at].min()), 0.0)
            given_w[i] = self._part_w(int(rows[i]), watts_w, goal_w, can_w, lacks_w / gains[i])
            left_w[at] -= max(given_w[i] - free_w[i], 0.0)
            lacks_w -= given_w[i] * gains[i]
        return given_w

    def _part_w(
        self, device: int, watts_w: Floats, goal_w: Floats, can_w: float, need_w: float
    ) -> float:
        """By how much one device is raised: wholly if it knows no watts between, else in steps."""
        rise_w, orders = float(goal_w[device] - watts_w[device]), self.state.present.orders
        if not self.state.fleet.continuous[device]:
            return rise_w if rise_w <= can_w + CENT_W else 0.0
        step_w = float(orders.step_w[np.searchsorted(orders.continuous, device)])
        steps = math.ceil(min(need_w, rise_w) / step_w - CENT_W)
        steps = min(steps, math.floor(can_w / step_w + CENT_W))
        part_w = min(steps * step_w, rise_w)
        held_w = float(self.devices.lease_w[device] - watts_w[device])
        steady = part_w > 0.0 and part_w < held_w <= part_w + STEADY_STEPS * step_w
        return held_w if steady and held_w <= min(can_w, rise_w) else part_w

    def _made_room(self, watts_w: Floats, slower: Ints) -> Floats:
        """The watts without raises of slower devices that no longer fit, the worst undone first."""
        tree, watts_w, least_w = self.state.site.tree, watts_w.copy(), self._least_w()
        for ancestor in tree.ancestors[::-1]:
            left_w, above = self._left_w(watts_w), ancestor[self.state.fleet.feeder[slower]]
            for at in np.unique(above[above >= 0]):
                if left_w[at] >= -CENT_W:
                    continue
                mine = slower[above == at]
                gains_w = (self._counted_w(watts_w) - self._counted_w(least_w))[mine]
                before_w = np.cumsum(gains_w) - gains_w
                undone = mine[before_w < -left_w[at] - CENT_W]
                watts_w[undone] = np.minimum(watts_w[undone], least_w[undone])
        return watts_w


def _moved(state: State, wanted: Allocation, watts_w: Floats) -> Allocation:
    """The allocation with other watts, each device at the point that goes with them."""
    rows = np.flatnonzero(watts_w != wanted.watts_w)
    point = wanted.point.copy()
    point[rows] = points_at(state.ladder, rows, watts_w[rows]) - state.fleet.first[:-1][rows]
    # What was looked up for the other points goes with them.
    return replace(wanted, point=point, watts_w=watts_w, _next=[])
