"""What a service's figures are made of: replicas, Serve's handles, Ray's Prometheus text."""

import math
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from wattshift_cluster.workload.serving import serve_metrics
from wattshift_cluster.workload.serving.serve_metrics import (
    WINDOW_S,
    Metrics,
    added,
    between,
    fetched,
    parsed,
    quantile,
)
from wattshift_cluster.workload.serving.service_stats import (
    Seen,
    Stats,
    of_replicas,
    quantile_ms,
    with_metrics,
)
from wattshift_cluster.workload.serving.stats_desk import StatsDesk, Subject

LE = {"100": 0.0, "200": 0.0, "+Inf": 0.0}


def row(**more: Any) -> dict[str, Any]:
    return {"ongoing": 3, "queued": 1, "recent_ms": [10.0, 30.0], "gates": ["gpu0"], **more}


def lines(counts: Mapping[str, float], name: str, **labels: str) -> str:
    told = ",".join(f'{key}="{value}"' for key, value in labels.items())
    comma = "," if told else ""
    return "".join(f'{name}_bucket{{{told}{comma}le="{le}"}} {n}\n' for le, n in counts.items())


def latencies(counts: Mapping[str, float], replica: str = "r1", app: str = "s") -> str:
    return lines(
        counts,
        "ray_serve_deployment_processing_latency_ms",
        application=app,
        deployment="M",
        replica=replica,
    )


def test_the_replicas_figures_are_taken_together() -> None:
    one = of_replicas([row(), row(gates=["gpu1", "gpu0"], recent_ms=[99.0], rate_per_s=2.0)])
    assert (one.ongoing, one.queued) == (4, 2)
    assert one.p95_ms == 99.0
    assert one.gates == ("gpu0", "gpu1")
    assert one.rate_per_s is None, "one of them did not tell"
    assert one.ttft_p95_ms is None
    streams = of_replicas([row(ttft_ms=[5.0, 50.0], itl_ms=[1.0], rate_per_s=1.5)])
    assert (streams.ttft_p95_ms, streams.itl_p95_ms, streams.rate_per_s) == (50.0, 1.0, 1.5)


def test_what_a_replica_does_not_know_is_unknown_and_not_zero() -> None:
    one = of_replicas([row(queued=None), row()])
    assert one.queued is None
    assert one.ongoing == 6
    assert of_replicas([row(recent_ms=[])]).p95_ms is None
    with pytest.raises((KeyError, TypeError)):
        of_replicas([{"ongoing": 1}])


def test_handles_count_what_replicas_cannot_see() -> None:
    told = of_replicas([row()]).beside(ongoing=9.0, queued=5.6)
    assert (told.ongoing, told.queued) == (2, 7)
    silent = Stats().beside(ongoing=9.0, queued=5.6)
    assert (silent.ongoing, silent.queued) == (3, 6)


def test_metrics_fill_in_only_what_the_replicas_do_not_tell() -> None:
    seen = Seen(p95_ms=120.0, ttft_p95_ms=40.0, itl_p95_ms=9.0, rate_per_s=3.0)
    own = with_metrics(of_replicas([row(ttft_ms=[5.0])]), seen)
    assert (own.p95_ms, own.ttft_p95_ms, own.itl_p95_ms) == (30.0, 5.0, 9.0)
    assert own.source == "replicas"
    other = with_metrics(Stats(), seen)
    assert (other.p95_ms, other.rate_per_s, other.source) == (120.0, 3.0, "metrics")
    assert with_metrics(Stats(), None) == Stats()


