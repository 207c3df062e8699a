"""A user's own applications on a real Ray of two nodes, through the bridge, in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(240)]

bench: Any = sys.modules["ray_cluster"]  # conftest.py has loaded it
UNIT_W = 200.0
SMALL_W = 40.0

SHOP = """
import asyncio, os
from ray import serve
from wattshift_cluster.gate.hooks.serve import busy_replica

@serve.deployment
class Back:
    def suffix(self):
        return os.environ["SUFFIX"]

@serve.deployment
@busy_replica
class Front:
    def __init__(self, back):
        self.back = back

    async def __call__(self, request):
        await asyncio.sleep(0.05)
        return "answered" + await self.back.suffix.remote()

def app(args):
    return Front.bind(Back.bind())

@serve.deployment
class Sleepy:
    asleep = False

    async def __call__(self, request):
        if request.method == "POST":
            self.asleep = request.url.path.endswith("/sleep")
        return "asleep" if self.asleep else "awake"

sleepy = Sleepy.bind()

@serve.deployment
class Broken:
    def __init__(self):
        raise OSError("no weights at /models/x")

broken = Broken.bind()
"""


class Crowd:
    """Clients that ask at a steady rate, each waiting for its answer. A context manager."""

    def __init__(self, url: str, rate_per_s: float) -> None:
        self.url = url
        self.answered = 0
        self.failed: list[str] = []
        self._pause_s = 1.0 / rate_per_s
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._begin = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Crowd":
        self._begin.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more requests, and the last answers."""
        self._end.set()
        self._begin.join()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        while not self._end.wait(self._pause_s) and len(self._threads) < 2000:
            thread = threading.Thread(target=self._one, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _one(self) -> None:
        try:
            answer = httpx2.get(self.url, timeout=60)
            told = None if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
        except httpx2.HTTPError as fault:
            told = repr(fault)
        with self._lock:
            self.answered += told is None
            if told:
                self.failed.append(told[:200])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("shop")
    (folder / "wsshop.py").write_text(SHOP)
    with bench.RayCluster(folder / "cluster", nodes=2) as cluster:
        running = bench.BridgeProcess(
            folder / "bridge", ["--ray-address", cluster.address], cluster.environment
        )
        running.shop, running.cluster = folder, cluster
        running.start()
        running.until(lambda report: report["ray"]["up"], 60)
        for name in cluster.ids:
            assert running.command("set_node_power", node=name, watts_w=300)["ok"]
        # All at once: they start beside each other.
        serve(running, "wsshop:app", 1)
        for name, path in {"lost": "wsnowhere:app", "broken": "wsshop:broken"}.items():
            # Serve itself gives up after three tries, or never: it depends on how it was scaled.
            serve(running, path, 1, name, watts_per_replica_w=SMALL_W, healthy_within_s=45)
        serve(running, "wsshop:sleepy", 1, "llm", **SLEEPS)
        yield running
        if running.process.poll() is None:
            running.stop()


SLEEPS: dict[str, Any] = {"hand_over": "sleep", "watts_per_replica_w": SMALL_W}


def serve(bridge: Any, path: str, replicas: int, name: str = "svc", **more: Any) -> None:
    spec = {
        "name": name,
        "import_path": path,
        "watts_per_replica_w": UNIT_W,
        "max_replicas": 2,
        "slo_p95_ms": 60_000,
        "env": {"PYTHONPATH": str(bridge.shop), "SUFFIX": "!"},
        **more,
    }
    assert bridge.command("set_replicas", service=name, spec=spec, replicas=replicas)["ok"]


def row(report: dict[str, Any], name: str = "svc") -> dict[str, Any]:
    return next((one for one in report["services"] if one["name"] == name), {})


def free_w(report: dict[str, Any]) -> list[float]:
    return [one["power_w_available"] for one in report["nodes"]]


def serve_controllers(raylets: set[int]) -> list[int]:
    """Process ids of the Serve controllers under these raylets."""
    command = ["ps", "-eo", "pid=,ppid=,args="]
    listing = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    return [
        int(pid)
        for pid, parent, name in rows
        if name.startswith("ray::ServeController") and int(parent) in raylets
    ]


def test_applications_that_cannot_run_fail_with_their_words_and_free_their_watts(
    bridge: Any,
) -> None:
    report = bridge.until(lambda r: row(r, "lost").get("state") == "failed", 90)
    assert "no module named 'wsnowhere'" in row(report, "lost")["error"]
    report = bridge.until(lambda r: row(r, "broken").get("state") == "failed", 90)
    assert "OSError: no weights at /models/x (" in row(report, "broken")["error"]
    for name in ("lost", "broken"):
        assert bridge.command("cancel_job", job=name)["ok"]
    bridge.until(lambda r: sum(free_w(r)) == 600 - UNIT_W - SMALL_W, 60)


def test_replicas_sleep_instead_of_going_where_the_application_can(bridge: Any) -> None:
    report = bridge.until(lambda r: row(r, "llm")["running"] == 1, 60)
    url = row(report, "llm")["url"]
    serve(bridge, "wsshop:sleepy", 0, "llm", **SLEEPS)
    report = bridge.until(lambda r: row(r, "llm")["state"] == "asleep", 30)
    assert row(report, "llm")["by_node"] == {}
    assert sum(row(report, "llm")["asleep_by_node"].values()) == 1
    assert httpx2.get(url, timeout=20).text == "asleep", "the same replica"
    serve(bridge, "wsshop:sleepy", 1, "llm", **SLEEPS)
    bridge.until(lambda r: row(r, "llm")["state"] == "running", 30)
    assert httpx2.get(url, timeout=20).text == "awake"
    assert bridge.command("cancel_job", job="llm")["ok"]
    bridge.until(lambda r: sum(free_w(r)) == 600 - UNIT_W, 60)


def test_a_burst_is_told_and_a_second_replica_comes_when_the_core_allows_it(bridge: Any) -> None:
    report = bridge.until(lambda r: row(r).get("running") == 1, 90)
    one = row(report)
    assert (one["hook"], one["state"], list(one["by_node"].values())) == ("policy", "running", [1])
    assert sorted(free_w(report)) == [100.0, 300.0], "the watts are at the ingress alone"
    assert httpx2.get(one["url"], timeout=20).text == "answered!"
    with Crowd(one["url"], rate_per_s=100) as crowd:
        report = bridge.until(lambda r: (row(r)["desired"] or 0) >= 2, 30)
        assert row(report)["running"] == 1, "not before it is allowed"
        serve(bridge, "wsshop:app", 2)
        report = bridge.until(lambda r: row(r)["by_node"] == {"n0": 1, "n1": 1}, 60)
        bridge.until(lambda r: row(r)["running"] == 2 and row(r)["p95_ms"], 60)
    assert crowd.failed == []
    assert crowd.answered > 20


def test_a_replica_of_one_node_is_evicted_and_no_request_fails(bridge: Any) -> None:
    with Crowd(row(bridge.call("report"))["url"], rate_per_s=25) as crowd:
        assert bridge.command("set_node_power", node="n1", watts_w=0)["watts_w"] == UNIT_W
        assert bridge.command("evict_units", node="n1", job="svc", units=1)["ok"]
        report = bridge.until(lambda r: row(r)["by_node"] == {"n0": 1}, 30)
        report = bridge.until(lambda r: "a replica asks for 200 W" in (row(r)["error"] or ""), 30)
        assert bench.node(report, "n1")["power_w_total"] == 0
    assert crowd.failed == []
    assert crowd.answered > 5
    assert row(bridge.call("report"))["deaths"] == 0, "it was ours"


def test_a_service_cut_to_nothing_is_held_and_what_waits_is_answered_later(bridge: Any) -> None:
    with Crowd(row(bridge.call("report"))["url"], rate_per_s=10) as crowd:
        bridge.until(lambda r: row(r)["ongoing"] or row(r)["queued"], 30)
        serve(bridge, "wsshop:app", 0)
        report = bridge.until(lambda r: row(r)["held"] and row(r)["by_node"] == {}, 30)
        assert row(report)["desired"] >= 1
        before = bridge.until(lambda r: bench.node(r, "n0")["power_w_available"] == 300, 30)
        assert row(before)["starting"] == 0, "Serve must not take the free watts by itself"
        time.sleep(0.5)
        still = bridge.call("report")
        assert bench.node(still, "n0")["power_w_available"] == 300
        serve(bridge, "wsshop:app", 1)
        bridge.until(lambda r: row(r)["running"] == 1 and not row(r)["held"], 60)
    assert crowd.failed == []


def test_targets_are_put_back_after_the_serve_controller_was_killed(bridge: Any) -> None:
    assert bridge.command("set_node_power", node="n1", watts_w=300)["ok"]
    (pid,) = serve_controllers(set(bridge.cluster.pids.values()))
    os.kill(pid, signal.SIGKILL)
    serve(bridge, "wsshop:app", 2)
    bridge.until(lambda r: row(r)["running"] == 2, 90)
    assert row(bridge.call("report"))["deaths"] == 0


def test_a_replica_whose_node_was_killed_is_no_death_and_comes_back_with_the_node(
    bridge: Any,
) -> None:
    bridge.cluster.ask("kill", name="n1")
    report = bridge.until(lambda r: row(r)["by_node"] == {"n0": 1}, 60)
    assert row(report)["state"] == "running"
    report = bridge.until(lambda r: "a replica asks for 200 W" in (row(r)["error"] or ""), 30)
    assert httpx2.get(row(report)["url"], timeout=20).text == "answered!"
    bridge.cluster.ask("add", name="n1")
    report = bridge.until(lambda r: row(r)["running"] == 2, 90)
    assert row(report)["by_node"] == {"n0": 1, "n1": 1}
    assert row(report)["deaths"] == 0
    assert bridge.command("cancel_job", job="svc")["ok"]
    bridge.until(lambda r: free_w(r)[:2] == [300.0, 300.0], 30)


def test_a_bridge_that_ends_says_nothing_of_a_ray_it_has_left(bridge: Any) -> None:
    bridge.stop()
    assert "allowances.failed" not in (bridge.folder / "bridge.log").read_text()
