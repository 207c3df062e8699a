"""One service's state from what Serve shows: watts, deaths, health, and what it ends in."""

from collections.abc import Sequence

import pytest

from wattshift_cluster.workload.cluster.nodes import Node
from wattshift_cluster.workload.serving.room import Room, carries, slots
from wattshift_cluster.workload.serving.serve_link import Application, Deployed, Replica, read
from wattshift_cluster.workload.serving.service import (
    ALLOW_WITHIN_S,
    BACK_OFF_S,
    CRASHES_MAX,
    UNPLACED_S,
    Plan,
    Service,
    victims,
)
from wattshift_cluster.workload.specs import service_spec

SPEC = {"import_path": "pkg.mod:app", "watts_per_replica_w": 60.0, "name": "embed"}
PLAN = Plan("Model", 60.0, {"Model": 60.0, "Aux": 20.0}, "policy", None, "Front", "/embed")
NODES = {"id0": "n0", "id1": "n1"}


def node(name: str, free_w: float | None, *, draining: bool = False, **labels: str) -> Node:
    return Node(f"id-{name}", name, True, draining, labels, 0.0, 300.0, free_w)


def service(target: int = 2, **more: object) -> Service:
    return Service("s", service_spec("s", {**SPEC, **more}), target, plan=PLAN)


def replica(name: str, state: str = "RUNNING", node_id: str | None = "id0") -> Replica:
    return Replica(name, state, node_id, f"actor-{name}")


def app(
    replicas: Sequence[Replica],
    target: int = 2,
    status: str = "RUNNING",
    message: str = "",
    unit: str = "HEALTHY",
) -> Application:
    model = Deployed("Model", unit, message, target, tuple(replicas), slots=5)
    aux = Deployed("Aux", status, "", 1, (replica("aux", node_id="id1"),))
    front = Deployed("Front", status, "", 1, (replica("front"),))
    return Application("s", status, "", {"Model": model, "Aux": aux, "Front": front})


def see(
    one: Service, *arguments: object, leaving: frozenset[str] = frozenset(), **more: object
) -> int:
    return one.see(app(*arguments, **more), NODES, leaving)  # type: ignore[arg-type]


def test_units_with_watts_are_told_by_node_and_nothing_else() -> None:
    one = service()
    see(
        one,
        [
            replica("a"),
            replica("b", "STOPPING"),
            replica("c", "STARTING", "id1"),
            replica("d", "STARTING", None),
            replica("e", "RUNNING", "gone"),
        ],
    )
    # The ingress has no watts; the node that is gone holds none; one is not placed.
    assert one.row("h", 1)["by_node"] == {"n0": 2, "n1": 2}
    assert (one.running, one.starting, one.unplaced) == (2, 2, 1)
    assert one.row("h", 1)["url"] == "http://h:1/embed"
    assert one.slots == 5


def test_more_replicas_are_asked_for_only_where_their_watts_fit() -> None:
    one = service(target=5)
    see(one, [replica("a")], 1)
    assert one.wanted(fits=2, now_s=0.0) == 3
    assert one.wanted(fits=9, now_s=0.0) == 5
    one.target = 0
    assert one.wanted(fits=9, now_s=0.0) == 0


def test_a_replica_that_ray_does_not_place_is_asked_back_after_a_while() -> None:
    one = service(target=3)
    see(one, [replica("a"), replica("b", "STARTING", None)], 2)
    # Ray took the watts a moment ago and Serve has not told the node yet: it is left alone.
    assert one.wanted(fits=0, now_s=100.0) == 2
    assert one.wanted(fits=0, now_s=100.0 + UNPLACED_S - 1) == 2
    assert one.wanted(fits=0, now_s=100.0 + UNPLACED_S + 1) == 1
    assert one.wanted(fits=1, now_s=100.0 + UNPLACED_S + 2) == 2, "there is room now"
    assert one.wanted(fits=0, now_s=100.0 + UNPLACED_S + 3) == 2, "and the wait begins anew"


def test_a_replica_that_goes_although_it_is_wanted_has_died() -> None:
    one = service()
    assert see(one, [replica("a"), replica("b")]) == 0
    assert see(one, [replica("a"), replica("b", "STOPPING")]) == 1
    assert see(one, [replica("a")]) == 0, "counted once"


