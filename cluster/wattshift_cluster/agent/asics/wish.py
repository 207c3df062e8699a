"""From what is asked of an ASIC to what it is told: the lease under whatever holds it down."""

from dataclasses import dataclass, replace

from wattshift_cluster.agent.leases import WATTS_SLACK
from wattshift_cluster.asic.driver import SLEEP, AsicIdentity, AsicPoint
from wattshift_cluster.fleet.curtail import Goal


@dataclass(frozen=True, slots=True)
class Asked:
    """What a lease asks, or its end."""

    mode: str
    watts_w: float


ASLEEP = Asked(SLEEP, 0.0)


def offered(known: AsicIdentity, limit_w: float | None) -> tuple[AsicPoint, ...]:
    """The points that may be leased under an operator's limit; sleep always may."""
    return tuple(
        point
        for point in known.points
        if limit_w is None or point.watts_w <= limit_w or point.mode == SLEEP
    )


def goal(known: AsicIdentity, asked: Asked, cap_w: float | None) -> Goal:
    """What to tell the machine.

    Args:
        known: it.
        asked: by its lease; a mode that it does not have is passed on, and its driver refuses it.
        cap_w: the most watts that a point may have; None: any.
    """
    points = {point.mode: point for point in known.points}
    point = points.get(asked.mode, replace(known.points[-1], mode=asked.mode))
    watts_w = asked.watts_w
    over = 1.0 + known.tolerance
    if cap_w is not None and point.watts_w > cap_w:
        point = offered(known, cap_w)[-1]
        watts_w = min(watts_w, point.watts_w * over)
    least_w = min((p.watts_w for p in known.points if p.mode != SLEEP), default=0.0)
    if known.continuous and watts_w < least_w * (1.0 - WATTS_SLACK):
        # Not even its lowest target draws so little, and its driver would change nothing.
        point = next((p for p in known.points if p.mode == SLEEP), point)
    settles_w = point.watts_w
    if known.continuous and point.mode != SLEEP:
        settles_w = min(settles_w, watts_w)
    return Goal(
        mode=point.mode,
        most_w=settles_w * over,
        most_h_per_s=point.hashrate_h_per_s * over,
        settle_s=point.transition_s,
        ask_w=watts_w,
        fixed=not known.continuous or point.mode == SLEEP,
    )
