"""What a source of grid signals says: caps, targets, prices, alerts and events, all of it at once.

Every way in (a utility's OpenADR server, a price feed, a Modbus master, a drill) ends in the same
words, so that what follows does not care where they came from. A source replaces all that it said
before; one that is silent or at fault says so and never takes a cap back by failing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from wattshift_scheduler.signals.words import Cap, GridEvent, Target


class Alert(StrEnum):
    """What an alert asks of the site."""

    LEAST = "least"
    """Draw as little as possible until it is cleared."""

    NOTICE = "notice"
    """Nothing by itself: shown to people."""


@dataclass(frozen=True, slots=True)
class AlertSaid:
    """An alert: which, what it asks, its words for people, and its span; `ends_s` None is open."""

    id: str
    name: str
    asks: Alert
    text: str
    starts_s: float
    ends_s: float | None


@dataclass(frozen=True, slots=True)
class Steps:
    """A series that holds each value until the next time, and the last one until `ends_s`.

    Attributes:
        times_s: unix times, rising, s.
        values: one for each time; the unit is the field's that holds it.
        ends_s: when the last value ends, s.
        told_s: when the source told of it, s.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]
    ends_s: float
    told_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """All that one source says now.

    Attributes:
        source: its name, unique in the site.
        heard_s: last contact with it, unix time, s.
        caps, targets, alerts, events: what it asks.
        prices_usd_per_mwh, carbon_g_per_kwh: what energy costs; None: it does not speak of that.
        notes: what it said that was not taken, each with the reason.
        fault: why it was not heard lately; None while all is well.
    """

    source: str
    heard_s: float
    caps: tuple[Cap, ...] = ()
    targets: tuple[Target, ...] = ()
    alerts: tuple[AlertSaid, ...] = ()
    events: tuple[GridEvent, ...] = ()
    prices_usd_per_mwh: Steps | None = None
    carbon_g_per_kwh: Steps | None = None
    notes: tuple[str, ...] = ()
    fault: str | None = None


Say = Callable[[Said], None]


class Source(Protocol):
    """A way in for signals; it says what it has whenever that changes."""

    @property
    def name(self) -> str:
        """Its name, unique in the site."""
        ...

    async def run(self, say: Say) -> None:
        """Speak until cancelled; faults of the outside world are said, not raised."""
        ...
