"""The cost of a cycle: no price flaps machines, no cap waits for wear, order by horizon."""

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.decisions import Decision, Moves
from wattshift_scheduler.errors import SiteInvalid
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.ladder import cycles
from wattshift_scheduler.ladder.allocate import allocate
from wattshift_scheduler.ladder.cycles import Turns
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.signals.arbitrate import Arbitrated, arbitrate, lasts_s
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

TREE = FeederTree.of([Feeder("main", None, 1e6)])
RULES = Rules(margin_share=0.0)
HASHES = 1e15
WORTH_USD_PER_MWH = 100.0
"""One machine: 1 PH/s, 1 kW, 2.40 USD a day. A MWh of it is worth 100 USD."""
VALUES = Values(2.4, 0.0, 0.0, 10.0)
BOOT_S = 36.0
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)


def _rig(name: str, wear: float = 0.0, worth: float = WORTH_USD_PER_MWH, **named: Any) -> Device:
    """A machine that sleeps at 0 W or draws 1 kW, worth `worth` USD/MWh before energy."""
    hashes = HASHES * worth / WORTH_USD_PER_MWH
    points = (OperatingPoint("sleep", 0.0, 0.0, 1.0), OperatingPoint("run", 1000.0, hashes, BOOT_S))
    named = {"tolerance": 0.0, "wear_usd_per_cycle": wear, **named}
    return Device(name, "asic", "a", "main", points, 1000.0, **named)


@dataclass(slots=True)
class Rigs:
    """A site of machines that obey at once, asked once in a while."""

    devices: tuple[Device, ...]
    rules: Rules = RULES
    period_s: float = 30.0
    now_s: float = 0.0
    state: State = field(init=False)
    owed: list[ev.Event] = field(default_factory=list)
    told: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = initial(Site("s", TREE, (), self.rules), VALUES, 1)
        self.owed = [ev.DeviceJoined(self.devices), ev.JobSubmitted(MINE)]
        for _ in range(4):
            self.pass_time(0.0)

    def pass_time(self, price: float | None, *events: ev.Event) -> None:
        """One period at a price."""
        self.now_s += self.period_s
        for _ in range(2):  # the grants, and their answers
            told = [*self.owed, ev.AgentSeen("a", "boot", self.now_s, self.now_s), self._read()]
            told += [ev.SignalChanged("price", (), price, True), *events]
            self.state, commands, why = step(self.state, told, self.now_s)
            for one in why:
                self.told += one.rows() if isinstance(one, Moves) else [one]
            self.owed = [self._taken(c) for c in commands if isinstance(c, GrantLeases)]

    def _read(self) -> ev.Readings:
        n = len(self.devices)
        drawn_w = self.state.ledger.lease_w if len(self.state.fleet) else np.zeros(n)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        ids, at_s = tuple(d.id for d in self.devices), np.full(n, self.now_s)
        drawn_w = np.nan_to_num(drawn_w)
        return ev.Readings(ids, at_s, drawn_w, nan, nan, nan, nan, ("",) * n, no, no)

    def _taken(self, command: GrantLeases) -> ev.LeasesReplied:
        yes = np.ones(len(command.devices), dtype=np.bool_)
        none = ("",) * len(yes)
        return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, none)

    @property
    def running(self) -> list[str]:
        return [d.id for d, p in zip(self.devices, self.state.ledger.point, strict=True) if p > 0]

    def words(self, device: str) -> list[str]:
        return [f"{d.action}: {d.reason}" for d in self.told if d.subject == device]


def _cycle_usd(wear: float) -> float:
    """Wear, and the hashes of a boot: 0.1 USD/h for a hundredth of an hour."""
    return wear + 0.1 * BOOT_S / 3600.0


PRICES = st.lists(st.tuples(st.floats(0, 400), st.integers(1, 40)), min_size=2, max_size=40)


