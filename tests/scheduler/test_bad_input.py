"""Input that cannot be is refused with the item at fault, and a site without devices goes on."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler import floors
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.forecasts.forecast import Band
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.allocate import allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.plan.solve import planned
from wattshift_scheduler.plan.words import Ahead, Kind, PlanInvalid, Standing
from wattshift_scheduler.promises.flexibility import flexibility
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

TREE = FeederTree.of([Feeder("main", None, 5000.0), Feeder("row", "main", 3000.0)])
SITE = Site("s", TREE)
VALUES = Values(hashprice_usd_per_ph_day=50.0, default_price_usd_per_mwh=10.0)
NAN, INF = math.nan, math.inf


def points(*watts_w: float, **more: Any) -> tuple[OperatingPoint, ...]:
    return tuple(
        OperatingPoint(f"p{i}", w, 1e10 * i, **{"transition_s": 1.0, **more})
        for i, w in enumerate(watts_w)
    )


def device(name: str = "rig-7", **changes: Any) -> Device:
    good: dict[str, Any] = {"points": points(30.0, 2000.0), "nameplate_w": 2000.0}
    return Device(name, "asic", "a", "row", **{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"points": points(NAN, 2000.0)}, "finite"),
        ({"points": points(30.0, INF)}, "finite"),
        ({"points": points(-30.0, 2000.0)}, "not negative"),
        ({"points": points(2000.0, 30.0)}, "rise"),
        ({"points": points(30.0, 30.0)}, "rise"),
        ({"points": ()}, "at least one"),
        ({"points": points(30.0, transition_s=NAN)}, "finite"),
        ({"points": points(30.0, revenue_usd_per_h=-1.0)}, "not negative"),
        ({"nameplate_w": NAN}, "finite"),
        ({"nameplate_w": 1999.0}, "nameplate_w"),
        ({"safe_w": -1.0}, "not negative"),
        ({"power_on_w": NAN}, "finite"),
        ({"tolerance": NAN}, "tolerance"),
        ({"wear_usd_per_cycle": NAN}, "wear"),
    ],
)
def test_a_device_that_cannot_be_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SiteInvalid, match=why) as told:
        device(**changes)
    assert told.value.item == "rig-7"


@pytest.mark.parametrize(
    ("devices", "item"),
    [([device(), device()], "rig-7"), ([replace(device(), feeder="nowhere")], "rig-7")],
)
def test_a_fleet_with_twins_or_strangers_is_refused_by_name(
    devices: list[Device], item: str
) -> None:
    with pytest.raises(SiteInvalid) as told:
        Fleet.of(devices, TREE)
    assert told.value.item == item


def test_devices_that_join_twice_in_one_event_are_a_fault() -> None:
    with pytest.raises(SiteInvalid, match="twice") as told:
        step(initial(SITE, VALUES, 1), [ev.DeviceJoined((device("x"), device(), device()))], 1.0)
    assert told.value.item == "rig-7"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin_share", NAN), ("margin_share", 1.0), ("stale_margin_share", -0.1),
        ("other_load_w", NAN), ("other_load_w", -1.0), ("expected_shed_s", NAN), ("hold_s", INF),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SiteInvalid, match=name):
        Rules(**{name: value})


@pytest.mark.parametrize("changes", [{"max_w": NAN}, {"gpus": NAN}, {"gpus": -1.0}])
def test_a_node_that_cannot_be_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(SiteInvalid) as told:
        Site("s", TREE, (replace(Node("n1", "row", 9.0), **changes),))
    assert told.value.item == "n1"


def test_a_floor_is_held_against_the_limit_to_the_watt() -> None:
    usable_w = 3000.0 * (1.0 - SITE.rules.margin_share)
    resting = [device("exact", points=points(usable_w, 4000.0), nameplate_w=4000.0, tolerance=0.0)]
    floors.check(SITE, resting)
    above = [replace(resting[0], points=points(usable_w + 0.01, 4000.0))]
    with pytest.raises(SiteInvalid) as told:
        floors.check(SITE, above)
    assert told.value.item == "row"


def test_a_limit_below_the_floor_is_refused_with_the_feeder() -> None:
    low = [device(f"d{i}", points=points(1000.0, 2000.0), tolerance=0.05) for i in range(3)]
    floors.check(SITE, low[:2])
    with pytest.raises(SiteInvalid, match="3,150 W") as told:
        floors.check(SITE, low)
    assert told.value.item == "row"
    margin = Site("s", TREE, rules=Rules(margin_share=0.31))
    with pytest.raises(SiteInvalid) as told:
        floors.check(margin, low[:2])
    assert told.value.item == "row"
    loaded = Site("s", TREE, rules=Rules(other_load_w=3000.0))
    with pytest.raises(SiteInvalid) as told:
        floors.check(loaded, low[:2])
    assert told.value.item == "main"


def test_a_plan_refuses_what_cannot_be_by_name() -> None:
    with pytest.raises(PlanInvalid) as told:
        Kind("s19", 4, (30.0, NAN), (0.0, 1.0))
    assert told.value.item == "s19"


# A site without a device.


def mining(state: State) -> State:
    job = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    return step(state, [ev.JobSubmitted(job), ev.MeterRead(100.0, 1.0)], 1.0)[0]


def test_an_empty_fleet_has_a_ladder_an_allocation_and_turns() -> None:
    fleet = Fleet.of((), TREE)
    none = np.zeros(0, dtype=np.bool_)
    for ladder in (
        Ladder.of(fleet, VALUES), Ladder.of(fleet, VALUES, none, 60.0), Ladder.of(fleet, Values()),
    ):  # fmt: skip
        found = allocate(
            fleet, ladder, TREE, room_w=TREE.limit_w, eligible=none, credit_w=np.zeros(0),
            price_usd_per_mwh=10.0,
        )  # fmt: skip
        assert len(found.point) == len(found.watts_w) == 0
        assert found.binding == ()
        assert math.isnan(found.marginal_usd_per_mwh)
    state = mining(initial(SITE, VALUES, 1))
    for now_s in (2.0, 3.0, 60.0):
        state, commands, _ = step(state, [ev.Tick()], now_s)
        assert commands == ()
    assert flexibility(state, 60.0)
    assert floors.lacking(SITE, state.fleet) == ()


def test_a_fleet_that_empties_and_fills_again() -> None:
    state = mining(initial(SITE, VALUES, 1))
    for now_s in (2.0, 4.0):
        joined = ev.DeviceJoined((device(), device("rig-8")))
        state, _, _ = step(state, [joined, ev.AgentSeen("a", "boot", now_s, now_s)], now_s)
        assert len(state.fleet) == 2
        left = ev.DeviceLeft(("rig-7", "rig-8"), "sold")
        state, _, _ = step(state, [left], now_s + 1.0)
        assert len(state.fleet) == 0
        assert state.outlook.committed_w == state.outlook.spare_w, "the excess is all that is left"


def test_a_plan_without_a_device_is_a_plan() -> None:
    none = Band.of(np.zeros(3))
    bare = Ahead(0.0, 3600.0, Band.of(np.array([20.0, 30.0, 40.0])), np.full(3, INF), none, none)
    plan, _ = planned(bare)
    assert plan.usable
    assert plan.awake_usd.shape == plan.mining_w.shape == (3, 0)
    standing = Standing.of(plan)
    state = mining(initial(SITE, VALUES, 1))
    state, commands, _ = step(state, [ev.PlanUpdated(plan=standing)], 2.0)
    assert commands == ()


@pytest.mark.parametrize("values", [VALUES, Values()], ids=["valued", "worthless"])
def test_devices_with_one_point_or_no_worth_are_no_trouble(values: Values) -> None:
    state = mining(initial(SITE, values, 1))
    lone = device("lone", points=points(30.0))
    joined = ev.DeviceJoined((lone, device()))
    state, _, _ = step(state, [joined, ev.AgentSeen("a", "boot", 2.0, 2.0)], 2.0)
    state, _, _ = step(state, [ev.Tick()], 3.0)
    assert {f.name for f in fields(state.outlook)} >= {"binding", "marginal_usd_per_mwh"}
    assert state.fleet.index["lone"] >= 0
