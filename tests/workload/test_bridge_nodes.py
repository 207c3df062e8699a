"""One bridge on a real Ray of three nodes: watts of each, nodes that go and come, unasked work,
drain, and what is left behind when nobody is left. The tests build on each other, in order.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

bench: Any = sys.modules["ray_cluster"]  # conftest.py has loaded it
node = bench.node

PURGE = [sys.executable, "-m", "wattshift_cluster.workload.cluster.purge"]


@pytest.fixture(scope="module")
def bridge(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    arguments = ["--ray-address", ray_cluster.address, "--watts-per-core", "20"]
    running = bench.BridgeProcess(
        tmp_path_factory.mktemp("bridge"), arguments, ray_cluster.environment
    )
    running.start()
    running.until(lambda report: report["ray"]["up"], 60)
    yield running
    if running.process.poll() is None:
        running.stop()


class Driver:
    """A driver of somebody else: a Python program fed line by line, that answers in JSON."""

    def __init__(self, cluster: Any) -> None:
        environment = os.environ | cluster.environment
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, expression: str) -> Any:
        """The value of a Python expression in the driver."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression.replace("\n", " ") + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise AssertionError("the driver ended")

    def close(self) -> None:
        """End it; what is detached stays."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


DRIVER = """
import json, sys, time
import ray
from ray.util.placement_group import placement_group, placement_group_table
from wattshift_cluster.workload.cluster.meters import Meters, living_actors
from wattshift_cluster.workload.cluster.nodes import Inventory
from wattshift_cluster.workload.cluster.power_keeper import Hold
from wattshift_cluster.workload.cluster.purge import purge
from wattshift_cluster.workload.cluster.ray_link import RayLink
from wattshift_cluster.workload.cluster.unasked import Rates

link = RayLink(sys.argv[1])
kept = []

class Burner:
    def burn(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(10000))
        return True

def place(name, node, namespace="wattshift", burn=0.0, **resources):
    actor = ray.remote(Burner).options(
        name=name, namespace=namespace, lifetime="detached", num_cpus=0, resources=resources,
        label_selector={"wattshift.io/node": node},
    ).remote()
    kept.append(actor.burn.remote(burn) if burn else ray.get(actor.burn.remote(0)))
    return True

def group(name, watts_w):
    made = placement_group([{"power_w": watts_w}], name=name, lifetime="detached")
    return made.wait(20)

def actors():
    return sorted(actor.name for actor in living_actors() if actor.name)

def groups():
    return sorted(row["name"] for row in placement_group_table().values()
                  if row["state"] == "CREATED")

def metered(name, word, seconds):
    meters = Meters(Rates(20.0, 0.0), living_actors, look_here=False)
    nodes = Inventory("x").look(link.look())
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        meters.turn(nodes)
        found = meters.of(nodes[name])
        if any(word in text for text in found.what):
            break
        time.sleep(0.2)
    return [found.watts_w, found.what]

def held(name):
    seen = Inventory("x").look(link.look())[name]
    hold, told = Hold(seen.id, seen.power_w_total, name), []
    for watts_w in (120.0, 250.0):
        for _ in range(150):
            free_w = Inventory("x").look(link.look())[name].power_w_available
            if hold.set(watts_w) == watts_w and free_w == watts_w:
                break
            time.sleep(0.1)
        told.append(free_w)
    again = Hold(seen.id, seen.power_w_total, name)
    for _ in range(150):
        free_w = Inventory("x").look(link.look())[name].power_w_available
        if again.set(200.0) == 200.0 and free_w == 200.0:
            break
        time.sleep(0.1)
    return [*told, free_w]

for line in sys.stdin:
    print("answer " + json.dumps(eval(line)), flush=True)
