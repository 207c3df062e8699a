"""What Emerald published of its field test in Phoenix, and the market that a year is played on.

Read through WATTSHIFT_DATA; nothing of it lies in the project. Sources: ai-emerald's
emerald-ai-demo-may-2025 (Apache-2.0): a sweep of power caps per workload, and the jobs of the test
of 2025-05-03 with their flexibility classes and weights. ERCOT HB_SOUTH prices of ten months from
MPC-BESS-ERCOT (MIT). Request rates of two weeks from Alibaba's ServeGen (Apache-2.0).
"""

import csv
import gzip
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.cannot import CannotRunHere

FOLDER_VARIABLE = "WATTSHIFT_DATA"
SWEEP = "reference/emerald_phoenix_2025/dvfs_sweep.csv"
PRICES = "grid/ercot_hbsouth_dam_rtm_15min.csv.gz"
DEMAND = "workload/servegen_total_rate_10min.csv.gz"
DEMAND_MODEL = "m-large"

CLASS_WEIGHT = (1.0, 0.9, 0.75, 0.5)
"""Weight of a job by its class: the throughput that it is promised (the test's own weights are in
these proportions). It had no job of class 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """One power cap of the sweep: watts of a GPU under it, and the throughput that is left."""

    watts_w: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Workload:
    """One job of the field test.

    Attributes:
        name: of the job here.
        sweep: its row in the sweep.
        gpus: GPUs that it ran on.
        flexibility: its class, 0 to 3.
        steps: power caps, most watts first.
    """

    name: str
    sweep: str
    gpus: int
    flexibility: int
    steps: tuple[Step, ...] = ()

    @property
    def weight(self) -> float:
        """Its weight in the performance of all, before they are made to add up to 1."""
        return CLASS_WEIGHT[self.flexibility]


FIELD_TEST = (
    Workload("llama-8b-48g-a", "infer_llama_8b_48g", 48, 1),
    Workload("llama-8b-48g-b", "infer_llama_8b_48g", 48, 2),
    Workload("llama-8b-ft", "ft_llama_8b_p3", 32, 2),
    Workload("llama-8b-32g", "infer_llama_8b_32g", 32, 3),
    Workload("mpt-13b", "pt_mpt_13b_sm", 48, 3),
    Workload("mpt-7b", "pt_mpt_7b_fast", 48, 3),
)
"""The six jobs of the test of 2025-05-03, 256 GPUs together."""

STRICT = Workload("llama-8b-16g", "infer_llama_8b", 16, 0)
"""Our addition: the test had nothing of class 0, so that its order could not show there."""


@dataclass(frozen=True, slots=True)
class Quarter:
    """Fifteen minutes of the market: when they began, and the day-ahead price, USD/MWh."""

    at: datetime
    usd_per_mwh: float


def workloads() -> tuple[Workload, ...]:
    """The jobs with their steps. Raises CannotRunHere without the data."""
    swept: dict[str, list[Step]] = {}
    for row in _rows(SWEEP):
        step = Step(float(row["power per GPU"]), float(row["normalized throughput"]))
        swept.setdefault(row["Workload"], []).append(step)
    for steps in swept.values():
        steps.sort(key=lambda step: -step.watts_w)
    return tuple(
        Workload(one.name, one.sweep, one.gpus, one.flexibility, tuple(swept[one.sweep]))
        for one in (STRICT, *FIELD_TEST)
    )


def quarters() -> tuple[Quarter, ...]:
    """Day-ahead prices, in order. Raises CannotRunHere without the data."""
    return tuple(
        Quarter(datetime.fromisoformat(row["time"]), float(row["HB_SOUTH_DAM"]))
        for row in _rows(PRICES)
        if row["HB_SOUTH_DAM"]
    )


def demand_shares() -> tuple[float, ...]:
    """Request rate of each 10 minutes of two weeks, as a share of the highest one."""
    rates = [float(row["total_rate_rps"]) for row in _rows(DEMAND) if row["model"] == DEMAND_MODEL]
    most = max(rates)
    return tuple(rate / most for rate in rates)


def _rows(name: str) -> Iterator[dict[str, str]]:
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        raise CannotRunHere(f"{FOLDER_VARIABLE} must name the folder that holds {name}")
    read = gzip.decompress if path.suffix == ".gz" else bytes
    yield from csv.DictReader(io.StringIO(read(path.read_bytes()).decode("utf-8")))
