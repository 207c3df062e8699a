"""Watts of many nodes: each with a keeper, none with watts that nobody granted, and remembered."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wattshift_cluster.workload.cluster.node_power import NodePower, Remembered, read_watts
from wattshift_cluster.workload.cluster.nodes import Node


def node(name: str, number: str, alive: bool = True, watts_w: float | None = 300.0) -> Node:
    return Node(number * 56, name, alive, False, {}, 0.0, watts_w if alive else None, None)


class World:
    """Nodes as Ray would hold them: watts by NodeID."""

    def __init__(self) -> None:
        self.watts_w: dict[str, float] = {}
        self.stuck: dict[str, threading.Event] = {}

    def actuator(self, node: Node) -> "Resizing":
        return Resizing(self, node.id)

    def power(self, folder: Path, **options: Any) -> NodePower:
        return NodePower(Remembered(folder), self.actuator, **options)


class Resizing:
    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.node_id = node_id

    def set(self, watts_w: float) -> float:
        if self.node_id in self.world.stuck:
            self.world.stuck[self.node_id].wait(20)
        self.world.watts_w[self.node_id] = watts_w
        return watts_w


def nodes(*some: Node) -> dict[str, Node]:
    return {one.name: one for one in some}


def wait_for(check: Callable[[], Any], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.01)


def test_a_node_nobody_spoke_of_gets_nothing_and_a_told_one_what_it_was_told(
    tmp_path: Path,
) -> None:
    world = World()
    power = world.power(tmp_path)
    one, new, bare = node("n1", "1"), node("n2", "2"), node("n3", "3", watts_w=None)
    power.follow(nodes(one, bare))
    assert power.ask({"n1": 120.0, "n3": 50.0}, 5.0) == {"n1": 120.0, "n3": 50.0}
    power.follow(nodes(one, new, bare))
    wait_for(lambda: world.watts_w.get(new.id) == 0.0)
    assert power.total_w(new) == 0.0
    power.follow(nodes(one, node("n4", "4", watts_w=None)))
    assert power.ask({"n2": 10.0}, 0.1) == {
        "n2": "node n2 is not in this Ray cluster; it gets these watts when it comes"
    }
    assert world.watts_w == {one.id: 120.0, bare.id: 50.0, new.id: 0.0}, "n4 was left alone"
    power.stop()


def test_a_node_that_comes_back_gets_what_was_asked_last_whoever_asks(tmp_path: Path) -> None:
    world = World()
    power = world.power(tmp_path)
    power.follow(nodes(node("n1", "1")))
    power.ask({"n1": 120.0}, 5.0)
    power.follow(nodes(node("n1", "1", alive=False)))
    assert "is gone from Ray" in str(power.ask({"n1": 90.0}, 0.1)["n1"])
    back = node("n1", "2")
    power.follow(nodes(back))
    wait_for(lambda: world.watts_w.get(back.id) == 90.0)
    power.stop()
    # And so over a restart of the bridge.
    again = world.power(tmp_path)
    third = node("n1", "3")
    again.follow(nodes(third))
    wait_for(lambda: world.watts_w.get(third.id) == 90.0)
    again.stop()
    assert read_watts(tmp_path) == {"n1": 90.0}


def test_a_node_that_takes_over_a_name_takes_over_its_watts(tmp_path: Path) -> None:
    world = World()
    power = world.power(tmp_path)
    old, heir = node("n1", "1"), node("node-22222222", "2")
    power.follow(nodes(old, heir))
    power.ask({"n1": 150.0}, 5.0)
    wait_for(lambda: world.watts_w.get(heir.id) == 0.0)
    heir = node("n1", "2")
    power.follow(nodes(heir))
    wait_for(lambda: world.watts_w[heir.id] == 150.0)
    power.stop()


def test_a_node_of_our_own_keeps_what_it_was_started_with(tmp_path: Path) -> None:
    world = World()
    own = node("host", "1")
    power = world.power(tmp_path, as_found=frozenset({own.id}))
    power.follow(nodes(own, node("n2", "2")))
    wait_for(lambda: "2" * 56 in world.watts_w)
    assert own.id not in world.watts_w
    assert power.total_w(own) == 300.0
    power.stop()


def test_one_node_that_hangs_delays_no_other(tmp_path: Path) -> None:
    world = World()
    power = world.power(tmp_path)
    power.follow(nodes(*(node(f"n{n}", chr(97 + n), watts_w=None) for n in range(15))))
    world.stuck = {chr(97 + n) * 56: threading.Event() for n in range(12)}
    began_s = time.monotonic()
    answers = power.ask({f"n{n}": 10.0 + n for n in range(15)}, 1.5)
    assert time.monotonic() - began_s < 9.0, "together, not one after the other"
    assert [answers[f"n{n}"] for n in range(12)] == ["Ray has not answered yet"] * 12
    assert [answers[f"n{n}"] for n in range(12, 15)] == [22.0, 23.0, 24.0]
    for event in world.stuck.values():
        event.set()
    wait_for(lambda: world.watts_w.get("a" * 56) == 10.0)
    power.stop()


def test_what_is_remembered_is_bounded_and_a_broken_file_is_no_harm(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path)
    for base in (0, 700):
        remembered.keep({f"n{n}": 1.0 for n in range(base, base + 700)})
    remembered.keep({"n0": 5.0, "n1399": 7.0})
    kept = read_watts(tmp_path)
    assert len(kept) == 1000
    assert (kept["n0"], kept["n1399"]) == (5.0, 7.0)
    for broken in ("", "[]", '{"nodes": {"n1": "many"}}', '{"watts_w": 3}'):
        (tmp_path / "power.json").write_text(broken)
        assert read_watts(tmp_path) == {}
