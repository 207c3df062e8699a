"""What an operator asks of an ASIC's measurement: plan it, begin it, break it off, tell of it.

It begins only where it may: under a lease, with nothing that holds the machine down and no command
open. It ends by itself, whatever becomes of who asked for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.profile import Tempo, Visit, Walk, steps_of
from wattshift_cluster.agent.asics.wish import offered
from wattshift_cluster.asic.driver import SLEEP, AsicPoint
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.errors import Refused

SIGMA_95 = 1.96
"""Standard errors in half of a 95 % interval."""

MOST_POINTS = 64
USUAL_POINTS = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked.

    Attributes:
        start, stop, dry_run: at most one of them; none: only tell.
        with_sleep: it may be put to sleep, too.
        most: points at most.
    """

    start: bool = False
    stop: bool = False
    dry_run: bool = False
    with_sleep: bool = False
    most: int = USUAL_POINTS

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Wanted":
        """From the wire. Raises: Refused."""
        most = fields.get("points", USUAL_POINTS)
        if isinstance(most, bool) or not isinstance(most, int) or not 2 <= most <= MOST_POINTS:
            raise Refused(f"points are not a number from 2 to {MOST_POINTS}")
        flags = {
            name: fields.get(name) is True for name in ("start", "stop", "dry_run", "with_sleep")
        }
        if sum((flags["start"], flags["stop"], flags["dry_run"])) > 1:
            raise Refused("a measurement is begun, broken off or planned, one of them")
        return cls(**flags, most=most)


def measure(device: AsicDevice, wanted: Wanted, tempo: Tempo | None = None) -> dict[str, Any]:
    """Do what is asked and tell how it stands (api.profile_views.ProfileView).

    Raises:
        Refused: it cannot be measured now; the text says why.
    """
    if wanted.stop:
        if device.walk is not None and not device.walk.done:
            device.walk.stop("stopped by an operator")
            device.follow(device.walk)
        return view(device, device.walk)
    if wanted.start or wanted.dry_run:
        walk = _planned(device, wanted, tempo)
        if wanted.dry_run:
            return {**view(device, walk), "state": "planned"}
        device.follow(walk)
    return view(device, device.walk)


def _planned(device: AsicDevice, wanted: Wanted, tempo: Tempo | None) -> Walk:
    known, asked = device.identity, device.asked
    if (why := _unfit(device)) is not None or known is None or asked is None:
        raise Refused(f"{device.id} cannot be measured: {why or 'it is not known yet'}")
    points = offered(known, device.memory.restraint.limit_w)
    steps = steps_of(points, asked, most=wanted.most, with_sleep=wanted.with_sleep)
    if not steps:
        why = f"its limit does not allow the {asked.mode} that it is leased"
        raise Refused(f"{device.id} cannot be measured: {why}")
    return Walk(asked, steps, boot_s(), points=points, over=1.0 + known.tolerance, tempo=tempo)


def _unfit(device: AsicDevice) -> str | None:
    """Why it cannot be measured now; None when it can."""
    if device.walk is not None and not device.walk.done:
        return "it is being measured already"
    if device.identity is None:
        return f"it is not known yet: {device.contact.error or 'not looked at'}"
    if (held := device.barred or device.why_asleep) is not None:
        return held
    if device.asked is None or device.asked.mode == SLEEP:
        return "it has no lease to work, and nothing is measured without watts for it"
    if device.heat.cap_w is not None:
        return f"it is too hot, and held at {device.heat.cap_w:,.0f} W"
    if device.contact.error is not None:
        return device.contact.error
    if not device.command.proven or device.command.goal is None:
        return device.command.explain(boot_s())
    return None


def view(device: AsicDevice, walk: Walk | None) -> dict[str, Any]:
    """A measurement as it is told."""
    quality = _quality(device, walk)
    head = {"device": device.id, "kind": "asic", "quality": quality}
    if walk is None:
        return {**head, "state": "none"}
    state = "running" if not walk.done else "aborted" if walk.aborted else "done"
    return {
        **head,
        "state": state,
        "reason": walk.aborted,
        "at": None if walk.at is None else walk.at.mode,
        "plan": [_step(point) for point in walk.steps],
        "expected_s": walk.expected_s,
        "ends_at": None if device.asked is None else device.asked.mode,
        "points": [_point(visit) for visit in walk.visits],
    }


def _quality(device: AsicDevice, walk: Walk | None) -> str:
    """How its watts are had: a firmware's estimate is no measurement."""
    if device.asic.emulated:
        return "emulated"
    estimated = walk is not None and any(one.figures.source == "estimate" for one in walk.visits)
    return "modelled" if estimated else "measured"


def _step(point: AsicPoint) -> dict[str, Any]:
    return {"mode": point.mode, "watts_w": point.watts_w, "transition_s": point.transition_s}


def _point(visit: Visit) -> dict[str, Any]:
    found = visit.figures
    return {
        "mode": visit.mode,
        "way": visit.way,
        "offered_w": visit.offered_w,
        "watts_w": found.watts_w,
        "error_w": _half(found.error_w),
        "source": found.source,
        "own_w": found.own_w,
        "outlet_w": found.outlet_w,
        "hashrate_h_per_s": found.hashrate_h_per_s,
        "j_per_th": found.j_per_th,
        "temperature_c": found.temperature_c,
        "settle_s": visit.settle_s,
        "seconds": visit.seconds,
        "settled": visit.settled,
    }


def _half(error_w: float | None) -> float | None:
    return None if error_w is None else SIGMA_95 * error_w
