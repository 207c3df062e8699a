"""Report payload types of OpenADR: which of them this site can answer, and with which readings.

Source of the names: report-payloads.schema.yaml of OpenADR 3.1.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Quality(StrEnum):
    """How far a value can be trusted (the protocol's own names)."""

    OK = "OK"
    MISSING = "MISSING"
    ESTIMATED = "ESTIMATED"
    BAD = "BAD"


class OperatingState(StrEnum):
    """How a resource runs, as far as OpenADR has a name for it."""

    NORMAL = "NORMAL"
    ERROR = "ERROR"
    IDLE_NORMAL = "IDLE_NORMAL"
    RUNNING_NORMAL = "RUNNING_NORMAL"
    RUNNING_CURTAILED = "RUNNING_CURTAILED"
    IDLE_CURTAILED = "IDLE_CURTAILED"


@dataclass(frozen=True, slots=True)
class Reading:
    """A power, W; None is unknown."""

    watts_w: float | None
    quality: Quality = Quality.OK


UNKNOWN = Reading(None, Quality.MISSING)


class Readings(Protocol):
    """What the site can tell of a resource over a span of unix time, s. None is the whole site.

    A mean over a span that is not over yet is unknown; a forecast may be asked of the future.
    """

    def mean_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Mean draw."""
        ...

    def peak_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Highest draw."""
        ...

    def baseline_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Mean draw that would have been without the event."""
        ...

    def forecast_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Mean draw that is expected."""
        ...

    def shed_available_w(self, resource: str | None, starts_s: float, ends_s: float) -> Reading:
        """Draw that could be given up for the whole span."""
        ...

    def setpoint_w(self, resource: str | None) -> Reading:
        """The draw that is held now."""
        ...

    def state(self, resource: str | None) -> OperatingState:
        """How it runs now."""
        ...


class Told(StrEnum):
    """Where the value of a report comes from."""

    ENERGY = "energy"
    DEMAND = "demand"
    BASELINE = "baseline"
    CHANGE = "change"
    FORECAST = "forecast"
    SHED = "shed"
    SETPOINT = "setpoint"
    STATE = "state"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a report type is answered with: where from, the units that can be told, the first by
    default, and why, where the answer is nothing."""

    told: Told
    units: tuple[str, ...] = ()
    why: str = ""


_STORAGE = Answer(Told.NOTHING, why="the site has no storage")
_MARKET = Answer(Told.NOTHING, why="the site buys and sells no capacity by itself")
_REGULATION = Answer(Told.NOTHING, why="regulation is not offered through OpenADR")

ANSWERS: Mapping[str, Answer] = {
    "READING": Answer(Told.DEMAND, ("KW", "W")),
    "USAGE": Answer(Told.ENERGY, ("KWH",)),
    "DEMAND": Answer(Told.DEMAND, ("KW", "W")),
    "SETPOINT": Answer(Told.SETPOINT, ("KW", "W")),
    "DELTA_USAGE": Answer(Told.CHANGE, ("KWH",)),
    "BASELINE": Answer(Told.BASELINE, ("KW", "KWH", "W")),
    "OPERATING_STATE": Answer(Told.STATE),
    "UP_REGULATION_AVAILABLE": _REGULATION,
    "DOWN_REGULATION_AVAILABLE": _REGULATION,
    "REGULATION_SETPOINT": _REGULATION,
    "STORAGE_USABLE_CAPACITY": _STORAGE,
    "STORAGE_CHARGE_LEVEL": _STORAGE,
    "STORAGE_MAX_DISCHARGE_POWER": _STORAGE,
    "STORAGE_MAX_CHARGE_POWER": _STORAGE,
    "SIMPLE_LEVEL": Answer(Told.NOTHING, why="levels are caps here; ask DEMAND or SETPOINT"),
    "USAGE_FORECAST": Answer(Told.FORECAST, ("KWH", "KW")),
    "STORAGE_DISPATCH_FORECAST": _STORAGE,
    "LOAD_SHED_DELTA_AVAILABLE": Answer(Told.SHED, ("KW", "KWH", "W")),
    "GENERATION_DELTA_AVAILABLE": Answer(Told.NOTHING, why="the site generates nothing"),
    "DATA_QUALITY": Answer(Told.NOTHING, why="it comes beside each value that is not sure"),
    "IMPORT_RESERVATION_CAPACITY": _MARKET,
    "IMPORT_RESERVATION_FEE": _MARKET,
    "EXPORT_RESERVATION_CAPACITY": _MARKET,
    "EXPORT_RESERVATION_FEE": _MARKET,
}
PRIVATE = Answer(Told.NOTHING, why="a private type whose meaning is agreed elsewhere")
ENERGY_UNITS = frozenset({"KWH"})


def answer(payload_type: str, units: str | None) -> Answer:
    """What a report is answered with; nothing, with the reason, where it cannot be told."""
    found = ANSWERS.get(payload_type, PRIVATE)
    if units is not None and found.units and units not in found.units:
        known = ", ".join(found.units)
        return Answer(Told.NOTHING, why=f"it can be told in {known}, not in {units[:20]!r}")
    return found
