"""What a watt is worth decides who is shed first: mining, batch by value and deadline, services."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler import worth
from wattshift_scheduler.commands import PauseJob
from wattshift_scheduler.compute import filling, giving_way, leaving
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placed, place
from wattshift_scheduler.compute.rivals import Rivals, any_yields, worth_usd_per_mwh
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind, JobState, PowerStep, Rule, Terms
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import (
    Device,
    Feeder,
    FeederTree,
    Node,
    OperatingPoint,
    Rules,
    Site,
)
from wattshift_scheduler.state import NodePower, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

NOW_S = 100_000.0
HOUR_S = 3600.0
VALUES = Values(2.4, 0.0, 0.0, 10.0)
"""1 PH/s at 1 kW is worth 100 USD/MWh."""
TREE = FeederTree.of(
    [Feeder("main", None, 5000.0), Feeder("west", "main", 4000.0), Feeder("east", "main", 4000.0)]
)
NODES = (Node("w", "west", 4000.0), Node("e", "east", 4000.0))


def _batch(name: str = "b", usd_per_mwh: float = 60.0, **fields: Any) -> Job:
    """A job of kilowatt units."""
    terms = {k: fields.pop(k) for k in list(fields) if k in Terms.__dataclass_fields__}
    named = {"submitted_s": NOW_S, "unit_w": 1000.0, "value_usd_per_h": usd_per_mwh / 1000.0}
    return Job(name, JobKind.BATCH, name, {}, terms=Terms(**terms), **{**named, **fields})


def _runs(job: Job, began_s: float = NOW_S, **at: int) -> Job:
    units = sum(at.values())
    wanted = units if job.kind is JobKind.SERVICE else None
    return replace(
        job,
        state=JobState.RUNNING,
        units=units,
        running=units,
        nodes=at,
        by_node=at,
        wanted=wanted,
        began_s=began_s,
    )


def _rig(
    name: str, feeder: str, worth_usd: float = 100.0, down_s: float = 60.0, **named: Any
) -> Device:
    points = (
        OperatingPoint("sleep", 0.0, 0.0, down_s),
        OperatingPoint("run", 1000.0, 1e15 * worth_usd / 100.0, 60.0),
    )
    return Device(name, "asic", "a", feeder, points, 1000.0, 0.0, **named)


def _placed(
    jobs: list[Job],
    rigs: list[Device],
    *,
    room_w: float = 4000.0,
    lasts_s: float = HOUR_S,
    awake: bool = True,
    price: float = 10.0,
) -> Mapping[str, Placed]:
    fleet = Fleet.of(rigs, TREE)
    yes = np.ones(len(fleet), dtype=np.bool_)
    ladder = Ladder.of(fleet, VALUES, yes if awake else ~yes, lasts_s)
    rooms_w = np.array(TREE.limit_w)
    rooms_w[0] = room_w
    ground = Ground(
        site=Site("s", TREE, NODES, Rules(margin_share=0.0)),
        powers={node.name: NodePower(0.0, up=True) for node in NODES},
        room_w=rooms_w,
        free_w=rooms_w,
        cap=Arbitrated(room_w, "connection", NO_CAP),
        caps=(),
        now_s=NOW_S,
        rivals=Rivals.of(fleet, ladder, TREE, yes, price),
    )
    return {one.job.id: one for one in place(ground, jobs).placed}


# Worth.


def test_the_cost_of_a_watt_is_that_of_the_design() -> None:
    assert worth.shed_usd_per_mwh(0.1, 1000.0, HOUR_S) == 100.0
    assert worth.shed_usd_per_mwh(0.1, 1000.0, 900.0, 0.05) == pytest.approx(300.0)
    assert worth.shed_usd_per_mwh(0.1, 1000.0, math.inf, 0.05) == 100.0


def test_a_running_job_repeats_what_it_has_not_saved() -> None:
    assert worth.of_batch(_batch(), NOW_S, HOUR_S).usd_per_mwh == pytest.approx(60.0)
    running = _runs(_batch(), began_s=NOW_S - 600.0)
    assert worth.of_batch(running, NOW_S, HOUR_S).usd_per_mwh == pytest.approx(70.0)
    assert worth.of_batch(running, NOW_S, 600.0).usd_per_mwh == pytest.approx(120.0)
    saved = replace(running, checkpoint_s=NOW_S - 60.0)
    assert worth.of_batch(saved, NOW_S, HOUR_S).usd_per_mwh == pytest.approx(61.0)


def test_value_rises_as_slack_runs_out_and_then_the_deadline_binds() -> None:
    job = _batch(total=3600, done=0, rate_per_s=1.0)
    worths = []
    for slack_s in (9000.0, 4500.0, 4300.0, 4000.0, 3700.0, 3600.0, 0.0, -100.0):
        due = replace(job, deadline_s=NOW_S + 3600.0 + slack_s)
        worths.append(worth.of_batch(due, NOW_S, HOUR_S).usd_per_mwh)
    assert worths[0] == pytest.approx(60.0)
    assert worths == sorted(worths)
    assert 60.0 < worths[2] < worths[3] < math.inf
    assert math.isinf(worths[-3])
    assert math.isinf(worths[-1])


def test_an_unknown_need_before_a_deadline_binds_and_no_stated_value_is_unknown() -> None:
    assert math.isinf(worth.of_batch(_batch(deadline_s=NOW_S + 1e6), NOW_S, 60.0).usd_per_mwh)
    assert math.isnan(worth.of_batch(_batch(usd_per_mwh=0.0), NOW_S, 60.0).usd_per_mwh)
    assert math.isinf(worth.of_batch(_batch(unit_w=0.0), NOW_S, 60.0).usd_per_mwh)


STEPS = (PowerStep(800.0, 0.95), PowerStep(600.0, 0.8), PowerStep(400.0, 0.5))


def test_a_service_loses_the_throughput_of_its_next_step_and_binds_beyond_its_class() -> None:
    named = {"unit_w": 1000.0, "value_usd_per_h": 2.0}
    job = Job("s", JobKind.SERVICE, "s", {}, 0.0, terms=Terms(flexibility=2, steps=STEPS), **named)
    assert worth.of_service(job).usd_per_mwh == pytest.approx(2.0 * 0.05 / 200.0 * 1e6)
    limited = replace(job, unit_limit_w=800.0)
    assert worth.of_service(limited).usd_per_mwh == pytest.approx(2.0 * 0.15 / 200.0 * 1e6)
    assert math.isinf(worth.of_service(replace(job, unit_limit_w=600.0)).usd_per_mwh)
    assert worth.step_usd_per_mwh(job, STEPS[0], STEPS[2]) == worth.BINDS
    assert worth.step_usd_per_mwh(job, STEPS[0], STEPS[1], used=0.8) == 0.0
    plain = replace(job, terms=Terms())
    assert worth.of_service(plain).usd_per_mwh == pytest.approx(2000.0)


# Who gives way.


def test_mining_gives_way_to_batch_that_is_worth_more_and_to_that_without_a_value() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(4)]
    for job in (_batch(usd_per_mwh=130.0, max_units=3), _batch(usd_per_mwh=0.0, max_units=3)):
        assert _placed([job], rigs)["b"].units == 3


def test_batch_of_less_worth_gets_what_mining_leaves_and_says_so() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(4)]
    placed = _placed([_batch(max_units=3)], rigs, room_w=5000.0)["b"]
    assert placed.units == 1  # 5 kW of room, 4 kW of machines that are worth more
    assert placed.verdict.rule is Rule.WORTH
    assert "60 USD/MWh" in placed.reason
    running = _placed([_runs(_batch(max_units=3), w=3)], rigs, room_w=5000.0)["b"]
    assert running.units == 1


def test_short_events_pause_batch_and_long_ones_put_machines_to_sleep() -> None:
    """A job worth a fifth more than mining: over a short time a cycle weighs more than that."""
    rigs = [_rig(f"r{i}", "west", wear_usd_per_cycle=0.05) for i in range(5)]
    job = _runs(_batch(usd_per_mwh=120.0), w=1)
    assert _placed([job], rigs, lasts_s=600.0)["b"].units == 0
    assert _placed([job], rigs, lasts_s=24 * HOUR_S)["b"].units == 1


def test_machines_that_sleep_do_not_displace_what_runs() -> None:
    rigs = [_rig(f"r{i}", "west", wear_usd_per_cycle=0.1) for i in range(5)]
    job = _runs(_batch(usd_per_mwh=90.0), w=1)
    assert _placed([job], rigs, awake=True)["b"].units == 0
    assert _placed([job], rigs, awake=False)["b"].units == 1


@pytest.mark.parametrize(
    "job",
    [
        _batch(usd_per_mwh=10.0, deadline_s=NOW_S + 4000.0, total=3600, done=0, rate_per_s=1.0),
        _batch(usd_per_mwh=10.0, deadline_s=NOW_S + 1e6),
        replace(_batch(usd_per_mwh=10.0), kind=JobKind.SERVICE, value_usd_per_h=0.01),
        _runs(_batch(usd_per_mwh=10.0, min_run_s=600.0), began_s=NOW_S - 60.0, w=1),
    ],
    ids=["its deadline would be missed", "its need is unknown", "a service", "it has just begun"],
)
def test_what_never_gives_way(job: Job) -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(5)]
    assert _placed([job], rigs)["b"].units == 1


def test_a_job_with_slack_waits_for_its_time() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(5)]
    ease = _batch(deadline_s=NOW_S + 40 * HOUR_S, total=3600, done=0, rate_per_s=1.0)
    assert _placed([ease], rigs)["b"].units == 0


def test_only_the_machines_that_it_would_displace_count() -> None:
    """What its own feeder keeps from running loses nothing by a job elsewhere."""
    west = [_rig(f"w{i}", "west") for i in range(9)]
    assert _placed([_batch(max_units=3)], west, room_w=5000.0)["b"].units == 1
    assert _placed([_batch(max_units=3)], west, room_w=8000.0)["b"].nodes == {"e": 3}
    dear = [_rig(f"w{i}", "west", worth_usd=9.0) for i in range(9)]
    assert _placed([_batch(max_units=3)], dear)["b"].units == 3


def test_a_gate_beside_the_work_is_no_rival_for_of_both_only_one_draws() -> None:
    named = {"fenced": True, "continuous": True, "host": "w"}
    gates = [_rig(f"g{i}", "west", worth_usd=500.0, **named) for i in range(5)]
    assert _placed([_batch(max_units=3)], gates)["b"].units == 3


def test_at_a_price_above_its_worth_mining_keeps_nothing() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(5)]
    assert _placed([_batch()], rigs, price=101.0)["b"].units == 1
    assert _placed([_batch()], rigs, price=math.inf)["b"].units == 1


def test_a_gang_gives_way_whole() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(4)]
    gang = _runs(_batch(min_units=3, max_units=3, gang=True), w=3)
    assert _placed([gang], rigs, room_w=5000.0)["b"].units == 0
    assert _placed([gang], rigs[:2], room_w=5000.0)["b"].units == 3


def test_others_are_placed_as_before_beside_a_job_that_gives_way() -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(4)]
    jobs = [
        _batch("poor", usd_per_mwh=30.0, max_units=2, priority=5),
        _batch("none", usd_per_mwh=0.0, max_units=2),
        _batch("rich", usd_per_mwh=500.0, max_units=2),
    ]
    placed = _placed(jobs, rigs, room_w=5000.0)
    assert {name: one.units for name, one in placed.items()} == {"poor": 1, "none": 2, "rich": 2}
    assert placed["none"].verdict.rule is Rule.FITS
    gang = [replace(job, terms=replace(job.terms, gang=True)) for job in jobs]
    placed = _placed([replace(job, min_units=2) for job in gang], rigs, room_w=5000.0)
    assert {n: one.units for n, one in placed.items()} == {"poor": 0, "none": 2, "rich": 2}


def test_without_the_guard_poor_batch_displaces_mining(monkeypatch: pytest.MonkeyPatch) -> None:
    rigs = [_rig(f"r{i}", "west") for i in range(5)]
    monkeypatch.setattr(giving_way, "worth_usd_per_mwh", lambda *_: math.inf)
    assert _placed([_batch()], rigs)["b"].units == 1
    assert filling.GivingWay is giving_way.GivingWay


def test_only_stated_values_cost_a_look_at_mining() -> None:
    assert any_yields([_batch()])
    assert not any_yields([_batch(usd_per_mwh=0.0), replace(_batch(), kind=JobKind.SERVICE)])
    assert math.isinf(worth_usd_per_mwh(_batch(usd_per_mwh=0.0), NOW_S, 60.0))


# In a decision.


def _under_a_cap(lasts_s: float, down_s: float = 60.0, gone_s: float = 4.0) -> tuple[int, ...]:
    """Units of batch that run, machines that run, sleeps of machines and pauses of the job, half a
    minute into a cap that takes one of three machines or the job.

    A machine is worth 100 USD/MWh and its cycle costs 0.05 USD; the job is worth 120.
    """
    rigs = [_rig(f"r{i}", "west", down_s=down_s, wear_usd_per_cycle=0.05) for i in range(3)]
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    jobs = (mine, _batch(usd_per_mwh=120.0))
    tree = FeederTree.of([Feeder("main", None, 4000.0), *LEAVES])
    world = World.of(Site("s", tree, NODES, Rules(margin_share=0.0)), rigs, jobs, 1)
    world.ray.leave_s = gone_s
    state, slept, pauses = initial(world.site, VALUES, 1), 0, 0
    owed: list[ev.Event] = [world.joined(), *(ev.JobSubmitted(job) for job in jobs)]
    for second in range(46):
        if second == 14:
            cap = Cap("c", "grid", 3400.0, None, world.now_s + lasts_s)
            owed.append(ev.SignalChanged("grid", (cap,)))
        for _ in world.advance(world.now_s + 1.0):
            pass
        told, owed = [*owed, *world.poll()], []
        for _ in range(6):
            before = state.ledger.point
            state, commands, _ = step(state, told, world.now_s)
            if len(before) == len(state.ledger.point):
                slept += int(((before > 0) & (state.ledger.point == 0)).sum())
            pauses += sum(isinstance(command, PauseJob) for command in commands)
            told = [event for command in commands for event in world.carry(command)]
            if not told:
                break
        owed = told
    assert float(world.feeder_w()[0]) <= 3400.0 + 1.0
    running = int((state.ledger.point > 0).sum())
    return len(world.ray.units.get("b", ())), running, slept, pauses


LEAVES = [Feeder("west", "main", 4000.0), Feeder("east", "main", 4000.0)]


def test_under_a_short_cap_batch_pauses_and_under_a_long_one_a_machine_sleeps() -> None:
    assert _under_a_cap(600.0) == (0, 3, 0, 1)
    assert _under_a_cap(40 * HOUR_S) == (1, 2, 1, 0)


def test_machines_that_are_slow_wait_for_the_job_that_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaving, "waited", lambda _state, wanted, *_: (wanted, math.nan))
    assert _under_a_cap(600.0)[2] > 0


def test_batch_is_not_paused_for_machines_that_must_turn_before_it_has_left() -> None:
    units, machines, _, pauses = _under_a_cap(600.0, down_s=3.0)
    assert (units, machines, pauses) == (1, 2, 0)


def test_what_does_not_leave_is_not_waited_for() -> None:
    running, _, slept, _ = _under_a_cap(600.0, gone_s=1e6)
    assert running == 1
    assert slept == 1
