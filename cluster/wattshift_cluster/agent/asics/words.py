"""What is told of an ASIC: its inventory, its reading, and in words where it stands.

An error means that a sample must not be believed to bound the machine: the controller then counts
it at its ceiling. A note is what a person should know although the watts are sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wattshift_cluster.agent.asics.standing import Standing
from wattshift_cluster.agent.asics.supply import draw_of
from wattshift_cluster.agent.leases import Terms
from wattshift_cluster.agent.protocol import (
    Counters,
    DeviceInfo,
    Point,
    Quality,
    Reading,
    Source,
    finite,
)
from wattshift_cluster.asic.driver import AsicPoint, AsicReading
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.fleet.curtail import State
from wattshift_cluster.fleet.safety import too_warm

AS_FOUND = "as-found"


def info(device: Standing, points: Sequence[AsicPoint]) -> DeviceInfo | None:
    """What it is; None while not even its nameplate is known.

    Args:
        device: the machine.
        points: those that it offers now; none: it stays as it was found.
    """
    known = device.identity
    nameplate_w = _nameplate_w(device)
    if nameplate_w is None:
        return None
    offered = tuple(
        Point(point.mode, point.watts_w, point.hashrate_h_per_s, point.transition_s)
        for point in points
    ) or (Point(AS_FOUND, nameplate_w, 0.0, 0.0),)
    return DeviceInfo(
        id=device.id,
        kind="asic",
        model=known.model if known else "not identified",
        firmware=known.firmware if known else "unknown",
        algorithm=known.algorithm if known else "sha256d",
        nameplate_w=nameplate_w,
        tolerance=known.tolerance if known else 0.05,
        continuous=known.continuous if known else False,
        fenced=device.supply is not None and device.supply.fenced,
        safe_w=offered[0].watts_w,
        power_on_w=known.power_on_w if known else nameplate_w,
        host=None,
        quality=_quality(device),
        points=offered,
        wear_usd_per_cycle=device.lanes.section.wear_usd(device.asic),
    )


def terms(device: Standing, points: Sequence[AsicPoint]) -> Terms | None:
    """What it can be leased; None while not even its nameplate is known.

    Args:
        device: the machine.
        points: those that it offers now.
    """
    told = info(device, points)
    if told is None:
        return None
    modes = {point.mode: point.watts_w for point in points or told.points}
    most_w = told.nameplate_w * (1.0 + told.tolerance) * 1.001
    return Terms(modes, most_w, told.continuous, device.closed)


def reading(device: Standing) -> Reading:
    """Its last sample, and what must be said with it."""
    seen, now_s = device.contact.seen, boot_s()
    fault, remark = error(device, now_s), note(device, now_s)
    cycles = None if device.damage else device.memory.cycles
    earned = Counters() if device.income is None else device.income.counters(device.id)
    if (dark := device.dark) is not None:
        at_s, how = dark.at_boot_s, dark.quality
        return Reading(device.id, at_s, how, 0.0, note=remark, cycles=cycles, counters=earned)
    if seen is None:
        return Reading(
            device=device.id,
            at_boot_s=now_s,
            quality=_quality(device),
            error=fault,
            note=remark,
            cycles=cycles,
            counters=earned,
        )
    drawn = _drawn(device, seen)
    return Reading(
        device=device.id,
        at_boot_s=drawn.at_boot_s,
        quality=drawn.quality,
        source=drawn.source,
        watts_w=drawn.watts_w,
        enforced_limit_w=finite(seen.power_limit_w),
        hashrate_h_per_s=finite(seen.hashrate_h_per_s),
        temperature_c=finite(device.contact.temperature_c),
        mode=device.contact.mode(device.others.settled_s),
        foreign_write=now_s < device.others.until_s,
        error=fault,
        note=remark,
        cycles=cycles,
        counters=earned,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What a machine draws, W, by whom, and how good that is."""

    watts_w: float | None
    at_boot_s: float
    quality: Quality
    source: Source | None


