"""The feeder tree with one feed and with two: its shape, its sums, and the loss of either feed."""

import math
import random
from itertools import product

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.allocate import allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

HALL = [
    Feeder("main", None, 9000.0),
    Feeder("a", "main", 5000.0),
    Feeder("b", "main", 5000.0, margin_share=0.1),
    Feeder("pdu-a", "a", 3000.0),
    Feeder("pdu-b", "b", 3000.0),
    Feeder("rack", "pdu-a", 2000.0, "pdu-b"),
    Feeder("lone", "pdu-b", 2000.0),
]
VALUES = Values(hashprice_usd_per_ph_day=50.0, default_price_usd_per_mwh=0.0)


def test_what_has_two_sides_counts_in_full_on_both() -> None:
    tree = FeederTree.of(reversed(HALL))
    load_w = np.zeros(len(tree.names))
    load_w[tree.index["rack"]], load_w[tree.index["lone"]] = 100.0, 10.0
    total_w = dict(zip(tree.names, tree.totals(load_w).tolist(), strict=True))
    assert total_w == {
        "main": 110.0, "a": 100.0, "b": 110.0, "pdu-a": 100.0, "pdu-b": 110.0,
        "rack": 100.0, "lone": 10.0,
    }  # fmt: skip
    path = [tree.names[i] for i in tree.path(tree.index["rack"])]
    assert (path[0], path[-1]) == ("main", "rack")
    assert sorted(path) == ["a", "b", "main", "pdu-a", "pdu-b", "rack"]
    marked = np.array([name == "pdu-b" for name in tree.names])
    above = {name for name, on in zip(tree.names, tree.any_above(marked), strict=True) if on}
    assert above == {"pdu-b", "rack", "lone"}
    apart = {name for name, on in zip(tree.names, tree.shared, strict=True) if on}
    assert apart == {"a", "b", "pdu-a", "pdu-b"}


def test_a_tree_with_one_feed_has_a_row_for_each_depth() -> None:
    tree = FeederTree.of([one for one in HALL if one.second_parent is None])
    assert tree.names == ("main", "a", "b", "pdu-a", "pdu-b", "lone")
    assert tree.ancestors.shape == (int(tree.depth.max()) + 1, len(tree.names))
    assert not tree.shared.any()
    for row, depth in zip(tree.ancestors, range(len(tree.ancestors)), strict=True):
        assert {int(tree.depth[i]) for i in row if i >= 0} == {depth}


def test_a_feeder_keeps_its_own_margin_and_the_sites_where_it_has_none() -> None:
    tree = FeederTree.of(HALL)
    usable_w = dict(zip(tree.names, tree.usable_w(0.02).tolist(), strict=True))
    assert usable_w["b"] == pytest.approx(4500.0)
    assert usable_w["a"] == pytest.approx(4900.0)
    stale_w = dict(zip(tree.names, tree.usable_w(0.02, 0.05).tolist(), strict=True))
    assert (stale_w["a"], stale_w["b"]) == (pytest.approx(4750.0), pytest.approx(4500.0))


@pytest.mark.parametrize(
    ("more", "item", "why"),
    [
        ([Feeder("x", "a", 1.0, "a")], "x", "both its parents"),
        ([Feeder("x", "rack", 1.0, "pdu-a")], "x", "one path"),
        ([Feeder("x", "pdu-a", 1.0, "rack")], "x", "one path"),
        ([Feeder("x", "pdu-a", 1.0, "main")], "x", "one path"),
        ([Feeder("x", "pdu-a", 1.0, "nobody")], "x", "nobody"),
        ([Feeder("x", "a", 1.0, "y"), Feeder("y", "b", 1.0, "x")], "x", "loop: x > y > x"),
        ([Feeder("x", "a", 1.0, "x")], "x", "loop: x > x"),
        ([Feeder("z", "y", 1.0), Feeder("x", "y", 1.0), Feeder("y", "x", 1.0)], "x", "x > y > x"),
        ([Feeder("x", "a", math.inf)], "x", "limit"),
        ([Feeder("x", "a", 1.0, margin_share=1.0)], "x", "margin"),
        ([Feeder("x", "a", 1.0, margin_share=math.nan)], "x", "margin"),
        ([Feeder("x", None, 1.0, "a")], "x", "no first"),
        ([Feeder("a", "main", 1.0)], "a", "twice"),
    ],
)
def test_feeders_that_cannot_be_are_refused_by_name(
    more: list[Feeder], item: str, why: str
) -> None:
    with pytest.raises(SiteInvalid, match=why) as told:
        FeederTree.of([*HALL, *more])
    assert told.value.item == item


def _random(rng: random.Random) -> tuple[list[Feeder], FeederTree]:
    """Feeders of any depth; every fourth hangs on two sides where it finds a second."""
    feeders = [Feeder("f0", None, rng.uniform(4e3, 3e4))]
    for i in range(1, rng.randrange(2, 26)):
        parent = f"f{rng.randrange(i)}"
        one = Feeder(f"f{i}", parent, rng.uniform(500.0, 9e3))
        if rng.random() < 0.4 and i > 2:
            try:
                two = Feeder(one.name, parent, one.limit_w, f"f{rng.randrange(i)}")
                FeederTree.of([*feeders, two])
                one = two
            except SiteInvalid:
                pass
        feeders.append(one)
    shuffled = rng.sample(feeders, len(feeders))
    return feeders, FeederTree.of(shuffled)


def _carriers(name: str, by_name: dict[str, Feeder]) -> set[str]:
    return {name}.union(*(_carriers(parent, by_name) for parent in by_name[name].parents))


