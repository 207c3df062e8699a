"""The modelled site as one: agents, compute nodes, other load, a meter, and time for them all.

A controller meets it as it meets the real world: it polls for events and hands over commands.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from wattshift_cluster.simulate.agents import ModelledAgent, agent_of
from wattshift_cluster.simulate.compute import ModelledNode, ModelledRay
from wattshift_cluster.simulate.devices import ModelledDevice
from wattshift_scheduler import events as ev
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.commands import Command, GrantLeases
from wattshift_scheduler.jobs import Job, JobKind
from wattshift_scheduler.site import Device, Site

SLICE_S = 1.0
"""Longest slice of time while anything moves, s."""

OTHER_SHARE = 0.9
"""Share of the bound on other load that is truly drawn."""

METER_NOISE_SHARE = 0.001
"""Standard deviation of one sample of the site meter."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A short time in which the watts were about constant: means over it, W.

    `reserve_w` is the part of the mining watts that stands behind gates; `work_usd_per_h` is what
    services and batch jobs earned meanwhile.
    """

    at_s: float
    lasts_s: float
    mining_w: float
    service_w: float
    batch_w: float
    other_w: float
    reserve_w: float
    work_usd_per_h: float

    @property
    def total_w(self) -> float:
        """What the site drew, W."""
        return self.mining_w + self.service_w + self.batch_w + self.other_w


@dataclass(slots=True)
class World:
    """The modelled site.

    Attributes:
        site: its tree and rules, the same that the controller knows.
        agents: by name.
        ray: the compute nodes and what runs on them.
        rng: where the meter's noise comes from.
        now_s: simulated time.
        meter_lost: the meter does not answer (fault).
    """

    site: Site
    agents: Mapping[str, ModelledAgent]
    ray: ModelledRay
    rng: random.Random
    now_s: float = 0.0
    meter_lost: bool = False
    _device_feeder: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site, devices: Iterable[Device], jobs: Iterable[Job], seed: int) -> "World":
        """Build a world in which every device is at its lowest point and nothing runs."""
        rng = random.Random(seed)
        owned: dict[str, dict[str, ModelledDevice]] = {}
        feeder: dict[str, int] = {}
        for device in devices:
            one = ModelledDevice(device, random.Random(rng.getrandbits(64)))
            owned.setdefault(device.agent, {})[device.id] = one
            feeder[device.id] = site.tree.index[device.feeder]
        agents = {name: agent_of(name, own, rng) for name, own in owned.items()}
        return cls(site, agents, ModelledRay.of(site.nodes, jobs), rng, _device_feeder=feeder)

    @property
    def nodes(self) -> Mapping[str, ModelledNode]:
        """Compute nodes by name."""
        return self.ray.nodes

    @property
    def devices(self) -> dict[str, ModelledDevice]:
        """All devices by id."""
        return {name: one for agent in self.agents.values() for name, one in agent.devices.items()}

    def joined(self) -> ev.DeviceJoined:
        """The inventory, as a controller finds it in its journal or hears it from the agents."""
        return ev.DeviceJoined(tuple(one.device for one in self.devices.values()))

    def poll(self) -> list[ev.Event]:
        """What a controller hears when it asks everybody."""
        told: list[ev.Event] = []
        for agent in self.agents.values():
            if agent.answers:
                told += [agent.seen(self.now_s), agent.read(self.now_s)]
            else:
                told.append(ev.AgentLost(agent.name, "no answer"))
        told += self.ray.report(self.now_s)
        if not self.meter_lost:
            noise = 1.0 + self.rng.gauss(0.0, METER_NOISE_SHARE)
            told.append(ev.MeterRead(float(self.feeder_w()[0]) * noise, self.now_s))
        return told

    def carry(self, command: Command) -> list[ev.Event]:
        """Carry out a command; what the controller hears of it."""
        if isinstance(command, GrantLeases):
            agent = self.agents[command.agent]
            if not agent.answers:
                return [ev.CommandEnded(command.id, False, "timeout")]
            return [agent.seen(self.now_s), agent.take(command, self.now_s)]
        return [self.ray.carry(command, self.now_s)]

    def advance(self, to_s: float) -> Iterator[Slice]:
        """Let time pass until `to_s`, slice by slice."""
        while self.now_s < to_s - 1e-9:
            end_s = min(to_s, *(self._next_s()), self.now_s + SLICE_S if self.moving else to_s)
            yield self._slice(max(end_s, self.now_s + 1e-3))

    def drift(self, by_s: float) -> Slice:
        """Let a stretch pass in which nothing changes, leases being renewed as they were."""
        assert not self.moving, "a world in motion cannot drift"
        for agent in self.agents.values():
            agent.shift(by_s)
        return self._slice(self.now_s + by_s)

    @property
    def moving(self) -> bool:
        """Whether any device is on its way to a set point."""
        return any(d.moving for agent in self.agents.values() for d in agent.devices.values())

    def next_ready_s(self) -> float:
        """When the next compute unit comes up or has left; infinite if none is on its way."""
        return self.ray.next_ready_s(self.now_s)

    def feeder_w(self) -> Floats:
        """What flows through each feeder now, W; shape (feeders,)."""
        tree = self.site.tree
        own_w = np.zeros(len(tree.names))
        own_w[0] = self.site.rules.other_load_w * OTHER_SHARE
        for name, one in self.devices.items():
            own_w[self._device_feeder[name]] += one.watts_w * self._open(one)
        for name, node in self.nodes.items():
            feeder = tree.index[node.node.feeder]
            own_w[feeder] += node.unasked_w
            for kind in (JobKind.SERVICE, JobKind.BATCH):
                own_w[feeder] += self.ray.drawn_w(name, kind, self.now_s)
        return tree.totals(own_w)

    def _next_s(self) -> list[float]:
        later = [agent.next_expiry_s() for agent in self.agents.values()]
        later.append(self.next_ready_s())
        return [max(one, self.now_s) for one in later]

    def _slice(self, end_s: float) -> Slice:
        lasts_s, at_s = end_s - self.now_s, self.now_s
        service_w = sum(self.ray.drawn_w(name, JobKind.SERVICE, at_s) for name in self.nodes)
        batch_w = sum(self.ray.drawn_w(name, JobKind.BATCH, at_s) for name in self.nodes)
        earned = self.ray.earns_usd_per_h(at_s)
        mining_w = reserve_w = 0.0
        for agent in self.agents.values():
            for one in agent.devices.values():
                share, before = self._open(one), one.hashes
                mean_w = one.move(lasts_s) * share
                mining_w += mean_w
                reserve_w += mean_w if one.device.fenced else 0.0
                one.hashes = before + (one.hashes - before) * share
        self.now_s = end_s
        for agent in self.agents.values():
            agent.expire(end_s)
        self.ray.settle(end_s)
        other_w = self.site.rules.other_load_w * OTHER_SHARE
        other_w += sum(node.unasked_w for node in self.nodes.values())
        return Slice(at_s, lasts_s, mining_w, service_w, batch_w, other_w, reserve_w, earned)

    def _open(self, one: ModelledDevice) -> float:
        """Share of time in which this device's gate is open: compute on its host closes it."""
        host = one.device.host if one.device.fenced else None
        return 1.0 if host not in self.nodes else 1.0 - self.ray.busy(str(host), self.now_s)
