"""From a placement to commands: watts first to grow, work first to shrink, eviction at last."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import (
    CancelJob,
    ComputeCommand,
    EvictUnits,
    PauseJob,
    SetNodePower,
    SetReplicas,
    StartJob,
)
from wattshift_scheduler.compute import act
from wattshift_scheduler.compute.placement import Placed, Placement
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState, Rule, Terms, Verdict
from wattshift_scheduler.site import Feeder, FeederTree, Node, Site
from wattshift_scheduler.state import NodePower, State, initial
from wattshift_scheduler.turn.reducers import reduce
from wattshift_scheduler.values import Values

NODES = ("a", "b", "c")
SITE = Site(
    "s",
    FeederTree.of([Feeder("main", None, 5000.0), Feeder("row", "main", 3000.0)]),
    tuple(Node(name, "row", 1000.0) for name in NODES),
)
SVC = Job("svc", JobKind.SERVICE, "svc", {"k": 1}, 0.0, unit_w=100.0, min_units=1, max_units=9)
BAT = Job("bat", JobKind.BATCH, "bat", {}, 0.0, unit_w=50.0, max_units=4)
FITS = Verdict(Admission.FIT, Rule.FITS, "it fits")
NEVER = Verdict(Admission.DENY, Rule.NODE, "a unit needs 2,000 W")


class Bench:
    """Jobs and nodes as plain states; the test says what is placed and what is answered."""

    def __init__(self, *jobs: Job, granted: Mapping[str, float] | None = None) -> None:
        self.now_s = 100.0
        state = initial(SITE, Values(), 1, {job.id: job for job in jobs})
        watts = {name: (granted or {}).get(name, 0.0) for name in NODES}
        nodes = {name: NodePower(w, up=True) for name, w in watts.items()}
        self.state: State = replace(state, nodes=nodes)
        self.told: list[str] = []

    def act(
        self,
        placed: Mapping[str, Mapping[str, int]],
        *,
        room_w: float = 1000.0,
        after_s: float = 1.0,
        verdict: Verdict = FITS,
    ) -> list[ComputeCommand]:
        """One step in which `placed` is what the nodes should run."""
        self.now_s += after_s
        rows, target_w = [], dict.fromkeys(NODES, 0.0)
        for name, job in self.state.jobs.items():
            if job.state.final:
                continue
            nodes = dict(placed.get(name, {}))
            for node, units in nodes.items():
                target_w[node] += units * job.unit_w
            rows.append(Placed(job, sum(nodes.values()), nodes, None, verdict))
        raise_w = dict.fromkeys(NODES, room_w)
        self.state, commands, why = act.act(
            self.state, Placement(tuple(rows), target_w), raise_w=raise_w, now_s=self.now_s
        )
        self.told += [f"{one.subject} {one.action}" for one in why]
        return list(commands)

    def hear(self, *events: ev.Event) -> None:
        for event in events:
            self.state, _ = reduce(self.state, event, self.now_s)

    def end(self, *commands: ComputeCommand, ok: bool = True, reason: str = "") -> None:
        """The commands end; a node's watts are what was asked."""
        for one in commands:
            watts_w = one.watts_w if isinstance(one, SetNodePower) else None
            self.hear(ev.CommandEnded(one.id, ok, reason, watts_w if ok else None))

    def settle(self, placed: Mapping[str, Mapping[str, int]], steps: int = 4) -> None:
        """Steps in which everything is confirmed at once."""
        for _ in range(steps):
            self.end(*self.act(placed))

    def job(self, name: str) -> Job:
        return self.state.jobs[name]


def _of(commands: list[ComputeCommand], kind: type) -> list[ComputeCommand]:
    return [one for one in commands if isinstance(one, kind)]


def test_growing_asks_for_watts_on_each_node_and_for_work_once_they_are_confirmed() -> None:
    bench = Bench(SVC)
    want = {"svc": {"a": 1, "b": 2}}
    sent = bench.act(want)
    assert {(one.node, one.watts_w) for one in sent if isinstance(one, SetNodePower)} == {
        ("a", 100.0),
        ("b", 200.0),
    }
    assert not _of(sent, SetReplicas)
    assert not bench.act(want), "while they wait nothing is asked twice"
    bench.end(*[one for one in sent if isinstance(one, SetNodePower) and one.node == "b"])
    [grown] = bench.act(want)
    assert isinstance(grown, SetReplicas)
    assert (grown.replicas, grown.nodes, grown.spec) == (2, {"b": 2}, {"k": 1})
    bench.end(*sent, grown)
    [grown] = bench.act(want)
    assert isinstance(grown, SetReplicas)
    assert (grown.replicas, grown.nodes) == (3, {"a": 1, "b": 2})
    assert bench.told == ["svc fit", "svc grow", "svc grow"]


