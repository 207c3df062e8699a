"""Whole turns of the core: cuts, restores, prices, excess on the meter, jobs, and a lost raise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import Command, GrantLeases, SetNodePower, SetReplicas, StartJob
from wattshift_scheduler.compute.ground import Ground
from wattshift_scheduler.compute.placement import place
from wattshift_scheduler.jobs import Admission, Job, JobKind, JobState
from wattshift_scheduler.signals.arbitrate import NO_CAP, Arbitrated
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import NodePower, State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

POINTS = tuple(
    OperatingPoint(m, w, h * 1e12, 3.0)
    for m, w, h in [("sleep", 100.0, 0.0), ("mid", 1000.0, 50.0), ("top", 2000.0, 90.0)]
)
DEVICES = tuple(Device(f"d{i}", "asic", "a", "main", POINTS, 2000.0, 0.0) for i in range(4))
SITE = Site(
    "s",
    FeederTree.of([Feeder("main", None, 10_000.0)]),
    (Node("host", "main", 400.0),),
    Rules(margin_share=0.0, other_load_w=100.0),
)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
SVC = Job("svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=100.0, max_units=3, value_usd_per_h=9.0)
BATCH = Job("bat", JobKind.BATCH, "bat", {}, 0.0, unit_w=150.0, value_usd_per_h=1.0)


class Bench:
    """Devices that obey at once; everything else is told by the test."""

    def __init__(self, *jobs: Job) -> None:
        self.state = initial(SITE, Values(45.0, 0.0, 0.0, 10.0), 1)
        self.watts = dict.fromkeys((d.id for d in DEVICES), 100.0)
        self.deaf: set[str] = set()
        self.failed = False
        self.now_s = 0.0
        self.node_w = 0.0
        self.owed: list[ev.Event] = [ev.DeviceJoined(DEVICES), *(ev.JobSubmitted(j) for j in jobs)]
        self.told: list[Any] = []

    def turn(self, *events: ev.Event, count: int = 1) -> list[Command]:
        sent: list[Command] = []
        for _ in range(count):
            self.now_s += 1.0
            told = [*self.owed, ev.AgentSeen("a", "boot", self.now_s, self.now_s), self._read()]
            told += [ev.ComputeSeen("host", True, self.node_w), *events]
            self.state, commands, why = step(self.state, told, self.now_s)
            self.told += [
                row for one in why for row in (one.rows() if hasattr(one, "rows") else [one])
            ]
            self.owed = [self._carry(command) for command in commands]
            sent += commands
            events = ()
        return sent

    def _read(self) -> ev.Readings:
        n = len(DEVICES)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        watts = nan if self.failed else np.array(list(self.watts.values()))
        failed = np.full(n, self.failed)
        at_s = np.full(n, self.now_s)
        return ev.Readings(
            tuple(self.watts), at_s, watts, nan, nan, nan, nan, ("",) * n, no, failed
        )

    def _carry(self, command: Command) -> ev.Event:
        if isinstance(command, GrantLeases):
            for name, watts_w in zip(command.devices, command.watts_w, strict=True):
                if name not in self.deaf:
                    self.watts[name] = float(watts_w)
            yes = np.ones(len(command.devices), dtype=np.bool_)
            return ev.LeasesReplied(
                command.id, command.devices, command.sequence, yes, ("",) * len(yes)
            )
        if isinstance(command, SetNodePower):
            self.node_w = command.watts_w
            return ev.CommandEnded(command.id, True, "", command.watts_w)
        return ev.CommandEnded(command.id, True)


def _cap(limit_w: float) -> ev.SignalChanged:
    return ev.SignalChanged("operator", (Cap("c", "operator", limit_w),))


def test_a_site_climbs_to_its_top_and_a_cut_is_commanded_in_the_same_step() -> None:
    bench = Bench(MINE)
    bench.turn(count=12)
    assert sum(bench.watts.values()) == 8000.0
    sent = bench.turn(_cap(5000.0))
    assert any(isinstance(command, GrantLeases) for command in sent)
    assert sum(bench.watts.values()) + 100.0 <= 5000.0
    bench.turn(count=3)
    assert bench.state.outlook.committed_w <= 5000.0
    bench.turn(_cap(10_000.0), count=8)
    assert sum(bench.watts.values()) == 8000.0


def test_energy_dearer_than_its_hashes_puts_the_fleet_to_sleep() -> None:
    bench = Bench(MINE)
    bench.turn(count=8)
    bench.turn(ev.SignalChanged("price", (), 500.0, True), count=2)
    assert set(bench.watts.values()) == {100.0}


def test_devices_that_no_mining_job_names_stay_at_their_lowest_point() -> None:
    bench = Bench(replace(MINE, spec={"devices": ["d1"]}))
    bench.turn(count=8)
    assert bench.watts == {"d0": 100.0, "d1": 2000.0, "d2": 100.0, "d3": 100.0}
    bench.turn(ev.JobActed("mine", "pause"), count=2)
    assert set(bench.watts.values()) == {100.0}


def test_an_unreadable_fleet_is_told_to_shed_all_the_same() -> None:
    """Leases are what these devices obey: not being able to read them is no reason to feed them."""
    bench = Bench(MINE)
    bench.turn(count=10)
    bench.failed = True
    bench.turn(count=8)
    assert sum(bench.watts.values()) == 8000.0
    bench.turn(_cap(3000.0), count=2)
    assert sum(bench.watts.values()) <= 3000.0
    assert "cap-below-floor" in bench.state.alarms


def test_the_others_make_room_for_a_device_that_does_not_obey() -> None:
    bench = Bench(MINE)
    bench.turn(count=10)
    bench.deaf = {"d3"}
    bench.turn(_cap(6000.0), count=14)
    assert "overdue" in bench.state.alarms
    assert bench.watts["d3"] == 2000.0
    assert sum(bench.watts.values()) + 100.0 <= 6000.0


def test_an_excess_on_the_meter_is_believed_in_full_for_as_long_as_it_lasts() -> None:
    bench = Bench(MINE)
    bench.turn(count=10)
    bench.turn(_cap(6000.0), count=5)
    hidden_w = 1500.0
    for _ in range(60):
        drawn_w = sum(bench.watts.values()) + 100.0 + hidden_w
        bench.turn(ev.MeterRead(drawn_w, bench.now_s + 1.0))
    assert bench.state.excess_w >= 0.9 * hidden_w
    assert drawn_w <= 6000.0 * 1.01
    for _ in range(400):
        bench.turn(ev.MeterRead(sum(bench.watts.values()) + 100.0, bench.now_s + 1.0))
    assert bench.state.excess_w == 0.0


def test_a_meter_that_lags_a_shed_is_no_excess() -> None:
    bench = Bench(MINE)
    bench.turn(count=10)
    drawn_w = sum(bench.watts.values()) + 100.0
    bench.turn(ev.MeterRead(drawn_w, bench.now_s + 1.0), _cap(5000.0))
    bench.turn(ev.MeterRead(drawn_w, bench.now_s + 0.5))
    assert bench.state.excess_w == 0.0


def test_a_service_grows_with_its_load_and_every_change_of_units_is_told() -> None:
    bench = Bench(SVC)
    sent = bench.turn(count=4)
    assert any(isinstance(command, SetReplicas) for command in sent)
    bench.turn(ev.JobReported("svc", "running", running=1, ongoing=9.0), count=4)
    assert bench.state.jobs["svc"].units == 3
    assert [row.action for row in bench.told if row.subject == "svc"].count("grow") >= 1


def test_batch_starts_with_the_watts_it_needs_and_gives_them_back_to_a_cut() -> None:
    bench = Bench(MINE, BATCH)
    sent = bench.turn(count=6)
    assert any(isinstance(command, StartJob) for command in sent)
    bench.turn(ev.JobReported("bat", "running", done=1, total=9), count=2)
    bench.turn(_cap(520.0), count=2)
    assert bench.state.jobs["bat"].state is JobState.PAUSING
    assert bench.state.jobs["bat"].admission is Admission.DEFER


def test_a_raise_of_a_nodes_watts_that_was_never_answered_is_taken_back() -> None:
    bench = Bench()
    bench.turn(count=2)
    node = replace(bench.state.nodes["host"], granted_w=0.0, asked_w=400.0)
    bench.state = replace(bench.state, nodes={"host": node})
    assert node.bound_w == 400.0
    bench.turn(count=3)
    assert bench.state.nodes["host"].bound_w == 0.0


def test_equal_histories_make_equal_commands() -> None:
    def told() -> list[str]:
        bench = Bench(MINE, SVC, BATCH)
        bench.turn(count=5)
        bench.turn(_cap(4000.0), count=5)
        return [f"{row.subject} {row.action} {row.reason}" for row in bench.told]

    assert told() == told()


@pytest.mark.parametrize(
    ("job", "room_w", "free_w", "units", "verdict"),
    [
        (SVC, 400.0, 400.0, 1, Admission.FIT),
        (SVC, 400.0, 0.0, 1, Admission.AFTER_SHEDDING),
        (SVC, 50.0, 0.0, 0, Admission.DEFER),
        (replace(SVC, unit_w=500.0), 900.0, 900.0, 0, Admission.DENY),
        (replace(BATCH, held=True), 400.0, 400.0, 0, Admission.DEFER),
    ],
)
def test_a_placement_says_one_of_four_verdicts(
    job: Job, room_w: float, free_w: float, units: int, verdict: Admission
) -> None:
    placed = place(_ground(room_w, free_w), [job]).placed[0]
    assert (placed.units, placed.admission) == (units, verdict)
    assert placed.reason


def test_services_come_before_batch_whatever_batch_is_worth() -> None:
    dear = replace(BATCH, value_usd_per_h=1e6)
    placement = place(_ground(120.0, 120.0), [dear, SVC])
    assert [one.units for one in placement.placed] == [1, 0]
    assert placement.target_w == {"host": 100.0}


def _ground(room_w: float, free_w: float) -> Ground:
    powers = {"host": NodePower(granted_w=0.0, up=True)}
    connection = Arbitrated(10_000.0, "connection", NO_CAP)
    return Ground(SITE, powers, np.array([room_w]), np.array([free_w]), connection, (), 0.0)


def _fresh() -> State:
    return initial(SITE, Values(), 1)


def test_a_state_without_devices_or_agents_steps_and_commands_no_lease() -> None:
    _, commands, _ = step(_fresh(), [ev.Tick()], 0.0)
    assert not [command for command in commands if isinstance(command, GrantLeases)]


def test_a_slow_agent_is_not_asked_again_before_it_has_answered() -> None:
    """Each grant has a new number: to ask again would outdate the answer that is under way."""
    bench = Bench(MINE)
    bench.turn(count=12)
    (grant,) = [one for one in bench.turn(_cap(5000.0)) if isinstance(one, GrantLeases)]
    answer, bench.owed = bench.owed, []
    for _ in range(3):
        again = bench.turn()
        assert not [name for one in again if isinstance(one, GrantLeases) for name in one.devices]
        bench.owed = []
    bench.turn(*answer)
    lowered = bench.state.fleet.columns_of(tuple(grant.devices))
    assert bench.state.ledger.acked[lowered].all()
    # One that got no answer at all is given up in time, and then asked once more.
    (lost,) = [one for one in bench.turn(_cap(3000.0)) if isinstance(one, GrantLeases)]
    unheard = set(bench.state.fleet.ids[~bench.state.ledger.acked].tolist())
    bench.owed = []
    again = bench.turn(ev.CommandEnded(lost.id, False, "timeout"))
    asked = {name for one in again if isinstance(one, GrantLeases) for name in one.devices}
    assert unheard
    assert asked == unheard


def test_a_meter_that_fell_silent_widens_the_margin_and_one_that_never_spoke_does_not() -> None:
    site = replace(SITE, rules=replace(SITE.rules, stale_margin_share=0.2))
    state, _, _ = step(initial(site, Values(), 1), [ev.Tick()], 100.0)
    assert state.outlook.budget_w == 10_000.0
    state, _, _ = step(state, [ev.MeterRead(500.0, 100.0)], 101.0)
    assert state.outlook.budget_w == 10_000.0
    state, _, _ = step(state, [ev.Tick()], 107.0)
    assert state.outlook.budget_w == 8_000.0
