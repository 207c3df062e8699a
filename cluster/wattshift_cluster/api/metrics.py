"""/metrics in Prometheus text: base units, names and labels of INTERFACES.

The controller keeps the figures; a scrape turns one snapshot into a registry of its own, so nothing
is global and a device that has left is gone from the next scrape. Unknown figures are left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

# Key of MetricsView, metric, help, labels. Counters lose `_total` here; the library adds it back.
SCALARS = (
    ("headroom_w", "wattshift_headroom_watts", "Watts below the cap less its margin."),
    (
        "price_usd_per_mwh",
        "wattshift_price_usd_per_megawatt_hour",
        "Price of energy; not a base unit, because no one quotes it per joule.",
    ),
)
MONEY = (
    ("hashprice_usd_per_ph_day", "wattshift_hashprice_usd_per_ph_day", "Earned by 1 PH/s a day."),
    ("hashprice_age_s", "wattshift_hashprice_age_seconds", "Age of what the hashprice rests on."),
)
PLANNED = (
    ("plan_age_s", "wattshift_plan_age_seconds", "Age of the newest look-ahead plan."),
    ("plan_solve_s", "wattshift_plan_solve_seconds", "Time that its solver took."),
)
MAPPED = (
    ("site_power_w", "wattshift_site_power_watts", "Site power.", "source"),
    ("feeder_power_w", "wattshift_feeder_power_watts", "Power by a feeder's own meter.", "feeder"),
    ("cap_w", "wattshift_cap_watts", "Caps in force.", "origin"),
    ("leases", "wattshift_leases", "Leases by state.", "state"),
    ("reading_age_s", "wattshift_reading_age_seconds", "Age of the last reading.", "device"),
    ("reserve_w", "wattshift_reserve_watts", "Kept within the gates' reach, by what for.", "kind"),
    ("promise_w", "wattshift_promise_watts", "Of promises to the grid: owed, held, short.", "kind"),
    ("alarms", "wattshift_alarms", "Alarms that hold.", "severity"),
    ("unasked_w", "wattshift_unasked_watts", "Drawn by work that asked for no watts.", "node"),
)
ROWED = (
    ("jobs", "wattshift_jobs", "Jobs by kind and state.", ("kind", "state")),
    ("node_power_w", "wattshift_node_power_watts", "Watts of Ray's work.", ("node", "kind")),
    ("job_units", "wattshift_job_units", "Units that hold watts.", ("job", "node")),
)
COUNTED = (
    ("energy_j", "wattshift_energy_joules", "Energy drawn.", ("device", "work")),
    ("hashes", "wattshift_hashes", "Hashes computed.", ("algorithm", "device")),
    ("shares", "wattshift_shares", "Shares found, by what became of them.", ("pool", "result")),
    ("revenue_usd", "wattshift_revenue_usd", "Earned by hashing.", ("device", "quality")),
)
HISTOGRAMS = (
    ("decision_s", "wattshift_decision_seconds", "Time that one control step takes."),
    ("shed_s", "wattshift_shed_seconds", "Time from a cut to site power at or below the cap."),
)


class Snapshot(Collector):
    """One scrape's figures as Prometheus metrics."""

    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of which the snapshot knows at least one figure."""
        yield from (metric for metric in self._metrics() if metric.samples)

    def _metrics(self) -> Iterator[Metric]:
        figures = self._figures
        yield build_info()
        if "shadow" in figures:
            text = "1 where the site decides and commands nothing."
            yield gauge("wattshift_shadow", text, (), [((), float(figures["shadow"]))])
        for key, name, text in (*SCALARS, *MONEY, *PLANNED):
            yield gauge(name, text, (), [((), figures.get(key))])
        for key, name, text, label in MAPPED:
            rows = [((value,), number) for value, number in figures.get(key, {}).items()]
            yield gauge(name, text, (label,), rows)
        for key, name, text, labels in ROWED:
            yield gauge(name, text, labels, [((a, b), n) for a, b, n in figures.get(key, ())])
        for key, name, text, labels in COUNTED:
            yield counter(name, text, labels, figures.get(key, ()))
        if figures.get("overcap_s") is not None:
            overcap = [(figures["overcap_s"],)]
            yield counter("wattshift_overcap_seconds", "Time above the cap.", (), overcap)
        if "plans" in figures:
            text = "Look-ahead plans made."
            yield counter("wattshift_plans", text, (), [(figures["plans"],)])
        for key, name, text in HISTOGRAMS:
            if figures.get(key):
                yield histogram(name, text, figures[key])


def build_info() -> Metric:
    """Return the metric that carries the version as a label."""
    try:
        built = version("wattshift")
    except PackageNotFoundError:
        built = "unknown"
    return gauge("wattshift_build_info", "Version.", ("version",), [((built,), 1)])


def gauge(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[tuple[str, ...], float | None]],
) -> Metric:
    """Return a gauge of the rows (label values, figure) whose figure is known."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number + 0.0)  # what is nothing is not shown as -0.0
    return family


def counter(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> Metric:
    """Return a counter of rows that hold the label values and then the figure."""
    family = CounterMetricFamily(name, text, labels=labels)
    for *values, number in rows:
        family.add_metric([str(value) for value in values], number)
    return family


def histogram(name: str, text: str, view: Mapping[str, Any]) -> Metric:
    """Return a histogram from cumulative counts by upper bound."""
    family = HistogramMetricFamily(name, text)
    bounds = sorted((float(bound), count) for bound, count in view["buckets"].items())
    buckets = [(f"{bound:g}", float(count)) for bound, count in bounds]
    family.add_metric((), [*buckets, ("+Inf", float(view["count"]))], sum_value=view["sum"])
    return family


def exposition(figures: Mapping[str, Any]) -> bytes:
    """Return a snapshot in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(Snapshot(figures))
    return generate_latest(registry)