def test_watts_are_raised_no_further_than_there_is_room() -> None:
    bench = Bench(SVC)
    sent = bench.act({"svc": {"a": 3}}, room_w=120.0)
    assert [one.watts_w for one in sent if isinstance(one, SetNodePower)] == [120.0]
    bench.end(*sent)
    [grown] = _of(bench.act({"svc": {"a": 3}}, room_w=0.0), SetReplicas)
    assert isinstance(grown, SetReplicas)
    assert grown.replicas == 1


def test_shrinking_lowers_the_work_and_asks_for_fewer_watts_again_and_again() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 3}})
    assert bench.job("svc").units == 3
    sent = bench.act({"svc": {"a": 1}})
    assert [type(one) for one in sent] == [SetReplicas, SetNodePower]
    bench.end(sent[0])
    bench.hear(ev.CommandEnded(sent[1].id, True, "", 300.0))  # Ray clamps to what is in use
    assert bench.state.nodes["a"].bound_w == 300.0
    again = [one for _ in range(4) for one in bench.act({"svc": {"a": 1}}, after_s=1.0)]
    assert [one.watts_w for one in again if isinstance(one, SetNodePower)] == [100.0]
    bench.end(*again)
    assert bench.state.nodes["a"].bound_w == 100.0


def test_a_shrink_counts_at_the_old_watts_until_it_is_confirmed() -> None:
    bench = Bench(granted={"a": 0.0})
    node = replace(bench.state.nodes["a"], asked_w=400.0)  # a raise that nobody answered
    bench.state = replace(bench.state, nodes={**bench.state.nodes, "a": node})
    [sent] = bench.act({})
    assert isinstance(sent, SetNodePower)
    assert bench.state.nodes["a"].bound_w == 400.0, "the raise may still be under way"
    bench.end(sent)
    assert bench.state.nodes["a"].bound_w == 0.0


def test_units_that_ray_keeps_where_the_watts_are_gone_are_evicted_at_last() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 2, "b": 2}})
    want = {"svc": {"a": 1, "b": 1}}
    report = ev.JobReported("svc", "running", running=4, by_node={"a": 2, "b": 2})
    bench.hear(report)
    evicted: list[EvictUnits] = []
    for second in range(8):
        sent = bench.act(want)
        evicted += [one for one in sent if isinstance(one, EvictUnits)]
        assert not evicted, f"too soon: after {second} s"
        for one in sent:
            watts_w = 200.0 if isinstance(one, SetNodePower) else None
            bench.hear(ev.CommandEnded(one.id, True, "", watts_w))
        if second == 3:  # Serve took both of its victims on b
            report = ev.JobReported("svc", "running", running=2, by_node={"a": 2})
        bench.hear(report)
        held_w = {"a": 200.0, "b": 200.0 if second < 3 else 100.0}
        bench.hear(*(ev.ComputeSeen(name, True, w) for name, w in held_w.items()))
    for _ in range(3):
        evicted += [one for one in bench.act(want) if isinstance(one, EvictUnits)]
    assert [(one.node, one.job, one.units) for one in evicted] == [("a", "svc", 1)]


def test_a_node_that_holds_too_much_takes_nothing_new() -> None:
    """A batch worker does not leave a, so the replica that is placed there has to wait."""
    there = replace(BAT, state=JobState.RUNNING, units=2, nodes={"a": 2}, by_node={"a": 2})
    bench = Bench(there, SVC, granted={"a": 200.0})
    want = {"bat": {"a": 1}, "svc": {"a": 1}}  # 150 W on a, and 200 W are held there
    sent = bench.act(want)
    assert not _of(sent, SetReplicas)
    assert [one.nodes for one in sent if isinstance(one, StartJob)] == [{"a": 1}]
    bench.end(*_of(sent, StartJob))
    bench.hear(ev.JobReported("bat", "running", by_node={"a": 1}))
    [resized] = _of(sent, SetNodePower)
    bench.end(resized)
    assert _of(bench.act(want), SetReplicas)