def _flapped(prices: list[tuple[float, int]], wear: float) -> int:
    """Play prices, each for some half minutes, and count sleeps.

    From a wake to the next sleep lies the time in which sleep pays for a cycle, at the worst price
    since that wake.
    """
    fleet, cost, runs = Fleet.of([_rig("rig", wear)], TREE), _cycle_usd(wear), True
    ladders = {
        awake: Ladder.of(fleet, VALUES, np.array([awake]), 3600.0) for awake in (True, False)
    }
    turns, now_s, woke_s, worst_usd_per_h, sleeps = Turns.none(1), 0.0, -math.inf, 0.0, 0
    free = np.array([True])
    for price, periods in prices:
        for _ in range(periods):
            now_s += 30.0
            worst_usd_per_h = max(worst_usd_per_h, (price - WORTH_USD_PER_MWH) / 1000.0)
            take, turns = cycles.weigh(
                ladders[runs],
                turns,
                price_usd_per_mwh=price,
                free=free,
                expected_s=3600.0,
                elapsed_s=30.0,
                now_s=now_s,
            )
            was, runs = runs, bool(take[0])
            turns = cycles.turned(turns, np.array([int(was)]), take.astype(np.int64), ~take, now_s)
            if runs and not was:
                woke_s, worst_usd_per_h = now_s, 0.0
            if was and not runs:
                saved = worst_usd_per_h * (now_s - woke_s) / 3600.0
                assert saved >= cost * (1 - 1e-9), f"slept after {now_s - woke_s} s"
                sleeps += 1
    return sleeps


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(prices=PRICES, wear=st.floats(0.001, 1.0))
def test_a_flapping_price_costs_at_most_one_cycle_in_a_pay_back_time(
    prices: list[tuple[float, int]], wear: float
) -> None:
    _flapped(prices, wear)


