"""The plan for people: what holds, a picture in characters, and a table of the next hours."""

from collections.abc import Mapping, Sequence
from typing import Any

from wattshift_cluster.cli.output import UNKNOWN, age, grid, moment, number, pairs, watts
from wattshift_cluster.cli.plan_rows import WORKS, Row, at_s, clock, shown

BARS = "▁▂▃▄▅▆▇█"
FILLS: Mapping[str, str] = {"other_w": "░", "services_w": "█", "batch_w": "▓", "mining_w": "▒"}
CAP = "─"
HEIGHT = 10
COLUMNS_MOST = 72
LABEL = 10
TICKS = 12
NOTES_SHOWN = 8
BATCHES_SHOWN = 8
GAP_SHOWN_PCT = 0.01
"""A smaller one is what the solver's arithmetic leaves."""


def plan_text(view: Mapping[str, Any], each_s: float) -> str:
    """Return a plan for people, so much of its time in a row of the table."""
    if not view["rows"]:
        return nothing(view)
    rows = shown(view["rows"], view["step_s"], each_s)
    parts = [pairs(headline(view)), picture(view["rows"], view["step_s"]), table(rows)]
    return "\n\n".join(parts)


def nothing(view: Mapping[str, Any]) -> str:
    """Return why there is no plan to be shown."""
    if view["state"] == "late":
        return f"there is no plan for now: {view['reason']}"
    words = {"off": "no plan", "waiting": "no plan yet", "failed": "no plan yet"}
    return f"{words.get(view['state'], 'no plan')}: {view['reason']}"


