"""A lock belongs to a token, not to a name that may be given again."""

from pathlib import Path

import pytest

from wattshift_cluster.agent.asics.desk import OrderMalformed, parse
from wattshift_cluster.controller.fleet_desk import FleetOrder
from wattshift_cluster.errors import Refused
from wattshift_cluster.fleet.locks import Action, Order, Restraint, apply
from wattshift_cluster.fleet.memory import Memory, MemoryFolder

KIM = Order("lock", "kim", "fan", by_id="1a2b3c4d")
LOCKED = apply(KIM, Restraint(), 100.0)


def again(action: Action, by_id: str | None) -> Restraint:
    return apply(Order(action, "kim", "mine", by_id=by_id), LOCKED, 200.0)


@pytest.mark.parametrize("by_id", ["99999999", None])
def test_another_token_of_the_same_name_neither_unlocks_nor_takes_over(by_id: str | None) -> None:
    for action in ("unlock", "lock", "wake"):
        with pytest.raises(Refused, match="only the token kim that locked it"):
            again(action, by_id)
    assert again("unlock", "1a2b3c4d").lock is None


def test_an_override_of_a_namesake_is_an_override() -> None:
    order = Order("unlock", "kim", override=True, by_id="99999999")
    assert apply(order, LOCKED, 200.0).override is not None


def test_the_token_outlives_the_agent_and_a_lock_of_before_goes_by_its_name(tmp_path: Path) -> None:
    folder = MemoryFolder(tmp_path)
    folder.save("rig", Memory(restraint=LOCKED), sync=True)
    assert folder.load("rig").restraint == LOCKED
    old = folder.path("rig").read_text().replace(', "by_id": "1a2b3c4d"', "")
    assert "1a2b3c4d" not in old
    folder.path("rig").write_text(old)
    held = folder.load("rig").restraint
    assert apply(Order("unlock", "kim", by_id="99999999"), held, 200.0).lock is None
    with pytest.raises(Refused, match="only kim"):
        apply(Order("unlock", "bob", by_id="1a2b3c4d"), held, 200.0)


def test_the_controller_tells_the_token_and_the_agent_reads_it() -> None:
    wire = FleetOrder("unlock", ("rig",), "kim", by_id="1a2b3c4d").wire(["rig"])
    assert parse(wire)[0] == Order("unlock", "kim", by_id="1a2b3c4d")
    assert parse(FleetOrder("unlock", ("rig",), "kim").wire(["rig"]))[0].by_id is None
    with pytest.raises(OrderMalformed, match="by_id"):
        parse({**wire, "by_id": 7})
