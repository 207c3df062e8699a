"""Jobs for people: one line each, or all of one."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from wattshift_cluster.cli.job_names import OVER
from wattshift_cluster.cli.output import UNKNOWN, age, grid, number, pairs, watts

PROMISES = (
    ("p95", "p95_ms", "slo_p95_ms"),
    ("first token", "ttft_p95_ms", "slo_ttft_p95_ms"),
    ("next token", "itl_p95_ms", "slo_itl_p95_ms"),
)
USUAL = {"tenant": "default", "priority": 0}


def progress(job: dict[str, Any]) -> str:
    """Return done of total."""
    if job["progress"] is None:
        return "-"
    total = job["progress"]["total"]
    return f"{job['progress']['done']}/{'?' if total is None else total}"


def jobs_text(found: list[dict[str, Any]]) -> str:
    """Return jobs for people; columns in which no job has anything to say are left out."""
    if not found:
        return "no jobs"
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "ID": lambda one: one["id"],
        "KIND": lambda one: one["kind"],
        "NAME": lambda one: one["name"],
        "TENANT": lambda one: _unusual(one, "tenant"),
        "PRIORITY": lambda one: _unusual(one, "priority"),
        "STATE": lambda one: one["state"],
        "UNITS": _units,
        "WATTS": lambda one: "-" if one["watts_w"] is None else watts(one["watts_w"]),
        "DONE": progress,
        "RATE": lambda one: "-" if one.get("rate_per_s") is None else f"{one['rate_per_s']:.1f}/s",
        "LEFT": lambda one: "-" if one.get("eta_s") is None else age(round(one["eta_s"])),
        "RULE": _rule,
        "REASON": lambda one: one["reason"],
    }
    always = ("ID", "KIND", "NAME", "STATE", "WATTS", "DONE", "REASON")
    cells = {name: [cell(one) for one in found] for name, cell in columns.items()}
    shown = [name for name in columns if name in always or set(cells[name]) != {"-"}]
    rows = list(zip(*(cells[name] for name in shown), strict=True))
    return grid(shown, rows, ("PRIORITY", "UNITS", "WATTS", "DONE", "RATE", "LEFT"))


def _rule(one: dict[str, Any]) -> str:
    """Return by which rule a job that is not over has less than it asked for."""
    found = one.get("verdict")
    over = one["state"] in OVER
    return "-" if found is None or over or found["rule"] == "fits" else str(found["rule"])


def _unusual(one: dict[str, Any], key: str) -> str:
    value = one.get(key, USUAL[key])
    return "-" if value == USUAL[key] else str(value)


def _units(one: dict[str, Any]) -> str:
    """Return the units that run of those asked for."""
    if one["kind"] == "mining" or not one.get("units"):
        return "-"
    return f"{one['running']}/{one['units']}" if one["kind"] == "service" else str(one["units"])


def job_text(one: dict[str, Any]) -> str:
    """Return one job for people."""
    rows = [
        ("id", one["id"]),
        ("kind", one["kind"]),
        ("name", one["name"]),
        ("state", one["state"]),
        ("reason", one["reason"]),
        *_verdict(one),
        ("submitted", one["submitted_at"]),
    ]
    if one["kind"] != "mining":
        rows.append(("for", f"tenant {one['tenant']}, priority {one['priority']}"))
        rows.append(("watts", _watts(one)))
        rows += [("per replica", text) for text in learnt(one)]
        rows += _places(one)
    rows += _service(one) if one["kind"] == "service" else []
    rows += _batch(one) if one["kind"] == "batch" else []
    if one.get("error") not in (None, "", one["reason"]):
        rows.append(("trouble", one["error"]))
    rows += [
        (f"  {key}", "-" if value is None else str(value)) for key, value in one["spec"].items()
    ]
    return pairs(rows)


def _verdict(one: dict[str, Any]) -> list[tuple[str, str]]:
    found = one["verdict"]
    if found is None or one["state"] in OVER:
        return []
    bound = "" if found["bound_by"] is None else f", bound by {found['bound_by']}"
    when = "" if found["expected_at"] is None else f"; expected at {found['expected_at']}"
    return [("verdict", f"{found['admission']} (rule {found['rule']}{bound}){when}")]


def _watts(one: dict[str, Any]) -> str:
    text = f"{watts(one['watts_w'])} of {one['units']} units, {watts(one['unit_w'])} each"
    step = one["power_step"]
    if step is not None:
        kept = "" if step["throughput"] is None else f" (keeps {step['throughput']:.0%})"
        text += f", limited to {watts(step['watts_w'])} each{kept}"
    return text


def learnt(one: dict[str, Any]) -> list[str]:
    """Return what is learnt of the watts of a replica, in a sentence; none where nobody asked."""
    found = one.get("learnt")
    if found is None:
        return []
    text = f"{watts(found['given_w'])} given as the most; "
    note = "" if found["note"] is None else f" ({found['note']})"
    if found["learnt_w"] is None:
        return [f"{text}nothing is learnt yet{note}"]
    text += f"{watts(found['learnt_w'])} learnt from {found['samples']:,} samples "
    text += f"({found['quality']}) since {found['since']}, "
    if found["in_use"]:
        return [f"{text}in use{note}"]
    if one["spec"].get("hand_over") == "sleep":
        return [f"{text}never used: its replicas sleep instead of being deployed anew{note}"]
    return [f"{text}used from its next deployment on: pause and resume it for that{note}"]


def spread(units: dict[str, int] | None) -> str:
    """Return units by node for people."""
    if units is None:
        return UNKNOWN
    return ", ".join(f"{count} on {name}" for name, count in sorted(units.items())) or "none"


def _places(one: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("asked for", spread(one["nodes"]))] if one["nodes"] else []
    return [*rows, ("holding watts", spread(one["by_node"]))]


def _service(one: dict[str, Any]) -> list[tuple[str, str]]:
    wants = "" if one["desired"] is None else f"; Serve wants {one['desired']}"
    bounds = f"{one['min_units']} to {one['max_units']}"
    rows = [("replicas", f"{one['running']} run of {one['units']} asked for ({bounds}){wants}")]
    rows += [(name, text) for name, text in promises(one)]
    return rows if one["url"] is None else [*rows, ("answers at", one["url"])]


def promises(one: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each latency that is promised or known, against what is promised."""
    rows = []
    for name, now, promised in PROMISES:
        now_ms, slo_ms = one[now], one["spec"].get(promised)
        if now_ms is None and slo_ms is None:
            continue
        text = number(now_ms, "ms", 0)
        if slo_ms is not None:
            word = "" if now_ms is None else ": missed" if now_ms > slo_ms else ": kept"
            text += f" of {slo_ms:,.0f} ms promised{word}"
        rows.append((name, text))
    return rows


def _batch(one: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("done", progress(one))]
    if one["rate_per_s"] is not None:
        rows.append(("rate", number(one["rate_per_s"], "items/s", 1)))
    if one["eta_s"] is not None:
        rows.append(("left", age(round(one["eta_s"]))))
    if one["deadline_at"] is not None:
        late = one.get("late_since")
        missed = "" if late is None else f", missed: late since {late}"
        rows.append(("deadline", f"{one['deadline_at']}{missed}"))
    if one["checkpoint_at"] is not None:
        old_s = time.time() - datetime.fromisoformat(one["checkpoint_at"]).timestamp()
        rows.append(("checkpoint", f"{age(round(max(0.0, old_s)))} ago"))
    if one["failed_items"]:
        rows.append(("dead letters", f"{one['failed_items']:,} items: {one['dead_letters']}"))
    return rows
