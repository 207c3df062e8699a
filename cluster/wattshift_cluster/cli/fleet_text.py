"""How devices are shown to people: rows, limits, power curves, orders and what became of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from wattshift_cluster.cli.explain import device_text
from wattshift_cluster.cli.fleet_points import points_text
from wattshift_cluster.cli.learnt_text import learnt_text
from wattshift_cluster.cli.output import UNKNOWN, age, grid, hashrate, pairs, watts

NOTE_MOST = 44
"""Characters of a note in a row; fleet show has all of it."""

NAMED_MOST = 10
"""Devices named in one message; the rest are counted, and the rows have all of them."""

View = Mapping[str, Any]


def devices_text(devices: Sequence[View]) -> str:
    """Return one row per device, with what troubles it at the end."""
    headers = ("DEVICE", "KIND", "STATE", "MODE", "DRAW", "LEASE", "HASHRATE", "AGE", "NOTE")
    rows = [
        (
            one["id"],
            one["kind"],
            one["state"],
            one["reported_mode"] or one["mode"] or "-",
            watts(one["watts_w"]),
            "none" if one["leased_w"] is None else watts(one["leased_w"]),
            hashrate(one["hashrate_h_per_s"]),
            age(one["age_s"]),
            shortened(one["error"] or one["note"] or ""),
        )
        for one in devices
    ]
    return grid(headers, rows, ("DRAW", "LEASE", "HASHRATE", "AGE"))


def unseen_rows(view: View) -> list[dict[str, Any]]:
    """Return machines that count nothing as rows beside the devices; all of them are unknown.

    Only ASICs can be so: of any other device its agent knows what it may draw.
    """
    unknown = dict.fromkeys(
        ("mode", "reported_mode", "leased_w", "ceiling_w", "watts_w", "hashrate_h_per_s", "age_s")
    )
    return [
        {
            "id": one["id"],
            "kind": "asic",
            "model": "unknown",
            "agent": one["agent"],
            "feeder": one["feeder"],
            "state": "unseen",
            "quality": "unknown",
            "asleep": None,
            "error": one["reason"],
            "note": None,
            "reason": f"it never answered its agent {one['agent']} and has no nameplate, so it "
            f"counts nothing, whatever it draws: {one['reason']}",
            **unknown,
        }
        for one in view.get("unseen", ())  # controllers of before do not tell
    ]


def summary(devices: Sequence[View]) -> str:
    """Return how many there are of each state, how many sleep, and what all draw."""
    states = [one["state"] for one in devices]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    known = [one["watts_w"] for one in devices if one["watts_w"] is not None]
    drawn = watts(sum(known)) if known else UNKNOWN
    blind = len(devices) - len(known)
    drawn += f" and {blind} of unknown draw" if blind and known else ""
    asleep = sum(one["asleep"] is True for one in devices)
    return f"{len(devices)} devices: {counts}; {asleep} asleep; {drawn}"


def shortened(text: str) -> str:
    """Return a text that fits into a row."""
    return text if len(text) <= NOTE_MOST else f"{text[: NOTE_MOST - 1]}…"


def names(devices: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(devices) - NAMED_MOST
    return ", ".join(devices[:NAMED_MOST]) + (f" and {more} more" if more > 0 else "")


def limits_text(rows: Sequence[View]) -> str:
    """Return power limits for people."""
    table = [
        (
            row["device"],
            "none" if row["asked_w"] is None else watts(row["asked_w"]),
            _enforced(row),
            _took(row["took_s"]),
            row["error"] or row.get("state") or "ok",
        )
        for row in rows
    ]
    return grid(
        ("DEVICE", "ASKED", "ENFORCED", "TOOK", "RESULT"), table, ("ASKED", "ENFORCED", "TOOK")
    )


def _enforced(row: View) -> str:
    """An ASIC's limit bounds what it is offered; no board enforces it."""
    if row["enforced_w"] is not None:
        return watts(row["enforced_w"])
    return "-" if "outcome" in row else UNKNOWN


def _took(span_s: float | None) -> str:
    if not span_s:
        return "-"  # nothing was written, or nobody timed it
    return f"{span_s * 1000:.{0 if span_s >= 0.01 else 1}f} ms"


def orders_text(rows: Sequence[View]) -> str:
    """Return what became of an order, device by device."""
    table = [
        (
            row["device"],
            row["outcome"],
            "-" if row.get("watts_w") is None else watts(row["watts_w"]),
            "" if row["outcome"] == "confirmed" else _why(row),
        )
        for row in rows
    ]
    return grid(("DEVICE", "RESULT", "DRAW", "WHY"), table, ("DRAW",))


def _why(row: View) -> str:
    return str(row["error"] or row.get("reason") or row["state"] or "")


def profile_text(view: View, *, named: bool = True) -> str:
    """Return a power curve for people; `named` says whose it is."""
    if view.get("kind") == "asic":
        return points_text(view, named=named)
    if view["state"] == "none":
        return f"{view['device']} was not measured yet"
    left_w = view["residual_w"]
    rows = [
        *([("device", view["device"])] if named else []),
        ("profile", view["state"] + (f": {view['reason']}" if view["reason"] else "")),
        ("watts", view["quality"]),
    ]
    if not view["points"]:
        return pairs(rows)
    head = pairs([*rows, ("fit", f"off by {left_w:.1f} W (rms)" if left_w is not None else "none")])
    steps = [
        (
            f"{point['intensity_pct']} %",
            f"{point['watts_w']:.1f} ± {point['error_w']:.1f} W",
            f"{fit['low_w']:.0f} to {fit['high_w']:.0f} W",
            hashrate(point["hashrate_h_per_s"]),
            f"{point['seconds']:.1f} s",
        )
        for point, fit in zip(view["points"], view["fitted"], strict=True)
    ]
    headers = ("INTENSITY", "MEASURED", "MODEL 95 %", "HASHRATE", "TOOK")
    return f"{head}\n\n{grid(headers, steps, headers)}"


def shown(view: View) -> str:
    """Return one device: how it stands, what was last asked of it, its power curve."""
    text, curve = device_text(dict(view)), view["profile"]
    known = view["error"] is None or view["error"] in view["reason"]
    extra = [] if known else [("error", view["error"])]
    if view["kind"] == "asic":
        sleeps = {None: UNKNOWN, True: "yes, by its draw", False: "no"}[view["asleep"]]
        last = view["last_command"]
        told = "none on record" if last is None else f"{last['action']} {last['reason']}"
        told += "" if last is None else f", {last['at']}"
        extra += [("asleep", sleeps), ("lock", _lock(view)), ("last command", told)]
    text = f"{text}\n\n{pairs(extra)}" if extra else text
    if view.get("learnt") is not None:
        text = f"{text}\n\n{learnt_text(view['learnt'])}"
    if curve is None or curve["state"] == "none":
        return text
    return f"{text}\n\n{profile_text(curve, named=False)}"


def _lock(view: View) -> str:
    """The agent's word, which it keeps itself, or else the order that is on record here."""
    said = [part for part in (view["note"] or "").split("; ") if part.startswith("locked by ")]
    if said:
        return str(said[0])
    lock = view["lock"]
    return "none on record" if lock is None else f"{lock['reason']}, since {lock['at']}"


def released(view: View) -> str:
    """Return a release for people."""
    text = f"{view['device']} is at its safe point"
    return text if view["limit"] is None else f"{text}\n\n{limits_text([view['limit']])}"