def test_quantiles_of_few_numbers() -> None:
    assert quantile_ms([], 0.95) is None
    assert quantile_ms([7.0], 0.95) == 7.0
    assert quantile_ms([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_a_quantile_of_buckets_lies_on_a_line_within_its_bucket() -> None:
    counts = {100.0: 10.0, 200.0: 20.0, math.inf: 20.0}
    assert quantile(counts, 0.5) == 100.0
    assert quantile(counts, 0.75) == 150.0
    assert quantile({100.0: 1.0, math.inf: 20.0}, 0.95) == 100.0, "beyond the last bound"
    assert quantile({}, 0.95) is None
    assert quantile({100.0: 0.0, math.inf: 0.0}, 0.95) is None


def test_serves_text_is_read_over_replicas_and_nodes() -> None:
    text = "# HELP x\n" + latencies({"100": 1, "200": 2, "+Inf": 2})
    text += latencies({"100": 3, "200": 4, "+Inf": 5}, replica="r2") + "torn_bucket{le="
    found = added([parsed(text), parsed(latencies({"100": 1, "200": 1, "+Inf": 1}))])
    assert found[("latency", "s", "M")] == {100.0: 5.0, 200.0: 7.0, math.inf: 8.0}
    assert parsed('ray_serve_deployment_processing_latency_ms_bucket{le="x"} 1') == {}


@pytest.mark.parametrize(
    "name",
    [
        "vllm:time_to_first_token_seconds",
        "ray_vllm:time_to_first_token_seconds",
        "ray_vllm_time_to_first_token_seconds",
    ],
)
def test_vllms_text_is_read_whatever_its_prefix(name: str) -> None:
    text = lines({"0.1": 1, "0.2": 2, "+Inf": 2}, name, model_name="m")
    assert parsed(text) == {("ttft", "", ""): {100.0: 1.0, 200.0: 2.0, math.inf: 2.0}}


def test_figures_are_those_of_the_last_minute() -> None:
    metrics = Metrics()
    metrics.look([latencies({"100": 1000, "200": 1000, "+Inf": 1000})], 0.0)
    assert metrics.seen("s", "M", alone=True) is None, "one look is none"
    metrics.look([latencies({"100": 1000, "200": 1020, "+Inf": 1020})], 10.0)
    seen = metrics.seen("s", "M", alone=True)
    assert seen is not None
    assert seen.p95_ms == pytest.approx(195.0)
    assert seen.rate_per_s == 2.0
    metrics.look([latencies({"100": 1100, "200": 1120, "+Inf": 1120})], 10.0 + WINDOW_S + 1)
    seen = metrics.seen("s", "M", alone=True)
    assert seen is not None
    assert seen.p95_ms == pytest.approx(95.0), "the slow ones are older"
    assert metrics.seen("other", "M", alone=True) == Seen()


def test_what_is_in_work_and_waits_is_summed_over_processes() -> None:
    labels = 'application="s",deployment="M"'
    text = f'ray_serve_replica_processing_queries{{{labels},replica="1"}} 2\n'
    text += f'ray_serve_replica_processing_queries{{{labels},replica="2"}} 3\n'
    text += f'ray_serve_deployment_queued_queries{{{labels},handle="h"}} 7.0\n'
    text += f'ray_serve_deployment_queued_queries{{{labels},handle="g"}} torn\n'
    metrics = Metrics()
    for at_s in (0.0, 5.0):
        metrics.look([text, text], at_s)
    seen = metrics.seen("s", "M", alone=True)
    assert seen is not None
    assert (seen.ongoing, seen.queued) == (10, 14)
    told = with_metrics(Stats(ongoing=1), seen)
    assert (told.ongoing, told.queued) == (1, 14)
    other = metrics.seen("t", "M", alone=True)
    assert other is not None
    assert (other.ongoing, other.queued) == (None, None)


def test_a_replica_that_is_gone_takes_nothing_from_the_count() -> None:
    assert between({100.0: 9.0}, {100.0: 4.0, 200.0: 5.0}) == {100.0: 0.0, 200.0: 5.0}


def test_series_without_labels_belong_to_a_service_only_if_it_is_alone() -> None:
    metrics = Metrics()
    for at_s, n in ((0.0, 0), (10.0, 20)):
        text = lines({"0.1": n, "+Inf": n}, "ray_vllm:inter_token_latency_seconds")
        metrics.look([text], at_s)
    alone, one_of_two = (metrics.seen("s", "M", alone=one) for one in (True, False))
    assert alone is not None
    assert one_of_two is not None
    assert alone.itl_p95_ms == pytest.approx(95.0)
    assert one_of_two.itl_p95_ms is None


@pytest.fixture
def node() -> Iterator[Any]:
    """A node's metrics port: what its `text` says, as long as it says it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.gate.wait(5)  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.text)  # type: ignore[attr-defined]

        def log_message(self, *_: object) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.text, server.gate = b"a 1\n", threading.Event()
    server.gate.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


def test_a_nodes_text_comes_whole_in_time_and_in_bounds_or_not_at_all(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = node.server_address[1]
    assert fetched("127.0.0.1", port) == "a 1\n"
    with monkeypatch.context() as patch:
        patch.setattr(serve_metrics, "TEXT_BYTES_MAX", 3)
        assert fetched("127.0.0.1", port) is None
    monkeypatch.setattr(serve_metrics, "READ_S", 0.05)
    node.gate.clear()
    assert fetched("127.0.0.1", port) is None
    assert fetched("127.0.0.1", 1) is None


def test_a_desk_that_was_stopped_asks_nobody_any_more() -> None:
    """Serve's handles start a Ray of their own when they are used after the bridge has left."""
    asked = threading.Event()

    def handle(app: str, unit: str) -> Any:
        asked.set()
        raise RuntimeError("no such handle")

    before = {*threading.enumerate()}
    desk = StatsDesk(handle)
    desk.watch((Subject("a", "u", tells=True, running=1, streams=False),), {})
    (thread,) = {*threading.enumerate()} - before
    assert asked.wait(10)
    desk.stop()
    thread.join(10)
    assert not thread.is_alive()
