"""Allocation against exact solvers, envelopes, and the edges of the feeder walk."""

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, allocate, fit_prefix
from wattshift_scheduler.ladder.ladder import Ladder, envelopes
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint
from wattshift_scheduler.values import Values

bench: Any = importlib.import_module("benchmarks.allocate_site")
program: Any = importlib.import_module("benchmarks.allocate_lp")

VALUES = Values(45.0, 0.0, 0.0, 0.0)


def _device(name: str, feeder: str, rows: list[tuple[float, float]], **named: Any) -> Device:
    points = tuple(OperatingPoint(f"p{i}", w, h * 1e12, 1.0) for i, (w, h) in enumerate(rows))
    return Device(name, "asic", "a", feeder, points, rows[-1][0], **{"tolerance": 0.0, **named})


def _allocate(
    devices: list[Device], tree: FeederTree, room_w: list[float], **named: Any
) -> Allocation:
    fleet = Fleet.of(devices, tree)
    n = len(fleet)
    defaults: dict[str, Any] = {
        "room_w": np.array(room_w),
        "eligible": np.ones(n, dtype=np.bool_),
        "credit_w": np.zeros(n),
        "price_usd_per_mwh": 0.0,
    }
    return allocate(fleet, Ladder.of(fleet, VALUES), tree, **{**defaults, **named})


def _cheap(one: Any) -> Any:
    """The same instance with free energy: every rung is worth taking, so the feeders bind."""
    return dataclasses.replace(one, price_usd_per_mwh=0.0)


ONE = FeederTree.of([Feeder("main", None, 1e6)])
TWO = FeederTree.of([Feeder("main", None, 1e6), Feeder("a", "main", 1e6), Feeder("b", "main", 1e6)])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("devices", [40, 400])
def test_continuous_watts_are_as_good_as_the_linear_program(seed: int, devices: int) -> None:
    one = _cheap(bench.instance(devices, seed, per_rack=10, racks_per_hall=4, whole=0.0))
    found = bench.solved(one)
    assert found.binding
    assert bench.value(one, found) == pytest.approx(program.lp(one).value, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("devices", [40, 400])
def test_whole_rungs_lose_at_most_one_rung_per_binding_feeder(seed: int, devices: int) -> None:
    one = _cheap(bench.instance(devices, seed, per_rack=10, racks_per_hall=4, whole=1.0))
    found = bench.solved(one)
    rungs = one.ladder.ordered
    net = rungs.usd_per_mwh - one.price_usd_per_mwh
    dearest = float(((rungs.end_w - rungs.start_w) * net).max() / 1e6)
    gap = program.lp(one).value - bench.value(one, found)
    assert -1e-9 <= gap <= dearest * len(found.binding)


@pytest.mark.parametrize("seed", range(4))
def test_no_exact_answer_is_beaten_and_none_is_far(seed: int) -> None:
    one = bench.instance(40, seed, per_rack=8, racks_per_hall=3, whole=0.8)
    ours, exact = bench.value(one, bench.solved(one)), program.lp(one, whole=True).value
    assert ours <= exact * (1 + 1e-6)
    assert ours >= exact * 0.98


@pytest.mark.parametrize("seed", range(4))
def test_every_feeder_carries_no_more_than_its_room(seed: int) -> None:
    one = bench.instance(300, seed, per_rack=10, racks_per_hall=4, whole=0.5)
    found = bench.solved(one)
    taken_w = found.watts_w - one.ladder.base_w
    own_w = np.bincount(one.fleet.feeder, taken_w, len(one.tree.names))
    assert (one.tree.totals(own_w) <= one.room_w + 1e-3).all()


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 400), st.integers(-50, 200)), min_size=1, max_size=8),
    room_w=st.integers(0, 4000),
)
def test_a_device_stops_inside_its_envelope_only_where_nothing_better_fits(
    rows: list[tuple[int, int]], room_w: int
) -> None:
    watts = np.cumsum([10.0, *(float(w) for w, _ in rows)])
    hashes = np.maximum(np.cumsum([0.0, *(float(h) for _, h in rows)]), 0.0)
    pairs = list(zip(watts.tolist(), hashes.tolist(), strict=True))
    found = _allocate([_device("d", "main", pairs)], ONE, [float(room_w)])
    point = int(found.point[0])
    assert found.watts_w[0] == watts[point]
    fits = watts - 10.0 <= room_w
    assert fits[point]
    assert hashes[point] == pytest.approx(hashes[fits].max()), "more would have fitted"
    if fits.all() and not found.binding:
        assert envelopes(watts[None], hashes[None])[0, point]


