"""A lost node is forgotten on a person's word alone, counts nothing then, and comes back as new."""

import math
from dataclasses import replace

import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.compute.forgetting import FORGET_AFTER_S, names, refusal
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import Limited, Sent, State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

FEEDERS = (Feeder("main", None, 1200.0),)
NODES = (Node("a", "main", 900.0), Node("b", "main", 600.0))
SITE = Site("s", FeederTree.of(FEEDERS), NODES, Rules(margin_share=0.0))
VALUES = Values(default_price_usd_per_mwh=10.0)
JOB = Job(
    "bat", JobKind.BATCH, "bat", {}, 0.0, unit_w=300.0, max_units=3, state=JobState.RUNNING,
    units=3, nodes={"a": 1, "b": 2}, by_node={"a": 1, "b": 2}, running=3, began_s=0.0,
)  # fmt: skip
FORGET = ev.NodeForgotten("b", "ann")


def seen(node: str, watts_w: float | None, *, up: bool = True) -> ev.ComputeSeen:
    return ev.ComputeSeen(node, up, watts_w if up else None, unasked_w=20.0 if up else None)


def after(state: State, now_s: float, *events: ev.Event) -> State:
    return step(state, events, now_s)[0]


def lost() -> State:
    """Two of three workers are on a node that was lost at 10 s, with 600 W granted to it."""
    state = initial(SITE, VALUES, 1, {"bat": JOB})
    state = after(state, 1.0, seen("a", 300.0), seen("b", 600.0))
    b = state.nodes["b"]
    limit = Limited(7, 250.0, 1.0, 2, 250.0, 2)
    state = replace(state, nodes={**state.nodes, "b": replace(b, limits={"bat": limit})})
    return after(state, 10.0, seen("b", None, up=False))


def counted_w(state: State) -> float:
    return state.outlook.committed_w


def test_its_watts_and_units_go_to_others_on_a_persons_word() -> None:
    state = lost()
    state = after(state, 100.0, seen("b", None, up=False), seen("a", 300.0))
    assert counted_w(state) == 300.0 + 600.0 + 2 * 20.0, "its watts, and unasked as last seen"
    assert state.jobs["bat"].by_node == {"a": 1, "b": 2}, "its units may still run there"
    new, told = reduce(state, FORGET, 101.0)
    (word,) = told
    assert (word.subject, word.action, word.inputs["freed_w"]) == ("b", "forget", 600.0)
    assert "by ann, who vouches" in word.reason
    assert names(new) == {"b"}
    assert new.jobs["bat"].by_node == {"a": 1}
    new = after(new, 102.0, seen("b", None, up=False))
    assert counted_w(new) == 900.0 + 20.0, "a with its raise, and of b nothing"
    assert new.nodes["b"].bound_w == 0.0
    assert new.nodes["a"].asked_w == 900.0, "all three workers, on the node that is there"
    assert "compute-forgotten:b" in new.alarms
    assert "compute-down:b" not in new.alarms


@pytest.mark.parametrize("told_w", [0.0, 450.0, None])
def test_it_comes_back_as_a_node_of_which_nothing_is_known(told_w: float | None) -> None:
    state = after(lost(), 101.0, FORGET)
    state, told = reduce(state, seen("b", told_w), 200.0)
    node = state.nodes["b"]
    assert [one.action for one in told] == ["up"]
    assert (node.up, node.forgotten, node.limits) == (True, False, {})
    assert math.isnan(node.asked_w)
    most_w = NODES[1].max_w
    assert node.bound_w == (most_w if told_w is None else told_w), "unknown counts at its most"
    state = after(state, 201.0, seen("b", None, up=False))
    assert refusal(state.nodes["b"], 202.0), "it has its minute of silence anew"


def test_a_late_answer_for_it_is_believed_at_once() -> None:
    state = lost()
    state = after(replace(state, sent={9: Sent("set_node_power", "b", 9.0)}), 101.0, FORGET)
    state, _ = reduce(state, ev.CommandEnded(9, True, "", 500.0), 102.0)
    node = state.nodes["b"]
    assert (node.bound_w, node.forgotten, node.up) == (500.0, False, True)


def test_what_answers_is_never_forgotten_and_what_is_silent_only_after_a_while() -> None:
    state = lost()
    assert "Ray answers there" in str(refusal(state.nodes["a"], 500.0))
    assert "silent for 30 s" in str(refusal(state.nodes["b"], 40.0))
    assert refusal(state.nodes["b"], 10.0 + FORGET_AFTER_S) is None
    flapped = after(state, 40.0, seen("b", 600.0))
    flapped = after(flapped, 50.0, seen("b", None, up=False))
    assert "silent for 30 s" in str(refusal(flapped.nodes["b"], 80.0))
    unseen = initial(SITE, VALUES, 1).nodes["b"]
    assert "not known to be silent" in str(refusal(unseen, 1e9)), "nobody has looked"
    assert "already" in str(refusal(after(state, 101.0, FORGET).nodes["b"], 500.0))
    there = after(state, 101.0, seen("b", 600.0))
    for node in ("b", "nobody"):
        same, told = reduce(there, ev.NodeForgotten(node, "ann"), 102.0)
        assert (same.nodes, told) == (there.nodes, ())


def test_a_controller_that_starts_knows_who_was_forgotten() -> None:
    state = initial(SITE, VALUES, 2, {}, forgotten=frozenset({"b", "not of this site"}))
    assert (state.nodes["a"].bound_w, state.nodes["b"].bound_w) == (900.0, 0.0)
    assert names(state) == {"b"}
