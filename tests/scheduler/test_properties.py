"""Invariants I1, I3, I6 and I7 over generated histories; each is shown to fail without its guard.

A history is a list of small numbers. The rig plays it against a modelled world over a wire that
loses, delays, repeats and reorders both commands and answers, and a witness judges every step.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattshift_cluster.simulate import witness
from wattshift_cluster.simulate.agents import ModelledAgent
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler import leases, moves, reducers
from wattshift_scheduler import step as core
from wattshift_scheduler.commands import Command, GrantLeases
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals import Cap
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.values import Values

LIMIT_W = 6500.0
SETTLE_S = 45
"""Quiet seconds at the end of a history: a lease's life, a ramp, and time to notice trouble."""


def _asic(name: str, agent: str, feeder: str, *, continuous: bool = False) -> Device:
    rows = [("sleep", 30.0, 0.0), ("mid", 1000.0, 50e12), ("top", 2000.0, 90e12)]
    points = tuple(OperatingPoint(mode, w, h, 3.0) for mode, w, h in rows)
    return Device(name, "asic", agent, feeder, points, 2000.0, 0.05, continuous)


def _gate(name: str, agent: str, feeder: str, host: str | None) -> Device:
    points = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", 150.0, 1e9, 0.01))
    return Device(name, "cpu", agent, feeder, points, 150.0, 0.0, True, True, 0.0, 0.0, host)


DEVICES = (
    _asic("a0", "left", "west"),
    _asic("a1", "left", "west"),
    _gate("g0", "left", "west", "host"),
    _asic("a2", "right", "east", continuous=True),
    _asic("a3", "right", "east"),
    _gate("g1", "right", "east", None),
)
JOBS = (
    Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0),
    Job("svc", JobKind.SERVICE, "svc", {}, 0.0, unit_w=100.0, max_units=2, value_usd_per_h=9.0),
    Job("bat", JobKind.BATCH, "bat", {}, 0.0, unit_w=80.0, value_usd_per_h=1.0),
)
VALUES = Values(45.0, 0.0, 120.0, 50.0)


def _site() -> Site:
    feeders = [
        Feeder("main", None, LIMIT_W),
        Feeder("west", "main", 3800.0),
        Feeder("east", "main", 3300.0),
    ]
    rules = Rules(other_load_w=100.0, scale_down_after_s=8.0)
    return Site("rig", FeederTree.of(feeders), (Node("host", "west", 280.0),), rules)


@dataclass(slots=True)
class Controller:
    """One controller on its own end of the wire."""

    state: State
    inbox: list[tuple[int, ev.Event]] = field(default_factory=list)


