"""What the bridge takes, refuses and reports, with no Ray at all: over the real wire."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.errors import ConfigInvalid, TryLater
from wattshift_cluster.wire import server
from wattshift_cluster.wire.link import Link
from wattshift_cluster.workload.bridge import Bridge
from wattshift_cluster.workload.engine import Engine, EngineSettings
from wattshift_cluster.workload.local_ray import take_lock, temp_dir
from wattshift_cluster.workload.power_keeper import PowerKeeper
from wattshift_cluster.workload.ray_host import is_locked
from wattshift_cluster.workload.ray_link import RayUnavailable
from wattshift_cluster.workload.services import fitting, quantile_ms
from wattshift_cluster.workload.specs import batch_spec, service_spec

BATCH = {"callable": "pkg.mod:work", "input": "in.jsonl", "output": "out", "watts_w": 60.0}
SERVICE = {"name": "embed", "import_path": "pkg.mod:app", "watts_per_replica_w": 60.0}


def engine(folder: Path) -> Engine:
    """An engine that was never started: its Ray is not there."""
    settings = EngineSettings("host", folder, "127.0.0.1", 8000, None, "127.0.0.1:1")
    return Engine(settings, None, lambda reason: None)


async def over_the_wire(
    folder: Path, talk: Callable[[Link], Awaitable[None]], a: Engine | None = None
) -> None:
    handler = Bridge(a or engine(folder)).handle
    token = b"a token of the test"
    listening = await server.serve("127.0.0.1", 0, name="host", token=token, handler=handler)
    link = Link("127.0.0.1", listening.sockets[0].getsockname()[1], token)
    try:
        await talk(link)
    finally:
        await link.close()
        listening.close()


def test_a_bridge_without_ray_says_so_and_accepts_jobs_all_the_same(tmp_path: Path) -> None:
    async def talk(link: Link) -> None:
        report = await link.call("hello")
        assert report["bridge"] == "host"
        assert report["ray"]["up"] is False
        assert report["ray"]["error"]
        assert report["node"]["power_w_total"] is None
        commands = [
            {"id": 1, "kind": "set_node_power", "watts_w": 100},
            {"id": 2, "kind": "start_job", "job": "j1", "spec": BATCH},
            {"id": 3, "kind": "set_replicas", "service": "s", "spec": SERVICE, "replicas": 1},
            {"id": 4, "kind": "pause_job", "job": "j1"},
            {"id": 5, "kind": "pause_job", "job": "nobody"},
            {"id": 6, "kind": "cancel_job", "job": "nobody"},
        ]
        results = (await link.call("apply", commands=commands))["results"]
        assert [row["id"] for row in results] == [1, 2, 3, 4, 5, 6]
        assert [row["ok"] for row in results] == [False, True, True, True, False, True]
        assert "no batch job nobody" in results[4]["error"]

    asyncio.run(over_the_wire(tmp_path, talk))
    # Durable when it was answered: another bridge on the same folder knows the job.
    jobs = {row["job"]: row["state"] for row in engine(tmp_path).batch.report()}
    assert jobs == {"j1": "starting", "nobody": "starting"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (17, "kind: allowed"),
        ({"id": 1, "kind": "dance"}, "kind: allowed"),
        ({"id": 1, "kind": "set_node_power", "watts_w": -1}, "watts_w"),
        ({"id": 1, "kind": "set_node_power", "watts_w": "many"}, "watts_w"),
        ({"id": 1, "kind": "start_job", "job": "../x", "spec": BATCH}, "job"),
        ({"id": 1, "kind": "start_job", "job": "j", "spec": None}, "spec"),
        ({"id": 1, "kind": "start_job", "job": "j", "spec": {**BATCH, "callable": 1}}, "callable"),
        ({"id": 1, "kind": "set_replicas", "service": "s", "spec": SERVICE, "replicas": -1},
         "replicas"),
        ({"id": 1, "kind": "set_replicas", "service": "s", "spec": {}, "replicas": 1},
         "watts_per_replica_w"),
    ],
)  # fmt: skip
def test_a_senseless_command_is_refused_with_its_field(
    tmp_path: Path, command: object, words: str
) -> None:
    async def talk(link: Link) -> None:
        row = (await link.call("apply", commands=[command]))["results"][0]
        assert not row["ok"]
        assert words in row["error"]

    asyncio.run(over_the_wire(tmp_path, talk))


def test_every_fault_of_a_specification_is_named() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        batch_spec("j", {"callable": "a", "watts_w": float("nan"), "chunk_items": 0})
    assert {fault.path for fault in caught.value.faults if not isinstance(fault, str)} == {
        "callable", "input", "output", "watts_w", "chunk_items",
    }  # fmt: skip
    assert service_spec("service-embed", SERVICE).route == "/embed"
    assert Path(batch_spec("j", BATCH).input).is_absolute()


def test_an_answer_never_waits_for_a_stuck_engine(tmp_path: Path) -> None:
    stuck = engine(tmp_path)
    gate = threading.Event()

    class Actuator:
        def set(self, watts_w: float) -> float:
            gate.wait(20)
            return watts_w

    async def talk(link: Link) -> None:
        start = time.monotonic()
        commands = [{"id": n, "kind": "set_node_power", "watts_w": 50} for n in range(3)]
        results = (await link.call("apply", commands=commands))["results"]
        await link.call("report")
        assert time.monotonic() - start < 1.0
        assert [row["error"] for row in results[:2]] == ["overtaken by a later command"] * 2
        assert not any(row["ok"] for row in results)

    stuck._keeper = PowerKeeper(Actuator())
    asyncio.run(over_the_wire(tmp_path, talk, stuck))
    gate.set()
    stuck._keeper.stop()


class Clamping:
    """A node whose watts cannot fall below what is in use, as Ray does it."""

    def __init__(self, used_w: float) -> None:
        self.used_w = used_w
        self.fails = 0

    def set(self, watts_w: float) -> float:
        if self.fails:
            self.fails -= 1
            raise RayUnavailable("no answer")
        return max(watts_w, self.used_w)


def wait_for(check: Callable[[], Any], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.02)


def test_a_shrink_below_use_reports_the_clamp_and_is_repeated_until_it_holds() -> None:
    node = Clamping(used_w=120)
    keeper = PowerKeeper(node)
    assert keeper.ask(300, 1.0) == 300
    assert keeper.ask(40, 1.0) == 120
    node.used_w = 60
    wait_for(lambda: keeper.total_w == 60)
    node.used_w = 0
    wait_for(lambda: keeper.total_w == 40)
    keeper.stop()


def test_a_failed_resize_is_told_and_tried_again() -> None:
    node = Clamping(used_w=0)
    node.fails = 2
    keeper = PowerKeeper(node)
    assert keeper.ask(80, 0.15) is None
    assert keeper.error == "no answer"
    wait_for(lambda: keeper.total_w == 80)
    assert keeper.error is None
    keeper.stop()


def test_only_replicas_whose_watts_fit_are_asked_for() -> None:
    assert fitting(5, 0, 300.0, 60.0) == 5
    assert fitting(5, 1, 130.0, 60.0) == 3
    assert fitting(5, 2, 59.0, 60.0) == 2
    assert fitting(1, 3, 0.0, 60.0) == 1
    assert fitting(3, 1, -20.0, 60.0) == 1


def test_quantiles_of_few_numbers() -> None:
    assert quantile_ms([], 0.95) is None
    assert quantile_ms([7.0], 0.95) == 7.0
    assert quantile_ms([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_one_bridge_per_state_folder_and_a_short_private_folder_for_ray(tmp_path: Path) -> None:
    import os

    lock = take_lock(tmp_path)
    assert is_locked(tmp_path / "bridge.lock")
    with pytest.raises(TryLater, match="another bridge"):
        take_lock(tmp_path)
    os.close(lock)
    assert not is_locked(tmp_path / "bridge.lock")
    os.close(take_lock(tmp_path))
    folder = temp_dir(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0
    session = "session_2026-11-23_12-44-53_944968_1234567/sockets/plasma_store"
    assert len(str(folder / session)) < 100
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(RayUnavailable, match="not ours"):
            temp_dir(tmp_path)
    finally:
        folder.unlink()