"""


@pytest.fixture(scope="module")
def driver(ray_cluster: Any) -> Iterator[Driver]:
    other = Driver(ray_cluster)
    yield other
    other.close()


def test_every_node_is_named_and_none_has_watts_that_nobody_granted(
    bridge: Any, ray_cluster: Any
) -> None:
    report = bridge.until(
        lambda r: [row["power_w_total"] for row in r["nodes"]] == [0.0, 0.0, 0.0], 10
    )
    assert {row["name"]: row["id"] for row in report["nodes"]} == ray_cluster.ids
    assert report["nodes"][0]["name"] == "n0", "the driver's own comes first"
    assert report["node"]["id"] == ray_cluster.ids["n0"]
    assert (report["ray"]["resize"], report["ray"]["release"][:2]) == ("internal", "2.")
    assert report["nodes"][1]["labels"]["wattshift.io/node"] == "n1"


def test_watts_of_all_nodes_are_set_at_once_each_its_own(bridge: Any) -> None:
    watts_w = {"n0": 250.0, "n1": 200.0, "n2": 150.5}
    commands: list[dict[str, Any]] = [
        {"id": n, "kind": "set_node_power", "node": name, "watts_w": watts_w[name]}
        for n, name in enumerate(watts_w)
    ]
    commands.append({"id": 7, "kind": "set_node_power", "node": "n9", "watts_w": 5})
    commands.append({"id": 8, "kind": "set_node_power", "watts_w": 260})
    results = bridge.call("apply", commands=commands)["results"]
    assert [row["ok"] for row in results] == [False, True, True, False, True]
    assert results[0]["error"] == "overtaken by a later command", "n0 is the driver's own node"
    assert "n9 is not in this Ray" in results[3]["error"]
    assert [row.get("watts_w") for row in results[1:3]] == [200.0, 150.5]
    bridge.until(
        lambda r: [row["power_w_available"] for row in r["nodes"]] == [260.0, 200.0, 150.5], 10
    )


def test_a_report_waits_for_news_and_comes_with_them(bridge: Any) -> None:
    first = bridge.call("report")
    began = time.monotonic()
    same = bridge.call("report", after=first["version"], wait_s=0.4)
    if same["version"] == first["version"]:
        assert time.monotonic() - began >= 0.4
    process = subprocess.Popen(
        [sys.executable, "-c", NEWS, str(bridge.port), str(bridge.folder / "token"),
         str(same["version"])],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    bridge.command("set_node_power", node="n1", watts_w=199)
    told = json.loads(process.stdout.readline())
    process.wait(10)
    assert told["version"] > same["version"]


def test_batch_workers_sit_where_they_are_told_and_a_gang_wholly_or_not_at_all(
    bridge: Any, tmp_path: Path
) -> None:
    def spec(name: str, watts_w: float, **more: Any) -> dict[str, Any]:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f'"{"x" * n}"\n' for n in range(300)))
        work = {"callable": "wattshift_cluster.workload.samples:length", "chunk_items": 10}
        return {**work, "input": str(path), "output": f"{path}-out", "watts_w": watts_w, **more}

    def row(report: dict[str, Any], name: str) -> dict[str, Any]:
        return next((row for row in report["jobs"] if row["job"] == name), {"by_node": None})

    one = spec("one", 70.0)
    bridge.command("start_job", job="one", spec=one, nodes={"n1": 1, "n2": 1})
    bridge.until(lambda r: row(r, "one")["by_node"] == {"n1": 1, "n2": 1}, 40)
    free_w = {"n0": 260.0, "n1": 129.0, "n2": 80.5}
    bridge.until(lambda r: {n["name"]: n["power_w_available"] for n in r["nodes"]} == free_w, 10)
    bridge.command("start_job", job="one", spec=one, nodes={"n2": 1})
    bridge.until(lambda r: row(r, "one")["by_node"] == {"n2": 1}, 20)
    assert bridge.command("evict_units", node="n2", job="one", units=1)["ok"]
    bridge.until(lambda r: row(r, "one")["state"] == "paused" and not row(r, "one")["by_node"], 20)

    wide = spec("wide", 100.0, gang=True, workers=3)
    bridge.command("start_job", job="wide", spec=wide, nodes={"n1": 2, "n2": 1})
    report = bridge.until(lambda r: row(r, "wide").get("error"), 10)
    words = "a gang of 3 waits for its place: n1: 199 W free, its 2 workers ask for 200 W"
    assert row(report, "wide")["error"] == words
    assert row(report, "wide")["by_node"] == {}
    bridge.command("cancel_job", job="wide")
    fits = spec("fits", 60.0, gang=True, workers=3)
    bridge.command("start_job", job="fits", spec=fits, nodes={"n1": 2, "n2": 1})
    bridge.until(lambda r: row(r, "fits")["by_node"] == {"n1": 2, "n2": 1}, 20)
    report = bridge.until(lambda r: row(r, "fits")["state"] == "completed", 60)
    results = (tmp_path / "fits.jsonl-out/results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in results] == [{"index": n, "output": n} for n in range(300)]
    bridge.until(lambda r: node(r, "n1")["power_w_available"] == 199.0, 20)


NEWS = """
import asyncio, json, sys, time
from pathlib import Path
from wattshift_cluster.wire.link import Link
from wattshift_cluster.wire.token import read_token

async def main():
    link = Link("127.0.0.1", int(sys.argv[1]), read_token(Path(sys.argv[2])), deadline_s=5)
    print("asking", flush=True)
    report = await link.call("report", after=int(sys.argv[3]), wait_s=2)
    print(json.dumps({"version": report["version"]}), flush=True)
    await link.close()

