"""What is told of an ASIC: its inventory, its reading, and in words where it stands.

An error means that a sample must not be believed to bound the machine: the controller then counts
it at its ceiling. A note is what a person should know although the watts are sure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wattshift_cluster.agent.asics.supply import draw_of
from wattshift_cluster.agent.protocol import DeviceInfo, Point, Quality, Reading, finite
from wattshift_cluster.asic.driver import AsicPoint
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.fleet.curtail import State

if TYPE_CHECKING:
    from wattshift_cluster.agent.asics.machine import AsicDevice

AS_FOUND = "as-found"


def info(device: "AsicDevice", points: Sequence[AsicPoint]) -> DeviceInfo | None:
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
    )


def reading(device: "AsicDevice") -> Reading:
    """Its last sample, and what must be said with it."""
    seen, now_s = device.contact.seen, boot_s()
    fault, remark = error(device, now_s), note(device, now_s)
    if (dark := device.dark) is not None:
        return Reading(device.id, dark.at_boot_s, dark.quality, 0.0, note=remark)
    if seen is None:
        return Reading(device.id, now_s, _quality(device), error=fault, note=remark)
    watts_w, at_s, quality = finite(seen.watts_w), seen.at_boot_s, _quality(device)
    if (draw := draw_of(seen, device.supply, device.contact)) is not None:
        watts_w, at_s, quality = draw.watts_w, min(at_s, draw.at_boot_s), draw.quality
    return Reading(
        device=device.id,
        at_boot_s=at_s,
        quality=quality,
        watts_w=watts_w,
        enforced_limit_w=finite(seen.power_limit_w),
        hashrate_h_per_s=finite(seen.hashrate_h_per_s),
        temperature_c=finite(device.contact.temperature_c),
        mode=device.contact.mode(device.others.settled_s),
        foreign_write=now_s < device.others.until_s,
        error=fault,
        note=remark,
    )


def error(device: "AsicDevice", now_s: float) -> str | None:
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


def note(device: "AsicDevice", now_s: float) -> str | None:
    """All that holds it down, and a command that is open."""
    command, restraint = device.command, device.memory.restraint
    remarks = [device.why_asleep, _power(device)]
    if restraint.limit_w is not None:
        remarks.append(f"limited to {restraint.limit_w:,.0f} W by {restraint.limit_by}")
    if device.heat.cap_w is not None:
        remarks.append(f"too hot: held at {device.heat.cap_w:,.0f} W")
    if not command.proven and (device.dark is not None or not _in_trouble(device)):
        remarks.append(command.explain(now_s))
    if device.barred is None:
        remarks.append(device.contact.unready)
    return "; ".join(remark for remark in remarks if remark) or None


def _power(device: "AsicDevice") -> str | None:
    """What is to be said of its outlets, and what its darkness keeps from being an error."""
    supply = device.supply
    if supply is None:
        return None
    if device.dark is None:
        return supply.remark
    told = [supply.remark or "its outlets are off", device.damage]
    return "; ".join(text for text in told if text)


def standing(device: "AsicDevice") -> str:
    """Where it stands, in one line."""
    now_s = boot_s()
    if device.barred is not None and device.damage is None:
        return f"never written: {device.barred}"
    fault, remark = error(device, now_s), note(device, now_s)
    told = [remark, fault] if fault or remark else [device.command.explain(now_s)]
    return "; ".join(text for text in told if text)


def _in_trouble(device: "AsicDevice") -> bool:
    """Whether an open command is more than a matter of seconds."""
    command = device.command
    if command.goal is None:
        return False
    if command.state in (State.FAILED, State.DRIFTED, State.UNREACHABLE):
        return True
    refused = command.state is State.PENDING and command.tries > 0 and command.reason is not None
    return refused or (command.returned and not command.proven)


def _quality(device: "AsicDevice") -> Quality:
    return "emulated" if device.asic.emulated else "measured"


def _nameplate_w(device: "AsicDevice") -> float | None:
    claims = (device.asic.nameplate_w, device.contact.highest_w)
    return max((watts_w for watts_w in claims if watts_w is not None), default=None)
