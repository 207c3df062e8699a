"""The figures of /metrics as the controller gives them; `metrics` writes them out."""

from typing_extensions import TypedDict


class HistogramView(TypedDict):
    """A Prometheus histogram: cumulative counts by upper bound in s, with their sum and count."""

    buckets: dict[float, int]
    sum: float
    count: int


class MetricsView(TypedDict, total=False):
    """Figures of /metrics. Counters only grow; an absent key leaves its metric out.

    `energy_j` rows are (device, work, J); `hashes` rows (algorithm, device, hashes);
    `shares` rows (pool, result, shares); `jobs` rows (kind, state, jobs); `revenue_usd` rows
    (device, quality, USD); `node_power_w` rows (node, kind, W); `job_units` rows (job, node, n).
    """

    shadow: bool
    site_power_w: dict[str, float | None]
    feeder_power_w: dict[str, float | None]
    cap_w: dict[str, float]
    reserve_w: dict[str, float]
    headroom_w: float | None
    price_usd_per_mwh: float | None
    hashprice_usd_per_ph_day: float | None
    hashprice_age_s: float | None
    plan_age_s: float | None
    plan_solve_s: float | None
    plans: int
    alarms: dict[str, int]
    revenue_usd: list[tuple[str, str, float]]
    energy_j: list[tuple[str, str, float]]
    overcap_s: float
    leases: dict[str, int]
    reading_age_s: dict[str, float | None]
    decision_s: HistogramView
    shed_s: HistogramView
    hashes: list[tuple[str, str, float]]
    shares: list[tuple[str, str, float]]
    jobs: list[tuple[str, str, int]]
    node_power_w: list[tuple[str, str, float | None]]
    unasked_w: dict[str, float | None]
    job_units: list[tuple[str, str, int]]
