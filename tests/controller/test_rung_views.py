"""Where a device stands on the ladder and why, told by rule, in figures and in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.cli.explain_rung import rung_text
from wattshift_cluster.controller import compute_views, money, rung_views
from wattshift_cluster.controller.books import Books
from wattshift_scheduler import events as ev
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.plan.words import Standing
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

TREE = FeederTree.of([
    Feeder("main", None, 20_000.0), Feeder("row", "main", 5000.0), Feeder("hall", "main", 9000.0),
])  # fmt: skip
NODES = (Node("n1", "row", 500.0), Node("n2", "hall", 500.0))
HASH = 1e15 / 50.0 * 24.0 / 1e6
"""Hashes per second that earn 1 USD/MWh on a watt, at 50 USD/PH/day."""


def rig(name: str, feeder: str, usd_per_mwh: float, **more: Any) -> Device:
    """Worth so much at 1 kW, and three quarters of it from there to 2 kW."""
    points = (
        OperatingPoint("sleep", 0.0, 0.0, 0.1),
        OperatingPoint("low", 1000.0, 1000.0 * usd_per_mwh * HASH, 0.1),
        OperatingPoint("high", 2000.0, 1750.0 * usd_per_mwh * HASH, 0.1),
    )
    return Device(name, "asic", more.pop("agent", "a"), feeder, points, 2000.0, 0.0, **more)


def run(
    devices: list[Device], *, price: float = 20.0, cap_w: float | None = None, mines: str = "*"
) -> State:
    """A site whose devices have obeyed for ten seconds."""
    values = Values(50.0, 0.0, 0.0, price)
    state = initial(Site("s", TREE, NODES, Rules(margin_share=0.0)), values, 1)
    told: list[ev.Event] = [
        ev.DeviceJoined(tuple(devices)),
        ev.JobSubmitted(Job("mine", JobKind.MINING, "mine", {"devices": [mines]}, 0.0)),
    ]
    if cap_w is not None:
        told.append(ev.SignalChanged("operator", (Cap("c", "operator", cap_w),), None, True))
    for now_s in np.arange(1.0, 11.0):
        state, _, _ = step(state, [*told, *obeyed(state, devices, float(now_s))], float(now_s))
        told = []
    return state


def obeyed(state: State, devices: list[Device], now_s: float) -> list[ev.Event]:
    """Every agent answers, takes its leases, and its devices draw what they are leased."""
    count = len(devices)
    names = tuple(one.id for one in devices)
    drawn_w = np.zeros(count)
    if len(state.fleet):
        at = state.fleet.columns_of(names)
        drawn_w = np.nan_to_num(state.ledger.lease_w[at])
    none, no = np.full(count, np.nan), np.zeros(count, dtype=np.bool_)
    told: list[ev.Event] = [
        ev.AgentSeen(agent, "boot", now_s, now_s) for agent in {one.agent for one in devices}
    ]
    for command, sent in state.sent.items():
        at = np.flatnonzero([d.agent == sent.subject for d in state.fleet.devices])
        ids = tuple(state.fleet.devices[i].id for i in at)
        yes = np.ones(len(at), dtype=np.bool_)
        told.append(ev.LeasesReplied(command, ids, state.ledger.sequence[at], yes, ("",) * len(at)))
    at_s = np.full(count, now_s)
    read = ev.Readings(names, at_s, drawn_w, none, drawn_w, none, none, ("",) * count, no, no)
    return [*told, read]


def rung(state: State, device: str, now_s: float = 10.0) -> dict[str, Any]:
    return rung_views.rung(state, state.fleet.index[device], now_s)


def test_a_device_at_its_top_says_what_its_last_rung_is_worth() -> None:
    one = rung(run([rig("x", "hall", 80.0)]), "x")
    assert one["rule"] == "top"
    assert one["now"] == {"mode": "high", "watts_w": 2000.0, "usd_per_mwh": pytest.approx(60.0)}
    assert one["next"] is None
    assert one["marginal_usd_per_mwh"] == pytest.approx(60.0)
    assert "its last rung, high, is worth 60 USD/MWh" in one["why"]


def test_a_device_that_energy_keeps_off_or_low_says_so() -> None:
    state = run([rig("low", "hall", 100.0), rig("off", "hall", 60.0)], price=76.0)
    low, off = rung(state, "low"), rung(state, "off")
    assert (low["rule"], off["rule"]) == ("energy", "energy")
    assert (low["now"]["mode"], low["next"]["mode"], off["now"]) == ("low", "high", None)
    assert off["why"] == (
        "off is off because its next rung is worth 60 USD/MWh and energy costs 76"
    )
    assert "at low and no higher" in low["why"]
    unknown = replace(state, values=replace(state.values, default_price_usd_per_mwh=None))
    assert rung(unknown, "off")["rule"] == "price-unknown"


def test_a_device_that_its_feeder_keeps_off_names_it_and_its_marginal_watt() -> None:
    devices = [rig(f"r{i}", "row", usd) for i, usd in enumerate((90.0, 80.0, 70.0))]
    state = run([*devices, rig("free", "hall", 50.0)])
    assert rung(state, "free")["rule"] == "top"
    short = [rung(state, one.id) for one in devices if rung(state, one.id)["rule"] != "top"]
    assert {one["rule"] for one in short} == {"feeder"}
    assert {one["binding"] for one in short} == {"row"}
    assert all(one["binding_usd_per_mwh"] == pytest.approx(60.0) for one in short)
    assert sorted(one["next"]["usd_per_mwh"] for one in short) == pytest.approx([52.5, 60.0])
    assert any("it does not fit what is left there" in one["why"] for one in short)
    assert any("a watt more of feeder row would earn 60" in one["why"] for one in short)
    views = {one["node"]: one["displaces_usd_per_mwh"] for one in compute_views.nodes(state)}
    assert views == {"n1": pytest.approx(60.0), "n2": 0.0}


def test_a_device_that_the_cap_keeps_off_names_its_marginal_watt() -> None:
    devices = [rig("good", "hall", 100.0), rig("bad", "hall", 41.0)]
    one = rung(run(devices, cap_w=3000.0), "bad")
    assert (one["rule"], one["binding"]) == ("cap", "main")
    assert one["marginal_usd_per_mwh"] == pytest.approx(75.0)
    assert one["why"] == (
        "bad is off because its next rung is worth 41 USD/MWh and the cap's marginal watt 75"
    )
    text = rung_text(one)
    assert "rule       cap: bad is off because" in text
    assert "next rung  low, 1.00 kW: worth 41" in text
    assert "binds      main" in text


def test_below_the_floor_no_watt_is_the_marginal_one_and_the_next_is_named() -> None:
    devices = [rig("good", "hall", 86.0), rig("bad", "hall", 41.0)]
    one = rung(run(devices, cap_w=0.0), "bad")
    assert (one["rule"], one["marginal_usd_per_mwh"]) == ("cap", None)
    assert one["why"] == (
        "bad is off because its next rung is worth 41 USD/MWh, "
        "and a watt more of the cap would earn 86"
    )
    text = rung_text(one)
    assert "marginal   none: no rung is running" in text
    assert "binds      main: 86.00 USD/MWh with a watt more" in text


def test_a_device_under_a_feeder_that_is_short_is_told_of_that_feeder() -> None:
    devices = [rig("ok", "row", 80.0), *(rig(f"f{i}", "row", 80.0) for i in range(3))]
    state = run([*devices, rig("free", "hall", 50.0)])
    foreign = np.array([one.id.startswith("f") and one.id != "free" for one in state.fleet.devices])
    for now_s in (11.0, 12.0):
        seen = replace(state.seen, foreign=foreign)
        state, _, _ = step(replace(state, seen=seen).forgotten(), [ev.Tick()], now_s)
    one = rung(state, "ok", 12.0)
    assert one["rule"] == "feeder"
    assert one["why"] == (
        "ok is off because feeder row may carry 5,000 W, and 6,500 W are counted on it at the "
        "least (wattshift explain row)"
    )
    assert rung(state, "free", 12.0)["rule"] == "top"


def test_a_device_that_the_cost_of_a_cycle_keeps_says_what_it_costs() -> None:
    device = rig("worn", "hall", 80.0, wear_usd_per_cycle=2.0)
    state = run([device])
    dear = ev.SignalChanged("price", (), 80.5, True)
    state, _, _ = step(state, [dear, *obeyed(state, [device], 11.0)], 11.0)
    one = rung(state, "worn", 11.0)
    assert one["rule"] == "cycle"
    assert one["cycle_usd"] == pytest.approx(2.0)
    assert "cycle      2.00 USD keeps it" in rung_text(one)
    kept = rung(run([device]), "worn")
    assert (kept["cycle_usd"], kept["payback_s"]) == (None, None)


def test_a_device_that_the_plan_keeps_low_says_what_it_puts_on_top() -> None:
    device = rig("x", "hall", 80.0)
    state = run([device])
    plan = Standing(
        made_s=0.0,
        start_s=0.0,
        step_s=3600.0,
        expires_s=900.0,
        price_usd_per_mwh=np.array([20.0, 20.0]),
        shadow_usd_per_mwh=np.array([65.0, 20.0]),
        reserve_w=np.zeros(2),
    )
    for now_s in (11.0, 12.0):
        told = [ev.PlanUpdated(plan=plan), *obeyed(state, [device], now_s)]
        state, _, _ = step(state, told, now_s)
    one = rung(state, "x", 12.0)
    assert (one["rule"], one["now"]["mode"], one["next"]["mode"]) == ("plan", "low", "high")
    assert one["shadow_usd_per_mwh"] == 65.0
    assert "puts 45 on top of energy at 20" in one["why"]
    assert "the plan values a watt at 65.00 USD/MWh" in rung_text(one)
    late = rung(state, "x", 901.0)
    assert (late["shadow_usd_per_mwh"], late["rule"] != "plan") == (None, True)


def test_what_is_not_the_ladders_doing_is_said_first() -> None:
    devices = [rig("x", "hall", 80.0), rig("y", "hall", 80.0, agent="b")]
    assert rung(run(devices, mines="nothing"), "x")["rule"] == "not-asked"
    state = run(devices)
    lost, _, _ = step(state, [ev.AgentLost("b", "no answer")], 10.5)
    assert rung(lost, "y", 10.5)["rule"] == "stuck"
    assert rung(lost, "x", 10.5)["rule"] == "top"
    foreign = replace(lost.seen, foreign=np.array([True, False]))
    assert "somebody else" in rung(replace(lost, seen=foreign), "x", 10.5)["why"]


def test_a_device_without_a_lease_or_a_rung_is_told_of_as_well() -> None:
    lone = Device("lone", "asic", "a", "hall", (OperatingPoint("on", 9.0, 0.0, 0.1),), 9.0)
    state = run([lone])
    one = rung(state, "lone")
    assert (one["now"], one["next"], one["rule"]) == (None, None, "top")
    assert "it has no rung" in one["why"]
    fresh = initial(Site("s", TREE, NODES), Values(), 1)
    fresh, _, _ = step(fresh, [ev.DeviceJoined((rig("x", "hall", 80.0),))], 1.0)
    assert rung(fresh, "x", 1.0)["rule"] == "stuck"


def test_it_is_part_of_what_economics_tells_of_the_devices_asked_for() -> None:
    state = run([rig("x", "hall", 80.0), rig("y", "hall", 70.0)])
    view = money.economics(state, Books(), None, "fpps", 10.0, "y", 10)
    (one,) = view["devices"]
    assert one["rung"] == rung(state, "y")
    empty = initial(Site("s", TREE), Values(), 1)
    assert money.economics(empty, Books(), None, "fpps", 1.0, None, 10)["devices"] == []
