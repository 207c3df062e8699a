"""Feeder trees, devices, values and the arbitration of caps: what they accept and what they say."""

import math
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.signals.arbitrate import arbitrate, next_change_s
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import (
    Device,
    Feeder,
    FeederTree,
    Node,
    OperatingPoint,
    Site,
    feeder_limit_w,
)
from wattshift_scheduler.values import Values

TREE = FeederTree.of(
    [Feeder("row", "hall", 10.0), Feeder("hall", "main", 20.0), Feeder("main", None, 30.0)]
)


def _points(*watts: float) -> tuple[OperatingPoint, ...]:
    return tuple(OperatingPoint(f"p{i}", w, w, 1.0) for i, w in enumerate(watts))


def test_amps_become_watts_at_the_lowest_voltage() -> None:
    assert feeder_limit_w(32, 3, 218.0) == pytest.approx(32 * 3 * 218 * 0.95)


@pytest.mark.parametrize(("amps", "phases", "volts", "factor"), [
    (0, 1, 230, 0.9), (16, 4, 230, 0.9), (16, 1, 0, 0.9), (16, 1, 230, 1.1),
])  # fmt: skip
def test_an_impossible_breaker_is_refused(
    amps: float, phases: int, volts: float, factor: float
) -> None:
    with pytest.raises(SiteInvalid):
        feeder_limit_w(amps, phases, volts, factor)


@pytest.mark.parametrize("feeders", [
    [Feeder("a", None, 1.0), Feeder("a", None, 1.0)],
    [Feeder("a", None, 0.0)],
    [Feeder("a", None, math.nan)],
    [Feeder("a", None, 1.0), Feeder("b", None, 1.0)],
    [Feeder("a", None, 1.0), Feeder("b", "c", 1.0)],
    [Feeder("a", None, 1.0), Feeder("b", "c", 1.0), Feeder("c", "b", 1.0)],
    [],
])  # fmt: skip
def test_a_tree_that_cannot_exist_is_refused(feeders: list[Feeder]) -> None:
    with pytest.raises(SiteInvalid):
        FeederTree.of(feeders)


def test_a_tree_sums_up_and_looks_up() -> None:
    assert TREE.names == ("main", "hall", "row")
    assert TREE.totals(np.array([1.0, 2.0, 4.0])).tolist() == [7.0, 6.0, 4.0]
    assert TREE.ancestors[1].tolist() == [-1, 1, 1]
    assert TREE.any_above(np.array([False, True, False])).tolist() == [False, True, True]


@pytest.mark.parametrize("change", [
    {"points": ()}, {"points": _points(5.0, 5.0)}, {"points": _points(-1.0)},
    {"nameplate_w": 1.0}, {"nameplate_w": math.inf}, {"tolerance": 1.0}, {"safe_w": -1.0},
])  # fmt: skip
def test_a_device_that_cannot_exist_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"points": _points(1.0, 9.0), "nameplate_w": 10.0}
    with pytest.raises(SiteInvalid) as told:
        Device("d7", "asic", "a", "main", **{**good, **change})
    assert told.value.item == "d7"


def test_a_fleet_knows_the_limits_of_its_points_and_who_owns_what() -> None:
    whole = Device("w", "asic", "z", "row", _points(10.0, 100.0), 110.0, 0.1)
    gate = Device("g", "cpu", "a", "main", _points(0.0, 50.0), 50.0, 0.1, True, True, host="h")
    fleet = Fleet.of([whole, gate], TREE)
    np.testing.assert_allclose(fleet.point_limit_w, [11.0, 110.0, 0.0, 50.0])
    np.testing.assert_allclose(fleet.nameplate_w, [121.0, 55.0])
    assert fleet.agents == ("a", "z")
    assert fleet.agent.tolist() == [1, 0]
    assert fleet.host.tolist() == [-1, 0]
    assert fleet.columns_of(["g", "nobody"]).tolist() == [1, -1]
    assert fleet.mode_of(1, 1) == "p1"


def test_a_fleet_refuses_twins_and_strangers() -> None:
    one = Device("w", "asic", "z", "row", _points(10.0), 10.0)
    with pytest.raises(SiteInvalid):
        Fleet.of([one, one], TREE)
    with pytest.raises(SiteInvalid):
        Fleet.of([Device("w", "asic", "z", "nowhere", _points(10.0), 10.0)], TREE)


def test_a_node_needs_a_feeder_and_sane_watts() -> None:
    with pytest.raises(SiteInvalid):
        Site("s", TREE, (Node("n", "nowhere", 1.0),))
    with pytest.raises(SiteInvalid):
        Site("s", TREE, (Node("n", "main", math.nan),))


def test_hashprice_becomes_usd_per_hash_hour() -> None:
    values = Values(hashprice_usd_per_ph_day=48.0, pool_fee_share=0.5)
    assert values.usd_per_hash_hour * 1e15 == pytest.approx(1.0)
    with pytest.raises(SiteInvalid):
        Values(pool_fee_share=1.0)
    with pytest.raises(SiteInvalid):
        Values(hashprice_usd_per_ph_day=math.nan)


def test_the_lowest_cap_in_force_wins_and_is_named() -> None:
    caps = [
        Cap("open", "operator", 900.0),
        Cap("later", "schedule", 100.0, 50.0, 60.0),
        Cap("now", "contract", 500.0, 0.0, 50.0),
    ]
    assert arbitrate(caps, 1000.0, 10.0).cap_id == "now"
    assert arbitrate(caps, 1000.0, 50.0).cap_w == 100.0
    assert arbitrate(caps, 1000.0, 60.0).origin == "operator"
    assert arbitrate(caps, 800.0, 60.0).origin == "connection"
    assert next_change_s(caps, 10.0) == 50.0
    assert next_change_s(caps, 60.0) is None


@pytest.mark.parametrize("limit_w", [-1.0, math.nan, math.inf])
def test_a_cap_that_cannot_be_is_refused(limit_w: float) -> None:
    with pytest.raises(SiteInvalid):
        Cap("c", "operator", limit_w)
