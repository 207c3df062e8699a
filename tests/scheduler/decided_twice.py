"""A controller to which anything may happen, and that decides twice: as it goes on, and anew."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler import leases
from wattshift_scheduler import step as core
from wattshift_scheduler.commands import Command, GrantLeases
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.jobs import Job, JobKind, Terms
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.turn import reducers
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
        all_read = [*life.read("left"), *life.read("right"), *compute_seen(life)]
        life.turn([*life.answer(), *all_read, *(events if turn == 0 else ())])


def compute_seen(life: Life) -> list[ev.Event]:
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


def twin_of(life: Life) -> Life:
    twin = copy.copy(life)
    twin.found, twin.owed = [], list(life.owed)
    return twin
