"""How a plan acts in the core: by prices and reservations, while it is fresh, and never further."""

import math
import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.in_force import acting
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder.turns import PATIENCE
from wattshift_scheduler.leases import Ledger, Telemetry
from wattshift_scheduler.plan.classes import Classes, kinds_of
from wattshift_scheduler.plan.words import PlanInvalid, Standing
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

TREE = FeederTree.of([Feeder("main", None, 1e5)])
VALUES = Values(2.4, 0.0, 0.0, 10.0)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
STEP_S = 300.0
WEAR_USD = 0.05
PERIOD_S = 30.0


def machine(name: str, fenced: bool = False, wear: float = WEAR_USD, up_s: float = 5.0) -> Device:
    """1 PH/s at 1 kW: a MWh of it is worth 100 USD."""
    points = (OperatingPoint("rest", 0.0, 0.0, 1.0), OperatingPoint("run", 1000.0, 1e15, up_s))
    kind, named = "gpu" if fenced else "asic", {"tolerance": 0.0, "wear_usd_per_cycle": wear}
    return Device(name, kind, "a", "main", points, 1000.0, fenced=fenced, **named)  # type: ignore[arg-type]


def standing(made_s: float, n: int = 12, **columns: Any) -> Standing:
    """A plan of hours at a price of 10 USD/MWh that asks for nothing, but for what is given."""
    price = np.full(n, 10.0)
    given = {"price_usd_per_mwh": price, "shadow_usd_per_mwh": price, "reserve_w": np.zeros(n)}
    return Standing(made_s, made_s, STEP_S, made_s + 900.0, **{**given, **columns})


@dataclass(slots=True)
class Site1:
    """A site of machines that obey at once."""

    devices: tuple[Device, ...]
    rules: Rules = field(default_factory=lambda: Rules(margin_share=0.0))
    nodes: tuple[Node, ...] = ()
    now_s: float = 0.0
    state: State = field(init=False)
    owed: list[ev.Event] = field(default_factory=list)
    commands: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = initial(Site("s", TREE, self.nodes, self.rules), VALUES, 1)
        self.owed = [ev.DeviceJoined(self.devices), ev.JobSubmitted(MINE)]
        for _ in range(4):
            self.turn(10.0)

    def turn(self, price: float, *events: ev.Event, later_s: float = PERIOD_S) -> None:
        """The grants at a price, and their answers."""
        self.now_s += later_s
        for _ in range(2):
            told = [*self.owed, ev.AgentSeen("a", "boot", self.now_s, self.now_s), self.read()]
            told += [ev.ComputeSeen(node.name, True, node.max_w) for node in self.nodes]
            told += [ev.SignalChanged("price", (), price, True), *events]
            self.state, commands, _ = step(self.state, told, self.now_s)
            self.commands += commands
            self.owed = [_taken(one) for one in commands if isinstance(one, GrantLeases)]

    def read(self) -> ev.Readings:
        n = len(self.devices)
        drawn_w = self.state.ledger.lease_w if len(self.state.fleet) else np.zeros(n)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        ids, at_s = tuple(d.id for d in self.devices), np.full(n, self.now_s)
        drawn_w = np.nan_to_num(drawn_w)
        return ev.Readings(ids, at_s, drawn_w, nan, nan, nan, nan, ("",) * n, no, no)

    def awake(self, usd: float, n: int = 12) -> dict[str, Floats]:
        """The same worth of every kind."""
        return {name: np.full(n, usd) for name in Classes.among(self.state.fleet).names}

    @property
    def running(self) -> list[str]:
        return [d.id for d, p in zip(self.devices, self.state.ledger.point, strict=True) if p > 0]


def _taken(command: GrantLeases) -> ev.LeasesReplied:
    yes = np.ones(len(command.devices), dtype=np.bool_)
    none = ("",) * len(yes)
    return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, none)


