"""Batch that rests through dear hours: only what the plan knows, has the time, and pays for it."""

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import ComputeCommand, PauseJob, SetNodePower, StartJob
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.jobs import Job, JobKind, JobState, Rule, Terms
from wattshift_scheduler.plan.deadlines import needs_s
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.words import Ahead, Batch, Plan, Standing
from wattshift_scheduler.site import Node

_SPEC = spec_from_file_location("plan_rig", Path(__file__).with_name("test_plan_acting.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
rig = module_from_spec(_SPEC)
_SPEC.loader.exec_module(rig)

UNIT_W, WORTH, STEP_S = 50_000.0, 12.0, rig.STEP_S
CHEAP_AT = 8
"""The interval in which the price falls to 8 USD/MWh again; until then it is what is in force."""


def job(**changes: Any) -> Job:
    one = Job("b", JobKind.BATCH, "b", {"devices": []}, 0.0, unit_w=UNIT_W, deadline_s=30_000.0)
    return one.changed(**{"rate_per_s": 0.1, "done": 0, "total": 100, **changes})


def standing(now_s: float, price: float, **columns: Any) -> Standing:
    shadow = np.where(np.arange(12) >= CHEAP_AT, 8.0, price)
    given = {"batch_usd_per_mwh": {"b": WORTH}, "needs_s": {"b": 1000.0}}
    told: Standing = rig.standing(
        now_s, price_usd_per_mwh=shadow, shadow_usd_per_mwh=shadow, **{**given, **columns}
    )
    return told


def _reported(state: str, by_node: dict[str, int], rate_per_s: float | None) -> ev.Event:
    return ev.JobReported("b", state, done=0, total=100, by_node=by_node, rate_per_s=rate_per_s,
                          checkpoint_age_s=0.0)  # fmt: skip


class Yard(rig.Site1):  # type: ignore[misc,name-defined]
    """A machine, and a node whose Ray does at once as it is told."""

    def batch(self, price: float, *events: ev.Event, later_s: float = 30.0) -> None:
        """A turn, and what the compute side answers."""
        self.commands.clear()
        self.turn(price, *events, later_s=later_s)
        for one in [c for c in self.commands if isinstance(c, ComputeCommand)]:
            watts_w = one.watts_w if isinstance(one, SetNodePower) else None
            told: list[ev.Event] = [ev.CommandEnded(one.id, True, "", watts_w)]
            if isinstance(one, StartJob):
                told.append(_reported("running", {"host": 1}, 0.1))
            if isinstance(one, PauseJob):
                told.append(_reported("paused", {}, None))
            self.turn(price, *told, later_s=0.5)

    @property
    def runs(self) -> bool:
        return bool(self.state.jobs["b"].units)


def yard() -> Yard:
    return Yard((rig.machine("m"),), nodes=(Node("host", "main", UNIT_W),))


def running(one: Job) -> Yard:
    site = yard()
    site.batch(10.0, ev.JobSubmitted(one))
    site.batch(10.0)
    assert site.state.jobs["b"].state is JobState.RUNNING
    return site


@pytest.mark.parametrize(
    ("change", "columns", "waits"),
    [
        ({}, {}, True),
        ({}, {"batch_usd_per_mwh": {}}, False),
        ({"deadline_s": 3000.0}, {}, False),
        ({"rate_per_s": None}, {}, True),
        ({}, {"needs_s": {}}, False),
        ({}, {"needs_s": {"b": 26_000.0}}, False),
        ({"deadline_s": None}, {}, False),
        ({"deadline_s": None, "value_usd_per_h": 0.5}, {}, True),
        ({"deadline_s": None, "value_usd_per_h": 1.0}, {}, False),
    ],
)
def test_a_job_starts_later_where_its_own_hours_are_cheaper_and_it_has_the_time(
    change: dict[str, Any], columns: dict[str, Any], waits: bool
) -> None:
    """At 15 USD/MWh; half a USD an hour for 50 kW is 10 USD/MWh, one is 20."""
    site = yard()
    told = standing(site.now_s, 15.0, **columns)
    site.batch(15.0, ev.PlanUpdated(told), ev.JobSubmitted(job(**change)))
    verdict = site.state.jobs["b"].verdict
    assert verdict is not None
    assert (verdict.rule is Rule.PLAN) == waits
    assert site.runs != waits
    if waits:
        assert verdict.expected_s == told.start_s + CHEAP_AT * STEP_S
        assert ("deadline" in verdict.words) == (site.state.jobs["b"].deadline_s is not None)
        site.batch(8.0, later_s=60.0)
        assert site.runs, "the price in force counts, and not the one that was foreseen"


def test_a_job_that_runs_rests_at_its_checkpoint_and_goes_on_when_it_is_cheap() -> None:
    site = running(job())
    told = standing(site.now_s, 300.0)
    site.batch(300.0, ev.PlanUpdated(told))
    now = site.state.jobs["b"]
    assert now.state is JobState.PAUSED
    assert not now.units
    assert now.verdict is not None
    assert now.verdict.rule is Rule.PLAN
    assert now.rate_per_s is None, "nobody tells the rate of what rests; the plan knows its need"
    site.batch(300.0, later_s=120.0)
    assert not site.runs
    site.batch(10.0)
    assert site.runs


@pytest.mark.parametrize(
    ("carbon", "deadline_s", "rests"),
    [(None, 30_000.0, False), (1.0, 30_000.0, False), (4.0, 30_000.0, True), (4.0, None, True)],
)
def test_the_carbon_of_now_counts_as_that_of_the_plan_does(
    carbon: float | None, deadline_s: float | None, rests: bool
) -> None:
    """Energy costs 10 USD/MWh, the job is worth 12, a price on carbon counted in."""
    site = yard()
    column = None if carbon is None else np.full(12, carbon)
    told = standing(site.now_s, 10.0 + (carbon or 0.0), carbon_usd_per_mwh=column)
    one = job(deadline_s=deadline_s, value_usd_per_h=0.0 if deadline_s else WORTH * UNIT_W / 1e6)
    site.batch(10.0, ev.PlanUpdated(told), ev.JobSubmitted(one))
    assert site.runs != rests


def test_what_a_plan_counts_for_carbon_is_handed_over() -> None:
    """0.5 t/MWh at 80 USD/t."""
    grams = Band.of(np.full(4, 500.0))
    plan = plan_of([10.0] * 4, carbon_g_per_kwh=grams, carbon_usd_per_t=80.0)
    assert plan.price_usd_per_mwh.tolist() == pytest.approx([50.0] * 4)
    assert plan.carbon_usd_per_mwh is not None
    assert plan.carbon_usd_per_mwh.tolist() == pytest.approx([40.0] * 4)
    handed = Standing.of(plan).carbon_usd_per_mwh
    assert handed is not None
    assert handed.tolist() == pytest.approx([40.0] * 4)
    assert plan_of([10.0] * 4).carbon_usd_per_mwh is None


def test_a_restart_that_costs_more_than_the_dear_hours_is_not_worth_it() -> None:
    """For 40 min at 3 USD/MWh above its worth it would save a tenth of a USD."""
    for value_usd_per_h, rests in ((0.0, True), (30.0, False)):
        site = running(job(value_usd_per_h=value_usd_per_h))
        site.batch(15.0, ev.PlanUpdated(standing(site.now_s, 15.0)))
        assert site.runs != rests, value_usd_per_h


def test_what_was_not_saved_for_long_does_not_rest() -> None:
    site = running(job())
    one = site.state.jobs["b"]
    long_ago = one.changed(checkpoint_s=site.now_s - 9e3, began_s=site.now_s - 1e4)
    site.state = rig.replace(site.state, jobs={"b": long_ago})
    site.batch(15.0, ev.PlanUpdated(standing(site.now_s, 15.0)))
    assert site.runs


def test_what_must_run_for_a_while_yet_does_not_rest() -> None:
    site = running(job(terms=Terms(min_run_s=3600.0)))
    site.batch(300.0, ev.PlanUpdated(standing(site.now_s, 300.0)))
    assert site.runs


def test_a_plan_that_has_expired_lets_it_go_on() -> None:
    site = running(job())
    site.batch(300.0, ev.PlanUpdated(standing(site.now_s, 300.0)))
    assert not site.runs
    site.batch(300.0, later_s=1000.0)
    assert site.runs


def test_of_two_deadlines_the_nearer_goes_first_where_it_has_no_time_to_lose() -> None:
    """The node holds one unit; `b` runs at a price that suits it when `c` comes, due in an hour."""
    for later_s, due_s, rests in ((30_000.0, 3600.0, True), (30_000.0, 20_000.0, False),
                                  (5000.0, 3600.0, False)):  # fmt: skip
        site = running(job(deadline_s=later_s))
        other = replace(job(deadline_s=due_s), id="c", name="c", rate_per_s=None)
        told = standing(site.now_s, 10.0, needs_s={"b": 2500.0, "c": 2000.0},
                        batch_usd_per_mwh={"b": 20.0, "c": 20.0})  # fmt: skip
        site.batch(10.0, ev.PlanUpdated(told), ev.JobSubmitted(other))
        assert site.runs != rests, (later_s, due_s)
        if rests:
            site.batch(10.0)
            assert site.state.jobs["c"].units == 1
            assert not site.runs


def test_no_price_makes_a_job_miss_its_deadline() -> None:
    """It stays dear for ever: the job begins when there is no more time to wait."""
    site = running(job(deadline_s=12_000.0))
    ran_from = None
    for _ in range(400):
        told = standing(site.now_s, 300.0)
        site.batch(300.0, ev.PlanUpdated(told))
        if site.runs:
            ran_from = site.now_s
            break
    assert ran_from is not None
    assert 12_000.0 - ran_from > 1000.0


def plan_of(price: Any, *batches: Batch, **more: Any) -> Plan:
    n = len(price)
    band = Band.of(np.asarray(price, dtype=np.float64))
    made = Ahead(0.0, 3600.0, band, np.full(n, 1e6), Band.of(np.full(n, 1e3)),
                 Band.of(np.zeros(n)), batches=batches, **more)  # fmt: skip
    return planned(made)[0]


def test_a_mwh_is_worth_the_dearest_of_the_hours_that_are_its_own() -> None:
    price = [50.0, 10.0, 90.0, 30.0, 70.0, 80.0]
    two = Batch("two", 2e5, 1e5, deadline_s=6 * 3600.0)
    three = Batch("three", 3e5, 1e5, deadline_s=6 * 3600.0)
    late = Batch("late", 9e5, 1e5, deadline_s=6 * 3600.0)
    free = Batch("free", 1e5, 1e5)
    plan = plan_of(price, two, three, late, free)
    assert plan.batch_usd_per_mwh is not None
    assert plan.batch_usd_per_mwh[:3].tolist() == pytest.approx([30.0, 50.0, np.inf])
    assert plan.needs_s is not None
    assert plan.needs_s.tolist() == pytest.approx([7200.0, 10_800.0, 32_400.0, 3600.0])
    told = Standing.of(plan)
    assert set(told.batch_usd_per_mwh) == {"two", "three"}


def test_how_long_before_its_deadline_a_job_must_be_at_work_is_what_others_leave_it() -> None:
    """Nodes of 100 kW, of which services may want half; what is due later rests for it."""
    half = Band(np.zeros(8), np.full(8, 2e4), np.full(8, 5e4))

    def needs_h(*batches: Batch, compute_w: float = 1e5) -> list[float]:
        made = Ahead(0.0, 3600.0, Band.of(np.full(8, 10.0)), np.full(8, 1e6), Band.of(np.zeros(8)),
                     half, batches=batches, compute_w=compute_w)  # fmt: skip
        return [float(one) / 3600.0 for one in needs_s(made)]

    one = Batch("one", 1e5, 1e5, deadline_s=6 * 3600.0)
    assert needs_h(one, compute_w=np.inf) == pytest.approx([1.0])
    assert needs_h(one) == pytest.approx([2.0])
    first = Batch("first", 5e4, 1e5, deadline_s=4 * 3600.0)
    assert needs_h(one, first) == pytest.approx([3.0, 1.0])
    later = Batch("later", 1e5, 2.5e4, deadline_s=12 * 3600.0)
    assert needs_h(one, later) == pytest.approx([2.0, 4.0])
    much = Batch("much", 9e5, 1e5, deadline_s=6 * 3600.0)
    assert needs_h(much) == [np.inf]


def test_batch_shares_what_services_leave_of_the_nodes() -> None:
    price = [50.0, 10.0, 90.0, 30.0]
    jobs = [Batch(name, 1e5, 1e5, deadline_s=4 * 3600.0) for name in "abc"]
    plan = plan_of(price, *jobs, compute_w=1e5)
    assert plan.batch_w.sum(axis=1) == pytest.approx([1e5, 1e5, 0.0, 1e5])
    apart = plan_of(price, *jobs)
    assert apart.batch_w.sum(axis=1) == pytest.approx([0.0, 3e5, 0.0, 0.0])


def test_an_hour_that_costs_more_than_it_earns_is_left_out() -> None:
    """Worth 40 USD/MWh, and without a deadline."""
    one = Batch("one", 4e5, 1e5, value_usd=16.0)
    plan = plan_of([30.0, 60.0, 20.0, 90.0, 10.0, 10.0], one)
    assert plan.batch_w[:, 0] == pytest.approx([1e5, 0.0, 1e5, 0.0, 1e5, 1e5])
