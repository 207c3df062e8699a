"""One service: what was asked, what Serve and its replicas show, and what follows from it.

It has failed when its application cannot be built, when Serve gives up on it, when no replica
becomes healthy in time although there are watts, or when replicas keep dying. A failed service is
taken down, so that its watts are free, until its specification changes or it is cancelled.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wattshift_cluster.workload.fault_words import last_words
from wattshift_cluster.workload.serving.app_watts import POLICY
from wattshift_cluster.workload.serving.hand_over import Sleeper
from wattshift_cluster.workload.serving.serve_link import (
    FAILED,
    RUNNING,
    SERVING,
    STARTING,
    Application,
    Replica,
)
from wattshift_cluster.workload.serving.service_stats import Stats
from wattshift_cluster.workload.specs import ServiceSpec

CRASHES_MAX = 5
CRASH_WINDOW_S = 300.0
"""So many replicas that died within that time are a crash loop, not bad luck."""

BACK_OFF_S = (2.0, 5.0, 10.0, 20.0)
"""Waiting for a new replica after the first death, the second, …: a replica that dies at once would
otherwise draw its start-up watts for ever."""

UNPLACED_S = 10.0
"""A replica that Ray has not placed for so long, while the watts show no room, is asked back. Ray
tells that it took watts a second or two before Serve tells where the replica is."""

UPDATING = "UPDATING"
"""Serve's word for a deployment that it is bringing to another version."""

PRESSING = 0.5
"""Requests on a second's average that are a demand and not the end of one."""

ALLOW_WITHIN_S = 3.0
"""How long the core has to allow a first replica that Serve started for a waiting request."""

ERROR_MAX = 600


@dataclass(frozen=True, slots=True)
class Plan:
    """How an application was built (see `building`).

    Attributes:
        unit: the deployment that is scaled.
        unit_w: watts of one of its replicas, W.
        watts: watts by deployment, of all that have any.
        hook: "policy" or "external".
        note: why it is not the hook that was asked for.
        ingress: the deployment that takes requests.
        route: its path.
        tells: the unit's class has the method `wattshift_stats`.
    """

    unit: str
    unit_w: float
    watts: Mapping[str, float]
    hook: str
    note: str | None
    ingress: str
    route: str
    tells: bool = False