def test_what_is_beyond_the_price_is_put_on_top_but_for_what_a_full_cap_makes() -> None:
    site = Site1((machine("m", wear=0.0),))
    assert site.running == ["m"]
    peak = np.full(12, 130.0)
    site.turn(10.0, ev.PlanUpdated(standing(site.now_s, shadow_usd_per_mwh=peak)))
    assert site.running == [], "a peak makes the MWh cost 130 USD, and it earns 100"
    assert acting.price_usd_per_mwh(site.state, site.now_s) == pytest.approx(130.0)
    capped = standing(site.now_s, shadow_usd_per_mwh=peak, capped_usd_per_mwh=np.full(12, 120.0))
    site.turn(10.0, ev.PlanUpdated(capped))
    assert site.running == ["m"], "there is room under the cap, whatever was foreseen"


def test_a_running_machine_sleeps_only_if_it_loses_more_than_it_is_worth_awake() -> None:
    # At 130 it loses 3 cents an hour, 0.25 cents in an interval; a cycle costs 5.
    for worth_usd, runs in ((0.01, True), (0.001, False)):
        site = Site1((machine("m"),))
        plan = standing(site.now_s, awake_usd=site.awake(worth_usd))
        site.turn(130.0, ev.PlanUpdated(plan))
        assert (site.running == ["m"]) == runs, worth_usd
    alone = Site1((machine("m"),))
    alone.turn(130.0)
    assert alone.running == ["m"], "an hour at that price does not pay for the cycle"


def test_a_sleeping_machine_wakes_only_if_it_earns_more_than_its_cycle_less_its_worth() -> None:
    # At 40 it earns half a cent in an interval.
    for worth_usd, runs in ((0.04, False), (0.046, True)):
        site = Site1((machine("m"),))
        site.turn(5000.0)
        assert site.running == []
        plan = standing(site.now_s, awake_usd=site.awake(worth_usd))
        site.turn(40.0, ev.PlanUpdated(plan))
        assert (site.running == ["m"]) == runs, worth_usd


def test_the_plan_is_used_until_it_expires_and_then_the_ladder_goes_on_alone_visibly() -> None:
    site = Site1((machine("m", wear=0.0),))
    peak = np.full(12, 130.0)
    site.turn(10.0, ev.PlanUpdated(standing(site.now_s, shadow_usd_per_mwh=peak)))
    site.turn(10.0, later_s=800.0)
    assert site.running == []
    assert "plan-late" not in site.state.alarms
    site.turn(10.0, later_s=100.0)
    assert site.running == ["m"]
    assert "plan-late" in site.state.alarms
    site.turn(10.0, ev.PlanUpdated(None))
    assert "plan-late" not in site.state.alarms


def test_a_plan_that_is_wrong_for_ever_costs_a_machine_two_cycles_at_most() -> None:
    site, lost_usd = Site1((machine("m"),)), 0.0
    for k in range(200):
        if not k % 10:
            plan = standing(site.now_s, awake_usd=site.awake(1e9))
        site.turn(220.0, ev.PlanUpdated(plan))
        if not site.running:
            break
        lost_usd += 0.12 * PERIOD_S / 3600.0
    cycle_usd = float(site.state.ladder.cycle_usd[0])
    assert PATIENCE * cycle_usd <= lost_usd + 1e-9 <= (PATIENCE + 0.1) * cycle_usd


