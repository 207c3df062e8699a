"""A page of a plan: the hours ahead as a picture and a table, in one HTML file.

The picture is SVG in the page itself, so that it needs no network and can be sent by mail.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wattshift_cluster.cli.output import watts
from wattshift_cluster.cli.plan_rows import HOUR_S, WORKS, Row, at_s, clock, shown
from wattshift_cluster.cli.plan_text import headline, table

WIDTH, LEFT, RIGHT = 960, 78, 12
WATTS_TOP, WATTS_FOOT = 22, 292
PRICE_TOP, PRICE_FOOT = 322, 432
HEIGHT = 462
# Okabe and Ito's palette: told apart by every common form of colour vision; as on the live page.
COLOURS: Mapping[str, str] = {
    "other_w": "#a9b3bd",
    "services_w": "#0072b2",
    "batch_w": "#009e73",
    "mining_w": "#e69f00",
}
CAP, PRICE, SHADOW, SOFT, LINE = "#14202c", "#14202c", "#d55e00", "#566472", "#dbe1e7"
TICKS_MOST = 9
LINES = 4
SHADOW_SHOWN = 2.0
"""Times the highest price: what a cap is worth that cannot be kept has no end."""

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#111}
pre{font:12.5px/1.5 ui-monospace,monospace;overflow-x:auto;background:#f6f6f4;padding:1rem}
h1{margin:0 0 .4rem;font-size:1.5rem}dl{display:grid;grid-template-columns:auto 1fr;gap:0 1rem}
dt{color:#566472}dd{margin:0}svg{width:100%;height:auto;font:12px system-ui,sans-serif}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:0 1.2rem;padding:0;margin:.4rem 0;color:#566472}
i{display:inline-block;width:14px;height:10px;margin-right:5px}
"""


def page(view: Mapping[str, Any]) -> str:
    """Return the whole page of a plan that has rows."""
    title = html.escape(f"Plan from {clock(view['rows'][0])} UTC")
    told = "".join(
        f"<dt>{html.escape(name)}<dd>{html.escape(text)}" for name, text in headline(view)
    )
    rows = table(shown(view["rows"], view["step_s"], HOUR_S))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<h1>{title}</h1><dl>{told}</dl>{_legend()}{picture(view)}"
        f"<pre>{html.escape(rows)}</pre></html>\n"
    )


def _legend() -> str:
    works = [f"<li><i style='background:{COLOURS[name]}'></i>{work}" for name, work in WORKS]
    lines = (
        (f"border-top:2px dashed {CAP}", "cap"),
        (f"border-top:2px solid {PRICE}", "price, with what is foreseen of it"),
        (f"border-top:2px dotted {SHADOW}", "what a MWh more costs, with charges and caps"),
    )
    works += [f"<li><i style='height:0;vertical-align:middle;{s}'></i>{t}" for s, t in lines]
    return f"<ul>{''.join(works)}</ul>"


def picture(view: Mapping[str, Any]) -> str:
    """Return watts by work under the cap, and the price beneath, as SVG text."""
    rows: Sequence[Row] = view["rows"]
    step_s = float(view["step_s"])
    begin_s, end_s = at_s(rows[0]), at_s(rows[-1]) + step_s

    def x(when_s: float) -> float:
        return LEFT + (when_s - begin_s) / (end_s - begin_s) * (WIDTH - LEFT - RIGHT)

    marks = [*_watts(rows, step_s, x), *_prices(rows, step_s, x), *_times(rows, x)]
    label = "Planned watts by work under the cap, and the price beneath"
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{label}'>{''.join(marks)}</svg>"
    )


def _watts(rows: Sequence[Row], step_s: float, x: Callable[[float], float]) -> Iterator[str]:
    drawn_w = [sum(row[name] or 0.0 for name, _ in WORKS) for row in rows]
    highest_w = max([*drawn_w, 1.0])
    caps_w = [min(row["cap_w"], 1.6 * highest_w) for row in rows if row["cap_w"] is not None]
    top_w: float = 1.08 * max([highest_w, *caps_w])

    def y(watts_w: float) -> float:
        return WATTS_FOOT - watts_w / top_w * (WATTS_FOOT - WATTS_TOP)

    for at in range(LINES + 1):
        level_w = top_w * at / LINES
        yield _rule(y(level_w), watts(level_w))
    base_w = [0.0] * len(rows)
    for name, _ in WORKS:
        up_w = [low + (row[name] or 0.0) for low, row in zip(base_w, rows, strict=True)]
        path = [*_steps(rows, up_w, step_s, x, y), *reversed(_steps(rows, base_w, step_s, x, y))]
        yield f"<polygon points='{_points(path)}' fill='{COLOURS[name]}' fill-opacity=.85 />"
        base_w = up_w
    for run in _runs(rows, "cap_w"):
        capped = [min(row["cap_w"], top_w) for row in run]
        yield _line(_steps(run, capped, step_s, x, y), CAP, "7 4")
    yield from _events(rows, x)


