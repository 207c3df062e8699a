"""No price sequence turns machines more often than their cycles and least times justify."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Bools, Floats
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.ladder.cycles import Turns
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.ladder.turns import Worths
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

TREE = FeederTree.of([Feeder("main", None, 1e6)])
VALUES = Values(2.4, 0.0, 0.0, 10.0)
PERIOD_S = 30.0
LEAST = Rules(min_up_s=300.0, min_down_s=600.0)
WORTHS = (40.0, 60.0, 80.0, 100.0)
WEARS = (0.002, 0.05, 0.2, 1.0)


def _fleet(up_s: float = 60.0) -> Fleet:
    """Machines of 1 kW whose MWh is worth as many USD as their place in WORTHS says."""
    rigs = []
    for i, (worth, wear) in enumerate(zip(WORTHS, WEARS, strict=True)):
        points = (
            OperatingPoint("sleep", 0.0, 0.0, 1.0),
            OperatingPoint("run", 1000.0, 1e15 * worth / 100.0, up_s),
        )
        named: dict[str, Any] = {"tolerance": 0.0, "wear_usd_per_cycle": wear}
        rigs.append(Device(f"r{i}", "asic", "a", "main", points, 1000.0, **named))
    return Fleet.of(rigs, TREE)


@dataclass(slots=True)
class Played:
    """Machines that follow a price at once; what each turn has cost and could have gained."""

    rules: Rules
    fleet: Fleet
    runs: Bools = field(init=False)
    turns: Turns = field(init=False)
    ladder: Ladder = field(init=False)
    now_s: float = 0.0
    sleeps: Floats = field(init=False)
    gained_usd: Floats = field(init=False)
    best_usd: Floats = field(init=False)
    woke_s: Floats = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.fleet)
        self.runs, self.turns = np.ones(n, dtype=np.bool_), Turns.none(n)
        self.ladder = Ladder.of(self.fleet, VALUES, self.runs, 3600.0)
        self.sleeps, self.gained_usd, self.best_usd = np.zeros((3, n))
        self.woke_s = np.full(n, -np.inf)

    def step(self, price: float, awake_usd: Floats | None = None) -> None:
        """One period at a price, and with what a plan says that awake is worth, USD."""
        self.now_s += PERIOD_S
        self.best_usd = np.maximum(self.best_usd, (price - np.array(WORTHS)) / 1000.0)
        asked = cycles.Asked(
            price_usd_per_mwh=price,
            expected_s=3600.0,
            elapsed_s=PERIOD_S,
            now_s=self.now_s,
            min_up_s=self.rules.min_up_s,
            min_down_s=self.rules.min_down_s,
            worths=None if awake_usd is None else Worths(awake_usd, 300.0),
        )
        bound = cycles.held(self.fleet, self.turns, self.runs, self.rules, self.now_s)
        free = np.ones(len(self.fleet), dtype=np.bool_)
        weighed = cycles.weighed_anew(self.ladder, self.turns, free, asked, bound)
        take, turns = weighed.take, weighed.turns
        before, after = self.runs.astype(np.int64), take.astype(np.int64)
        self.turns = cycles.turned(turns, before, after, ~take, self.now_s)
        slept, woke = self.runs & ~take, ~self.runs & take
        known = slept & np.isfinite(self.woke_s)
        ran_s = np.where(known, self.now_s - self.woke_s, 0.0)
        self.gained_usd += self.best_usd * ran_s / 3600.0
        self.sleeps += slept
        self.woke_s = np.where(woke, self.now_s, self.woke_s)
        self.best_usd = np.where(woke, 0.0, self.best_usd)
        if (slept | woke).any():
            self.runs = take
            self.ladder = Ladder.of(self.fleet, VALUES, self.runs, 3600.0)

    def check(self) -> None:
        """Cycles cost no more than sleep could gain and one each, and are no more than times let
        be."""
        cost_usd = self.sleeps * self.ladder.cycle_usd
        assert (cost_usd <= self.gained_usd * (1 + 1e-9) + self.ladder.cycle_usd + 1e-12).all()
        least_s = self.rules.min_up_s + self.rules.min_down_s
        if least_s:
            assert (self.sleeps <= 1 + self.now_s / least_s).all()


PRICES = st.lists(st.tuples(st.floats(-50, 5000), st.integers(1, 30)), min_size=2, max_size=30)


@pytest.mark.parametrize("rules", [Rules(), LEAST])
@settings(max_examples=8, derandomize=True, deadline=None, database=None)
@given(prices=PRICES)
def test_any_prices(rules: Rules, prices: list[tuple[float, int]]) -> None:
    played = Played(rules, _fleet())
    for price, periods in prices:
        for _ in range(periods):
            played.step(price)
    played.check()


@pytest.mark.parametrize("rules", [Rules(), LEAST])
def test_prices_that_flap_around_every_break_even(rules: Rules) -> None:
    for worth in WORTHS[::3]:
        for swing in (0.5, 20.0, 1000.0):
            played = Played(rules, _fleet())
            for k in range(60):
                played.step(worth + swing * (-1) ** (k // (1 + k % 3)))
            played.check()


@pytest.mark.parametrize("rules", [Rules(), LEAST])
@pytest.mark.parametrize("victim", [0, 3])
def test_an_adversary_who_sees_which_machines_run(rules: Rules, victim: int) -> None:
    """A price that is dear exactly while the machine runs, and cheap while it sleeps."""
    for dear in (1.0, 30.0, 9000.0):
        played = Played(rules, _fleet())
        for _ in range(160):
            worth = WORTHS[victim]
            played.step(worth + dear if played.runs[victim] else worth - 0.5 * dear)
        played.check()
        assert played.sleeps[victim] > 0 or dear < 100.0


@pytest.mark.parametrize("seed", range(2))
def test_a_plan_that_says_another_thing_each_time_turns_no_more_than_the_times_let_be(
    seed: int,
) -> None:
    """The worst plan is the one that says a machine is worth nothing while it runs, and all of a
    cycle while it sleeps; a chance one is hardly better."""
    dice = np.random.default_rng(seed)
    for swing, by_chance in itertools.product((0.01, 30.0), (False, True)):
        rules = LEAST if swing > 1.0 else Rules()
        played = Played(rules, _fleet())
        awake_usd = np.zeros(len(WORTHS))
        for k in range(160):
            if k % 10 == 0:
                whim = dice.uniform(0.0, 1.0, len(WORTHS)) if by_chance else ~played.runs
                awake_usd = played.ladder.cycle_usd * whim
            worth = WORTHS[seed]
            played.step(worth + swing if played.runs[seed] else worth - swing, awake_usd)
        least_s = 900.0 if swing > 1.0 else 3600.0
        assert (played.sleeps <= 1 + played.now_s / least_s).all()


def test_without_least_times_the_adversary_turns_it_more_often_than_they_let_be() -> None:
    def sleeps(rules: Rules) -> float:
        played = Played(rules, _fleet())
        for _ in range(160):
            played.step(9000.0 if played.runs[0] else -9000.0)
        return float(played.sleeps[0])

    assert sleeps(Rules()) > 1 + 160 * PERIOD_S / 900.0 >= sleeps(LEAST)


@pytest.mark.parametrize("guard", ["cost", "trust"])
def test_without_the_ski_rental_rule_cycles_cost_more_than_sleep_gains(guard: str) -> None:
    played = Played(Rules(), _fleet())
    real, free = played.ladder.cycle_usd, np.zeros(len(WORTHS), dtype=np.bool_)
    for k in range(120):
        if guard == "cost":
            played.ladder = replace(played.ladder, cycle_usd=np.zeros(len(WORTHS)))
        else:
            played.turns = replace(played.turns, priced=free)
        played.step(300.0 if k % 2 else 10.0)
    played.ladder = replace(played.ladder, cycle_usd=real)
    with pytest.raises(AssertionError):
        played.check()


def test_a_cap_asks_for_no_least_time_and_what_it_put_to_sleep_wakes_with_the_room() -> None:
    fleet = _fleet()
    runs = np.array([True, True, False, False])
    turns = replace(
        Turns.none(4),
        turned_s=np.full(4, 1000.0),
        priced=np.array([True, False, True, False]),
    )
    held = cycles.held(fleet, turns, runs, LEAST, 1100.0)
    assert held is not None
    assert held.tolist() == [True, True, True, False]
    held = cycles.held(fleet, turns, runs, LEAST, 1400.0)
    assert held is not None
    assert held.tolist() == [False, False, True, False]
    assert cycles.held(fleet, turns, runs, LEAST, 1700.0) is None
    quick = cycles.held(_fleet(up_s=5.0), turns, runs, LEAST, 1100.0)
    assert quick is not None
    assert not quick.any()


def test_an_unknown_price_asks_for_no_least_time() -> None:
    played = Played(LEAST, _fleet())
    played.step(9000.0)
    played.step(-9000.0)
    for _ in range(21):
        played.step(-9000.0)
    assert played.runs.all()
    played.step(np.inf)
    assert not played.runs.any()


@pytest.mark.parametrize("bad", [-1.0, np.inf, np.nan])
@pytest.mark.parametrize("name", ["min_up_s", "min_down_s"])
def test_a_least_time_that_cannot_be_is_refused(name: str, bad: float) -> None:
    with pytest.raises(SiteInvalid, match=name):
        Rules(**{name: bad})


@pytest.mark.parametrize("low", [-30.0, 30.0])
def test_what_a_cycle_costs_nothing_keeps_its_least_times_too(low: float) -> None:
    """Nothing wears off, and at its top it earns nothing: it runs at its middle, or is paid to."""
    points = (
        OperatingPoint("sleep", 0.0, 0.0, 40.0),
        OperatingPoint("warm", 1000.0, 0.0, 40.0, revenue_usd_per_h=0.05),
        OperatingPoint("hot", 2000.0, 0.0, 40.0, revenue_usd_per_h=0.0),
    )
    device = Device("d", "asic", "a", "main", points, 2000.0)
    rules = Rules(margin_share=0.0, min_up_s=60.0, min_down_s=90.0)
    site = Site("s", FeederTree.of([Feeder("main", None, 9000.0)]), (), rules, ("a",))
    mine = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
    world, state = World.of(site, [device], (mine,), 1), initial(site, Values(None), 1)
    told: list[ev.Event] = [world.joined(), ev.JobSubmitted(mine)]
    turned: list[tuple[float, bool]] = []
    for second in range(1500):
        for _ in world.advance(world.now_s + 1.0):
            pass
        if second % 20 == 0:
            price = low if (second // 20) % 3 else 500.0
            told.append(ev.SignalChanged("price", (), price, True))
        before = state.ledger.point.tolist()
        state, commands, _ = step(state, [*told, *world.poll()], world.now_s)
        told = [event for one in commands for event in world.carry(one)]
        after = state.ledger.point.tolist()
        if before and before[0] >= 0 and (before[0] > 0) != (after[0] > 0):
            turned.append((world.now_s, after[0] > 0))
    assert float(state.ladder.cycle_usd[0]) == 0.0
    assert len(turned) > 6
    for (begun_s, ran), (ended_s, _) in itertools.pairwise(turned):
        assert ended_s - begun_s >= (60.0 if ran else 90.0) - 1.5, turned


def test_a_price_is_trusted_no_longer_for_having_woken_a_machine_long_ago() -> None:
    fleet = _fleet()
    ladder = Ladder.of(fleet, VALUES, np.ones(4, dtype=np.bool_), 3600.0)
    woken = replace(Turns.none(4), turned_s=np.zeros(4), priced=np.ones(4, dtype=np.bool_))
    # Over an hour awake loses half of a cycle, over the ten since the wake five.
    price = WORTHS[0] + ladder.cycle_usd[0] / 2.0 * 1000.0
    asked: dict[str, Any] = {"free": np.ones(4, dtype=np.bool_), "expected_s": 3600.0}
    take, _ = cycles.weigh(
        ladder, woken, price_usd_per_mwh=price, elapsed_s=1.0, now_s=36_000.0, **asked
    )
    assert take[0], "an hour is what a price is expected to hold"
    later = replace(woken, regret_usd=ladder.cycle_usd)
    take, _ = cycles.weigh(
        ladder, later, price_usd_per_mwh=price, elapsed_s=1.0, now_s=36_000.0, **asked
    )
    assert not take[0], "what it has lost is as much as a cycle"
