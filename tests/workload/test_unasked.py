"""Unasked work: CPU time of a raylet's descendants, and who of them asked for watts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wattshift_cluster.workload.cluster.meters import SILENT_S, Meters, Reading
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.cluster.unasked import (
    Actor,
    Rates,
    Sampler,
    Unasked,
    Usage,
    judged,
    processes,
    raylets,
)

RATES = Rates(per_core_w=10.0, per_gpu_w=200.0)
RAYLET = 10


def actor(pid: int, kind: str, name: str = "", **resources: float) -> Actor:
    return Actor("n", pid, kind, name, resources)


def test_what_asked_for_watts_does_not_count_and_the_rest_is_named() -> None:
    usages = [
        Usage(RAYLET, "/opt/raylet", 0.1),
        Usage(11, "ray::Foo", 1.0),
        Usage(12, "ray::ServeReplica:embed:Embedder", 0.8),
        Usage(13, "ray::ServeController", 0.2),
        Usage(14, "ray::f", 0.5),
        Usage(15, "ray::DashboardAgent", 0.05),
        Usage(16, "ray::IDLE", 0.0),
        Usage(17, "ray::NodeMeter", 0.03),
        Usage(18, "ray::BatchWorker", 1.0),
        Usage(19, "ray::Idle", 0.0),
    ]
    actors = {
        one.pid: one
        for one in (
            actor(11, "Foo", CPU=1.0),
            actor(12, "ServeReplica:embed:Embedder", power_w=60.0),
            actor(13, "ServeController", "SERVE_CONTROLLER_ACTOR"),
            actor(17, "NodeMeter", "meter:n0"),
            # In a placement group, the resource carries the group's name.
            actor(18, "BatchWorker", "batch:j:0", power_w_group_0_ab=50.0),
            actor(19, "Trainer", GPU=1.0),
        )
    }
    found = judged(usages, RAYLET, actors, RATES)
    assert found.watts_w == pytest.approx(215.0)
    assert found.system_w == pytest.approx(3.8), "Ray's own could not have asked"
    assert found.quality == "estimated"
    assert found.what == (
        "actor Trainer 0.0 CPU 1 GPU: 200 W",
        "actor Foo 1.0 CPU: 10 W",
        "task f 0.5 CPU: 5 W",
        "Ray Serve's ServeController 0.2 CPU: 2 W",
        "Ray's raylet 0.1 CPU: 1 W",
        "Ray's DashboardAgent 0.1 CPU: 0 W",
        "wattshift's meter 0.0 CPU: 0 W",
    )
    many = [Usage(pid, f"ray::t{pid}", 0.5) for pid in range(100, 140)]
    crowd = judged(many, RAYLET, {}, RATES)
    assert len(crowd.what) == 16
    assert crowd.watts_w == pytest.approx(200.0), "all count, if not all are named"
    idle = judged([Usage(7, "ray::IDLE", 1.0)], RAYLET, {}, RATES)
    assert (idle.watts_w, idle.system_w) == (0.0, 10.0), "a worker that starts is nobody's work yet"
    assert Unasked().watts_w is None, "no reading is not nothing"


def test_a_meter_that_has_gone_silent_makes_a_node_unknown() -> None:
    node = Node("n", "n1", True, False, {}, 0.0, 300.0, 300.0)
    meters = Meters(RATES, lambda: [actor(11, "Fed", power_w=60.0)])
    assert meters.of(node).watts_w is None
    meters._readings["n"] = Reading(
        RAYLET, [Usage(RAYLET, "raylet", 1.0), Usage(11, "ray::Fed", 1.0)], 100.0
    )
    meters.judge(100.0 + SILENT_S)
    assert (meters.of(node).watts_w, meters.of(node).system_w) == (0.0, 10.0)
    meters.judge(100.1 + SILENT_S)
    assert (meters.of(node).watts_w, meters.of(node).quality) == (None, "unknown")


BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
"""


def test_cpu_time_is_that_of_a_raylets_children_with_all_their_descendants() -> None:
    """This process stands in for the raylet: its child idles while a grandchild computes."""
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    sampler = Sampler()
    assert sampler.look([os.getpid()], time.monotonic()) is None, "one look is no rate"
    time.sleep(0.4)
    found = sampler.look([os.getpid(), 2**22 + 1], time.monotonic())
    child.stdin.close()
    child.wait(10)
    assert found is not None
    assert set(found) == {os.getpid()}
    usages = {usage.pid: usage for usage in found[os.getpid()]}
    assert os.getpid() in usages, "the raylet itself counts"
    assert 0.05 < usages[child.pid].cores < 1.5
    assert usages[child.pid].title == sys.executable


def test_a_raylet_seen_for_the_first_time_gives_no_rate_yet() -> None:
    sampler = Sampler()
    sampler.look([], 0.0)
    found = sampler.look([os.getpid()], 1.0)
    assert found == {}, "its whole life's CPU time is not that of one second"


def test_raylets_are_found_by_the_node_id_on_their_command_line(tmp_path: Path) -> None:
    def process(pid: int, words: list[str], stat: str) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join(words).encode())
        (tmp_path / str(pid) / "stat").write_text(stat)

    after = " ".join(["S", "1", *["0"] * 9, "250", "50", "0", "0", "0"])
    process(100, ["/x/raylet", "--raylet_socket_name=/s", "--node_id=abc"], f"100 (raylet) {after}")
    process(101, ["python", "--node_id=def"], f"101 (py) {after}")
    process(102, ["ray::odd) name ("], f"102 (ray::odd) name () {after}")
    process(103, [], "103 (brok")
    (tmp_path / "self").mkdir()
    table = processes(tmp_path)
    assert set(table) == {100, 101, 102}
    assert (table[102].parent, table[102].cpu_s) == (1, 300 / os.sysconf("SC_CLK_TCK"))
    assert raylets(table, tmp_path) == {"abc": 100}
