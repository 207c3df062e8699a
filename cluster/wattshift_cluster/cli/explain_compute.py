"""Why a job runs where it does or does not run, and who draws what on a node, in sentences.

All of it follows from what the controller told: the verdict with its rule, and the units by node.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from wattshift_cluster.cli.job_names import OVER
from wattshift_cluster.cli.job_text import learnt, promises, spread
from wattshift_cluster.cli.output import UNKNOWN, number, pairs, watts

GIVES_WAY: Mapping[str, str] = {
    "mining-gives-way": "mining gives up the watts by itself, the gates first; nothing else must",
    "batch-gives-way": "batch work of a lower rank pauses at its next checkpoint",
    "cap": "the cap must end or rise, or work of a higher rank must leave",
    "feeder": "work of a higher rank under {bound} must leave; a feeder's limit is never crossed",
    "node": "work of a higher rank on {bound} must leave",
    "no-such-node": "nothing can: no node could ever hold it; change what it asks for",
    "gang": "work of a higher rank must leave until all of the gang fits at once",
    "quota-watts": "other jobs of {bound} must leave, or its quota be raised in the site file",
    "quota-gpus": "other jobs of {bound} must leave, or its quota be raised in the site file",
    "fair-share": "tenants below their share of watts come first; it goes on as they are served",
    "worth": "mining that earns more than it must leave, or its stated value rise",
    "plan": "nothing must: the plan lets it wait for hours that cost less, within its deadline",
    "deadline": "{bound} is due and goes first; it goes on once there is room again",
    "held": "a person paused it: `wattshift job resume` lets it go on",
    "back-off": "its last attempt failed; it is tried again by itself",
    "cluster-down": "Ray must come back, or the node must: `wattshift node list` shows which",
}
"""What would have to give way, by the rule of the verdict."""


def places_of(one: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return where a job's units are: node, feeder, watts, and what mining would earn with one watt
    more there."""
    known = {node["node"]: node for node in nodes}
    asked = one["nodes"] or one["by_node"] or {}
    return [
        {
            "node": name,
            "units": units,
            "watts_w": units * one["unit_w"],
            "feeder": known[name]["feeder"],
            "displaces_usd_per_mwh": known[name].get("displaces_usd_per_mwh"),
        }
        for name, units in sorted(asked.items())
        if units and name in known and one["unit_w"] is not None
    ]


