"""What goes wrong, when, and for how long: a schedule drawn from a seed.

The same seed breaks the same things at the same simulated seconds, so a failure is one number.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from wattshift_cluster.simulate.world import World


class FaultKind(StrEnum):
    """The ways in which the modelled world breaks."""

    AGENT_SILENT = "agent-silent"
    AGENT_DEAD = "agent-dead"
    HOST_REBOOT = "host-reboot"
    READING_LOST = "reading-lost"
    READING_NAN = "reading-nan"
    SET_POINT_IGNORED = "set-point-ignored"
    FOREIGN_WRITE = "foreign-write"
    METER_LOST = "meter-lost"
    CONTROLLER_RESTART = "controller-restart"


LONGEST_S: Mapping[FaultKind, float] = MappingProxyType(
    {
        FaultKind.AGENT_SILENT: 90.0,
        FaultKind.AGENT_DEAD: 60.0,
        FaultKind.HOST_REBOOT: 1.0,
        FaultKind.READING_LOST: 120.0,
        FaultKind.READING_NAN: 120.0,
        FaultKind.SET_POINT_IGNORED: 300.0,
        FaultKind.FOREIGN_WRITE: 60.0,
        FaultKind.METER_LOST: 120.0,
        FaultKind.CONTROLLER_RESTART: 40.0,
    }
)
"""Longest time that a fault of each kind lasts, s: beyond a lease's life wherever that matters."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: what breaks.
        subject: the agent or device; empty for the meter and the controller.
        starts_s, ends_s: simulated time, s.
    """

    kind: FaultKind
    subject: str
    starts_s: float
    ends_s: float


def schedule(
    world: World, seed: int, until_s: float, per_day: float, kinds: Sequence[FaultKind]
) -> tuple[Fault, ...]:
    """Draw faults, in order of their start.

    Args:
        world: what can break.
        seed: the same seed gives the same faults.
        until_s: length of the run, s.
        per_day: faults a day, on average.
        kinds: the kinds to draw from.
    """
    if per_day <= 0 or not kinds:
        return ()
    rng = random.Random(f"faults {seed}")
    agents, devices = sorted(world.agents), sorted(world.devices)
    faults: list[Fault] = []
    at_s = 0.0
    while True:
        at_s += rng.expovariate(per_day / 86400.0)
        if at_s >= until_s:
            return tuple(faults)
        kind = rng.choice(kinds)
        lasts_s = rng.uniform(0.05, 1.0) * LONGEST_S[kind]
        of_agent = kind in (FaultKind.AGENT_SILENT, FaultKind.AGENT_DEAD, FaultKind.HOST_REBOOT)
        whole = kind in (FaultKind.METER_LOST, FaultKind.CONTROLLER_RESTART)
        subject = "" if whole else rng.choice(agents if of_agent else devices)
        faults.append(Fault(kind, subject, at_s, at_s + lasts_s))


def begin(world: World, fault: Fault) -> None:
    """Break it."""
    _SWITCHES[fault.kind](world, fault.subject, True)


def end(world: World, fault: Fault) -> None:
    """Mend it."""
    _SWITCHES[fault.kind](world, fault.subject, False)


def counted(faults: Sequence[Fault]) -> dict[str, int]:
    """How many of each kind."""
    return dict(sorted(Counter(fault.kind.value for fault in faults).items()))


def _silent(world: World, agent: str, on: bool) -> None:
    world.agents[agent].silent = on


def _dead(world: World, agent: str, on: bool) -> None:
    if on:
        world.agents[agent].dead = True
    elif world.agents[agent].dead:
        world.agents[agent].revive()


def _reboot(world: World, agent: str, on: bool) -> None:
    if on:
        world.agents[agent].reboot(world.now_s)


def _unreadable(world: World, device: str, on: bool) -> None:
    world.devices[device].unreadable = on


def _blind(world: World, device: str, on: bool) -> None:
    world.devices[device].blind = on


def _ignored(world: World, device: str, on: bool) -> None:
    one = world.devices[device]
    if one.device.fenced:
        return  # a gate is closed from outside; it has nothing to ignore
    one.ignores = on
    if not on and one.lease is None:
        one.write_safe()


def _foreign(world: World, device: str, on: bool) -> None:
    one = world.devices[device]
    if one.device.fenced:
        return
    if on:
        one.meddle()
    elif one.foreign:
        one.foreign = False
        if one.lease is None:
            one.write_safe()
        else:
            one.write(one.lease.mode, one.lease.watts_w)


def _meter(world: World, _subject: str, on: bool) -> None:
    world.meter_lost = on


def _controller(_world: World, _subject: str, _on: bool) -> None:
    """The controller is not of this world: `run` stops and restarts it."""


_SWITCHES: Mapping[FaultKind, Callable[[World, str, bool], None]] = MappingProxyType(
    {
        FaultKind.AGENT_SILENT: _silent,
        FaultKind.AGENT_DEAD: _dead,
        FaultKind.HOST_REBOOT: _reboot,
        FaultKind.READING_LOST: _unreadable,
        FaultKind.READING_NAN: _blind,
        FaultKind.SET_POINT_IGNORED: _ignored,
        FaultKind.FOREIGN_WRITE: _foreign,
        FaultKind.METER_LOST: _meter,
        FaultKind.CONTROLLER_RESTART: _controller,
    }
)
