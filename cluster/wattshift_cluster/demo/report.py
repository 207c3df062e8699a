"""What a person takes home from a demo: a table, three pictures, one HTML page.

Every figure is drawn from the evidence; each is marked measured, emulated or modelled, with its
sample rate and window.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from wattshift_cluster.demo.verdict import Evidence, Verdict

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by every common form of colour vision.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"


@dataclass(frozen=True, slots=True)
class Page:
    """What the report shows beside the verdict.

    Attributes:
        parts: (Unix time, watts by meter part).
        prices: (Unix time, USD/MWh) steps.
        origins: figure to how it was had ("emulated, 5 Hz, 1 s window").
        decisions: what was decided and why, newest last.
    """

    parts: Sequence[tuple[float, Mapping[str, float | None]]]
    prices: Sequence[tuple[float, float]]
    origins: Mapping[str, str]
    decisions: Sequence[Mapping[str, Any]]


def write(folder: Path, seen: Evidence, verdict: Verdict, page: Page) -> Path:
    """Write power.png, latency.png, verdict.json and report.html; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    _power_picture(folder / "power.png", seen, page)
    _latency_picture(folder / "latency.png", seen)
    (folder / "verdict.json").write_text(json.dumps(verdict.figures, indent=2) + "\n")
    target = folder / "report.html"
    target.write_text(_html(verdict, page))
    return target


def _power_picture(path: Path, seen: Evidence, page: Page) -> None:
    figure, (power, price) = plt.subplots(
        2, 1, figsize=(11, 6.2), height_ratios=(4, 1), sharex=True, layout="constrained"
    )
    frame = pd.DataFrame([dict(row) for _, row in page.parts], dtype=float) / 1000.0
    at_s = [at - seen.ready_s for at, _ in page.parts]
    names = list(frame.columns)
    tints = plt.get_cmap("YlOrBr")
    colours = [
        BLUE if name.startswith("host") else tints(0.25 + 0.45 * i / max(len(names) - 1, 1))
        for i, name in enumerate(names)
    ]
    order = sorted(range(len(names)), key=lambda i: not names[i].startswith("host"))
    stack = [frame[names[i]].ffill().fillna(0.0) for i in order]
    power.stackplot(
        at_s,
        stack,
        labels=[names[i] for i in order],
        colors=[colours[i] for i in order],
        edgecolor="white",
        linewidth=0.4,
        alpha=0.85,
    )
    cut_s, restore_s = seen.cut_s - seen.ready_s, seen.restore_s - seen.ready_s
    power.hlines(seen.cap_w / 1000.0, cut_s, restore_s, RED, linestyles="--", linewidth=2)
    power.annotate(
        f"cap {seen.cap_w / 1000.0:.2f} kW",
        (restore_s, seen.cap_w / 1000.0),
        xytext=(-6, 6),
        textcoords="offset points",
        ha="right",
        color=RED,
    )
    for axis in (power, price):
        _moments(axis, seen)
    power.set_ylabel("site power at the meter (kW)")
    power.set_ylim(bottom=0)
    power.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=6, frameon=False)
    price.step(
        [at - seen.ready_s for at, _ in page.prices],
        [usd for _, usd in page.prices],
        where="post",
        color=GREEN,
    )
    price.set_ylabel("USD/MWh")
    price.set_xlabel("seconds from ready")
    price.set_xlim(0, seen.end_s - seen.ready_s)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _moments(axis: Axes, seen: Evidence) -> None:
    for at_s, word in ((seen.cut_s, "cut"), (seen.restore_s, "restore")):
        axis.axvline(at_s - seen.ready_s, color=GREY, linewidth=1)
        axis.annotate(
            word,
            (at_s - seen.ready_s, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            color=GREY,
        )
    axis.spines[["top", "right"]].set_visible(False)


def _latency_picture(path: Path, seen: Evidence) -> None:
    figure, axis = plt.subplots(figsize=(11, 3.2), layout="constrained")
    good = [r for r in seen.requests if r.ok]
    bad = [r for r in seen.requests if not r.ok]
    axis.scatter(
        [r.sent_s - seen.ready_s for r in good],
        [r.latency_ms for r in good],
        s=6,
        color=BLUE,
        label="answered",
        linewidths=0,
    )
    axis.scatter(
        [r.sent_s - seen.ready_s for r in bad],
        [r.latency_ms for r in bad],
        s=24,
        color=RED,
        marker="x",
        label="failed",
    )
    _moments(axis, seen)
    axis.set_xlim(0, seen.end_s - seen.ready_s)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("inference latency (ms)")
    axis.set_xlabel("seconds from ready")
    axis.legend(loc="upper right", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#111}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;padding:.3rem .6rem;
border-bottom:1px solid #ddd;vertical-align:top}img{max-width:100%}.kept{color:#00684a}
.broken{color:#b3261e}td.n{white-space:nowrap;font-variant-numeric:tabular-nums}
"""


def _html(verdict: Verdict, page: Page) -> str:
    word = verdict.figures["verdict"]
    checks = "".join(
        f"<tr><td>{html.escape(c.name)}</td><td class=n>{html.escape(c.found)}</td>"
        f"<td class=n>{html.escape(c.promised)}</td>"
        f"<td class={'kept' if c.ok else 'broken'}>{'kept' if c.ok else 'broken'}</td></tr>"
        for c in verdict.checks
    )
    origins = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(how)}</td></tr>"
        for name, how in page.origins.items()
    )
    decisions = "".join(
        f"<tr><td class=n>{html.escape(str(d['at']))}</td><td>{html.escape(str(d['subject']))}</td>"
        f"<td>{html.escape(str(d['action']))}</td><td>{html.escape(str(d['reason']))}</td></tr>"
        for d in page.decisions
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>wattshift demo: {word}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<h1>The promise was <span class={word}>{word}</span></h1>"
        f"<img src=power.png alt='Site power by part, with the cap'>"
        f"<img src=latency.png alt='Inference latency of every request'>"
        f"<h2>The promise</h2><table><tr><th>what<th>found<th>promised<th></tr>{checks}</table>"
        f"<h2>How each figure was had</h2><table>{origins}</table>"
        f"<h2>Why</h2><table><tr><th>when<th>what<th>did<th>because</tr>{decisions}</table></html>"
    )
