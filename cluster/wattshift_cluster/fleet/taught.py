"""From what a driver says of its machine to what is told of it, by what meters taught. Pure.

Told watts become ceilings, so a learnt figure lowers a point with room above it, never below the
highest settled draw that a meter ever showed there, only within what can be true of such a machine,
and only together with the hashrate at which it was seen: a machine that hashes more draws more. It
raises a point as far as it was seen, since the tolerance is room enough. Standby and nameplate are
never lowered.
"""

import math
from dataclasses import replace

from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint
from wattshift_cluster.fleet.learn import CLAIM_RANGE, TRUST_FROM, Learnt, Tally

SIGMAS = 3.0
"""Standard errors above the mean that are told."""

SPREAD = 0.02
"""Share by which one settled draw differs from the next with the weather: wall power rises with
board temperature at a fixed frequency. A mean of few observations is not better than that."""

LOWER_FROM = 10
"""Observations before a firmware that says too much is told as drawing less."""

RISE_W = 1.0
"""Points must rise in watts; one whose neighbour was learnt to draw more lies that far above."""

TIME_ROOM, TIME_ROOM_S = 1.25, 1.0
LEAST_TIME_SHARE = 0.25
"""Of the driver's own transition time: a machine that was quick three times may have an off day."""

MOST_TIME_S = 3600.0
MOST_DOWN_SHARE, MOST_DOWN_S = 4.0, 60.0
"""Of the driver's own time to fall asleep, or a minute: a sleep that is unproven for longer is in
doubt, and whoever may cut the machine's power must not wait for an hour."""

NEWS_SHARE = 0.02
"""Watts that moved by less than this are no news: each change is a new inventory to everybody."""

NEWS_TIME_SHARE, NEWS_TIME_S = 0.2, 2.0


def taught(known: AsicIdentity, learnt: Learnt) -> AsicIdentity:
    """The machine as it is told: watts, hashrates and times by what was learnt.

    Args:
        known: as its driver says.
        learnt: of this very machine and firmware.
    """
    if not learnt:
        return known
    over = scale(learnt, lowers=not known.continuous)
    points = [_point(known, point, learnt, over) for point in known.points]
    for at in range(1, len(points)):
        if points[at].watts_w <= points[at - 1].watts_w:
            points[at] = replace(points[at], watts_w=points[at - 1].watts_w + RISE_W)
    raised = max(1.0, over)
    return replace(
        known,
        nameplate_w=max(known.nameplate_w * raised, points[-1].watts_w),
        power_on_w=known.power_on_w * raised,
        safe_w=points[0].watts_w if points[0].mode == SLEEP else known.safe_w,
        points=tuple(points),
    )


def scale(learnt: Learnt, *, lowers: bool) -> float:
    """What the firmware's watts are multiplied by to bound the meter's; 1 while that is not known.

    Args:
        learnt: see `Learnt.factor`.
        lowers: whether it may be below 1. It must not for a machine that holds any watts it is
            told: a limit is then asked of it in its own, larger watts.
    """
    tally = learnt.factor
    if tally.n < TRUST_FROM:
        return 1.0
    high = tally.mean + SIGMAS * _factor_error(tally)
    if high < 1.0:
        return high if lowers and tally.n >= LOWER_FROM else 1.0
    return max(1.0, tally.mean + SIGMAS * tally.error)


def upper_w(tally: Tally) -> float:
    """The most that a machine draws at a point by what was seen there, with room, W."""
    error_w = max(tally.error, SPREAD * tally.mean / math.sqrt(tally.n))
    return max(tally.most, tally.mean + SIGMAS * error_w)


def drawn(learnt: Learnt, mode: str) -> tuple[Tally, bool]:
    """What a set point was seen to draw, W, and whether a meter stands behind it.

    Without a meter's own figure it is the firmware's, multiplied by the most that a meter said of
    that firmware, where it did.
    """
    tally = learnt.points.get(mode, Tally())
    if tally.n:
        return tally, True
    claims, factor = learnt.claims.get(mode, Tally()), learnt.factor
    if factor.n < TRUST_FROM:
        return claims, False
    return claims.times(factor.mean + SIGMAS * _factor_error(factor)), True


def _factor_error(factor: Tally) -> float:
    return max(factor.error, 0.5 * SPREAD / math.sqrt(factor.n))


def believed(own_w: float, tally: Tally) -> bool:
    """Whether what was seen at a point can be true of a machine that is said to draw `own_w`, W."""
    if tally.n == 0:
        return False
    return CLAIM_RANGE[0] * own_w <= upper_w(tally) <= CLAIM_RANGE[1] * own_w


def time_s(tally: Tally, own_s: float, most_s: float = MOST_TIME_S) -> float:
    """How long a transition is said to take, s.

    Args:
        tally: as it was seen. Below three observations it may only lengthen the driver's own.
        own_s: as the driver says.
        most_s: the longest that is believed, unless the driver says more.
    """
    if tally.n == 0:
        return own_s
    few = tally.n < TRUST_FROM
    high_s = tally.most if few else tally.mean + SIGMAS * tally.sd
    least_s = own_s if few else LEAST_TIME_SHARE * own_s
    return min(max(high_s * TIME_ROOM + TIME_ROOM_S, least_s), max(most_s, own_s))


def news(old: AsicIdentity, new: AsicIdentity) -> bool:
    """Whether what is told has changed by so much that others must hear of it."""
    if len(old.points) != len(new.points) or replace(old, points=()) != replace(
        new, points=(), nameplate_w=old.nameplate_w, power_on_w=old.power_on_w, safe_w=old.safe_w
    ):
        return True
    pairs = zip(old.points, new.points, strict=True)
    return any(_moved(before, after) for before, after in pairs)


def _moved(before: AsicPoint, after: AsicPoint) -> bool:
    if before.mode != after.mode:
        return True
    rate = abs(after.hashrate_h_per_s - before.hashrate_h_per_s)
    return (
        abs(after.watts_w - before.watts_w) > NEWS_SHARE * before.watts_w
        or rate > 2.0 * NEWS_SHARE * before.hashrate_h_per_s
        or abs(after.transition_s - before.transition_s)
        > max(NEWS_TIME_S, NEWS_TIME_SHARE * before.transition_s)
    )


def _point(known: AsicIdentity, own: AsicPoint, learnt: Learnt, over: float) -> AsicPoint:
    ways = learnt.down if own.mode == SLEEP else learnt.up
    down_s = max(MOST_DOWN_SHARE * own.transition_s, MOST_DOWN_S)
    took = learnt.times.get(own.mode, Tally())
    most_s = down_s if own.mode == SLEEP else MOST_TIME_S
    settle_s = time_s(took if took.n else ways, own.transition_s, most_s)
    tally, metered = drawn(learnt, own.mode)
    if own.mode == SLEEP:
        seen_w = tally.most if tally.n else 0.0
        return replace(own, watts_w=max(own.watts_w, seen_w), transition_s=settle_s)
    own_w, own_h = own.watts_w * over, own.hashrate_h_per_s
    if known.continuous or tally.n == 0:
        return replace(own, watts_w=own_w, transition_s=settle_s)
    high_w, rate = upper_w(tally), learnt.rates.get(own.mode, Tally())
    lowers = metered and rate.n > 0
    if not believed(own_w, tally) or (high_w < own_w and not lowers):
        return replace(own, watts_w=own_w, transition_s=settle_s)
    told_w = high_w if high_w < own_w else max(own_w, tally.most)
    told_h = own_h if rate.n == 0 else min(own_h, rate.most)
    return AsicPoint(own.mode, told_w, told_h, settle_s)
