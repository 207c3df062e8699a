"""The burst reserve: a service's burst waits for no machine, and no watt is promised twice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.compute import bursts
from wattshift_scheduler.decisions import Moves
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.forecasts.reserve import KEPT_S, MOST_CHANGES, REARM_S, Bursts, Reserve
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.promises.flexibility import flexibility
from wattshift_scheduler.signals.words import GridEvent
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

UNIT_W = 400.0
ASIC_W = 3000.0
SLEEP_S = 6.0
LIMIT_W = 12_400.0
VALUES = Values(50.0, 0.0, 0.0, 10.0)
RULES = Rules(margin_share=0.0, scale_down_after_s=5.0, burst_share=0.99)
DEAR: dict[str, Any] = {"limit_w": 11_600.0, "values": replace(VALUES, reserve_usd_per_mwh=900.0)}
"""Gates so dear that by value alone a machine rests before a few hundred of their watts do."""
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)


def _asic(name: str) -> Device:
    points = (
        OperatingPoint("sleep", 0.0, 0.0, SLEEP_S),
        OperatingPoint("run", ASIC_W, 140e12, SLEEP_S),
    )
    return Device(name, "asic", "rack", "main", points, ASIC_W, 0.0)


def _gate(name: str, hashes: float) -> Device:
    points = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 600.0, hashes, 0.01))
    named: dict[str, Any] = {"fenced": True, "continuous": True}
    return Device(name, "gpu", "gpus", "main", points, 600.0, 0.0, **named)


def _service(**named: Any) -> Job:
    named = {"unit_w": UNIT_W, "min_units": 1, "max_units": 6, "value_usd_per_h": 5.0, **named}
    return Job("svc", JobKind.SERVICE, "svc", {}, 0.0, **named)


@dataclass(slots=True)
class Play:
    """A site, played second by second; within a second its gates and Ray answer at once."""

    rules: Rules = RULES
    gate_hashes: float = 1e13
    limit_w: float = LIMIT_W
    values: Values = VALUES
    world: World = field(init=False)
    state: State = field(init=False)
    waited: list[float] = field(default_factory=list)
    gates_w: list[float] = field(default_factory=list)
    owed: list[ev.Event] = field(default_factory=list)
    told: list[Moves] = field(default_factory=list)

    def __post_init__(self) -> None:
        tree = FeederTree.of([Feeder("main", None, self.limit_w)])
        site = Site("s", tree, (Node("host", "main", 6 * UNIT_W),), self.rules)
        devices = [_asic(f"a{i}") for i in range(4)]
        devices += [_gate(f"g{i}", self.gate_hashes) for i in range(3)]
        jobs = (MINE, _service())
        self.world, self.state = World.of(site, devices, jobs, 1), initial(site, self.values, 1)
        self.owed = [self.world.joined(), *(ev.JobSubmitted(job) for job in jobs)]

    def run(self, units: Sequence[int]) -> None:
        """So many replicas are wanted in each second; those that wait at its end are counted."""
        for wanted in units:
            for node in self.world.nodes.values():
                node.load = wanted / 6.0
            for _ in self.world.advance(self.world.now_s + 1.0):
                pass
            told, self.owed = [*self.owed, *self.world.poll()], []
            for _ in range(8):
                self.state, commands, why = step(self.state, told, self.world.now_s)
                self.told += [one for one in why if isinstance(one, Moves)]
                told = [event for command in commands for event in self.world.carry(command)]
                if not told:
                    break
            self.owed = told
            there = len(self.world.ray.units.get("svc", ()))
            self.waited.append(max(wanted - there, 0))
            self.gates_w.append(self.state.reserve.gates_w)
            drawn_w = float(self.world.feeder_w()[0])
            assert drawn_w <= self.limit_w + 1.0, f"{drawn_w} W at {self.world.now_s} s"

    @property
    def reserve(self) -> Reserve:
        return self.state.reserve


def _noted(
    *watts: int, every_s: float = 60.0, within_s: float = 30.0, unit_w: float = 100.0
) -> Bursts:
    found = Bursts()
    for i, units in enumerate(watts):
        found = found.noted({"svc": (units, unit_w)}, within_s, 0.99, i * every_s)
    return found


SETTLE = [1] * 12
BURST = [3] * 5 + [1] * 7
"""Two replicas more for a while, then time for machines to come back."""


def _ready(rules: Rules = RULES, **named: Any) -> Play:
    """A settled site that remembers some bursts of two replicas."""
    play = Play(rules, **named)
    if rules.burst_share:
        seen = _noted(*[1, 3] * 5, 1, unit_w=UNIT_W)
        play.state = replace(play.state, bursts=replace(seen, at_s=seen.at_s - 1000.0))
    play.run(SETTLE)
    play.waited.clear()
    play.gates_w.clear()
    return play


def test_a_burst_within_the_reserve_waits_for_no_machine() -> None:
    play = _ready()
    assert play.reserve.burst_w == pytest.approx(2 * UNIT_W)
    play.run(BURST)
    assert max(play.waited) == 0
    play.run([3])
    assert max(play.waited) == 0, "and the reserve is back for the next one"


def test_without_the_reserve_the_same_burst_waits_for_machines() -> None:
    play = _ready(replace(RULES, burst_share=0.0))
    play.run(BURST)
    assert max(play.waited) == 2


def test_gates_lend_what_machines_are_slow_to_give_back() -> None:
    play = _ready(**DEAR)
    play.run([3] * 12)
    assert max(play.waited) == 0
    assert min(play.gates_w) <= 1800.0 - UNIT_W
    assert play.gates_w[-1] == pytest.approx(1800.0)  # Machines have followed.


def test_without_gates_that_lend_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    play = _ready(**DEAR)
    monkeypatch.setattr(bursts, "lent", lambda state, wanted, *_, **__: (wanted, 0.0))
    play.run([3] * 4)
    assert max(play.waited) > 0


def test_a_short_burst_turns_no_machine() -> None:
    play = _ready(limit_w=10_400.0)
    machines = [i for i, device in enumerate(play.state.fleet.devices) if device.kind == "asic"]
    before = play.state.turns.turned_s[machines]
    play.run(BURST)
    assert max(play.waited) == 0
    np.testing.assert_array_equal(play.state.turns.turned_s[machines], before)


def test_where_gates_do_not_mine_the_reserve_stays_free() -> None:
    """A card that hashes for next to nothing does not mine: its watts are kept free instead."""
    play = _ready(gate_hashes=0.0)
    assert play.reserve.gates_w == 0.0
    assert play.reserve.free_w >= 2 * UNIT_W
    play.run([3] * 3)
    assert max(play.waited) == 0


def test_a_greater_burst_than_any_before_is_learnt() -> None:
    play = _ready()
    play.run([6] * 2)
    assert play.state.bursts.burst_w == pytest.approx(5 * UNIT_W)


def test_what_is_kept_is_what_gates_and_headroom_hold() -> None:
    play = _ready()
    kept = play.reserve
    assert kept.short_w == 0.0
    assert kept.gates_w + kept.free_w >= kept.services_w
    assert kept.within_s == pytest.approx(SLEEP_S * 1.5 + RULES.stale_after_s)
    assert set(kept.by_kind) == {"burst", "plan", "grid", "gates", "free", "lent", "short"}


def test_the_reserve_is_offered_to_nobody_else() -> None:
    play = _ready(**DEAR)
    now_s = play.world.now_s
    first = flexibility(play.state, now_s)[0]
    without = replace(play.state, reserve=replace(play.reserve, burst_w=0.0))
    offered = flexibility(without, now_s)[0].deliverable_w - first.deliverable_w
    assert offered == pytest.approx(min(2 * UNIT_W, play.reserve.gates_w), rel=0.02)
    event = GridEvent("e", "utility", "frr", now_s, now_s + 5.0, None, 300.0)
    told = ev.SignalChanged("utility", events=(event,))
    play.owed.append(told)
    play.run([1])
    assert play.reserve.grid_w == 300.0


@pytest.mark.parametrize(
    ("gates_w", "free_w", "grid_w", "burst_w", "short_w"),
    [
        (1000.0, 0.0, 400.0, 600.0, 0.0),
        (1000.0, 0.0, 400.0, 700.0, 100.0),
        (1000.0, 100.0, 400.0, 700.0, 0.0),
        (300.0, 900.0, 400.0, 700.0, 100.0),
        (0.0, 700.0, 0.0, 700.0, 0.0),
    ],
)
def test_a_watt_serves_a_burst_or_the_grid(
    gates_w: float, free_w: float, grid_w: float, burst_w: float, short_w: float
) -> None:
    kept = Reserve(burst_w=burst_w, grid_w=grid_w, gates_w=gates_w, free_w=free_w)
    assert kept.short_w == short_w


def test_rises_within_the_time_are_a_burst_and_slower_ones_are_not() -> None:
    assert _noted(1, 3, 1, 3, 1).burst_w == 200.0
    assert _noted(1, 2, 3, 4, 1).burst_w == 100.0
    assert _noted(1, 2, 3, 4, 1, every_s=10.0).burst_w == 300.0
    assert _noted(5, 4, 3).burst_w == 0.0


def test_a_service_that_comes_goes_or_is_held_is_no_burst() -> None:
    found = _noted(1, 1)
    both = found.noted({"svc": (1, 100.0), "big": (9, 500.0)}, 30.0, 0.99, 200.0)
    gone = both.noted({"svc": (1, 100.0)}, 30.0, 0.99, 260.0)
    back = gone.noted({"svc": (1, 100.0), "big": (9, 500.0)}, 30.0, 0.99, 300.0)
    assert back.burst_w == both.burst_w == 0.0
    assert back.noted({"svc": (1, 90.0), "big": (9, 500.0)}, 30.0, 0.99, 301.0).rises == 0


def test_before_bursts_were_seen_the_largest_unit_is_kept_and_never_more_than_may_come() -> None:
    assert Bursts().needs_w(400.0, 2000.0, 0.0) == 400.0
    assert _noted(1, 3, 1, 3, 1).needs_w(400.0, 2000.0, 1e4) == 400.0
    many = _noted(1, 3, 1, 3, 1, 3, 1)
    assert many.needs_w(400.0, 2000.0, 1e4) == 200.0
    assert many.needs_w(400.0, 150.0, 1e4) == 150.0
    assert many.needs_w(0.0, 0.0, 1e4) == 0.0


def test_what_has_risen_already_is_not_kept_again_before_it_has_lasted() -> None:
    found = _noted(1, 3, 1, 3, 1, 3, 1, 2)
    assert found.needs_w(400.0, 2000.0, 420.0) == 100.0
    assert found.needs_w(400.0, 2000.0, 420.0 + REARM_S - 1.0) == 100.0
    assert found.needs_w(400.0, 2000.0, 420.0 + REARM_S) == 200.0
    assert found.noted({"svc": (1, 100.0)}, 30.0, 0.99, 430.0).needs_w(9.0, 2e3, 430.0) == 200.0


def test_old_changes_are_forgotten_and_their_number_is_bounded() -> None:
    found = _noted(*[1 + i % 3 for i in range(MOST_CHANGES + 9)], every_s=1.0)
    assert len(found.at_s) <= MOST_CHANGES
    later = found.noted({"svc": (1, 100.0)}, 30.0, 0.99, 10 * KEPT_S)
    later = later.noted({"svc": (2, 100.0)}, 30.0, 0.99, 10 * KEPT_S + 60.0)
    assert len(later.at_s) <= 3
    assert later.burst_w == 100.0


def test_nothing_is_kept_without_services_and_nothing_is_remembered() -> None:
    play = Play(RULES)
    play.owed = [event for event in play.owed if not isinstance(event, ev.JobSubmitted)]
    play.owed.append(ev.JobSubmitted(MINE))
    play.world.ray.jobs.clear()
    play.run([0] * 5)
    assert play.reserve == Reserve()
    assert not len(play.state.bursts.at_s)


@pytest.mark.parametrize("bad", [-0.1, 1.0, math.nan])
def test_a_share_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(SiteInvalid, match="burst_share"):
        Rules(burst_share=bad)


def test_gates_give_feeder_by_feeder_and_least_worth_first() -> None:
    tree = FeederTree.of(
        [Feeder("main", None, 1e4), Feeder("west", "main", 5e3), Feeder("east", "main", 5e3)]
    )
    west, east = tree.index["west"], tree.index["east"]
    feeder = np.array([west, east, east, west])
    left_w = np.array([100.0, 100.0, 100.0, 100.0])
    owed_w = np.zeros(3)
    owed_w[tree.index["main"]], owed_w[east] = 250.0, 150.0
    given_w = bursts._given_w(tree, feeder, left_w, owed_w)
    assert given_w.tolist() == [100.0, 100.0, 50.0, 0.0]
    owed_w[tree.index["main"]] = 1e3
    assert bursts._given_w(tree, feeder, left_w, owed_w).tolist() == [100.0] * 4


def test_what_gates_lend_is_told() -> None:
    play = _ready(**DEAR)
    rose_s = play.world.now_s + 1.0
    play.run([3])
    told = [row for one in play.told for row in one.rows() if row.at_s == rose_s]
    lent = [row for row in told if row.subject.startswith("g") and row.action == "shed"]
    assert lent
    assert "gates lend services" in lent[0].reason