def test_nothing_grows_into_watts_that_units_on_their_way_out_still_hold() -> None:
    there = replace(BAT, state=JobState.RUNNING, units=2, nodes={"a": 2}, by_node={"a": 2})
    bench = Bench(there, SVC, granted={"a": 150.0})
    assert not _of(bench.act({"bat": {"a": 1}, "svc": {"a": 1}}), SetReplicas)


def test_a_batch_job_follows_its_division_and_pauses_when_none_is_left() -> None:
    bench = Bench(BAT, granted=dict.fromkeys(NODES, 100.0))
    [started] = _of(bench.act({"bat": {"a": 1, "b": 1}}), StartJob)
    assert isinstance(started, StartJob)
    assert started.nodes == {"a": 1, "b": 1}
    assert bench.job("bat").state is JobState.STARTING
    bench.end(started)
    bench.hear(ev.JobReported("bat", "running", by_node={"a": 1, "b": 1}))
    [moved] = _of(bench.act({"bat": {"b": 2}}), StartJob)
    assert isinstance(moved, StartJob)
    assert (moved.nodes, bench.job("bat").state) == ({"b": 2}, JobState.RUNNING)
    bench.end(moved)
    [paused] = _of(bench.act({}), PauseJob)
    assert bench.job("bat").state is JobState.PAUSING
    bench.end(paused)
    assert not _of(bench.act({"bat": {"b": 2}}), StartJob), "first it must have paused"
    bench.hear(ev.JobReported("bat", "paused", by_node={}))
    assert _of(bench.act({"bat": {"b": 2}}), StartJob)


def test_a_gang_starts_when_all_its_watts_are_confirmed_and_never_runs_in_part() -> None:
    gang = replace(BAT, terms=Terms(gang=True))
    bench = Bench(gang, granted={"a": 100.0, "b": 50.0})
    want = {"bat": {"a": 2, "b": 2}}
    sent = bench.act(want)
    assert not _of(sent, StartJob)
    bench.end(*sent)
    [started] = _of(bench.act(want), StartJob)
    assert isinstance(started, StartJob)
    assert started.nodes == {"a": 2, "b": 2}
    bench.end(started)
    bench.hear(ev.JobReported("bat", "running", by_node={"a": 2, "b": 2}))
    assert [type(one) for one in bench.act({"bat": {"a": 2, "c": 2}})] == [
        PauseJob,
        SetNodePower,
        SetNodePower,
    ]


def test_work_of_a_lost_node_is_asked_for_where_watts_are_and_serve_keeps_its_list() -> None:
    bench = Bench(SVC, BAT)
    bench.settle({"svc": {"a": 2}, "bat": {"a": 1}})
    bench.hear(ev.JobReported("bat", "running", by_node={"a": 1}))
    bench.hear(ev.ComputeSeen("a", False, None, "lost"))
    want = {"svc": {"b": 2}, "bat": {"b": 1}}
    sent = bench.act(want)
    assert [type(one) for one in sent] == [SetNodePower], "no pause and no stop: nobody is there"
    assert bench.job("svc").units == 2
    bench.end(*sent)
    sent = bench.act(want)
    assert [one.nodes for one in sent if isinstance(one, StartJob)] == [{"b": 1}]
    assert not _of(sent, SetReplicas), "Serve starts the two where the watts are"
    assert bench.job("svc").nodes == {"b": 2}
    assert bench.state.nodes["a"].bound_w == 250.0


def test_without_any_node_up_nothing_is_commanded_and_verdicts_are_told() -> None:
    bench = Bench(SVC)
    bench.hear(*(ev.ComputeSeen(name, False, None) for name in NODES))
    assert bench.act({"svc": {"a": 1}}) == []
    assert bench.told == ["svc fit"]


def test_a_refused_command_is_tried_again_later_and_at_last_fails_the_job() -> None:
    bench = Bench(SVC, granted={"a": 100.0})
    words, times = "no module named nowhere", []
    for _ in range(400):
        sent = bench.act({"svc": {"a": 1}})
        if _of(sent, SetReplicas):
            times.append(bench.now_s)
            bench.end(*sent, ok=False, reason=words)
        if bench.job("svc").state.final:
            break
        assert bench.job("svc").state is JobState.PENDING
        assert bench.job("svc").reason == words, "what is wrong is not talked over"
    assert bench.job("svc").state is JobState.FAILED
    assert words in bench.job("svc").reason
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps == [5.0, 10.0, 20.0, 40.0]


