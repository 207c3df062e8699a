"""Latencies of services in Ray's Prometheus text, as each node exports it.

Serve's replicas count `serve_deployment_processing_latency_ms` (with labels application and
deployment), vLLM counts `time_to_first_token_seconds` and `inter_token_latency_seconds` (older:
`time_per_output_token_seconds`). Ray exports them under names with `ray_` before and with `_` or
`:` after `vllm`. Counts are cumulative, so a figure is that of the requests between two looks. Ray
2.60 updates the text every 10 s, so it is second to what the replicas tell themselves.
"""

import math
import re
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from urllib.error import URLError

from wattshift_cluster.workload.serving.service_stats import QUANTILE, Seen

TEXT_BYTES_MAX = 8 << 20
READ_S = 1.0
WINDOW_S = 60.0
LOOKS_MAX = 64

LATENCY = "latency"
TTFT = "ttft"
ITL = "itl"
SERIES: Mapping[str, tuple[str, float]] = {
    "serve_deployment_processing_latency_ms": (LATENCY, 1.0),
    "vllm:time_to_first_token_seconds": (TTFT, 1000.0),
    "vllm:inter_token_latency_seconds": (ITL, 1000.0),
    "vllm:time_per_output_token_seconds": (ITL, 1000.0),
}
"""What is read, and milliseconds per unit of its bounds."""

GAUGES: Mapping[str, str] = {
    "serve_replica_processing_queries": "ongoing",
    "serve_deployment_queued_queries": "queued",
}
"""What is in work at replicas, and what waits at handles."""

LINE = re.compile(r"^(?:ray_)?(?P<name>\w+?[:_]\w+?)_bucket\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)")
GAUGE = re.compile(r"^(?:ray_)?(?P<name>serve_\w+)\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Histogram = dict[float, float]
Key = tuple[str, str, str]
"""(figure, application, deployment); "" where the text names none."""


def parsed(text: str) -> dict[Key, Histogram]:
    """Cumulative counts by upper bound (ms), summed over all replicas in the text."""
    found: dict[Key, Histogram] = defaultdict(lambda: defaultdict(float))
    for line in text.splitlines():
        if "_bucket{" not in line:
            continue
        match = LINE.match(line)
        if match is None:
            continue
        series = SERIES.get(match["name"].replace("vllm_", "vllm:", 1))
        if series is None:
            continue
        labels = dict(LABEL.findall(match["labels"]))
        figure, scale = series
        try:
            bound, count = float(labels["le"]) * scale, float(match["value"])
        except (KeyError, ValueError):
            continue
        key = (figure, labels.get("application", ""), labels.get("deployment", ""))
        found[key][bound] += count
    return {key: dict(histogram) for key, histogram in found.items()}


def gauged(text: str) -> dict[Key, float]:
    """Gauges summed over all processes in the text."""
    found: dict[Key, float] = defaultdict(float)
    for line in text.splitlines():
        match = GAUGE.match(line)
        figure = GAUGES.get(match["name"]) if match else None
        if match and figure:
            labels = dict(LABEL.findall(match["labels"]))
            with suppress(ValueError):
                value = float(match["value"])
                found[figure, labels.get("application", ""), labels.get("deployment", "")] += value
    return dict(found)


def added(parts: Iterable[Mapping[Key, Histogram]]) -> dict[Key, Histogram]:
    """The texts of several nodes together."""
    whole: dict[Key, Histogram] = defaultdict(lambda: defaultdict(float))
    for part in parts:
        for key, histogram in part.items():
            for bound, count in histogram.items():
                whole[key][bound] += count
    return {key: dict(histogram) for key, histogram in whole.items()}


def quantile(histogram: Mapping[float, float], share: float) -> float | None:
    """A quantile of cumulative counts, on a straight line within its bucket; None of nothing.

    What lies above the last finite bound counts as that bound.
    """
    bounds = sorted(histogram)
    total = histogram[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, below, lower = share * total, 0.0, 0.0
    for bound in bounds:
        count = histogram[bound]
        if count >= rank and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return None


def between(older: Mapping[float, float], newer: Mapping[float, float]) -> Histogram:
    """Counts of the time between two looks; of a replica that is gone nothing is subtracted."""
    return {bound: max(0.0, count - older.get(bound, 0.0)) for bound, count in newer.items()}


class Metrics:
    """The last looks at all nodes' texts."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[Key, Histogram]]] = deque(maxlen=LOOKS_MAX)
        self._gauges: dict[Key, float] = {}

    def look(self, texts: Iterable[str], now_s: float) -> None:
        """Take in the texts of one moment."""
        texts = list(texts)
        self._looks.append((now_s, added(parsed(text) for text in texts)))
        gauges: dict[Key, float] = defaultdict(float)
        for text in texts:
            for key, value in gauged(text).items():
                gauges[key] += value
        self._gauges = dict(gauges)
        while len(self._looks) > 2 and now_s - self._looks[1][0] > WINDOW_S:
            self._looks.popleft()

    def seen(self, app: str, deployment: str, alone: bool) -> Seen | None:
        """A service's figures of the last minute; None without two looks.

        Args:
            app: its application.
            deployment: the one whose replicas are counted.
            alone: there is no other service, so that series without labels are its own.
        """
        if len(self._looks) < 2:
            return None
        (older_s, older), (newer_s, newer) = self._looks[0], self._looks[-1]
        found: dict[str, Histogram] = {}
        for key, histogram in newer.items():
            figure, named, part = key
            if named == app or (alone and not named):
                if figure == LATENCY and part != deployment:
                    continue
                found[figure] = between(older.get(key, {}), histogram)
        ongoing, queued = (self._gauges.get((one, app, deployment)) for one in GAUGES.values())
        answered = max(found.get(LATENCY, {}).values(), default=None)
        return Seen(
            p95_ms=quantile(found.get(LATENCY, {}), QUANTILE),
            ttft_p95_ms=quantile(found.get(TTFT, {}), QUANTILE),
            itl_p95_ms=quantile(found.get(ITL, {}), QUANTILE),
            rate_per_s=None if answered is None else round(answered / (newer_s - older_s), 3),
            ongoing=None if ongoing is None else round(ongoing),
            queued=None if queued is None else round(queued),
        )


def fetched(address: str, port: int) -> str | None:
    """A node's text; None if it does not come whole within a second."""
    host = f"[{address}]" if ":" in address else address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=READ_S) as answer:
            raw = answer.read(TEXT_BYTES_MAX + 1)
    except (URLError, OSError, ValueError):
        return None
    return None if len(raw) > TEXT_BYTES_MAX else raw.decode(errors="replace")
