"""How what was learnt of an ASIC is shown to people: beside each point what it is said to draw."""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.cli.output import grid, hashrate, pairs, watts

View = Mapping[str, Any]


def learnt_text(view: View) -> str:
    """Return what is learnt of a machine; one line where that is nothing."""
    nothing = not view["factor_n"] and not any(
        one["n"] or one["settle_n"] or one["claimed_w"] for one in view["points"]
    )
    if nothing and view["down_s"] is None and view["up_s"] is None:
        return pairs([("learnt", "nothing yet: its points are told as its driver has them")])
    head = [("learnt", f"asleep in {_span(view['down_s'])}, awake in {_span(view['up_s'])}")]
    if view["factor_n"]:
        seen = f"± {view['factor_error']:.3f}, seen {view['factor_n']} times"
        head.append(("meter / firmware", f"{view['factor']:.3f} {seen}"))
    rows = [
        (
            one["mode"],
            watts(one["driver_w"]),
            watts(one["told_w"]),
            "-" if one["claimed_w"] is None else watts(one["claimed_w"]),
            "-" if not one["n"] else f"{one['watts_w']:,.0f} ± {one['error_w']:,.0f} W",
            str(one["n"]),
            "-" if one["hashrate_h_per_s"] is None else hashrate(one["hashrate_h_per_s"]),
            _span(one["settle_s"]),
            _span(one["told_s"]),
        )
        for one in view["points"]
    ]
    headers = ("POINT", "DRIVER", "TOLD", "FIRMWARE", "METER", "N", "HASHRATE", "SETTLES", "TOLD S")
    return f"{pairs(head)}\n\n{grid(headers, rows, headers[1:])}"


def _span(span_s: float | None) -> str:
    return "-" if span_s is None else f"{span_s:,.{0 if span_s >= 10.0 else 1}f} s"