def _events(rows: Sequence[Row], x: Callable[[float], float]) -> Iterator[str]:
    """What begins, numbered at the top; hovering tells it in words, and the table below does."""
    for row in rows:
        if row["begins"]:
            place, told = x(at_s(row)), html.escape("; ".join(row["begins"]))
            yield (
                f"<g><title>{told}</title><line x1={place:.1f} x2={place:.1f} y1={WATTS_TOP - 6} "
                f"y2={WATTS_FOOT} stroke='{SOFT}' stroke-dasharray='1 3'/>"
                f"<text x={place:.1f} y={WATTS_TOP - 9} fill='{SOFT}' text-anchor=middle>▾</text>"
                "</g>"
            )


def _prices(rows: Sequence[Row], step_s: float, x: Callable[[float], float]) -> Iterator[str]:
    keys = ("price_low_usd_per_mwh", "price_high_usd_per_mwh")
    low, high, cut = price_scale(rows)

    def y(price: float) -> float:
        return PRICE_FOOT - (min(price, high) - low) / (high - low) * (PRICE_FOOT - PRICE_TOP)

    for price in (low, 0.0, high) if low < 0.0 else (low, (low + high) / 2.0, high):
        yield _rule(y(price), f"{'≥ ' if cut and price == high else ''}{price:,.0f}")
    yield f"<text x={LEFT} y={PRICE_TOP - 8} fill='{SOFT}'>USD/MWh</text>"
    for run in _runs(rows, "price_usd_per_mwh"):
        edges = [[row[key] for row in run] for key in keys]
        if all(value is not None for edge in edges for value in edge):
            first, second = (_steps(run, edge, step_s, x, y) for edge in edges)
            points = _points([*first, *reversed(second)])
            yield f"<polygon points='{points}' fill='{PRICE}' fill-opacity=.13 />"
        yield _line(_steps(run, [r["price_usd_per_mwh"] for r in run], step_s, x, y), PRICE)
    for run in _runs(rows, "shadow_usd_per_mwh"):
        values = [row["shadow_usd_per_mwh"] for row in run]
        yield _line(_steps(run, values, step_s, x, y), SHADOW, "2 3")


def price_scale(rows: Sequence[Row]) -> tuple[float, float, bool]:
    """From where to where prices are drawn, USD/MWh, and whether something lies above."""
    keys = ("price_low_usd_per_mwh", "price_high_usd_per_mwh")
    prices = [row[key] for row in rows for key in keys if row[key] is not None]
    shadows = [row["shadow_usd_per_mwh"] for row in rows if row["shadow_usd_per_mwh"] is not None]
    most = SHADOW_SHOWN * max([*prices, 1.0])
    high = max([*prices, *(min(shadow, most) for shadow in shadows), 1.0])
    return min([*prices, *shadows, 0.0]), high, any(shadow > high for shadow in shadows)


def _times(rows: Sequence[Row], x: Callable[[float], float]) -> Iterator[str]:
    every = max(-(-len(rows) // TICKS_MOST), 1)
    for row in rows[::every]:
        yield (
            f"<text x={x(at_s(row)):.1f} y={HEIGHT - 10} fill='{SOFT}' text-anchor=start>"
            f"{clock(row)}</text>"
        )


def _rule(y: float, label: str) -> str:
    return (
        f"<line x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} stroke='{LINE}'/>"
        f"<text x={LEFT - 8} y={y + 4:.1f} fill='{SOFT}' text-anchor=end>{label}</text>"
    )


def _runs(rows: Sequence[Row], key: str) -> Iterator[list[Row]]:
    """Rows that follow each other and know a figure: what is not known is a gap."""
    run: list[Row] = []
    for row in rows:
        if row[key] is not None:
            run.append(row)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _steps(
    rows: Sequence[Row],
    values: Sequence[float],
    step_s: float,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[tuple[float, float]]:
    """A value held over each interval, as points."""
    found = []
    for row, value in zip(rows, values, strict=True):
        when_s = at_s(row)
        found += [(x(when_s), y(value)), (x(when_s + step_s), y(value))]
    return found


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str = "") -> str:
    how = f"stroke='{colour}' stroke-width=1.8"
    if dashes:
        how += f" stroke-dasharray='{dashes}'"
    return f"<polyline points='{_points(points)}' fill=none {how} />"
