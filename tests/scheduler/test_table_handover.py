"""A card that mines from a table makes room for compute before it comes, and takes its time after.

A modelled world of one node with two cards: their worker builds its table at the first launch, and
frees it when a lease says so; Ray gives what it is asked for at once.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattshift_scheduler import events as ev
from wattshift_scheduler import tables
from wattshift_scheduler.commands import Command, GrantLeases, SetNodePower, SetReplicas, StartJob
from wattshift_scheduler.compute import vacancy
from wattshift_scheduler.fleet import Fleet
from wattshift_scheduler.jobs import Job, JobKind, Terms
from wattshift_scheduler.ladder.ladder import Ladder
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import initial
from wattshift_scheduler.step import step
from wattshift_scheduler.turn import moves
from wattshift_scheduler.values import Values

GIB = 1 << 30
PRICE = 50.0
BUILD_S = 4.0
TREE = FeederTree.of([Feeder("main", None, 10_000.0)])
SITE = Site("s", TREE, (Node("host", "main", 1000.0, 2.0),), Rules(margin_share=0.0))
CARDS = ("gpu0", "gpu1")
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
SVC = Job(
    "svc", JobKind.SERVICE, "svc", {}, 0.0,
    unit_w=300.0, max_units=1, value_usd_per_h=9.0, terms=Terms(gpus=1.0),
)  # fmt: skip
BATCH = replace(SVC, id="bat", kind=JobKind.BATCH)


def card(name: str, table_bytes: int = 8 * GIB, build_s: float = BUILD_S) -> Device:
    """It earns 0.05 USD/h with 0.6 kW: 0.02 more than its energy."""
    points = (
        OperatingPoint("idle", 60.0, 0.0, 0.01),
        OperatingPoint("hash", 660.0, 0.0, 0.01, 0.05),
    )
    return Device(
        name, "gpu", "a", "main", points, 700.0, 0.0, True, True, 60.0, 60.0, "host",
        table_bytes=table_bytes, table_build_s=build_s,
    )  # fmt: skip


class World:
    """The node and its cards, a second at a time."""

    def __init__(self, *jobs: Job, build_s: float = BUILD_S, table_bytes: int = 8 * GIB) -> None:
        cards = tuple(card(name, table_bytes, build_s) for name in CARDS)
        self.state = initial(SITE, Values(0.0, 0.0, 0.0, PRICE), 1)
        self.now_s, self.node_w = 0.0, 0.0
        self.table_bytes, self.deaf, self.blind = table_bytes, False, False
        self.mode = dict.fromkeys(CARDS, "idle")
        self.held = dict.fromkeys(CARDS, 0)
        self.clients = dict.fromkeys(CARDS, 0)
        self.builds = self.units = 0
        self.started: list[tuple[float, dict[str, int]]] = []
        self.told: list[Any] = []
        self.owed: list[ev.Event] = [ev.DeviceJoined(cards), *(ev.JobSubmitted(j) for j in jobs)]

    def turn(self, *events: ev.Event, count: int = 1) -> list[Command]:
        sent: list[Command] = []
        for _ in range(count):
            self.now_s += 1.0
            told = [*self.owed, ev.AgentSeen("a", "boot", self.now_s, self.now_s), self._read()]
            told += [ev.ComputeSeen("host", True, self.node_w, gpus=2.0), *events]
            self.state, commands, why = step(self.state, told, self.now_s)
            self.told += [
                row for one in why for row in (one.rows() if hasattr(one, "rows") else [one])
            ]
            self.owed = [self._carry(command) for command in commands]
            self._launch()
            sent += commands
            events = ()
        return sent

    def report(self, job: str, ongoing: float = 50.0) -> ev.JobReported:
        """What runs, as Ray would say."""
        at = {"host": self.units} if self.units else {}
        return ev.JobReported(job, "running", running=self.units, ongoing=ongoing, by_node=at)

    def _read(self) -> ev.Readings:
        n = len(CARDS)
        nan, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
        held = nan if self.blind else np.array([float(self.held[c]) for c in CARDS])
        clients = np.array([float(self.clients[c]) for c in CARDS])
        at_s = np.full(n, self.now_s - 0.1)
        return ev.Readings(CARDS, at_s, nan, nan, nan, nan, nan, ("",) * n, no, no, held, clients)

    def _launch(self) -> None:
        for name, mode in self.mode.items():
            if mode == "hash" and self.table_bytes and not self.held[name]:
                self.held[name] = self.table_bytes
                self.builds += 1

    def _carry(self, command: Command) -> ev.Event:
        if isinstance(command, GrantLeases):
            for name, mode in zip(command.devices, command.modes, strict=True):
                self.mode[name] = mode
                if mode == "empty" and not self.deaf:
                    self.held[name] = 0
            yes = np.ones(len(command.devices), dtype=np.bool_)
            no_words = ("",) * len(yes)
            return ev.LeasesReplied(command.id, command.devices, command.sequence, yes, no_words)
        if isinstance(command, SetNodePower):
            self.node_w = command.watts_w
            return ev.CommandEnded(command.id, True, "", command.watts_w)
        if isinstance(command, SetReplicas | StartJob):
            self.started.append((self.now_s, dict(self.held)))
            self.units = sum(command.nodes.values())
        return ev.CommandEnded(command.id, True)

    def actions(self, name: str = "gpu0") -> list[str]:
        acts = ("empty", "fill", "not emptied")
        return [one.action for one in self.told if one.subject == name and one.action in acts]


def mined(**world: Any) -> World:
    made = World(MINE, **world)
    made.turn(count=8)
    return made


@pytest.mark.parametrize("job", [SVC, BATCH])
def test_a_unit_starts_only_when_the_readings_say_that_the_cards_are_free(job: Job) -> None:
    world = mined()
    assert world.mode == dict.fromkeys(CARDS, "hash")
    assert world.builds == 2
    sent = world.turn(ev.JobSubmitted(job))
    modes = [mode for one in sent if isinstance(one, GrantLeases) for mode in one.modes]
    assert modes == ["empty", "empty"], "asked for at once, ahead of the start"
    world.turn(count=5)
    (at_s, held), *_ = world.started
    assert held == dict.fromkeys(CARDS, 0), f"started at {at_s} with {held}"
    assert world.actions() == ["empty"]


def test_a_card_that_never_says_it_is_free_is_not_free_and_delays_a_start_by_a_bounded_time() -> (
    None
):
    world = mined()
    world.deaf = True
    asked_s = world.now_s + 1.0
    world.turn(ev.JobSubmitted(SVC), count=4)
    assert not world.started
    leases = [one for one in world.turn() if isinstance(one, GrantLeases)]
    assert leases, "it is asked again"
    world.turn(count=5)
    ((at_s, held),) = world.started
    assert at_s - asked_s == SITE.rules.stale_after_s
    assert held["gpu0"], "the hand-over at the gate is left to free it"
    assert world.actions() == ["empty", "not emptied"]


def test_a_reading_that_lacks_the_figure_is_no_free_card() -> None:
    world = mined()
    world.blind = True
    world.turn(ev.JobSubmitted(SVC), count=4)
    assert not world.started
    world.blind = False
    world.turn(count=2)
    assert world.started


def test_a_reading_from_before_the_need_is_no_free_card() -> None:
    """The worker may have begun a table since: what was read with an open gate says nothing."""
    world = World(MINE)
    world.turn()  # its first leases are not granted yet: all that was read says "nothing held"
    state = world.state
    fleet, ledger = state.fleet, state.ledger
    assert (state.tables.held_bytes == 0).all()
    asked = replace(state.tables, wanted_s=np.full(2, world.now_s))
    ledger = replace(ledger, point=np.zeros(2, dtype=np.int64), acked=np.ones(2, dtype=np.bool_))
    assert not asked.vacant(fleet, ledger, world.now_s + 0.1, 5.0).any()
    later = replace(asked, read_s=np.full(2, world.now_s + 1.0))
    assert later.vacant(fleet, ledger, world.now_s + 1.1, 5.0).all()
    raised = replace(ledger, point=np.ones(2, dtype=np.int64))
    assert not later.vacant(fleet, raised, world.now_s + 1.1, 5.0).any()
    assert not later.vacant(fleet, ledger, world.now_s + 9.0, 5.0).any(), "too old"


def test_a_job_without_gpus_and_a_device_without_a_table_are_left_alone() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(replace(SVC, terms=Terms())), count=6)
    assert world.started
    assert world.mode == dict.fromkeys(CARDS, "hash")
    plain = mined(table_bytes=0)
    plain.turn(ev.JobSubmitted(SVC), count=6)
    assert plain.started
    assert plain.mode == dict.fromkeys(CARDS, "hash")


def test_a_card_that_no_replica_marks_mines_on() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=4)
    for _ in range(10):
        world.turn(world.report("svc"))
    assert world.mode == dict.fromkeys(CARDS, "empty"), "nobody says where the replica is"
    world.clients["gpu1"] = 2
    for _ in range(16):
        world.turn(world.report("svc"))
    assert world.mode == {"gpu0": "hash", "gpu1": "empty"}
    assert world.actions() == ["empty", "fill"]


def gone(world: World, seconds: int) -> None:
    """The unit is over; nobody comes for so long."""
    world.units = 0
    world.turn(ev.JobActed("svc", "pause"), count=1)
    for _ in range(seconds):
        world.turn(world.report("svc", 0.0))


def back(world: World, seconds: int) -> None:
    """The unit comes, and serves for so long."""
    world.turn(ev.JobActed("svc", "resume"), count=1)
    for _ in range(seconds):
        world.turn(world.report("svc"))


def test_a_service_that_comes_and_goes_does_not_rebuild_a_table_each_time() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 10)
    for _ in range(4):
        gone(world, 6)
        back(world, 6)
    assert world.builds == 2, "those of the beginning"
    assert world.actions() == ["empty"]


def test_an_absence_that_lasts_brings_the_table_back_once_waiting_has_cost_as_much() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 4)
    gone(world, 8)
    assert world.mode["gpu0"] == "empty"
    gone(world, 8)
    assert world.mode["gpu0"] == "hash"
    assert world.builds == 4
    fill = next(one for one in world.told if one.action == "fill")
    assert 9.0 <= fill.inputs["quiet_s"] <= 13.0, "4 s at 0.05 USD/h are 10 s at 0.02"
    assert fill.inputs["table_bytes"] == 8 * GIB
    assert "may be built again" in fill.reason


def test_the_length_of_the_last_absence_is_what_the_next_is_thought_to_last() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 3)
    gone(world, 12)
    back(world, 3)
    assert world.actions() == ["empty", "fill", "empty"], "the first may last for ever"
    gone(world, 12)
    back(world, 3)
    assert world.actions() == ["empty", "fill", "empty"], "3 s would be left, 4 s to build"
    gone(world, 18)
    assert world.actions()[-1] == "fill", "it has lasted longer than the last"


def test_energy_dearer_than_its_hashes_never_brings_a_table_back() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 5)
    world.turn(ev.SignalChanged("price", (), 500.0, True))
    gone(world, 25)
    assert world.builds == 2
    assert world.mode["gpu0"] == "empty"


def test_carbon_that_the_operator_prices_counts_in_what_waiting_costs() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 5)
    values = replace(world.state.values, carbon_usd_per_t=125.0)
    world.state = replace(world.state, values=values)
    world.turn(ev.CarbonSeen(400.0))
    gone(world, 25)
    assert world.actions() == ["empty"], "50 USD/MWh for energy and 50 for its carbon"


def test_a_controller_that_starts_anew_takes_an_emptied_card_over_as_it_is() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=6)
    fresh = initial(SITE, Values(0.0, 0.0, 0.0, PRICE), 2)
    told = replace(world._read(), held_mode=("empty", "idle"), held_w=np.full(2, 60.0))
    cards = ev.DeviceJoined(tuple(card(name) for name in CARDS))
    fresh, _, _ = step(fresh, [cards, told], world.now_s)
    assert fresh.ledger.point.tolist() == [0, 0]


def test_a_table_to_build_costs_a_first_rung_what_is_not_earned_meanwhile() -> None:
    fleet = Fleet.of([card("gpu0")], TREE)
    values, rests, cold = Values(0.0, 0.0, 0.0, PRICE), np.array([False]), np.array([True])
    warm = Ladder.of(fleet, values, rests, 3600.0, ~cold)
    first = Ladder.of(fleet, values, rests, 3600.0, cold)
    lost_usd = 0.05 * BUILD_S / 3600.0
    assert first.cycle_usd[0] == pytest.approx(lost_usd)
    ranks = warm.ordered.usd_per_mwh[0], first.ordered.usd_per_mwh[0]
    assert ranks[0] - ranks[1] == pytest.approx(lost_usd / 600.0 * 1e6)
    assert first.ordered.gross_usd_per_mwh[0] == warm.ordered.gross_usd_per_mwh[0]
    running = Ladder.of(fleet, values, ~rests, 3600.0, cold)
    assert running.cycle_usd[0] == 0.0, "to idle frees nothing, and costs nothing"
    assert not first.holds(rests, 3600.0, ~cold)
    assert first.holds(rests, 3600.0, cold)


def test_a_price_that_would_not_pay_for_the_table_builds_none() -> None:
    world = World(MINE, build_s=1800.0)
    world.turn(ev.SignalChanged("price", (), 82.0, True), count=20)
    assert world.builds == 0, "half an hour of 0.05 USD/h for an hour of 0.0008"
    world.turn(ev.SignalChanged("price", (), 5.0, True), count=3)
    assert world.builds == 2


history = st.lists(
    st.tuples(st.sampled_from(["come", "go", "deaf", "blind", "dear", "cheap"]), st.integers(1, 9)),
    max_size=8,
)


@settings(max_examples=10, deadline=None)
@given(history)
def test_no_history_starts_a_unit_on_a_card_that_was_not_seen_free(acts: list[Any]) -> None:
    assert played(acts) == ""


def played(acts: list[tuple[str, int]]) -> str:
    """What a history breaks; empty if nothing. A start beside a table has waited its full time."""
    world = World(MINE, replace(SVC, held=True))
    world.turn()
    for act, seconds in [("wait", 6), *acts]:
        match act:
            case "come":
                world.turn(ev.JobActed("svc", "resume"))
            case "go":
                world.units = 0
                world.turn(ev.JobActed("svc", "pause"))
            case "deaf" | "blind":
                setattr(world, act, not getattr(world, act))
            case "dear" | "cheap":
                price = 500.0 if act == "dear" else 1.0
                world.turn(ev.SignalChanged("price", (), price, True))
        for _ in range(seconds):
            known = len(world.started)
            world.turn(world.report("svc"))
            asked_s = world.state.tables.wanted_s.max()
            for at_s, held in world.started[known:]:
                hurried = at_s - asked_s < SITE.rules.stale_after_s
                if world.units and hurried and any(held.values()):
                    return f"at {at_s} beside {held}, {act}"
    return ""


def test_that_property_is_lost_without_its_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacancy, "waits", lambda state, now_s: frozenset())
    assert played([("deaf", 1), ("come", 9)])


def test_a_card_would_flap_without_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_pays", lambda fleet, *_: np.ones(len(fleet), dtype=np.bool_))
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=3)
    back(world, 5)
    gone(world, 5)
    back(world, 5)
    gone(world, 5)
    assert world.builds > 4


def test_a_lease_that_was_not_obeyed_would_not_be_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moves, "_held_tables", lambda state, now_s: np.zeros(2, dtype=np.bool_))
    world = mined()
    world.turn(ev.SignalChanged("price", (), 500.0, True), count=3)
    assert world.mode["gpu0"] == "idle"
    assert world.held["gpu0"], "an idle card keeps its table"
    world.turn(ev.JobSubmitted(SVC), count=2)
    assert world.mode["gpu0"] == "idle", "its watts stay the same, so no change would tell"


def test_an_agent_that_offers_a_table_no_more_is_not_asked_to_empty_it() -> None:
    world = mined()
    world.turn(ev.JobSubmitted(SVC), count=6)
    assert world.mode["gpu0"] == "empty"
    world.turn(ev.DeviceJoined(tuple(card(name, 0) for name in CARDS)), count=2)
    assert world.mode["gpu0"] == "hash"