def why_job(one: dict[str, Any], places: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Return the sentences that say why a job stands as it does; `places` as of `places_of`."""
    if one["kind"] == "mining" or one["state"] in OVER:
        return []
    found = one["verdict"]
    told = _where(one) if one["units"] else ["it has no unit now"]
    told += [*_worth(one), *(_displaced(place) for place in places)]
    if found is None:
        return [*told, "nothing has been decided about it yet"]
    told.append(f"{found['admission'].replace('_', ' ')}, by the rule {found['rule']}: "
                f"{found['words']}")  # fmt: skip
    told += _short(found)
    if found["admission"] != "fit" and one["state"] != "cancelling":
        bound = found["bound_by"] or "its limit"
        way = GIVES_WAY.get(found["rule"])
        told += [] if way is None else [f"to give way: {way.format(bound=bound)}"]
        if found["admission"] != "deny":
            when = found["expected_at"]
            told.append(
                f"expected to run at {when}" if when else "when it will run, nobody can tell yet"
            )
    return told + _limits(one)


def _short(found: dict[str, Any]) -> list[str]:
    need_w, have_w = found["need_w"], found["have_w"]
    if not need_w:
        return []
    limit = found["bound_by"] or "the limit"
    if have_w is None:
        return [f"it asks for {watts(need_w)} more"]
    gap = f": {watts(need_w - have_w)} short" if need_w > have_w else ""
    return [f"it asks for {watts(need_w)} more, {limit} has {watts(have_w)} for it{gap}"]


def _worth(one: dict[str, Any]) -> list[str]:
    """What a unit is worth, by the hour and by the watt."""
    usd_per_h, unit_w = one["spec"].get("value_usd_per_h"), one["unit_w"]
    if not usd_per_h or not unit_w:
        return []
    by_watt = number(1e6 * usd_per_h / unit_w, "USD/MWh", 0)
    return [f"a unit is worth {number(usd_per_h, 'USD/h')}, {by_watt} of its watts"]


def _displaced(place: dict[str, Any]) -> str:
    """What mining goes without for the units on one node."""
    told = f"{watts(place['watts_w'])} on {place['node']}, feeder {place['feeder']}: "
    usd = place["displaces_usd_per_mwh"]
    if usd is None:
        return f"{told}what mining would do with them is not known yet"
    if not usd:
        return f"{told}no mining goes without watts for them"
    return f"{told}mining that goes without would earn {number(usd, 'USD/MWh', 0)} with one more"


def _where(one: dict[str, Any]) -> list[str]:
    asked, held = one["nodes"], one["by_node"]
    told = [f"it may run {one['units']} units of {watts(one['unit_w'])}: {spread(asked)}"]
    if held is not None and held != asked:
        told.append(f"watts are held by {spread(held)}: the change is under way")
    return told


def _limits(one: dict[str, Any]) -> list[str]:
    """What keeps a running service where it is: its promise, its own wish, a power limit."""
    if one["kind"] != "service":
        return []
    told = [f"{name} {text}" for name, text in promises(one)]
    told += [f"watts per replica: {text}" for text in learnt(one)]
    wants = one["desired"]
    if wants is not None and wants > one["units"]:
        most = f", its max_replicas is {one['max_units']}" if wants >= one["max_units"] else ""
        told.append(f"Serve would like {wants} replicas{most}")
    step = one["power_step"]
    if step is not None:
        flexible = one["spec"].get("flexibility", 0)
        told.append(
            f"each replica is limited to {watts(step['watts_w'])}, as its flexibility class "
            f"{flexible} allows"
        )
    return told


def job_answer(why: Sequence[str]) -> str:
    """Return the sentences about a job, a line each; empty where there is nothing to say."""
    return "\n".join(f"{'why' if at == 0 else '':5}{line}" for at, line in enumerate(why))


def node_text(one: dict[str, Any]) -> str:
    """Return one compute node for people: watts asked, granted, used, unasked and by whom."""
    state = "up" if one["up"] else "down: Ray does not answer for it, so its grant still counts"
    if one["forgotten"]:
        state = "forgotten: an operator vouches that it is off; it counts nothing until it is back"
    if one["draining"]:
        state += ", draining: nothing new goes there"
    held, granted = one["used_w"], one["power_w"]
    used = UNKNOWN
    if held is not None:
        free_w = None if granted is None else max(0.0, granted - held)
        used = f"{watts(held)} by jobs, {watts(free_w)} free"
    rows = [
        ("node", f"{one['node']}, on feeder {one['feeder']}"),
        ("state", state),
        ("granted", f"{watts(granted)} of {watts(one['max_w'])} at most"),
        ("asked for", watts(one["asked_w"])),
        ("used", used),
        ("unasked", _unasked(one)),
        ("jobs", ", ".join(f"{n} of {job}" for job, n in sorted(one["units"].items())) or "none"),
        ("GPUs", number(one["gpus"], "", 0)),
    ]
    if one["relief_w"]:
        rows.insert(5, ("relief", f"{watts(one['relief_w'])} kept off by power limits"))
    rows += [(f"  {key}", value) for key, value in sorted(one["labels"].items())]
    return pairs(rows)


def _unasked(one: dict[str, Any]) -> str:
    if one["unasked_w"] is None:
        return "unknown: its meter is silent"
    by = "; ".join(one["unasked"])
    told = f"{watts(one['unasked_w'])} by work that asked for no watts"
    if one.get("system_w") is not None:
        told += f", {watts(one['system_w'])} by Ray itself"
    return told + (f": {by}" if by else "")
