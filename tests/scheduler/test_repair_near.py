"""Which devices a repair looks at: the same for a feeder whoever else is looked at with it."""

import numpy as np
import pytest

from wattshift_scheduler.arrays import Ints
from wattshift_scheduler.feeder_tree import Feeder, FeederTree
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.repair.near import FEW, MOST, NEAR, WIDTHS, below, looked_at
from wattshift_scheduler.ladder.repair.offers import Prices
from wattshift_scheduler.site import Device, OperatingPoint
from wattshift_scheduler.values import Values

SIZES = {FEW: (3, 7, 11, 12), 48: (13, 20, 33, 48), MOST: (49, 100, 511, 900)}


class Hall:
    """A feeder for each count of machines, of few makes: most of them rank alike."""

    def __init__(self, counts: tuple[int, ...], seed: int) -> None:
        rng = np.random.default_rng(seed)
        names = [f"f{i}" for i in range(len(counts))]
        makes = [_points(float(rng.uniform(20.0, 40.0))) for _ in range(3)]
        devices = [
            _device(f"{name}-{i}", name, makes[int(rng.integers(3))])
            for name, count in zip(names, counts, strict=True)
            for i in range(count)
        ]
        tree = FeederTree.of([Feeder("main", None, 1e9), *(Feeder(n, "main", 1e6) for n in names)])
        self.fleet = Fleet.of(devices, tree)
        self.tree, self.feeders = tree, np.array([tree.index[name] for name in names])
        ladder = Ladder.of(self.fleet, Values(45.0, 0.0, 0.0, 0.0))
        self.prices = Prices(ladder, 20.0, np.zeros(len(devices)))
        point = rng.integers(0, 3, len(devices))
        self.watts_w = self.fleet.point_limit_w[self.fleet.first[:-1] + point]

    def table(self, feeders: Ints, width: int) -> Ints:
        movable = np.ones(len(self.fleet), dtype=np.bool_)
        at = next(at for at in self.tree.ancestors if (at[feeders] == feeders).all())
        some = below(self.fleet, movable, at, feeders)
        return looked_at(self.prices, self.watts_w, *some, len(feeders), width)


def _points(j_per_th: float) -> tuple[OperatingPoint, ...]:
    rows = [(w, w / j_per_th * (1.0 - 0.03 * k)) for k, w in enumerate((30.0, 2000.0, 3000.0))]
    return tuple(OperatingPoint(f"p{k}", w, h * 1e12, 0.01) for k, (w, h) in enumerate(rows))


def _device(name: str, feeder: str, points: tuple[OperatingPoint, ...]) -> Device:
    return Device(name, "asic", "a", feeder, points, 3000.0, tolerance=0.0)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_feeders_devices_are_the_same_alone_and_beside_larger_ones(width: int) -> None:
    for seed in range(6):
        hall = Hall(SIZES[width], seed)
        together = hall.table(hall.feeders, width)
        for row in range(len(hall.feeders)):
            alone = hall.table(hall.feeders[row : row + 1], width)
            assert alone.shape[1] == together.shape[1] == (FEW if width == FEW else NEAR)
            assert alone[0].tolist() == together[row].tolist()


def test_of_a_few_all_are_looked_at_and_of_many_those_nearest_to_the_cut() -> None:
    few = Hall((5, 12), 1)
    assert [sum(row >= 0) for row in few.table(few.feeders, FEW)] == [5, 12]
    many = Hall((40,), 2)
    rank, steps = many.prices.ladder.rank_usd_per_mwh, many.prices.ladder.steps
    here = many.prices.points_at(np.arange(40), many.watts_w)
    lowest = many.fleet.first[:-1]
    above = np.where(here > lowest, steps.above[here], steps.first[np.arange(40)])
    up = np.where(above >= 0, rank[above], -np.inf)
    (chosen,) = many.table(many.feeders, 48)
    assert (np.sort(up[chosen])[::-1][: NEAR // 2] == np.sort(up)[::-1][: NEAR // 2]).all()


def test_of_a_feeder_with_thousands_no_more_than_a_bound_are_ranked() -> None:
    hall = Hall((3000,), 3)
    seen: list[int] = []
    ranked = hall.prices.points_at

    class Counted(Prices):
        def points_at(self, device: Ints, lease_w: np.ndarray) -> Ints:
            seen.extend(device.tolist())
            return ranked(device, lease_w)

    kept = hall.prices
    hall.prices = Counted(kept.ladder, kept.price_usd_per_mwh, kept.credit_w)
    hall.table(hall.feeders, MOST)
    assert len(seen) == MOST
    assert set(np.diff(sorted(seen)).tolist()) == {5, 6}, "evenly chosen: 3000 / 512 is 5.9"
