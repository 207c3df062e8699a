"""Mining that is held up for promises to the grid: what is to be gone must be drawn before (I8).

What a price, the plan or better work would let rest is held up while a promise needs its watts:
as much as lacks, the cheapest first. Inference, caps, feeders and faults are not asked: what they
leave no room for is not held, and what is kept for bursts of inference is not counted. A machine
too slow for the promise is not raised into such watts; none is lowered for them, for it would be
down too late for others to be up in time.

A decision that is asked what the one before it was asked has its answer again (`Answer`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.forecasts.reserve import Held
from wattshift_scheduler.in_force import carbon
from wattshift_scheduler.ladder.allocate import Allocation
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.walk.filled import points_at
from wattshift_scheduler.promises.filling import Filling
from wattshift_scheduler.promises.filling import Room as Room
from wattshift_scheduler.promises.goals import Losses
from wattshift_scheduler.promises.holdable import CENT_W, Devices
from wattshift_scheduler.promises.obligations import Need
from wattshift_scheduler.state import State


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked once, and what came of it.

    Attributes:
        ladder, devices, credit_w, wanted_w, room, price: what was there.
        weak: devices that were held up before and did not draw.
        owed: the promises; when they begin did not matter.
        point, watts_w: where every device should run; shape (n,).
        held: what is held up so.
    """

    ladder: Ladder
    devices: Devices
    credit_w: Floats
    wanted_w: Floats
    room: Room
    price: float
    weak: Ints
    owed: tuple[tuple[object, ...], ...]
    point: Ints
    watts_w: Floats
    held: Held

    def to(self, asked: "_Asked") -> bool:
        """Whether it answers that."""
        state = asked.state
        same = self.ladder is state.ladder and self.devices is asked.devices
        same &= self.credit_w is state.present.credit_w and self.wanted_w is asked.wanted.watts_w
        same &= self.price == asked.price and self.owed == _owed(asked.owed)
        return same and self.room.same(asked.room) and np.array_equal(self.weak, asked.weak())


@dataclass(frozen=True, slots=True)
class Kept:
    """What one decision leaves to the next: what it saw of the devices, its answer (None where that
    is good for this moment alone), and what it knows of losses."""

    devices: Devices
    answer: Answer | None = None
    losses: Losses | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What promises are to be kept with."""

    state: State
    devices: Devices
    wanted: Allocation
    owed: Sequence[Need]
    room: Room
    price: float

    def weak(self) -> Ints:
        """Devices that were held up before and do not draw what they are leased; rising."""
        was, one = self.state.held, self.devices
        if was.fleet is not self.state.fleet:
            return np.zeros(0, dtype=np.int64)
        return was.rows[one.may[was.rows] & ~one.able[was.rows]]


def held(
    state: State, wanted: Allocation, owed: Sequence[Need], room: Room, now_s: float
) -> tuple[Allocation, State]:
    """The allocation in which promises have what they need, as far as there is room, and the state
    that says what is held up for them.

    Args:
        state: holds the fleet, the ladder and what is leased.
        wanted: where every device should run without any promise.
        owed: from `obligations.needs`, the tightest first; without any nothing costs time.
        room: what must be kept to.
        now_s: our clock, s.
    """
    if not owed or not len(state.fleet):
        return wanted, _with(state, Held(), None)
    price = carbon.mining_usd_per_mwh(state, now_s)
    if not math.isfinite(price):
        barred = "nothing mines while the energy price is unknown"
        return wanted, _with(state, replace(_told(state, owed), barred=barred), None)
    last = state.present.promised
    devices = Devices.of(state, now_s, None if last is None else last.devices)
    asked = _Asked(state, devices, wanted, owed, room, price)
    answer = None if last is None else last.answer
    if answer is None or not answer.to(asked):
        answer, filling = _answered(asked, None if last is None else last.losses)
        kept = Kept(devices, None if filling.timed else answer, filling.learnt())
    else:
        kept = last
    if answer.watts_w is not wanted.watts_w:
        # What was looked up for the other points goes with them.
        wanted = replace(wanted, point=answer.point, watts_w=answer.watts_w, _next=[])
    return wanted, _with(state, answer.held, kept)


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


def _with(state: State, now: Held, kept: Kept | None) -> State:
    return replace(state, held=now, carried=replace(state.present, promised=kept))


def _told(state: State, owed: Sequence[Need]) -> Held:
    """What is owed and to whom, and nothing held for it yet."""
    most = max(owed, key=lambda need: need.watts_w)
    names = " and ".join(sorted({name for need in owed for name in need.names}))
    return Held(names, most.watts_w, most.within_s, fleet=state.fleet)


def _owed(owed: Sequence[Need]) -> tuple[tuple[object, ...], ...]:
    """All of some promises but when they begin."""
    return tuple((one.watts_w, one.within_s, one.names) for one in owed)


def _answered(asked: _Asked, losses: Losses | None) -> tuple[Answer, Filling]:
    """What comes of that, and how; `losses` are what is known of them."""
    state, owed, plain_w = asked.state, asked.owed, asked.wanted.watts_w
    filling = Filling.of(state, asked.devices, asked.room, asked.price, plain_w)
    filling.losses = losses
    weak, barred = asked.weak(), ""
    filling.still(weak, owed[0])
    for need in owed:
        filling.fill(need)
        barred = barred or filling.barred(need)
    told, watts_w = replace(_told(state, owed), barred=barred), filling.watts_w
    point, moved = asked.wanted.point, np.flatnonzero(watts_w != plain_w)
    if len(moved):
        rows = moved[watts_w[moved] > plain_w[moved] + CENT_W]
        told = _losing(told, filling, rows, plain_w[rows])
        point = point.copy()
        point[moved] = _points(state, moved, watts_w[moved])
    answer = Answer(
        ladder=state.ladder,
        devices=asked.devices,
        credit_w=state.present.credit_w,
        wanted_w=plain_w,
        room=asked.room,
        price=asked.price,
        weak=weak,
        owed=_owed(owed),
        point=point,
        watts_w=watts_w if len(moved) else plain_w,
        held=told,
    )
    return answer, filling


def _losing(told: Held, filling: Filling, rows: Ints, before_w: Floats) -> Held:
    """What is held up in some devices that had so much before, and what they lose by it."""
    rise_w = filling.watts_w[rows] - before_w
    return replace(
        told,
        rows=rows,
        # What does not draw, for inference has its card, loses nothing.
        more_w=rise_w * filling.devices.yields[rows],
        lost_usd_per_mwh=filling.lost_usd_per_h(rows, before_w) / rise_w * 1e6,
    )


def _points(state: State, rows: Ints, watts_w: Floats) -> Ints:
    """The points at which some devices run with such leases, counted from their first."""
    fleet, point = state.fleet, np.maximum(state.ledger.point[rows], 0)
    # Most go on as they are: those at a point need no look into their table.
    other = np.flatnonzero(fleet.point_limit_w[fleet.first[rows] + point] != watts_w)
    some = rows[other]
    point[other] = points_at(state.ladder, some, watts_w[other]) - fleet.first[some]
    return point
