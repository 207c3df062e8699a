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
from wattshift_cluster.wire.link import Link, OpFailed
from wattshift_cluster.workload.answers import Bridge
from wattshift_cluster.workload.bulletin import Bulletin
from wattshift_cluster.workload.cluster.local_ray import take_lock, temp_dir
from wattshift_cluster.workload.cluster.node_power import NodePower, Remembered
from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.cluster.power_keeper import PowerKeeper
from wattshift_cluster.workload.cluster.ray_host import is_locked
from wattshift_cluster.workload.cluster.ray_link import RayLink, RayUnavailable
from wattshift_cluster.workload.cluster.ray_token import find_token, no_entry
from wattshift_cluster.workload.engine import Engine, EngineSettings
from wattshift_cluster.workload.fence import Fence
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
    one = a or engine(folder)
    handler = Bridge(one, Fence(folder, one.nodes.told_w, one.services.target)).handle
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
        ({"id": 1, "kind": "set_node_power", "watts_w": 1, "node": 7}, "node"),
        ({"id": 1, "kind": "start_job", "job": "j", "spec": BATCH, "nodes": {"n": -1}}, "n"),
        ({"id": 1, "kind": "start_job", "job": "j", "spec": BATCH, "nodes": [1]}, "nodes"),
        ({"id": 1, "kind": "evict_units", "job": "j", "node": "n", "units": 0}, "units"),
        ({"id": 1, "kind": "evict_units", "job": "j", "node": "n", "units": 1}, "no batch job j"),
        ({"id": 1, "kind": "drain_node", "node": "n", "within_s": -1}, "within_s"),
        ({"id": 1, "kind": "drain_node", "node": "n"}, "no Ray yet"),
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


def test_no_text_of_a_specification_shows_what_may_be_a_credential() -> None:
    secret = {"env": {"T": "hush"}, "args": {"t": "hush"}}
    assert "hush" not in repr(
        [service_spec("s", SERVICE | secret), batch_spec("j", BATCH | secret)]
    )
    with pytest.raises(ConfigInvalid) as caught:
        service_spec("s", SERVICE | {"env": "hush", "args": ["hush"]})
    assert "hush" not in str(caught.value)


def test_paths_of_a_specification_are_absolute() -> None:
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

    node = Node("1" * 56, "host", True, False, {}, 0.0, 300.0, 300.0)
    stuck.nodes._power = power = NodePower(Remembered(tmp_path), lambda node: Actuator())
    power.follow({"host": node})
    asyncio.run(over_the_wire(tmp_path, talk, stuck))
    gate.set()
    power.stop()


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


def changing(values: dict[str, Any]) -> Bulletin:
    return Bulletin(lambda: {**values, "nodes": [dict(row) for row in values["nodes"]]}, 7)


def test_a_version_rises_with_what_matters_and_not_with_time() -> None:
    values: dict[str, Any] = {
        "boot_s": 1.0,
        "ray": {"age_s": 0.1},
        "nodes": [{"unasked_w": 12.2, "unasked": ["actor Foo: 12 W"], "power_w_total": 300.0}],
        "services": [{"p95_ms": 101.0, "running": 1}],
    }
    news = changing(values)
    first = news.report()["version"]
    values |= {"boot_s": 2.0, "ray": {"age_s": 0.4}, "services": [{"p95_ms": 102.0, "running": 1}]}
    values["nodes"][0] |= {"unasked_w": 12.4, "unasked": ["actor Foo: 13 W"]}
    assert news.report()["version"] == first
    for change in (
        lambda: values["nodes"][0].update(power_w_total=299.5),
        lambda: values["nodes"][0].update(unasked_w=13.0),
        lambda: values["nodes"][0].update(unasked=["a", "b"]),
        lambda: values.update(services=[{"p95_ms": 140.0, "running": 1}]),
        lambda: values.update(services=[{"p95_ms": 140.0, "running": 2}]),
        lambda: values["nodes"][0].update(unasked_w=None),
    ):
        before = news.report()["version"]
        change()
        assert news.report()["version"] == before + 1