def _drawn(device: Standing, seen: AsicReading) -> _Drawn:
    """The best word on its draw. Nothing that is inferred is called measured."""
    draw = draw_of(seen, device.supply, device.contact)
    if draw is not None:
        at_s = min(seen.at_boot_s, draw.at_boot_s)
        return _Drawn(draw.watts_w, at_s, draw.quality, "outlet")
    quality = _quality(device)
    watts_w = finite(device.lessons.corrected(seen).watts_w)
    if watts_w is not None:
        if not seen.estimated:
            return _Drawn(watts_w, seen.at_boot_s, quality, "sensor")
        estimated: Quality = quality if device.asic.emulated else "modelled"
        return _Drawn(watts_w, seen.at_boot_s, estimated, "estimate")
    learnt_w = device.lessons.drawn_w(device.command, seen.hashrate_h_per_s)
    if learnt_w is None or error(device, boot_s()) is not None:
        return _Drawn(None, seen.at_boot_s, quality, None)
    return _Drawn(learnt_w, seen.at_boot_s, "modelled", "learnt")


def error(device: Standing, now_s: float) -> str | None:
    """Why what it draws is not sure, or why it does not do what it should."""
    if device.dark is not None:
        return None
    if device.damage is not None:
        return device.damage
    if device.contact.error is not None:
        return device.contact.error
    if device.supply is not None and (why := device.supply.elsewhere(device.contact)):
        return why
    return device.command.explain(now_s) if _in_trouble(device) else None


def note(device: Standing, now_s: float) -> str | None:
    """All that holds it down, and a command that is open."""
    command, restraint = device.command, device.memory.restraint
    remarks = [device.why_asleep, device.contact.trail.remark, _power(device), _air(device)]
    remarks += [device.unpaid, None if device.income is None else device.income.remark]
    if device.command.goal is None or device.command.proven:
        remarks.append(device.rest)  # an open command says so itself
    if device.walk is not None and not device.walk.done:
        done, steps = len(device.walk.visits), len(device.walk.steps)
        remarks.append(f"its points are being measured: {done} of {steps}")
    if restraint.limit_w is not None:
        remarks.append(f"limited to {restraint.limit_w:,.0f} W by {restraint.limit_by}")
    if device.heat.cap_w is not None:
        remarks.append(f"too hot: held at {device.heat.cap_w:,.0f} W")
    if not command.proven and (device.dark is not None or not _in_trouble(device)):
        remarks.append(command.explain(now_s))
    if device.barred is None:
        remarks.append(device.contact.unready)
    return "; ".join(remark for remark in remarks if remark) or None


def _air(device: Standing) -> str | None:
    """What its firmware says of the air that it breathes, where that is too warm."""
    return too_warm(device.contact.inlet_c, device.lanes.section.inlet_limit_c)


def _power(device: Standing) -> str | None:
    """What is to be said of its outlets, and what its darkness keeps from being an error."""
    supply = device.supply
    if supply is None:
        return None
    if device.dark is None:
        return supply.remark
    told = [supply.remark or "its outlets are off", device.damage]
    return "; ".join(text for text in told if text)


def standing(device: Standing) -> str:
    """Where it stands, in one line."""
    now_s = boot_s()
    if device.barred is not None and device.damage is None:
        return f"never written: {device.barred}"
    fault, remark = error(device, now_s), note(device, now_s)
    told = [remark, fault] if fault or remark else [device.command.explain(now_s)]
    return "; ".join(text for text in told if text)


def _in_trouble(device: Standing) -> bool:
    """Whether an open command is more than a matter of seconds."""
    command = device.command
    if command.goal is None:
        return False
    if command.state in (State.FAILED, State.DRIFTED, State.UNREACHABLE):
        return True
    refused = command.state is State.PENDING and command.tries > 0 and command.reason is not None
    return refused or (command.returned and not command.proven)


def _quality(device: Standing) -> Quality:
    return "emulated" if device.asic.emulated else "measured"


def _nameplate_w(device: Standing) -> float | None:
    told_w = None if device.identity is None else device.identity.nameplate_w
    claims = (device.asic.nameplate_w, device.contact.highest_w, told_w)
    return max((watts_w for watts_w in claims if watts_w is not None), default=None)