@given(
    watts=st.lists(st.floats(0.5, 100), min_size=2, max_size=9),
    values=st.lists(st.floats(-50, 100), min_size=9, max_size=9),
)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_an_envelope_lies_above_all_points_and_is_concave(
    watts: list[float], values: list[float]
) -> None:
    x, y = np.cumsum(watts), np.array(values[: len(watts)])
    hull = np.flatnonzero(envelopes(x[None], y[None]))
    assert hull[0] == 0
    assert hull[-1] == len(x) - 1
    above = np.interp(x, x[hull], y[hull])
    assert (above >= y - 1e-6).all()
    slopes = np.diff(y[hull]) / np.diff(x[hull])
    assert (np.diff(slopes) <= 1e-6 * np.abs(slopes).max(initial=1.0)).all()


def test_a_full_branch_leaves_its_better_part_before_a_worse_neighbour() -> None:
    """The case in which cutting whole rungs first would starve the better branch at the root."""
    good = [_device(f"g{i}", "a", [(0.0, 0.0), (6.0, 60.0 - i)], continuous=True) for i in (0, 1)]
    poor = _device("p", "b", [(0.0, 0.0), (10.0, 10.0)], continuous=True)
    found = _allocate([*good, poor], TWO, [16.0, 10.0, 100.0])
    np.testing.assert_allclose(found.watts_w, [6.0, 4.0, 6.0])
    assert set(found.binding) == {"main", "a"}


def test_a_part_that_a_rack_gives_and_its_hall_takes_back_is_no_part() -> None:
    tree = FeederTree.of(
        [Feeder("main", None, 1e6), Feeder("hall", "main", 1e6), Feeder("rack", "hall", 1e6)]
    )
    poor = _device("poor", "rack", [(0.0, 0.0), (6.0, 6.0)], continuous=True)
    good = _device("good", "hall", [(0.0, 0.0), (9.0, 90.0)], continuous=True)
    found = _allocate([poor, good], tree, [1e6, 9.0, 4.0])
    assert found.watts_w.tolist() == [0.0, 9.0]
    assert found.point.tolist() == [0, 1]
    assert found.binding == ("hall",)


def test_what_one_more_watt_earns_is_told_of_the_feeder_that_alone_keeps_it_out() -> None:
    devices = [
        _device(f"{feeder}{i}", feeder, [(0.0, 0.0), (10.0, value)])
        for feeder, values in (("a", (90.0, 80.0)), ("b", (70.0, 60.0)))
        for i, value in enumerate(values)
    ]
    worth = [value * VALUES.usd_per_hash_hour * 1e12 / 10.0 * 1e6 for value in (80.0, 60.0)]
    for room_w, usd in (
        ([1e6, 15.0, 1e6], (0.0, worth[0], 0.0)),
        ([35.0, 1e6, 1e6], (worth[1], 0.0, 0.0)),
        # Where the root would not take it either, a full branch keeps nothing out.
        ([20.0, 1e6, 15.0], (70.0 / 80.0 * worth[0], 0.0, 0.0)),
        ([1e6, 1e6, 1e6], (0.0, 0.0, 0.0)),
    ):
        found = _allocate(devices, TWO, room_w)
        np.testing.assert_allclose(found.feeder_usd_per_mwh, usd)


def test_a_reserve_at_the_root_stays_with_fenced_devices_or_free() -> None:
    miner = _device("asic", "a", [(0.0, 0.0), (80.0, 90.0)], continuous=True)
    gate = _device("gate", "b", [(0.0, 0.0), (30.0, 1.0)], continuous=True, fenced=True)
    for reserve_w, watts_w in ((0.0, [80.0, 20.0]), (40.0, [60.0, 30.0]), (100.0, [0.0, 30.0])):
        found = _allocate([miner, gate], TWO, [100.0, 1e6, 1e6], reserve_w=reserve_w)
        np.testing.assert_allclose(found.watts_w, watts_w)


def test_what_a_large_rung_leaves_free_goes_to_a_smaller_one() -> None:
    large = _device("large", "main", [(0.0, 0.0), (80.0, 90.0)])
    small = _device("small", "main", [(0.0, 0.0), (30.0, 30.0)])
    found = _allocate([large, small], ONE, [50.0])
    np.testing.assert_allclose(found.watts_w, [0.0, 30.0])
    assert found.binding == ("main",)


def test_watts_that_compute_counts_already_cost_no_room() -> None:
    gate = _device("gate", "main", [(0.0, 0.0), (150.0, 90.0)], continuous=True, fenced=True)
    none = _allocate([gate], ONE, [0.0], credit_w=np.array([100.0]))
    some = _allocate([gate], ONE, [20.0], credit_w=np.array([100.0]))
    assert none.watts_w[0] == pytest.approx(100.0)
    assert some.watts_w[0] == pytest.approx(120.0)