def test_a_bridge_that_does_not_answer_fails_no_job() -> None:
    bench = Bench(SVC, granted={"a": 100.0})
    for _ in range(200):
        bench.hear(ev.ComputeSeen("a", True, 100.0))
        sent = bench.act({"svc": {"a": 1}}, after_s=5.0)
        bench.hear(*(ev.ComputeSeen(name, False, None) for name in NODES))
        bench.end(*sent, ok=False, reason="no answer in 3 s")
    assert bench.job("svc").state is JobState.PENDING
    bench.hear(ev.ComputeSeen("a", True, 100.0))
    assert _of(bench.act({"svc": {"a": 1}}, after_s=61.0), SetReplicas)


def test_what_runs_is_not_failed_by_a_refused_growth_and_is_asked_for_again() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 1}})
    bench.hear(ev.JobReported("svc", "running", running=1, by_node={"a": 1}))
    tries = 0
    for _ in range(300):
        sent = bench.act({"svc": {"a": 2}})
        tries += len(_of(sent, SetReplicas))
        bench.end(*_of(sent, SetNodePower))
        bench.end(*_of(sent, SetReplicas), ok=False, reason="Serve is busy")
    assert tries > 5
    assert bench.job("svc").state is JobState.RUNNING


def test_a_cut_does_not_wait_for_a_jobs_back_off() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 2}})
    bench.hear(ev.JobReported("svc", "running", running=2, by_node={"a": 2}))
    later = replace(bench.job("svc"), not_before_s=bench.now_s + 50.0, refused=(3, "busy"))
    bench.state = replace(bench.state, jobs={"svc": later})
    assert not _of(bench.act({"svc": {"a": 3}}), SetReplicas)
    [sent] = _of(bench.act({"svc": {"a": 1}}), SetReplicas)
    assert isinstance(sent, SetReplicas)
    assert sent.replicas == 1


def test_a_job_that_can_never_run_fails_and_is_taken_off_if_anything_of_it_runs() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 1}})
    told = []
    for _ in range(12):  # as often as it takes: a lost command must not leave it running for ever
        sent = _of(bench.act({}, verdict=NEVER), CancelJob)
        bench.end(*sent, ok=False, reason="no answer")
        told += sent
    assert len(told) >= 2
    assert bench.job("svc").state is JobState.CANCELLING
    bench.hear(ev.JobReported("svc", "cancelled"))
    assert bench.job("svc").state is JobState.CANCELLED
    assert bench.job("svc").verdict == NEVER, "what it was refused for stays told"
    fresh = Bench(SVC)
    assert fresh.act({}, verdict=NEVER) == []
    assert fresh.job("svc").reason == NEVER.words


def test_a_cancelled_job_is_told_so_once_in_a_while() -> None:
    bench = Bench(SVC)
    bench.settle({"svc": {"a": 1}})
    bench.hear(ev.JobActed("svc", "cancel"))
    sent = []
    for _ in range(6):
        now = _of(bench.act({}), CancelJob)
        bench.end(*now)
        sent += now
    assert len(sent) == 2
    bench.hear(ev.JobReported("svc", "cancelled"))
    assert bench.job("svc").state is JobState.CANCELLED


def test_a_node_whose_watts_are_refused_is_asked_again_in_a_while_and_told_of_once() -> None:
    bench = Bench(SVC)
    asked = 0
    for _ in range(10):
        sent = bench.act({"svc": {"a": 1}})
        asked += len(sent)
        bench.end(*sent, ok=False, reason="this Ray cannot resize")
    assert asked == 5
    assert bench.state.nodes["a"].trouble == "this Ray cannot resize"


def test_a_job_that_did_not_change_is_the_same_object_and_so_is_not_written_down() -> None:
    bench = Bench(BAT)
    bench.settle({"bat": {"a": 1}})
    before = bench.job("bat")
    bench.act({"bat": {"a": 1}})
    assert bench.job("bat") is before


@pytest.mark.parametrize("units", [1, 3])
def test_a_job_of_an_older_journal_runs_on_the_first_node(units: int) -> None:
    old = replace(SVC, state=JobState.RUNNING, units=units)
    bench = Bench(old, granted={"a": units * 100.0})
    assert not _of(bench.act({"svc": {"a": units}}), SetReplicas)