@dataclass(slots=True)
class Rig:
    """A world, one or two controllers, a bad wire, and what the witness has found."""

    seed: int
    world: World = field(init=False)
    rng: random.Random = field(init=False)
    lead: Controller = field(init=False)
    ghost: Controller | None = None
    turn: int = 0
    loss: float = 0.0
    epochs: int = 0
    cap_w: float = LIMIT_W
    price: float | None = None
    load: float = 0.5
    conforming: bool = True
    outbox: list[tuple[int, Controller, Command]] = field(default_factory=list)
    stamps: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world = World.of(_site(), DEVICES, JOBS, self.seed)
        self.rng = random.Random(self.seed)
        self.start()

    def start(self) -> None:
        """A controller starts with a new epoch, its journal's inventory, and all caps told anew."""
        self.epochs += 1
        self.lead = Controller(initial(self.world.site, VALUES, self.epochs))
        self._tell(self.world.joined(), *(ev.JobSubmitted(job) for job in JOBS))
        self._signal()

    def _tell(self, *told: ev.Event) -> None:
        self.lead.inbox += [(self.turn, event) for event in told]

    def _signal(self) -> None:
        caps = (Cap("cap", "schedule", self.cap_w),)
        self._tell(ev.SignalChanged("s", caps), ev.SignalChanged("p", (), self.price, True))

    def play(self, history: list[tuple[int, int]]) -> list[str]:
        """Play a history to its end, then let the world calm down; what the witness has found."""
        for action, number in history:
            name, do = ACTIONS[action % len(ACTIONS)]
            do(self, number)
            for _ in range(1 + number % 4):
                self.pass_second()
            if self.found:
                return [f"{line} (after {name}, turn {self.turn})" for line in self.found]
        self.calm()
        return self.found

    def calm(self) -> None:
        """Mend everything; the site must then come under its cap and stay there."""
        self.loss, self.ghost = 0.0, None
        for agent in self.world.agents.values():
            agent.silent = False
            if agent.dead:
                agent.revive()
        for one in self.world.devices.values():
            if one.foreign or one.ignores:
                one.foreign = one.ignores = False
                one.write_safe()
            one.unreadable = one.blind = False
        self.world.meter_lost = False
        for second in range(SETTLE_S + 10):
            self.pass_second()
            now_w = float(self.world.feeder_w()[0])
            short = self.lead.state.outlook.shortfall_w > 0.5
            if second > SETTLE_S and now_w > self.cap_w + 1.0 and not short:
                self.found.append(
                    f"I1 the site draws {now_w:.0f} W under a cap of {self.cap_w:.0f}"
                )
            if self.found:
                return

    def pass_second(self) -> None:
        """One second: the world moves, letters arrive, controllers decide."""
        self.turn += 1
        for _ in self.world.advance(float(self.turn)):
            pass
        for due, controller, command in list(self.outbox):
            if due <= self.turn:
                self.outbox.remove((due, controller, command))
                self._deliver(controller, command)
        if self.conforming:
            over_w = self.world.feeder_w() - self.world.site.tree.limit_w
            for i in np.flatnonzero(over_w > 1.0):
                self.found.append(f"I1 feeder {i} carries {over_w[i]:.0f} W too much")
        for controller in (self.ghost, self.lead):
            if controller is not None:
                self._decide(controller)

    def _hear(self, controller: Controller) -> list[ev.Event]:
        """Ask everybody; each answer may be lost, come late, or come twice."""
        for event in self.world.poll():
            fate = self.rng.random()
            if fate >= self.loss:
                controller.inbox.append((self.turn, event))
            elif fate < 0.5 * self.loss:
                late = self.turn + 1 + int(self.rng.random() * 4)
                controller.inbox.append((late, event))
                if self.rng.random() < 0.5:
                    controller.inbox.append((late + 1, event))
            elif isinstance(event, ev.AgentSeen):
                controller.inbox.append((self.turn, ev.AgentLost(event.agent, "timeout")))
        due = [event for at, event in controller.inbox if at <= self.turn]
        controller.inbox = [letter for letter in controller.inbox if letter[0] > self.turn]
        return [self._arrived(event) for event in due]

    def _arrived(self, event: ev.Event) -> ev.Event:
        """An answer is stamped with the time at which it arrives, however old it is."""
        if isinstance(event, ev.AgentSeen):
            return replace(event, received_s=float(self.turn))
        return event

    def _decide(self, controller: Controller) -> None:
        now_s, state = float(self.turn), controller.state
        for event in self._hear(controller):
            before = state
            state, _ = reducers.reduce(state, event, now_s)
            self.found += witness.lowered_blindly(before, state, event, now_s)
        kept = _copied(state)
        after, commands, told = core.decide(state, now_s)
        if _differs(kept, state):
            self.found.append("step changed the state that it was given")
        self.found += witness.over_committed(state, after, now_s)
        self.found += witness.unexplained(state, after, told)
        stamps = self.stamps.setdefault(id(controller), {})
        self.found += witness.misnumbered(after, commands, stamps)
        if controller is self.lead and self.conforming:
            self.found += witness.unsound(after, self.world, now_s)
        controller.state = after
        for command in commands:
            self._post(controller, command)

    def _post(self, controller: Controller, command: Command) -> None:
        """Send a command: it may be lost, or come late and so out of order."""
        fate = self.rng.random()
        if fate >= self.loss:
            self._deliver(controller, command)
            return
        controller.inbox.append((self.turn + 2, ev.CommandEnded(command.id, False, "timeout")))
        if fate < 0.6 * self.loss and isinstance(command, GrantLeases):
            late = self.turn + 1 + int(self.rng.random() * 5)
            self.outbox.append((late, controller, command))

    def _deliver(self, controller: Controller, command: Command) -> None:
        self.world.rng.random()
        for event in self.world.carry(command):
            fate = self.rng.random()
            if fate >= self.loss:
                controller.inbox.append((self.turn, event))
            elif fate < 0.5 * self.loss:
                controller.inbox.append((self.turn + 1 + int(self.rng.random() * 3), event))
                controller.inbox.append((self.turn + 4, event))
            else:
                lost = ev.CommandEnded(command.id, False, "timeout")
                controller.inbox.append((self.turn + 2, lost))


def _copied(state: State) -> dict[str, Any]:
    parts = {"ledger": state.ledger, "seen": state.seen}
    return {
        f"{part}.{one.name}": getattr(value, one.name).copy()
        for part, value in parts.items()
        for one in fields(value)
    }


