"""Whole rungs against exact answers over all operating points: brute force, and HiGHS."""

import importlib.util
import math
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.arrays import Floats, Ints, summed
from wattshift_scheduler.feeder_tree import Feeder, FeederTree
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.repair.repaired import repaired
from wattshift_scheduler.site import Device, OperatingPoint
from wattshift_scheduler.values import Values

SITES = 34
PROBLEMS = 300
"""Of each site: more than ten thousand together."""

MEAN_LOSS = 0.005
ROUNDED_W = 1e-3


@pytest.fixture(scope="module")
def exact() -> ModuleType:
    """The benchmark's own problems and exact answers: one formulation for test and figure."""
    path = Path(__file__).parents[2] / "benchmarks" / "allocate_exact.py"
    spec = importlib.util.spec_from_file_location("bench_allocate_exact", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_allocate_exact"] = module
    spec.loader.exec_module(module)
    return module


def _device(name: str, feeder: str, rows: list[tuple[float, float]], **named: Any) -> Device:
    points = tuple(OperatingPoint(f"p{i}", w, h * 1e12, 0.01) for i, (w, h) in enumerate(rows))
    return Device(name, "asic", "a", feeder, points, rows[-1][0], **{"tolerance": 0.0, **named})


def _watts(devices: list[Device], feeders: list[Feeder], **named: Any) -> Floats:
    tree = FeederTree.of(feeders)
    fleet = Fleet.of(devices, tree)
    defaults: dict[str, Any] = {
        "room_w": tree.limit_w,
        "eligible": np.ones(len(fleet), dtype=np.bool_),
        "credit_w": np.zeros(len(fleet)),
        "price_usd_per_mwh": 0.0,
    }
    ladder = Ladder.of(fleet, Values(45.0, 0.0, 0.0, 0.0))
    return allocate(fleet, ladder, tree, **{**defaults, **named}).watts_w


def _assert_safe(one: Any, watts_w: Floats) -> None:
    used_w, unfenced_w = one.loads_w(watts_w)
    assert (used_w <= one.room_w + ROUNDED_W).all()
    assert unfenced_w <= one.room_w[0] - one.reserve_w + ROUNDED_W


def _one_rung_each(one: Any, devices: Ints, found: Allocation) -> float:
    """The dearest rung of these devices, for each feeder above them that binds."""
    dearest = max((sum(r[:2]) * r[2] for d in devices.tolist() for r in one.rungs(d)), default=0.0)
    above = {f for d in devices.tolist() for f in one.tree.path(int(one.fleet.feeder[d]))}
    return dearest * len(above & {one.tree.index[name] for name in found.binding})


@pytest.mark.timeout(400)
def test_ten_thousand_small_problems_lose_little_and_never_more_than_a_rung_a_feeder(
    exact: ModuleType,
) -> None:
    losses: list[float] = []
    for seed in range(SITES):
        one, problems = exact.many(random.Random(seed), PROBLEMS)
        found = one.answer()
        _assert_safe(one, found.watts_w)
        worth = one.worth(found.watts_w)
        for devices in problems:
            best, ours = exact.by_trial(one, devices), float(worth[devices].sum())
            assert ours <= best + 1e-6
            if best - ours > 1e-6:
                assert best - ours <= _one_rung_each(one, devices, found) + 1e-9
            losses.append(1.0 - ours / best if best > 0 else 0.0)
    assert len(losses) >= 10_000
    assert np.mean(losses) <= MEAN_LOSS


@pytest.mark.parametrize("reserve_share", [0.0, 0.25])
def test_the_root_and_its_reserve_lose_no_more(exact: ModuleType, reserve_share: float) -> None:
    losses: list[float] = []
    for seed in range(60):
        rng = random.Random(seed)
        one = exact.problem(rng, rng.randint(2, 7), reserve_share)
        found, devices = one.answer(), np.arange(len(one.fleet))
        _assert_safe(one, found.watts_w)
        best, ours = exact.by_trial(one, devices), float(one.worth(found.watts_w).sum())
        assert ours <= best + 1e-6
        assert best - ours <= _one_rung_each(one, devices, found) + 1e-6
        losses.append(1.0 - ours / best if best > 0 else 0.0)
    assert np.mean(losses) <= MEAN_LOSS


def test_sixty_devices_are_as_good_as_a_mixed_integer_program(exact: ModuleType) -> None:
    losses: list[float] = []
    for seed in range(5):
        one = exact.problem(random.Random(seed), 60, 0.1)
        found = one.answer()
        _assert_safe(one, found.watts_w)
        best, ours = exact.by_milp(one), float(one.worth(found.watts_w).sum())
        assert ours <= best * (1 + 1e-5)
        assert best - ours <= _one_rung_each(one, np.arange(len(one.fleet)), found) + 1e-6
        losses.append(1.0 - ours / best)
    assert np.mean(losses) <= MEAN_LOSS


def test_three_feeders_of_6_kw_take_the_rung_that_fills_them() -> None:
    """By watt the smaller rungs are worth a little more: so the walk takes them, and loses 39 %."""
    names = ("a", "b", "c")
    feeders = [Feeder("main", None, 18_000.0), *(Feeder(n, "main", 6000.0) for n in names)]
    small = [_device(f"s{n}", n, [(0.0, 0.0), (3500.0, 3535.0)]) for n in names]
    large = [_device(f"l{n}", n, [(0.0, 0.0), (5900.0, 5900.0)]) for n in names]
    watts_w = _watts([*small, *large], feeders)
    assert watts_w.tolist() == [0.0] * 3 + [5900.0] * 3


def test_divisible_watts_give_way_to_a_rung_and_take_what_it_leaves() -> None:
    gate = _device("gate", "main", [(0.0, 0.0), (1000.0, 1100.0)], continuous=True, fenced=True)
    large = _device("large", "main", [(0.0, 0.0), (5900.0, 5900.0)])
    watts_w = _watts([gate, large], [Feeder("main", None, 6000.0)])
    np.testing.assert_allclose(watts_w, [100.0, 5900.0], atol=ROUNDED_W)


def test_a_point_inside_the_envelope_is_taken_where_none_on_it_fits() -> None:
    device = _device("d", "main", [(0.0, 0.0), (300.0, 100.0), (500.0, 1000.0)])
    assert _watts([device], [Feeder("main", None, 600.0)]).tolist() == [500.0]
    assert _watts([device], [Feeder("main", None, 400.0)]).tolist() == [300.0]


def test_a_point_inside_envelope_and_credit_needs_no_watts() -> None:
    """Its 300 W are counted by compute already; the 150 W more of the envelope do not fit."""
    device = _device("d", "rack", [(0.0, 0.0), (300.0, 100.0), (500.0, 1000.0)])
    feeders = [Feeder("main", None, 1000.0), Feeder("rack", "main", 100.0)]
    for root_w in (1000.0, 0.0):
        room_w = np.array([root_w, 100.0])
        found = _watts([device], feeders, credit_w=np.array([350.0]), room_w=room_w)
        assert found.tolist() == [300.0]


def test_unfenced_devices_leave_the_reserve_alone_and_have_the_rest() -> None:
    """The gate could have all; what it must not lose to others is the reserve alone."""
    gate = _device("gate", "main", [(0.0, 0.0), (4000.0, 4100.0)], fenced=True)
    asic = _device("asic", "main", [(0.0, 0.0), (3000.0, 4000.0)])
    old = _device("old", "main", [(0.0, 0.0), (3000.0, 3000.0)])
    root = [Feeder("main", None, 6000.0)]
    assert _watts([gate, asic, old], root, reserve_w=0.0).tolist() == [0.0, 3000.0, 3000.0]
    assert _watts([gate, asic, old], root, reserve_w=2000.0).tolist() == [4000.0, 0.0, 0.0]


def test_both_feeds_of_a_branch_keep_to_their_limits() -> None:
    feeders = [
        Feeder("main", None, 30_000.0),
        Feeder("a", "main", 9000.0),
        Feeder("b", "main", 8000.0),
        Feeder("both", "a", 12_000.0, "b"),
    ]
    rng = random.Random(1)
    tree = FeederTree.of(feeders)
    for _ in range(20):
        devices = [
            _device(f"d{i}", feeder, [(0.0, 0.0), (w / 2, w * 0.6), (w, w)], continuous=i % 4 == 0)
            for i, feeder in enumerate(("a", "b", "both") * 4)
            for w in [rng.uniform(1000.0, 6000.0)]
        ]
        fleet = Fleet.of(devices, tree)
        used_w = tree.totals(summed(fleet.feeder, _watts(devices, feeders), len(tree.names)))
        assert (used_w <= tree.limit_w + ROUNDED_W).all()
        assert used_w[tree.index["b"]] > 0.8 * 8000.0


def _again(one: Any, watts_w: Floats, binding: Any = None) -> Floats:
    ladder = one.ladder
    movable = ladder.rank_usd_per_mwh[ladder.steps.first] > one.price_usd_per_mwh
    used_w, unfenced_w = one.loads_w(watts_w)
    return repaired(
        one.tree,
        ladder,
        price_usd_per_mwh=one.price_usd_per_mwh,
        credit_w=one.credit_w,
        watts_w=watts_w,
        movable=movable & (ladder.steps.first >= 0),
        left_w=one.room_w - used_w,
        binding=np.ones(len(one.tree.names), dtype=np.bool_) if binding is None else binding,
        unfenced_left_w=math.inf
        if not one.reserve_w
        else one.room_w[0] - one.reserve_w - unfenced_w,
    )


def test_exchanges_of_different_feeders_share_what_is_left_above_them(exact: ModuleType) -> None:
    """Each of three branches would climb by 900 W, and 2500 W are left for all of them."""
    names = ("a", "b", "c")
    feeders = [Feeder("main", None, 10_000.0), *(Feeder(n, "main", 4000.0) for n in names)]
    rows = [(n, w, usd) for n in names for w, usd in ((2500.0, 2500.0), (3400.0, 3500.0))]
    devices = [_device(f"{n}{w}", n, [(0.0, 0.0), (w, usd)]) for n, w, usd in rows]
    tree = FeederTree.of(feeders)
    fleet = Fleet.of(devices, tree)
    ladder = Ladder.of(fleet, Values(45.0, 0.0, 0.0, 0.0))
    one = exact.Question(fleet, ladder, tree, tree.limit_w, np.zeros(6), 0.0)
    watts_w = _again(one, np.array([2500.0, 0.0] * 3))
    _assert_safe(one, watts_w)
    assert sorted(watts_w.tolist()) == [0.0] * 3 + [2500.0, 3400.0, 3400.0]


def test_what_is_repaired_is_not_changed_by_a_repair(exact: ModuleType) -> None:
    one, _ = exact.many(random.Random(99), 150)
    idle_w = one.ladder.base_w
    first = _again(one, idle_w)
    assert (first != idle_w).any()
    assert np.array_equal(_again(one, first), first)


def test_a_feeder_gets_the_same_with_others_and_alone(exact: ModuleType) -> None:
    """So what is kept from one decision to the next equals what is worked out anew."""
    one, problems = exact.many(random.Random(98), 60)
    together = _again(one, one.ladder.base_w)
    for devices in problems[:12]:
        names = {f for d in devices.tolist() for f in one.tree.path(int(one.fleet.feeder[d]))}
        binding = np.zeros(len(one.tree.names), dtype=np.bool_)
        binding[sorted(names - {0})] = True
        alone = _again(one, one.ladder.base_w, binding)
        assert np.array_equal(alone[devices], together[devices])


def test_racks_of_forty_come_close_to_the_linear_bound(exact: ModuleType) -> None:
    rng = random.Random(5)
    racks = [f"r{i}" for i in range(4)]
    feeders = [
        Feeder("main", None, 1e9),
        *(Feeder(r, "main", rng.uniform(70e3, 100e3)) for r in racks),
    ]
    devices = []
    for i in range(160):
        top_w, j_per_th = rng.uniform(2800.0, 3600.0), rng.uniform(16.0, 34.0)
        watts = [30.0, *(top_w * share for share in (0.35, 0.52, 0.68, 0.84, 1.0))]
        rows = [(w, w / (j_per_th * (1 + 0.05 * k))) for k, w in enumerate(watts)]
        devices.append(_device(f"d{i}", racks[i % 4], [(30.0, 0.0), *rows[1:]]))
    tree = FeederTree.of(feeders)
    fleet = Fleet.of(devices, tree)
    ladder = Ladder.of(fleet, Values(45.0, 0.0, 0.0, 0.0))
    base_w = tree.totals(summed(fleet.feeder, ladder.base_w, len(tree.names)))
    one = exact.Question(fleet, ladder, tree, tree.limit_w - base_w, np.zeros(160), 20.0)
    found = one.answer()
    _assert_safe(one, found.watts_w)
    assert len(found.binding) == 4
    bound = exact.by_milp(one, whole=False)
    assert one.worth(found.watts_w).sum() >= 0.999 * bound


def test_while_the_price_is_unknown_nothing_moves(exact: ModuleType) -> None:
    one, _ = exact.many(random.Random(97), 5)
    unknown = exact.replace(one, price_usd_per_mwh=math.inf)
    assert np.array_equal(_again(unknown, one.ladder.base_w), one.ladder.base_w)
