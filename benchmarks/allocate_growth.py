"""How the time of a full replan grows with the fleet, from 1,000 devices to 300,000, drawn."""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.allocate_site import HORIZON_S, VALUES, Instance, awake_of, instance, solved

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.ladder import Ladder

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
REPEATS = 11
FOLDER = Path(__file__).parent / "results" / "allocate"
STEEPEST = 1.0
"""The slope that a straight line through the origin has here; it is drawn for comparison."""


def replan_ms(one: Instance, repeats: int = REPEATS) -> tuple[float, float]:
    """Median times of a replan and, of that, of ranking, ms: all values have changed."""
    ladder, n = one.ladder, len(one.fleet)
    awake, ranks_ms, all_ms = awake_of(n), [], []
    for i in range(repeats):
        values = replace(VALUES, hashprice_usd_per_ph_day=45.0 + 0.1 * (i + 1))
        begin_s = time.perf_counter()
        ladder = Ladder.of(one.fleet, values, awake, HORIZON_S, last=ladder)
        ranked_s = time.perf_counter()
        solved(replace(one, ladder=ladder))
        ended_s = time.perf_counter()
        ranks_ms.append((ranked_s - begin_s) * 1e3)
        all_ms.append((ended_s - begin_s) * 1e3)
    return statistics.median(all_ms), statistics.median(ranks_ms)


def growth(told: Callable[[str], None]) -> dict[int, float]:
    """Median replan times by the number of devices, ms."""
    found = {}
    for devices in SIZES:
        found[devices] = round(replan_ms(unlike(devices))[0], 3)
        told(f"{devices:,} devices: {found[devices]:.1f} ms")
    return found


def unlike(devices: int) -> Instance:
    """A site whose devices all differ, made fast: of models in common, each column then its own."""
    one = instance(devices, distinct=False)
    fleet = _of_own_make(one.fleet)
    ladder = Ladder.of(fleet, VALUES, awake_of(devices), HORIZON_S)
    return replace(one, fleet=fleet, ladder=ladder)


def _of_own_make(fleet: Fleet) -> Fleet:
    make = np.random.default_rng(1).normal(1.0, 0.03, len(fleet)).clip(0.9, 1.1)
    factor = np.repeat(make, np.diff(fleet.first))
    factor[fleet.first[:-1]] = 1.0
    return replace(
        fleet, point_w=fleet.point_w * factor, point_limit_w=fleet.point_limit_w * factor
    )


def exponent(found: dict[int, float]) -> float:
    """The slope of time over devices, both by their logarithms: 1 is in proportion."""
    x = [math.log(devices) for devices in found]
    y = [math.log(ms) for ms in found.values()]
    return round(statistics.linear_regression(x, y).slope, 3)


def keep(found: dict[int, float], folder: Path = FOLDER) -> None:
    """Write the figures, and draw them where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    figure, axes = pyplot.subplots(figsize=(7.0, 4.4), layout="constrained")
    devices, ms = list(found), list(found.values())
    axes.loglog(devices, ms, "o-", color="#0b5fa5", label="full replan, p50")
    line = [ms[-1] * (n / devices[-1]) ** STEEPEST for n in devices]
    axes.loglog(devices, line, "--", color="#8a8a8a", label="in proportion")
    for n, value in found.items():
        axes.annotate(f"{value:.1f}", (n, value), (0, 7), textcoords="offset points", ha="center")
    axes.set_xlabel("devices, 5 rungs each, 40 to a rack")
    axes.set_ylabel("ms")
    axes.set_title(
        f"Ranked, filled and repaired anew: grows as devices to the {exponent(found):.2f}"
    )
    axes.grid(visible=True, which="major", color="#dddddd")
    axes.legend(frameon=False)
    figure.savefig(folder / "growth.png", dpi=130)
    pyplot.close(figure)
