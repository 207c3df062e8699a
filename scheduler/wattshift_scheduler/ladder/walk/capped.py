"""What the root's room leaves of all that is settled below it: a search in sums kept in order.

The best rungs are taken as long as they fit. Watts that must stay with fenced devices or free (a
reserve) are kept from the others: of those fewer rungs are taken, and the search is made twice.
What is left of the room, less than a rung, goes to the next rungs that fit; a divisible one takes
the rest.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from wattshift_scheduler.arrays import Floats, Ints
from wattshift_scheduler.ladder.walk.below import ROUNDED_W, Ends, in_grains, wanted_w
from wattshift_scheduler.ladder.walk.filled import SMALL_DEVICES, Settled, ended

NEXT_RUNGS = 512
"""Rungs after the cut that are looked at for what is left: a bound on the time."""


@dataclass(frozen=True, slots=True)
class Capped:
    """What is taken of what was settled; `n` devices.

    Attributes:
        fenced_to, others_to: of fenced devices and of others the rungs before these places of the
            order are taken.
        top: where the highest rung ends that is taken so of each device; shape (n,).
        more: devices that go on beyond that into what is left of the room.
        left_w: watts of the room that are left in the end.
        others_left_w: watts that devices which are not fenced may have beyond those they have;
            infinite without a reserve.
    """

    fenced_to: int
    others_to: int
    top: Ints
    more: Ends
    left_w: float
    others_left_w: float
    _leasts: list[Floats] = field(default_factory=list, compare=False, repr=False)

    @property
    def first_out(self) -> int:
        """The place of the best rung that was kept out."""
        return min(self.fenced_to, self.others_to)

    @classmethod
    def of(
        cls, settled: Settled, room_w: float, reserve_w: float, last: "Capped | None"
    ) -> "Capped":
        """Cut at the root.

        Args:
            settled: everything below it.
            room_w: watts that it can give.
            reserve_w: of these, watts that only fenced devices may have.
            last: an answer with the same `settled`: only what differs is written.
        """
        room_w = _in_grains(room_w)
        others_w = room_w
        if reserve_w > 0:
            others_w = _in_grains(room_w - reserve_w)
        fenced_to, others_to, fenced_w, given_w = _places(settled, room_w, others_w)
        all_in = len(settled.order)
        was = (all_in, all_in) if last is None else (last.fenced_to, last.others_to)
        top = settled.top if last is None else last.top
        top = _moved(settled, top, was, (fenced_to, others_to))
        left_w = room_w - fenced_w - given_w
        others_left_w = others_w - given_w if reserve_w > 0 else math.inf
        leasts: list[Floats] = [] if last is None else last._leasts
        cut = cls(fenced_to, others_to, top, Ends.none(), left_w, others_left_w, leasts)
        return _rest(settled, cut) if left_w > 0 else cut

    def least_usd_per_mwh(self, settled: Settled) -> float | None:
        """Gross value of the least valuable rung taken, in whole or in part; NaN if none was.

        None where not all that is taken stands in the order: only the devices can tell then.
        """
        asked, order = settled.asked, settled.order
        small, floors = len(self.top) <= SMALL_DEVICES, settled.walk.floors
        apart = self.fenced_to != self.others_to or len(floors.device)
        if small or apart or asked.credit_w.any():
            return None
        worth = asked.ladder.worth_usd_per_mwh
        if not self._leasts:
            ends = order.keys & ((1 << asked.ladder.key_bits) - 1)
            self._leasts.append(np.minimum.accumulate(worth[ends]))
        least = float(self._leasts[0][self.fenced_to - 1]) if self.fenced_to else math.inf
        if len(self.more.device):
            first = float(asked.ladder.first_usd_per_mwh[self.more.device].min())
            least = min(least, first, float(worth[self.more.rung].min()))
        return math.nan if math.isinf(least) else least

    def lease_w(self, settled: Settled) -> tuple[Ints, Floats]:
        """The point that each device runs at, in the table of points, and its lease; (n,)."""
        top, parts = self.top.copy(), settled.parts
        fenced = settled.asked.ladder.fleet.fenced[parts.device]
        parts = parts.of(settled.places < np.where(fenced, self.fenced_to, self.others_to))
        lease_w = ended(settled.asked, top, parts, settled.walk.floors)
        top[self.more.device] = self.more.top
        lease_w[self.more.device] = self.more.lease_w
        return top, lease_w


def _in_grains(room_w: float) -> float:
    return float(in_grains(np.array([max(room_w, 0.0)]))[0])


def _places(settled: Settled, room_w: float, others_w: float) -> tuple[int, int, float, float]:
    """Before which places fenced rungs and others are taken, and the watts of either."""
    sum_w = settled.order.sum_w
    if others_w >= room_w:
        to = int(np.searchsorted(sum_w, room_w + ROUNDED_W, side="right"))
        return to, to, 0.0, _upto(sum_w, to)
    fenced_w = settled.order.fenced_w(settled.asked.ladder)
    others_to = int(np.searchsorted(sum_w - fenced_w, others_w + ROUNDED_W, side="right"))
    if _upto(sum_w, others_to) > room_w + ROUNDED_W:
        to = int(np.searchsorted(sum_w, room_w + ROUNDED_W, side="right"))
        return to, to, _upto(fenced_w, to), _upto(sum_w, to) - _upto(fenced_w, to)
    given_w = _upto(sum_w, others_to) - _upto(fenced_w, others_to)
    fenced_to = int(np.searchsorted(fenced_w, room_w + ROUNDED_W - given_w, side="right"))
    return fenced_to, others_to, _upto(fenced_w, fenced_to), given_w


def _upto(sum_w: Floats, place: int) -> float:
    return float(sum_w[place - 1]) if place else 0.0


def _moved(settled: Settled, top: Ints, was: tuple[int, int], now: tuple[int, int]) -> Ints:
    """`top` as it is with rungs taken up to the places `now`; it holds for the places `was`."""
    begin, end = min(*was, *now), max(*was, *now)
    if begin == end:
        return top
    top, ladder, order = top.copy(), settled.asked.ladder, settled.order
    to = now[0]
    # Of each device the lowest rung that is out is written last, and the highest that is in.
    if now[0] == now[1]:
        _, start, device = order.rungs(ladder, slice(end - 1, to - 1 if to else None, -1))
        top[device] = start
        ends, _, device = order.rungs(ladder, slice(begin, to))
        top[device] = ends
        return top
    ends, start, device = order.rungs(ladder, slice(begin, end))
    is_in = np.arange(begin, end) < np.where(ladder.fleet.fenced[device], *now)
    taken, out = np.flatnonzero(is_in), np.flatnonzero(~is_in)[::-1]
    top[device[out]] = start[out]
    top[device[taken]] = ends[taken]
    return top


def _rest(settled: Settled, cut: Capped) -> Capped:
    """The same with what is left of the room given to the next rungs that fit."""
    fleet, order = settled.asked.ladder.fleet, settled.order
    begin = cut.first_out
    some = slice(begin, begin + NEXT_RUNGS)
    ends, start, device = order.rungs(settled.asked.ladder, some)
    fenced, given_w = fleet.fenced[device], order.given_w[some]
    place = begin + np.arange(len(device))
    rows = np.flatnonzero(place >= np.where(fenced, cut.fenced_to, cut.others_to))
    left_w, others_left_w = cut.left_w, cut.others_left_w
    got: dict[int, tuple[int, float]] = {}
    stopped: set[int] = set()
    for column, need_w, is_fenced, divides, rung in zip(
        device[rows].tolist(),
        given_w[rows].tolist(),
        fenced[rows].tolist(),
        fleet.divides(device, start)[rows].tolist(),
        ends[rows].tolist(),
        strict=True,
    ):
        if left_w <= 0.0:
            break
        can_w = left_w if is_fenced else min(left_w, others_left_w)
        if column in stopped:
            continue
        if need_w > can_w:
            # Its next rung waits for this one, whatever that needs.
            stopped.add(column)
            if not divides or can_w <= 0.0:
                continue
        more_w = min(need_w, can_w)
        got[column] = rung, more_w
        left_w -= more_w
        others_left_w -= 0.0 if is_fenced else more_w
    more = _into(settled, got)
    return replace(cut, more=more, left_w=left_w, others_left_w=others_left_w)


def _into(settled: Settled, got: dict[int, tuple[int, float]]) -> Ends:
    """Where devices end that were given so many watts of those rungs."""
    if not got:
        return Ends.none()
    asked, fleet = settled.asked, settled.asked.ladder.fleet
    device = np.array(sorted(got), dtype=np.int64)
    rung = np.array([got[column][0] for column in device.tolist()], dtype=np.int64)
    more_w = np.array([got[column][1] for column in device.tolist()])
    lease_w = fleet.point_limit_w[rung] - (wanted_w(asked, rung) - more_w)
    top, parts = rung.copy(), settled.parts
    if len(parts.device):
        # A device that stops inside its envelope takes all of its step.
        at = np.minimum(np.searchsorted(parts.device, device), len(parts.device) - 1)
        same = (parts.rung[at] == rung) & ~fleet.continuous[device]
        top = np.where(same, parts.top[at], top)
        lease_w = np.where(same, parts.lease_w[at], lease_w)
    return Ends(device, top, lease_w, rung)
