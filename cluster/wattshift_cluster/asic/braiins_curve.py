"""What a Braiins OS machine offers: power targets, what they draw, and which one keeps to a lease.

The targets are those of the machine's own efficiency profile; where the firmware has none, its
constraints are divided evenly and the hashrate is MODELLED as a straight line through the rating.
A target is no limit: one record shows a machine 3.5 % above it. Any watts can be leased, so what a
point draws is counted with the margin in it, and a lease between two points is turned back into
the target that stays below it.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from wattshift_cluster.asic.driver import SLEEP, AsicPoint, AsicRefused
from wattshift_cluster.asic.models import Ability
from wattshift_cluster.asic.reported import Json, hashes, rows, under, watts

POINTS = 6
MOST_POINTS = 32
_TH = 1e12
_SLACK = 0.999


@dataclass(frozen=True, slots=True)
class Rung:
    """One target: the most that it draws, W, and its hashes per second."""

    target_w: int
    draw_w: float
    hashrate_h_per_s: float

    @property
    def mode(self) -> str:
        """Its name, as a lease carries it."""
        return f"limit:{self.target_w}"


@dataclass(frozen=True, slots=True)
class Range:
    """The targets that the machine takes, W; `default_w` is its own choice."""

    low_w: int
    default_w: int
    high_w: int


def range_of(constraints: Json) -> Range | None:
    """The range of targets in the machine's constraints; None where they tell none."""
    target = under(under(constraints, "tuner_constraints"), "power_target")
    low_w, default_w, high_w = (
        watts(under(target, name).get("watt")) for name in ("min", "default", "max")
    )
    if low_w is None or high_w is None or not 0 < low_w < high_w:
        return None
    default_w = high_w if default_w is None else min(max(default_w, low_w), high_w)
    return Range(round(low_w), round(default_w), round(high_w))


class Curve:
    """The rungs of one machine, ascending.

    Args:
        rungs: at least one, ascending by target; what they draw never falls.
    """

    def __init__(self, rungs: tuple[Rung, ...]) -> None:
        assert rungs
        assert all(a.target_w < b.target_w and a.draw_w <= b.draw_w for a, b in pairwise(rungs))
        self.rungs = rungs

    def points(self, ability: Ability) -> tuple[AsicPoint, ...]:
        """Sleep and every rung."""
        sleep = AsicPoint(SLEEP, ability.standby_w, 0.0, ability.sleep_s)
        rungs = (
            AsicPoint(rung.mode, rung.draw_w, rung.hashrate_h_per_s, ability.settle_s)
            for rung in self.rungs
        )
        return (sleep, *rungs)

    def mode_of(self, target_w: float) -> str:
        """The rung that a target belongs to; one that is outside of all is named by itself."""
        target_w = round(target_w)
        at = bisect_left(self.rungs, target_w, key=lambda rung: rung.target_w)
        inside = at < len(self.rungs) and target_w >= self.rungs[0].target_w
        return self.rungs[at].mode if inside else f"limit:{target_w}"

    def target_for(self, address: str, mode: str, watts_w: float) -> int:
        """The target that holds the rung `mode` while drawing at most `watts_w`.

        Raises:
            AsicRefused: there is no such rung, or not even the lowest target draws so little.
        """
        rung = next((rung for rung in self.rungs if rung.mode == mode), None)
        if rung is None:
            raise AsicRefused(address, f"set {mode}", "the machine has no such point")
        if watts_w >= rung.draw_w * _SLACK:
            return rung.target_w
        if watts_w < self.rungs[0].draw_w * _SLACK:
            reason = f"the lease allows {watts_w:.0f} W, the least is {self.rungs[0].draw_w:.0f} W"
            raise AsicRefused(address, f"set {mode}", reason)
        at = bisect_left(self.rungs, watts_w, key=lambda rung: rung.draw_w)
        if at == 0:
            return self.rungs[0].target_w
        below, above = self.rungs[at - 1], self.rungs[at]
        share = (watts_w - below.draw_w) / (above.draw_w - below.draw_w)
        return int(below.target_w + share * (above.target_w - below.target_w))


def from_profile(profile: Json, allowed: Range, top_w: float, margin: float) -> Curve | None:
    """The machine's own curve within the allowed range; None where it tells fewer than two points.

    Args:
        profile: answer of `performance/efficiency-profile`.
        allowed: targets that it takes.
        top_w: highest target to offer.
        margin: share by which the draw may exceed what the machine estimates.
    """
    known: dict[int, tuple[float, float]] = {}
    for row in rows(profile, "points")[:MOST_POINTS]:
        target_w = watts(under(row, "power_target").get("watt"))
        estimate_w = watts(under(row, "consumption").get("watt"))
        rate = hashes(under(row, "hashrate").get("terahash_per_second"), _TH)
        if target_w and rate and allowed.low_w <= target_w <= min(allowed.high_w, top_w):
            known[round(target_w)] = max(target_w, estimate_w or 0.0) * (1.0 + margin), rate
    rungs: list[Rung] = []
    for target, (draw_w, rate) in sorted(known.items()):
        least_w = rungs[-1].draw_w if rungs else 0.0
        rungs.append(Rung(target, max(draw_w, least_w), rate))
    return Curve(tuple(rungs)) if len(rungs) > 1 else None


def from_range(allowed: Range, top_w: float, rate_h_per_s: float, margin: float) -> Curve:
    """Evenly spread targets; hashrate MODELLED as `rate_h_per_s` at the machine's default."""
    high_w = max(allowed.low_w, min(allowed.high_w, round(top_w)))
    spread = {
        allowed.low_w + round((high_w - allowed.low_w) * i / (POINTS - 1)) for i in range(POINTS)
    }
    return Curve(
        tuple(
            Rung(target, target * (1.0 + margin), rate_h_per_s * target / allowed.default_w)
            for target in sorted(spread)
        )
    )
