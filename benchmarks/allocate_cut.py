"""What a cut costs at a running site: from a cap to complete GrantLeases, and a second of life.

The site runs for some seconds first, with every agent answering and every device drawing what it
was granted, so that what a decision carries over is there as in life. Each cut is measured from
that same state, each with a cap of its own, so that none finds the answer of another.
"""

import dataclasses
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Device, FeederTree, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.values import Values

PER_AGENT = 250
"""Devices of one agent: what one host speaks to comfortably. A cut is one command an agent, so it
is measured for smaller and larger ones, too."""

OTHERS_PER_AGENT = (100, 500)

CUT_SHARE = 0.25
REPEATS = 25
LIVE_S = 5
"""Seconds of life that are measured: in so many every lease is renewed once."""

JOINS = 100
JOIN_REPEATS = 9
"""Devices that join at once, as one agent's do, and how often that is measured."""

FIRST_S = 100.0
SETTLING_S = 22
"""Seconds until every device runs where it should: machines turn within five."""

IDLE_W = 30.0
"""What is drawn before a first lease."""


def figures(
    tree: FeederTree, devices: Sequence[Device], values: Values, per_agent: int = PER_AGENT
) -> dict[str, Any]:
    """All figures of cuts at one site, by the keys that INTERFACES names."""
    world = running(tree, devices, values, per_agent)
    cuts = [cut(world.state, world.now_s, part) for part in range(REPEATS)]
    ticks = [timed_ms(world.state, [ev.Tick()], world.now_s)[0] for _ in range(REPEATS)]
    joins = [_join_ms(world) for _ in range(JOIN_REPEATS)]
    seconds = [world.live() for _ in range(LIVE_S)]
    cut_ms = [ms for ms, _ in cuts]
    by_agent = {per_agent: statistics.median(cut_ms)}
    for count in OTHERS_PER_AGENT:
        other = running(tree, devices, values, count)
        part_ms = [cut(other.state, other.now_s, part)[0] for part in range(REPEATS)]
        by_agent[count] = statistics.median(part_ms)
    return {
        "cut_ms_p50": round(statistics.median(cut_ms), 3),
        "cut_ms_worst": round(max(cut_ms), 3),
        "cut_leases": statistics.median_low([moved for _, moved in cuts]),
        "cut_agents": len(world.agents),
        "cut_ms_by_agent": {str(count): round(ms, 3) for count, ms in sorted(by_agent.items())},
        "step_ms_p50": round(statistics.median(ticks), 3),
        "join_ms_p50": round(statistics.median(joins), 1),
        "second_ms_p50": round(statistics.median(seconds), 1),
        "second_ms_worst": round(max(seconds), 1),
    }


def running(tree: FeederTree, devices: Sequence[Device], values: Values, per_agent: int) -> "World":
    """A site that has come to rest."""
    world = World.of(tree, devices, values, per_agent)
    for _ in range(SETTLING_S):
        world.live()
    return world


def cut(state: State, now_s: float, part: int = 0) -> tuple[float, int]:
    """Time from a cap to complete GrantLeases, ms, and how many leases those hold.

    Args:
        state: of a running site.
        now_s: when it was decided on last; the cap comes half a second later.
        part: makes the cap one of its own, by some watts.
    """
    cap = Cap("cut", "schedule", (1.0 - CUT_SHARE) * state.outlook.committed_w - 10.0 * part)
    ms, commands = timed_ms(state, [ev.SignalChanged("schedule", (cap,))], now_s + 0.5)
    return ms, sum(len(one.devices) for one in commands)


def _join_ms(world: "World") -> float:
    """Time of a step in which devices join, ms: copies of some that are there, at another agent."""
    some = world.state.fleet.devices[:JOINS]
    new = tuple(dataclasses.replace(one, id=f"{one.id}-new", agent="another") for one in some)
    return timed_ms(world.state, [ev.DeviceJoined(new)], world.now_s + 0.5)[0]


def timed_ms(
    state: State, events: Iterable[ev.Event], now_s: float
) -> tuple[float, list[GrantLeases]]:
    """Time of one step, ms, and the grants that it makes."""
    begin_s = time.perf_counter()
    _, commands, _ = step(state, events, now_s)
    ms = (time.perf_counter() - begin_s) * 1e3
    return ms, [one for one in commands if isinstance(one, GrantLeases)]


@dataclasses.dataclass(slots=True)
class World:
    """A site that obeys: modelled, and the only thing here that changes.

    Attributes:
        state: of the controller.
        now_s: when it last decided.
        agents: their names, and the columns of their devices.
    """

    state: State
    now_s: float
    agents: dict[str, slice]
    ids: tuple[str, ...]
    events: list[ev.Event]

    @classmethod
    def of(
        cls, tree: FeederTree, devices: Sequence[Device], values: Values, per_agent: int
    ) -> "World":
        """A controller that has just heard of all devices, in the order of their agents."""
        named = tuple(
            dataclasses.replace(one, agent=f"agent{i // per_agent:04d}")
            for i, one in enumerate(devices)
        )
        agents = {
            f"agent{i // per_agent:04d}": slice(i, min(i + per_agent, len(named)))
            for i in range(0, len(named), per_agent)
        }
        mining = Job("mining", JobKind.MINING, "mining", {"devices": ["*"]}, 0.0)
        first: list[ev.Event] = [ev.DeviceJoined(named), ev.JobSubmitted(mining)]
        state = initial(Site("bench", tree, (), Rules()), values, 1)
        return cls(state, FIRST_S, agents, tuple(one.id for one in named), first)

    def live(self) -> float:
        """Pass a second: all agents answer, all devices are read; what the step took, ms."""
        self.now_s += 1.0
        events = [*self.events, *self._told()]
        begin_s = time.perf_counter()
        self.state, commands, _ = step(self.state, events, self.now_s)
        ms = (time.perf_counter() - begin_s) * 1e3
        self.events = [_accepted(one) for one in commands if isinstance(one, GrantLeases)]
        return ms

    def _told(self) -> Iterable[ev.Event]:
        lease_w = self.state.ledger.lease_w
        drawn_w = lease_w if len(lease_w) else np.full(len(self.ids), np.nan)
        drawn_w = np.where(np.isnan(drawn_w), IDLE_W, drawn_w)
        # Agents begin to speak one after the other, or all leases would be renewed in one second.
        speak = int(self.now_s - FIRST_S)
        for number, (name, part) in enumerate(self.agents.items()):
            if number % LIVE_S >= speak:
                continue
            ids = self.ids[part]
            nan, no = np.full(len(ids), np.nan), np.zeros(len(ids), dtype=np.bool_)
            yield ev.AgentSeen(name, "boot", self.now_s, self.now_s)
            yield ev.Readings(
                ids,
                np.full(len(ids), self.now_s - 0.1),
                drawn_w[part],
                nan,
                nan,
                nan,
                nan,
                ("",) * len(ids),
                no,
                no,
            )


def _accepted(command: GrantLeases) -> ev.LeasesReplied:
    n = len(command.devices)
    return ev.LeasesReplied(
        command.id, command.devices, command.sequence, np.ones(n, dtype=np.bool_), ("",) * n
    )
