"""Commissioning where a rack is fed from two sides: which meters can tell what of it."""

import numpy as np
import pytest

from wattshift_cluster.cli.commission import look_of
from wattshift_cluster.fleet.levels import Trace
from wattshift_cluster.fleet.pulses import Kind, Pulse, all_above, judge, nearest_meter, path_of

TREE = {
    "main": None, "a": "main", "b": "main", "rack": ("a", "b"), "shelf": "rack", "lone": "b",
}  # fmt: skip
AT_S = np.arange(0.0, 120.0)


def test_only_what_carries_all_of_it_is_on_its_path() -> None:
    assert path_of("shelf", TREE) == ["shelf", "rack", "main"]
    assert path_of("lone", TREE) == ["lone", "b", "main"]
    assert all_above("shelf", TREE) == {"shelf", "rack", "a", "b", "main"}
    assert nearest_meter("shelf", TREE, {"a": 0, "b": 0, "main": 0}) == "main"
    assert nearest_meter("shelf", TREE, {"a": 0}) is None
    assert nearest_meter("lone", TREE, {"a": 0, "b": 0}) == "b"


def trace(asleep_w: float, awake_w: float) -> Trace:
    """A draw that falls at 40 s and is back at 80 s, with 2 W of noise."""
    noise_w = np.random.default_rng(4).normal(0.0, 2.0, len(AT_S))
    asleep = (AT_S >= 41.0) & (AT_S < 81.0)
    return Trace(AT_S, np.where(asleep, asleep_w, awake_w) + noise_w)


def pulse(feeder: str, **meters: Trace) -> Pulse:
    still = Trace(AT_S, np.full(len(AT_S), 500.0))
    return Pulse("rig", feeder, TREE, 40.0, 80.0, 119.0, 20.0, meters, trace(30.0, 3000.0), still)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.5])
def test_a_step_on_either_side_is_not_a_wrong_feeder(share: float) -> None:
    """However the two sides share the load."""
    sides = {
        "a": trace(2000.0, 2000.0 + share * 2970.0),
        "b": trace(1000.0, 1000.0 + (1.0 - share) * 2970.0),
    }
    verdict = judge(pulse("rack", main=trace(3000.0, 5970.0), **sides))
    assert (verdict.kind, verdict.meter) == (Kind.PARTLY, "main")
    assert verdict.step_w == pytest.approx(2970.0, abs=10.0)
    assert judge(pulse("rack", **sides)).kind is Kind.SKIPPED, "neither alone sees all of it"


def test_what_hangs_on_one_side_alone_is_still_found_on_the_other() -> None:
    meters = {"main": trace(3000.0, 5970.0), "a": trace(2000.0, 2000.0), "b": trace(30.0, 3000.0)}
    verdict = judge(pulse("a", **meters))
    assert (verdict.kind, verdict.meter) == (Kind.WRONG_FEEDER, "b")


def test_both_sides_are_read_from_what_the_controller_tells() -> None:
    feeders = [
        {"id": "main", "parent": None},
        {"id": "a", "parent": "main"},
        {"id": "b", "parent": "main", "power_w": 7.0},
        {"id": "rack", "parent": "a", "second_parent": "b"},
    ]
    site = {"feeders": feeders, "power_age_s": 0.1, "power_w": 9.0, "cap_origin": "connection"}
    look = look_of(site, [], 0.0)
    assert look.tree == {"main": None, "a": "main", "b": "main", "rack": ("a", "b")}
    assert look.meters == {"b": 7.0, "main": 9.0}
