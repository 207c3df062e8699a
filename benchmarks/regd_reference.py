"""A day of PJM's RegD signal, thirteen made-up responses to it, and the scores published for them.

Read through WATTSHIFT_DATA; nothing of it lies in the project. The signal is the source's column
`regd_smooth` (a Savitzky-Golay filter over 31 samples, second order, clipped; the source's raw
column has noise of its own added): 43,200 samples at 2 s. Responses are made at 2 s, each lag a
whole number of samples with the first value held before it; every fifth sample is scored.

Source: BigdogManLuo/Wind-ESS-Optimization-in-Frequency-Regulation-Market (MIT); the published
scores are the table of the grid reference, section 5.1, to three places.
"""

import csv
import gzip
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks.cannot import CannotRunHere

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.scores.m12 import M12, pjm_legacy_m12

FOLDER_VARIABLE = "WATTSHIFT_DATA"
SIGNAL = "grid/pjm_regd_day_2s.csv.gz"
SAMPLE_S = 2.0
SCORED_EVERY = 5
FULL_RANGE_PU = 2.0
"""From -1 to 1: what the slew limits of the table are given by."""

NOISE_PU, NOISE_SEED = 0.01, 0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a response, and what was published for it.

    `published` is correlation, delay, precision, score, and the score of the worst hour.
    """

    name: str
    response_pu: Floats
    published: tuple[float, float, float, float, float]


def signal() -> Floats:
    """The day's signal, p.u., every 2 s. Raises CannotRunHere without the data."""
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(folder or "") / SIGNAL
    if not folder or not path.is_file():
        raise CannotRunHere(f"{FOLDER_VARIABLE} must name the folder that holds {SIGNAL}")
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return np.array([float(row["regd_smooth"]) for row in csv.DictReader(io.StringIO(text))])


def scored(signal_pu: Floats, response_pu: Floats) -> M12:
    """Score columns at 2 s."""
    return pjm_legacy_m12(signal_pu[::SCORED_EVERY], response_pu[::SCORED_EVERY])


def rows(signal_pu: Floats) -> tuple[Row, ...]:
    """The table's responses to a signal, in its order."""
    q = signal_pu
    fine, coarse, shed = _stepped(q, 0.1), _stepped(q, 0.25), np.minimum(q, 0.0)
    noise_pu = np.random.default_rng(NOISE_SEED).normal(0.0, NOISE_PU, len(q))
    return (
        Row("ideal", q, (1.000, 1.000, 1.000, 1.000, 1.000)),
        Row("2 s lag + 1 % noise", _late(q, 2) + noise_pu, (0.995, 1.000, 0.945, 0.980, 0.972)),
        Row("6 s hold + 2 s lag", _late(_held(q, 6), 2), (0.992, 1.000, 0.924, 0.972, 0.963)),
        Row("10 s lag", _late(q, 10), (0.990, 0.985, 1.000, 0.992, 0.990)),
        Row("20 s lag", _late(q, 20), (0.987, 0.956, 0.816, 0.920, 0.897)),
        Row("30 s lag", _late(q, 30), (0.986, 0.925, 0.643, 0.851, 0.811)),
        Row("60 s lag", _late(q, 60), (0.981, 0.832, 0.264, 0.693, 0.636)),
        Row("30 s hold", _held(q, 30), (0.961, 0.987, 0.877, 0.942, 0.924)),
        Row("0.1 p.u. + 10 s lag", _late(fine, 10), (0.970, 0.985, 0.883, 0.946, 0.919)),
        Row("0.25 p.u. + 10 s lag", _late(coarse, 10), (0.900, 0.984, 0.707, 0.864, 0.776)),
        Row("slew 60 s", _slewed(q, 60), (1.000, 1.000, 1.000, 1.000, 1.000)),
        Row("slew 300 s", _slewed(q, 300), (0.983, 0.996, 0.902, 0.960, 0.924)),
        Row("shed only + 10 s lag", _late(shed, 10), (0.848, 0.976, 0.570, 0.798, 0.765)),
    )  # fmt: skip


def error_of(row: Row, signal_pu: Floats) -> float:
    """Furthest that one of the five figures lies from what was published."""
    found = scored(signal_pu, row.response_pu)
    ours = (found.correlation, found.delay, found.precision, found.score, found.worst_hour)
    return max(abs(own - told) for own, told in zip(ours, row.published, strict=True))


def _late(values_pu: Floats, lag_s: float) -> Floats:
    count = round(lag_s / SAMPLE_S)
    return np.concatenate([np.full(count, values_pu[0]), values_pu[:-count]])


def _held(values_pu: Floats, hold_s: float) -> Floats:
    count = round(hold_s / SAMPLE_S)
    return np.repeat(values_pu[::count], count)[: len(values_pu)]


def _stepped(values_pu: Floats, step_pu: float) -> Floats:
    return np.round(values_pu / step_pu) * step_pu


def _slewed(values_pu: Floats, full_range_s: float) -> Floats:
    most_pu = FULL_RANGE_PU / full_range_s * SAMPLE_S
    now_pu = float(values_pu[0])
    moved = []
    for goal_pu in values_pu.tolist():
        now_pu += min(max(goal_pu - now_pu, -most_pu), most_pu)
        moved.append(now_pu)
    return np.array(moved)
