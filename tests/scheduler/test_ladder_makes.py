"""Devices of one make are ranked as one, and no answer differs by it."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.scheduler.test_ladder_scale import VALUES, World

from wattshift_scheduler.arrays import Keys, summed
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder import graded, makes
from wattshift_scheduler.ladder.allocate import Allocation
from wattshift_scheduler.ladder.envelopes import GRAIN_W, climbed
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.makes import makes_of
from wattshift_scheduler.ladder.walk import below, filled
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint

NEVER = 10**9
HAIR = 3e-14
"""Less than what ranks must differ by to count as apart, in a fleet of so few points."""
COLUMNS = (
    *("rank_usd_per_mwh", "worth_usd_per_mwh", "base_w", "cycle_usd", "bonus_usd_per_h"),
    *("first_w", "first_usd_per_mwh", "best_w", "best_usd_per_mwh", "awake", "cold"),
)
TREE = FeederTree.of([Feeder("site", None, 1e6), *(Feeder(f, "site", 1e5) for f in "ab")])
POINTS = (
    OperatingPoint("sleep", 30.0, 0.0, 5.0),
    OperatingPoint("low", 1000.0, 40e12, 5.0),
    OperatingPoint("high", 3000.0, 100e12, 5.0),
)
PLAIN = Device("d0", "asic", "agent", "a", POINTS, 3000.0, wear_usd_per_cycle=0.02)


def _world(seed: int, second: bool, points: int, models: int = 7) -> World:
    """A world of few models: some points lie inside an envelope, some models have a table; ranks of
    different models are equal, as some have twice the watts and hashes of others, or as good as.

    Args:
        seed, second: as of `World`.
        points: of every model; 0: each has as many as it likes.
        models: how many at most, beside those.
    """
    world = World.of(seed, second)
    rng = world.rng
    fits = [one for one in world.fleet.devices if points in (0, len(one.points))]
    drawn = tuple(fits[:models])
    drawn += tuple(_scaled(one, 2.0, 2.0) for one in drawn[:2])
    drawn += tuple(_scaled(one, 1.0, 1.0 + HAIR) for one in drawn[:3])
    made = []
    for device in world.fleet.devices:
        like = drawn[int(rng.integers(len(drawn)))]
        figures = {
            name: getattr(like, name)
            for name in ("points", "nameplate_w", "fenced", "wear_usd_per_cycle")
        }
        build_s = 60.0 if like is drawn[0] else 0.0
        divides = bool(rng.random() < 0.3)
        made.append(
            dataclasses.replace(device, **figures, continuous=divides, table_build_s=build_s)
        )
    world.fleet = Fleet.of(made, world.tree)
    fleet = world.fleet
    top_w = fleet.point_limit_w[fleet.first[1:] - 1] - fleet.point_limit_w[fleet.first[:-1]]
    full_w = world.tree.totals(summed(fleet.feeder, top_w, len(world.tree.names)))
    world.asked["room_w"] = full_w * rng.uniform(0.3, 1.3, len(full_w))
    return world


def _scaled(device: Device, watts: float, hashes: float) -> Device:
    points = tuple(
        dataclasses.replace(
            p, watts_w=watts * p.watts_w, hashrate_h_per_s=hashes * p.hashrate_h_per_s
        )
        for p in device.points
    )
    return dataclasses.replace(device, points=points, nameplate_w=watts * device.nameplate_w)


class Twin:
    """The same world ranked by make, and device by device."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.values = world, VALUES
        self.cold = world.rng.random(len(world.fleet)) < 0.3
        monkeypatch.setattr(makes, "LEAST_EACH", 2)
        self.grouped = self.ranked(None)
        monkeypatch.setattr(makes, "LEAST_EACH", NEVER)
        self.single = self.ranked(None)
        assert self.grouped.makes is not None
        assert self.single.makes is None

    def ranked(self, last: Ladder | None) -> Ladder:
        world = self.world
        return Ladder.of(
            world.fleet, self.values, world.awake, world.horizon_s, self.cold, last=last
        )

    def change(self) -> None:
        """One thing of what is asked, or of what the ladders are made of."""
        rng = self.world.rng
        self.world.change()
        if rng.random() < 0.2:
            price = float(rng.uniform(30.0, 60.0))
            self.values = dataclasses.replace(VALUES, hashprice_usd_per_ph_day=price)
        if rng.random() < 0.3:
            self.cold = self.cold.copy()
            self.cold[rng.integers(0, len(self.cold), 4)] ^= True
        self.grouped, self.single = self.ranked(self.grouped), self.ranked(self.single)


