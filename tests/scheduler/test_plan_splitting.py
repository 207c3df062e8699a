"""Which feeders can be full, and how devices are told apart, or cut, by them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.arrays import summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.in_force import acting
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan.binding import below, can_be_full, even_w
from wattshift_scheduler.plan.classes import MOST, Classes, kinds_of
from wattshift_scheduler.plan.points import cut
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.values import Values

VALUES = Values(50.0, 0.0, 0.0, 20.0)
BARE = Rules(margin_share=0.0)


def asic(name: str, feeder: str, top_w: float = 2000.0, hashes: float = 1e14) -> Device:
    points = (
        OperatingPoint("sleep", 20.0, 0.0, 5.0),
        OperatingPoint("low", 0.5 * top_w, 0.6 * hashes, 60.0),
        OperatingPoint("top", top_w, hashes, 60.0),
    )
    return Device(name, "asic", "a", feeder, points, top_w, 0.0)


def card(name: str, feeder: str, host: str | None, top_w: float = 200.0) -> Device:
    points = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", top_w, 1e12, 0.01))
    named: dict[str, Any] = {"continuous": True, "fenced": True, "host": host}
    return Device(name, "gpu", "a", feeder, points, top_w, 0.0, **named)


def site(
    *feeders: Feeder, rules: Rules = BARE, nodes: Sequence[Node] = (), main_w: float = 1e6
) -> Site:
    return Site("s", FeederTree.of([Feeder("main", None, main_w), *feeders]), tuple(nodes), rules)


def full(where: Site, *devices: Device) -> list[str]:
    found = can_be_full(where, Fleet.of(devices, where.tree))
    return [where.tree.names[i] for i in found.tolist()]


def test_a_feeder_can_be_full_where_its_machines_could_draw_more_than_it_may_carry() -> None:
    racks = [asic("a", "r1"), asic("b", "r1"), asic("c", "r2"), asic("d", "r2")]
    small = Feeder("r1", "hall", 3000.0)
    wide = Feeder("r2", "hall", 4000.0)
    assert full(site(Feeder("hall", "main", 1e5), small, wide), *racks) == ["r1"]
    # Under the hall at most 3 kW of one rack and 4 kW of the other can come together.
    assert full(site(Feeder("hall", "main", 7000.0), small, wide), *racks) == ["r1"]
    assert full(site(Feeder("hall", "main", 6999.0), small, wide), *racks) == ["r1", "hall"]
    margin = Rules(margin_share=0.01)
    both = full(site(Feeder("hall", "main", 1e5), small, wide, rules=margin), *racks)
    assert both == ["r1", "r2"], "a margin is no room"
    assert full(site(Feeder("hall", "main", 1e5), main_w=100.0), *racks[:0]) == []
    assert full(site(main_w=100.0), asic("a", "main")) == [], "the connection is the site's cap"


def test_lease_watts_count_and_not_what_is_meant_to_be_drawn() -> None:
    loose = replace(asic("a", "r1"), tolerance=0.05)
    assert full(site(Feeder("r1", "main", 2050.0)), loose) == ["r1"]
    assert full(site(Feeder("r1", "main", 2100.0)), loose) == []


def test_of_a_gate_and_its_host_the_larger_counts() -> None:
    cards = [card("g0", "r1", "host"), card("g1", "r1", "host")]
    node = Node("host", "r1", 300.0)
    # The node at 300 W leaves each card 50 W of its own; the cards alone draw 400 W.
    for limit_w, found in ((400.0, []), (399.0, ["r1"])):
        assert full(site(Feeder("r1", "main", limit_w), nodes=[node]), *cards) == found
    large = Node("host", "r1", 500.0)
    for limit_w, found in ((500.0, []), (499.0, ["r1"])):
        assert full(site(Feeder("r1", "main", limit_w), nodes=[large]), *cards) == found
    other = [card("g0", "r1", "elsewhere"), card("g1", "r1", None)]
    for limit_w, found in ((700.0, []), (699.0, ["r1"])):
        assert full(site(Feeder("r1", "main", limit_w), nodes=[node]), *other) == found


def test_what_is_fed_from_two_sides_counts_on_both_and_once_above_them() -> None:
    sides = (Feeder("a", "main", 1900.0), Feeder("b", "main", 3000.0))
    rack = Feeder("r", "a", 1e5, second_parent="b")
    assert full(site(*sides, rack), asic("x", "r"), asic("y", "b", 900.0)) == ["a"]
    both = full(site(*sides, rack), asic("x", "r"), asic("y", "b", 1100.0))
    assert sorted(both) == ["a", "b"]
    hall = (Feeder("hall", "main", 2000.0), Feeder("a", "hall", 1e5), Feeder("b", "hall", 1e5))
    assert full(site(*hall, rack), asic("x", "r")) == [], "above both sides it is drawn once"
    wide = (Feeder("all", "main", 3000.0), Feeder("hall", "all", 1e5), *hall[1:])
    small = Feeder("q", "all", 1000.0)
    beside = (asic("x", "r"), asic("y", "q"), asic("z", "q"))
    assert full(site(*wide, rack, small), *beside) == ["q"], "2 kW and 1 kW come together above"


def test_the_feeder_that_keeps_out_most_value_goes_first() -> None:
    where = site(*(Feeder(name, "main", 1500.0) for name in ("a", "b", "c")))
    devices = (asic("x", "a", hashes=1e13), asic("y", "b"), asic("z", "c"), asic("w", "c"))
    assert full(where, *devices) == ["c", "b", "a"]


def test_devices_alike_are_apart_by_the_full_feeder_above_them() -> None:
    where = site(
        Feeder("hall", "main", 9000.0), Feeder("r1", "hall", 3000.0), Feeder("r2", "hall", 1e5),
        Feeder("r3", "hall", 1e5), Feeder("r4", "main", 1e5),
    )  # fmt: skip
    places = ["r1", "r1", "r2", "r2", "r3", "r3", "r4"]
    fleet = Fleet.of([asic(f"d{i}", one) for i, one in enumerate(places)], where.tree)
    found = Classes.among(fleet, site=where)
    assert [where.tree.names[i] for i in found.limits] == ["hall", "r1"]
    by_class = {found.names[k]: found.under[k] for k in found.of.tolist()}
    name = "asic 20..2000 W 20.0 J/TH"
    assert by_class == {
        name: (),
        f"{name} under hall": ("hall",),
        f"{name} under hall and r1": ("hall", "r1"),
    }
    assert [found.under[k] for k in found.of.tolist()] == [
        *[("hall", "r1")] * 2, *[("hall",)] * 4, (),
    ]  # fmt: skip


def test_without_full_feeders_kinds_are_what_they_were() -> None:
    where = site(Feeder("r1", "main", 1e5), Feeder("r2", "main", 1e5))
    devices = [asic(f"d{i}", f"r{1 + i % 2}", 1000.0 + 100 * (i % 7)) for i in range(40)]
    fleet = Fleet.of(devices, where.tree)
    for most in (4, MOST):
        plain, sited = Classes.among(fleet, most), Classes.among(fleet, most, where)
        assert plain.names == sited.names
        assert np.array_equal(plain.of, sited.of)
        assert not len(sited.limits) + len(sited.loose)


def _crowded(seed: int, racks: int, models: int) -> tuple[Site, Fleet]:
    """Racks in halls, most of them too small for their machines."""
    rng = np.random.default_rng(seed)
    feeders = [Feeder(f"h{i}", "main", float(rng.uniform(2e4, 2e5))) for i in range(3)]
    feeders += [Feeder(f"r{i}", f"h{i % 3}", float(rng.uniform(3e3, 1.5e4))) for i in range(racks)]
    feeders.append(Feeder("both", "r0", 5e3, second_parent="r1"))
    tops_w, names = rng.uniform(1000.0, 3500.0, models), [one.name for one in feeders]
    devices = [
        asic(f"d{i}", names[int(rng.integers(len(names)))], float(tops_w[i % models]))
        for i in range(5 * racks)
    ]
    where = site(*feeders)
    return where, Fleet.of(devices, where.tree)


@pytest.mark.parametrize(
    ("racks", "models", "most"), [(6, 3, 60), (40, 3, 60), (200, 3, 60), (40, 90, 60), (20, 9, 12)]
)
def test_classes_stay_within_their_bound_and_each_is_wholly_under_a_limit_or_not_at_all(
    racks: int, models: int, most: int
) -> None:
    where, fleet = _crowded(racks, racks, models)
    found, ranked = Classes.among(fleet, most, where), can_be_full(where, fleet)
    assert 0 < len(found.names) <= most
    assert len(set(found.names)) == len(found.names)
    assert sorted([*found.limits, *found.loose]) == sorted(ranked.tolist())
    assert len(found.limits) > 0, "there is always room for the tightest"
    assert (len(found.loose) > 0) == (racks >= 40 or most < 60)
    assert found.limits[0] == ranked[0]
    for limit in found.limits.tolist():
        carried = below(where.tree, limit)[fleet.feeder]
        inside = {found.of[i] for i in np.flatnonzero(carried)}
        outside = {found.of[i] for i in np.flatnonzero(~carried)}
        assert not inside & outside
        name = where.tree.names[limit]
        assert inside == {k for k, under in enumerate(found.under) if name in under}


@pytest.mark.parametrize("seed", range(4))
def test_devices_that_share_feeders_evenly_never_draw_more_than_those_may_carry(seed: int) -> None:
    where, fleet = _crowded(seed, 30, 4)
    tree, loose = where.tree, can_be_full(where, fleet)
    able = np.random.default_rng(seed).random(len(fleet)) < 0.9
    base_w = fleet.point_limit_w[fleet.first[:-1]]
    most_w = even_w(tree, fleet, tree.limit_w, loose, able)
    assert most_w is not None
    drawn_w = np.where(able, np.minimum(most_w, fleet.point_limit_w[fleet.first[1:] - 1]), 0.0)
    assert (drawn_w[able] >= base_w[able]).all()
    total_w = tree.totals(summed(fleet.feeder, drawn_w, len(tree.names)))
    assert (total_w[loose] <= tree.limit_w[loose] * (1.0 + 1e-9)).all()
    assert (total_w[loose] >= tree.limit_w[loose] * (1.0 - 1e-9)).any(), "and one is used up"
    free = ~np.isin(
        fleet.feeder, np.flatnonzero(tree.any_above(np.isin(range(len(tree.names)), loose)))
    )
    assert np.isinf(most_w[free | ~able]).all()
    assert even_w(tree, fleet, tree.limit_w, loose[:0], able) is None


def test_a_point_that_is_cut_lies_between_those_beside_it() -> None:
    watts_w = np.array([[0.0, 1000.0, 2000.0]] * 4)
    usd = np.array([[0.0, 0.2, 0.3]] * 4)
    cut_w, cut_usd = cut(watts_w, usd, np.array([np.inf, 1500.0, 250.0, 0.0]))
    assert cut_w.tolist() == [[0, 1000, 2000], [0, 1000, 1500], [0, 250, 250], [0, 0, 0]]
    earned = [[0, 0.2, 0.3], [0, 0.2, 0.25], [0, 0.05, 0.05], [0, 0, 0]]
    assert cut_usd == pytest.approx(np.array(earned))


def test_a_kind_whose_devices_are_cut_draws_and_earns_what_they_do_in_sum() -> None:
    where = site()
    fleet = Fleet.of([asic(f"d{i}", "main") for i in range(3)], where.tree)
    ledger, seen = Ledger.empty(fleet), Telemetry.unknown(3)
    most_w = np.array([np.inf, 1500.0, 500.0])
    (kind,), _ = kinds_of(fleet, VALUES, ledger, seen, 0.0, most_w=most_w)
    (whole,), _ = kinds_of(fleet, VALUES, ledger, seen, 0.0)
    assert kind.points_w == pytest.approx((20.0, (1000 + 1000 + 500) / 3, (2000 + 1500 + 500) / 3))
    _, low, top = whole.usd_per_h
    part = low * 480.0 / 980.0
    assert kind.usd_per_h == pytest.approx(
        (0.0, (2 * low + part) / 3, (top + (low + top) / 2 + part) / 3)
    )
    (least,), _ = kinds_of(fleet, VALUES, ledger, seen, 0.0, most_w=np.full(3, 600.0))
    assert least.points_w == pytest.approx((20.0, 600.0)), "points that do not rise are one"
    (rests,), _ = kinds_of(fleet, VALUES, ledger, seen, 0.0, most_w=np.full(3, 20.0))
    assert rests.points_w == pytest.approx((20.0,))


def test_the_slowest_of_a_kind_says_when_it_is_down() -> None:
    slow = asic("b", "main")
    slow = replace(slow, points=(replace(slow.points[0], transition_s=90.0), *slow.points[1:]))
    fleet = Fleet.of([asic("a", "main"), slow, card("g", "main", None)], site().tree)
    kinds, _ = kinds_of(fleet, VALUES, Ledger.empty(fleet), Telemetry.unknown(3), 0.0)
    assert {kind.fenced: kind.down_s for kind in kinds} == {False: 90.0, True: 0.1}


def test_the_control_loop_finds_each_device_in_the_class_that_the_plan_has_for_it() -> None:
    where = site(Feeder("r1", "main", 3000.0), Feeder("r2", "main", 1e5))
    devices = [asic("a", "r1"), asic("b", "r2"), asic("c", "r1")]
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    state = initial(where, VALUES, 1)
    fleet = Fleet.of(devices, where.tree)
    names = Classes.among(fleet, site=where).names
    assert len(names) == 2
    awake = {name: np.full(2, 0.1 if "r1" in name else 0.7) for name in names}
    ten = np.full(2, 10.0)
    plan = Standing(0.0, 0.0, 900.0, 900.0, ten, ten, np.zeros(2), awake)
    state = replace(state, fleet=fleet, plan=plan, jobs={"mine": mine})
    found = acting.worths(state, 10.0, None)
    assert found is not None
    assert found.awake_usd.tolist() == [0.1, 0.7, 0.1]