def test_an_answer_that_is_carried_over_is_the_one_worked_out_anew() -> None:
    dice = np.random.default_rng(3)
    site = Site1(tuple(machine(f"m{i}", wear=1e-3 + 4e-3 * i) for i in range(4)))
    for k in range(13):
        told: list[ev.Event] = []
        if not k % 5:
            worth = {name: dice.choice([0.0, 5e-4, 1.0], 12) for name in site.awake(0.0)}
            shadow = 10.0 + np.maximum(dice.uniform(-200.0, 100.0, 12), 0.0)
            told = [
                ev.PlanUpdated(standing(site.now_s, awake_usd=worth, shadow_usd_per_mwh=shadow))
            ]
        site.turn(float(dice.choice([60.0, 95.0, 105.0, 140.0])), *told)
        fresh = site.state.forgotten()
        for later_s in (7.0, 150.0, 290.0, 700.0):
            at_s = site.now_s + later_s
            told = [
                ev.AgentSeen("a", "boot", at_s, at_s),
                replace(site.read(), at_s=np.full(4, at_s)),
            ]
            carried, anew = (step(one, told, at_s)[0] for one in (site.state, fresh))
            assert np.array_equal(carried.ledger.point, anew.ledger.point), k
            assert np.array_equal(carried.turns.kept, anew.turns.kept), k


def test_an_answer_ends_by_itself_with_its_interval_and_with_patience() -> None:
    """Nobody is heard of meanwhile: what is carried over must know by itself when it ends."""
    patient = Rules(margin_share=0.0, stale_after_s=5000.0, lease_ttl_s=9000.0)
    site = Site1((machine("m"),), patient)
    worth = {name: np.where(np.arange(12) == 0, 1.0, 0.0) for name in site.awake(0.0)}
    site.turn(130.0, ev.PlanUpdated(standing(site.now_s, awake_usd=worth)))
    state, _, _ = step(site.state, [ev.Tick()], site.now_s + 200.0)
    assert state.ledger.point[0] == 1
    state, _, _ = step(state, [ev.Tick()], site.now_s + 301.0)
    assert state.ledger.point[0] == 0
    # At 600 it loses 4 cents in an interval, and two cycles in 722 s.
    site = Site1((machine("m"),), patient)
    site.turn(600.0, ev.PlanUpdated(standing(site.now_s, awake_usd=site.awake(1.0))))
    state, _, _ = step(site.state, [ev.Tick()], site.now_s + 620.0)
    assert state.ledger.point[0] == 1
    state, _, _ = step(state, [ev.Tick()], site.now_s + 740.0)
    assert state.ledger.point[0] == 0


def test_the_reserve_of_a_plan_is_kept_free_or_behind_gates() -> None:
    site = Site1((*(machine(f"m{i}") for i in range(100)), machine("g", fenced=True)))
    assert len(site.running) == 100
    plan = standing(site.now_s, reserve_w=np.full(12, 3000.0))
    site.turn(10.0, ev.PlanUpdated(plan))
    site.turn(10.0)
    assert site.state.reserve.plan_w == 3000.0
    kept_w = 1e5 - float(site.state.ledger.lease_w[:100].sum())
    assert kept_w >= 3000.0 - 1e-6
    assert "g" in site.running


def test_a_plan_with_figures_that_cannot_be_is_refused() -> None:
    for name, bad in (("shadow_usd_per_mwh", math.nan), ("reserve_w", -1.0)):
        column = np.full(12, 10.0)
        column[3] = bad
        with pytest.raises(PlanInvalid, match=name):
            standing(0.0, **{name: column})
    with pytest.raises(PlanInvalid, match="awake_usd of m"):
        standing(0.0, awake_usd={"m": np.full(12, math.nan)})
    with pytest.raises(PlanInvalid, match="batch_usd_per_mwh of b"):
        standing(0.0, batch_usd_per_mwh={"b": math.nan})
    with pytest.raises(PlanInvalid, match="needs_s of b"):
        standing(0.0, needs_s={"b": -1.0})


