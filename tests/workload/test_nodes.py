"""Names of a cluster's nodes: by label, by the bridge, by host, by NodeID; one living node each."""

from collections.abc import Mapping
from typing import Any

from wattshift_cluster.workload.cluster.nodes import Inventory, Node, Seen

A, B, C = "aa" * 28, "bb" * 28, "cc" * 28


def row(
    node_id: str, host: str = "h", label: str | None = None, alive: bool = True, **resources: float
) -> dict[str, Any]:
    labels = {} if label is None else {"wattshift.io/node": label}
    return {
        "NodeID": node_id,
        "Alive": alive,
        "NodeManagerHostname": host,
        "NodeManagerAddress": "127.0.0.1",
        "MetricsExportPort": 1234,
        "Labels": {"ray.io/node-id": node_id, **labels},
        "Resources": resources if alive else {},
    }


def seen(
    *rows: dict[str, Any],
    driver: str = A,
    totals: Mapping[str, Mapping[str, float]] | None = None,
    free: Mapping[str, Mapping[str, float]] | None = None,
    draining: frozenset[str] = frozenset(),
) -> Seen:
    return Seen(rows, totals or {}, free or {}, draining, driver)


def ids(nodes: Mapping[str, Node]) -> dict[str, str]:
    return {name: node.id for name, node in nodes.items()}


def test_a_label_names_a_node_then_the_bridge_then_a_host_of_its_own_then_the_id() -> None:
    found = Inventory("bridge").look(
        seen(row(B, "gpu-1", "rack-7"), row(A, "head"), row(C, "worker"), row("dd" * 28, "twin"),
             row("ee" * 28, "twin"))
    )  # fmt: skip
    assert ids(found) == {
        "bridge": A, "rack-7": B, "worker": C, "node-dddddddd": "dd" * 28,
        "node-eeeeeeee": "ee" * 28,
    }  # fmt: skip
    assert next(iter(found)) == "bridge", "the driver's own node comes first"
    assert Inventory("bridge").look(seen(row(A, label="n0")))["n0"].id == A


def test_of_two_living_nodes_with_one_name_the_first_keeps_it_until_it_is_gone() -> None:
    inventory = Inventory("bridge")
    inventory.look(seen(row(A), row(C, label="n1")))
    both = inventory.look(seen(row(A), row(C, label="n1"), row(B, label="n1")))
    assert ids(both) == {"bridge": A, "n1": C, "node-bbbbbbbb": B}
    after = inventory.look(seen(row(A), row(C, label="n1", alive=False), row(B, label="n1")))
    assert ids(after) == {"bridge": A, "n1": B}


def test_a_node_that_is_gone_is_still_told_until_another_takes_its_place() -> None:
    inventory = Inventory("bridge")
    inventory.look(seen(row(A), row(B, "other", power_w=300.0)))
    gone = inventory.look(seen(row(A), row(B, "other", alive=False)))
    assert (gone["other"].alive, gone["other"].power_w_total) == (False, None)
    back = inventory.look(seen(row(A), row(B, "other", alive=False), row(C, "other")))
    assert (back["other"].id, back["other"].alive) == (C, True)
    # A bridge that starts later knows of the dead only those that a label names.
    later = Inventory("bridge").look(
        seen(row(A), row(B, "x", alive=False), row(C, "y", "n1", alive=False))
    )
    assert list(later) == ["bridge", "n1"]


def test_watts_are_those_of_now_and_a_node_without_any_has_none() -> None:
    found = Inventory("bridge").look(
        seen(
            row(A, power_w=300.0, GPU=2.0),
            row(B, "b", power_w=300.0),
            row(C, "c", CPU=4.0),
            row("dd" * 28, "d", power_w=300.0),
            totals={A: {"power_w": 120.0, "GPU": 2.0}, B: {"CPU": 4.0}, C: {"CPU": 4.0}},
            free={A: {"power_w": 20.0}, B: {"CPU": 1.0}, C: {}},
            draining=frozenset({B}),
        )
    )
    watts = {node.name: (node.power_w_total, node.power_w_available) for node in found.values()}
    assert watts == {
        "bridge": (120.0, 20.0),
        "b": (0.0, 0.0),  # resized to nothing: Ray leaves it out
        "c": (None, None),
        "d": (300.0, None),  # the control store does not tell what is free there
    }
    assert (found["bridge"].gpus, found["b"].draining, found["c"].draining) == (2.0, True, False)
    assert found["bridge"].metrics_port == 1234