@dataclass(slots=True)
class Service:
    """One service as this bridge runs it. `now_s` is the monotonic clock everywhere."""

    name: str
    spec: ServiceSpec
    target: int
    nodes: Mapping[str, int] = field(default_factory=dict)
    plan: Plan | None = None
    asked: int | None = None
    serve_target: int | None = None
    replicas: tuple[Replica, ...] = ()
    slots: int = 1
    holding: Mapping[str, int] = field(default_factory=dict)
    stats: Stats = field(default_factory=Stats)
    desired: int | None = None
    forms: Mapping[str, Sequence[bytes]] | None = None
    """What to deploy: "run" and "held"; None after a restart of the bridge."""

    held: bool = False
    settled: bool = True
    pressed_since_s: float | None = None
    low: int | None = None
    """Fewest replicas that were allowed since the last look."""

    sleeper: Sleeper = field(default_factory=Sleeper)
    kept: int = 0
    build: Any = None
    build_began_s: float = -math.inf
    tried_s: float = -math.inf
    redeploy: bool = False
    message: str = ""
    waits: str | None = None
    trouble: str | None = None
    failed: str | None = None
    unhealthy_since_s: float | None = None
    unplaced_since_s: float | None = None
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES_MAX))
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=256))
    """Replicas that we ended ourselves."""

    def count(self, *states: str) -> int:
        """Replicas of the unit in one of these states."""
        return sum(replica.state in states for replica in self.replicas)

    @property
    def running(self) -> int:
        """Replicas that answer requests."""
        return self.count(*SERVING)

    @property
    def starting(self) -> int:
        """Replicas that Serve is starting, placed or not."""
        return self.count(STARTING)

    @property
    def unplaced(self) -> int:
        """Replicas that no node has yet."""
        return sum(one.state == STARTING and one.node_id is None for one in self.replicas)

    @property
    def unit_w(self) -> float:
        """Watts of one replica, W."""
        return self.spec.watts_per_replica_w if self.plan is None else self.plan.unit_w

    @property
    def least(self) -> int:
        """Replicas of the target that Serve's own wish may not undercut.

        All, where a latency was promised: the core may see a miss coming before the queue shows it.
        """
        return self.target if self.spec.promised else self.spec.min_replicas

    @property
    def state(self) -> str:
        """One word for the report."""
        if self.failed:
            return "failed"
        if self.sleeper.state == "asleep":
            return "asleep"
        if self.target == 0:
            return "idle" if self.running == 0 else "stopping"
        return "starting" if self.running == 0 else "running"

    @property
    def error(self) -> str | None:
        """What is wrong with it; watts before Serve's complaint that a replica is missing."""
        return self.failed or self.waits or self.trouble

    def see(self, app: Application, names: Mapping[str, str], leaving: frozenset[str]) -> int:
        """Take in what Serve shows; how many replicas died since the last look.

        Args:
            app: the application.
            names: names of living nodes by NodeID.
            leaving: NodeIDs of those that are draining.
        """
        assert self.plan is not None, "deployed"
        found = app.deployments.get(self.plan.unit)
        if found is None:
            return 0
        dead = self._died(found.replicas, found.target, names.keys() - leaving)
        if not self.settled:
            # Serve is replacing the replicas of the form before by those of this one.
            dead = 0
            self.settled = found.status != UPDATING
        self.low = self.asked
        self.replicas, self.serve_target, self.slots = found.replicas, found.target, found.slots
        held: Counter[str] = Counter()
        for name in self.plan.watts:
            part = app.deployments.get(name)
            for one in part.replicas if part else ():
                # In whatever state: one that was placed holds its watts until it is gone.
                if node := names.get(one.node_id or ""):
                    held[node] += 1
        self.holding = dict(held)
        self.message = next((text for text in (found.message, app.message) if text), "")
        self.trouble = None
        if app.status in (FAILED, "UNHEALTHY"):
            self.trouble = last_words(self.message or app.status)
        if app.status == FAILED and self.running == 0:
            self.fail(f"it did not start: {self.trouble}")
        return dead

    def _died(self, now: tuple[Replica, ...], target: int, nodes: frozenset[str] | set[str]) -> int:
        """Replicas that served and do not, though nobody wanted fewer."""
        alive = {one.id for one in now if one.state in SERVING}
        before = [one for one in self.replicas if one.state in SERVING]
        gone = [one for one in before if one.id not in alive and one.node_id in nodes]
        unforced = [one for one in gone if one.id not in self.ended]
        low = min(target, self.target, target if self.low is None else self.low)
        surplus = max(0, len(before) - low)
        return max(0, len(unforced) - surplus)

    def died(self, deaths: int, now_s: float) -> None:
        """Note deaths; too many of them are its failure."""
        for _ in range(deaths):
            self.crashes.append(now_s)
        recent = [at_s for at_s in self.crashes if now_s - at_s <= CRASH_WINDOW_S]
        if len(recent) >= CRASHES_MAX:
            words = last_words(self.message) if self.message else "see the replicas' logs in Ray"
            self.fail(f"{len(recent)} replicas died within {CRASH_WINDOW_S:g} s: {words}")

    def held_back(self, now_s: float) -> bool:
        """Whether it has to wait before it gets a new replica for one that died."""
        recent = [at_s for at_s in self.crashes if now_s - at_s <= CRASH_WINDOW_S]
        if not recent:
            return False
        return now_s - recent[-1] < BACK_OFF_S[min(len(recent), len(BACK_OFF_S)) - 1]

    def wanted(self, fits: int, now_s: float) -> int:
        """Replicas to ask Serve for: the target, but no more new ones than find watts.

        Args:
            fits: further units that the free watts hold.
            now_s: the clock.
        """
        if self.held_back(now_s):
            return min(self.target, self.running)
        unplaced, placed = self.unplaced, self.running + self.starting
        if unplaced <= fits:
            self.unplaced_since_s = None
        elif self.unplaced_since_s is None:
            self.unplaced_since_s = now_s
        elif now_s - self.unplaced_since_s > UNPLACED_S:
            return min(self.target, placed - (unplaced - fits))
        return min(self.target, placed + max(0, fits - unplaced))

    def judge(self, wanted: int, now_s: float) -> None:
        """Fail it when it had watts and time, and yet no replica is healthy."""
        if self.failed or self.running or wanted == 0 or self.held_back(now_s):
            self.unhealthy_since_s = None
            return
        if self.unhealthy_since_s is None:
            self.unhealthy_since_s = now_s
        within_s = self.spec.healthy_within_s
        if now_s - self.unhealthy_since_s > within_s:
            words = last_words(self.message) if self.message else "Serve gives no reason"
            if self.unplaced and self.unplaced == self.starting:
                words = "Ray placed no replica: no node has what it asks for"
            self.fail(f"no replica was healthy within {within_s:g} s: {words}")

    def pressed(self, ongoing: float, now_s: float) -> bool:
        """Whether requests wait although it may have no replica, and the core knows.

        Serve would start one for them by itself. After a wish of its own, the core is given a
        moment to allow it; where replicas still run it is the core that takes them away.

        Args:
            ongoing: requests in progress or queued.
            now_s: the clock.
        """
        if ongoing < PRESSING and not self.serve_target:
            self.pressed_since_s = None
            return False
        if self.pressed_since_s is None:
            self.pressed_since_s = now_s
        waited_s = now_s - self.pressed_since_s
        return (self.running > 0 and ongoing >= PRESSING) or waited_s > ALLOW_WITHIN_S

    def fail(self, reason: str) -> None:
        """It is over; the first reason stays."""
        if self.failed is None:
            self.failed = reason[:ERROR_MAX]

    def forget_deployment(self) -> None:
        """Know nothing of a deployment any more."""
        self.plan, self.asked, self.serve_target = None, None, None
        self.replicas, self.holding, self.stats = (), {}, Stats()
        self.forms, self.held, self.pressed_since_s, self.low = None, False, None, None
        self.desired, self.sleeper, self.kept = None, Sleeper(), 0
        self.unhealthy_since_s = self.unplaced_since_s = None

    def row(self, host: str, port: int) -> dict[str, Any]:
        """Its part of the report."""
        desired = self.desired
        if self.held:  # Serve counts no requests of a held service; there were some
            desired = 1
        route = self.spec.route if self.plan is None else self.plan.route
        return {
            "name": self.name,
            "target": self.target,
            "running": self.running,
            "starting": self.starting,
            "state": self.state,
            "desired": desired,
            # Asleep they hold memory of no GPU, and Ray's watts only until somebody evicts them.
            "by_node": {} if self.state == "asleep" else dict(self.holding),
            "asleep_by_node": dict(self.holding) if self.state == "asleep" else {},
            "hook": None if self.plan is None else self.plan.hook,
            "hook_note": None if self.plan is None else self.plan.note,
            "held": self.held,
            "unit_w": self.unit_w,
            "deaths": len(self.crashes),
            "error": self.error,
            "url": f"http://{host}:{port}{route}",
            **self.stats.row(),
            **(self.sleeper.row() if self.spec.hand_over == "sleep" else {}),
        }

    @property
    def follows_policy(self) -> bool:
        """Whether Serve's policy scales it."""
        return self.plan is not None and self.plan.hook == POLICY


def victims(service: Service, node_id: str, units: int) -> list[Replica]:
    """Replicas to end on a node: those that serve nobody yet first, then the newest of the list."""
    there = [
        one for one in service.replicas if one.node_id == node_id and one.id not in service.ended
    ]
    there = [one for one in there if one.state in (*SERVING, STARTING)]
    ranked = sorted(enumerate(there), key=lambda pair: (pair[1].state == RUNNING, -pair[0]))
    return [one for _, one in ranked[:units]]
