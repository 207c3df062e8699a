"""What the last watt of a cut earns is read off the order of rungs: as the devices would tell."""

import numpy as np

from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.ladder.allocate import allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint
from wattshift_scheduler.values import Values

VALUES = Values(45.0, 0.0, 120.0, 50.0)
TREE = FeederTree.of((Feeder("main", None, 5e6), Feeder("west", "main", 4e6)))


def test_the_cut_knows_what_its_last_watt_earns() -> None:
    rng, n = np.random.default_rng(9), 2100
    points = [
        (OperatingPoint("sleep", 30.0, 0.0, 2.0), *(
            OperatingPoint(f"p{i}", 1000.0 * i, 1e12 * rate, 2.0)
            for i, rate in enumerate(np.cumsum(np.sort(rng.uniform(10, 60, 2))[::-1]), 1)
        ))
        for _ in range(n)
    ]  # fmt: skip
    devices = [
        Device(f"a{i}", "asic", "left", "west", points[i], 2000.0, 0.05, i % 7 == 0)
        for i in range(n)
    ]
    fleet = Fleet.of(devices, TREE)
    awake = rng.random(n) < 0.5
    ladder = Ladder.of(fleet, VALUES, awake, 600.0)
    last, told = None, set()
    for room_w in (4e6, 3e6, 1e6, 1.2e6, 1500.0, 0.0, 2.5e6):
        found = allocate(
            fleet,
            ladder,
            TREE,
            room_w=np.array([room_w, 3.9e6]),
            eligible=np.ones(n, dtype=np.bool_),
            credit_w=np.zeros(n),
            price_usd_per_mwh=5.0,
            last=last,
        )
        last = found.filled
        least = last.capped.least_usd_per_mwh(last.settled)
        assert least is not None
        np.testing.assert_equal(least, found.marginal_usd_per_mwh)
        told.add(str(least))
    assert len(told) > 4, "hardly a cut was another"