def _same_ladder(one: Ladder, other: Ladder) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("on", "start", "above", "first", "height_w", "span_w", "hollow", "bent"):
        ours, theirs = getattr(one.steps, name), getattr(other.steps, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    np.testing.assert_array_equal(np.argsort(one.keys), np.argsort(other.keys))
    for field in dataclasses.fields(one.ordered):
        np.testing.assert_array_equal(
            getattr(one.ordered, field.name), getattr(other.ordered, field.name)
        )


def _same(one: Allocation, other: Allocation) -> None:
    np.testing.assert_array_equal(one.point, other.point)
    np.testing.assert_array_equal(one.watts_w, other.watts_w)
    np.testing.assert_array_equal(one.feeder_usd_per_mwh, other.feeder_usd_per_mwh)
    np.testing.assert_array_equal(one.next_usd_per_mwh, other.next_usd_per_mwh)
    np.testing.assert_equal(one.marginal_usd_per_mwh, other.marginal_usd_per_mwh)


@pytest.mark.parametrize("narrow", [True, False], ids=["32-bit", "64-bit"])
@pytest.mark.parametrize("small", [0, 2048])
@pytest.mark.parametrize(
    ("seed", "second", "points"), [(1, False, 0), (2, True, 5), (5, False, 6), (8, True, 0)]
)
def test_ranked_by_make_gives_the_same_answer_bit_for_bit(
    seed: int,
    second: bool,
    points: int,
    small: int,
    narrow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Made anew and kept from one decision to the next, over random changes."""
    monkeypatch.setattr(filled, "SMALL_DEVICES", small)
    monkeypatch.setattr("wattshift_scheduler.ladder.allocate.SMALL_DEVICES", small)
    if not narrow:
        monkeypatch.setattr(graded, "MOST_NARROW", 0)
    twin = Twin(_world(seed, second, points), monkeypatch)
    last, hollow, patched = None, False, False
    assert twin.world.fleet.points_each == points
    for _ in range(14 if small == 0 else 4):
        grouped, single, world = twin.grouped, twin.single, twin.world
        assert grouped.keys.dtype == (np.uint32 if narrow else np.int64)
        _same_ladder(grouped, single)
        kept = world.allocate(last, ladder=grouped)
        _same(kept, world.allocate(ladder=single))
        last, hollow = kept.filled, hollow or bool(single.steps.bent)
        patched |= grouped.turned is not None
        twin.change()
    assert hollow, "no point lay inside an envelope"
    assert patched or small, "no ladder was made of another"


def test_devices_that_rank_alike_are_of_one_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they hang, whoever owns them, and whatever they fall to."""
    monkeypatch.setattr(makes, "LEAST_EACH", 2)
    others: dict[str, Any] = {"feeder": "b", "agent": "other", "safe_w": 7.0, "nameplate_w": 4e3}
    rows = [PLAIN] + [
        dataclasses.replace(PLAIN, id=name, **{name: value}) for name, value in others.items()
    ]
    found = makes_of(Fleet.of(rows, TREE))
    assert found is not None
    assert found.count == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"points": POINTS[:2]},
        {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], watts_w=2999.0))},
        {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], hashrate_h_per_s=101e12))},
        {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], revenue_usd_per_h=0.01))},
        {"points": (*POINTS[:2], dataclasses.replace(POINTS[2], transition_s=6.0))},
        {"fenced": True},
        {"continuous": True},
        {"tolerance": 0.06},
        {"wear_usd_per_cycle": 0.03},
        {"table_build_s": 60.0},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_devices_that_may_rank_apart_are_not(
    changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(makes, "LEAST_EACH", 2)
    other = dataclasses.replace(PLAIN, **changed)
    rows = [dataclasses.replace((PLAIN, other)[i % 2], id=f"d{i}") for i in range(6)]
    found = makes_of(Fleet.of(rows, TREE))
    assert found is not None
    assert found.count == 2
    assert len(set(found.of[::2])) == len(set(found.of[1::2])) == 1
    # Of both kinds there is one at rest, and one that runs.
    assert found.ways == (3 if other.table_build_s else 2)
    ids = [device.id for device in found.fleet.devices]
    assert sorted(ids) == sorted(["d0", "d1"] * found.ways)


def test_a_fleet_in_which_each_is_of_its_own_make_has_none() -> None:
    world = World.of(3, second=False)
    assert makes_of(world.fleet) is None
    assert makes_of(Fleet.of((), TREE)) is None


def test_devices_whose_numbers_meet_by_chance_are_not_taken_for_one_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(makes, "LEAST_EACH", 2)
    apart = [
        dataclasses.replace(PLAIN, id=f"d{i}", wear_usd_per_cycle=0.01 * (1 + i // 3))
        for i in range(6)
    ]
    fleet = Fleet.of(apart, TREE)
    assert makes_of(fleet) is not None
    monkeypatch.setattr(makes, "_hashes", lambda fleet: np.zeros(len(fleet), dtype=np.uint64))
    assert makes_of(fleet) is None


def test_what_is_changed_in_a_fleet_is_of_another_make() -> None:
    """A ladder of another fleet takes nothing over from the last."""
    rows = [dataclasses.replace(PLAIN, id=f"d{i}") for i in range(64)]
    fleet = Fleet.of(rows, TREE)
    last = Ladder.of(fleet, VALUES)
    assert last.makes is not None
    better = dataclasses.replace(fleet, point_h_per_s=fleet.point_h_per_s * np.arange(1.0, 193.0))
    assert Ladder.of(better, VALUES, last=last).makes is None


@pytest.mark.parametrize("padded", [0.0, 1.5, 1e9])
def test_rows_are_sorted_each_by_itself(padded: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(below, "MOST_PADDED", padded)
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 60, 25)
    for dtype in (np.int64, np.uint32):
        keys: Keys = rng.integers(0, 2**31, int(counts.sum())).astype(dtype)
        rows: list[npt.NDArray[Any]] = np.split(keys.copy(), np.cumsum(counts)[:-1])
        found = below._rows_sorted(keys, counts)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.concatenate([np.sort(row) for row in rows]))


def test_grains_add_up_exactly() -> None:
    """As floats do, whatever their order: to 34 GW, and beyond that still to the grain."""
    rng = np.random.default_rng(5)
    watts = np.rint(rng.uniform(0.0, 4000.0, 10_000) / GRAIN_W) * GRAIN_W
    np.testing.assert_array_equal(climbed(watts), np.cumsum(watts))
    assert climbed(watts)[-1] == climbed(watts[::-1])[-1]
