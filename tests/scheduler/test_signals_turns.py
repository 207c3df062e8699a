"""Whole turns under targets, notices, staggered rises, windows, overrides and a learnt overhead."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler import step as core
from wattshift_scheduler.commands import Command, GrantLeases, SetNodePower
from wattshift_scheduler.decisions import Decision
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals.overhead import Overhead
from wattshift_scheduler.signals.words import Cap, CapKind, GridEvent, Override, Target, Work
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

T = 1_800_000_000.0
POINTS = tuple(
    OperatingPoint(m, w, h * 1e12, 0.5)
    for m, w, h in [("sleep", 100.0, 0.0), ("mid", 1000.0, 50.0), ("top", 2000.0, 90.0)]
)
DEVICES = tuple(
    Device(f"d{i}", "asic", f"a{i}", ("east", "west")[i % 2], POINTS, 2000.0, 0.0) for i in range(4)
)
TREE = FeederTree.of(
    [Feeder("main", None, 10_000.0), Feeder("east", "main", 9e3), Feeder("west", "main", 9e3)]
)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
SVC = Job("svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=100.0, min_units=4, max_units=4)
DEAR, CHEAP = 500.0, 10.0


class Live:
    """Devices that obey at once, a node that gives what is asked, and a true meter."""

    def __init__(self, *jobs: Job, **rules: float) -> None:
        nodes = (Node("host", "main", 400.0),)
        site = Site("s", TREE, nodes, Rules(margin_share=0.0, **rules))
        self.state = initial(site, Values(45.0, 0.0, 0.0, CHEAP), 1)
        self.watts = dict.fromkeys((d.id for d in DEVICES), 100.0)
        self.now_s, self.node_w, self.site_w = T, 0.0, 400.0
        self.owed: list[ev.Event] = [ev.DeviceJoined(DEVICES), *(ev.JobSubmitted(j) for j in jobs)]
        self.told: list[Decision] = []

    @property
    def mining_w(self) -> float:
        return sum(self.watts.values())

    def turn(self, *events: ev.Event, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            now_s = self.now_s
            told = [*self.owed, *(ev.AgentSeen(d.agent, "b", now_s, now_s) for d in DEVICES)]
            told += [self._read(), ev.ComputeSeen("host", True, self.node_w)]
            told += [ev.MeterRead(self.mining_w + self.node_w, now_s), *events]
            self.state, commands, why = step(self.state, told, now_s)
            self.told += [one for one in why if isinstance(one, Decision)]
            self.owed = [self._carry(command) for command in commands]
            events = ()

    def _read(self) -> ev.Readings:
        n = len(DEVICES)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        watts = np.array(list(self.watts.values()))
        at_s = np.full(n, self.now_s)
        return ev.Readings(tuple(self.watts), at_s, watts, nan, nan, nan, nan, ("",) * n, no, no)

    def _carry(self, command: Command) -> ev.Event:
        if isinstance(command, GrantLeases):
            self.watts |= dict(zip(command.devices, map(float, command.watts_w), strict=True))
            yes = np.ones(len(command.devices), dtype=np.bool_)
            blank = ("",) * len(yes)
            return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, blank)
        if isinstance(command, SetNodePower):
            self.node_w = command.watts_w
            return ev.CommandEnded(command.id, True, "", command.watts_w)
        return ev.CommandEnded(command.id, True)


def says(source: str, *caps: Cap, **more: Any) -> ev.SignalChanged:
    return ev.SignalChanged(source, caps, **more)


def price(usd_per_mwh: float) -> ev.SignalChanged:
    return ev.SignalChanged("price", (), usd_per_mwh, True)


def test_a_target_of_all_work_binds_services_too_and_is_no_shortfall() -> None:
    live = Live(MINE, SVC)
    live.turn(seconds=10)
    assert (live.mining_w, live.node_w) == (8000.0, 400.0)
    live.turn(says("vtn", targets=(Target("t", "vtn", 5000.0),)), seconds=4)
    assert live.mining_w + live.node_w <= 5000.0
    assert live.state.verdict is not None
    assert live.state.verdict.cap_w == 10_000.0
    live.turn(says("vtn", targets=(Target("t", "vtn", 650.0),)), seconds=8)
    assert (live.mining_w, live.node_w) == (400.0, 200.0)
    live.turn(says("vtn", targets=(Target("t", "vtn", 100.0),)), seconds=4)
    assert live.state.outlook.shortfall_w == 0.0
    live.turn(says("vtn", Cap("c", "vtn", 100.0)), seconds=2)
    assert live.state.outlook.shortfall_w == 300.0


def test_a_target_of_mining_never_cuts_a_service() -> None:
    live = Live(MINE, SVC)
    live.turn(seconds=10)
    aim = Target("sun", "solar", 650.0, work=Work.MINING)
    live.turn(says("solar", targets=(aim,)), seconds=6)
    assert (live.mining_w, live.node_w) == (400.0, 400.0)
    live.turn(says("solar", targets=(replace(aim, watts_w=2500.0),)), seconds=6)
    assert live.mining_w + live.node_w <= 2500.0
    assert live.mining_w >= 1300.0


def _asleep_for_a_price(live: Live, minutes: int) -> None:
    live.turn(price(DEAR), seconds=3)
    for _ in range(minutes):
        live.now_s += 59.0
        live.turn()


def _noticed(now_s: float) -> ev.SignalChanged:
    event = GridEvent("e", "vtn", "dr", now_s, now_s + 30.0, now_s + 60.0, 500.0)
    return says("vtn", events=(event,))


def test_nothing_is_raised_between_the_notice_of_an_event_and_its_start() -> None:
    live = Live(MINE, SVC)
    _asleep_for_a_price(live, 16)
    assert live.mining_w == 400.0
    live.turn(_noticed(live.now_s), price(CHEAP))
    for _ in range(28):
        live.turn()
        assert live.mining_w == 400.0, "asleep before the notice, asleep until the start"
        assert live.node_w == 400.0, "a service is no baseline to inflate"
    live.turn(seconds=8)
    assert live.mining_w == 8000.0
    assert any("before event e starts" in one.reason for one in live.told)


def test_without_that_guard_the_baseline_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        core, "_mining_room", lambda _s, _v, room_w, headroom_w: (room_w, headroom_w)
    )
    live = Live(MINE)
    _asleep_for_a_price(live, 16)
    live.turn(_noticed(live.now_s), price(CHEAP))
    live.turn(seconds=8)
    assert live.mining_w == 8000.0


def test_after_a_rise_feeders_and_hosts_raise_one_after_the_other() -> None:
    live = Live(MINE, stagger_s=20.0)
    cap = Cap("c", "vtn", 1000.0)
    live.turn(says("vtn", cap), seconds=5)
    live.turn(says("vtn"))
    awake: dict[str, int] = {}
    for second in range(30):
        live.turn()
        for name, watts_w in live.watts.items():
            if watts_w > 1000.0:
                awake.setdefault(name, second)
    assert live.mining_w == 8000.0
    assert len(set(awake.values())) == len(DEVICES), "no two hosts at once"
    east, west = ([awake[f"d{i}"] for i in rows] for rows in ((0, 2), (1, 3)))
    assert max(east) < min(west), "one feeder after the other"
    # A fall does not wait for anybody's turn.
    live.turn(says("vtn", cap))
    assert live.mining_w <= 1000.0


def test_the_mean_of_every_window_stays_below_its_cap() -> None:
    live = Live(MINE)
    quarter = Cap("q", "tariff", 3000.0, kind=CapKind.INTERVAL, window_s=60.0)
    live.turn(says("tariff", quarter))
    energy_j, peak_w = dict.fromkeys(range(3), 0.0), 0.0
    for second in range(1, 179):
        live.turn(price(DEAR if second % 60 < 20 else CHEAP))
        energy_j[int((live.now_s - T) // 60)] += live.mining_w + live.node_w
        peak_w = max(peak_w, live.mining_w)
    assert peak_w > 3000.0, "what the dear seconds left is used"
    assert all(joules <= 3000.0 * 61 for joules in energy_j.values())
    caps = [one for one in live.told if one.action == "cap"]
    assert len(caps) <= 12, "figures in motion are not told every second"


def test_a_learnt_overhead_tightens_the_budget_and_never_widens_it() -> None:
    live = Live(MINE, other_load_w=500.0)
    live.turn(ev.OverheadLearnt(Overhead(100.0, 0.0, 10.0, 900)), seconds=8)
    assert live.state.outlook.other_w == 500.0
    live.turn(ev.OverheadLearnt(Overhead(1000.0, 0.25, 0.0, 900)), seconds=8)
    # 10,000 W at the meter are 1,000 W fixed, and 7,200 W of devices with a quarter on top.
    assert live.state.outlook.other_w == pytest.approx(2800.0)
    assert live.mining_w <= 7200.0
    live.turn(ev.OverheadLearnt(None))
    assert live.state.outlook.other_w == 500.0
    assert [one.action for one in live.told].count("learnt") == 3


def test_overrides_and_contradictions_are_told_and_alarmed_while_they_last() -> None:
    live = Live(MINE)
    aims = (Target("x", "vtn", 5000.0), Target("y", "vtn", 6000.0))
    word = Override("vtn", "c", 4000.0, T + 12.0, "ann", "a hospital")
    live.turn(
        says("vtn", Cap("c", "vtn", 3000.0), targets=aims), says("operator", overrides=(word,))
    )
    assert set(live.state.alarms) >= {"targets-conflict", "override:vtn/c"}
    reason = [one.reason for one in live.told if one.action == "cap"][-1]
    assert "a hospital" in reason
    assert "contradict" in reason
    live.turn(says("vtn", Cap("c", "vtn", 3000.0)), seconds=12)
    assert not {"targets-conflict", "override:vtn/c"} & set(live.state.alarms)
    assert live.mining_w <= 3000.0
    assert not math.isfinite(live.state.memory.pace.aim_w)
