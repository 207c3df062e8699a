"""The contract between an agent and one ASIC: identify, read, set a point, sleep, wake.

Four rules hold for every driver:

- Every exchange with the machine has a deadline, and a call is a handful of exchanges.
- A command that returns was *accepted* by the machine. It was not carried out yet, and a firmware's
  word for it proves nothing: only measured watts do (`fleet.curtail`).
- A value that the machine did not report is None. It is never zero, and never the last one seen.
- Pools, passwords and network settings are out of reach: there is no method that writes them.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from wattshift_cluster.errors import Refused, Unreachable

SLEEP = "sleep"


class AsicUnreachable(Unreachable):
    """The machine gave no usable answer in time: no connection, silence, or garbage."""

    def __init__(self, address: str, doing: str, reason: str) -> None:
        super().__init__(f"{address}: {doing}: {reason}")
        self.address = address
        self.doing = doing
        self.reason = reason


class AsicRefused(Refused):
    """The machine, or its driver on its behalf, declined a command and said why."""

    def __init__(self, address: str, doing: str, reason: str) -> None:
        super().__init__(f"{address}: {doing}: {reason}")
        self.address = address
        self.doing = doing
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the owner configured for a machine; never guessed, a maker's default included."""

    password: str = field(repr=False)
    username: str | None = None


@dataclass(frozen=True, slots=True)
class AsicPoint:
    """One state in which the machine can be held.

    Attributes:
        mode: the point's name, as a lease carries it ("sleep", a profile, "limit:1204").
        watts_w: draw once settled, W. For sleep an upper bound of the standby draw.
        hashrate_h_per_s: hashes per second once settled.
        transition_s: seconds after the accepted command within which the draw is settled.
    """

    mode: str
    watts_w: float
    hashrate_h_per_s: float
    transition_s: float


@dataclass(frozen=True, slots=True)
class AsicIdentity:
    """What a machine is and what it offers.

    Attributes:
        address: where it answers.
        model, firmware: as the machine names them, e.g. "Antminer S19k Pro", "LuxOS 2025.4.8".
        mac: hardware address in upper case, None where the firmware does not tell.
        algorithm: the proof of work it computes.
        nameplate_w: the most it draws at any offered point or at its rating, W.
        tolerance: share by which the real draw may exceed a point's watts.
        safe_w: draw at the safe point (sleep), W.
        power_on_w: draw after a power cycle with no command from us, W. A rig resumes by itself.
        continuous: whether any watts between the points can be set, too.
        points: ascending by watts; the first is sleep.
        serial: of the control board or the machine, None where the firmware does not tell.
    """

    address: str
    model: str
    firmware: str
    mac: str | None
    algorithm: str
    nameplate_w: float
    tolerance: float
    safe_w: float
    power_on_w: float
    continuous: bool
    points: tuple[AsicPoint, ...]
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class AsicReading:
    """One sample as the firmware reports it. Firmware watts may be 5 to 20 % off a real meter.

    Attributes:
        at_boot_s: boot clock of this host when the answer was complete, s.
        watts_w, hashrate_h_per_s, temperature_c: None where not reported or not a sane number.
        power_limit_w: the limit that the firmware says it enforces, W; None where it has none.
        inlet_c: of the air that it breathes, °C; None where not reported.
        mode: the set point that the firmware says it holds; None where it cannot be told. It shows
            that somebody else wrote to the machine. It never shows that the draw followed.
        estimated: the watts are the firmware's estimate, not those of a sensor.
    """

    at_boot_s: float
    watts_w: float | None
    hashrate_h_per_s: float | None
    temperature_c: float | None
    power_limit_w: float | None
    mode: str | None = None
    estimated: bool = False
    inlet_c: float | None = None


class AsicDriver(Protocol):
    """One machine. Every method raises AsicUnreachable, commands also AsicRefused."""

    @property
    def address(self) -> str:
        """Where the machine answers."""
        ...

    async def identify(self) -> AsicIdentity:
        """Read model, firmware and points afresh."""
        ...

    async def prepare(self) -> None:
        """Hold ready what a command needs (a login, an open connection); may be repeated.

        Nothing is changed on the machine. A driver whose firmware knows no login does nothing.
        """
        ...

    async def poll(self) -> AsicReading:
        """Watts and hashrate alone, at the least cost; other fields may be None."""
        ...

    async def read(self) -> AsicReading:
        """Take one full sample."""
        ...

    async def close(self) -> None:
        """Let go of what is held: connections, logins. Sends no command."""
        ...

    async def set_point(self, mode: str, watts_w: float) -> None:
        """Hold the point `mode` while drawing at most `watts_w`; wakes a sleeping machine.

        A machine on its way up never passes through a point higher than the one asked for.
        """
        ...

    async def sleep(self) -> None:
        """Stop hashing and drop to standby draw; safe to repeat."""
        ...

    async def wake(self) -> None:
        """Resume at the point last set; safe to repeat."""
        ...


@runtime_checkable
class Slow(Protocol):
    """A driver whose commands may take longer than a handful of exchanges usually do."""

    @property
    def command_s(self) -> float:
        """Seconds within which each of its commands has ended, one way or the other."""
        ...


@runtime_checkable
class Choosing(Protocol):
    """A driver of a firmware that forgets, asleep, how its owner ran it.

    Attributes:
        owners_choice: that, in the driver's own words, to be handed to the next driver of the same
            machine; None while not known. Words that it does not know are ignored.
    """

    owners_choice: str | None


def command_s(driver: AsicDriver, usual_s: float) -> float:
    """The deadline of a command: the driver's own time where that is longer than usual."""
    return max(usual_s, driver.command_s) if isinstance(driver, Slow) else usual_s