def _differs(kept: dict[str, Any], state: State) -> bool:
    now = _copied(state)
    return any(not np.array_equal(kept[k], now[k], equal_nan=True) for k in kept if k in now)


def _cap(rig: Rig, number: int) -> None:
    rig.cap_w = LIMIT_W * (0.1 + 0.9 * (number % 10) / 9)
    rig._signal()


def _price(rig: Rig, number: int) -> None:
    rig.price = (None, -20.0, 50.0, 90.0, 110.0, 500.0)[number % 6]
    rig._signal()


def _load(rig: Rig, number: int) -> None:
    for node in rig.world.nodes.values():
        node.load = (number % 5) / 4


def _agent(rig: Rig, number: int) -> ModelledAgent:
    return rig.world.agents[("left", "right")[number % 2]]


def _silent(rig: Rig, number: int) -> None:
    agent = _agent(rig, number)
    agent.silent = not agent.silent


def _dead(rig: Rig, number: int) -> None:
    agent = _agent(rig, number)
    if agent.dead:
        agent.revive()
    else:
        agent.dead = True


def _reboot(rig: Rig, number: int) -> None:
    _agent(rig, number).reboot(rig.world.now_s)


def _blind(rig: Rig, number: int) -> None:
    one = rig.world.devices[DEVICES[number % len(DEVICES)].id]
    one.blind = not one.blind


def _unreadable(rig: Rig, number: int) -> None:
    one = rig.world.devices[DEVICES[number % len(DEVICES)].id]
    one.unreadable = not one.unreadable


def _ignores(rig: Rig, number: int) -> None:
    one = rig.world.devices[DEVICES[number % len(DEVICES)].id]
    if not one.device.fenced:
        one.ignores = not one.ignores


def _foreign(rig: Rig, number: int) -> None:
    one = rig.world.devices[DEVICES[number % len(DEVICES)].id]
    if not one.device.fenced:
        rig.conforming = False
        one.meddle()


def _wire(rig: Rig, number: int) -> None:
    rig.loss = (0.0, 0.2, 0.5, 0.8)[number % 4]


def _meter(rig: Rig, number: int) -> None:
    rig.world.meter_lost = bool(number % 2)


def _restart(rig: Rig, _number: int) -> None:
    rig.start()


def _second(rig: Rig, number: int) -> None:
    """A second controller starts while the first goes on, as after a partition."""
    if rig.ghost is None:
        rig.ghost = rig.lead
        rig.start()
    elif number % 2:
        rig.ghost = None


def _wait(rig: Rig, number: int) -> None:
    for _ in range(number % 16):
        rig.pass_second()


ACTIONS: list[tuple[str, Callable[[Rig, int], None]]] = [
    ("wait", _wait),
    ("cap", _cap),
    ("cap again", _cap),
    ("price", _price),
    ("load", _load),
    ("silence", _silent),
    ("agent dies", _dead),
    ("reboot", _reboot),
    ("blind", _blind),
    ("unreadable", _unreadable),
    ("ignores", _ignores),
    ("foreign", _foreign),
    ("wire", _wire),
    ("meter", _meter),
    ("restart", _restart),
    ("second controller", _second),
]

HISTORIES = st.lists(
    st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 99)), min_size=4, max_size=16
)


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(history=HISTORIES, seed=st.integers(0, 10_000))
def test_no_history_breaks_an_invariant(history: list[tuple[int, int]], seed: int) -> None:
    assert Rig(seed).play([(0, 12), *history]) == []


def seeded(seed: int, length: int = 14) -> list[tuple[int, int]]:
    """A history from a seed, for the runs below that must be quick and always the same."""
    rng = random.Random(seed)
    body = [(rng.randrange(len(ACTIONS)), rng.randrange(100)) for _ in range(length)]
    return [(0, 12), *body]


def first_found(seeds: range) -> str:
    """What the first seed that breaks something breaks; empty if none does."""
    for seed in seeds:
        found = Rig(seed).play(seeded(seed))
        if found:
            return found[0]
    return ""


def test_the_seeds_of_the_mutation_tests_are_clean_with_all_guards() -> None:
    assert first_found(range(12)) == ""
    assert first_found(range(35, 37)) == ""


def _as_leased(fleet: Any, ledger: Any, *_rest: Any) -> Any:
    """A device counts at its word: what it was last leased, and nothing before that."""
    return np.nan_to_num(ledger.lease_w, nan=0.0)


