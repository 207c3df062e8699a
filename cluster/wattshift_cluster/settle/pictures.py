"""The pictures of a report, as SVG text: the site's power with its cap, and each event."""

import io
import math
import re
from datetime import UTC

import matplotlib as mpl
import numpy as np

from wattshift_cluster.settle.report import Report
from wattshift_cluster.settle.settle import Settled
from wattshift_scheduler.arrays import Floats

mpl.use("Agg")
from matplotlib import dates, ticker
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by every common form of colour vision.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
POINTS_MOST = 4_000
FOREVER_S = 86_400.0


def site_picture(report: Report) -> str:
    """The site's mean power by interval, its effective cap, and the events, over the span."""
    figure, axis = _figure(3.4)
    site = report.site
    times_s = np.append(site.starts_s, site.ends_s[-1:])
    watts_w = np.append(site.mean_w, site.mean_w[-1:])
    axis.step(
        _days(times_s), watts_w / 1e3, where="post", color=BLUE, linewidth=1.6, label="metered"
    )
    for steps, colour, style, label in (
        (report.caps, RED, "--", "cap"),
        (report.plans, GREY, ":", "plan"),
    ):
        at_s, values = _within(steps.at_s, steps.values, report.span)
        if np.isfinite(values).any():
            axis.step(_days(at_s), values / 1e3, style, where="post", color=colour, label=label)
    for one in report.settled:
        begin_s, end_s = _span(one)
        colour = RED if one.void else ORANGE
        axis.axvspan(*_days(np.array([begin_s, end_s])), color=colour, alpha=0.15, linewidth=0)
    axis.set_xlim(*_days(np.array(report.span)))
    axis.set_ylabel("site power (kW)")
    axis.set_ylim(bottom=0)
    return _svg(figure, axis)


def event_picture(one: Settled, report: Report) -> str:
    """Raw samples, baseline, metered mean and what was committed, around one event."""
    figure, (axis, share) = plt.subplots(
        2, 1, figsize=(10, 4.8), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    begin_s, end_s = _span(one)
    around_s = max(0.35 * (end_s - begin_s), 900.0)
    span = (begin_s - around_s, end_s + around_s)
    at_s, watts_w = _thinned(*_within(report.samples.at_s, report.samples.watts_w, span))
    axis.plot(_days(at_s), watts_w / 1e3, color=BLUE, linewidth=0.8, alpha=0.6, label="samples")
    edges_s = np.array([row.interval_start_s for row in one.rows] + [end_s])
    for values, colour, style, label in (
        ([row.metered_kw for row in one.rows], BLUE, "-", "metered mean"),
        ([row.baseline_kw for row in one.rows], GREEN, "-", "baseline"),
        ([row.baseline_kw - row.committed_kw for row in one.rows], RED, "--", "committed"),
    ):
        if not all(math.isnan(value) for value in values):
            held = [*values, values[-1]]
            axis.step(_days(edges_s), held, style, where="post", color=colour, lw=1.8, label=label)
    if one.event.notified_s > span[0]:
        axis.axvline(_day(one.event.notified_s), color=GREY, linewidth=1)
        axis.annotate(
            "notice",
            (_day(one.event.notified_s), 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=GREY,
        )
    axis.axvspan(_day(begin_s), _day(end_s), color=ORANGE, alpha=0.1, linewidth=0)
    axis.set_ylabel("site power (kW)")
    axis.set_ylim(bottom=0)
    _performed(share, one, edges_s)
    share.set_xlim(_day(span[0]), _day(span[1]))
    return _svg(figure, axis, share)


def _performed(axis: Axes, one: Settled, edges_s: Floats) -> None:
    """Performance by interval, where something was committed; what was reduced, where not."""
    values = np.array([row.performance for row in one.rows]) * 100.0
    label = "delivered"
    if not np.isfinite(values).any():
        values, label = np.array([row.reduction_kw for row in one.rows]), "reduced (kW)"
    else:
        axis.axhline(100.0, color=RED, linestyle="--", linewidth=1)
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(decimals=0))
    widths = np.diff(_days(edges_s))
    colours = [GREEN if row.payment > 0 else GREY for row in one.rows]
    axis.bar(
        _days(edges_s[:-1]),
        np.nan_to_num(values),
        widths,
        align="edge",
        color=colours,
        edgecolor="white",
        linewidth=0.5,
    )
    axis.set_ylabel(label)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure, axis = plt.subplots(figsize=(10, height), layout="constrained")
    return figure, axis


def _svg(figure: Figure, axis: Axes, *below: Axes) -> str:
    """Finish a picture and return it as an <svg> element."""
    for one in (axis, *below):
        one.spines[["top", "right"]].set_visible(False)
    last = below[-1] if below else axis
    locator = dates.AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    last.xaxis.set_major_locator(locator)
    shown = dates.ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    last.xaxis.set_major_formatter(shown)
    last.set_xlabel("UTC")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=5, frameon=False)
    text = io.StringIO()
    # Paths instead of fonts: the page looks the same wherever it is printed.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "wattshift"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)


def _span(one: Settled) -> tuple[float, float]:
    event = one.event
    if one.rows:
        return one.rows[0].interval_start_s, one.rows[-1].interval_end_s
    end_s = event.starts_s + FOREVER_S if event.ends_s is None else event.ends_s
    return event.starts_s, end_s


def _within(at_s: Floats, values: Floats, span: tuple[float, float]) -> tuple[Floats, Floats]:
    """The part of a series inside a span, with the value that held when it began."""
    first = max(int(np.searchsorted(at_s, span[0], "right")) - 1, 0)
    last = int(np.searchsorted(at_s, span[1], "right"))
    return np.clip(at_s[first:last], *span), values[first:last]


def _thinned(at_s: Floats, watts_w: Floats) -> tuple[Floats, Floats]:
    """Least and greatest of each bin, so that no spike is lost and the page stays small."""
    if len(at_s) <= POINTS_MOST:
        return at_s, watts_w
    size = math.ceil(len(at_s) / (POINTS_MOST // 2))
    rows = len(at_s) // size * size
    bins = np.where(np.isfinite(watts_w[:rows]), watts_w[:rows], 0.0).reshape(-1, size)
    base = np.arange(len(bins)) * size
    picked = np.unique(np.concatenate([base + bins.argmin(axis=1), base + bins.argmax(axis=1)]))
    return at_s[picked], watts_w[picked]


def _days(at_s: Floats) -> Floats:
    """Unix times as matplotlib's days, which it counts from 1970 too."""
    return at_s / 86_400.0


def _day(at_s: float) -> float:
    return at_s / 86_400.0