@pytest.mark.parametrize("guard", ["trust", "cost"])
def test_without_its_guard_a_flapping_price_flaps_machines(
    monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    def forgetful(turns: Turns, *rest: Any, was: Any = cycles.turned) -> Turns:
        after: Turns = was(turns, *rest)
        return replace(after, priced=np.zeros(len(turns.priced), dtype=np.bool_))

    def free(ladder: Ladder, *rest: Any, was: Any = cycles.weigh, **named: Any) -> Any:
        return was(replace(ladder, cycle_usd=np.zeros(len(ladder.cycle_usd))), *rest, **named)

    flapping = [(price, 1) for price in [300.0, 10.0] * 60]
    # 0.101 USD at 0.20 USD/h: half an hour, so an hour of flapping has room for two.
    assert _flapped(flapping, 0.1) == 2
    monkeypatch.setattr(cycles, *{"trust": ("turned", forgetful), "cost": ("weigh", free)}[guard])
    with pytest.raises(AssertionError, match="slept after 30"):
        _flapped(flapping, 0.1)


def test_a_whole_site_does_not_follow_a_flapping_price() -> None:
    site = Rigs(tuple(_rig(f"r{i}", 0.1) for i in range(3)))
    for price in [300.0, 10.0] * 20:
        site.pass_time(price)
    moves = [d.action for d in site.told if d.subject == "r1" and d.action in ("shed", "restore")]
    assert moves.count("shed") == 1
    assert site.running == ["r0", "r1", "r2"]


def test_a_price_just_around_the_break_even_turns_nothing_however_long_it_flaps() -> None:
    one = Rigs((_rig("rig", 0.05),))
    for price in [WORTH_USD_PER_MWH + 4, WORTH_USD_PER_MWH - 4] * 120:
        one.pass_time(price)
        assert one.running == ["rig"]


def test_what_stays_asleep_or_awake_never_loses_more_than_the_cycle_would_cost() -> None:
    one = Rigs((_rig("rig", 0.01),))
    cost = _cycle_usd(0.01)
    _wait_for(one, 110.0, [], cost, 0.01)
    one.pass_time(90.0)
    assert one.running == ["rig"], "it had run for long, so it expects to"
    for _ in range(2):
        one.pass_time(1000.0)
    assert one.running == [], "but this time it ran for a minute"
    _wait_for(one, 90.0, ["rig"], cost, 0.01)


def _wait_for(one: Rigs, price: float, end: list[str], cost: float, usd_per_h: float) -> None:
    lost, step_usd = 0.0, usd_per_h * one.period_s / 3600.0
    while one.running != end:
        one.pass_time(price)
        lost += step_usd
        assert lost <= cost + 2 * step_usd
    assert lost >= cost


def test_a_clear_and_lasting_price_is_followed_at_once() -> None:
    one = Rigs((_rig("rig", 0.05),))
    one.pass_time(WORTH_USD_PER_MWH + 60.0)
    assert one.running == []


def test_an_unknown_price_puts_to_sleep_whatever_a_cycle_costs() -> None:
    one = Rigs((_rig("rig", 500.0),))
    one.state = replace(one.state, values=replace(VALUES, default_price_usd_per_mwh=None))
    one.pass_time(None)
    assert one.running == []


@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(
    wears=st.lists(st.floats(0.0, 50_000.0), min_size=2, max_size=5),
    caps_w=st.lists(st.integers(0, 5500), min_size=1, max_size=4),
    ends=st.booleans(),
    price=st.floats(-50, 300),
)
def test_a_cap_is_obeyed_whatever_the_wear(
    wears: list[float], caps_w: list[int], ends: bool, price: float
) -> None:
    site = Rigs(tuple(_rig(f"r{i}", wear) for i, wear in enumerate(wears)))
    for cap_w in caps_w:
        cap = Cap("c", "grid", float(cap_w), None, site.now_s + 90.0 if ends else None)
        site.pass_time(price, ev.SignalChanged("grid", (cap,)))
        assert len(site.running) * 1000.0 <= cap_w
        assert not site.state.outlook.shortfall_w


def test_of_two_equal_machines_the_one_with_less_wear_is_shed_first() -> None:
    for worn in (("dear", "cheap"), ("cheap", "dear")):
        site = Rigs(tuple(_rig(name, 0.4 if name == "dear" else 0.1) for name in worn))
        site.pass_time(0.0, ev.SignalChanged("grid", (Cap("c", "grid", 1500.0),)))
        assert site.running == ["dear"]
        # Nor does the other take its place: it would have to wake for that.
        for _ in range(20):
            site.pass_time(0.0)
            assert site.running == ["dear"]


def test_a_better_machine_displaces_a_running_one_only_for_more_than_both_cycles() -> None:
    for worth, displaced in ((100.15, False), (150.0, True)):
        site = Rigs((_rig("old"), _rig("new", worth=worth)))
        site.pass_time(0.0, ev.JobActed("mine", "pause"))
        only_old = replace(MINE, id="old", spec={"devices": ["old"]})
        cap = Cap("c", "grid", 1500.0)
        site.pass_time(0.0, ev.JobSubmitted(only_old), ev.SignalChanged("grid", (cap,)))
        assert site.running == ["old"]
        for _ in range(3):
            site.pass_time(0.0, ev.JobActed("mine", "resume"))
        assert site.running == (["new"] if displaced else ["old"])


def _order(devices: list[Device], awake: list[bool], horizon_s: float) -> list[int]:
    fleet = Fleet.of(devices, TREE)
    ladder = Ladder.of(fleet, VALUES, np.array(awake), horizon_s)
    return [int(device) for device in ladder.ordered.device]


def _apart(order: list[int], other: list[int]) -> set[frozenset[int]]:
    """Pairs that stand the other way round."""
    place = {device: i for i, device in enumerate(other)}
    return {frozenset((a, b)) for a, b in itertools.combinations(order, 2) if place[a] > place[b]}


FLEETS = st.lists(
    st.tuples(st.integers(50, 150), st.integers(0, 20)), min_size=2, max_size=8, unique=True
)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(fleet=FLEETS, asleep=st.booleans())
def test_the_longer_it_lasts_the_nearer_is_the_order_to_that_of_value(
    fleet: list[tuple[int, int]], asleep: bool
) -> None:
    devices = [
        _rig(f"r{i}", wear / 10.0, worth + i / 100.0) for i, (worth, wear) in enumerate(fleet)
    ]
    by_value = _order(devices, [False] * len(devices), math.inf)
    before: set[frozenset[int]] | None = None
    for horizon_s in (60.0, 600.0, 3600.0, 86_400.0, 1e13):
        apart = _apart(_order(devices, [not asleep] * len(devices), horizon_s), by_value)
        assert before is None or apart <= before
        before = apart
    assert not before


def test_a_short_event_sheds_the_cheap_cycle_and_a_long_one_the_cheap_watt() -> None:
    """0.40 USD over an hour and 1 kW is 400 USD/MWh, over four days 4."""
    devices = [_rig("new", 0.0, 110.0), _rig("old", 0.4, 100.0)]
    for ends_s, left in ((3600.0, ["old"]), (4 * 86_400.0, ["new"])):
        site = Rigs(tuple(devices))
        cap = Cap("c", "grid", 1500.0, None, site.now_s + ends_s)
        site.pass_time(0.0, ev.SignalChanged("grid", (cap,)))
        assert site.running == left


def test_the_cost_of_a_watt_is_that_of_the_design() -> None:
    """(lost value x D + restart loss + wear) / (watts x D), as the running machine ranks."""
    fleet = Fleet.of([_rig("rig", 0.3)], TREE)
    for horizon_s in (600.0, 7200.0):
        hours = horizon_s / 3600.0
        ladder = Ladder.of(fleet, VALUES, np.array([True]), horizon_s)
        watt_hours = 1000.0 * hours
        expected = (0.1 * hours + 0.1 * BOOT_S / 3600.0 + 0.3) / watt_hours * 1e6
        assert ladder.ordered.usd_per_mwh[0] == pytest.approx(expected)
        assert ladder.ordered.gross_usd_per_mwh[0] == pytest.approx(WORTH_USD_PER_MWH)
        asleep = Ladder.of(fleet, VALUES, np.array([False]), horizon_s)
        assert asleep.ordered.usd_per_mwh[0] == pytest.approx(2 * WORTH_USD_PER_MWH - expected)


def test_wear_moves_the_first_rung_alone_and_ranks_stay_in_a_devices_order() -> None:
    rows = [("sleep", 0.0, 0.0), ("low", 800.0, 0.9), ("mid", 1500.0, 1.5), ("top", 2000.0, 1.8)]
    points = tuple(OperatingPoint(m, w, h * HASHES, 30.0) for m, w, h in rows)
    device = Device("d", "asic", "a", "main", points, 2000.0, 0.0, wear_usd_per_cycle=2.0)
    fleet = Fleet.of([device], TREE)
    plain = Ladder.of(fleet, VALUES).ordered
    awake = Ladder.of(fleet, VALUES, np.array([True]), 3600.0).ordered
    asleep = Ladder.of(fleet, VALUES, np.array([False]), 3600.0)
    assert awake.point.tolist() == plain.point.tolist() == [1, 2, 3]
    np.testing.assert_allclose(awake.usd_per_mwh[1:], plain.usd_per_mwh[1:])
    assert awake.usd_per_mwh[0] > plain.usd_per_mwh[0]
    # To wake for a part of its watts is not worth a cycle: its rungs rank as the whole.
    assert asleep.ordered.point.tolist() == [1, 2, 3]
    whole = (0.18 - float(asleep.cycle_usd[0])) / 2000.0 * 1e6
    np.testing.assert_allclose(asleep.ordered.usd_per_mwh, whole)


def test_a_gate_and_whatever_is_back_within_a_second_cost_no_cycle() -> None:
    quick = replace(_rig("quick"), points=(
        OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 150.0, HASHES, 0.01),
    ))  # fmt: skip
    ladder = Ladder.of(Fleet.of([quick, _rig("slow")], TREE), VALUES)
    np.testing.assert_allclose(ladder.cycle_usd, [0.0, 0.001])
    assert ladder.holds(np.array([True, False]), math.inf)
    assert not ladder.holds(np.array([False, True]), math.inf)


