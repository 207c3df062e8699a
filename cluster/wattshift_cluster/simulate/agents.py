"""A modelled agent: the lease rules of the real one, on its own boot clock.

It takes a lease of its own boot that has not expired and is newer than what it took before; a lease
that lowers the watts is taken from anybody. When a lease ends, it writes the safe point.
"""

import random
from dataclasses import dataclass, field

import numpy as np

from wattshift_cluster.simulate.devices import HeldLease, ModelledDevice
from wattshift_scheduler import events as ev
from wattshift_scheduler.commands import GrantLeases


@dataclass(slots=True)
class ModelledAgent:
    """One agent and its devices.

    Attributes:
        name: its name.
        devices: by id.
        boot_at_s: simulated time at which its boot clock stood at 0.
        boots: how often its host has booted; part of the boot id.
        epoch: highest epoch that it has ever taken a raise from; survives reboots.
        silent: nobody reaches it (fault); it goes on by itself.
        dead: its process is gone (fault): gates close by themselves, set points stay as written.
    """

    name: str
    devices: dict[str, ModelledDevice]
    boot_at_s: float
    boots: int = 1
    epoch: int = 0
    silent: bool = False
    dead: bool = False
    refused: int = field(default=0)

    @property
    def boot_id(self) -> str:
        """Identity of the present boot."""
        return f"{self.name}-{self.boots}"

    @property
    def answers(self) -> bool:
        """Whether a controller gets replies."""
        return not (self.silent or self.dead)

    def boot_s(self, now_s: float) -> float:
        """Its boot clock, s."""
        return now_s - self.boot_at_s

    def reboot(self, now_s: float) -> None:
        """Its host starts anew: leases are gone, devices are at their safe points."""
        self.boots += 1
        self.boot_at_s = now_s
        for one in self.devices.values():
            one.write_safe()

    def revive(self) -> None:
        """Its process starts again and writes safe points, because it holds no lease."""
        self.dead = False
        for one in self.devices.values():
            one.write_safe()

    def seen(self, now_s: float) -> ev.AgentSeen:
        """Proof of life."""
        return ev.AgentSeen(self.name, self.boot_id, self.boot_s(now_s), now_s)

    def take(self, command: GrantLeases, now_s: float) -> ev.LeasesReplied:
        """Take or refuse leases."""
        reasons = tuple(self._taken(command, i, now_s) for i in range(len(command.devices)))
        accepted = np.array([not reason for reason in reasons], dtype=np.bool_)
        self.refused += int((~accepted).sum())
        return ev.LeasesReplied(command.id, command.devices, command.sequence, accepted, reasons)

    def _taken(self, command: GrantLeases, row: int, now_s: float) -> str:
        """Take one lease; the reason of a refusal, or empty."""
        one = self.devices.get(command.devices[row])
        lease = HeldLease(
            command.epoch,
            int(command.sequence[row]),
            command.modes[row],
            float(command.watts_w[row]),
            command.valid_until_boot_s,
        )
        if one is None:
            return "unknown device"
        if all(point.mode != lease.mode for point in one.device.points):
            return "unknown mode"
        if command.boot_id != self.boot_id:
            return "another boot"
        if lease.valid_until_boot_s <= self.boot_s(now_s):
            return "expired"
        held_w = 0.0 if one.lease is None else one.lease.watts_w
        lowers = one.lease is not None and lease.watts_w < held_w
        if lease.epoch < self.epoch and not lowers:
            return f"epoch {lease.epoch} is older than {self.epoch}"
        if (lease.epoch, lease.sequence) <= one.last and not lowers:
            return "older than the lease it holds"
        self.epoch = max(self.epoch, lease.epoch)
        one.last = max(one.last, (lease.epoch, lease.sequence))
        one.lease = lease
        one.write(lease.mode, lease.watts_w)
        return ""

    def expire(self, now_s: float) -> None:
        """End the leases that are over by the boot clock."""
        boot_s = self.boot_s(now_s)
        for one in self.devices.values():
            if one.lease is None or boot_s < one.lease.valid_until_boot_s:
                continue
            if one.device.fenced or not self.dead:
                one.write_safe()

    def next_expiry_s(self) -> float:
        """Simulated time at which its next lease ends; infinite if it holds none."""
        ends = [
            one.lease.valid_until_boot_s + self.boot_at_s
            for one in self.devices.values()
            if one.lease is not None and (one.device.fenced or not self.dead)
        ]
        return min(ends, default=np.inf)

    def shift(self, by_s: float) -> None:
        """Move all its clocks with a stretch of time in which nothing happens."""
        self.boot_at_s += by_s

    def read(self, now_s: float) -> ev.Readings:
        """Read its devices."""
        rows = list(self.devices.values())
        boot_s = self.boot_s(now_s)
        watts = [np.nan if d.unreadable or d.blind else d.sampled_w() for d in rows]
        rates = [np.nan if d.unreadable else d.hashrate_h_per_s(d.watts_w) for d in rows]
        held = [np.nan if d.lease is None else d.lease.watts_w for d in rows]
        lasts = [np.nan if d.lease is None else d.lease.valid_until_boot_s - boot_s for d in rows]
        return ev.Readings(
            devices=tuple(self.devices),
            at_s=np.full(len(rows), now_s),
            watts_w=np.array(watts, dtype=np.float64),
            limit_w=np.full(len(rows), np.nan),
            hashrate_h_per_s=np.array(rates, dtype=np.float64),
            held_w=np.array(held, dtype=np.float64),
            held_for_s=np.array(lasts, dtype=np.float64),
            held_mode=tuple("" if d.lease is None else d.lease.mode for d in rows),
            foreign=np.array([d.foreign for d in rows], dtype=np.bool_),
            failed=np.array([d.unreadable for d in rows], dtype=np.bool_),
        )


def agent_of(name: str, devices: dict[str, ModelledDevice], rng: random.Random) -> ModelledAgent:
    """An agent whose host has been up for a random while."""
    return ModelledAgent(name, devices, boot_at_s=-rng.uniform(10.0, 1e6))
