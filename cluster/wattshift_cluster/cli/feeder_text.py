"""Feeders as people read them: what each carries, and which may carry less than it must.

*Asked* is with every device at its lowest point and no compute, *counted* with what is not seen to
obey at its ceiling; the same two words stand in alarms, tables and on the page.
"""

from typing import Any

from wattshift_cluster.cli.output import age, pairs, watts


def short_text(one: dict[str, Any]) -> str:
    """Return what a feeder, a cap or the site lacks at the least; empty where nothing lacks."""
    counted_w = one.get("shortfall_counted_w")
    if counted_w is None:
        return ""
    return f"{watts(one['shortfall_w'] or 0.0)} asked, {watts(counted_w)} counted"


def short_feeders(site: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the feeders that may carry less than is drawn there at the least."""
    return [one for one in site["feeders"] if short_text(one)]


def alarm_ids(feeder: str) -> tuple[str, ...]:
    """Return the ids of the alarms that are about a feeder."""
    return tuple(f"feeder-{kind}:{feeder}" for kind in ("below-floor", "short", "over", "differs"))


def _alarms_of(view: dict[str, Any], kept: tuple[str, ...]) -> list[str]:
    return [str(one["text"]) for one in view["alarms"] if one["id"] in kept]


def shortfall_lines(site: dict[str, Any]) -> str:
    """Return what is to be known of short feeders beside the caps; empty where there is none."""
    lines = []
    for one in short_feeders(site):
        told = _alarms_of(site, alarm_ids(one["id"])[:2])
        lines += told or [f"feeder {one['id']} is short: {short_text(one)}"]
    return "\n".join(lines)


def feeder_text(view: dict[str, Any], one: dict[str, Any]) -> str:
    """Return one feeder, and why it is short where it is, for `explain`; `view` has its alarms."""
    margin_w = one.get("margin_w")
    margin = "" if margin_w is None else f", margin {watts(margin_w)}"
    rows = [
        ("feeder", f"{one['id']}, fed by {fed_by(one)}"),
        ("limit", f"{watts(one['limit_w'])}{margin}"),
        ("committed", watts(one["committed_w"])),
    ]
    if "power_w" in one:
        rows.append(("draw", f"{watts(one['power_w'])} (its meter, {age(one['power_age_s'])} ago)"))
    if short := short_text(one):
        rows.append(("short", short))
    return "\n\n".join([pairs(rows), *_alarms_of(view, alarm_ids(one["id"]))])


def fed_by(feeder: dict[str, Any]) -> str:
    """Return what a feeder hangs on for people: both where it has two sides."""
    if feeder["parent"] is None:
        return "the grid"
    second = feeder.get("second_parent")
    return f"{feeder['parent']} or {second}" if second else str(feeder["parent"])