def test_a_kept_machine_is_told_of_once_with_its_cost_and_its_time() -> None:
    site = Rigs((_rig("rig", 0.4),))
    for _ in range(3):
        site.pass_time(WORTH_USD_PER_MWH + 100.0)
    assert site.running == ["rig"]
    words = "a cycle costs 0.40 USD, sleep would save that back in 4.0 h"
    assert site.words("rig")[-1] == f"keep: stays at 1,000 W (run): kept awake: {words}"
    assert sum("kept" in one for one in site.words("rig")) == 1
    row = next(d for d in reversed(site.told) if d.subject == "rig")
    assert row.inputs["cycle_usd"] == pytest.approx(_cycle_usd(0.4))
    assert row.inputs["payback_s"] == pytest.approx(_cycle_usd(0.4) / 0.1 * 3600.0)
    assert row.inputs["kept"] is True


def test_a_sleeping_machine_says_what_keeps_it_asleep() -> None:
    site = Rigs((_rig("rig", 0.4),))
    plan: tuple[tuple[float, list[str]], ...]
    plan = ((2000.0, []), (60.0, ["rig"]), (60.0, ["rig"]), (9e4, []), (60.0, []))
    for price, runs in plan:
        site.pass_time(price)
        assert site.running == runs
    kept = "kept asleep: a cycle costs 0.40 USD, it would earn that back in 10.0 h"
    assert site.words("rig")[-1] == f"keep: stays at 0 W (sleep): {kept}"


def test_a_cap_resets_what_a_price_has_brought_about() -> None:
    """After an event all come back at once: it was no price that put them to sleep."""
    site = Rigs((_rig("rig", 0.4),))
    for price, runs in ((2000.0, []), (60.0, ["rig"])):
        site.pass_time(price)
        assert site.running == runs
    site.pass_time(60.0, ev.SignalChanged("grid", (Cap("c", "grid", 500.0),)))
    assert site.running == []
    site.pass_time(60.0, ev.SignalChanged("grid", ()))
    assert site.running == ["rig"]


