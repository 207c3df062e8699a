"""The division of watts: where units go, who gives way to whom, and what services give up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placed, Placement, place
from wattshift_scheduler.compute.raises import raises_w
from wattshift_scheduler.jobs import Job, JobKind, JobState, PowerStep, Rule, Terms
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site, Tenant
from wattshift_scheduler.state import Limited, NodePower

TREE = FeederTree.of(
    [Feeder("main", None, 2000.0), Feeder("west", "main", 900.0), Feeder("east", "main", 1500.0)]
)
NODES = (
    Node("w1", "west", 800.0),
    Node("w2", "west", 800.0),
    Node("e1", "east", 1000.0, gpus=2.0, labels={"gpu": "H100"}),
)
NOW_S = 10_000.0


def site(*tenants: Tenant, nodes: tuple[Node, ...] = NODES, tree: FeederTree = TREE) -> Site:
    return Site("s", tree, nodes, Rules(margin_share=0.0), (), tenants)


def ground(
    where: Site | None = None, root_w: float | None = None, **powers: NodePower | None
) -> Ground:
    """Every node up and holding nothing, unless the test says otherwise."""
    where = where or site()
    room_w = np.array(where.tree.limit_w)
    if root_w is not None:
        room_w[0] = root_w
    up = {node.name: NodePower(0.0, up=True) for node in where.nodes}
    known = {name: power for name, power in powers.items() if power is not None}
    cap = Arbitrated(float(room_w[0]), "connection", NO_CAP)
    return Ground(where, {**up, **known}, room_w, room_w, cap, (), NOW_S)


def batch(name: str, unit_w: float = 100.0, **fields: Any) -> Job:
    terms = {k: fields.pop(k) for k in list(fields) if k in Terms.__dataclass_fields__}
    fields = {"submitted_s": NOW_S, **fields}
    return Job(name, JobKind.BATCH, name, {}, unit_w=unit_w, terms=Terms(**terms), **fields)


def service(name: str, unit_w: float = 100.0, **fields: Any) -> Job:
    return replace(batch(name, unit_w, **fields), kind=JobKind.SERVICE)


def runs(job: Job, /, began_s: float = NOW_S - 1000.0, **at: int) -> Job:
    """The job with units that run on nodes."""
    units = sum(at.values())
    wanted = units if job.kind is JobKind.SERVICE else None
    return replace(
        job,
        state=JobState.RUNNING,
        units=units,
        running=units,
        ongoing=2.0 * units,
        wanted=wanted,
        nodes=at,
        by_node=at,
        began_s=began_s if job.kind is JobKind.BATCH else None,
    )


def at(placement: Placement, job: str) -> Mapping[str, int]:
    return one(placement, job).nodes


def one(placement: Placement, job: str) -> Placed:
    return next(placed for placed in placement.placed if placed.job.id == job)


# Where units go.


def test_a_unit_goes_where_it_leaves_the_most_room_at_the_fullest_feeder() -> None:
    placement = place(ground(), [batch("a", 300.0)])
    assert at(placement, "a") == {"e1": 1}
    assert placement.target_w == {"w1": 0.0, "w2": 0.0, "e1": 300.0}


def test_units_spread_over_nodes_that_are_alike_and_stop_at_the_feeder() -> None:
    west = site(nodes=NODES[:2])
    placement = place(ground(west), [batch("a", 200.0, max_units=9)])
    assert at(placement, "a") == {"w1": 2, "w2": 2}
    assert one(placement, "a").verdict.bound_by == "west"


def test_what_runs_stays_where_it_runs_and_only_the_rest_is_placed() -> None:
    job = replace(runs(service("s", 100.0, max_units=3), w2=2), wanted=3)
    assert at(place(ground(), [job]), "s") == {"w2": 2, "e1": 1}


def test_units_beyond_those_asked_for_are_on_their_way_out() -> None:
    job = replace(runs(service("s"), w1=2), units=1, wanted=1, nodes={"w1": 1})
    placement = place(ground(), [job])
    assert at(placement, "s") == {"w1": 1}
    again = replace(job, wanted=2, max_units=2)
    placement = place(ground(root_w=200.0), [again, service("t", value_usd_per_h=0.0)])
    assert (one(placement, "s").units, one(placement, "t").units) == (1, 1)


def test_a_planned_unit_moves_off_a_node_that_is_gone_and_a_running_one_does_not() -> None:
    gone = NodePower(800.0, up=False)
    job = replace(runs(service("s", max_units=2), w1=1), units=2, wanted=2, nodes={"w1": 2})
    assert at(place(ground(w1=gone), [job]), "s") == {"w1": 1, "e1": 1}


def test_a_node_that_is_down_keeps_its_bound_from_everybody_else() -> None:
    gone = NodePower(800.0, up=False)
    placement = place(ground(site(nodes=NODES[:2]), w1=gone), [batch("a", 150.0)])
    assert at(placement, "a") == {}
    placement = place(ground(site(nodes=NODES[:2]), w1=gone), [batch("a", 90.0)])
    assert at(placement, "a") == {"w2": 1}


def test_labels_and_gpus_choose_the_node_and_ray_goes_before_the_site_file() -> None:
    told = NodePower(0.0, up=True, labels={"gpu": "L4"}, gpus=1.0)
    wants = [batch("a", selector=(("gpu", "L4"),)), batch("b", selector=(("gpu", "!L4"),))]
    placement = place(ground(w2=told, e1=None), wants)
    assert at(placement, "a") == {"w2": 1}
    assert "w2" not in at(placement, "b")


def test_nothing_new_goes_to_a_node_that_drains_and_what_is_there_stays() -> None:
    draining = NodePower(800.0, up=True, draining=True)
    jobs = [runs(batch("old"), e1=1), batch("new", selector=(("gpu", "H100"),))]
    placement = place(ground(e1=draining), jobs)
    assert at(placement, "old") == {"e1": 1}
    assert at(placement, "new") == {}


def test_shares_of_a_gpu_pack_and_do_not_add_up_across_gpus() -> None:
    thirds = place(ground(), [batch("a", 1.0, gpus=0.6, max_units=9)])
    assert at(thirds, "a") == {"e1": 2}
    halves = place(ground(), [batch("a", 1.0, gpus=0.5, max_units=9)])
    assert at(halves, "a") == {"e1": 4}
    both = place(ground(), [batch("a", 1.0, gpus=0.5), batch("b", 1.0, gpus=1.0, max_units=2)])
    assert (at(both, "a"), at(both, "b")) == ({"e1": 1}, {"e1": 1})


def test_work_that_asked_for_no_watts_takes_from_its_node() -> None:
    power = NodePower(0.0, up=True, unasked_w=150.0)
    placement = place(ground(site(nodes=NODES[:1]), w1=power), [batch("a", 700.0)])
    assert at(placement, "a") == {}
    power = NodePower(0.0, up=True, unasked_w=20.0, system_w=150.0)
    placement = place(ground(site(nodes=NODES[:1]), w1=power), [batch("a", NODES[0].max_w)])
    assert at(placement, "a") == {"w1": 1}, "neither a little helper nor Ray itself costs a unit"


# Gangs and workers.


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    fits = batch("g", 300.0, gang=True, min_units=1, max_units=5)
    assert sum(at(place(ground(), [fits]), "g").values()) == 5
    placement = place(ground(root_w=1400.0), [fits, batch("small", 300.0)])
    assert at(placement, "g") == {}
    assert one(placement, "g").verdict.rule is Rule.GANG
    assert at(placement, "small") != {}


def test_every_batch_job_gets_a_first_worker_before_any_gets_a_second() -> None:
    jobs = [batch(name, 300.0, max_units=3) for name in "abcd"]
    placement = place(ground(root_w=1500.0), jobs)
    assert [placed.units for placed in placement.placed] == [2, 1, 1, 1]


# Order.


def test_services_then_priority_then_value_then_deadline_then_age() -> None:
    jobs = [
        batch("plain"),
        batch("older", submitted_s=NOW_S - 100.0),
        batch("due", deadline_s=NOW_S + 60.0),
        batch("dear", value_usd_per_h=5.0),
        batch("first", priority=1),
        service("svc"),
    ]
    placement = place(ground(), jobs)
    order = [placed.job.id for placed in placement.placed]
    assert order == ["svc", "first", "dear", "due", "older", "plain"]
    for most in range(1, 6):
        served = place(ground(root_w=100.0 * most), jobs).placed
        assert [placed.job.id for placed in served if placed.units] == order[:most]


def test_waiting_earns_priority_and_running_does_not() -> None:
    waits = batch("waits", submitted_s=NOW_S - 2 * 3600.0)
    dear = batch("dear", priority=15)
    assert at(place(ground(root_w=100.0), [dear, waits]), "waits") != {}
    ran = replace(runs(waits, w1=1), submitted_s=NOW_S - 2 * 3600.0, began_s=NOW_S - 7199.0)
    assert at(place(ground(root_w=100.0), [dear, ran]), "waits") == {}


def test_a_job_keeps_the_points_it_began_with_and_points_push_nobody_out() -> None:
    """Otherwise two jobs would push each other out in turn as each of them waits."""
    began = runs(batch("b", submitted_s=NOW_S - 9000.0), w1=1, began_s=NOW_S - 10.0)
    newer = batch("n", priority=15)
    assert at(place(ground(root_w=100.0), [began, newer]), "b") == {"w1": 1}
    aged = batch("aged", submitted_s=NOW_S - 1e6)
    placement = place(ground(root_w=100.0), [began, aged])
    assert at(placement, "b") == {"w1": 1}


def test_a_preempted_job_begins_to_wait_anew() -> None:
    ran = runs(batch("b", submitted_s=NOW_S - 90_000.0), w1=1, began_s=NOW_S - 89_000.0)
    placement = place(ground(root_w=100.0), [ran, batch("n", priority=50)])
    assert at(placement, "b") == {}
    assert one(placement, "b").job.not_before_s == NOW_S


# Preemption.


def test_a_service_takes_from_batch_and_from_the_one_that_loses_least() -> None:
    jobs = [
        runs(replace(batch("old"), checkpoint_s=NOW_S - 300.0), w1=1),
        runs(replace(batch("fresh"), checkpoint_s=NOW_S - 3.0), w1=1),
        runs(replace(batch("high", priority=5), checkpoint_s=NOW_S), w1=1),
        service("svc"),
    ]
    placement = place(ground(root_w=300.0), jobs)
    left = [placed.job.id for placed in placement.placed if placed.units]
    assert left == ["svc", "high", "old"]


def test_no_more_gives_way_than_must() -> None:
    jobs = [
        runs(replace(batch("small", 100.0), checkpoint_s=NOW_S), w1=1),
        runs(replace(batch("large", 400.0), checkpoint_s=NOW_S - 9.0), w1=1),
        batch("new", value_usd_per_h=99.0),
        service("svc", 400.0),
    ]
    placement = place(ground(root_w=500.0), jobs)
    assert {placed.job.id: placed.units for placed in placement.placed} == {
        "svc": 1,
        "large": 0,
        "small": 1,
        "new": 0,
    }
    assert at(placement, "small") == {"w1": 1}


def test_what_need_not_have_left_before_a_larger_one_stays_where_it_is() -> None:
    jobs = [
        runs(replace(batch("small", 100.0), checkpoint_s=NOW_S), w1=1),
        runs(replace(batch("large", 400.0), checkpoint_s=NOW_S - 9.0), w1=1),
        batch("new", 300.0, value_usd_per_h=99.0),
    ]
    placement = place(ground(root_w=350.0), jobs)
    assert (at(placement, "small"), at(placement, "large")) == ({"w1": 1}, {})


def test_batch_pushes_out_only_batch_of_a_lower_priority() -> None:
    for priority, taken in ((0, False), (1, True)):
        jobs = [runs(batch("runs"), w1=1), batch("new", value_usd_per_h=99.0, priority=priority)]
        placement = place(ground(root_w=100.0), jobs)
        assert (at(placement, "runs") == {}) is taken
        assert (at(placement, "new") != {}) is taken


def test_a_minimum_run_time_is_kept_until_the_cap_leaves_no_room() -> None:
    young = runs(batch("young", min_run_s=600.0), w1=1, began_s=NOW_S - 60.0)
    grows = replace(runs(service("svc", max_units=2), e1=1), wanted=2)
    high = batch("high", priority=99)
    placement = place(ground(root_w=200.0), [young, grows, high])
    assert (at(placement, "young"), one(placement, "svc").units) == ({"w1": 1}, 1)
    verdict = one(placement, "svc").verdict
    assert verdict.expected_s == pytest.approx(NOW_S + 540.0)
    assert one(placement, "high").verdict.expected_s == pytest.approx(NOW_S + 540.0)
    cut = place(ground(root_w=150.0), [young, grows])
    assert (at(cut, "young"), one(cut, "svc").units) == ({}, 1)
    needed = place(ground(root_w=200.0), [young, runs(service("svc"), e1=1), service("other")])
    assert (at(needed, "young"), one(needed, "other").units) == ({}, 1)


def test_a_service_takes_from_lower_services_only_what_they_have_beyond_their_minimum() -> None:
    low = runs(service("low", max_units=3), w1=3)
    high = service("high", priority=10, min_units=3, max_units=3)
    placement = place(ground(root_w=300.0), [low, high])
    assert (one(placement, "low").units, one(placement, "high").units) == (1, 2)
    equal = place(ground(root_w=300.0), [low, replace(high, terms=Terms())])
    assert (one(equal, "low").units, one(equal, "high").units) == (3, 0)


def test_what_pauses_is_not_kept_and_does_not_change_who_goes() -> None:
    pausing = replace(runs(batch("p"), w1=1), state=JobState.PAUSING)
    jobs = [pausing, runs(replace(batch("r"), checkpoint_s=NOW_S), w1=1), service("svc")]
    placement = place(ground(root_w=200.0), jobs)
    assert [(p.job.id, p.units) for p in placement.placed] == [("svc", 1), ("p", 0), ("r", 1)]


# Cuts: batch, then power, then replicas.

STEPS = (PowerStep(90.0, 0.95), PowerStep(80.0, 0.85), PowerStep(60.0, 0.7), PowerStep(40.0, 0.5))


def _flex(name: str, flexibility: int, units: int, **fields: Any) -> Job:
    job = service(name, flexibility=flexibility, steps=STEPS, max_units=units, **fields)
    return runs(job, e1=units)


def test_batch_leaves_before_any_service_loses_power() -> None:
    jobs = [_flex("s", 3, 4), runs(batch("b"), w1=1)]
    placement = place(ground(root_w=400.0), jobs)
    assert (one(placement, "s").unit_limit_w, at(placement, "b")) == (None, {})


@pytest.mark.parametrize(
    ("root_w", "limits"),
    [
        (1200.0, (None, None, None)),
        (1150.0, (None, None, 80.0)),
        (960.0, (None, None, 40.0)),
        (930.0, (None, 90.0, 40.0)),
        (920.0, (None, 90.0, 40.0)),
    ],
)
def test_power_goes_by_flexibility_class_and_no_further_than_it_allows(
    root_w: float, limits: tuple[float | None, ...]
) -> None:
    jobs = [_flex("f0", 0, 4), _flex("f1", 1, 4), _flex("f3", 3, 4)]
    placement = place(ground(site(nodes=(Node("e1", "main", 2000.0),)), root_w=root_w), jobs)
    found = tuple(one(placement, name).unit_limit_w for name in ("f0", "f1", "f3"))
    assert found == limits
    assert [one(placement, name).units for name in ("f0", "f1", "f3")] == [4, 4, 4]
    assert sum(placement.load_w().values()) <= root_w
    assert placement.target_w["e1"] == 1200.0


def test_replicas_go_when_power_is_not_enough_and_the_power_left_over_comes_back() -> None:
    where = site(nodes=(Node("e1", "main", 2000.0),))
    jobs = [_flex("f0", 0, 4), _flex("f1", 1, 4), _flex("f3", 3, 4)]
    placement = place(ground(where, root_w=890.0), jobs)
    assert [one(placement, name).units for name in ("f0", "f1", "f3")] == [4, 4, 3]
    assert sum(placement.load_w().values()) == pytest.approx(880.0)
    least = place(ground(where, root_w=550.0), jobs)
    assert [one(least, name).units for name in ("f0", "f1", "f3")] == [4, 1, 1]
    below = place(ground(where, root_w=340.0), jobs)
    assert [one(below, name).units for name in ("f0", "f1", "f3")] == [2, 1, 1]
    none = place(ground(where, root_w=100.0), jobs)
    assert [one(none, name).units for name in ("f0", "f1", "f3")] == [1, 0, 0]


def test_a_service_under_a_power_limit_does_not_grow() -> None:
    job = replace(_flex("s", 3, 4), max_units=5, wanted=5)
    placement = place(ground(site(nodes=(Node("e1", "main", 2000.0),)), root_w=330.0), [job])
    assert (one(placement, "s").units, one(placement, "s").unit_limit_w) == (4, 80.0)
    west = replace(runs(job, w1=4), wanted=5)
    placement = place(ground(), [west, runs(service("o", 600.0), w2=1)])
    assert (one(placement, "s").units, one(placement, "s").unit_limit_w) == (4, 60.0)


def test_power_comes_back_before_another_service_grows() -> None:
    jobs = [
        runs(service("a", flexibility=3, steps=STEPS), e1=1),
        replace(runs(service("b", 300.0, max_units=2), e1=2), wanted=2),
        replace(service("c", 60.0, min_units=0), wanted=1, ongoing=2.0, desired=1),
    ]
    placement = place(ground(site(nodes=(Node("e1", "main", 2000.0),)), root_w=400.0), jobs)
    assert [(p.job.id, p.units, p.unit_limit_w) for p in placement.placed] == [
        ("a", 1, None),
        ("b", 1, None),
        ("c", 0, None),
    ]


def test_a_cut_takes_from_below_the_feeder_that_is_too_full_and_may_move_it() -> None:
    jobs = [
        runs(replace(batch("west", 150.0), checkpoint_s=NOW_S - 99.0), w1=1),
        runs(replace(batch("east"), checkpoint_s=NOW_S), e1=1),
        runs(service("s", 800.0), w2=1),
    ]
    placement = place(ground(), jobs)
    assert (at(placement, "west"), at(placement, "east")) == ({"e1": 1}, {"e1": 1})
    full = place(ground(root_w=1000.0), jobs)
    assert (at(full, "west"), at(full, "east")) == ({}, {"e1": 1})


# Raises.


def test_nodes_that_rise_together_share_the_headroom_of_their_feeder() -> None:
    powers = {"w1": NodePower(0.0, up=True), "w2": NodePower(0.0, up=True)}
    jobs = [service("s", 300.0, max_units=2, min_units=2), batch("b", 300.0)]
    where = site(nodes=NODES[:2])
    placement = place(ground(where), jobs)
    assert placement.target_w == {"w1": 600.0, "w2": 300.0}
    found = raises_w(where, powers, placement, np.array([2000.0, 1500.0, 450.0]))
    assert found == {"w1": 300.0, "w2": 150.0}
    found = raises_w(where, powers, placement, np.array([2000.0, 1500.0, 750.0]))
    assert found == {"w1": 450.0, "w2": 300.0}
    found = raises_w(where, powers, placement, np.array([-10.0, 1500.0, 450.0]))
    assert found == {"w1": 0.0, "w2": 0.0}


def test_a_limit_that_goes_up_needs_room_for_the_whole_relief() -> None:
    limited = {"s": Limited(1, 60.0, 0.0, 2, 60.0, 2)}
    power = NodePower(200.0, up=True, relief_w=80.0, limits=limited)
    where = site(nodes=NODES[2:])
    placement = place(ground(where, e1=power), [_flex("s", 3, 2)])
    assert one(placement, "s").unit_limit_w is None
    room_w = np.array([2000.0, 1500.0, 900.0])
    assert raises_w(where, {"e1": power}, placement, room_w) == {"e1": 80.0}