@pytest.mark.parametrize(
    ("why", "target", "ended", "leaving", "node_id"),
    [
        ("the target fell", 1, (), frozenset(), "id0"),
        ("it was evicted", 2, ("b",), frozenset(), "id0"),
        ("its node is draining", 2, (), frozenset({"id0"}), "id0"),
        ("its node is gone", 2, (), frozenset(), "lost"),
    ],
)
def test_a_replica_that_goes_for_a_reason_has_not_died(
    why: str, target: int, ended: tuple[str, ...], leaving: frozenset[str], node_id: str
) -> None:
    one = service()
    see(one, [replica("a", node_id="id1"), replica("b", node_id=node_id)])
    one.ended.extend(ended)
    assert see(one, [replica("a", node_id="id1")], target, leaving=leaving) == 0, why


def test_replicas_that_a_restarted_serve_controller_finds_again_have_not_died() -> None:
    one = service()
    see(one, [replica("a"), replica("b")])
    assert see(one, [replica("a", "RECOVERING"), replica("b", "RECOVERING")]) == 0
    assert one.running == 2
    assert see(one, [replica("a"), replica("b")]) == 0


def test_replicas_that_are_replaced_by_a_new_version_have_not_died() -> None:
    one = service()
    one.settled = False
    see(one, [replica("a"), replica("b")], unit="UPDATING")
    assert see(one, [replica("a"), replica("c", "STARTING")], unit="UPDATING") == 0
    assert see(one, [replica("c"), replica("d")]) == 0
    assert see(one, [replica("c"), replica("d", "STOPPING")]) == 1


def test_after_a_death_a_new_replica_waits_and_a_loop_of_deaths_ends_the_service() -> None:
    one = service(target=1)
    see(one, [], 1, message="Traceback\nValueError: bad weights")
    now_s = 1000.0
    for number in range(CRASHES_MAX - 1):
        one.died(1, now_s)
        wait_s = BACK_OFF_S[min(number, len(BACK_OFF_S) - 1)]
        assert one.wanted(fits=5, now_s=now_s + wait_s - 0.1) == 0
        assert one.wanted(fits=5, now_s=now_s + wait_s + 0.1) == 1
        now_s += wait_s + 1
    assert one.failed is None
    one.died(1, now_s)
    assert one.state == "failed"
    assert "5 replicas died" in str(one.failed)
    assert "bad weights" in str(one.failed)


def test_deaths_long_ago_are_forgiven() -> None:
    one = service(target=1)
    for number in range(3 * CRASHES_MAX):
        one.died(1, number * 100.0)
    assert one.failed is None


def test_it_fails_when_it_had_watts_and_time_and_never_became_healthy() -> None:
    one = service(target=1, healthy_within_s=30)
    see(one, [replica("a", "STARTING")], 1, status="DEPLOYING", message="still loading")
    one.judge(wanted=0, now_s=0.0)
    one.judge(wanted=1, now_s=1000.0)
    one.judge(wanted=1, now_s=1029.0)
    assert one.failed is None, "without watts no time runs"
    one.judge(wanted=1, now_s=1031.0)
    assert "within 30 s" in str(one.failed)
    assert "still loading" in str(one.failed)


def test_it_is_told_when_no_node_has_what_it_asks_for() -> None:
    one = service(target=1, healthy_within_s=30)
    see(one, [replica("a", "STARTING", None)], 1, status="DEPLOYING")
    one.judge(wanted=1, now_s=0.0)
    one.judge(wanted=1, now_s=31.0)
    assert "no node has what it asks for" in str(one.failed)


def test_serve_gives_up_on_it_and_the_users_own_words_are_told() -> None:
    one = service(target=1)
    words = (
        "The deployment failed to start 3 times in a row. Error:\n"
        "ray::ServeReplica:s:Model.initialize_and_get_metadata() (pid=1)\n"
        '  File "/usr/lib/python3/site-packages/ray/serve/_private/replica.py", line 9, in init\n'
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "/home/u/model.py", line 12, in __init__\n'
        "OSError: no weights at /models/x\n"
    )
    see(one, [], 1, status="DEPLOY_FAILED", message=words)
    assert one.state == "failed"
    assert "OSError: no weights at /models/x (/home/u/model.py, line 12, in __init__)" in str(
        one.error
    )


