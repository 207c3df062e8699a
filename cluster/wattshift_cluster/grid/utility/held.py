"""What the utility's master has written: what may be written, what it asks, and what survives.

A write is taken whole or refused whole. The set point stays in a file, so that a restart forgets no
cap. The heartbeat does not: after a start the master has to show anew that it lives, and until then
the fallback holds beside its last set point, whichever is lower.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wattshift_cluster.config.quantities import format_watts
from wattshift_cluster.grid.utility.called import Called
from wattshift_cluster.grid.utility.frames import Code, RequestRefused
from wattshift_cluster.grid.utility.registers import TABLE, Register, decode
from wattshift_cluster.grid.whole_file import replace_file
from wattshift_scheduler.signals.words import Cap

ORIGIN = "utility"
PRIORITY_LOWEST = 9
MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Held:
    """What the master has written.

    Attributes:
        setpoint_w: its cap, W; None: never written.
        enabled: whether it holds.
        ramp_w_per_s: steepest fall towards it, W/s; infinite: at once.
        priority: 0 is highest.
        called: since when, or from when to when, it curtails the site.
    """

    setpoint_w: float | None = None
    enabled: bool = False
    ramp_w_per_s: float = math.inf
    priority: int = 0
    called: Called = field(default_factory=Called)

    def timed(self, connection_w: float, now_s: float) -> "Held":
        """The same, with the times at which it begins and ceases to curtail the site."""
        limits_w = self.setpoint_w if self.enabled and self.setpoint_w is not None else math.inf
        called = self.called.turned(curtails=limits_w < connection_w, now_s=now_s)
        return self if called is self.called else replace(self, called=called)

    def caps(self, fallback_w: float | None) -> tuple[Cap, ...]:
        """What it asks; `fallback_w` is not None while the heartbeat is lost, and only lowers."""
        caps = []
        if self.enabled and self.setpoint_w is not None:
            caps.append(
                Cap(
                    "setpoint",
                    ORIGIN,
                    self.setpoint_w,
                    priority=self.priority,
                    ramp_w_per_s=self.ramp_w_per_s,
                )
            )
        if fallback_w is not None:
            caps.append(Cap("heartbeat-lost", ORIGIN, fallback_w))
        return tuple(caps)


class Pulse:
    """The master's heartbeat. Life is a change of value; the first value after a start is none."""

    def __init__(self, within_s: float) -> None:
        """Args: within_s: how soon it must change again, s."""
        self.within_s = within_s
        self.value: int | None = None
        self.changed_s: float | None = None

    def beat(self, value: int, now_s: float) -> None:
        """The master wrote it."""
        if self.value is not None and value != self.value:
            self.changed_s = now_s
        self.value = value

    def age_s(self, now_s: float) -> float | None:
        """Since it last changed, s; None: it never did."""
        return None if self.changed_s is None else max(now_s - self.changed_s, 0.0)

    def lost(self, now_s: float) -> bool:
        """Whether it has not changed in time."""
        age_s = self.age_s(now_s)
        return age_s is None or age_s >= self.within_s

    def due_s(self, now_s: float) -> float | None:
        """How long it may still stay away, s; None: it is lost."""
        age_s = self.age_s(now_s)
        return None if age_s is None or age_s >= self.within_s else self.within_s - age_s


def taken_apart(address: int, words: tuple[int, ...]) -> dict[str, float | None]:
    """The values of a write, by register name. Raises: RequestRefused, not whole values or not
    registers that are written."""
    found: dict[str, float | None] = {}
    at = address
    while at < address + len(words):
        register = _at(at)
        if register is None or not register.writable or register.ends > address + len(words):
            raise RequestRefused(Code.ADDRESS, f"register {at} is not written so")
        found[register.name] = decode(register, words[at - address : register.ends - address])
        at = register.ends
    return found


def _at(address: int) -> Register | None:
    return next((one for one in TABLE if one.address == address), None)


