"""Where a unit goes by what mining loses there: cheapest watts first, and nothing else changes."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats, summed
from wattshift_scheduler.compute.displacing import Mined, Running
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import Placement, place
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind, JobState, Terms
from wattshift_scheduler.ladder.allocate import Allocation, allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import NodePower
from wattshift_scheduler.values import Values

NOW_S = 10_000.0
TREE = FeederTree.of([
    Feeder("main", None, 9000.0), Feeder("dear", "main", 3000.0), Feeder("cheap", "main", 3000.0),
    Feeder("slack", "main", 3000.0),
])  # fmt: skip
NODES = tuple(Node(f"{name}-1", name, 2000.0) for name in ("dear", "cheap", "slack"))
SITE = Site("s", TREE, NODES, Rules(margin_share=0.0))


def ground(usd: dict[str, float], *, slack_w: float = 0.0, **more: Any) -> Ground:
    """Rigs take all of `dear` and `cheap`; `slack_w` lies free on `slack`, and at the root."""
    worth = tuple(usd.get(name, 0.0) for name in TREE.names)
    free_w = np.zeros(len(TREE.names))
    free_w[[0, TREE.index["slack"]]] = slack_w
    room_w, cap = np.array(TREE.limit_w), Arbitrated(9000.0, "connection", NO_CAP)
    powers = {node.name: NodePower(0.0, up=True) for node in SITE.nodes}
    mined = Mined(worth, 35.0, more.pop("held_w", {}))
    return Ground(SITE, powers, room_w, free_w, cap, (), NOW_S, mined)


def batch(name: str, unit_w: float = 1000.0, units: int = 1, **fields: Any) -> Job:
    terms = Terms(priority=fields.pop("priority", 0))
    return Job(
        name, JobKind.BATCH, name, {}, NOW_S, unit_w=unit_w, max_units=units, terms=terms, **fields
    )


def at(placement: Placement, job: str) -> dict[str, int]:
    return dict(next(one for one in placement.placed if one.job.id == job).nodes)


WORTH = {"dear": 80.0, "cheap": 40.0}


def test_watts_that_lie_free_are_taken_first_then_the_cheapest() -> None:
    free = ground(WORTH, slack_w=1000.0)
    assert at(place(free, [batch("a")]), "a") == {"slack-1": 1}
    assert at(place(free, [batch("a", units=2)]), "a") == {"slack-1": 2}, "35 USD/MWh is least"
    assert at(place(free, [batch("a", units=3)]), "a") == {"slack-1": 2, "cheap-1": 1}
    assert at(place(free, [batch("a", units=5)]), "a") == {
        "slack-1": 2, "cheap-1": 2, "dear-1": 1,
    }  # fmt: skip


def test_without_a_word_of_the_ladder_the_room_decides() -> None:
    bare = replace(ground({}), mined=Mined(), room_w=np.array([9000.0, 2000.0, 2900.0, 1000.0]))
    here = {TREE.names[i]: float(w) for i, w in enumerate(bare.room_w)}
    most = max((name for name in here if name != "main"), key=lambda name: here[name])
    assert at(place(bare, [batch("a")]), "a") == {f"{most}-1": 1}


def test_where_mining_loses_as_much_the_room_decides_as_before() -> None:
    alike = replace(
        ground(dict.fromkeys(TREE.names, 50.0)), room_w=np.array([9000.0, 1500.0, 2500.0, 1100.0])
    )
    most = TREE.names[1 + int(np.argmax(alike.room_w[1:]))]
    assert at(place(alike, [batch("a")]), "a") == {f"{most}-1": 1}


def test_what_the_root_keeps_out_costs_the_same_everywhere() -> None:
    rooty = ground({"main": 60.0, "dear": 80.0}, slack_w=0.0)
    assert "dear-1" not in at(place(rooty, [batch("a", units=4)]), "a")


def test_watts_that_a_gated_device_draws_already_take_nothing() -> None:
    gated = ground(WORTH, held_w={"dear-1": 1500.0})
    assert at(place(gated, [batch("a")]), "a") == {"dear-1": 1}
    two = at(place(gated, [batch("a", units=2)]), "a")
    assert two == {"dear-1": 1, "slack-1": 1}, "of the second 500 W would be taken at 80 USD/MWh"


def test_nothing_moves_for_it() -> None:
    job = replace(
        batch("a", units=2), state=JobState.RUNNING, units=1, running=1, nodes={"dear-1": 1},
        by_node={"dear-1": 1}, began_s=NOW_S - 1e3,
    )  # fmt: skip
    assert at(place(ground(WORTH, slack_w=1000.0), [job]), "a") == {"dear-1": 1, "slack-1": 1}
    asked = replace(job, state=JobState.STARTING, running=0, by_node={})
    assert at(place(ground(WORTH, slack_w=1000.0), [replace(asked, max_units=1)]), "a") == {
        "dear-1": 1
    }


def test_what_is_held_already_has_taken_its_watts_before() -> None:
    held = replace(
        batch("a", units=2), state=JobState.RUNNING, units=1, running=1, nodes={"slack-1": 1},
        by_node={"slack-1": 1}, began_s=NOW_S - 1e3,
    )  # fmt: skip
    free = ground(WORTH, slack_w=1000.0)
    dearer = replace(free, mined=replace(free.mined, marginal_usd_per_mwh=60.0))
    assert at(place(dearer, [held]), "a") == {"slack-1": 2}, "1 kW lies free beside it"


def test_a_higher_rank_is_served_first_and_keeps_its_place() -> None:
    jobs = [batch("low", 1500.0), batch("high", 1500.0, priority=50)]
    placement = place(ground(WORTH, slack_w=2000.0), jobs)
    assert at(placement, "high") == {"slack-1": 1}
    assert at(placement, "low") == {"cheap-1": 1}
    few = replace(ground(WORTH, slack_w=2000.0), room_w=np.array([1500.0, 3e3, 3e3, 3e3]))
    placement = place(few, jobs)
    assert (at(placement, "high"), at(placement, "low")) == ({"slack-1": 1}, {})


# How much it is worth: mining's value that is left, against the rule of the most room.


def _site(rng: random.Random) -> tuple[Site, Fleet]:
    """Racks that are full of rigs of one make each, with a node beside them, under one connection
    that carries most of them."""
    racks, rigs = 10, 12
    feeders = [Feeder("main", None, rng.uniform(0.8, 1.1) * racks * 36_000.0)]
    devices, nodes = [], []
    for rack in range(racks):
        feeders.append(Feeder(f"r{rack}", "main", rng.uniform(22_000.0, 44_000.0)))
        nodes.append(Node(f"n{rack}", f"r{rack}", 9000.0))
        make = rng.choice((0.35, 0.6, 0.9, 1.3))
        for rig in range(rigs):
            top_w = rng.uniform(2000.0, 3500.0)
            points = tuple(
                OperatingPoint(f"p{i}", top_w * w, top_w * h * 4e10 * make, 1.0)
                for i, (w, h) in enumerate(((0.01, 0.0), (0.5, 0.6), (0.8, 0.87), (1.0, 1.0)))
            )
            devices.append(Device(f"d{rack}-{rig}", "asic", "a", f"r{rack}", points, top_w, 0.0))
    tree = FeederTree.of(feeders)
    return Site("s", tree, tuple(nodes), Rules(margin_share=0.0)), Fleet.of(devices, tree)


VALUES = Values(hashprice_usd_per_ph_day=50.0, default_price_usd_per_mwh=20.0)


def _mined(site: Site, fleet: Fleet, taken_w: Floats) -> tuple[Allocation, float]:
    """What mining does with what compute leaves, and what that earns above its energy, USD/h."""
    n, ladder = len(fleet), Ladder.of(fleet, VALUES)
    base_w = summed(fleet.feeder, ladder.base_w, len(site.tree.names))
    room_w = site.tree.limit_w - site.tree.totals(base_w) - site.tree.totals(taken_w)
    found = allocate(
        fleet, ladder, site.tree, room_w=np.maximum(room_w, 0.0),
        eligible=np.ones(n, dtype=np.bool_), credit_w=np.zeros(n), price_usd_per_mwh=20.0,
    )  # fmt: skip
    rate = VALUES.usd_per_hash_hour * fleet.point_h_per_s - 20.0 * fleet.point_limit_w / 1e6
    return found, float(rate[fleet.first[:-1] + found.point].sum())


def _lost_usd_per_h(site: Site, fleet: Fleet, jobs: Sequence[Job], *, knows: bool) -> float:
    """What mining loses once the jobs are placed, by the new rule or without a word of mining."""
    tree = site.tree
    found, all_usd = _mined(site, fleet, np.zeros(len(tree.names)))
    drawn_w = tree.totals(summed(fleet.feeder, found.watts_w, len(tree.names)))
    worth = tuple(float(usd) for usd in found.feeder_usd_per_mwh)
    running = partial(Running.of, fleet, Ladder.of(fleet, VALUES), found.point)
    mined = Mined(worth, found.marginal_usd_per_mwh, {}, running) if knows else Mined()
    powers = {node.name: NodePower(0.0, up=True) for node in site.nodes}
    cap = Arbitrated(float(tree.limit_w[0]), "connection", NO_CAP)
    free_w = np.maximum(tree.limit_w - drawn_w, 0.0)
    placement = place(
        Ground(site, powers, np.array(tree.limit_w), free_w, cap, (), NOW_S, mined), jobs
    )
    assert sum(one.units for one in placement.placed) == sum(job.max_units for job in jobs)
    taken_w = np.zeros(len(tree.names))
    for node in site.nodes:
        taken_w[tree.index[node.feeder]] += placement.target_w[node.name]
    return all_usd - _mined(site, fleet, taken_w)[1]


def test_mining_loses_less_than_by_the_rule_of_the_most_room() -> None:
    """On seeded sites: in sum clearly less, and on none much more."""
    before, after = [], []
    for seed in range(12):
        rng = random.Random(seed)
        site, fleet = _site(rng)
        jobs = [
            batch(f"j{i}", rng.choice((1500.0, 3000.0, 4000.0)), rng.randrange(1, 4))
            for i in range(4)
        ]
        before.append(_lost_usd_per_h(site, fleet, jobs, knows=False))
        after.append(_lost_usd_per_h(site, fleet, jobs, knows=True))
    assert sum(after) < 0.85 * sum(before), (before, after)
    assert max(np.array(after) - np.array(before)) < 0.05


@pytest.mark.parametrize("usd", [(), (1.0, 2.0)])
def test_figures_of_another_tree_are_not_used(usd: tuple[float, ...]) -> None:
    other = replace(ground(WORTH), mined=Mined(usd, 5.0))
    assert place(other, [batch("a")]) == place(replace(other, mined=Mined()), [batch("a")])
