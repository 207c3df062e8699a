"""Feeders below the connection and promises: from a controller's state into its plan."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.controller import controller_rig as rig

from wattshift_cluster.cli.plan_text import plan_text
from wattshift_cluster.config.load import load_site
from wattshift_cluster.controller.front import Front
from wattshift_cluster.controller.journal import Journal
from wattshift_cluster.controller.plan import demands
from wattshift_cluster.controller.plan.ahead import Prepared, prepared
from wattshift_cluster.controller.plan.curves import Grid
from wattshift_cluster.controller.plan.feed import PlanFeed
from wattshift_cluster.controller.plan.feeders import spread
from wattshift_cluster.controller.service import Controller, Tokens
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind, JobState
from wattshift_scheduler.plan.words import Plan
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.site import Device, OperatingPoint

T0_S = 1_900_022_400.0
SITE = """
[site]
name = "s"
state_dir = "state"
margin_pct = 0
[[feeders]]
name = "main"
limit = "40kW"
[[feeders]]
name = "pdu-a"
parent = "main"
limit = "{limit}"
margin = "{margin}"
[[feeders]]
name = "pdu-b"
parent = "main"
limit = "20kW"
[[agents]]
name = "rack"
address = "127.0.0.1:9"
token_file = "t"
feeder = "pdu-a"
[grid]
default_price_usd_per_mwh = {price}
[plan]
enabled = true
horizon = "6h"
period = "60s"
[values]
hashprice_usd_per_ph_day = 50
[mining]
devices = ["*"]
"""
COMPUTE = """
[compute]
name = "ray"
bridge = "127.0.0.1:10"
token_file = "bridge.token"
[[compute.nodes]]
name = "gpu-a"
feeder = "pdu-a"
max = "3kW"
[[compute.nodes]]
name = "gpu-b"
feeder = "pdu-b"
max = "5kW"
"""


def asic(name: str, feeder: str) -> Device:
    """3 kW at 20 J/TH, 0.3125 USD/h at 50 USD/PH/day; nobody makes it draw less but asleep."""
    points = (OperatingPoint("sleep", 30.0, 0.0, 5.0), OperatingPoint("on", 3e3, 1.5e14, 60.0))
    return Device(name, "asic", "rack", feeder, points, 3e3, 0.0, wear_usd_per_cycle=0.05)


RIGS = tuple(asic(f"{side}{i}", f"pdu-{side}") for side in "ab" for i in range(4))


def made(
    folder: Path,
    limit: str = "7kW",
    margin: str = "0%",
    more: str = "",
    price: float = 20.0,
    rigs: tuple[Device, ...] = RIGS,
) -> tuple[Any, PlanFeed]:
    """A controller of some machines: eight, four on each side, if nothing else is said."""
    for name in ("t", "bridge.token"):
        (folder / name).write_bytes(b"t" * 32)
        (folder / name).chmod(0o600)
    (folder / "site.toml").write_text(SITE.format(limit=limit, margin=margin, price=price) + more)
    config = load_site(folder / "site.toml", environ={})
    journal = Journal.open(config.site.state_dir / "journal.sqlite")
    tokens = Tokens({"rack": b"t" * 32}, rig.BRIDGE_TOKEN if "[compute]" in more else None)
    controller = Controller(config, journal, rig.HandClock(T0_S), tokens)
    hear(controller, *((ev.DeviceJoined(rigs),) if rigs else ()))
    return controller, PlanFeed(controller)


def hear(controller: Any, *told: ev.Event) -> None:
    now_s = controller.clock.now_s()
    controller.inbox.put([*told, ev.AgentSeen("rack", "boot", now_s, now_s)])
    rig.turned(controller)


def asked(feed: PlanFeed, controller: Any) -> Prepared:
    feed.look()
    return prepared(feed._snapshot(controller.clock.now_s()), controller.config)


def planned(feed: PlanFeed) -> Plan:
    """The plan of a real planner, as it stands."""

    async def run() -> Plan:
        try:
            feed.look()
            await feed.once()
            assert feed.trouble == ""
            assert feed.made is not None
            return feed.made.plan
        finally:
            await feed.close()

    return asyncio.run(run())


def test_a_feeder_that_is_too_small_is_seen_by_the_planner_and_shown(tmp_path: Path) -> None:
    controller, feed = made(tmp_path)
    plan = planned(feed)
    assert plan.usable
    assert not plan.infeasible
    assert plan.limits == ("pdu-a",)
    by_kind = dict(zip(plan.kinds, plan.mining_w.T, strict=True))
    (inside,) = [name for name in plan.kinds if name.endswith(" under pdu-a")]
    (outside,) = set(plan.kinds) - {inside}
    assert by_kind[outside] == pytest.approx([12e3] * 24)
    # Whole machines in the near hours: two of four fit 7 kW with the others at rest.
    assert by_kind[inside][:16] == pytest.approx([6060.0] * 16)
    wanted_w = float(controller.state.present.wanted_w.sum())
    assert plan.mining_w[0].sum() == pytest.approx(wanted_w), "as the control loop has it"
    assert by_kind[inside].max() <= 7000.0 + 1e-6
    view = Front(controller).plan(None)
    assert max(row["mining_w"] for row in view["rows"]) <= 19e3 + 1e-6
    assert any("feeder pdu-a is full" in text for text in view["events"])
    shown = plan_text(view, 3600.0)
    assert "18.06 kW" in shown
    assert "note     feeder pdu-a is full for 6 h 00: a watt there is worth up to" in shown
    controller.journal.close()


def test_a_feeder_that_is_wide_enough_is_none_of_the_plan(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, "12kW")
    found = asked(feed, controller).ahead
    assert (found.limits, found.zones) == ((), ())
    assert len(found.kinds) == 1
    controller.journal.close()
    folder = tmp_path / "margin"
    folder.mkdir()
    controller, feed = made(folder, "12kW", "1%")
    (limit,) = asked(feed, controller).ahead.limits
    assert limit.name == "pdu-a"
    assert limit.room_w == pytest.approx(11_880.0)
    controller.journal.close()


def test_what_is_not_planned_under_a_feeder_leaves_less_of_it(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, more=COMPUTE)
    seen = ev.ComputeSeen("gpu-a", True, 0.0, unasked_w=500.0, system_w=100.0)
    hear(controller, seen, ev.ComputeSeen("gpu-b", True, 0.0, unasked_w=50.0))
    (limit,) = asked(feed, controller).ahead.limits
    assert limit.room_w == pytest.approx(7000.0 - 600.0)
    foreign = controller.state.seen.foreign.copy()
    foreign[[0, 5]] = True
    seen_now = replace(controller.state.seen, foreign=foreign)
    controller.state = replace(controller.state, seen=seen_now)
    found = asked(feed, controller).ahead
    assert found.limits[0].room_w == pytest.approx(7000.0 - 600.0 - 3000.0), "it is not ours now"
    assert {kind.under: kind.count for kind in found.kinds} == {("pdu-a",): 3, (): 3}
    controller.journal.close()


def test_compute_counts_under_the_feeder_of_its_nodes(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, more=COMPUTE)
    hear(controller, ev.ComputeSeen("gpu-a", True, 0.0))
    assert [zone.under for zone in asked(feed, controller).ahead.zones] == [("pdu-a",)]
    hear(controller, ev.ComputeSeen("gpu-b", True, 0.0))
    chat = Job(
        "chat", JobKind.SERVICE, "chat", {}, T0_S, unit_w=500.0, min_units=4, max_units=4,
        state=JobState.RUNNING, units=4, wanted=4, by_node={"gpu-a": 1, "gpu-b": 3},
    )  # fmt: skip
    night = Job(
        "night", JobKind.BATCH, "night", {}, T0_S, unit_w=1000.0, max_units=3,
        state=JobState.RUNNING, units=2, by_node={"gpu-a": 1, "gpu-b": 1},
    )  # fmt: skip
    jobs = {**controller.state.jobs, "chat": chat, "night": night}
    controller.state = replace(controller.state, jobs=jobs)
    zones = {zone.under: zone for zone in asked(feed, controller).ahead.zones}
    assert zones[("pdu-a",)].services_w == pytest.approx([500.0] * 24)
    assert zones[()].services_w == pytest.approx([1500.0] * 24)
    assert (zones[("pdu-a",)].most_w, zones[()].most_w) == (3000.0, 5000.0)
    assert zones[("pdu-a",)].batch == zones[()].batch == {"night": pytest.approx(1 / 3)}
    controller.journal.close()


MORE_COMPUTE = """
[[compute.nodes]]
name = "gpu-c"
feeder = "pdu-a"
max = "3kW"
"""


def test_a_feeder_of_nodes_alone_is_a_limit_of_batch(tmp_path: Path) -> None:
    """16.5 kWh in two hours: two nodes of 3 kW share 3.5 kW, and one of 5 kW hangs elsewhere."""
    controller, feed = made(tmp_path, "3.5kW", more=COMPUTE + MORE_COMPUTE, rigs=())
    hear(controller, *(ev.ComputeSeen(f"gpu-{name}", True, 0.0) for name in "abc"))
    night = Job(
        "night", JobKind.BATCH, "night", {}, T0_S, unit_w=1000.0, max_units=12, units=1,
        state=JobState.RUNNING, deadline_s=T0_S + 7200.0, done=0, total=594, rate_per_s=0.01,
    )  # fmt: skip
    controller.state = replace(controller.state, jobs={**controller.state.jobs, "night": night})
    found = asked(feed, controller).ahead
    assert found.kinds == ()
    (limit,) = found.limits
    assert limit.name == "pdu-a"
    assert found.batches[0].left_wh == pytest.approx(16_500.0)
    plan = planned(feed)
    assert not plan.infeasible
    assert 8000.0 < plan.batch_w.max() <= 8500.0 + 1e-6, "3.5 kW there, and 5 kW elsewhere"
    controller.journal.close()


def test_inference_is_spread_within_what_nodes_and_feeders_carry() -> None:
    zones, most_w = [("a",), ("a", "r"), ()], np.array([2e3, 1e3, 4e3])
    rooms_w, all_w = {"a": 1500.0, "r": 800.0}, np.array([300.0, 3000.0, 9000.0])
    found = spread(zones, np.array([100.0, 100.0, 100.0]), most_w, rooms_w, all_w)
    assert found[:, 0] == pytest.approx([100.0] * 3), "as it is drawn now"
    assert (found[:2].sum(axis=0) <= 1500.0 + 1e-9).all()
    assert (found[1] <= 800.0 + 1e-9).all()
    assert found[:, 1].sum() == pytest.approx(3000.0), "what has no room is drawn elsewhere"
    assert found[:, 2].sum() == pytest.approx(5500.0), "and what has none at all is counted nowhere"
    late = spread(zones, np.array([0.0, 0.0, 1.0]), most_w, rooms_w, np.array([9000.0]))
    assert late[:, 0].sum() == pytest.approx(5500.0)
    assert late[:2, 0].sum() == pytest.approx(1500.0), "together they have no more"
    none = spread(zones, np.zeros(3), most_w, {"a": math.inf, "r": math.inf}, np.array([700.0]))
    assert none[:, 0] == pytest.approx([200.0, 100.0, 400.0]), "by the size of zones"


NODE = """
[compute]
name = "ray"
bridge = "127.0.0.1:10"
token_file = "bridge.token"
[[compute.nodes]]
name = "gpu"
feeder = "r69"
max = "200W"
"""


def test_a_site_with_too_many_full_feeders_shares_the_others_evenly(tmp_path: Path) -> None:
    racks = [
        f'[[feeders]]\nname = "r{i}"\nparent = "main"\nlimit = "{2000 + 10 * i}W"\n'
        for i in range(70)
    ]
    controller, feed = made(tmp_path, more="".join(racks) + NODE)
    rigs = ev.DeviceJoined(tuple(asic(f"x{i}", f"r{i}") for i in range(70)))
    hear(controller, rigs, ev.ComputeSeen("gpu", True, 150.0, unasked_w=400.0))
    found = asked(feed, controller)
    kinds, limits = found.ahead.kinds, {one.name: one.room_w for one in found.ahead.limits}
    loose = [i for i in range(70) if f"r{i}" not in limits]
    assert len(kinds) <= 60
    assert 0 < len(limits) <= 40
    assert loose[-1] == 69, "those with the least at stake are loose"
    (note,) = [text for text in found.notes if "shared evenly" in text]
    assert note.startswith(f"{len(loose)} feeders are shared evenly by the devices below: r")
    # Four machines of the other side, and one in each loose rack, each up to what that can carry
    # beside the compute that its node holds.
    node_w = float(controller.state.nodes["gpu"].bound_w)
    assert node_w >= 150.0
    (rest,) = [kind for kind in kinds if not kind.under]
    carried_w = sum(2000.0 + 10 * i for i in loose) - 400.0 - node_w
    assert rest.count * rest.points_w[-1] == pytest.approx(4 * 3000.0 + carried_w)
    plan = planned(feed)
    for kind, drawn_w in zip(kinds, plan.mining_w.T, strict=True):
        for name in kind.under:
            assert drawn_w.max() <= limits[name] + 1e-6
    assert 35e3 < plan.mining_w[0].sum() < 40e3, "what the connection leaves is used"
    controller.journal.close()


def test_a_feeder_below_its_floor_is_not_met_and_the_plan_goes_on(tmp_path: Path) -> None:
    controller, feed = made(tmp_path, "100W")
    plan = planned(feed)
    assert plan.infeasible[0].startswith(
        "feeder pdu-a: what cannot be shed lies 20 W above what it may carry"
    )
    assert plan.mining_w.sum(axis=1) == pytest.approx([12e3 + 120.0] * 24)
    view = Front(controller).plan(None)
    shown = plan_text(view, 3600.0)
    assert "not met  feeder pdu-a: what cannot be shed" in shown
    assert "is full" not in shown, "what is weighed there is no money"
    assert "feeder pdu-a" in controller.alarms["plan-infeasible"].text
    controller.journal.close()


GRID = Grid(T0_S, 900.0, 24)


def event(
    event_id: str, starts_s: float, watts_w: float, notice_s: float, **more: Any
) -> GridEvent:
    ends_s = more.pop("ends_s", starts_s + 3600.0)
    return GridEvent(
        event_id, "utility", "DR", starts_s - notice_s, starts_s, ends_s, watts_w, **more
    )


def test_promises_need_mining_for_the_half_hour_before_they_begin(tmp_path: Path) -> None:
    controller, _ = made(tmp_path)
    first_s = T0_S + 7200.0
    told = (
        event("1", first_s, 2000.0, 7200.0, name="peak"),
        event("2", first_s, 500.0, 600.0, name="fast"),
        event("3", first_s + 900.0, 1000.0, 7200.0, name="later"),
        event("4", first_s, math.nan, 7200.0),
        event("5", first_s, 100.0, 7200.0, cancelled_s=T0_S - 1.0),
        event("6", GRID.ends_s + 1801.0, 100.0, 7200.0),
    )
    hear(controller, ev.SignalChanged("utility", events=told))
    found, remarks = demands.holds(controller.state, GRID, T0_S)
    rows = [
        (one.name, one.starts_s - T0_S, one.ends_s - T0_S, round(one.watts_w, 6), one.within_s)
        for one in found
    ]
    assert rows == [
        ("fast", 5400.0, 7200.0, 510.0, 600.0),
        ("fast and peak", 5400.0, 7200.0, 2550.0, 7200.0),
        # By its own start the others are in force, and have what they were promised.
        ("fast", 6300.0, 7200.0, 510.0, 600.0),
        ("fast and later and peak", 6300.0, 7200.0, 3570.0, 7200.0),
        ("later", 7200.0, 8100.0, 1020.0, 7200.0),
    ]
    assert [(one.interval, one.text) for one in remarks][1::2] == [
        (6, "2.55 kW of mining held up: fast and peak"),
        (7, "3.57 kW of mining held up: fast and later and peak"),
    ]
    late, _ = demands.holds(controller.state, GRID, first_s - 60.0)
    assert min(one.starts_s for one in late) == first_s - 60.0, "what has begun holds from now on"
    controller.journal.close()


def test_the_plan_holds_what_the_control_loop_will_hold(tmp_path: Path) -> None:
    """At 200 USD/MWh all machines rest; a promise of 4 kW has 4,080 W held before it begins."""
    controller, feed = made(tmp_path, price=200.0)
    one = event("1", T0_S + 7200.0, 4000.0, 7200.0, name="peak")
    hear(controller, ev.SignalChanged("utility", events=(one,)))
    plan = planned(feed)
    risen_w = plan.mining_w.sum(axis=1) - 240.0
    assert risen_w[:6] == pytest.approx([0.0] * 6, abs=1e-6)
    assert risen_w[6:8] == pytest.approx([5940.0] * 2), "two whole machines"
    assert risen_w[8:] == pytest.approx([0.0] * 16, abs=1e-6)
    assert not plan.infeasible
    assert any("4,080 W of mining are held up for peak" in text for text in plan.events)
    shown = plan_text(Front(controller).plan(None), 900.0)
    assert "4.08 kW of mining held up: peak" in shown
    controller.journal.close()
