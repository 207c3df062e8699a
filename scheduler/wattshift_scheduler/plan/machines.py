"""What each machine would do at given prices: the best schedule of sleep and work, kind by kind.

If every interval's energy had one price, machines would not need each other: each has a small state
(up or at rest, and for how long), so its best schedule is found exactly by going back from the
last interval. A plan asks for that twice: to see which decisions are open at all, and to prove that
no schedule that was left out is better than what was found.

Inside a plan watts are kW, and money is thousandths of a dollar for one interval: then a price in
USD/MWh times the hours of an interval is the cost of a kW, and all figures are near one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from wattshift_scheduler.arrays import Bools, Floats, Ints
from wattshift_scheduler.plan.words import Ahead, Kind

W_PER_KW = 1e3
MUSD = 1e3
HOUR_S = 3600.0

MOST_AGES = 288
"""Intervals that a warm-up or a least time may span; longer ones are cut to it."""


@dataclass(frozen=True, slots=True)
class Machines:
    """Devices alike, those up at the start apart from those at rest; `k` of them, `j` points.

    Attributes:
        kind: column of the kind; shape (k,).
        count, up: how many, and whether they are up at the start; shape (k,).
        fenced: as of the kind; shape (k,).
        rise_kw: draw of one device above its rest, at each point; rising, the last repeated;
            shape (k, j).
        worth: what one earns at each in an interval beyond rest, before energy; shape (k, j).
        points: how many of them are no repeats; shape (k,).
        top_kw: what one draws above its rest while it comes up; shape (k,).
        wear: what a wake costs beside what is not earned during it; shape (k,).
        lost: share of the first, second, ... interval after a wake in which it comes up; at least
            one column; shape (k, ages).
        least_up, least_down: least intervals in either state; shape (k,).
        age: for how many intervals it has been in its state at the start; shape (k,).
        under: whether it hangs under each limit of the plan; shape (k, limits).
        down_s: until it has come down to its rest, s; shape (k,).
    """

    kind: Ints
    count: Floats
    up: Bools
    fenced: Bools
    rise_kw: Floats
    worth: Floats
    points: Ints
    top_kw: Floats
    wear: Floats
    lost: Floats
    least_up: Ints
    least_down: Ints
    age: Ints
    under: Bools
    down_s: Floats

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(cls, ahead: Ahead, *, settled: bool = False) -> "Machines":
        """All machines that can do more than rest.

        Args:
            ahead: what is planned.
            settled: nothing binds them to the state in which they are at the start.
        """
        rows = [
            (i, up, count)
            for i, kind in enumerate(ahead.kinds)
            if len(kind.points_w) > 1
            for up, count in ((True, kind.running), (False, kind.count - kind.running))
            if count
        ]
        kinds = [ahead.kinds[i] for i, _, _ in rows]
        up = np.array([up for _, up, _ in rows], dtype=np.bool_)
        ages = [_intervals(kind.up_s, ahead.step_s) for kind in kinds]
        # Whoever comes up comes up to the end.
        least_up = _ints(
            max(_intervals(kind.min_up_s, ahead.step_s), own, 1)
            for kind, own in zip(kinds, ages, strict=True)
        )
        least_down = _ints(max(_intervals(kind.min_down_s, ahead.step_s), 1) for kind in kinds)
        least = np.where(up, least_up, least_down)
        since = _ints(int(min(kind.since_s / ahead.step_s, MOST_AGES) + 1e-9) for kind in kinds)
        points, rise_kw, worth = _points(kinds, ahead.hours)
        return cls(
            kind=_ints(i for i, _, _ in rows),
            count=np.array([float(count) for _, _, count in rows]),
            up=up,
            fenced=np.array([kind.fenced for kind in kinds], dtype=np.bool_),
            rise_kw=rise_kw,
            worth=worth,
            points=points,
            top_kw=np.array([_rise_kw(kind, -1) for kind in kinds]),
            wear=np.array([_wear(kind) for kind in kinds]),
            lost=_lost(kinds, ahead.step_s, max([1, *ages])),
            least_up=least_up,
            least_down=least_down,
            age=np.where(settled | (least == 1), MOST_AGES, since),
            under=np.array(
                [[one.name in kind.under for one in ahead.limits] for kind in kinds], dtype=np.bool_
            ).reshape(len(kinds), len(ahead.limits)),
            down_s=np.array([kind.down_s for kind in kinds]),
        )

    def times(self, copies: int) -> "Machines":
        """All machines, `copies` times one after the other."""
        columns = (getattr(self, one.name) for one in fields(self))
        return Machines(*(np.concatenate([column] * copies) for column in columns))

    def held(self) -> Ints:
        """For how many intervals each must stay as it is at the start; shape (k,)."""
        least = np.where(self.up, self.least_up, self.least_down)
        return np.maximum(least - self.age, 0)

    def coming(self, n: int) -> Floats:
        """Share of each interval in which those up at the start still come up; shape (k, n)."""
        at = self.age[:, None] + np.arange(n)
        inside = self.up[:, None] & (at < self.lost.shape[1])
        shares = np.take_along_axis(self.lost, np.minimum(at, self.lost.shape[1] - 1), axis=1)
        return np.where(inside, shares, 0.0)


@dataclass(frozen=True, slots=True)
class Schedules:
    """The best schedule of one device of each; shape (k, n) but for `value`.

    Attributes:
        awake: whether it is up.
        point: the point that is best for one that is up, counted from its lowest at work.
        value: what the schedule earns beyond rest, energy paid; shape (k,).
        worth: of one that is up over one at rest, at the end of each interval.
    """

    awake: Bools
    point: Ints
    value: Floats
    worth: Floats

    def part(self, rows: slice) -> "Schedules":
        """Those of some of the machines."""
        return Schedules(self.awake[rows], self.point[rows], self.value[rows], self.worth[rows])


def best_points(machines: Machines, price: Floats) -> tuple[Ints, Floats]:
    """The best point of each machine that is up, and what it earns; `price` of a kW, (k, n)."""
    net = machines.worth[:, :, None] - machines.rise_kw[:, :, None] * price[:, None, :]
    point = np.argmax(net, axis=1)
    return point, np.take_along_axis(net, point[:, None, :], axis=1)[:, 0, :]


def schedules(machines: Machines, price: Floats) -> Schedules:
    """The best schedule of each at these prices of a kW for an interval; shape (k, n)."""
    k, n = price.shape
    point, earns = best_points(machines, price)
    ages = max(int(machines.least_up.max(initial=1)), machines.lost.shape[1] + 1)
    rests = int(machines.least_down.max(initial=1))
    lost = np.zeros((k, ages))
    lost[:, : machines.lost.shape[1]] = machines.lost
    may_rest = np.arange(1, ages + 1) >= machines.least_up[:, None]
    may_rest[:, -1] = True
    may_wake = np.arange(1, rests + 1) >= machines.least_down[:, None]
    up, down = np.zeros((n + 1, k, ages)), np.zeros((n + 1, k, rests))
    burnt = machines.top_kw[:, None] * price
    older, staler = _next(ages), _next(rests)
    for t in range(n - 1, -1, -1):
        stage = (1.0 - lost) * earns[:, t, None] - lost * burnt[:, t, None]
        rest = np.where(may_rest, down[t + 1][:, :1], -np.inf)
        up[t] = stage + np.maximum(up[t + 1][:, older], rest)
        wake = np.where(may_wake, up[t + 1][:, :1] - machines.wear[:, None], -np.inf)
        down[t] = np.maximum(down[t + 1][:, staler], wake)
    awake, value = _forward(machines, up, down, may_rest, may_wake)
    return Schedules(awake, point, value, _worth(machines, up, down))


def _forward(
    machines: Machines, up: Floats, down: Floats, may_rest: Bools, may_wake: Bools
) -> tuple[Bools, Floats]:
    """The schedules that the values of states lead to, and what they earn."""
    n, k, ages = up.shape[0] - 1, up.shape[1], up.shape[2]
    rests, row = down.shape[2], np.arange(k)
    awake = np.zeros((k, n), dtype=np.bool_)
    # Ages count from one; zero is a machine that has turned at the very start.
    is_up, age = machines.up.copy(), machines.age.copy()
    value = np.zeros(k)
    for t in range(n):
        at_up, at_rest = np.minimum(age, ages) - 1, np.minimum(age, rests) - 1
        free = np.where(is_up, may_rest[row, at_up], may_wake[row, at_rest]) & (age > 0)
        stay = np.where(
            is_up, up[t][row, np.minimum(age, ages - 1)], down[t][row, np.minimum(age, rests - 1)]
        )
        turn = np.where(is_up, down[t][:, 0], up[t][:, 0] - machines.wear)
        turns = free & (turn > stay)
        if t == 0:
            value = np.where(turns, turn, stay)
        is_up = is_up ^ turns
        age = np.where(turns, 1, age + 1)
        awake[:, t] = is_up
    return awake, value


def _worth(machines: Machines, up: Floats, down: Floats) -> Floats:
    """What being up is worth over being at rest, both settled, at the end of each interval."""
    if not len(machines):
        return np.zeros((0, up.shape[0] - 1))
    up_value = np.maximum(up[1:, :, -1], down[1:, :, 0])
    down_value = np.maximum(down[1:, :, -1], up[1:, :, 0] - machines.wear)
    # After the last interval nothing is known, and nothing is worth anything.
    up_value[-1], down_value[-1] = 0.0, 0.0
    return np.asarray((up_value - down_value).T)


def _next(ages: int) -> Ints:
    """The age after each age; the last stays."""
    return np.minimum(np.arange(1, ages + 1), ages - 1)


def _points(kinds: list[Kind], hours: float) -> tuple[Ints, Floats, Floats]:
    """How many points at work each has that can be best, their watts and what they earn."""
    hulls = [_hull(kind) for kind in kinds]
    most = max((len(hull) for hull in hulls), default=1)
    rise_kw, worth = np.zeros((len(kinds), most)), np.zeros((len(kinds), most))
    for row, (kind, hull) in enumerate(zip(kinds, hulls, strict=True)):
        at = [*hull, *[hull[-1]] * (most - len(hull))]
        rise_kw[row] = [_rise_kw(kind, point) for point in at]
        usd_per_h = np.array([kind.usd_per_h[point] for point in at])
        worth[row] = (usd_per_h - kind.usd_per_h[0]) * hours * MUSD
    return _ints(len(hull) for hull in hulls), rise_kw, worth


def _lost(kinds: list[Kind], step_s: float, span: int) -> Floats:
    up_s = np.array([kind.up_s for kind in kinds])
    return np.clip(up_s[:, None] / step_s - np.arange(span), 0.0, 1.0)


def _hull(kind: Kind) -> list[int]:
    """Points at work on their upper concave envelope: others are worse than a mix of those."""
    on = [1]
    while on[-1] < len(kind.points_w) - 1:
        here = on[-1]
        later = range(here + 1, len(kind.points_w))
        on.append(max((_slope(kind, here, point), point) for point in later)[1])
    return on


def _slope(kind: Kind, low: int, high: int) -> float:
    rise_usd = kind.usd_per_h[high] - kind.usd_per_h[low]
    return rise_usd / (kind.points_w[high] - kind.points_w[low])


def _rise_kw(kind: Kind, point: int) -> float:
    return (kind.points_w[point] - kind.points_w[0]) / W_PER_KW


def _wear(kind: Kind) -> float:
    """What a cycle costs beside the income that coming up misses, which the schedule counts."""
    missed_usd = max(kind.usd_per_h[-1], 0.0) * kind.up_s / HOUR_S
    return max(kind.cycle_usd - missed_usd, 0.0) * MUSD


def _intervals(span_s: float, step_s: float) -> int:
    return min(math.ceil(span_s / step_s - 1e-9), MOST_AGES)


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