def _any_plan(dice: random.Random, now_s: float) -> Standing:
    """A plan without sense: for a site that it does not know, at times that may be anywhere."""
    n = dice.randrange(1, 12)
    rng = np.random.default_rng(dice.randrange(1 << 30))
    names = ["asic 32..2100 W 23.3 J/TH", "cpu 0..150 W 150.0 J/GH", "nobody"]
    return Standing(
        made_s=now_s,
        start_s=now_s + dice.uniform(-200.0, 20.0),
        step_s=dice.choice([1.0, 5.0, 300.0]),
        expires_s=now_s + dice.uniform(-5.0, 60.0),
        price_usd_per_mwh=rng.uniform(-100.0, 300.0, n),
        shadow_usd_per_mwh=rng.uniform(-1e3, 1e6, n) * rng.integers(0, 2, n),
        reserve_w=rng.uniform(0.0, 1e5, n) * rng.integers(0, 2, n),
        awake_usd={name: rng.uniform(0.0, 50.0, n) for name in names},
        batch_usd_per_mwh={"bat": float(rng.uniform(-100.0, 300.0))},
        needs_s={"bat": float(rng.uniform(0.0, 100.0))},
    )


@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.nightly)])
def test_no_plan_breaks_an_invariant(bad_wire: SimpleNamespace, seed: int) -> None:
    dice = random.Random(seed)

    class Planned(bad_wire.Rig):  # type: ignore[misc,name-defined]
        """A rig whose planner talks nonsense all the time."""

        def pass_second(self) -> None:
            if dice.random() < 0.3:
                plan = None if dice.random() < 0.1 else _any_plan(dice, float(self.turn))
                self._tell(ev.PlanUpdated(plan))
            super().pass_second()

    assert Planned(seed, 0.02).play(bad_wire.seeded(seed, 8)) == []


def test_kinds_add_up_to_the_fleet_and_are_named_alike_whatever_runs() -> None:
    rng = np.random.default_rng(1)
    devices = []
    for i in range(300):
        count = int(rng.integers(2, 6))
        watts = np.sort(rng.uniform(500.0, 3500.0, count - 1))
        hashes = watts * rng.uniform(2e10, 6e10)
        points = [OperatingPoint("rest", float(rng.uniform(0.0, 40.0)), 0.0, 1.0)]
        points += [
            OperatingPoint(f"p{k}", float(w), float(h), 60.0)
            for k, (w, h) in enumerate(zip(watts, hashes, strict=True))
        ]
        one = Device(f"d{i}", "asic", "a", "main", tuple(points), float(watts[-1]), 0.0)
        devices.append(replace(one, fenced=bool(i % 7 == 0), wear_usd_per_cycle=0.01 * (i % 3)))
    fleet = Fleet.of(devices, TREE)
    for most in (400, 60, 7):
        kinds, of = kinds_of(fleet, VALUES, Ledger.empty(fleet), Telemetry.unknown(300), 0.0, most)
        assert len(kinds) <= most
        assert len({kind.name for kind in kinds}) == len(kinds)
        assert [kind.name for kind in kinds] == list(Classes.among(fleet, most).names)
        counts = np.bincount(of, minlength=len(kinds))
        assert [kind.count for kind in kinds] == counts.tolist()
        for point, first in ((0, fleet.first[:-1]), (-1, fleet.first[1:] - 1)):
            watts_w = sum(kind.count * kind.points_w[point] for kind in kinds)
            assert watts_w == pytest.approx(float(fleet.point_limit_w[first].sum()))
            usd = sum(kind.count * kind.usd_per_h[point] for kind in kinds)
            hashes = float(fleet.point_h_per_s[first].sum())
            assert usd == pytest.approx(hashes * VALUES.usd_per_hash_hour)
        assert all(
            len({fleet.fenced[of == i].all(), kinds[i].fenced}) == 1 for i in range(len(kinds))
        )
    assert sum(kind.count * kind.cycle_usd for kind in kinds) > 0.0


def test_devices_alike_are_one_kind() -> None:
    fleet = Fleet.of([machine(f"m{i}") for i in range(5)] + [machine("g", fenced=True)], TREE)
    classes = Classes.among(fleet)
    assert len(classes.names) == 2
    assert classes.of[:5].tolist() == [int(classes.of[0])] * 5
