"""A page of a load: its figures, its latencies over time and their histogram, in one HTML file.

The pictures are SVG in the page itself, so that it needs nothing and can be sent by mail.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wattshift_cluster.cli.load_text import milliseconds, result_text
from wattshift_cluster.errors import ConfigInvalid, Fault

WIDTH, HEIGHT, LEFT, FOOT = 860, 220, 70, 28
# Okabe and Ito's palette: told apart by every common form of colour vision.
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#6b7280"

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111}
pre{font:13px/1.5 ui-monospace,monospace;overflow-x:auto;background:#f6f6f4;padding:1rem}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}
"""


def write(path: Path, view: Mapping[str, Any]) -> None:
    """Write the page. Raises ConfigInvalid where that cannot be."""
    title = html.escape(f"Load on {view['url']}, {view['ended_at']}")
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><h1>{title}</h1>"
        f"<pre>{html.escape(result_text(view))}</pre>"
        f"<h2>Latency over time</h2><p>From the moment each request was due: "
        f"<b style='color:{BLUE}'>p50</b>, <b style='color:{ORANGE}'>p95</b>; "
        f"<b style='color:{RED}'>&times;</b> marks a part with failures.</p>{_over_time(view)}"
        f"<h2>How many answers took how long</h2>{_bars(view['histogram'])}</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as fault:
        told = f"cannot be written: {fault}"
        raise ConfigInvalid([Fault(str(path), "", None, told)]) from fault


def _over_time(view: Mapping[str, Any]) -> str:
    slices: Sequence[Mapping[str, Any]] = view["slices"]
    highest_ms = max((part["p95_ms"] or 0.0 for part in slices), default=0.0)
    if highest_ms <= 0:
        return "<p>No answers.</p>"
    step = (WIDTH - LEFT) / len(slices)
    marks = list(_axis(highest_ms))
    for key, colour in (("p50_ms", BLUE), ("p95_ms", ORANGE)):
        points = [
            (LEFT + (at + 0.5) * step, _y(part[key] / highest_ms))
            for at, part in enumerate(slices)
            if part[key] is not None
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f"<polyline points='{line}' fill=none stroke='{colour}' stroke-width=2 />")
        marks += [f"<circle cx={x:.1f} cy={y:.1f} r=3 fill='{colour}' />" for x, y in points]
    for at, part in enumerate(slices):
        x = LEFT + (at + 0.5) * step
        rate = part["rate_due_per_s"]
        under = f"{part['from_s']:.3g} s" + ("" if rate is None else f", {rate:.3g}/s")
        marks.append(_word(x, HEIGHT - 8, under, "middle"))
        if part["failed"]:
            marks.append(f"<text x={x:.1f} y=14 text-anchor=middle fill='{RED}'>&times;</text>")
    return _picture(marks, "p50 and p95 of the latency over time")


def _bars(found: Mapping[str, Any]) -> str:
    counts: Sequence[int] = found["answers"]
    edges: Sequence[float] = found["up_to_ms"]
    seen = [at for at, count in enumerate(counts) if count]
    if not seen:
        return "<p>No answers.</p>"
    shown = range(seen[0], seen[-1] + 1)
    step = (WIDTH - LEFT) / len(shown)
    most = max(counts)
    marks = []
    for place, at in enumerate(shown):
        x, top = LEFT + place * step, _y(counts[at] / most)
        marks.append(
            f"<rect x={x + 2:.1f} y={top:.1f} width={max(1.0, step - 4):.1f} "
            f"height={_y(0) - top:.1f} fill='{BLUE}' />"
        )
        marks.append(_word(x + step / 2, top - 4, str(counts[at]), "middle"))
        upper = f"≤ {milliseconds(edges[at])}" if at < len(edges) else "more"
        marks.append(_word(x + step / 2, HEIGHT - 8, upper, "middle"))
    return _picture(marks, "Histogram of the latency")


def _axis(highest_ms: float) -> Iterator[str]:
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        yield f"<line x1={LEFT} x2={WIDTH} y1={y:.1f} y2={y:.1f} stroke='#ddd' />"
        yield _word(LEFT - 8, y + 4, milliseconds(share * highest_ms), "end")


def _y(share: float) -> float:
    return (HEIGHT - FOOT) - share * (HEIGHT - FOOT - 24)


def _word(x: float, y: float, text: str, anchor: str) -> str:
    escaped = html.escape(text)
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor} fill='{GREY}'>{escaped}</text>"


def _picture(marks: Sequence[str], title: str) -> str:
    inner = "".join(marks)
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title}'>{inner}</svg>"
