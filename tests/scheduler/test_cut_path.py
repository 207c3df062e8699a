"""A decision that starts from what the last one left equals one that works everything out anew."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest

from wattshift_scheduler import budget, carried, leases, reducers, upkeep
from wattshift_scheduler import events as ev
from wattshift_scheduler import step as core
from wattshift_scheduler.commands import Command, Granted, GrantLeases
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.jobs import Job, JobKind, Terms
from wattshift_scheduler.picked import Later, Picked, PickedLater
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.values import Values


def _asic(name: str, agent: str, feeder: str, *, continuous: bool = False) -> Device:
    rows = [("sleep", 30.0, 0.0), ("mid", 1000.0, 50e12), ("top", 2000.0, 90e12)]
    points = tuple(OperatingPoint(mode, w, h, 2.0) for mode, w, h in rows)
    return Device(
        name, "asic", agent, feeder, points, 2000.0, 0.05, continuous, wear_usd_per_cycle=0.002
    )


def _card(name: str, agent: str, table_bytes: int = 0) -> Device:
    points = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 200.0, 4e12, 0.01))
    return Device(
        name, "gpu", agent, "west", points, 200.0, 0.0, True, True, 0.0, 0.0, "host",
        table_bytes=table_bytes, table_build_s=5.0,
    )  # fmt: skip


DEVICES = (
    _asic("a0", "left", "west"),
    _card("g0", "right"),
    _asic("a1", "left", "east", continuous=True),
    _asic("a2", "right", "east"),
    _card("g1", "left", 1 << 30),
)
LATER = (_asic("a3", "third", "west"), _card("g2", "third"))
MINING = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)
SERVICE = Job(
    "svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=100.0, max_units=2, terms=Terms(gpus=1.0)
)
FEEDERS = (
    Feeder("main", None, 5600.0),
    Feeder("west", "main", 3300.0),
    Feeder("east", "main", 3000.0),
)
SITE = Site("s", FeederTree.of(FEEDERS), (Node("host", "west", 300.0, 1.0),), Rules(stagger_s=6.0))
VALUES = Values(45.0, 0.0, 120.0, 50.0)


def differences(fast: core.Stepped, plain: core.Stepped) -> Iterator[str]:
    """What of state, commands and decisions is not the same, bit for bit."""
    for one in fields(State):
        if one.name not in ("carried", "ladder"):
            yield from _unequal(one.name, getattr(fast[0], one.name), getattr(plain[0], one.name))
    yield from _unequal("commands", _said(fast[1]), _said(plain[1]))
    yield from _unequal("decisions", _told(fast[2]), _told(plain[2]))


def _unequal(name: str, one: Any, other: Any) -> Iterator[str]:
    if one is other:
        return
    if isinstance(one, np.ndarray):
        if one.tobytes() != other.tobytes():
            yield f"{name}: {one} and {other}"
    elif hasattr(one, "__dataclass_fields__") and type(one) is type(other):
        for part in fields(one):
            yield from _unequal(
                f"{name}.{part.name}", *(getattr(o, part.name) for o in (one, other))
            )
    elif repr(one) != repr(other):
        yield f"{name}: {one} and {other}"


def _said(commands: tuple[Command, ...]) -> list[Any]:
    return [
        [getattr(one, part.name) for part in fields(one) if part.name not in GRANTED]
        + [list(getattr(one, name)) for name in GRANTED if isinstance(one, GrantLeases)]
        for one in commands
    ]


GRANTED = ("devices", "sequence", "modes", "watts_w")


def _told(decisions: tuple[AnyDecision, ...]) -> list[Any]:
    return [list(one.rows()) if isinstance(one, Moves) else one for one in decisions]


def _bytes(state: State) -> list[bytes]:
    tables = (state.ledger, state.seen, state.turns, state.tables)
    columns = [getattr(table, part.name) for table in tables for part in fields(table)]
    return [np.asarray(column).tobytes() for column in columns]


@dataclass(slots=True)
class Life:
    """A controller to which anything may happen, each decision made twice; what differs."""

    rng: random.Random
    now_s: float = 1000.0
    state: State = field(init=False)
    found: list[str] = field(default_factory=list)
    owed: list[GrantLeases] = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self.state = initial(SITE, VALUES, 1)
        first: list[ev.Event] = [ev.DeviceJoined(DEVICES)]
        first += [ev.JobSubmitted(MINING), ev.JobSubmitted(SERVICE)]
        self.turn([*first, *self.read("left"), *self.read("right")])

    def turn(self, events: list[ev.Event]) -> None:
        """Fold events in and decide, with what is carried and without."""
        before, now_s = self.state, self.now_s
        bytes_before = _bytes(before)
        state, told = reducers.folded(before, events, now_s)
        single, told_single = before, list[Decision]()
        for event in events:
            single, facts = reducers.reduce(single, event, now_s)
            told_single += facts
        self.found += _unequal("folded", _bytes(state), _bytes(single))
        self.found += _unequal("facts", told, told_single)
        self.started += state.carried is not None
        fast, plain = core.decide(state, now_s), core.decide(state.forgotten(), now_s)
        self.found += differences(fast, plain)
        after, stale_s = fast[0], SITE.rules.stale_after_s
        anew_w = leases.ceilings(after.fleet, after.ledger, after.seen, now_s, stale_s)
        self.found += _unequal("ceilings", after.present.facts.ceiling_w, anew_w)
        if _bytes(before) != bytes_before:
            self.found.append("the state that was given has changed")
        self.state = fast[0]
        self.owed += [one for one in fast[1] if isinstance(one, GrantLeases)]

    def live(self, turns: int) -> list[str]:
        """Let things happen until a difference is found, or so many turns are over."""
        for _ in range(turns):
            self.now_s += self.rng.choice((0.0, 0.25, 1.0, 1.0, 1.0, 2.5, 6.0, 20.0))
            self.turn([event for do in self.rng.sample(HAPPENINGS, 4) for event in do(self)])
            if self.found:
                break
        return self.found

    def read(self, agent: str) -> list[ev.Event]:
        """An agent answers and tells of its devices: most obey, some do not, some fail."""
        columns = [i for i, d in enumerate(self.state.fleet.devices) if d.agent == agent]
        ids = tuple(self.state.fleet.devices[i].id for i in columns) or ("a0",)
        lease_w = self.state.ledger.lease_w[columns] if columns else np.full(1, np.nan)
        n, draw = len(ids), self.rng.random
        factor = np.array([self.rng.choice((1.0, 1.0, 1.0, 1.2, np.nan)) for _ in ids])
        watts_w = np.where(np.isnan(lease_w), 30.0, lease_w) * factor
        return [
            ev.AgentSeen(agent, "boot", self.now_s, self.now_s),
            ev.Readings(
                devices=ids,
                at_s=np.array([self.now_s - self.rng.choice((0.1, 0.1, 3.0)) for _ in ids]),
                watts_w=watts_w,
                limit_w=np.full(n, np.nan),
                hashrate_h_per_s=np.full(n, np.nan),
                held_w=np.full(n, np.nan),
                held_for_s=np.full(n, np.nan),
                held_mode=("",) * n,
                foreign=np.array([draw() < 0.03 for _ in ids]),
                failed=np.array([draw() < 0.05 for _ in ids]),
                table_held_bytes=np.array([self.rng.choice((0.0, 1e9)) for _ in ids]),
                clients=np.array([float(draw() < 0.5) for _ in ids]),
            ),
        ]

    def answer(self) -> list[ev.Event]:
        """What is owed is answered: most is taken, some refused, some lost."""
        owed, self.owed = self.owed, []
        return [self._answered(one) for one in owed]

    def _answered(self, one: GrantLeases) -> ev.Event:
        if self.rng.random() < 0.1:
            return ev.CommandEnded(one.id, False, "timeout")
        taken = np.array([self.rng.random() < 0.95 for _ in one.devices])
        return ev.LeasesReplied(one.id, one.devices, one.sequence, taken, ("",) * len(taken))

    def reboot(self) -> list[ev.Event]:
        """An agent comes back from a reboot."""
        return [ev.AgentSeen("left", f"boot{self.now_s}", 0.0, self.now_s)] * (
            self.rng.random() < 0.1
        )

    def lost(self) -> list[ev.Event]:
        """An agent does not answer."""
        return [ev.AgentLost("right", "timeout")] * (self.rng.random() < 0.2)

    def capped(self) -> list[ev.Event]:
        """A cap, with an end or without."""
        cap = Cap("c", "schedule", self.rng.choice((1e4, 4200.0, 2500.0, 600.0)))
        ends = replace(cap, ends_s=self.now_s + 300.0)
        return [ev.SignalChanged("schedule", (self.rng.choice((cap, ends)),))]

    def priced(self) -> list[ev.Event]:
        """Another price."""
        price = self.rng.choice((None, 20.0, 60.0, 62.0, 90.0, 150.0, 800.0))
        return [ev.SignalChanged("price", (), price, True)]

    def hashed(self) -> list[ev.Event]:
        """Another hashprice."""
        price = self.rng.choice((None, 45.0, 46.0, 60.0))
        return [ev.HashpriceSeen(price, self.now_s, "feed")] * (self.rng.random() < 0.3)

    def fleet_changed(self) -> list[ev.Event]:
        """Devices come and go."""
        if self.rng.random() < 0.8:
            return []
        if "a3" in self.state.fleet.index:
            return [ev.DeviceLeft(("a3", "a0"), "sold")]
        return [ev.DeviceJoined((*LATER, DEVICES[0])), *self.read("third")]

    def job(self) -> list[ev.Event]:
        """Mining is paused or goes on; the service wants more or less."""
        action = self.rng.choice(("resume", "resume", "pause"))
        ongoing = self.rng.choice((0.0, 5.0))
        report = ev.JobReported("svc", "running", running=1, ongoing=ongoing, by_node={"host": 1})
        return [ev.JobActed("mine", action), report]

    def node(self) -> list[ev.Event]:
        """The compute node tells of itself."""
        used_w = self.rng.choice((0.0, 100.0))
        power_w = self.rng.choice((0.0, 100.0, 200.0))
        ends = [
            ev.CommandEnded(n, True) for n, s in self.state.sent.items() if s.kind != "grant_leases"
        ]
        return [*ends, ev.ComputeSeen("host", True, power_w, used_w=used_w, gpus=1.0)]


HAPPENINGS: tuple[Callable[[Life], list[ev.Event]], ...] = (
    lambda life: life.read("left"),
    lambda life: life.read("right"),
    lambda life: life.read("left"),
    Life.answer,
    Life.answer,
    Life.reboot,
    Life.lost,
    Life.capped,
    Life.priced,
    Life.hashed,
    Life.fleet_changed,
    Life.job,
    Life.node,
)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_carried_changes_no_decision(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", (0.1, 2.0)[seed % 2])
    life = Life(random.Random(seed))
    assert life.live(60) == []
    assert life.started > 50, "hardly a decision started from the one before"


class Obeying(random.Random):
    """Of all that may happen the first, usual one does."""

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def random(self) -> float:
        return 0.9


def settled() -> Life:
    """A site that has run for a while at a price that every device earns."""
    life = Life(Obeying())
    life.state = replace(life.state, jobs={"mine": life.state.jobs["mine"]})
    read(life, 12, ev.SignalChanged("price", (), 60.0, True))
    assert (life.state.ledger.point > 0).all()
    return life


def read(life: Life, turns: int, *events: ev.Event) -> None:
    """Seconds in which all agents answer and all devices obey."""
    for turn in range(turns):
        life.now_s += 1.0
        all_read = [*life.read("left"), *life.read("right"), *_node(life)]
        life.turn([*life.answer(), *all_read, *(events if turn == 0 else ())])


def _node(life: Life) -> list[ev.Event]:
    return [ev.ComputeSeen("host", True, 100.0, used_w=0.0, gpus=1.0)]


def unread(life: Life, turns: int, *events: ev.Event, every_s: float = 1.0) -> list[str]:
    """Turns in which agents say that they live and no more: what happens comes by itself."""
    heard = [ev.AgentSeen(name, "boot", life.now_s, life.now_s) for name in ("left", "right")]
    for turn in range(turns):
        life.now_s += every_s
        now = [replace(one, boot_s=life.now_s, received_s=life.now_s) for one in heard]
        life.turn([*now, *(events if turn == 0 else ())])
        if life.found:
            break
    return life.found


def a_price_that_pays_later(life: Life) -> list[str]:
    """A price a little above what the machines earn: they sleep when waiting has cost a cycle."""
    price = ev.SignalChanged("price", (), 93.0, True)
    found = unread(life, 2, price) or unread(life, 12, every_s=1200.0)
    assert found or (life.state.ledger.point == 0).any(), "the price never paid"
    return found


def a_card_that_is_needed(life: Life) -> list[str]:
    """A unit comes that needs the card of a device which keeps a table."""
    found = unread(life, 3, ev.JobSubmitted(SERVICE), *_node(life))
    assert found or life.state.tables.empty.any(), "the card was not needed"
    return found


def a_turn_that_comes(life: Life) -> list[str]:
    """A cap has gone, and feeders and hosts rise one after the other."""
    read(life, 6, ev.SignalChanged("schedule", (Cap("c", "schedule", 600.0),)))
    assert life.found or not (life.state.ledger.point > 0).all()
    found = unread(life, 9, ev.SignalChanged("schedule"))
    assert found or (life.state.ledger.point > 0).all(), "not all have had their turn"
    return found


def a_cut(life: Life) -> list[str]:
    """A cap comes, all obey it, and it goes."""
    read(life, 5, ev.SignalChanged("schedule", (Cap("c", "schedule", 2500.0),)))
    read(life, 8, ev.SignalChanged("schedule"))
    return life.found


def a_cut_that_nobody_reads(life: Life) -> list[str]:
    """A cap comes, and nothing shows that it is obeyed until gates close by themselves."""
    return unread(life, 9, ev.SignalChanged("schedule", (Cap("c", "schedule", 2500.0),)), every_s=2)


def another_hashprice(life: Life) -> list[str]:
    """Hashes are worth less than what they burn."""
    return unread(life, 2, ev.HashpriceSeen(20.0, life.now_s, "feed"))


def another_price(life: Life) -> list[str]:
    """Energy costs more than hashes bring."""
    return unread(life, 2, ev.SignalChanged("price", (), 500.0, True))


def a_pause(life: Life) -> list[str]:
    """A person pauses mining."""
    return unread(life, 2, ev.JobActed("mine", "pause"))


def more_compute(life: Life) -> list[str]:
    """The compute node holds more watts than before."""
    return unread(life, 2, ev.ComputeSeen("host", True, 300.0, used_w=300.0, gpus=1.0))


def a_silent_agent(life: Life) -> list[str]:
    """One agent says nothing any more, and a cap comes."""
    left = ev.SignalChanged("schedule", (Cap("c", "schedule", 900.0),))
    for turn in range(8):
        life.now_s += 1.0
        told = ev.AgentSeen("right", "boot", life.now_s, life.now_s)
        life.turn([told, left] if turn == 6 else [told])
    return life.found


SCENES = (
    a_price_that_pays_later,
    a_card_that_is_needed,
    a_turn_that_comes,
    a_cut,
    a_cut_that_nobody_reads,
    another_hashprice,
    another_price,
    a_pause,
    more_compute,
    a_silent_agent,
)


@pytest.fixture(scope="module")
def running() -> Life:
    """A site that runs; to be copied."""
    return settled()


def _twin(life: Life) -> Life:
    twin = copy.copy(life)
    twin.found, twin.owed = [], list(life.owed)
    return twin


@pytest.mark.parametrize("share", [0.1, 2.0])
@pytest.mark.parametrize("scene", SCENES)
def test_each_kind_of_change_is_decided_in_time(
    running: Life, scene: Callable[[Life], list[str]], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", share)
    assert scene(_twin(running)) == []


def _last(*given: Any, was: Any = upkeep._heard) -> Any:
    """Who is silent is never worked out anew."""
    state, last, now_s = given
    return last if last is not None and last.fleet is state.fleet else was(state, last, now_s)


def _silent_unseen(state: Any, last: Any, heard: Any, now_s: float, was: Any = upkeep._due) -> Any:
    """Devices of an agent that falls silent are not looked at."""
    return was(state, replace(last, heard=heard), heard, now_s)


def _room_unseen(state: Any, last: Any, heard: Any, now_s: float, was: Any = upkeep._due) -> Any:
    """Devices that make room for compute are not looked at."""
    return was(state, replace(last, emptied=state.tables.empty), heard, now_s)


def _never_due(*given: Any, was: Any = upkeep._facts) -> Any:
    """No fact changes by itself."""
    facts = was(*given)
    return replace(facts, due_s=np.full(len(facts.due_s), np.inf))


def _as_then(state: Any, was: Any = upkeep._patterns) -> Any:
    """Mining jobs are asked once."""
    return was(state) if state.carried is None else state.carried.patterns


def _bounds_then(state: Any, was: Any = budget.host_bounds_w) -> Any:
    """Compute is asked once."""
    kept = state.carried
    return kept.bounds_w if kept is not None and kept.fleet is state.fleet else was(state)


def _leased_then(state: Any, was: Any = State.leased_w) -> Any:
    """Leases are summed once."""
    return was(state) if state.carried is None else state.carried.leased_w


def _summed_then(state: Any, kept: Any, was: Any = upkeep.summed) -> Any:
    """Facts are summed once."""
    return was(state, kept) if kept.sums is None else kept.sums


def _with(change: str, value: Callable[[Any, Any], Any]) -> Any:
    """A part of what the price said before is taken for what holds now."""

    def other(self: Any, ladder: Any, turns: Any, asked: Any, rows: Any) -> Any:
        known = replace(self, **{change: value(self, (ladder, asked))})
        return OTHER(known, ladder, turns, asked, rows)

    return other


OTHER = carried.Weights.other


def _unsettled_with(**change: Callable[[Any, Any], Any]) -> Any:
    """A reason to look at a device is left out."""

    def unsettled(state: Any, view: Any, wanted: Any) -> Any:
        kept = state.present
        if kept.wanted_w is not None:
            kept = replace(kept, **{name: of(kept, wanted) for name, of in change.items()})
        return UNSETTLED(replace(state, carried=kept), view, wanted)

    return unsettled


UNSETTLED = core._unsettled
NO_ROWS = np.zeros(0, dtype=np.int64)
Scene = Callable[[Life], list[str]]
GUARDS: list[tuple[str, Scene, Any, str, Any]] = [
    ("rows are noted", a_cut, carried.Carried, "followed",
     lambda self, ledger, seen, _rows: replace(self, ledger=ledger, seen=seen)),
    ("figures come of age", a_cut_that_nobody_reads, upkeep, "_facts", _never_due),
    ("agents are heard", a_silent_agent, upkeep, "_heard", _last),
    ("silence is seen", a_silent_agent, upkeep, "_due", _silent_unseen),
    ("room is seen", a_card_that_is_needed, upkeep, "_due", _room_unseen),
    ("jobs are asked", a_pause, upkeep, "_patterns", _as_then),
    ("compute is asked", more_compute, budget, "host_bounds_w", _bounds_then),
    ("leases are summed", a_cut, State, "leased_w", _leased_then),
    ("facts are summed", a_cut, upkeep, "summed", _summed_then),
    ("the price counts", another_price, carried.Weights, "other",
     _with("price_usd_per_mwh", lambda _, now: now[1].price_usd_per_mwh)),
    ("the ladder counts", another_hashprice, carried.Weights, "other",
     _with("ladder", lambda _, now: now[0])),
    ("time counts", a_price_that_pays_later, carried.Weights, "other",
     _with("weighed", lambda kept, _: replace(kept.weighed, until_s=np.inf))),
    ("what is wanted counts", another_price, core, "_unsettled",
     _unsettled_with(wanted_w=lambda _, wanted: wanted.watts_w)),
    ("who waits counts", a_turn_that_comes, core, "_unsettled",
     _unsettled_with(moving=lambda *_: NO_ROWS)),
    ("grants raise ceilings", a_cut, upkeep, "granted",
     lambda state, raised, now_s, was=upkeep.granted: was(state, raised[:0], now_s)),
    ("columns are copied", a_cut, reducers, "_private", lambda state: state),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scene", "where", "name", "mutant"),
    [row[1:] for row in GUARDS],
    ids=[row[0] for row in GUARDS],
)
def test_without_its_guard_a_decision_is_another(
    running: Life, scene: Scene, where: Any, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MANY_SHARE", 2.0)
    monkeypatch.setattr(where, name, mutant)
    assert scene(_twin(running)) != []


def test_columns_that_somebody_else_has_replaced_are_worked_out_anew(running: Life) -> None:
    life, more_w = _twin(running), 500.0
    ledger = replace(life.state.ledger, bound_w=life.state.ledger.bound_w + more_w)
    life.state, before_w = replace(life.state, ledger=ledger), life.state.outlook.committed_w
    assert unread(life, 1) == []
    assert life.state.outlook.committed_w >= before_w + more_w


def test_a_pick_reads_as_the_texts_that_it_picks() -> None:
    column = np.array(["a", "b", "c"], dtype=np.object_)
    late = PickedLater(lambda: (column, np.array([2, 0])))
    for picked in (Picked(column, np.array([2, 0])), late):
        assert list(picked) == ["c", "a"] == [picked[0], picked[1]]
        assert picked == ("c", "a")
        assert picked != ("a", "c")
        assert picked[1:] == ["a"]
        assert len(picked) == 2
    made: list[float] = []

    def make() -> Any:
        made.append(4.0)
        return np.array(made)

    figures = Later(make)
    assert made == []
    assert (figures[0], float(np.sum(figures)), made) == (4.0, 4.0, [4.0])


def test_a_grant_of_a_batch_reads_as_one_on_its_own(running: Life) -> None:
    life, cap = _twin(running), Cap("c", "schedule", 600.0)
    now_s = life.now_s + 0.5
    events: list[ev.Event] = [ev.SignalChanged("schedule", (cap,))]
    events += [ev.AgentSeen(name, "boot", now_s, now_s) for name in ("left", "right")]
    after, commands, _ = core.step(life.state, events, now_s)
    made = [one for one in commands if isinstance(one, Granted)]
    assert len(made) == 2
    for one in made:
        assert repr(one) == repr(one.plain())
        assert len(one.devices) == len(one.sequence) == len(one.modes) == len(one.watts_w)
        assert {life.state.fleet.devices[life.state.fleet.index[d]].agent for d in one.devices} == {
            one.agent
        }
    assert len({one.id for one in made}) == len(made)
    ids = {name for one in made for name in one.devices}
    granted = np.array([device.id in ids for device in after.fleet.devices])
    assert 0 < granted.sum() < len(granted)
    before, ledger = life.state.ledger, after.ledger
    assert (ledger.issued_s == np.where(granted, now_s, before.issued_s)).all()
    assert (ledger.until_s[~granted] == before.until_s[~granted]).all()
    assert (ledger.until_s[granted] > before.until_s[granted]).all()
