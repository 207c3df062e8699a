"""A long queue: what kin have learnt changes no division, and nothing changes while nothing does.

And the order in which classes give power, stated to the last whole step.
"""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from benchmarks import placement_pass
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler import worth
from wattshift_scheduler.compute import filling, placement, pools, shedding, verdicts
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placement, place
from wattshift_scheduler.compute.tenants import Shares
from wattshift_scheduler.jobs import FLEXIBILITY_LOSS, Job, JobKind, JobState, PowerStep, Terms
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import NodePower
from wattshift_scheduler.step import step

QUEUED, NODES = 120, 12


def _moments(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[tuple[Ground, list[Job]]]:
    """A queue before an empty site, a full one, one that is pushed, and one that is cut."""
    monkeypatch.setattr(placement_pass, "NODES", NODES)
    monkeypatch.setattr(placement_pass, "MOST_RUNNING", QUEUED)
    monkeypatch.setattr(placement_pass, "SEED", seed)
    site = placement_pass._site()
    queue, runs = placement_pass._at_rest(site, QUEUED)
    others = placement_pass._jobs(QUEUED, seed + 1)
    full, cut = placement_pass._ground(site, 1.0), placement_pass._ground(site, 0.6)
    return [
        (full, queue),
        (full, [*queue, *runs]),
        (full, [*others, *runs]),
        (cut, [*others, *runs]),
    ]


def _never_known(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(filling._Filling, "_now", lambda *_: next(numbers))


def test_what_one_of_its_kin_was_refused_is_refused_as_if_it_had_been_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(4):
        for ground, jobs in _moments(monkeypatch, seed):
            known = place(ground, jobs)
            with monkeypatch.context() as patch:
                _never_known(patch)
                assert place(ground, jobs) == known


def _units(done: Placement) -> dict[str, dict[str, int]]:
    return {one.job.id: dict(one.nodes) for one in done.placed}


def test_a_quota_that_nobody_can_free_is_refused_as_if_it_had_been_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a tenant's own work could give back at most spares the tries, and costs no unit."""
    lost = 0
    for ground, jobs in _moments(monkeypatch, 1):
        known = _units(place(ground, jobs))
        with monkeypatch.context() as patch:
            patch.setattr(Shares, "within", _within_without(Shares.within))
            assert _units(place(ground, jobs)) == known
        with monkeypatch.context() as patch:
            patch.setattr(pools.Pool, "_own", lambda *_: None)
            lost += _units(place(ground, jobs)) != known
    assert lost, "the guard is needed"


def _within_without(was: Any) -> Any:
    """As ever, but that what might be freed is taken for all there is."""

    def within(self: Any, job: Job, ceiling: Any, units: int, *less: float) -> bool:
        return bool(less) or bool(was(self, job, ceiling, units))

    return within


def test_what_was_learnt_of_a_gang_that_is_taken_back_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site("s", FeederTree.of([Feeder("main", None, 800.0)]), (Node("n", "main", 800.0),))
    single = Job("single", JobKind.BATCH, "b", {}, 1.0, unit_w=300.0)
    gang = replace(single, id="gang", submitted_s=0.0, max_units=3, terms=Terms(gang=True))
    powers = {"n": NodePower(800.0, up=True)}
    room_w = site.tree.limit_w
    cap = Arbitrated(800.0, "connection", NO_CAP)
    ground = Ground(site, powers, room_w, room_w, cap, (), 1.0)

    def units() -> dict[str, int]:
        done = placement.place(
            replace(ground, room_w=room_w * 0.9), [replace(gang, done=1), single]
        )
        return {one.job.id: one.units for one in done.placed}

    assert units() == {"gang": 0, "single": 1}
    monkeypatch.setattr(filling._Filling, "_now", lambda *_: 0)
    assert units() == {"gang": 0, "single": 0}, "the guard is needed"


def test_a_queue_at_rest_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ground, jobs = _moments(monkeypatch, 3)[1]
    state = placement_pass._state(ground.site, jobs)
    for second in range(3):
        before = state
        state, _, _ = step(state, (), placement_pass.NOW_S + second)
    assert [name for name, job in state.jobs.items() if before.jobs[name] is not job] == []


def test_what_is_left_of_a_limit_is_no_news_while_it_hardly_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site("s", FeederTree.of([Feeder("main", None, 2000.0)]), (Node("n", "main", 1000.0),))
    held = Job("held", JobKind.BATCH, "b", {}, 0.0, unit_w=800.0)
    held = replace(held, state=JobState.RUNNING, units=1, nodes={"n": 1}, by_node={"n": 1})
    queue = [Job(f"q{i}", JobKind.BATCH, "b", {}, 1.0, unit_w=200.0) for i in range(20)]
    room_w, cap = site.tree.limit_w, Arbitrated(2000.0, "connection", NO_CAP)

    def changed(*unasked_w: float) -> int:
        jobs, found = [held, *queue], 0
        for watts_w in (60.0, *unasked_w):
            powers = {"n": NodePower(1000.0, up=True, unasked_w=watts_w)}
            done = place(Ground(site, powers, room_w, room_w, cap, (), 2.0), jobs)
            found = sum(one.verdict is not one.job.verdict for one in done.placed)
            jobs = [replace(one.job, verdict=one.verdict) for one in done.placed]
        return found

    assert changed() == 21
    assert changed(63.0) == changed(63.0, 58.0) == 0
    assert changed(90.0) == 20, "more than a twentieth of what a unit needs is told"
    monkeypatch.setattr(verdicts, "STEADY_SHARE", -1.0)
    assert changed(63.0) == 20


def test_a_job_of_an_older_journal_that_is_held_keeps_nothing() -> None:
    site = Site("s", FeederTree.of([Feeder("main", None, 500.0)]), (Node("n", "main", 500.0),))
    job = Job("a", JobKind.SERVICE, "a", {}, 0.0, unit_w=100.0, units=1, held=True)
    powers = {"n": NodePower(500.0, up=True)}
    room_w = site.tree.limit_w
    ground = Ground(site, powers, room_w, room_w, Arbitrated(500.0, "c", NO_CAP), (), 0.0)
    assert place(ground, [replace(job, state=JobState.RUNNING)]).placed[0].units == 0


# Which class gives power, and how much: whole steps of whole services.

STEPS = (PowerStep(90.0, 0.95), PowerStep(80.0, 0.88), PowerStep(65.0, 0.76), PowerStep(45.0, 0.5))


def _event(units: tuple[int, ...], classes: tuple[int, ...], share: float) -> Placement:
    """Services of a site under a cap of a share of what they draw."""
    total_w = 100.0 * sum(units)
    tree = FeederTree.of([Feeder("main", None, total_w)])
    site = Site("s", tree, (Node("n", "main", total_w),), Rules(margin_share=0.0))
    jobs = [
        Job(
            f"j{i}", JobKind.SERVICE, "j", {}, 0.0, unit_w=100.0, min_units=count, max_units=count,
            state=JobState.RUNNING, units=count, running=count, wanted=count, nodes={"n": count},
            by_node={"n": count}, value_usd_per_h=1.0 + i,
            terms=Terms(flexibility=flexibility, steps=STEPS),
        )
        for i, (count, flexibility) in enumerate(zip(units, classes, strict=True))
    ]  # fmt: skip
    room_w = tree.limit_w * share
    cap = Arbitrated(float(room_w[0]), "operator", "event")
    powers = {"n": NodePower(total_w, up=True)}
    return place(Ground(site, powers, room_w, room_w, cap, (), 0.0), jobs)


def _out_of_order(done: Placement, cap_w: float) -> list[str]:
    """Services under a power limit of which one whole step less would have done, had every more
    flexible one given all that its class allows."""
    found = []
    for one in done.placed:
        if one.unit_limit_w is None:
            continue
        steps = [100.0, *(step.watts_w for step in worth.allowed(one.job))]
        higher_w = steps[steps.index(one.unit_limit_w) - 1]
        drawn_w = one.units * higher_w
        for other in done.placed:
            if other is one:
                continue
            unit_w = other.job.unit_w if other.unit_limit_w is None else other.unit_limit_w
            if other.job.terms.flexibility > one.job.terms.flexibility:
                unit_w = min([100.0, *(step.watts_w for step in worth.allowed(other.job))])
            drawn_w += other.units * unit_w
        if drawn_w <= cap_w + 1e-6:
            found.append(f"{one.job.id} at {one.unit_limit_w:.0f} W")
    return found


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(
    jobs=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=2, max_size=6),
    share=st.floats(0.5, 1.0),
)
def test_no_class_gives_a_step_that_the_more_flexible_ones_could_have_given(
    jobs: list[tuple[int, int]], share: float
) -> None:
    done = _event(tuple(n for n, _ in jobs), tuple(c for _, c in jobs), share)
    if any(one.units < one.job.min_units for one in done.placed):
        return  # power was not enough, and replicas went: another rule
    assert _out_of_order(done, 100.0 * sum(n for n, _ in jobs) * share) == []
    for one in done.placed:
        kept = {step.watts_w: step.throughput for step in STEPS}.get(one.unit_limit_w or 0.0, 1.0)
        assert kept >= 1.0 - FLEXIBILITY_LOSS[one.job.terms.flexibility] - 1e-9


def test_what_the_last_whole_step_leaves_over_goes_to_whom_it_is_enough() -> None:
    """The class that gave last has the first claim on it; where it is less than a step of that
    class's service, a more flexible and smaller one gets it back."""
    done = _event((10, 2), (2, 3), 0.89)
    limits = {one.job.id: one.unit_limit_w for one in done.placed}
    # Class 3 alone can give 110 W of the 132 W; a step of class 2 gives 100 W at once, and of the
    # 78 W too much one step of class 3 takes 70 W: none of class 2 is as small.
    assert limits == {"j0": 90.0, "j1": 80.0}


def test_the_rule_can_be_seen_to_break(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict_first(seat: Any) -> tuple[float, str]:
        return (seat.job.terms.flexibility, seat.job.id)

    monkeypatch.setattr(shedding, "_flexible_first", strict_first)
    assert _out_of_order(_event((4, 4), (1, 3), 0.9), 720.0) != []
