"""Machines that rest or work, held at a power target in between; and words about parts of rungs."""

from dataclasses import replace

import numpy as np
import pytest

from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.allocate import allocate
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

LEAST_W, TOP_W = 1606.5, 3759.0
ROWS = (("sleep", 30.0, 0.0), ("limit:1500", LEAST_W, 100e12), ("limit:3510", TOP_W, 234e12))
POINTS = tuple(OperatingPoint(mode, w, h, 3.0) for mode, w, h in ROWS)
VALUES = Values(45.0, 0.0, 0.0, 10.0)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
TREE = FeederTree.of(
    [Feeder("main", None, 1e5), Feeder("a", "main", 1e5), Feeder("b", "main", 1e5)]
)


def _rig(name: str, feeder: str = "a") -> Device:
    return Device(name, "asic", "rack", feeder, POINTS, TOP_W, 0.0, True, rests_apart=True)


def _small(name: str, feeder: str = "a") -> Device:
    points = (OperatingPoint("sleep", 0.0, 0.0, 1.0), OperatingPoint("run", 400.0, 1e12, 1.0))
    return Device(name, "asic", "rack", feeder, points, 400.0, 0.0)


def _watts(devices: list[Device], room_w: list[float]) -> list[float]:
    fleet, n = Fleet.of(devices, TREE), len(devices)
    found = allocate(
        fleet,
        Ladder.of(fleet, VALUES),
        TREE,
        room_w=np.array(room_w),
        eligible=np.ones(n, dtype=np.bool_),
        credit_w=np.zeros(n),
        price_usd_per_mwh=0.0,
    )
    return [float(watts_w) for watts_w in found.watts_w]


@pytest.mark.parametrize("room_w", [[1000.0, 1e5, 1e5], [1e5, 1000.0, 1e5]], ids=["root", "feeder"])
def test_what_is_too_little_for_its_least_target_goes_to_others(room_w: list[float]) -> None:
    assert _watts([_rig("r"), _small("s")], room_w) == [30.0, 400.0]


@pytest.mark.parametrize("room_w", [[3000.0, 1e5, 1e5], [1e5, 3000.0, 1e5]], ids=["root", "feeder"])
def test_above_its_least_target_it_takes_any_watts(room_w: list[float]) -> None:
    assert _watts([_rig("r"), _small("s")], room_w) == pytest.approx([3030.0, 0.0], abs=0.001)


def test_no_exchange_leaves_it_between_rest_and_work() -> None:
    for room_w in range(0, 9000, 250):
        rigs = [_rig(f"r{i}") for i in range(2)]
        found = _watts([*rigs, _small("s"), _small("t")], [float(room_w), 1e5, 1e5])
        for watts_w in found[:2]:
            assert watts_w == 30.0 or watts_w >= LEAST_W


class Bench:
    """Two rigs and a small machine on a site with a cap."""

    def __init__(self, *devices: Device) -> None:
        site = Site("s", TREE, (), Rules(margin_share=0.0), ("rack",))
        self.world = World.of(site, devices, (MINE,), 1)
        self.state = initial(site, VALUES, 1)
        self.owed: list[ev.Event] = [self.world.joined(), ev.JobSubmitted(MINE)]
        self.granted: list[GrantLeases] = []
        self.told: list[Decision] = []

    def run(self, seconds: int, *events: ev.Event) -> None:
        for _ in range(seconds):
            for _ in self.world.advance(self.world.now_s + 1.0):
                pass
            told = [*self.owed, *events, *self.world.poll()]
            self.state, commands, why = step(self.state, told, self.world.now_s)
            for one in why:
                self.told += list(one.rows()) if isinstance(one, Moves) else [one]
            grants = [one for one in commands if isinstance(one, GrantLeases)]
            self.granted += grants
            self.owed, events = [e for one in grants for e in self.world.carry(one)], ()

    def reasons(self, device: str) -> list[str]:
        return [f"{one.action}: {one.reason}" for one in self.told if one.subject == device]


