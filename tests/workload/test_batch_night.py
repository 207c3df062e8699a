"""Batch jobs on a real Ray of three nodes that goes wrong in ways that take long to show, in order.

A raylet hangs while its workers go on, one of a gang is killed, somebody else takes the gang's
place away, and two jobs are given one folder. No item may be lost or done twice in any of it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(240)]

bench: Any = sys.modules["ray_cluster"]  # conftest.py has loaded it

OTHER = """
import sys
from ray.util import get_placement_group, remove_placement_group
from wattshift_cluster.workload.cluster.ray_link import RayLink

RayLink(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    remove_placement_group(get_placement_group(line.strip()))
    print("removed", flush=True)
"""


@pytest.fixture(scope="module")
def bridge(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    running = bench.BridgeProcess(
        tmp_path_factory.mktemp("bridge"),
        ["--ray-address", ray_cluster.address],
        ray_cluster.environment,
    )
    running.start()
    running.until(lambda report: report["ray"]["up"], 60)
    for name in ray_cluster.ids:
        assert running.command("set_node_power", node=name, watts_w=300)["ok"]
    yield running
    running.stop()


def spec(folder: Path, count: int, **more: Any) -> dict[str, Any]:
    """A job of 10 ms per item."""
    path = folder / "items.jsonl"
    path.write_text("".join(f'"{"x" * (n % 50)}"\n' for n in range(count)))
    work = {"callable": "wattshift_cluster.workload.samples:length", "chunk_items": 10}
    return {**work, "input": str(path), "output": str(folder / "out"), "watts_w": 50.0, **more}


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next((row for row in report["jobs"] if row["job"] == name), {"by_node": None})


def wait(bridge: Any, name: str, state: str, seconds: float = 90) -> dict[str, Any]:
    return row(bridge.until(lambda r: row(r, name)["state"] == state, seconds), name)


def holds(bridge: Any, name: str, by_node: dict[str, int]) -> None:
    bridge.until(lambda r: row(r, name)["by_node"] == by_node, 40)
    bridge.until(lambda r: row(r, name)["state"] == "running", 40)


def is_whole(folder: Path, count: int) -> bool:
    lines = (folder / "out/results.jsonl").read_text().splitlines()
    wanted = [{"index": n, "output": n % 50} for n in range(count)]
    return [json.loads(line) for line in lines] == wanted


@pytest.fixture
def somebody_else(ray_cluster: Any) -> Iterator[Any]:
    """Another driver, connected before it is needed; takes a placement group away by its name."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, ray_cluster.address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | ray_cluster.environment,
    ) as driver:  # fmt: skip
        try:
            yield driver
        finally:
            driver.kill()


def said(driver: Any, word: str) -> bool:
    return bool(driver.stdout.readline() == f"{word}\n")


def workers(raylet: int) -> list[int]:
    """Process ids of the batch workers of a raylet."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(raylet)]
    listing = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows = [line.split(None, 1) for line in listing.stdout.splitlines()]
    return [int(pid) for pid, words in rows if words.startswith("ray::BatchWorker")]


def test_workers_behind_a_raylet_that_hangs_do_no_item_twice(
    bridge: Any, ray_cluster: Any, tmp_path: Path
) -> None:
    work = spec(tmp_path, 3000)
    bridge.command("start_job", job="a", spec=work, nodes={"n1": 1, "n2": 1})
    holds(bridge, "a", {"n1": 1, "n2": 1})
    bridge.until(lambda _: workers(ray_cluster.pids["n2"]), 20)
    (left,) = workers(ray_cluster.pids["n2"])
    ray_cluster.ask("hang", name="n2")
    bridge.until(lambda r: not bench.node(r, "n2")["alive"], 40)
    assert Path(f"/proc/{left}").exists(), "Ray cannot end what it cannot reach"
    bridge.command("start_job", job="a", spec=work, nodes={"n1": 2})
    holds(bridge, "a", {"n1": 2})
    wait(bridge, "a", "completed")
    assert is_whole(tmp_path, 3000)
    before = (tmp_path / "out/results.jsonl").read_bytes()
    ray_cluster.ask("wake", name="n2")
    bridge.until(lambda _: not Path(f"/proc/{left}").exists(), 40)
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_a_gang_comes_back_whole_after_a_kill_and_after_its_place_was_taken(
    bridge: Any, ray_cluster: Any, somebody_else: Any, tmp_path: Path
) -> None:
    assert said(somebody_else, "ready")
    work = spec(tmp_path, 2000, gang=True, workers=2)
    bridge.command("start_job", job="g", spec=work, nodes={"n0": 2})
    holds(bridge, "g", {"n0": 2})
    bridge.until(lambda _: len(workers(ray_cluster.pids["n0"])) == 2, 20)
    first = workers(ray_cluster.pids["n0"])
    os.kill(first[1], signal.SIGKILL)
    bridge.until(lambda _: len({*workers(ray_cluster.pids["n0"])} - {*first}) == 1, 40)
    somebody_else.stdin.write("gang:g\n")
    somebody_else.stdin.flush()
    assert said(somebody_else, "removed")
    ended = wait(bridge, "g", "completed")
    assert (ended["done"], ended["error"]) == (2000, None)
    assert is_whole(tmp_path, 2000)
    bridge.until(lambda r: bench.node(r, "n0")["power_w_available"] == 300, 20)


def test_of_two_jobs_with_one_folder_one_is_done_and_the_other_told_so(
    bridge: Any, tmp_path: Path
) -> None:
    work = spec(tmp_path, 200)
    for name in ("x", "y"):
        bridge.command("start_job", job=name, spec=work, nodes={"n0": 1})

    def over(report: dict[str, Any]) -> bool:
        return {row(report, name).get("state") for name in ("x", "y")} == {"completed", "failed"}

    report = bridge.until(over, 60)
    first, second = sorted("xy", key=lambda name: row(report, name)["state"])
    assert f"holds the output of job {first}; name" in row(report, second)["error"]
    assert is_whole(tmp_path, 200)
