"""Holding a target by the meter: a slow, bounded trim of what the ladder is filled to.

Watts are given away by what devices may draw at most, and beside them a bound is kept free, so that
a site settles some per cent away from its target. The trim is that distance, learnt: it follows
what was committed less what the meter shows. While all of the target is given away that is an
integral of the error; while something else holds the site back (too few devices, a dear price, a
whole rung that does not fit) it is not the error that is summed up, and so nothing winds up.

It is a correction and no licence: a target with its trim never exceeds the hard cap, and without a
fresh meter nothing is raised any further and what was raised is given back (I3, I9).
"""

import math
from dataclasses import dataclass, replace

from wattshift_scheduler.signals.words import Target

MOST_SHARE = 0.08
"""Of the target: devices are leased 5 % above what they draw as a rule, and so is other load
bounded. A larger error is a fault of the model, which a person should see."""

DEAD_SHARE = 0.005
"""Of the target: a meter of class 0.5 knows no better, and its noise must not be chased."""

RISE_S, FALL_S = 30.0, 10.0
"""Time constants. Both are long beside the second of a turn and the second or two of a meter, so
that no common rhythm appears; above its target the site comes down sooner than it goes up below."""

FAST_S = 10.0
"""A target that moves more often than this is a regulation signal. Its errors are delays and not
the model's, and whoever follows it is judged against a base point: what was learnt at that base
stays as it is, so that the signal moves the site by itself alone."""

KEPT_SHARE = 0.25
"""A move of the target by more of its watts than this puts other devices to work: what was learnt
is forgotten. Within it the errors are much the same."""

AGAIN_S = 300.0
"""Whole machines sleep and wake at most so often (an ASIC 5 to 10 minutes on and off): after it
was lowered the trim rises no sooner, so that it turns no machine on and off."""

STALE_S = 30.0
"""After the last sample nothing changes for so long; then what was raised is given back."""

STEP_S = 10.0
"""The most time that one sample counts for: the trim waits for what is on its way, and must not
take all of a distance at once."""


@dataclass(frozen=True, slots=True)
class Trim:
    """What is remembered of a target that is held by the meter.

    Attributes:
        watts_w: added to the target now, W.
        origin: source of the target; empty: none holds.
        target_w, learnt_w: the target now, and where it was when the trim began to be learnt, W.
        moved_s: when the target moved last, our clock.
        sampled_s: time of the last sample that was taken in; at first when the target came.
        lowered_s: when the trim was lowered last, our clock.
        decided_s: the last decision, our clock.
    """

    watts_w: float = 0.0
    origin: str = ""
    target_w: float = math.nan
    learnt_w: float = math.nan
    moved_s: float = -math.inf
    sampled_s: float = -math.inf
    lowered_s: float = -math.inf
    decided_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Seen:
    """What a trim is judged by.

    Attributes:
        metered_w, sampled_s: the site meter's last sample, W (NaN: none), and its time.
        committed_w: what was given away at the last decision, what is kept free for an excess
            included and what is reserved not, W; NaN: nothing was decided yet.
        aim_w: what ramps and caps had then left of the target, W.
        settled_s: since when nothing was on its way to another point, our clock; infinite: it is.
        whole: whether whole machines are turned on and off for it.
        stale_after_s: age at which a sample is unknown, s.
    """

    metered_w: float
    sampled_s: float
    committed_w: float
    aim_w: float
    settled_s: float
    whole: bool
    stale_after_s: float


def trimmed(before: Trim, target: Target, seen: Seen, now_s: float) -> Trim:
    """The trim of the target that holds now; while none does nothing is remembered.

    Args:
        before: of the last decision.
        target: the one that binds all work.
        seen: the meter, and what was decided.
        now_s: our clock, s.
    """
    trim = _followed(before, target, now_s)
    if math.isnan(seen.metered_w) or now_s - seen.sampled_s > seen.stale_after_s:
        trim = _blind(trim, seen, now_s)
    elif seen.sampled_s > trim.sampled_s:
        trim = _learnt(trim, seen, now_s)
    most_w = MOST_SHARE * target.watts_w
    return replace(trim, watts_w=min(max(trim.watts_w, -most_w), most_w), decided_s=now_s)


def _followed(before: Trim, target: Target, now_s: float) -> Trim:
    """What stays of a trim where the target is another one or has moved."""
    if before.origin != target.origin:
        return Trim(
            origin=target.origin,
            target_w=target.watts_w,
            learnt_w=target.watts_w,
            moved_s=now_s,
            sampled_s=now_s,
            decided_s=now_s,
        )
    if target.watts_w == before.target_w:
        return before
    moved = replace(before, target_w=target.watts_w, moved_s=now_s)
    if abs(target.watts_w - before.learnt_w) <= KEPT_SHARE * before.learnt_w:
        return moved
    return replace(moved, watts_w=0.0, learnt_w=target.watts_w, lowered_s=-math.inf)


def _blind(trim: Trim, seen: Seen, now_s: float) -> Trim:
    """Without a meter: what was raised is given back in time, what was lowered stays."""
    elapsed_s = min(now_s - trim.decided_s, now_s - seen.sampled_s - STALE_S)
    if not (trim.watts_w > 0.0 and elapsed_s > 0.0):
        return trim
    return replace(trim, watts_w=trim.watts_w * math.exp(-elapsed_s / RISE_S))


def _learnt(trim: Trim, seen: Seen, now_s: float) -> Trim:
    """A fresh sample, taken in where it tells of what was decided and not of what is on its way."""
    fast = now_s - trim.moved_s < FAST_S
    ramped = math.isinf(seen.aim_w) or seen.aim_w > trim.target_w
    if fast or ramped or seen.sampled_s < seen.settled_s or math.isnan(seen.committed_w):
        return trim
    elapsed_s = min(seen.sampled_s - trim.sampled_s, STEP_S)
    trim = replace(trim, sampled_s=seen.sampled_s)
    dead_w = DEAD_SHARE * trim.target_w
    off_w = seen.aim_w - seen.metered_w
    more_w = seen.committed_w - seen.metered_w - trim.watts_w
    if min(off_w, more_w) > dead_w and not (seen.whole and now_s - trim.lowered_s < AGAIN_S):
        return replace(trim, watts_w=trim.watts_w + more_w * _share(elapsed_s, RISE_S))
    if max(off_w, more_w) < -dead_w:
        lower_w = trim.watts_w + more_w * _share(elapsed_s, FALL_S)
        return replace(trim, watts_w=lower_w, lowered_s=now_s)
    return trim


def _share(elapsed_s: float, over_s: float) -> float:
    """How much of a distance is gone in a time, with a time constant."""
    return 1.0 - math.exp(-elapsed_s / over_s)
