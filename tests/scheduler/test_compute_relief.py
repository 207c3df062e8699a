"""Power limits of units: they free watts when confirmed and go up only where there is room (I1)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import ComputeCommand, LimitUnits
from wattshift_scheduler.compute import act
from wattshift_scheduler.compute.placement import Placed, Placement
from wattshift_scheduler.jobs import (
    Admission,
    Job,
    JobKind,
    JobState,
    PowerStep,
    Rule,
    Terms,
    Verdict,
)
from wattshift_scheduler.site import Feeder, FeederTree, Node, Site
from wattshift_scheduler.state import NodePower, State, initial
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

SITE = Site(
    "s",
    FeederTree.of([Feeder("main", None, 5000.0)]),
    (Node("a", "main", 1000.0), Node("b", "main", 1000.0)),
)
STEPS = (PowerStep(200.0, 0.9), PowerStep(150.0, 0.7))
SVC = Job(
    "svc",
    JobKind.SERVICE,
    "svc",
    {},
    0.0,
    unit_w=300.0,
    min_units=1,
    max_units=4,
    state=JobState.RUNNING,
    units=3,
    running=3,
    nodes={"a": 2, "b": 1},
    by_node={"a": 2, "b": 1},
    terms=Terms(flexibility=3, steps=STEPS),
)
FITS = Verdict(Admission.FIT, Rule.FITS, "it fits")


class Bench:
    """One service on two nodes, all of its watts granted."""

    def __init__(self, job: Job = SVC) -> None:
        self.now_s = 0.0
        state = initial(SITE, Values(), 1, {job.id: job})
        nodes = {"a": NodePower(600.0, up=True), "b": NodePower(300.0, up=True)}
        self.state: State = replace(state, nodes=nodes)

    def act(
        self,
        limit_w: float | None,
        *,
        room_w: float = 0.0,
        nodes: Mapping[str, int] | None = None,
    ) -> list[LimitUnits]:
        self.now_s += 1.0
        job, nodes = self.state.jobs["svc"], {"a": 2, "b": 1} if nodes is None else nodes
        rows = () if job.state.final else (Placed(job, sum(nodes.values()), nodes, limit_w, FITS),)
        target_w = {name: nodes.get(name, 0) * 300.0 for name in ("a", "b")}
        raise_w = {"a": room_w, "b": room_w}
        self.state, commands, _ = act.act(
            self.state, Placement(rows, target_w), raise_w=raise_w, now_s=self.now_s
        )
        self.others: list[ComputeCommand] = [c for c in commands if not isinstance(c, LimitUnits)]
        return [one for one in commands if isinstance(one, LimitUnits)]

    def hear(self, *events: ev.Event) -> None:
        for event in events:
            self.state, _ = reduce(self.state, event, self.now_s)

    def end(self, sent: list[LimitUnits], watts_w: Any = "as asked") -> None:
        for one in sent:
            enforced_w = one.watts_w if watts_w == "as asked" else watts_w
            self.hear(ev.CommandEnded(one.id, True, "", enforced_w))

    def bounds_w(self) -> tuple[float, float]:
        return self.state.nodes["a"].bound_w, self.state.nodes["b"].bound_w


def test_a_limit_frees_watts_only_when_it_is_confirmed_and_as_far_as_it_is_enforced() -> None:
    bench = Bench()
    sent = bench.act(200.0)
    assert [(one.node, one.job, one.watts_w) for one in sent] == [
        ("a", "svc", 200.0),
        ("b", "svc", 200.0),
    ]
    assert bench.bounds_w() == (600.0, 300.0)
    assert bench.act(200.0) == []
    bench.hear(ev.CommandEnded(sent[0].id, True, "", 210.0))
    assert bench.bounds_w() == (420.0, 300.0)
    assert bench.state.nodes["a"].relief_w == 180.0
    bench.hear(ev.CommandEnded(sent[1].id, True, "", 200.0))
    assert bench.bounds_w() == (420.0, 200.0)
    assert bench.state.jobs["svc"].unit_limit_w == 200.0


def test_a_limited_replica_holds_its_watts_in_ray_all_the_same() -> None:
    """No shrink of power_w and no eviction: it is the draw that is limited, not the claim."""
    bench = Bench()
    bench.end(bench.act(200.0))
    for _ in range(12):
        bench.act(200.0)
        assert bench.others == []


def test_a_limit_goes_lower_at_once_and_keeps_what_was_confirmed_until_then() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    sent = bench.act(150.0)
    assert len(sent) == 2
    assert bench.bounds_w() == (400.0, 200.0)
    bench.end(sent)
    assert bench.bounds_w() == (300.0, 150.0)


def test_a_limit_is_lifted_only_with_room_and_counts_in_full_before_it_is() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    sent = bench.act(None, room_w=50.0)
    assert sent == []
    sent = bench.act(None, room_w=150.0)
    assert [(one.node, one.watts_w) for one in sent] == [("b", None)]
    assert bench.bounds_w() == (400.0, 300.0), "the two on a need 200 W of room"
    sent += bench.act(None, room_w=200.0)
    assert [(one.node, one.watts_w) for one in sent] == [("b", None), ("a", None)]
    assert bench.bounds_w() == (600.0, 300.0), "before anybody has raised anything"
    bench.end(sent, None)
    assert "svc" not in bench.state.nodes["a"].limits


def test_room_is_not_given_twice_to_a_limit_and_to_a_raise_of_the_same_node() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    bench.act(None, room_w=250.0, nodes={"a": 3, "b": 1})
    assert bench.bounds_w()[0] <= 400.0 + 250.0 + 1e-6


def test_a_raise_to_a_higher_step_needs_the_room_of_none_at_all() -> None:
    bench = Bench()
    bench.end(bench.act(150.0))
    assert bench.act(200.0, room_w=149.0) == []
    sent = bench.act(200.0, room_w=300.0)
    assert [one.watts_w for one in sent] == [200.0, 200.0]
    assert bench.bounds_w() == (600.0, 300.0)
    bench.end(sent)
    assert bench.bounds_w() == (400.0, 200.0)


def test_what_has_no_more_units_there_frees_nothing() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    bench.hear(ev.JobReported("svc", "running", running=2, by_node={"a": 1, "b": 1}))
    assert bench.bounds_w() == (500.0, 200.0), "one left, and its watts may be taken by another"
    bench.hear(ev.JobReported("svc", "running", running=3, by_node={"a": 2, "b": 1}))
    assert bench.bounds_w() == (400.0, 200.0)


def test_a_unit_that_came_later_is_not_taken_for_limited_and_is_asked_for() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    node = replace(bench.state.nodes["a"], granted_w=900.0)
    bench.state = replace(bench.state, nodes={**bench.state.nodes, "a": node})
    bench.hear(ev.JobReported("svc", "running", running=4, by_node={"a": 3, "b": 1}))
    assert bench.state.nodes["a"].bound_w == 700.0
    sent = [one for _ in range(11) for one in bench.act(200.0, nodes={"a": 3, "b": 1})]
    assert [(one.node, one.watts_w) for one in sent] == [("a", 200.0)]
    bench.end(sent)
    assert bench.state.nodes["a"].bound_w == 600.0


def test_a_confirmed_limit_that_ends_again_is_no_longer_counted() -> None:
    """The controller's session saw another limit on the card, or replicas on other cards."""
    bench = Bench()
    sent = bench.act(200.0)
    bench.end(sent)
    bench.hear(ev.CommandEnded(sent[0].id, False, "raised by somebody else"))
    assert bench.bounds_w() == (600.0, 200.0)
    bench.hear(ev.CommandEnded(sent[0].id, True, "", 200.0))
    assert bench.bounds_w() == (600.0, 200.0), "the first answer, come twice, proves nothing"