def test_who_waits_for_news_is_woken_from_another_thread_or_gets_the_old_ones() -> None:
    values: dict[str, Any] = {"nodes": [], "a": 1}
    news = changing(values)

    async def test() -> None:
        version = news.report()["version"]
        began_s = time.monotonic()
        assert (await news.after(version, 0.05))["version"] == version
        assert time.monotonic() - began_s >= 0.05
        assert (await news.after(version - 1, 2.0))["version"] == version, "it missed one"
        waiting = asyncio.create_task(news.after(version, 2.0))
        await asyncio.sleep(0.05)
        values["a"] = 2
        began_s = time.monotonic()
        await asyncio.to_thread(news.report)
        assert (await waiting)["version"] == version + 1
        assert time.monotonic() - began_s < 1.0

    asyncio.run(test())


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"after": "x"}, "after"), ({"after": 1, "wait_s": 60}, "wait_s")],
)
def test_a_senseless_wait_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    async def talk(link: Link) -> None:
        with pytest.raises(OpFailed, match=words):
            await link.call("report", **fields)

    asyncio.run(over_the_wire(tmp_path, talk))


def test_a_driver_finds_rays_token_as_ray_would_and_says_what_is_wrong(tmp_path: Path) -> None:
    nothing = find_token({}, tmp_path)
    assert (nothing.source, nothing.environment, nothing.warning) == (None, {}, None)
    assert "RAY_AUTH_TOKEN" in no_entry(nothing)
    home = tmp_path / ".ray/auth_token"
    home.parent.mkdir()
    home.write_text("secret-of-home")
    home.chmod(0o644)
    found = find_token({}, tmp_path)
    assert (found.source, found.environment) == (str(home), {"RAY_AUTH_MODE": "token"})
    assert found.mend == f"chmod 600 {home}"
    home.chmod(0o600)
    assert find_token({}, tmp_path).warning is None
    assert find_token({"RAY_AUTH_MODE": "disabled"}, tmp_path).source is None
    direct = find_token({"RAY_AUTH_TOKEN": "secret-of-variable"}, tmp_path)
    assert direct.source == "RAY_AUTH_TOKEN"
    missing = find_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, tmp_path)
    assert missing.source is None
    assert "cannot be read" in no_entry(missing)
    assert "secret" not in repr([found, direct]) + no_entry(found) + no_entry(direct)


def test_a_cluster_that_is_not_there_is_said_at_once() -> None:
    began_s = time.monotonic()
    for address in ("127.0.0.1:1", "auto", "127.0.0.1:"):
        with pytest.raises(RayUnavailable, match="nobody listens there"):
            RayLink(address)
    assert time.monotonic() - began_s < 5.0


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


def test_an_older_controller_may_only_lower(tmp_path: Path) -> None:
    power = {"id": 1, "kind": "set_node_power", "node": "a"}
    replicas = {"id": 2, "kind": "set_replicas", "service": "svc", "spec": SERVICE}
    start = {"id": 3, "kind": "start_job", "job": "j", "spec": BATCH}

    async def talk(link: Link) -> None:
        async def errors(epoch: int | None, *commands: dict[str, Any]) -> list[str]:
            fields = {} if epoch is None else {"epoch": epoch}
            answer = await link.call("apply", **fields, commands=list(commands))
            return [str(row["error"] or "") for row in answer["results"]]

        raised = (power | {"watts_w": 200.0}, replicas | {"replicas": 3}, start)
        assert not any("newer controller" in text for text in await errors(5, *raised))
        for epoch in (4, None):
            fenced = (power | {"watts_w": 250.0}, replicas | {"replicas": 4}, start)
            cancel = {"id": 4, "kind": "cancel_job", "job": "j"}
            assert all("epoch 5" in text for text in await errors(epoch, *fenced, cancel))
            lower = (power | {"watts_w": 150.0}, replicas | {"replicas": 2})
            pause = {"id": 5, "kind": "pause_job", "job": "j"}
            assert not any("newer controller" in t for t in await errors(epoch, *lower, pause))
        with pytest.raises(OpFailed, match="epoch"):
            await link.call("apply", epoch=True, commands=[])

    asyncio.run(over_the_wire(tmp_path, talk))
    asyncio.run(over_the_wire(tmp_path, _is_still_fenced))


async def _is_still_fenced(link: Link) -> None:
    """After a restart of the bridge, from its disk."""
    command = {"id": 1, "kind": "set_node_power", "node": "a", "watts_w": 900.0}
    answer = await link.call("apply", epoch=4, commands=[command])
    assert "epoch 5" in answer["results"][0]["error"]