def test_no_lease_lies_between_rest_and_work_whatever_the_cap() -> None:
    bench = Bench(_rig("r0"), _rig("r1"), _small("s"))
    bench.run(20)
    for cap_w in (7000.0, 5400.0, 3650.0, 3245.0, 1700.0, 1637.0, 900.0):
        bench.run(12, ev.SignalChanged("s", (Cap("c", "schedule", cap_w),)))
    leased = {
        float(watts_w)
        for one in bench.granted
        for name, watts_w in zip(one.devices, one.watts_w, strict=True)
        if name != "s"
    }
    # Its least target is no whole number of steps of a hundredth of its top.
    assert LEAST_W in leased
    assert all(watts_w == 30.0 or watts_w >= LEAST_W for watts_w in leased)


def test_less_than_a_step_is_leased_as_rest() -> None:
    rows = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 150.0, 1e13, 0.01))
    gate = Device("g", "gpu", "rack", "a", rows, 150.0, 0.0, True, True)
    bench = Bench(gate)
    bench.run(8)
    bench.run(8, ev.SignalChanged("s", (Cap("c", "schedule", 1.0),)))
    assert bench.state.ledger.lease_w.tolist() == [0.0]
    assert bench.state.ledger.point.tolist() == [0], "nothing runs on no watts"
    assert not bench.state.present.facts.runs.any()


def test_a_part_of_a_rung_is_not_called_the_top() -> None:
    bench = Bench(_rig("r"))
    bench.run(10)
    bench.run(10, ev.SignalChanged("s", (Cap("c", "schedule", 2500.0),)))
    last = bench.reasons("r")[-1]
    assert "its next rung is worth" in last
    assert "main binds under cap 2,500 W" in last
    assert "top" not in last


def test_a_first_lease_that_waits_for_room_says_so() -> None:
    site = Site("s", TREE, (), Rules(margin_share=0.0), ("rack",))
    state = initial(site, VALUES, 1)
    cap = ev.SignalChanged("s", (Cap("c", "schedule", TOP_W + 100.0),))
    # Both count at their nameplates until they were seen, so that neither may rise yet.
    seen = ev.AgentSeen("rack", "boot", 1.0, 1.0)
    events: list[ev.Event] = [ev.DeviceJoined((_rig("r0"), _small("s"))), ev.JobSubmitted(MINE)]
    events += [seen, cap]
    _, _, why = step(state, events, 1.0)
    rows = [row for one in why if isinstance(one, Moves) for row in one.rows()]
    reasons = {row.subject: row.reason for row in rows}
    assert reasons["r0"].endswith(
        "to 30 W (sleep): it is to have 3,759 W once others were seen to give theirs up"
    )
    assert "its next rung is worth" in reasons["s"]


def test_a_device_that_comes_back_is_leased_with_a_higher_number() -> None:
    bench = Bench(_rig("r0"), _rig("r1"))
    bench.run(30)
    before = dict(zip(("r0", "r1"), bench.state.ledger.sequence.tolist(), strict=True))
    assert before["r0"] > 1
    bench.run(1, ev.DeviceLeft(("r0",), "sold"))
    bench.granted.clear()
    bench.run(3, ev.DeviceJoined((_rig("r0"),)))
    numbers = [
        int(number)
        for one in bench.granted
        for name, number in zip(one.devices, one.sequence, strict=True)
        if name == "r0"
    ]
    assert numbers
    assert min(numbers) > before["r0"]
    assert bench.world.agents["rack"].refused == 0


def test_only_its_first_rung_does_not_divide() -> None:
    fleet = Fleet.of([_rig("r"), replace(_rig("q"), rests_apart=False)], TREE)
    first, second = fleet.first[:-1], fleet.first[:-1] + 1
    both = np.array([0, 1])
    assert fleet.divides(both, first).tolist() == [False, True]
    assert fleet.divides(both, second).tolist() == [True, True]