def test_a_refused_limit_puts_the_steps_aside_for_a_while() -> None:
    bench = Bench()
    [first, _] = bench.act(200.0)
    bench.hear(ev.CommandEnded(first.id, False, "limits are only read here"))
    assert not bench.state.jobs["svc"].terms.steps
    assert bench.bounds_w() == (600.0, 300.0)
    for _ in range(299):
        bench.act(None, room_w=1000.0)
        assert not bench.state.jobs["svc"].terms.steps
    for _ in range(3):
        bench.act(None, room_w=1000.0)
    assert list(bench.state.jobs["svc"].terms.steps) == list(STEPS)


def test_a_limit_of_which_nothing_was_read_back_is_asked_again_only_in_a_while() -> None:
    bench, sent = Bench(), 0
    for _ in range(25):
        now = bench.act(200.0)
        sent += len(now)
        bench.end(now, None)
        assert bench.bounds_w() == (600.0, 300.0)
    assert sent == 6


def test_the_limit_of_a_job_that_has_ended_is_lifted() -> None:
    bench = Bench()
    bench.end(bench.act(200.0))
    bench.hear(ev.JobReported("svc", "failed", error="gone"))
    assert bench.bounds_w() == (600.0, 300.0)
    sent = bench.act(None)
    assert [one.watts_w for one in sent] == [None, None]
    bench.end(sent, None)
    assert not bench.state.nodes["a"].limits


def test_a_limit_from_before_a_restart_is_lifted_when_none_is_wanted() -> None:
    bench = Bench(replace(SVC, unit_limit_w=200.0))
    sent = bench.act(None)
    assert [(one.node, one.watts_w) for one in sent] == [("a", None), ("b", None)]
    bench.end(sent, None)
    assert bench.act(None) == []


@pytest.mark.parametrize("enforced_w", [300.0, 350.0])
def test_a_limit_that_limits_nothing_frees_nothing(enforced_w: float) -> None:
    bench = Bench()
    bench.end(bench.act(200.0), enforced_w)
    assert bench.bounds_w() == (600.0, 300.0)
