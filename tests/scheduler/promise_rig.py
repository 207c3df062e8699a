"""A site with promises to the grid, played second by second, and an eye that counts each watt anew.

What is promised, what could be gone in time and what inference has of it is summed in plain loops
from readings and leases. What the eye finds wrong is text; nothing is text that is right.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wattshift_cluster.simulate import witness
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.decisions import AnyDecision, Decision, Moves
from wattshift_scheduler.forecasts.reserve import Bursts
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.promises.obligations import HELD_S
from wattshift_scheduler.signals.words import Cap, GridEvent
from wattshift_scheduler.site import Device, Feeder, FeederTree, Node, OperatingPoint, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import decide
from wattshift_scheduler.turn.reducers import folded
from wattshift_scheduler.values import Values

GATE_S = 0.1
UNIT_W = 400.0
CHEAP, DEAR = 20.0, 500.0
"""Prices at which everything earns, and at which nothing does, USD/MWh."""

VALUES = Values(50.0, 0.0, 0.0, CHEAP)
MINE = Job("mine", JobKind.MINING, "mine", {"devices": ["*"]}, 0.0)


def asic(name: str, feeder: str = "main", down_s: float = 20.0, wear_usd: float = 0.0) -> Device:
    """A machine of 3 kW with a point between."""
    rows = (("sleep", 0.0, 0.0), ("mid", 2000.0, 95e12), ("run", 3000.0, 140e12))
    points = tuple(OperatingPoint(mode, w, h, down_s) for mode, w, h in rows)
    return Device(
        name, "asic", "rack", feeder, points, 3000.0, 0.05, wear_usd_per_cycle=wear_usd
    )  # fmt: skip


def gate(name: str, feeder: str = "main", hashes: float = 1e13, top_w: float = 600.0) -> Device:
    """A card behind a gate; at 1e13 H/s it earns less than a machine."""
    points = (OperatingPoint("idle", 0.0, 0.0, 0.01), OperatingPoint("mine", top_w, hashes, 0.01))
    named: dict[str, Any] = {"fenced": True, "continuous": True}
    return Device(name, "gpu", "gpus", feeder, points, top_w, 0.0, **named)


def service(units: int) -> Job:
    return Job(
        "svc", JobKind.SERVICE, "svc", {}, 0.0,
        unit_w=UNIT_W, min_units=1, max_units=units, value_usd_per_h=5.0,
    )  # fmt: skip


def event(number: str, starts_s: float, watts_w: float, **more: Any) -> GridEvent:
    """An event of ten minutes whose notice is half an hour, if nothing else is said."""
    lasts_s, notice_s = more.pop("lasts_s", 600.0), more.pop("notice_s", 1800.0)
    ends_s = starts_s + lasts_s
    return GridEvent(number, "vtn", "dr", starts_s - notice_s, starts_s, ends_s, watts_w, **more)


@dataclass(slots=True)
class Play:
    """The site; within a second its gates and Ray answer at once, its machines as they can."""

    devices: Sequence[Device]
    limits_w: tuple[float, float, float] = (20_000.0, 15_000.0, 15_000.0)
    units: int = 0
    rules: Rules = field(default_factory=lambda: Rules(margin_share=0.0, burst_share=0.99))
    seed: int = 1
    world: World = field(init=False)
    state: State = field(init=False)
    owed: list[ev.Event] = field(default_factory=list)
    told: list[AnyDecision] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        main_w, west_w, east_w = self.limits_w
        tree = FeederTree.of(
            [Feeder("main", None, main_w), Feeder("west", "main", west_w),
             Feeder("east", "main", east_w)]
        )  # fmt: skip
        nodes = (Node("host", "main", self.units * UNIT_W),) if self.units else ()
        site = Site("s", tree, nodes, self.rules, tuple({one.agent for one in self.devices}))
        jobs = (MINE, service(self.units)) if self.units else (MINE,)
        self.world = World.of(site, self.devices, jobs, self.seed)
        self.state = initial(site, VALUES, 1)
        self.owed = [self.world.joined(), *(ev.JobSubmitted(job) for job in jobs)]

    @property
    def now_s(self) -> float:
        return self.world.now_s

    def hear(self, *events: ev.Event) -> None:
        self.owed += events

    def price(self, usd_per_mwh: float | None) -> None:
        self.hear(ev.SignalChanged("price", (), usd_per_mwh, True))

    def cap(self, watts_w: float | None) -> None:
        caps = () if watts_w is None else (Cap("c", "operator", watts_w),)
        self.hear(ev.SignalChanged("operator", caps))

    def promise(self, *events: GridEvent) -> None:
        self.hear(ev.SignalChanged("vtn", events=events))

    def wants(self, units: int) -> None:
        """So many replicas are wanted from now on."""
        for node in self.world.nodes.values():
            node.load = units / max(self.units, 1)

    def bursts(self, units: int) -> None:
        """The controller has seen some bursts of so many replicas."""
        seen = Bursts()
        for i, there in enumerate([1, 1 + units] * 5 + [1]):
            seen = seen.noted({"svc": (there, UNIT_W)}, 30.0, 0.99, i * 60.0 - 2000.0)
        self.state = replace(self.state, bursts=seen)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            for _ in self.world.advance(self.now_s + 1.0):
                pass
            told, self.owed = [*self.owed, *self.world.poll()], []
            for _ in range(6):
                before, _ = folded(self.state, told, self.now_s)
                self.state, commands, why = decide(before, self.now_s)
                self.told += why
                self.found += wrong(before, self.state, why, self.now_s)
                told = [one for command in commands for one in self.world.carry(command)]
                if not told:
                    break
            self.owed = told
            over_w = self.world.feeder_w() - self.world.site.tree.limit_w
            self.found += [f"feeder {i} by {over_w[i]:.0f} W" for i in np.flatnonzero(over_w > 1)]

    @property
    def alarm(self) -> str:
        one = self.state.alarms.get("promise-short")
        return "" if one is None else one.text

    @property
    def drawn_w(self) -> float:
        """What mining truly draws, W."""
        return sum(one.watts_w for one in self.world.devices.values())

    def reasons(self, subject: str) -> list[str]:
        """What was decided about a thing, in words."""
        rows = [
            row for one in self.told for row in (one.rows() if isinstance(one, Moves) else [one])
        ]
        return [f"{row.action}: {row.reason}" for row in rows if row.subject == subject]


def held_up() -> State:
    """A site at which two machines and two gates are held up, and that has just been asked."""
    play = Play((asic("a0"), asic("a1"), gate("g0"), gate("g1")))
    play.run(70)
    play.promise(event("p", play.now_s + 400.0, 2500.0))
    play.price(DEAR)
    play.run(30)
    state, _, _ = decide(play.state, play.now_s)
    assert len(state.held.rows), "nothing is held"
    return state


def down_s(device: Device) -> float:
    return GATE_S if device.fenced else device.points[0].transition_s


def up_s(device: Device) -> float:
    return GATE_S if device.fenced else device.points[-1].transition_s


def promised(state: State, now_s: float) -> list[tuple[float, float, float]]:
    """Watts that promises need, by what can be gone in which time, and until when, counted anew."""
    live = [e for all_ in state.signals.events.values() for e in all_ if e.commitment_w > 0]
    live = [e for e in live if e.stands(now_s)]
    leased_w = float(np.nansum(state.ledger.lease_w))
    given_w = 0.0
    for one in live:
        plan_w = state.memory.plans.get((one.source, one.id), np.nan)
        if one.starts_s <= now_s and not np.isnan(plan_w):
            given_w = max(given_w, plan_w - leased_w)
    found = []
    for at_s in {e.starts_s for e in live if now_s < e.starts_s <= now_s + HELD_S}:
        there = [e for e in live if e.starts_s <= at_s and (e.ends_s is None or e.ends_s > at_s)]
        for within_s in {e.starts_s - e.notified_s for e in there if e.starts_s > now_s}:
            mine = [
                e.commitment_w
                for e in there
                if e.starts_s <= now_s or e.starts_s - e.notified_s <= within_s
            ]
            found.append((sum(mine) - given_w, within_s, at_s - now_s))
    return [one for one in found if one[0] > 1e-6]


def shown_w(state: State, now_s: float, within_s: float) -> float:
    """Watts above the lowest points that fresh readings show and that can be gone in time."""
    total_w, stale_s = 0.0, state.site.rules.stale_after_s
    for i, device in enumerate(state.fleet.devices):
        agent = state.agents.get(device.agent)
        deaf = agent is None or bool(agent.lost) or now_s - agent.seen_s > stale_s
        if deaf or state.seen.foreign[i] or state.ledger.point[i] < 0:
            continue
        watts_w = float(state.seen.watts_w[i])
        if now_s - state.seen.at_s[i] > stale_s or np.isnan(watts_w):
            continue
        if down_s(device) <= within_s:
            total_w += max(watts_w - device.points[0].watts_w, 0.0)
    return total_w


def short_w(state: State, now_s: float) -> float:
    """What lacks most for any promise once inference has what is kept for it, W."""
    kept = state.reserve
    kept_w = max(max(kept.burst_w, kept.plan_w) - kept.free_w, 0.0)
    kept_w = min(kept_w, shown_w(state, now_s, GATE_S))
    lacks_w = [0.0]
    for watts_w, within_s, _ in promised(state, now_s):
        ready_w = max(shown_w(state, now_s, within_s) - kept_w, 0.0)
        lacks_w.append(watts_w - ready_w)
    return max(lacks_w)


def wrong(before: State, state: State, told: Sequence[AnyDecision], now_s: float) -> Iterator[str]:
    """What is wrong with one decision."""
    yield from witness.over_committed(before, state, now_s)
    yield from witness.unexplained(before, state, told)
    lacks_w, alarm = short_w(state, now_s), state.alarms.get("promise-short")
    if (lacks_w > 0.5) != (alarm is not None):
        yield f"I8 {lacks_w:.1f} W lack and the alarm says {alarm}"
    elif alarm is not None:
        said = re.search(r" s: ([\d,]+) W are short", alarm.text)
        if said is None or abs(float(said[1].replace(",", "")) - lacks_w) > 0.51:
            yield f"I8 {lacks_w:.1f} W lack and the alarm says {alarm.text}"
    yield from _beyond_room(state, now_s)
    yield from _late(before, state, now_s)
    yield from _untold(before, state, told)


def limits_w(state: State) -> Floats:
    """What every feeder may carry beside its compute, W."""
    assert state.verdict is not None
    tree = state.site.tree
    own_w = np.zeros(len(tree.names))
    for node in state.site.nodes:
        own_w[tree.index[node.feeder]] += witness.bound_w(state, node.name)
    limit_w = np.array(tree.limit_w)
    limit_w[0] = min(limit_w[0], state.verdict.cap_w, state.verdict.aim_w + state.verdict.trim_w)
    left_w: Floats = limit_w - tree.totals(own_w)
    return left_w


def wanted_w(state: State, unfenced: bool = False) -> Floats:
    """What is wanted of all devices below every feeder, or of those without a gate, W."""
    tree, own_w = state.site.tree, np.zeros(len(state.site.tree.names))
    wanted = state.present.wanted_w
    assert wanted is not None
    for i, device in enumerate(state.fleet.devices):
        if not (unfenced and device.fenced):
            own_w[tree.index[device.feeder]] += wanted[i]
    total_w: Floats = tree.totals(own_w)
    return total_w


def _beyond_room(state: State, now_s: float) -> Iterator[str]:
    """What is wanted fits, and leaves services what is kept for them."""
    if not len(state.held.rows):
        return
    over_w = wanted_w(state) - np.maximum(limits_w(state) - state.excess_w, 0.0)
    for i in np.flatnonzero(over_w > 1.0):
        yield f"I1 {over_w[i]:.0f} W too much are wanted below {state.site.tree.names[i]}"
    kept_w = max(state.reserve.burst_w, state.reserve.plan_w)
    beside_w = float(limits_w(state)[0] - wanted_w(state, unfenced=True)[0])
    if kept_w > max(beside_w, 0.0) + 1.0:
        yield f"I8 {kept_w:.0f} W are kept for services, {beside_w:.0f} W are left by machines"
    beyond_w = float(wanted_w(state)[0]) - state.held.held_w
    if state.held.held_w > 1.0 and beyond_w < -1.0:
        yield f"I8 {state.held.held_w:.0f} W are held of {float(wanted_w(state)[0]):.0f} W"


def _late(before: State, state: State, now_s: float) -> Iterator[str]:
    """Nothing is held up that would come too late."""
    owed = promised(before, now_s)
    longest_s = max((within_s for _, within_s, _ in owed), default=0.0)
    latest_s = max((starts_s for _, _, starts_s in owed), default=0.0)
    for i in state.held.rows.tolist():
        device = state.fleet.devices[i]
        if down_s(device) > longest_s:
            yield f"I8 {device.id} is held up and needs {down_s(device):.0f} of {longest_s:.0f} s"
        raised = state.ledger.lease_w[i] > np.nan_to_num(before.ledger.lease_w[i]) + 1.0
        if raised and up_s(device) > latest_s:
            yield f"I8 {device.id} is raised too late"


def _untold(before: State, state: State, told: Sequence[AnyDecision]) -> Iterator[str]:
    """I7: whoever is newly held is told so by name."""
    was = set(before.held.rows.tolist())
    names = {state.fleet.devices[i].id for i in state.held.rows.tolist() if i not in was}
    held = [one for one in told if isinstance(one, Moves) and one.promised is not None]
    rows = [row for one in held for row in one.rows()]
    said = {row.subject for row in rows if state.held.names in row.reason}
    if names - said:
        yield f"I7 {sorted(names - said)} are held and nothing says why"
    site = [one for one in told if isinstance(one, Decision) and one.action in ("hold", "release")]
    if (len(was) > 0) != (len(state.held.rows) > 0) and not site:
        yield "I7 a hold began or ended and nothing says so"


def idle(play: Play) -> Iterator[str]:
    """Devices that would help a promise that is short, at rest although every feeder has room."""
    state, now_s = play.state, play.now_s
    wanted_each_w = state.present.wanted_w
    assert state.verdict is not None
    assert wanted_each_w is not None
    room_w = limits_w(state) - wanted_w(state)
    kept_w = max(state.reserve.burst_w, state.reserve.plan_w)
    room_w[0] = min(room_w[0] - kept_w, state.verdict.notice_w - float(wanted_w(state)[0]))
    if short_w(state, now_s) <= 0.5:
        return
    lacking = [
        (within_s, starts_s)
        for watts_w, within_s, starts_s in promised(state, now_s)
        if watts_w - shown_w(state, now_s, within_s) > 0.5
    ]
    for i, device in enumerate(state.fleet.devices):
        wanted = float(wanted_each_w[i])
        rise_w = device.points[-1].watts_w * (0.01 if device.continuous else 1.0) - (
            0.0 if device.continuous else wanted
        )
        fits = all(rise_w < room_w[at] - 1.0 for at in state.site.tree.path(state.fleet.feeder[i]))
        in_time = any(down_s(device) <= w and up_s(device) <= left_s for w, left_s in lacking)
        below = wanted < device.points[-1].watts_w - 10.0
        if fits and in_time and below and not play.world.agents[device.agent].silent:
            yield f"I8 {device.id} rests at {wanted:.0f} W with room for {rise_w:.0f} W"


def _price(play: Play, number: int) -> None:
    play.price((CHEAP, 60.0, DEAR, DEAR, DEAR, None)[number % 6])


def _cap(play: Play, number: int) -> None:
    play.cap((None, 2000.0, 5000.0)[number % 3])


def _wants(play: Play, number: int) -> None:
    play.wants(1 + number % max(play.units, 1))


def _silent(play: Play, number: int) -> None:
    agents = sorted(play.world.agents)
    agent = play.world.agents[agents[number % len(agents)]]
    agent.silent = not agent.silent


def _promise(play: Play, number: int) -> None:
    rng = random.Random(number)
    rows = [
        event(
            f"e{i}",
            play.now_s + rng.choice((8.0, 30.0, 90.0)),
            rng.choice((200.0, 1000.0, 2500.0)),
            notice_s=rng.choice((8.0, 15.0, 600.0)),
            lasts_s=rng.choice((20.0, 600.0)),
        )
        for i in range(rng.randrange(1, 4))
    ]
    play.promise(*rows)


ACTIONS = (_price, _price, _cap, _wants, _silent, _promise, _promise)


def story(seed: int, history: Sequence[tuple[int, int]]) -> Play:
    """A site made by a seed to which some things happen, and that has calm at the end; nothing
    more happens once anything was found."""
    rng = random.Random(seed)
    units, limits_w = rng.choice((0, 4)), rng.choice(LIMITS_W)
    play = Play(random_devices(rng), limits_w, units, seed=seed)
    if units:
        play.bursts(rng.choice((1, 2)))
        play.wants(1)
    play.run(rng.choice((3, 25, 70)))
    for action, number in history:
        ACTIONS[action % len(ACTIONS)](play, number)
        play.run((1, 4, 12)[number % 3])
        if play.found:
            return play
    for agent in play.world.agents.values():
        agent.silent = False
    play.run(12)
    for _ in range(60):
        if (play.state.ledger.changed_s < play.now_s - CALM_S).all():
            play.found += idle(play)
            break
        play.run(1)
    return play


def first_found(seeds: Sequence[int], long: bool = False) -> str:
    """What the first of some random stories finds; empty if none finds anything."""
    for seed in seeds:
        rng = random.Random(seed)
        length = rng.randrange(3, 14) if long else 6
        history = [(rng.randrange(70), rng.randrange(100)) for _ in range(length)]
        found = story(seed, history).found
        if found:
            return f"{found[0]} (seed {seed})"
    return ""


CALM_S = 25.0
"""Without a change for so long every device draws what it is leased, but the slowest."""

LIMITS_W = ((20e3, 15e3, 15e3), (6e3, 4e3, 4e3), (9e3, 9e3, 2e3), (3e3, 3e3, 3e3))


def random_devices(rng: random.Random) -> list[Device]:
    """Some machines and gates, of either feeder or none."""
    places = ("main", "west", "east")
    found = [
        asic(f"a{i}", rng.choice(places), rng.choice((2.0, 12.0, 20.0)), rng.choice((0.0, 0.05)))
        for i in range(rng.randrange(4))
    ]
    cards = range(rng.randrange(1, 5))
    found += [gate(f"g{i}", rng.choice(places), rng.choice((0.0, 1e12, 1e13, 6e13))) for i in cards]
    return found
