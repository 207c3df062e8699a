"""No history in which watts of replicas are learnt breaks an invariant; each guard removed once.

The modelled Ray keeps what is true of Ray: a replica holds the watts with which it was deployed,
for as long as it lives. What it draws is as much as was last learnt, below or above that.
"""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wattshift_cluster.controller import replica_watts
from wattshift_cluster.controller.replica_watts import ReplicaWatts
from wattshift_cluster.controller.roster import Roster
from wattshift_cluster.simulate import witness
from wattshift_cluster.simulate.world import World
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import SetReplicas
from wattshift_scheduler.in_force import budget
from wattshift_scheduler.jobs import Job, JobKind, PowerStep, Terms
from wattshift_scheduler.signals.words import Cap
from wattshift_scheduler.site import Feeder, FeederTree, Node, Rules, Site
from wattshift_scheduler.state import State, initial
from wattshift_scheduler.step import step
from wattshift_scheduler.turn import reducers
from wattshift_scheduler.values import Values

LIMIT_W = 2400.0
FEEDERS = [Feeder("main", None, LIMIT_W), Feeder("west", "main", 1300.0),
           Feeder("east", "main", 1000.0)]  # fmt: skip
NODES = (Node("a", "west", 800.0), Node("b", "west", 800.0), Node("c", "east", 900.0))
SITE = Site("rig", FeederTree.of(FEEDERS), NODES, Rules(scale_down_after_s=5.0))
STEPS = (PowerStep(220.0, 0.9), PowerStep(160.0, 0.6))
GIVEN_W = {"flex": 300.0, "firm": 150.0}
SEEN_S = 2
"""A rise is counted at its node with the next report."""


def _service(name: str, **named: Any) -> Job:
    spec = {"learn_watts": True, "watts_per_replica_w": GIVEN_W[name]}
    return Job(name, JobKind.SERVICE, name, spec, 0.0, unit_w=GIVEN_W[name], max_units=4,
               value_usd_per_h=5.0, **named)  # fmt: skip


JOBS = (
    _service("flex", terms=Terms(flexibility=3, steps=STEPS)),
    _service("firm"),
    Job("wide", JobKind.BATCH, "w", {}, 0.0, unit_w=100.0, max_units=6, value_usd_per_h=1.0),
)


class Rig:
    """A controller that learns, a cluster, and a witness; what it finds is text."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World.of(SITE, (), JOBS, seed)
        self.world.ray.leave_s = self.rng.choice((0.0, 3.0))
        self.state: State = initial(SITE, Values(), 1)
        self.owed: list[ev.Event] = [ev.JobSubmitted(job) for job in JOBS]
        self.learner = ReplicaWatts(Roster(), dict)
        self.found: list[str] = []
        self.drawn_w = dict(GIVEN_W)
        self.later: list[tuple[float, str, float]] = []
        self.used: set[float] = set()

    def teach(self, name: str, watts_w: float) -> None:
        self.owed.append(ev.UnitsLearnt(name, watts_w, "measured", 900, 0.0))
        self.later.append((self.world.now_s + SEEN_S, name, min(watts_w, GIVEN_W[name])))

    def pass_s(self, seconds: int) -> None:
        for _ in range(seconds if not self.found else 0):
            for _ in self.world.advance(self.world.now_s + 1.0):
                pass
            now_s = self.world.now_s
            for at_s, name, watts_w in self.later:
                if at_s < now_s:
                    self.drawn_w[name] = watts_w
            self.later = [one for one in self.later if one[0] >= now_s]
            self.found += self._beyond(now_s)
            heard, self.owed = [*self.owed, *self.world.poll()], []
            for event in self.learner.heard(heard, self.state, now_s):
                self.state, _ = reducers.reduce(self.state, event, now_s)
            before = self.state
            self.state, commands, _ = step(before, (), now_s)
            self.found += witness.over_committed(before, self.state, now_s)
            for command in commands:
                if isinstance(command, SetReplicas):
                    self._deploy(command)
                self.owed += self.world.carry(command)

    def _deploy(self, command: SetReplicas) -> None:
        ray, watts_w = self.world.ray, float(command.spec["watts_per_replica_w"])
        job = ray.jobs[command.job]
        if job.unit_w == watts_w:
            return
        if ray.units.get(job.id) or ray.orphans.get(job.id):
            self.found.append(f"{job.id} is deployed anew while its replicas run")
        ray.jobs[job.id] = replace(job, unit_w=watts_w)
        self.used.add(watts_w)

    def _beyond(self, now_s: float) -> list[str]:
        """Feeders whose services draw more than is counted there."""
        ray, drawn_w = self.world.ray, dict.fromkeys(self.world.nodes, 0.0)
        for name, job in ray.jobs.items():
            each_w = self.drawn_w.get(name, job.unit_w)
            for one in ray.units.get(name, ()):
                if one.ready_s <= now_s:
                    limit_w = ray.limits.get((one.node, name), np.inf)
                    drawn_w[one.node] += min(each_w, limit_w)
        counted = budget.compute_w(self.state, {n: p.bound_w for n, p in self.state.nodes.items()})
        counted = counted + budget.unasked_w(self.state)
        over = budget.compute_w(self.state, drawn_w) > counted + 1e-3
        return [f"I1 {SITE.tree.names[i]} draws more than is counted" for i in np.flatnonzero(over)]

    def play(self) -> list[str]:
        for node in self.world.nodes.values():
            node.load = 1.0
        self.pass_s(15)
        for _ in range(10):
            self._act(self.rng.randrange(5))
            self.pass_s(SEEN_S + self.rng.randrange(9))
        return self.found

    def _act(self, action: int) -> None:
        name = self.rng.choice(("flex", "firm"))
        if action <= 1:
            self.teach(name, GIVEN_W[name] * self.rng.choice((0.4, 0.6, 0.8, 1.0, 1.2)))
        elif action == 2:
            self.owed.append(ev.JobActed(name, "pause"))
            self.pass_s(6)
            self.owed.append(ev.JobActed(name, "resume"))
        elif action == 3:
            cap = Cap("cap", "schedule", LIMIT_W * self.rng.choice((0.2, 0.4, 0.7, 1.0)))
            self.owed.append(ev.SignalChanged("s", (cap,)))
        else:
            for node in self.world.nodes.values():
                node.load = self.rng.choice((0.0, 0.5, 1.0))


SEEDS = (0, 3, 4)


def test_no_history_of_learning_puts_more_on_a_feeder_than_it_carries() -> None:
    used: set[float] = set()
    for seed in SEEDS:
        rig = Rig(seed)
        assert rig.play() == [], seed
        used |= rig.used
    assert len(used) >= 3, "what is learnt comes to use"


def _always(*_: Any) -> bool:
    return True


def _nothing(*_: Any) -> dict[str, dict[str, float]]:
    return {}


@pytest.mark.parametrize(
    ("where", "name", "mutant", "broken"),
    [
        (reducers, "_undeployed", _always, "deployed anew|draws more"),
        (replica_watts, "_over", _nothing, "draws more"),
    ],
    ids=["used while replicas run", "a rise is not counted"],
)
def test_without_its_guard_a_history_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, mutant: Any, broken: str
) -> None:
    monkeypatch.setattr(where, name, mutant)
    found = next((text for seed in SEEDS for text in Rig(seed).play()), "")
    assert any(one in found for one in broken.split("|")), found
