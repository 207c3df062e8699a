"""A day of the bench `economics` as a picture: the price, and what machines drew by whose decision.

Drawn where WATTSHIFT_PLOT_DIR names a folder and matplotlib is installed; the series are kept
beside it as JSON.
"""

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

from benchmarks.economics_data import Trace
from benchmarks.economics_play import CLAIRVOYANT, OURS, Result
from benchmarks.plots import COLOURS, DARK, DOTS_PER_IN, wanted

NAME = "economics-day"
SHOWN = ("threshold", "ladder", OURS)
HEIGHTS = (1.0, 1.6)
MW = 1e6


def draw(trace: Trace, days: Sequence[Result]) -> list[str]:
    """Keep and draw the day on which the clairvoyant gains most over always-on; the files."""
    folder = wanted()
    if folder is None or not days:
        return []
    one = max(days, key=lambda day: day.milp_usd - day.played["always-on"].books.total_usd)
    series = _series(trace, one)
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{NAME}.json"
    data.write_text(json.dumps(series) + "\n", encoding="utf-8")
    made = [data.name]
    if importlib.util.find_spec("matplotlib") is not None:
        picture = folder / f"{NAME}.png"
        _picture(series, str(picture))
        made.append(picture.name)
    return made


def _series(trace: Trace, one: Result) -> dict[str, Any]:
    count = len(one.best_w)
    span = slice(one.first, one.first + count)
    drawn = {name: list(one.played[name].mining_w) for name in SHOWN}
    return {
        "title": f"{trace.name}, day {trace.day(one.first) - trace.day(0) + 1} of the trace",
        "hours": [trace.hours * k for k in range(count)],
        "price_usd_per_mwh": [float(v) for v in trace.price_usd_per_mwh[span]],
        "ahead_usd_per_mwh": [float(v) for v in trace.ahead_usd_per_mwh[span]],
        "mining_mw": {
            name: [float(w) / MW for w in watts]
            for name, watts in {**drawn, CLAIRVOYANT: one.best_w}.items()
        },
        "usd": {
            **{name: round(one.played[name].books.total_usd) for name in SHOWN},
            CLAIRVOYANT: round(one.milp_usd),
        },
    }


def _picture(series: dict[str, Any], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(8.0, 5.2), layout="constrained", height_ratios=HEIGHTS
    )
    hours = series["hours"]
    above.plot(hours, series["price_usd_per_mwh"], color=DARK, lw=1.4, ds="steps-post",
               label="price paid")  # fmt: skip
    above.plot(hours, series["ahead_usd_per_mwh"], color=COLOURS[3], lw=1.0, ls="--",
               ds="steps-post", label="day-ahead")  # fmt: skip
    above.set_ylabel("USD/MWh")
    above.set_title(f"{series['title']} (modelled)", fontsize=10.5)
    styles = {CLAIRVOYANT: (DARK, ":", 1.8), OURS: (COLOURS[0], "-", 2.0),
              "ladder": (COLOURS[1], "-", 1.2), "threshold": (COLOURS[2], "-", 1.0)}  # fmt: skip
    for name, watts in series["mining_mw"].items():
        colour, dashes, width = styles[name]
        label = f"{name}: {series['usd'][name]:,} USD"
        below.plot(hours, watts, color=colour, ls=dashes, lw=width, ds="steps-post", label=label)
    below.set_ylabel("mining, MW")
    below.set_xlabel("hour of the day")
    below.set_ylim(bottom=0)
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.legend(loc="best", fontsize=8.5, framealpha=0.9)
    figure.savefig(path, dpi=DOTS_PER_IN)
    pyplot.close(figure)