def test_a_machine_kept_at_a_lower_point_is_told_of_once() -> None:
    points = tuple(
        OperatingPoint(mode, watts_w, hashes * HASHES, BOOT_S)
        for mode, watts_w, hashes in (("sleep", 0.0, 0.0), ("low", 800.0, 0.9), ("top", 2e3, 1.8))
    )
    rig = replace(_rig("rig", 0.4), points=points, nameplate_w=2000.0)
    site = Rigs((rig,))
    assert site.state.ledger.lease_w[0] == 2000.0
    before = len(site.words("rig"))
    site.pass_time(150.0)
    (told,) = site.words("rig")[before:]
    assert told.startswith(
        "shed: 2,000 W to 800 W (low): kept awake: a cycle costs 0.40 USD, sleep"
    )


def test_turns_follow_their_devices_through_a_changed_fleet() -> None:
    old = Fleet.of([_rig("a"), _rig("b")], TREE)
    new = Fleet.of([_rig("b"), _rig("c"), _rig("a")], TREE)
    turns = replace(Turns.none(2), regret_usd=np.array([1.0, 2.0]))
    assert turns.realigned(old, new).regret_usd.tolist() == [2.0, 0.0, 1.0]


def test_a_first_lease_is_no_turn() -> None:
    before, after = np.array([-1, -1, 0, 1, 1, 0]), np.array([1, 0, 1, 0, 2, 0])
    found = cycles.turned(Turns.none(6), before, after, np.zeros(6, dtype=np.bool_), 5.0)
    assert (found.turned_s == 5.0).tolist() == [False, False, True, True, False, False]


def test_a_machine_never_leased_counts_as_running_when_it_is_seen_to_draw() -> None:
    site = Rigs((_rig("rig"),))
    ledger = replace(site.state.ledger, point=np.array([-1]))
    for watts_w, runs in ((900.0, True), (0.0, False), (math.nan, False)):
        seen = replace(site.state.seen, watts_w=np.array([watts_w]))
        found = cycles.awake(ledger, seen, site.state.ladder.base_w, site.now_s, 5.0)
        assert found.tolist() == [runs]


def test_a_kept_machine_gives_way_to_every_other_under_a_cap() -> None:
    """Its rung ranks last: it is taken below the price, and cut before all that pay."""
    fleet = Fleet.of([_rig("kept", 0.01, 40.0), _rig("good", 0.01)], TREE)
    ladder = Ladder.of(fleet, VALUES, np.array([True, True]), 3600.0)
    for room_w, expected in ((5000.0, [1000.0, 1000.0]), (1000.0, [0.0, 1000.0])):
        found = allocate(
            fleet,
            ladder,
            TREE,
            room_w=np.array([room_w]),
            eligible=np.array([True, True]),
            credit_w=np.zeros(2),
            price_usd_per_mwh=80.0,
            take=np.array([True, True]),
        )
        assert found.watts_w.tolist() == expected


@pytest.mark.parametrize(
    ("caps", "lasts"),
    [
        ([(5.0, 0, 100)], 90.0),
        ([(5.0, 0, None)], None),
        ([(5.0, 0, 100), (4.0, 100, 300)], 290.0),
        ([(5.0, 0, 100), (6.0, 100, 300)], 90.0),
        ([(5.0, 0, 100), (4.0, 110, 300)], 90.0),
        ([(5.0, 0, 100), (5.0, 50, None)], None),
        ([(5.0, 50, 100)], None),
        ([], None),
    ],
)
def test_how_long_a_cap_lasts_follows_it_into_the_next(
    caps: list[tuple[float, float, float | None]], lasts: float | None
) -> None:
    given_caps = [Cap(f"c{i}", "grid", *row) for i, row in enumerate(caps)]
    verdict: Arbitrated = arbitrate(given_caps, 100.0, 10.0)
    assert lasts_s(given_caps, verdict, 10.0) == lasts


def test_horizons_double_so_that_an_event_costs_few_new_orders() -> None:
    found = {cycles.horizon_s(float(s), RULES) for s in range(0, 14_400, 10)}
    assert found == {60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3840.0, 7680.0}
    assert cycles.horizon_s(None, RULES) == 3600.0
    assert cycles.horizon_s(1e12, RULES) == 60.0 * 2**14


@pytest.mark.parametrize("wear", [-0.01, math.nan, math.inf, 1e9])
def test_wear_that_cannot_be_is_refused(wear: float) -> None:
    with pytest.raises(SiteInvalid, match="wear"):
        _rig("rig", wear)


@pytest.mark.parametrize("expected_s", [0.0, -1.0, math.nan, math.inf])
def test_a_price_that_is_expected_to_hold_no_time_is_refused(expected_s: float) -> None:
    with pytest.raises(SiteInvalid, match="expected_shed_s"):
        Rules(expected_shed_s=expected_s)
