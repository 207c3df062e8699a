"""What is kept from one allocation to the next changes no answer, and no answer breaks a limit."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import Allocation, Filled, allocate, beyond
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.walk import filled
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint
from wattshift_scheduler.values import Values

Floats = npt.NDArray[np.float64]
VALUES = Values(45.0, 0.02, 9.0, 45.0)
HORIZON_S = 3600.0


def _tree(second: bool) -> FeederTree:
    """Four halls of four racks; with `second` one rack of each hall hangs on the next hall, too."""
    feeders = [Feeder("site", None, 1e6)]
    feeders += [Feeder(f"hall{h}", "site", 1e6) for h in range(4)]
    for rack in range(16):
        hall = rack // 4
        other = f"hall{(hall + 1) % 4}" if second and rack % 4 == 0 else None
        feeders.append(Feeder(f"rack{rack}", f"hall{hall}", 1e6, other))
    return FeederTree.of(feeders)


def _fleet(tree: FeederTree, rng: np.random.Generator, devices: int = 120) -> Fleet:
    """Every device of its own make: 1 to 6 points, some inside the envelope, some that divide."""
    made = []
    for i in range(devices):
        count = int(rng.integers(1, 7))
        watts = np.cumsum(rng.uniform(20.0, 900.0, count))
        hashes = np.cumsum(rng.uniform(-5.0, 40.0, count)).clip(0.0) * 1e12
        points = tuple(
            OperatingPoint(f"p{j}", float(w), float(h), float(rng.choice([0.1, 30.0, 300.0])))
            for j, (w, h) in enumerate(zip(watts, hashes, strict=True))
        )
        made.append(
            Device(
                f"d{i}",
                "asic",
                f"a{i % 7}",
                tree.names[int(rng.integers(1, len(tree.names)))],
                points,
                float(watts[-1]),
                continuous=bool(rng.random() < 0.3),
                fenced=bool(rng.random() < 0.4),
                wear_usd_per_cycle=float(rng.choice([0.0, 0.02, 0.2])),
            )
        )
    return Fleet.of(made, tree)


@dataclasses.dataclass(slots=True)
class World:
    """What one allocation is asked, changed a little from one to the next."""

    tree: FeederTree
    fleet: Fleet
    rng: np.random.Generator
    asked: dict[str, Any]
    awake: npt.NDArray[np.bool_]
    ladder: Ladder
    horizon_s: float = HORIZON_S

    @classmethod
    def of(cls, seed: int, second: bool) -> "World":
        rng = np.random.default_rng(seed)
        tree = _tree(second)
        fleet = _fleet(tree, rng)
        n = len(fleet)
        asked = {
            "room_w": _rooms(tree, fleet, rng),
            "eligible": rng.random(n) < 0.9,
            "credit_w": np.where(rng.random(n) < 0.15, rng.uniform(0.0, 3000.0, n), 0.0),
            "price_usd_per_mwh": 20.0,
            "take": None,
            "reserve_w": 0.0,
        }
        awake = rng.random(n) < 0.6
        return cls(tree, fleet, rng, asked, awake, Ladder.of(fleet, VALUES, awake, HORIZON_S))

    def change(self) -> None:
        """One thing of many, mostly a small one."""
        rng, asked, n = self.rng, self.asked, len(self.fleet)
        kind = int(rng.integers(0, 11))
        if kind <= 2:
            asked["room_w"] = asked["room_w"].copy()
            asked["room_w"][0] = float(rng.uniform(0.0, 90e3))
        elif kind == 3:
            asked["room_w"] = asked["room_w"].copy()
            asked["room_w"][int(rng.integers(1, len(self.tree.names)))] *= float(
                rng.uniform(0.3, 1.5)
            )
        elif kind == 4:
            asked["reserve_w"] = float(rng.choice([0.0, 2e3, 20e3]))
        elif kind == 5:
            name = "eligible" if asked["take"] is None or rng.random() < 0.5 else "take"
            asked[name] = asked[name].copy()
            asked[name][rng.integers(0, n, 3)] ^= True
        elif kind == 6:
            asked["credit_w"] = asked["credit_w"].copy()
            asked["credit_w"][rng.integers(0, n, 2)] = rng.uniform(0.0, 2500.0, 2)
        elif kind == 7:
            asked["take"] = rng.random(n) < 0.8 if asked["take"] is None else None
        elif kind == 8:
            asked["price_usd_per_mwh"] = float(rng.choice([20.0, 35.0]))
        elif kind == 9:
            self.horizon_s = 960.0 if self.horizon_s == HORIZON_S else HORIZON_S
            self._rank()
        else:
            self.awake = self.awake.copy()
            self.awake[rng.integers(0, n, 5)] ^= True
            self._rank()

    def _rank(self) -> None:
        self.ladder = self.fresh_ladder(self.ladder)

    def fresh_ladder(self, last: Ladder | None = None) -> Ladder:
        return Ladder.of(self.fleet, VALUES, self.awake, self.horizon_s, last=last)

    def allocate(self, last: Filled | None = None, ladder: Ladder | None = None) -> Allocation:
        return allocate(self.fleet, ladder or self.ladder, self.tree, **self.asked, last=last)

    def counted_w(self, found: Allocation) -> Floats:
        """Watts that each device counts above its lowest point."""
        credit_w = self.asked["credit_w"]
        return beyond(credit_w, found.watts_w) - beyond(credit_w, self.ladder.base_w)


def _rooms(tree: FeederTree, fleet: Fleet, rng: np.random.Generator) -> Floats:
    """Room so that about a third of the feeders bind."""
    top_w = fleet.point_limit_w[fleet.first[1:] - 1] - fleet.point_limit_w[fleet.first[:-1]]
    full_w = tree.totals(np.bincount(fleet.feeder, top_w, len(tree.names)))
    return full_w * rng.uniform(0.3, 1.3, len(full_w))


def _same(one: Allocation, other: Allocation) -> None:
    np.testing.assert_array_equal(one.point, other.point)
    np.testing.assert_array_equal(one.watts_w, other.watts_w)
    np.testing.assert_array_equal(one.feeder_usd_per_mwh, other.feeder_usd_per_mwh)
    np.testing.assert_array_equal(one.next_usd_per_mwh, other.next_usd_per_mwh)
    np.testing.assert_equal(one.marginal_usd_per_mwh, other.marginal_usd_per_mwh)
    assert one.binding == other.binding


@pytest.mark.parametrize(("seed", "small"), [(0, 0), (1, 0), (3, 2048)])
@pytest.mark.parametrize("second", [False, True])
def test_what_is_kept_gives_the_same_answer_bit_for_bit(
    seed: int, second: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`small`: as if the fleet were large, and as it is."""
    monkeypatch.setattr(filled, "SMALL_DEVICES", small)
    monkeypatch.setattr("wattshift_scheduler.ladder.allocate.SMALL_DEVICES", small)
    world = World.of(seed, second)
    last = world.allocate().filled
    for turn in range(12 if small == 0 else 3):
        for _ in range(1 + turn % 2):
            world.change()
        kept = world.allocate(last)
        fresh = world.fresh_ladder()
        for name in ("keys", "rank_usd_per_mwh", "worth_usd_per_mwh", "cycle_usd", "best_w"):
            np.testing.assert_array_equal(getattr(world.ladder, name), getattr(fresh, name))
        _same(kept, world.allocate(ladder=fresh))
        last = kept.filled


