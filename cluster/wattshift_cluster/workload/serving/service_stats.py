"""How a service does, as far as anybody tells: its own replicas first, then Serve's metrics.

    replicas    method `wattshift_stats` of the deployment's class, as `busy_replica` adds it (gate
                hooks): latencies, time to the first part, gaps between parts, gates marked
    handles     requests in progress and queued, by the policy's wish
    metrics     Ray's Prometheus text on each node: latency histograms of Serve and of vLLM

What nobody tells is None. A figure of a source that went silent is dropped, not kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

QUANTILE = 0.95
LATENCIES_MAX = 4096
GATES_MAX = 64


def quantile_ms(latencies_ms: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not latencies_ms:
        return None
    ranked = sorted(latencies_ms)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]


@dataclass(frozen=True, slots=True)
class Stats:
    """Of one service; None is unknown.

    Attributes:
        ongoing: requests in progress, the queued ones not counted.
        queued: requests that wait.
        p95_ms, ttft_p95_ms, itl_p95_ms: 95th percentiles of latency, of the time to a streamed
            answer's first part, and of the gaps between its parts, ms.
        rate_per_s: answers per second.
        gates: gates that its replicas mark.
        source: where the latencies come from: "replicas", "metrics" or None.
    """

    ongoing: int | None = None
    queued: int | None = None
    p95_ms: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    rate_per_s: float | None = None
    gates: tuple[str, ...] = ()
    source: str | None = None

    def beside(self, ongoing: float, queued: float) -> "Stats":
        """With what Serve's handles count, where replicas count only their own.

        Args:
            ongoing: requests in progress or queued.
            queued: of those, the ones that no replica has yet.
        """
        waiting = round(queued)
        if self.source == "replicas" and self.ongoing is not None:
            return replace(self, queued=(self.queued or 0) + waiting)
        return replace(self, ongoing=max(0, round(ongoing - queued)), queued=waiting)

    def row(self) -> dict[str, Any]:
        """Its keys in the report."""
        return {
            "ongoing": self.ongoing,
            "queued": self.queued,
            "p95_ms": self.p95_ms,
            "ttft_p95_ms": self.ttft_p95_ms,
            "itl_p95_ms": self.itl_p95_ms,
            "rate_per_s": self.rate_per_s,
            "gates": list(self.gates),
            "stats_source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """What Ray's metrics know of a service; see Stats."""

    p95_ms: float | None = None
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    rate_per_s: float | None = None
    ongoing: int | None = None
    queued: int | None = None


def of_replicas(rows: Sequence[Mapping[str, Any]]) -> Stats:
    """The figures of all replicas together, from the answers of `wattshift_stats`.

    Raises:
        KeyError, TypeError, ValueError: a class has a method of that name that answers otherwise.
    """
    queued = _sum(rows, "queued")
    ongoing = _sum(rows, "ongoing")
    gates = {str(gate) for row in rows for gate in row["gates"]}
    return Stats(
        ongoing=None if ongoing is None else ongoing - (queued or 0),
        queued=queued,
        p95_ms=quantile_ms(_all(rows, "recent_ms"), QUANTILE),
        ttft_p95_ms=quantile_ms(_all(rows, "ttft_ms"), QUANTILE),
        itl_p95_ms=quantile_ms(_all(rows, "itl_ms"), QUANTILE),
        rate_per_s=_rate(rows),
        gates=tuple(sorted(gates)[:GATES_MAX]),
        source="replicas",
    )


def with_metrics(stats: Stats, seen: Seen | None) -> Stats:
    """Fill in what the replicas do not tell."""
    if seen is None:
        return stats
    own = stats.source == "replicas" and stats.p95_ms is not None
    return Stats(
        ongoing=seen.ongoing if stats.ongoing is None else stats.ongoing,
        queued=seen.queued if stats.queued is None else stats.queued,
        p95_ms=stats.p95_ms if own else seen.p95_ms,
        ttft_p95_ms=seen.ttft_p95_ms if stats.ttft_p95_ms is None else stats.ttft_p95_ms,
        itl_p95_ms=seen.itl_p95_ms if stats.itl_p95_ms is None else stats.itl_p95_ms,
        rate_per_s=seen.rate_per_s if stats.rate_per_s is None else stats.rate_per_s,
        gates=stats.gates,
        source="replicas" if own else "metrics",
    )


def _sum(rows: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """A sum, unknown if one of them is."""
    values = [row[key] for row in rows]
    return None if any(value is None for value in values) else sum(map(int, values))


def _all(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(ms) for row in rows for ms in row.get(key, ())][:LATENCIES_MAX]


def _rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    rates = [row.get("rate_per_s") for row in rows]
    known = [float(rate) for rate in rates if rate is not None]
    return round(sum(known), 3) if known and len(known) == len(rates) else None