asyncio.run(main())
"""


def test_work_that_asks_for_no_watts_is_seen_and_named(
    bridge: Any, driver: Driver, ray_cluster: Any
) -> None:
    assert driver.ask("place('burner', 'n1', 'theirs', burn=60.0)")
    assert driver.ask("place('batch:fed:0', 'n1', burn=60.0, power_w=50.0)")

    def seen(report: dict[str, Any]) -> bool:
        return any(text.startswith("actor Burner") for text in node(report, "n1")["unasked"])

    report = bridge.until(seen, 30)
    row = node(report, "n1")
    assert row["unasked_quality"] == "estimated"
    assert row["unasked_w"] > 1
    assert sum(text.startswith("actor Burner") for text in row["unasked"]) == 1, (
        "the one that asked for watts is not unasked"
    )
    assert not any("Burner" in text for text in node(report, "n2")["unasked"])
    # And so by the actor, where the bridge cannot see the node's processes.
    watts_w, what = driver.ask("metered('n1', 'actor Burner', 30.0)")
    assert watts_w > 1
    assert sum(text.startswith("actor Burner") for text in what) == 1
    assert "meter:n1" in driver.ask("actors()")


def test_a_node_that_is_killed_is_told_and_its_successor_gets_its_watts(
    bridge: Any, ray_cluster: Any
) -> None:
    old = ray_cluster.ids["n1"]
    ray_cluster.ask("kill", name="n1")
    report = bridge.until(lambda r: not node(r, "n1")["alive"], 20)
    assert node(report, "n1")["power_w_total"] is None
    assert node(report, "n1")["unasked_w"] is None, "unknown, not none"
    assert report["ray"]["up"]
    row = bridge.command("set_node_power", node="n1", watts_w=77)
    assert not row["ok"]
    assert "gone from Ray" in row["error"]
    ray_cluster.ask("add", name="n1")
    report = bridge.until(lambda r: node(r, "n1")["alive"], 20)
    assert node(report, "n1")["id"] != old
    bridge.until(lambda r: node(r, "n1")["power_w_available"] == 77.0, 10)


def test_a_control_store_that_starts_again_loses_nothing(
    bridge: Any, ray_cluster: Any, driver: Driver
) -> None:
    if not bench.gcs_on_disk():
        pytest.skip("this Ray keeps no control store on disk")
    pid = bridge.process.pid
    ray_cluster.ask("restart_gcs")
    assert bridge.command("set_node_power", node="n2", watts_w=140)["id"]
    bridge.until(lambda r: node(r, "n2")["power_w_total"] == 140.0, 20)
    bridge.until(lambda r: node(r, "n2")["power_w_available"] == 140.0, 20)
    assert bridge.process.pid == pid
    assert bridge.process.poll() is None


def test_without_the_resize_call_a_placement_group_holds_watts_back(
    bridge: Any, driver: Driver
) -> None:
    """The last of the three is another bridge, which must not add its hold to the first one's."""
    bridge.command("set_node_power", node="n1", watts_w=300)
    bridge.until(lambda r: node(r, "n1")["power_w_available"] == 300.0, 10)
    assert driver.ask("held('n1')") == [120.0, 250.0, 200.0]


def test_a_drained_node_is_told_as_such_with_no_way_back(bridge: Any, driver: Driver) -> None:
    answer = bridge.call("drain", node="n2", within_s=60)
    assert "no way back" in answer["note"]
    bridge.until(lambda r: node(r, "n2")["draining"], 10)
    row = bridge.command("drain_node", node="n9")
    assert not row["ok"]
    assert "n9" in row["error"]


@pytest.mark.nightly
def test_a_node_that_hangs_holds_up_no_other(bridge: Any, ray_cluster: Any) -> None:
    ray_cluster.ask("hang", name="n2")
    commands = [
        {"id": 1, "kind": "set_node_power", "node": "n2", "watts_w": 100},
        {"id": 2, "kind": "set_node_power", "node": "n1", "watts_w": 250},
    ]
    hung, well = bridge.call("apply", commands=commands)["results"]
    assert well["ok"], well
    assert not hung["ok"], "nobody knows whether it has them"
    bridge.until(lambda r: not node(r, "n2")["alive"], 30)
    ray_cluster.ask("wake", name="n2")


@pytest.mark.nightly
def test_purge_takes_what_is_ours_and_nothing_else(
    bridge: Any, ray_cluster: Any, driver: Driver
) -> None:
    """With the bridge killed, as after a machine that went down with the controller."""
    driver.ask("place('batch:lost:0', 'n0', power_w=50.0)")
    driver.ask("place('batch:not-ours', 'n0', 'theirs')")
    driver.ask("group('gang:lost', 10.0)")
    driver.ask("group('theirs', 10.0)")
    driver.ask("link.keep('wattshift:allow:gone', b'{}')")
    driver.ask("link.keep('theirs', b'1')")
    bridge.process.kill()
    bridge.process.wait(10)
    would = driver.ask("purge(dry_run=True)")
    assert would["dry_run"]
    done = subprocess.run(
        [*PURGE, "--address", ray_cluster.address],
        stdout=subprocess.PIPE,
        env=os.environ | ray_cluster.environment,
        check=True,
        timeout=60,
    )
    did = json.loads(done.stdout)
    assert would["found"] == did["found"], "a dry run ends nothing"
    names = {(row["kind"], row["name"]) for row in did["found"]}
    assert {("actor", "batch:lost:0"), ("placement group", "gang:lost"),
            ("placement group", "wattshift-power-hold:n1"),
            ("key", "wattshift:allow:gone")} <= names  # fmt: skip
    assert not any("theirs" in name or "not-ours" in name for _, name in names)
    assert did["left"] == []
    assert driver.ask("actors()") == ["batch:not-ours"]
    assert driver.ask("groups()") == ["theirs"]
    assert driver.ask("purge(dry_run=True)")["found"] == []
