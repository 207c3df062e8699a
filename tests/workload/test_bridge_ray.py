"""The bridge as a process of its own with a real Ray: watts, a service, batch jobs, and kills.

One Ray for the whole file; the tests build on each other in the order written.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from wattshift_cluster.gate.clients import create_clients_file
from wattshift_cluster.workload.cluster.session import living

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

UNIT_W = 60.0
SERVICE = "service-embed"


bench: Any = sys.modules["ray_cluster"]  # conftest.py has loaded it
BridgeProcess: Any = bench.BridgeProcess


class Site(BridgeProcess):  # type: ignore[misc]
    """A bridge with a Ray of its own, and gates beside it."""

    def __init__(self, folder: Path) -> None:
        self.gates = folder / "gates"
        self.gates.mkdir()
        create_clients_file(self.gates / "cpu0.clients")
        arguments = ["--power-w", "300", "--num-cpus", "2", "--gate-dir", str(self.gates)]
        if bench.gcs_on_disk():
            arguments += ["--gcs-storage", str(folder / "gcs")]
        super().__init__(folder, arguments)

    def host_pid(self) -> int:
        pid: int = json.loads((self.folder / "state/ray.json").read_text())["pid"]
        return pid

    def scale(self, replicas: int) -> dict[str, Any]:
        spec = {
            "name": "embed",
            "import_path": "wattshift_cluster.inference.app:app",
            "watts_per_replica_w": UNIT_W,
            "scaling": "external",  # so many replicas, whatever the load is
        }
        row: dict[str, Any] = self.command(
            "set_replicas", service=SERVICE, spec=spec, replicas=replicas
        )
        return row

    def items(self, name: str, count: int) -> dict[str, Any]:
        """The specification of a slow little job: 10 ms per item."""
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": "y" * n}) + "\n" for n in range(count)))
        return {
            "callable": "wattshift_cluster.workload.samples:length",
            "input": str(path),
            "output": str(self.folder / f"{name}-out"),
            "watts_w": 50.0,
            "chunk_items": 20,
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pytest.importorskip("ray")
    running = Site(tmp_path_factory.mktemp("site"))
    running.start()
    running.until(lambda report: report["ray"]["up"], 60)
    yield running
    assert running.process is not None
    running.process.send_signal(signal.SIGTERM)
    try:
        running.process.wait(30)
    finally:
        running.process.kill()


def service(report: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in report["services"] if row["name"] == SERVICE)
    return row


def job(report: dict[str, Any], name: str) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in report["jobs"] if row["job"] == name)
    return row


def ray_processes(site: Site) -> set[int]:
    """The host of this site's Ray and all its descendants."""
    listing = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True
    )
    pairs = [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    found = {site.host_pid()}
    while more := {pid for pid, parent in pairs if parent in found} - found:
        found |= more
    return found


def called(site: Site, name: bytes) -> list[int]:
    """Process ids of this site's actors of one class, as the kernel knows them."""
    return [
        pid
        for pid in ray_processes(site)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::" + name)
    ]


def worker_of(site: Site) -> list[int]:
    """Process ids of this site's batch workers."""
    return called(site, b"BatchWorker")


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def results(spec: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(spec["output"]) / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_watts_are_resized_and_everything_listens_on_loopback(site: Site) -> None:
    report = site.until(lambda r: r["node"]["power_w_total"] == 300, 5)
    assert report["ray"]["address"].startswith("127.0.0.1:")
    for watts_w in (120.5, 400.0, 0.0, 300.0):
        row = site.command("set_node_power", watts_w=watts_w)
        assert row["ok"], row
        assert row["watts_w"] == watts_w
        site.until(lambda r, w=watts_w: r["node"]["power_w_available"] == w, 5)
    listing = subprocess.run(["ss", "-ltnpH"], stdout=subprocess.PIPE, text=True, check=True)
    processes = ray_processes(site)
    ours = [
        line.split()[3]
        for line in listing.stdout.splitlines()
        if {int(part.split(",")[0]) for part in line.split("pid=")[1:]} & processes
    ]
    assert ours
    assert all("127.0.0.1" in address for address in ours), ours


def test_a_control_store_that_dies_is_started_again_and_nothing_is_lost(site: Site) -> None:
    if not bench.gcs_on_disk():
        pytest.skip("this Ray keeps no control store on disk")
    host = site.host_pid()
    killed = [
        pid
        for pid in ray_processes(site)
        if b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    ]
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    row = site.command("set_node_power", watts_w=290)
    site.until(lambda r: r["node"]["power_w_total"] == 290, 20)
    assert row["id"]
    assert site.command("set_node_power", watts_w=300)["ok"]
    site.until(lambda r: r["ray"]["up"] and r["node"]["power_w_available"] == 300, 10)
    assert site.host_pid() == host
    assert site.process is not None
    assert site.process.poll() is None


def test_a_service_comes_up_answers_and_keeps_to_its_watts(site: Site) -> None:
    assert site.scale(1)["ok"]
    report = site.until(lambda r: r["services"] and service(r)["running"] == 1, 60)
    assert report["node"]["power_w_available"] == 300 - UNIT_W
    url = service(report)["url"]
    with httpx2.Client(timeout=20) as client:
        answer = client.post(url, json={"texts": ["watts for words", "and for more words"]})
        assert answer.status_code == 200
        assert [len(row) for row in answer.json()["embeddings"]] == [384, 384]
        assert client.post(url, json={"texts": 1}).status_code == 400
    report = site.until(lambda r: service(r)["p95_ms"] is not None, 10)
    assert 0 < service(report)["p95_ms"] < 20_000
    assert service(report)["state"] == "running"
    assert service(report)["gates"] == ["cpu0"]
    (replica,) = called(site, b"ServeReplica")
    assert site.process is not None
    assert niceness(replica) == niceness(site.process.pid), "inference comes first"
    assert site.scale(0)["ok"]
    site.until(lambda r: r["node"]["power_w_available"] == 300, 20)


@pytest.mark.nightly
def test_replicas_beyond_the_watts_wait_with_the_reason_and_come_with_them(site: Site) -> None:
    assert site.scale(1)["ok"]
    site.until(lambda r: service(r)["running"] == 1, 60)
    assert site.command("set_node_power", watts_w=UNIT_W + 10)["watts_w"] == UNIT_W + 10
    site.until(lambda r: r["node"]["power_w_available"] == 10, 5)
    assert site.scale(2)["ok"]
    report = site.until(lambda r: service(r)["error"], 10)
    assert "a replica asks for 60 W" in service(report)["error"]
    time.sleep(1)
    assert service(site.call("report"))["running"] == 1
    assert site.command("set_node_power", watts_w=300)["ok"]
    site.until(lambda r: service(r)["running"] == 2 and not service(r)["error"], 40)


@pytest.mark.nightly
def test_a_shrink_below_use_tells_the_clamp_and_follows_the_replicas_down(site: Site) -> None:
    row = site.command("set_node_power", watts_w=40)
    assert row["ok"]
    assert row["watts_w"] == 2 * UNIT_W
    assert site.scale(0)["ok"]
    began = time.monotonic()
    report = site.until(lambda r: r["node"]["power_w_total"] == 40, 20)
    assert time.monotonic() - began < 10
    assert service(report)["target"] == 0
    site.command("set_node_power", watts_w=300)


def test_a_batch_job_pauses_resumes_and_survives_the_kill_of_its_worker(site: Site) -> None:
    spec = site.items("corpus", 600)
    assert site.command("start_job", job="corpus", spec=spec)["ok"]
    report = site.until(lambda r: (job(r, "corpus")["done"] or 0) >= 40, 40)
    assert job(report, "corpus")["state"] == "running"
    assert job(report, "corpus")["total"] == 600
    assert [niceness(pid) for pid in worker_of(site)] == [19], "batch work gives way"

    assert site.command("pause_job", job="corpus")["ok"]
    site.until(lambda r: job(r, "corpus")["state"] == "paused", 10)
    paused = site.until(lambda r: r["node"]["power_w_available"] == 300, 5)
    time.sleep(0.5)
    still = site.call("report")
    assert job(still, "corpus")["done"] == job(paused, "corpus")["done"] < 600

    assert site.command("start_job", job="corpus", spec=spec)["ok"]
    before = job(paused, "corpus")["done"]
    site.until(lambda r: job(r, "corpus")["done"] > before, 30)
    workers = worker_of(site)
    assert len(workers) == 1
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    report = site.until(lambda r: job(r, "corpus")["state"] == "completed", 60)
    assert job(report, "corpus")["done"] == 600
    assert results(spec) == [{"index": n, "output": n} for n in range(600)]
    site.until(lambda r: r["node"]["power_w_available"] == 300, 5)


def test_a_killed_bridge_leaves_its_work_running_and_finds_it_again(site: Site) -> None:
    spec = site.items("second", 900)
    assert site.scale(1)["ok"]
    assert site.command("start_job", job="second", spec=spec)["ok"]
    site.until(lambda r: (job(r, "second")["done"] or 0) >= 20, 40)
    report = site.until(lambda r: service(r)["running"] == 1, 40)
    url, workers, host = service(report)["url"], worker_of(site), site.host_pid()
    assert site.process is not None
    site.process.kill()
    site.process.wait(10)
    assert httpx2.post(url, json={"texts": ["still here"]}, timeout=10).status_code == 200
    done = len(list((Path(spec["output"]) / "chunks").iterdir()))
    site.start()
    report = site.until(lambda r: r["ray"]["up"] and r["services"], 30)
    assert site.host_pid() == host
    assert len(list((Path(spec["output"]) / "chunks").iterdir())) > done
    site.until(lambda r: service(r)["running"] == 1, 15)
    report = site.until(lambda r: job(r, "second")["state"] in ("running", "completed"), 15)
    if job(report, "second")["state"] == "running":
        assert worker_of(site) == workers
    site.until(lambda r: job(r, "second")["state"] == "completed", 60)
    assert results(spec) == [{"index": n, "output": n} for n in range(900)]
    assert job(site.call("report"), "corpus")["state"] == "completed"


def test_a_cancelled_job_keeps_what_it_wrote_and_frees_its_watts(site: Site) -> None:
    spec = site.items("third", 900)
    site.command("start_job", job="third", spec=spec)
    site.until(lambda r: (job(r, "third")["done"] or 0) >= 20, 40)
    assert site.command("cancel_job", job="third")["ok"]
    report = site.until(lambda r: job(r, "third")["state"] == "cancelled", 10)
    assert 0 < job(report, "third")["done"] < 900
    assert not site.command("start_job", job="third", spec=spec)["ok"]
    assert not site.command("start_job", job="x", spec={**spec, "watts_w": 1})["ok"]
    assert site.command("cancel_job", job=SERVICE)["ok"]
    site.until(lambda r: not r["services"] and job(r, SERVICE)["state"] == "cancelled", 15)
    site.until(lambda r: r["node"]["power_w_available"] == 300, 20)


def test_a_job_whose_callable_is_missing_fails_with_the_reason(site: Site) -> None:
    spec = {**site.items("fourth", 5), "callable": "wattshift_cluster.workload.samples:nothing"}
    site.command("start_job", job="fourth", spec=spec)
    report = site.until(lambda r: job(r, "fourth")["state"] == "failed", 40)
    assert "nothing" in job(report, "fourth")["error"]


def test_a_ray_that_is_killed_is_told_and_started_again(site: Site) -> None:
    assert site.command("set_node_power", watts_w=170)["ok"]
    old = site.host_pid()
    os.kill(old, signal.SIGKILL)
    site.until(lambda r: not r["ray"]["up"], 30)
    site.until(lambda r: r["ray"]["up"], 60)
    assert site.host_pid() != old
    # Not the 300 W of the command line: what was cut stays cut.
    assert site.call("report")["node"]["power_w_total"] == 170
    assert job(site.call("report"), "corpus")["state"] == "completed"


def test_a_sigterm_ends_the_bridge_and_its_ray_with_a_service_at_once(site: Site) -> None:
    assert site.process is not None
    assert site.scale(1)["ok"]
    site.until(lambda r: r["services"] and service(r)["running"] == 1, 60)
    host = site.host_pid()
    assert len(living(host)) > 6
    short = hashlib.sha256(str((site.folder / "state").resolve()).encode()).hexdigest()[:8]
    assert Path(f"/tmp/ws-{os.getuid()}-{short}").is_dir()
    began = time.monotonic()
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(20) == 0
    took = time.monotonic() - began
    # Nothing ends by itself afterwards: all of it is gone when the bridge is.
    assert living(host) == []
    assert not Path(f"/tmp/ws-{os.getuid()}-{short}").exists()
    log = (site.folder / "bridge.log").read_text()
    assert "ray_host.killed" not in log, log[-2000:]
    assert took < 10  # 5 s at most on a machine of its own