def headline(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what holds, and what is to be known of it, a line each."""
    hours = view["horizon_s"] / 3600.0
    gap_pct = None if view["gap"] is None else max(100.0 * view["gap"], GAP_SHOWN_PCT)
    gap = "" if gap_pct is None else f", at most {gap_pct:.2g} % below the best"
    made = f"{age(view['age_s'])} ago in {view['solve_s']:.2f} s"
    rows = [
        ("plan", f"{view['state']}, {view['status']}{gap}; made {made}"),
        ("expects", f"{number(view['usd'], 'USD')} in {hours:g} h from {moment(view['start_at'])}"),
    ]
    if view["reason"]:
        rows.append(("but", view["reason"]))
    rows += [("not met", text) for text in view["unmet"]]
    rows += [("batch", text) for text in batches(view["batches"])]
    return rows + [("note", text) for text in view["notes"][:NOTES_SHOWN]]


def batches(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each batch job: what it lacks, until when, what a MWh of it is worth."""
    lines = []
    for one in planned[:BATCHES_SHOWN]:
        due = "" if one["deadline_at"] is None else f" by {moment(one['deadline_at'])}"
        left_wh = one["left_wh"]
        left = number(left_wh, "Wh") if left_wh < 1e3 else number(left_wh / 1e3, "kWh")
        usd = number(one["usd_per_mwh"], "USD/MWh")
        worth = "" if one["usd_per_mwh"] is None else f"; worth {usd} now"
        lines.append(f"{one['job']} needs {left}{due}{worth}")
    more = len(planned) - BATCHES_SHOWN
    return [*lines, f"and {more} more"] if more > 0 else lines


def picture(rows: Sequence[Row], step_s: float) -> str:
    """Return watts by work as columns of characters under the cap, and the price beneath."""
    together = -(-len(rows) // COLUMNS_MOST)
    columns = shown(rows, step_s, step_s * together)[:COLUMNS_MOST]
    drawn_w = [sum(one[name] or 0.0 for name, _ in WORKS) for one in columns]
    caps_w = [one["cap_w"] for one in columns if one["cap_w"] is not None]
    highest_w = max([*drawn_w, 1.0])
    # A cap far above all work would press the picture to the ground: then it is told in words.
    far = bool(caps_w) and min(caps_w) > 2.0 * highest_w
    top_w = 1.05 * max([highest_w, *([] if far else [min(c, 2.0 * highest_w) for c in caps_w])])
    lines = []
    for line in range(HEIGHT, 0, -1):
        label = watts(top_w) if line == HEIGHT else watts(0.0) if line == 1 else ""
        cells = (_cell(one, (line - 0.5) / HEIGHT * top_w, top_w) for one in columns)
        lines.append(f"{label:>{LABEL}} {''.join(cells)}".rstrip())
    lines.append(f"{'':>{LABEL}} {_ticks(columns)}")
    prices = [one["price_usd_per_mwh"] for one in columns]
    lines.append(f"{'price':>{LABEL}} {spark(prices)} {_span(prices)} USD/MWh")
    key = "  ".join(f"{FILLS[name]} {work}" for name, work in WORKS)
    told = f"the cap is {watts(min(caps_w))} or more" if far else f"{CAP} cap"
    return "\n".join([*lines, f"{'':>{LABEL}} {key}  {told}"])


def _cell(one: Row, level_w: float, top_w: float) -> str:
    """What stands at a level of one column: the work that fills it, or the cap that lies there."""
    below_w = 0.0
    for name, _ in WORKS:
        below_w += one[name] or 0.0
        if level_w < below_w:
            return FILLS[name]
    cap_w = one["cap_w"]
    at_cap = cap_w is not None and abs(cap_w - level_w) <= 0.5 * top_w / HEIGHT
    return CAP if at_cap else " "


def _ticks(columns: Sequence[Row]) -> str:
    text = ""
    for at in range(0, len(columns), TICKS):
        text = f"{text:<{at}}{clock(columns[at])}"
    return text


def spark(values: Sequence[float | None]) -> str:
    """Return values as bars from the least to the most; unknown is a blank."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, span = min(known), max(known) - min(known)
    steps = len(BARS) - 1
    return "".join(
        " " if v is None else BARS[round((v - low) / span * steps) if span > 0 else 0]
        for v in values
    )


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return UNKNOWN
    low, high = f"{min(known):,.1f}", f"{max(known):,.1f}"
    return low if low == high else f"{low} to {high}"


def table(rows: Sequence[Row]) -> str:
    """Return the hours ahead as a table; a price with a ~ is foreseen and not published."""
    names = ["UTC", "PRICE", "MARGINAL", "CAP", "SITE", "INFERENCE", "BATCH", "MINING"]
    names += [name for name, _ in _extras(rows)] + ["RESERVE"]
    told = any(row["begins"] for row in rows)
    lines = [_line(row, rows) + (["; ".join(row["begins"])] if told else []) for row in rows]
    return grid([*names, "BEGINS"] if told else names, lines, right=names[1:])


def _extras(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Columns that only some sites need."""
    wanted = (("SUN", "solar_w"), ("HELD", "hold_w"))
    return [(name, key) for name, key in wanted if any(row[key] for row in rows)]


def _line(row: Row, rows: Sequence[Row]) -> list[str]:
    foreseen = "" if row["price_published"] or row["price_usd_per_mwh"] is None else "~"
    keys = ("cap_w", "site_w", "services_w", "batch_w", "mining_w")
    return [
        clock(row),
        f"{foreseen}{number(row['price_usd_per_mwh'], digits=1)}",
        number(row["shadow_usd_per_mwh"], digits=1),
        *(watts(row[key]) for key in keys),
        *(watts(row[key]) for _, key in _extras(rows)),
        watts(row["reserve_w"]),
    ]


def next_words(view: Mapping[str, Any], now_s: float) -> str:
    """Return the plan in one line, for `top`: what is next, and whether it holds."""
    if not view["rows"]:
        return nothing(view)
    first, *later = view["rows"]
    words = f"{view['state']}, made {age(view['age_s'])} ago; now mining {watts(first['mining_w'])}"
    turn = next((row for row in later if _turns(first, row)), None)
    if turn is not None:
        mining, price = watts(turn["mining_w"]), number(turn["price_usd_per_mwh"], digits=1)
        words += f", in {age(max(at_s(turn) - now_s, 0.0))} {mining} at {price} USD/MWh"
    return words if not view["unmet"] else f"{words}; not met: {view['unmet'][0]}"


def _turns(first: Row, row: Row) -> bool:
    """Whether mining is to differ by a tenth."""
    most_w = max(first["mining_w"], row["mining_w"])
    return bool(abs(first["mining_w"] - row["mining_w"]) > 0.1 * most_w)
