"""How fast the watts that are acted on may change: ramps both ways, and holds after a fall.

A ramp or a hold only ever lowers: a hard cap that comes without notice holds at once. One that is
known beforehand is approached at its ramp, so that the site is below it when it starts.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Rules

EPS_W = 1e-6


@dataclass(frozen=True, slots=True)
class Pace:
    """What ramps and holds remember of the last decision.

    Attributes:
        at_s: when it was, our clock; -inf: there was none.
        cap_w, aim_w, mining_w: the cap, and what targets left to all work and to mining, W.
        stated_w: the lowest limit that was stated, W.
        fell_s, rose_s: when that last fell and rose, s; -inf: never.
    """

    at_s: float = -math.inf
    cap_w: float = math.inf
    aim_w: float = math.inf
    mining_w: float = math.inf
    stated_w: float = math.inf
    fell_s: float = -math.inf
    rose_s: float = -math.inf


def turned(pace: Pace, stated_w: float, now_s: float) -> tuple[float, float]:
    """When the lowest stated limit last fell and last rose, s."""
    if not math.isfinite(pace.at_s):
        return pace.fell_s, pace.rose_s
    fell_s = now_s if stated_w < pace.stated_w - EPS_W else pace.fell_s
    return fell_s, now_s if stated_w > pace.stated_w + EPS_W else pace.rose_s


def approached(coming: Iterable[Cap], down_w_per_s: float, now_s: float) -> tuple[float, str]:
    """What known future caps leave now, W, and in words the one that binds.

    Args:
        coming: caps; those that have started are passed over.
        down_w_per_s: the site's own steepest fall, W/s.
        now_s: our clock, s.
    """
    lowest_w, words = math.inf, ""
    for cap in coming:
        if cap.starts_s is None or cap.starts_s <= now_s:
            continue
        left_w = cap.limit_w + travel_w(min(down_w_per_s, cap.ramp_w_per_s), cap.starts_s - now_s)
        if left_w < lowest_w:
            lowest_w = left_w
            named = f"{cap.origin} {cap.name or cap.id}"
            words = f"ramp down to {cap.limit_w:,.0f} W ({named}) at its start"
    return lowest_w, words


def risen(
    pace: Pace, hard_w: float, fell_s: float, rules: Rules, now_s: float
) -> tuple[float, str]:
    """What ramp and hold leave of a hard cap that has risen, W, and in words what it waits for."""
    most_w, words = pace.cap_w, "hold after a fall"
    if not now_s < fell_s + rules.hold_s:
        most_w += travel_w(rules.ramp_up_w_per_s, now_s - pace.at_s)
        words = "ramp up"
    return (most_w, words) if most_w < hard_w - EPS_W else (hard_w, "")


def aimed(
    before_w: float, target_w: float, metered_w: float, elapsed_s: float, rules: Rules
) -> float:
    """What a target leaves now, W: it is no hard cap, so ramps hold both ways.

    Args:
        before_w: what the cap and targets left at the last decision, W.
        target_w: the target in force, W; infinite: none.
        metered_w: what the site draws, W; NaN unknown. A fall begins there, not at a higher aim.
        elapsed_s: since the last decision, s; infinite at the first, which no ramp bounds.
        rules: of the site.
    """
    if not math.isfinite(elapsed_s):
        return target_w
    if target_w > before_w:
        return min(target_w, before_w + travel_w(rules.ramp_up_w_per_s, elapsed_s))
    from_w = before_w if math.isnan(metered_w) else min(before_w, max(metered_w, 0.0))
    return max(target_w, from_w - travel_w(rules.ramp_down_w_per_s, elapsed_s))


def travel_w(ramp_w_per_s: float, elapsed_s: float) -> float:
    """How far a ramp goes in a time, W; an infinite one goes anywhere in none."""
    return math.inf if math.isinf(ramp_w_per_s) else ramp_w_per_s * max(elapsed_s, 0.0)


def die(agent: str, rose_s: float) -> float:
    """A host's place among the hosts of its feeder after a rise, at random in 0 to 1.

    It is cast from the host's name and the time of the rise, so that a replay falls alike and no
    host is always the last one.
    """
    return crc32(f"{agent} {rose_s:.3f}".encode()) / 2**32