def test_an_answer_is_not_taken_for_that_of_another_ladder() -> None:
    """A ladder says what it changed of the one before it alone, and that may have been skipped."""
    world = World.of(11, second=False)
    world.asked["eligible"] = np.ones(len(world.fleet), dtype=np.bool_)
    last = world.allocate().filled
    branch = last.settled.branch[world.fleet.feeder]
    for one in np.unique(branch)[-2:]:
        world.awake = world.awake.copy()
        world.awake[np.flatnonzero(branch == one)[:14]] ^= True
        world.ladder = world.fresh_ladder(world.ladder)
    assert world.ladder.turned is not None
    _same(world.allocate(last), world.allocate(ladder=world.fresh_ladder()))


def test_another_reserve_alone_is_another_answer() -> None:
    world = World.of(12, second=False)
    world.asked["room_w"][0], last, drawn_w = 40e3, None, []
    for reserve_w in (0.0, 30e3, 5e3):
        world.asked["reserve_w"] = reserve_w
        kept = world.allocate(last)
        _same(kept, world.allocate())
        last = kept.filled
        drawn_w.append(float(world.counted_w(kept)[~world.fleet.fenced].sum()))
    assert drawn_w[1] < drawn_w[2] <= drawn_w[0]


@pytest.mark.parametrize(("seed", "small"), [(4, 0), (5, 0), (7, 2048)])
@pytest.mark.parametrize("second", [False, True])
def test_no_feeder_is_asked_for_more_than_it_has(
    seed: int, second: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filled, "SMALL_DEVICES", small)
    monkeypatch.setattr("wattshift_scheduler.ladder.allocate.SMALL_DEVICES", small)
    world = World.of(seed, second)
    last = None
    for turn in range(3):
        world.asked["room_w"] = world.asked["room_w"].copy()
        world.asked["room_w"][0] = (20e3, 60e3)[turn % 2]
        world.asked["reserve_w"] = (0.0, 5e3, 40e3)[turn % 3]
        found = world.allocate(last)
        last = found.filled
        counted_w = world.counted_w(found)
        own_w = np.bincount(world.fleet.feeder, counted_w, len(world.tree.names))
        room_w = world.asked["room_w"]
        assert (world.tree.totals(own_w) <= room_w + 1e-3).all()
        others_w = float(counted_w[~world.fleet.fenced].sum())
        assert others_w <= max(room_w[0] - world.asked["reserve_w"], 0.0) + 1e-3
        world.change()
