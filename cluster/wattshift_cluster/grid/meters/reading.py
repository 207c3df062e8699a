"""What a meter says, with its age always: the one measurement that closes the loop (I9).

A reading that is missing, malformed or stale is unknown, and unknown is None, never zero (I3).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

Quality = Literal["measured", "emulated", "modelled"]
QUALITIES: tuple[str, ...] = ("measured", "emulated", "modelled")


class Flaw(StrEnum):
    """What can be wrong with what a meter says."""

    NAN = "nan"
    """No number at all, or an infinite one."""

    BACKWARDS = "backwards"
    """Its clock went back."""

    BEYOND = "beyond"
    """More than the connection can carry."""

    FROZEN = "frozen"
    """The same value on and on while the site changes."""

    NEGATIVE = "negative"
    """Power flows out of a site that has none to give."""

    SWAPPED = "swapped"
    """Its sign is the wrong way round."""

    WRAPPED = "wrapped"
    """Its energy counter started again from zero, as counters do; corrected."""

    COUNTER_BACK = "counter-back"
    """Its energy counter went back, and not by starting again."""

    COUNTER_JUMP = "counter-jump"
    """Its energy counter rose by more than the connection can have carried."""

    IMPLAUSIBLE = "implausible"
    """A frequency or voltage that no grid has."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A flaw in one reading, and its words for people."""

    flaw: Flaw
    text: str


@dataclass(frozen=True, slots=True)
class MeterPart:
    """One part of the site's power; `watts_w` None is unknown."""

    name: str
    watts_w: float | None
    quality: Quality


@dataclass(frozen=True, slots=True)
class MeterReading:
    """The meter as it can be trusted now.

    Attributes:
        watts_w: site power, W; None is unknown or stale.
        at_s: when the meter took it, unix time, s; None if it never answered.
        age_s: how old that is; None if it never answered.
        quality: how it was obtained; None if it never answered.
        parts: what it is made of, as told.
        fault: why the reading is unknown, or why no newer one came; None when all is well.
        energy_wh: its counter of imported energy, Wh; None is unknown, or it has none.
        hz: frequency, Hz; None is unknown, or it has none.
        volts_v: the lowest phase, V; None is unknown, or it has none.
        wraps_wh: where its energy counter starts again, Wh; None: not known, or never.
        findings: what is wrong with the reading, and was corrected or made unknown.
    """

    watts_w: float | None
    at_s: float | None
    age_s: float | None
    quality: Quality | None
    parts: tuple[MeterPart, ...] = ()
    fault: str | None = None
    energy_wh: float | None = None
    hz: float | None = None
    volts_v: float | None = None
    wraps_wh: float | None = None
    findings: tuple[Finding, ...] = ()


class Meter(Protocol):
    """A meter of any kind."""

    async def poll(self) -> MeterReading:
        """Ask it once, within its deadline, and return the reading. Does not raise."""
        ...

    def reading(self) -> MeterReading:
        """What it said last, with its present age; stale ones have no watts."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
