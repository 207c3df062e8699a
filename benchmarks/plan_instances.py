"""Seeded days to plan: mixed machines, services, batch with deadlines, peaks, on real prices.

Prices are ERCOT's of 15 minutes from the data folder; without it a seeded walk with spikes stands
in for them, and the figures say so. Everything else is modelled.
"""

import csv
import gzip
import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.plan.words import Ahead, Batch, Commitment, Kind, Peak

Floats = npt.NDArray[np.float64]

PRICES = "grid/ercot_hbsouth_dam_rtm_15min.csv.gz"
QUARTERS_A_DAY = 96
HASHPRICE_USD_PER_PH_DAY = 45.0
START_S = 1_735_689_600.0
"""A midnight: 2025-01-01 UTC."""


@cache
def quarter_prices() -> tuple[Floats, str]:
    """Prices of quarters of an hour, USD/MWh, and where they come from."""
    path = Path(os.environ.get("WATTSHIFT_DATA", "")) / PRICES
    if os.environ.get("WATTSHIFT_DATA") and path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [float(row["HB_SOUTH_RTM"]) for row in csv.DictReader(file)]
        return np.array(rows), "measured prices (ERCOT HB_SOUTH real-time), modelled site"
    rng = np.random.default_rng(3)
    t = np.arange(QUARTERS_A_DAY * 300)
    calm = 28.0 + 14.0 * np.sin((t / QUARTERS_A_DAY - 0.3) * 2 * math.pi) + rng.normal(0, 4, len(t))
    spikes = np.where(rng.random(len(t)) < 0.01, rng.exponential(400.0, len(t)), 0.0)
    return calm + spikes, "seeded prices and site (no data folder)"


def instance(
    seed: int, *, intervals: int = 288, kinds: int = 60, step_s: float = 300.0, shift: int = 0
) -> Ahead:
    """A day of a large site.

    Args:
        seed: of everything.
        intervals, kinds, step_s: its size.
        shift: by how many intervals the same days begin later, as plans follow each other.
    """
    rng = np.random.default_rng(seed)
    prices, _ = quarter_prices()
    each = max(round(900.0 / step_s), 1)
    quarters = -(-(intervals + 300) // each)
    begin = int(rng.integers(0, len(prices) - quarters))
    price = np.repeat(prices[begin : begin + quarters], each)[shift : shift + intervals]
    at = np.arange(shift, shift + intervals)
    machines = tuple(_kind(i, rng, step_s) for i in range(kinds))
    most_w = sum(kind.count * kind.points_w[-1] for kind in machines)
    services_w = 0.05 * most_w * (1.0 + 0.5 * np.sin(2 * math.pi * at * step_s / 86_400.0))
    cap_w = np.full(intervals, float(rng.uniform(0.6, 1.15)) * most_w)
    dip = int(rng.integers(0, intervals + 300)) - shift
    cap_w[max(dip, 0) : max(dip + 24, 0)] *= 0.7
    chance = np.where((at * step_s % 86_400 > 59_400) & (at * step_s % 86_400 < 66_600), 0.02, 0.0)
    starts_s = START_S + step_s * float(rng.integers(20, intervals))
    return Ahead(
        start_s=START_S + step_s * shift,
        step_s=step_s,
        price=Band(price - 5.0, price, price + 15.0),
        cap_w=cap_w,
        other=Band.of(np.full(intervals, 0.04 * most_w)),
        services=Band(0.9 * services_w, services_w, 1.2 * services_w),
        kinds=machines,
        batches=tuple(_batch(i, rng, most_w, intervals * step_s, shift * step_s) for i in range(8)),
        commitments=(
            Commitment(
                "event", starts_s, starts_s + 7200.0, 0.55 * most_w, 180.0, 0.1 * most_w, 90.0
            ),
        ),
        peaks=(Peak("month", 0.009, None, 0.8 * most_w), Peak("grid", 0.06, chance)),
        ramp_up_w_per_s=most_w / 900.0,
        ramp_down_w_per_s=most_w / 300.0,
    )


def _kind(i: int, rng: np.random.Generator, step_s: float) -> Kind:
    count, top_w = int(rng.integers(20, 400)), float(rng.uniform(2800.0, 3600.0))
    j_per_th = float(rng.uniform(15.0, 42.0))
    fenced = i % 6 == 5
    if fenced:
        count, top_w, j_per_th = 40, 700.0, 30.0
    points_w = np.concatenate(([0.0 if fenced else 30.0], np.linspace(0.4 * top_w, top_w, 5)))
    th = points_w[1:] / (j_per_th * (1.0 + 0.25 * np.linspace(0.0, 1.0, 5)))
    usd_per_h = np.concatenate(([0.0], th / 1e3 * HASHPRICE_USD_PER_PH_DAY / 24.0))
    up_s = 0.01 if fenced else float(rng.uniform(60.0, 600.0))
    return Kind(
        name=f"kind{i}",
        count=count,
        points_w=tuple(points_w.tolist()),
        usd_per_h=tuple(usd_per_h.tolist()),
        fenced=fenced,
        up_s=up_s,
        cycle_usd=0.0 if fenced else 0.05 + float(usd_per_h[-1]) * up_s / 3600.0,
        min_up_s=0.0 if fenced else 6 * step_s,
        min_down_s=0.0 if fenced else 3 * step_s,
        running=int(count * rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.2, 0.7])),
    )


def _batch(
    i: int, rng: np.random.Generator, most_w: float, horizon_s: float, gone_s: float
) -> Batch:
    deadline_s = float(rng.uniform(0.2, 1.3)) * horizon_s - gone_s
    draw_w = 0.01 * most_w
    left_wh = 0.4 * draw_w * max(deadline_s, 0.0) / 3600.0
    return Batch(f"batch{i}", left_wh, draw_w, 0.15 * left_wh / 1e3, max(deadline_s, 0.0))
