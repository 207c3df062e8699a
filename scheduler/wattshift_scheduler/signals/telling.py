"""What a change of the effective cap tells (I7): from what, to what, and every word behind it."""

import math
from collections.abc import Iterator

from wattshift_scheduler.decisions import Decision, Input
from wattshift_scheduler.signals.arbitrate import Arbitrated


def told(before: Arbitrated | None, now: Arbitrated, now_s: float) -> tuple[Decision, ...]:
    """The decision that tells of the change; nothing where only figures in motion differ."""
    if before == now:
        return ()
    was = "no cap" if before is None else f"{before.cap_w:,.0f} W ({before.origin})"
    reason = (
        f"{was} to {now.cap_w:,.0f} W ({now.origin} {now.cap_name or now.cap_id}): lowest in force"
    )
    reason = "; ".join([reason, *_clauses(now, now_s)])
    return (Decision(now_s, "site", "cap", reason, {"cap_w": now.cap_w, **inputs(now)}),)


def inputs(now: Arbitrated) -> dict[str, Input]:
    """The figures behind a verdict, for a decision; those that say nothing are left out."""
    found: dict[str, Input] = {
        "origin": now.origin,
        "cap": now.cap_id,
        "kind": None if now.kind is None else str(now.kind),
        "stated_w": now.stated_w,
        "waits": now.waits or None,
        "conflict": ", ".join(now.conflict) or None,
        "overrides": ", ".join(one.cap for one in now.overrides) or None,
        **targets(now),
    }
    return {key: value for key, value in found.items() if value is not None}


def targets(now: Arbitrated) -> dict[str, Input]:
    """What binds below the cap, for the inputs of a change of leases."""
    found: dict[str, Input] = {}
    if now.target is not None:
        found |= {"target": now.target.id, "target_w": now.aim_w}
        found |= {"target_name": now.target.name} if now.target.name else {}
        found |= {"target_trim_w": now.trim_w} if now.trim_w else {}
    if now.mining is not None:
        found |= {"mining_target": now.mining.id, "mining_target_w": now.mining_w}
        found |= {"mining_target_name": now.mining.name} if now.mining.name else {}
    if now.notice:
        found |= {"notice": now.notice, "notice_w": now.notice_w}
        found |= {"notice_name": now.notice_name} if now.notice_name else {}
    return found


def _clauses(now: Arbitrated, now_s: float) -> Iterator[str]:
    if now.waits:
        yield f"waits: {now.waits}"
    for one in now.overrides:
        yield (
            f"cap {one.cap} of {one.source} is overridden to {one.limit_w:,.0f} W "
            f"for {one.ends_s - now_s:,.0f} s more by {one.by}: {one.reason}"
        )
    for what, target in (("target", now.target), ("target of mining", now.mining)):
        if target is not None:
            yield f"{what} {target.watts_w:,.0f} W ({target.origin} {target.name or target.id})"
    if now.conflict:
        yield f"targets {', '.join(now.conflict)} contradict each other: the lowest holds"
    if now.notice and math.isfinite(now.notice_w):
        event = now.notice_name or now.notice
        yield f"no raise of mining above {now.notice_w:,.0f} W before event {event} starts"
    if now.advice is not None:
        named = f"{now.advice.origin} {now.advice.name or now.advice.id}"
        yield f"advice: {now.advice.limit_w:,.0f} W ({named}), {now.advice.confidence:.0%} sure"