def written(held: Held, values: Mapping[str, float | None], connection_w: float) -> Held:
    """What is held after a write. The heartbeat is none of its business.

    Raises:
        RequestRefused: a set point that is no number or above the connection, a switch that is
            neither 0 nor 1, a set point that is enabled and was never written.
    """
    setpoints = {values[name] for name in ("setpoint_w", "setpoint_float_w") if name in values}
    if len(setpoints) > 1:
        raise RequestRefused(Code.VALUE, "two set points that differ")
    for watts_w in setpoints:
        held = replace(held, setpoint_w=_setpoint(watts_w, connection_w))
    if "ramp_w_per_s" in values:
        ramp_w_per_s = _whole(values["ramp_w_per_s"], "ramp_w_per_s")
        held = replace(held, ramp_w_per_s=ramp_w_per_s if ramp_w_per_s > 0 else math.inf)
    if "priority" in values:
        priority = int(_whole(values["priority"], "priority"))
        if priority > PRIORITY_LOWEST:
            raise RequestRefused(Code.VALUE, f"priority {priority}")
        held = replace(held, priority=priority)
    if "enable" in values:
        switch = _whole(values["enable"], "enable")
        if switch not in (0, 1):
            raise RequestRefused(Code.VALUE, f"enable {switch:g}")
        held = replace(held, enabled=switch == 1)
    if held.enabled and held.setpoint_w is None:
        raise RequestRefused(Code.VALUE, "enabled before a set point was written")
    return held


def _setpoint(watts_w: float | None, connection_w: float) -> float:
    if watts_w is None or not math.isfinite(watts_w) or watts_w < 0:
        raise RequestRefused(Code.VALUE, "a set point that is no number of watts")
    if watts_w > connection_w:
        told = f"{format_watts(watts_w)} is above the connection of {format_watts(connection_w)}"
        raise RequestRefused(Code.VALUE, f"set point {told}")
    return watts_w


def _whole(value: float | None, name: str) -> float:
    if value is None:
        raise RequestRefused(Code.VALUE, f"{name} that is no number")
    return value


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = Field(1, ge=1, le=1)
    setpoint_w: float | None = Field(ge=0, allow_inf_nan=False)
    enabled: bool
    ramp_w_per_s: float | None = Field(gt=0, allow_inf_nan=False)
    priority: int = Field(ge=0, le=PRIORITY_LOWEST)
    called_s: float | None = Field(None, ge=0, allow_inf_nan=False)
    ended_s: float | None = Field(None, ge=0, allow_inf_nan=False)


class HeldFile:
    """The file, written whole or not at all, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        """Args: path: the file."""
        self.path = path

    def read(self) -> tuple[Held, str | None]:
        """What was kept, and why nothing could be read; a file that never was is no fault."""
        try:
            with self.path.open("rb") as file:
                kept = _File.model_validate_json(file.read(MAX_BYTES))
        except FileNotFoundError:
            return Held(), None
        except (OSError, ValidationError) as wrong:
            reason = wrong.strerror if isinstance(wrong, OSError) else "damaged"
            return Held(), f"{self.path.name} cannot be read: {reason}"
        ramp_w_per_s = math.inf if kept.ramp_w_per_s is None else kept.ramp_w_per_s
        enabled = kept.enabled and kept.setpoint_w is not None
        called = Called.at(kept.called_s, kept.ended_s)
        return Held(kept.setpoint_w, enabled, ramp_w_per_s, kept.priority, called), None

    def write(self, held: Held) -> None:
        """Replace the file. Raises: OSError."""
        ramp_w_per_s = held.ramp_w_per_s if math.isfinite(held.ramp_w_per_s) else None
        body = _File(
            version=1,
            setpoint_w=held.setpoint_w,
            enabled=held.enabled,
            ramp_w_per_s=ramp_w_per_s,
            priority=held.priority,
            called_s=held.called.starts_s,
            ended_s=held.called.ends_s,
        ).model_dump_json()
        replace_file(self.path, body)
