"""What the compute side says: lost nodes stay counted, unasked work is seen, progress is dated."""

from dataclasses import replace

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

FEEDERS = (
    Feeder("main", None, 5000.0),
    Feeder("west", "main", 900.0),
    Feeder("east", "main", 900.0),
)
SITE = Site(
    "s",
    FeederTree.of(FEEDERS),
    (Node("a", "west", 800.0), Node("b", "east", 400.0)),
    Rules(margin_share=0.0),
)
BAT = Job(
    "bat", JobKind.BATCH, "bat", {}, 0.0, unit_w=50.0, max_units=4, state=JobState.STARTING, units=3
)
SVC = Job("svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=100.0, min_units=1, max_units=3)


def _state(*jobs: Job) -> State:
    state = initial(SITE, Values(default_price_usd_per_mwh=10.0), 1, {job.id: job for job in jobs})
    return _after(state, 1.0, ev.ComputeSeen("a", True, 0.0), ev.ComputeSeen("b", True, 0.0))


def _after(state: State, now_s: float, *events: ev.Event) -> State:
    for event in events:
        state, _ = reduce(state, event, now_s)
    return state


def test_units_of_a_lost_node_count_until_they_are_said_to_be_elsewhere() -> None:
    state = _after(_state(BAT), 2.0, ev.JobReported("bat", "running", by_node={"a": 2, "b": 1}))
    state = _after(state, 3.0, ev.ComputeSeen("b", False, None, "lost"))
    state = _after(state, 4.0, ev.JobReported("bat", "running", by_node={"a": 2}))
    assert state.jobs["bat"].by_node == {"a": 2, "b": 1}
    state = _after(state, 5.0, ev.JobReported("bat", "running", by_node={"a": 3}))
    assert state.jobs["bat"].by_node == {"a": 3}


def test_units_that_left_a_node_that_is_up_are_believed_to_have_left() -> None:
    state = _after(_state(BAT), 2.0, ev.JobReported("bat", "running", by_node={"a": 2, "b": 1}))
    state = _after(state, 3.0, ev.JobReported("bat", "running", by_node={"a": 2, "b": 0}))
    assert state.jobs["bat"].by_node == {"a": 2}


def test_a_lost_node_keeps_its_bound_and_one_that_is_back_says_what_it_holds() -> None:
    state = _after(_state(), 2.0, ev.ComputeSeen("a", True, 300.0, used_w=200.0))
    state = _after(state, 3.0, ev.ComputeSeen("a", False, None, "lost"))
    assert (state.nodes["a"].bound_w, state.nodes["a"].up) == (300.0, False)
    assert np.isnan(state.nodes["a"].used_w)
    state = _after(state, 4.0, ev.ComputeSeen("a", True, 0.0))
    assert state.nodes["a"].bound_w == 0.0


def test_a_batch_jobs_times_begin_with_its_run_and_end_with_a_pause() -> None:
    state = _after(_state(BAT), 10.0, ev.JobReported("bat", "running", done=5, total=9))
    assert (state.jobs["bat"].began_s, state.jobs["bat"].checkpoint_s) == (10.0, None)
    told = ev.JobReported("bat", "running", checkpoint_age_s=2.0, items_failed=1, rate_per_s=3.0)
    state = _after(state, 20.0, told)
    job = state.jobs["bat"]
    assert (job.began_s, job.checkpoint_s, job.items_failed, job.rate_per_s) == (10.0, 18.0, 1, 3.0)
    pausing = replace(job, state=JobState.PAUSING)
    state = _after(replace(state, jobs={"bat": pausing}), 21.0, ev.JobReported("bat", "running"))
    assert state.jobs["bat"].began_s == 10.0, "until it has paused it runs"
    state = _after(state, 22.0, ev.JobReported("bat", "paused"))
    assert (state.jobs["bat"].began_s, state.jobs["bat"].units) == (None, 0)
    assert state.jobs["bat"].checkpoint_s == 18.0


def test_a_job_that_is_lost_starts_again_with_nothing_asked_for() -> None:
    running = replace(BAT, state=JobState.RUNNING, nodes={"a": 3}, by_node={"a": 3})
    state = _after(_state(running), 2.0, ev.JobReported("bat", "lost"))
    job = state.jobs["bat"]
    assert (job.state, job.units, job.nodes, job.by_node) == (JobState.PENDING, 0, {}, {})


def test_a_service_that_never_got_healthy_fails_with_the_applications_own_words() -> None:
    words = "not healthy within 120 s: ValueError: no such model"
    starting = replace(SVC, state=JobState.STARTING, units=1, nodes={"a": 1})
    state = _after(_state(starting), 2.0, ev.JobReported("svc", "failed", running=0, error=words))
    assert (state.jobs["svc"].state, state.jobs["svc"].reason) == (JobState.FAILED, words)


def test_a_services_report_is_taken_in_whole_and_what_is_not_told_is_unknown() -> None:
    told = ev.JobReported(
        "svc", "running", running=2, ongoing=5.0, p95_ms=80.0, desired=3, ttft_p95_ms=40.0
    )
    state = _after(_state(replace(SVC, state=JobState.RUNNING)), 2.0, told)
    job = state.jobs["svc"]
    assert (job.running, job.ongoing, job.p95_ms, job.desired, job.ttft_p95_ms) == (
        2,
        5.0,
        80.0,
        3,
        40.0,
    )
    assert [look.ongoing for look in job.load.looks] == [5.0]
    state = _after(state, 3.0, ev.JobReported("svc", "running", running=2))
    assert (state.jobs["svc"].p95_ms, state.jobs["svc"].desired) == (None, None)


def test_work_that_asked_for_no_watts_is_counted_at_its_feeder_and_named() -> None:
    work = ev.ComputeSeen("a", True, 0.0, unasked_w=120.0, unasked=("actor Foo 12 CPU: 120 W",))
    state, _, _ = step(_state(), [work], 2.0)
    assert state.verdict is not None
    assert budget.budget(state, state.verdict, 2.0).fixed_w.tolist() == [120.0, 0.0, 120.0]
    assert state.outlook.other_w == 120.0
    assert "actor Foo 12 CPU" in state.alarms["unasked:a"].text
    state, _, _ = step(state, [ev.ComputeSeen("a", True, 0.0, unasked_w=None)], 3.0)
    assert state.outlook.other_w == 120.0, "unknown is not zero"
    assert "Foo" in state.alarms["unasked:a"].text
    state, _, _ = step(state, [ev.ComputeSeen("a", True, 0.0, unasked_w=2.0)], 4.0)
    assert "unasked:a" not in state.alarms
    state, _, _ = step(state, [ev.ComputeSeen("b", True, 0.0, unasked_w=4.5)], 5.0)
    assert "unasked:b" not in state.alarms, "less than half a core is noise"
    for seen_w, told in ((5.5, True), (3.0, True), (2.0, False)):
        state, _, _ = step(state, [ev.ComputeSeen("b", True, 0.0, unasked_w=seen_w)], 6.0)
        assert ("unasked:b" in state.alarms) is told, "it does not flap about its threshold"


def test_unasked_work_leaves_less_for_what_asks() -> None:
    state, _, _ = step(_state(SVC), [ev.ComputeSeen("a", True, 0.0, unasked_w=850.0)], 2.0)
    assert state.nodes["a"].asked_w != 100.0


def test_a_node_that_the_site_file_does_not_name_is_alarmed_and_never_commanded() -> None:
    state, commands, _ = step(_state(SVC), [ev.ComputeSeen("x", True, 500.0)], 2.0)
    assert state.alarms["unknown-node:x"].severity == "critical"
    assert all(getattr(one, "node", "") != "x" for one in commands)
    state, _, _ = step(state, [ev.ComputeSeen("x", False, None)], 3.0)
    assert "unknown-node:x" not in state.alarms


def test_strangers_are_remembered_up_to_a_bound() -> None:
    crowd = [ev.ComputeSeen(f"x{n}", True, 0.0) for n in range(100)]
    assert len(_after(_state(), 2.0, *crowd).strangers) == 16


def test_an_answer_about_watts_keeps_what_else_is_known_of_the_node() -> None:
    seen = ev.ComputeSeen("a", True, 0.0, unasked_w=7.0, labels={"k": "v"}, gpus=2.0)
    state, sent, _ = step(_state(SVC), [seen], 2.0)
    ends = [ev.CommandEnded(one.id, True, "", getattr(one, "watts_w", None)) for one in sent]
    node = _after(state, 3.0, *ends).nodes["a"]
    assert (node.unasked_w, node.labels, node.gpus) == (7.0, {"k": "v"}, 2.0)


def test_a_node_whose_work_does_not_leave_is_alarmed() -> None:
    state = _after(_state(), 2.0, ev.ComputeSeen("a", True, 300.0))
    for second in range(3, 24):
        seen = ev.ComputeSeen("a", True, 300.0)
        state, commands, _ = step(state, [seen], float(second))
        ends = [ev.CommandEnded(one.id, True, "", 300.0) for one in commands]
        state = _after(state, float(second), *ends)
    assert "compute-short:a" in state.alarms


@pytest.mark.parametrize("order", [0, 1])
def test_the_first_and_the_second_service_grow_on_their_own_nodes_in_one_step(order: int) -> None:
    """A step with two nodes: both are asked for watts at once, and no feeder above its limit."""
    names = ("a", "b") if order else ("b", "a")
    jobs = [
        replace(SVC, id=f"s-{name}", terms=replace(SVC.terms, selector=(("n", name),)))
        for name in names
    ]
    state = _state(*jobs)
    seen = [ev.ComputeSeen(name, True, 0.0, labels={"n": name}) for name in ("a", "b")]
    _, commands, _ = step(state, seen, 2.0)
    assert {getattr(one, "node", "") for one in commands} == {"a", "b"}