@pytest.mark.parametrize("seed", range(60))
def test_rows_sums_and_paths_are_those_of_the_ways_up(seed: int) -> None:
    feeders, tree = _random(random.Random(seed))
    by_name = {one.name: one for one in feeders}
    above = {name: _carriers(name, by_name) for name in by_name}
    for name, at in tree.index.items():
        rows = [int(i) for i in tree.ancestors[:, at] if i >= 0]
        assert sorted(tree.names[i] for i in rows) == sorted(above[name])
        assert tree.path(at) == tuple(rows)
        row_of = {int(np.argmax(tree.ancestors[:, at] == i)) for i in rows}
        assert len(row_of) == len(rows)
    for row in range(len(tree.ancestors)):
        here = set(tree.ancestors[row][tree.ancestors[row] >= 0].tolist())
        later = set(tree.ancestors[:row][tree.ancestors[:row] >= 0].tolist())
        assert not here & later, "a feeder stands in one row only"
        below = set(np.flatnonzero(np.isin(tree.ancestors[row], list(here))).tolist()) - here
        rows_of = [np.flatnonzero((tree.ancestors == i).any(axis=1)).tolist() for i in below]
        assert all(min(rows) > row for rows in rows_of), "what lies below comes in later rows"
    load_w = np.array([float(1 << i) for i in range(len(feeders))])
    for at, total_w in enumerate(tree.totals(load_w)):
        name = tree.names[at]
        assert total_w == sum(load_w[tree.index[n]] for n in by_name if name in above[n])


def _flow_w(
    feeders: list[Feeder], own_w: dict[str, float], side: dict[str, int]
) -> dict[str, float]:
    """What flows through each feeder when everything is fed from the side that is named."""
    total_w = dict(own_w)
    for one in reversed(feeders):
        if one.parents:
            total_w[one.parents[side[one.name] % len(one.parents)]] += total_w[one.name]
    return total_w


def _fleet(rng: random.Random, tree: FeederTree) -> Fleet:
    devices = []
    for i in range(rng.randrange(4, 40)):
        top_w = rng.uniform(300.0, 4000.0)
        points = tuple(
            OperatingPoint(
                f"p{n}", top_w * share, top_w * share * 3e10 * rng.uniform(0.8, 1.2), 1.0
            )
            for n, share in enumerate((0.0, 0.4, 0.7, 1.0))
        )
        feeder = rng.choice(tree.names)
        continuous = rng.random() < 0.3
        devices.append(Device(f"d{i}", "asic", "a", feeder, points, top_w, 0.0, continuous))
    return Fleet.of(devices, tree)


def _given_w(tree: FeederTree, fleet: Fleet) -> Floats:
    n = len(fleet)
    return allocate(
        fleet,
        Ladder.of(fleet, VALUES),
        tree,
        room_w=np.array(tree.limit_w),
        eligible=np.ones(n, dtype=np.bool_),
        credit_w=np.zeros(n),
        price_usd_per_mwh=0.0,
    ).watts_w


def test_no_limit_is_crossed_when_either_feed_is_lost() -> None:
    sides_tried = 0
    for seed in range(16):
        rng = random.Random(seed)
        feeders, tree = _random(rng)
        fleet = _fleet(rng, tree)
        watts_w = _given_w(tree, fleet)
        assert watts_w.sum() > 0
        own_w = dict.fromkeys(tree.names, 0.0)
        for device, watts in zip(fleet.devices, watts_w.tolist(), strict=True):
            own_w[device.feeder] += watts
        two = [one.name for one in feeders if one.second_parent is not None]
        sides = list(product((0, 1), repeat=min(len(two), 5)))
        for chosen in sides:
            sides_tried += 1
            rest = {one.name: rng.randrange(2) for one in feeders}
            flow_w = _flow_w(feeders, own_w, rest | dict(zip(two, chosen, strict=False)))
            for one in feeders:
                assert flow_w[one.name] <= one.limit_w + 1e-3, (seed, one.name, chosen)
    assert sides_tried > 60


@pytest.mark.parametrize(("own", "binds"), [(None, ()), (0.02, ()), (0.5, ("row",))])
def test_a_decision_leaves_a_feeder_its_own_margin(
    own: float | None, binds: tuple[str, ...]
) -> None:
    feeders = [Feeder("main", None, 9000.0), Feeder("row", "main", 5000.0, margin_share=own)]
    state = initial(Site("s", FeederTree.of(feeders), rules=Rules(margin_share=0.02)), VALUES, 1)
    points = tuple(OperatingPoint(m, w, 1e11 * w, 1.0) for m, w in (("off", 0.0), ("on", 3000.0)))
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    told: list[ev.Event] = [
        ev.DeviceJoined((Device("rig", "asic", "a", "row", points, 3000.0, 0.0),)),
        ev.JobSubmitted(mine),
    ]
    for now_s in (1.0, 2.0):
        none, no = np.full(1, np.nan), np.zeros(1, dtype=np.bool_)
        at_s, drawn_w = np.full(1, now_s), np.zeros(1)
        read = ev.Readings(("rig",), at_s, drawn_w, none, none, none, none, ("",), no, no)
        state, _, _ = step(state, [*told, ev.AgentSeen("a", "boot", now_s, now_s), read], now_s)
        told = []
    assert state.outlook.binding == binds


def test_the_roots_margin_is_taken_from_every_cap() -> None:
    tree = FeederTree.of([Feeder("main", None, 9000.0, margin_share=0.1)])
    state, _, _ = step(initial(Site("s", tree), VALUES, 1), [], 1.0)
    assert state.outlook.budget_w == pytest.approx(8100.0)
    cap = ev.SignalChanged("operator", (Cap("c", "operator", 1000.0),), None, True)
    state, _, _ = step(state, [cap], 2.0)
    assert state.outlook.budget_w == pytest.approx(900.0)
    assert state.outlook.margin_w == pytest.approx(100.0)
