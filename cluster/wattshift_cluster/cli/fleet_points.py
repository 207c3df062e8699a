"""How the measured operating points of an ASIC are shown to people."""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.cli.output import UNKNOWN, age, grid, number, pairs, watts

HEADERS = ("POINT", "WATTS", "BY", "TH/S", "J/TH", "TEMP", "INCOME", "NET", "SETTLED IN")
SAID = {"outlet": "its outlet", "sensor": "itself", "estimate": "itself, an estimate"}

View = Mapping[str, Any]


def points_text(view: View, *, named: bool = True) -> str:
    """Return a measurement for people; `named` says whose it is."""
    if view["state"] == "none":
        return f"{view['device']} was not measured yet"
    head = [("device", view["device"])] if named else []
    state = view["state"] + (f": {view['reason']}" if view.get("reason") else "")
    head += [("profile", state), ("watts", view.get("quality", UNKNOWN))]
    if view["state"] == "planned":
        took = f"{view['expected_s']:.0f} s"
        return f"{pairs([*head, ('takes about', took)])}\n\n{plan_text(view)}"
    if not view.get("points"):
        return pairs(head)
    rows = [_row(point) for point in view["points"]]
    right = tuple(name for name in HEADERS if name not in ("POINT", "BY"))
    return f"{pairs(head)}\n\n{grid(HEADERS, rows, right)}"


def plan_text(view: View) -> str:
    """Return where a measurement would go, and that it goes back."""
    rows = [(one["mode"], watts(one["watts_w"]), age(one["transition_s"])) for one in view["plan"]]
    rows.append((f"back to {view['ends_at']}", "as leased", age(view["plan"][0]["transition_s"])))
    return grid(("POINT", "IT SAYS", "WITHIN"), rows, ("IT SAYS", "WITHIN"))


def _row(point: View) -> tuple[str, ...]:
    rate = point["hashrate_h_per_s"]
    settled = age(point["settle_s"]) if point["settle_s"] is not None else "-"
    return (
        point["mode"] + (" (back)" if point["way"] == "back" else ""),
        _watts(point),
        SAID.get(point["source"], UNKNOWN),
        number(None if rate is None else rate / 1e12, digits=1),
        number(point["j_per_th"], digits=1),
        number(point["temperature_c"], "°C", 0),
        number(point["income_usd_per_h"], "USD/h", 3),
        number(point["net_usd_per_h"], "USD/h", 3),
        settled if point["settled"] else "never still",
    )


def _watts(point: View) -> str:
    if point["watts_w"] is None:
        return UNKNOWN
    if point["error_w"] is None:
        return f"{point['watts_w']:.0f} W"
    return f"{point['watts_w']:.0f} ± {point['error_w']:.0f} W"