def test_energy_dearer_than_every_rung_leaves_all_at_the_bottom() -> None:
    device = _device("d", "main", [(30.0, 0.0), (100.0, 5.0)])
    found = _allocate([device], ONE, [1e6], price_usd_per_mwh=1e9)
    assert found.point[0] == 0
    assert np.isnan(found.marginal_usd_per_mwh)
    assert found.next_usd_per_mwh[0] == pytest.approx(5.0 / 70.0 * 45.0 / 24e3 * 1e6, rel=1e-6)


def test_a_device_that_may_not_run_stays_down_and_says_what_it_would_earn() -> None:
    devices = [_device(f"d{i}", "main", [(0.0, 0.0), (10.0, 9.0)]) for i in (0, 1)]
    found = _allocate(devices, ONE, [1e6], eligible=np.array([True, False]))
    np.testing.assert_allclose(found.watts_w, [10.0, 0.0])
    assert found.next_usd_per_mwh[1] > 0


def test_the_order_of_equal_devices_is_the_order_of_the_fleet() -> None:
    devices = [_device(f"d{i}", "main", [(0.0, 0.0), (10.0, 9.0)]) for i in range(9)]
    found = _allocate(devices, ONE, [45.0])
    assert found.watts_w.tolist() == [10.0] * 4 + [0.0] * 5


def test_fit_prefix_drops_everything_after_the_first_that_does_not_fit() -> None:
    feeder = np.zeros(4, dtype=np.int64)
    keep = fit_prefix(ONE, feeder, np.array([4.0, 9.0, 1.0, 1.0]), np.array([6.0]))
    assert keep.tolist() == [True, False, False, False]
    keep = fit_prefix(ONE, feeder, np.array([4.0, 0.0, 1.0, 1.0]), np.array([-1.0]))
    assert not keep.any()


def test_a_device_never_skips_a_step() -> None:
    """A second step that would fit alone waits for the first, which does not."""
    large = _device("large", "a", [(0.0, 0.0), (50.0, 90.0), (55.0, 95.0)])
    small = _device("small", "a", [(0.0, 0.0), (5.0, 1.0)])
    for room_w in ([20.0, 20.0, 1e6], [20.0, 1e6, 1e6]):
        found = _allocate([large, small], TWO, room_w)
        assert found.watts_w.tolist() == [0.0, 5.0]


def test_what_an_owner_says_a_point_earns_ranks_it_beside_hashes() -> None:
    idle = OperatingPoint("idle", 0.0, 0.0, 1.0)
    coin = OperatingPoint("mine", 100.0, 0.0, 1.0, revenue_usd_per_h=0.009)  # 90 USD/MWh
    device = Device("gpu", "gpu", "a", "main", (idle, coin), 100.0, tolerance=0.0)
    for price, given_w in ((89.0, 100.0), (91.0, 0.0)):
        got = _allocate([device], ONE, [1000.0], price_usd_per_mwh=price)
        assert got.watts_w.tolist() == [given_w]


def test_items_that_fill_a_feeder_to_the_last_watt_are_kept() -> None:
    item_w = np.array([0.1, 0.2, 0.3, 0.0])
    full = fit_prefix(TWO, np.array([1, 1, 1, 1]), item_w, np.array([1e6, 0.1 + 0.2, 1e6]))
    assert full.tolist() == [True, True, False, False]
    none_left = fit_prefix(TWO, np.array([1, 1]), np.array([0.0, 5.0]), np.array([1e6, 0.0, 1e6]))
    assert none_left.tolist() == [True, False], "what takes nothing fits a full feeder"


@pytest.mark.parametrize("room_w", [[1e6, 20.0, 1e6], [20.0, 1e6, 1e6]], ids=["feeder", "root"])
def test_what_fills_a_room_but_for_rounding_is_taken_and_binds_nothing(room_w: list[float]) -> None:
    thirds = [_device(f"d{i}", "a", [(0.0, 0.0), (20.0 / 3.0, 5.0)]) for i in range(3)]
    found = _allocate(thirds, TWO, room_w)
    assert found.point.tolist() == [1, 1, 1]
    assert found.binding == ()


def test_what_gates_take_of_the_rest_leaves_others_their_part_of_it() -> None:
    best = _device("best", "main", [(0.0, 0.0), (50.0, 500.0)])
    wide = _device("wide", "main", [(0.0, 0.0), (60.0, 300.0)], fenced=True)
    slim = _device("slim", "main", [(0.0, 0.0), (20.0, 80.0)], fenced=True)
    last = _device("last", "main", [(0.0, 0.0), (30.0, 30.0)], continuous=True)
    found = _allocate([best, wide, slim, last], ONE, [100.0], reserve_w=40.0)
    np.testing.assert_allclose(found.watts_w, [50.0, 0.0, 20.0, 10.0])