def test_an_update_that_failed_beside_replicas_that_serve_is_told_and_ends_nothing() -> None:
    one = service()
    see(one, [replica("a")], status="DEPLOY_FAILED", message="Error:\nValueError: new code")
    assert one.state == "running"
    assert one.error == "ValueError: new code"


def test_on_eviction_those_go_first_that_serve_nobody_then_the_newest() -> None:
    one = service(target=4)
    rows = [replica("old"), replica("mid"), replica("new"), replica("up", "STARTING")]
    see(one, [*rows, replica("far", node_id="id1"), replica("going", "STOPPING")], 4)
    assert [gone.id for gone in victims(one, "id0", 2)] == ["up", "new"]
    one.ended.append("up")
    assert [gone.id for gone in victims(one, "id0", 9)] == ["new", "mid", "old"]


def test_serve_follows_the_core_upward_only_where_a_latency_was_promised() -> None:
    assert service(target=3, min_replicas=1).least == 1
    assert service(target=3, min_replicas=1, slo_p95_ms=200).least == 3


def test_a_demand_that_may_have_no_replica_presses_after_the_core_had_its_moment() -> None:
    one = service(target=0)
    see(one, [], 0)
    assert not one.pressed(0.2, 100.0), "the tail of a demand is none"
    assert not one.pressed(3.0, 101.0)
    assert not one.pressed(3.0, 101.0 + ALLOW_WITHIN_S)
    assert one.pressed(3.0, 101.1 + ALLOW_WITHIN_S)
    assert not one.pressed(0.0, 110.0)
    see(one, [replica("a", "STARTING", None)], 1)
    assert not one.pressed(0.0, 120.0), "Serve's own first replica"
    assert one.pressed(0.0, 120.1 + ALLOW_WITHIN_S)
    cut = service(target=0)
    see(cut, [replica("a")], 1)
    assert cut.pressed(3.0, 200.0), "replicas are taken away from it"


def test_a_held_service_wants_at_least_one() -> None:
    one = service(target=0)
    one.held = True
    assert one.row("h", 1)["desired"] == 1


def test_room_is_by_node_and_a_draining_or_silent_node_has_none() -> None:
    assert slots(179.9, 60.0) == 2
    assert slots(-20.0, 60.0) == 0
    nodes = [node("n0", 130.0), node("n1", 70.0), node("n2", 300.0, draining=True)]
    room = Room({one.name: one for one in [*nodes, node("n3", None)]})
    assert room.fits(60.0, {}) == 3
    room.take(1, 60.0, {})
    assert room.fits(60.0, {}) == 2
    room.take(5, 60.0, {})
    assert room.fits(60.0, {}) == 0
    assert "a replica asks for 60 W" in room.words(60.0, {})


def test_room_is_only_where_the_labels_are() -> None:
    nodes = {"n0": node("n0", 300.0, gpu="H100"), "n1": node("n1", 300.0, gpu="L4")}
    assert carries(nodes["n0"], {"gpu": "H100"})
    assert not carries(nodes["n0"], {"gpu": "!H100"})
    assert Room(nodes).fits(100.0, {"gpu": "H100"}) == 3
    assert Room(nodes).fits(100.0, {"gpu": "!H100", "zone": "a"}) == 0
    assert Room(nodes).words(100.0, {"zone": "a"}) == "no node has the labels zone=a"


def test_serves_details_are_read_as_texts_or_enumerations() -> None:
    class State:
        value = "RUNNING"

    row = {"replica_id": "r", "state": State(), "node_id": "id0", "actor_name": "A"}
    one = {"status": "HEALTHY", "target_num_replicas": 1, "replicas": [row]}
    found = read({"applications": {"s": {"status": State(), "deployments": {"M": one}}}})
    assert found["s"].status == "RUNNING"
    assert found["s"].deployments["M"].replicas == (Replica("r", "RUNNING", "id0", "A"),)
    assert read({}) == {}