def _stale_is_zero(
    fleet: Any, ledger: Any, seen: Any, now_s: float, stale_s: float, was: Any = leases.ceilings
) -> Any:
    """What was not read lately counts as nothing."""
    fresh = (now_s - seen.at_s <= stale_s) & ~np.isnan(seen.watts_w)
    return np.where(fresh, was(fleet, ledger, seen, now_s, stale_s), 0.0)


def _obeyed_unseen(fleet: Any, ledger: Any, *_rest: Any) -> Any:
    """Every granted device is taken to obey."""
    held = ledger.point >= 0
    bound_w = np.where(held, ledger.lease_w, ledger.bound_w)
    return replace(ledger, confirmed=held, bound_w=bound_w)


def _nan_is_zero(
    fleet: Any, ledger: Any, seen: Any, now_s: float, stale_s: float, was: Any = leases.confirm
) -> Any:
    """A reading without watts is taken for a reading of nothing."""
    zeroed = replace(seen, watts_w=np.nan_to_num(seen.watts_w, nan=0.0), failed=seen.failed & False)
    return was(fleet, ledger, zeroed, now_s, stale_s)


def _any_answer(
    ledger: Any,
    columns: Any,
    _sequence: Any,
    accepted: Any,
    now_s: float,
    was: Any = leases.answered,
) -> Any:
    """An answer to any lease counts as one to the newest."""
    return was(ledger, columns, ledger.sequence[columns], accepted | True, now_s)


def _believed_at_once(
    ledger: Any, columns: Any, point: Any, held_w: Any, now_s: float, was: Any = leases.adopted
) -> Any:
    """A lease of an earlier controller bounds its device before our epoch has been taken."""
    strange = ledger.point[columns] < 0
    new = was(ledger, columns, point, held_w, now_s)
    new.held_w[columns[strange]] = np.nan_to_num(held_w[strange], nan=0.0)
    new.acked[columns[strange]] = True
    return new


def _unnumbered(ledger: Any, *args: Any, was: Any = leases.granted, **named: Any) -> Any:
    return replace(was(ledger, *args, **named), sequence=ledger.sequence)


def _nothing_lowered(state: Any, wanted: Any, was: Any = moves.target, **named: Any) -> Any:
    target = was(state, wanted, **named)
    held_w = state.ledger.lease_w
    keep = (state.ledger.point >= 0) & (target.watts_w < held_w)
    return replace(
        target,
        point=np.where(keep, state.ledger.point, target.point),
        watts_w=np.where(keep, held_w, target.watts_w),
    )


def _careless(
    self: Any, command: Any, row: int, now_s: float, was: Any = ModelledAgent._taken
) -> Any:
    """An agent that has forgotten every epoch and sequence."""
    self.epoch = 0
    for one in self.devices.values():
        one.last = (0, 0)
    return was(self, command, row, now_s)


MUTATIONS: list[tuple[str, Any, str, Any, str]] = [
    ("raise without room", moves, "fit_prefix", lambda *a: np.ones(len(a[1]), bool), "I1"),
    ("ceiling is the lease", leases, "ceilings", _as_leased, "I1"),
    ("unknown is zero", leases, "ceilings", _stale_is_zero, "I1"),
    ("nothing is lowered", moves, "target", _nothing_lowered, "I1"),
    ("confirmed unseen", leases, "confirm", _obeyed_unseen, "I3"),
    ("NaN watts confirm", leases, "confirm", _nan_is_zero, "I3"),
    ("any answer counts", leases, "answered", _any_answer, "I3"),
    ("found lease believed", leases, "adopted", _believed_at_once, "I3"),
    ("agent forgets epochs", ModelledAgent, "_taken", _careless, "I"),
    ("sequence stands still", leases, "granted", _unnumbered, "I6"),
    ("moves untold", moves, "_told", lambda *_: (), "I7"),
    ("verdicts untold", core.compute, "_explain", lambda *_: (), "I7"),
    ("cap untold", core, "_cap_told", lambda *_: (), "I7"),
    ("state shared", leases, "_copy", lambda ledger: ledger, "step changed"),
]


@pytest.mark.parametrize(
    ("where", "name", "mutant", "broken"),
    [row[1:] for row in MUTATIONS],
    ids=[row[0] for row in MUTATIONS],
)
def test_without_its_guard_the_invariant_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any, broken: str
) -> None:
    monkeypatch.setattr(where, name, mutant)
    # The first seed that shows it is low for all but one; both ranges are clean with all guards.
    seeds = range(35, 45) if mutant is _nan_is_zero else range(20)
    assert first_found(seeds).startswith(broken)
