"""Who stands beside the controller: told what is decided, or asked; none of them is waited for."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from wattshift_cluster.economics.feed import Known
from wattshift_cluster.grid.meters.reading import MeterReading
from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.decisions import AnyDecision
from wattshift_scheduler.state import Alarm, State


class Witness(Protocol):
    """Who writes down what is read and decided, and never makes the controller wait."""

    @property
    def alarms(self) -> Mapping[str, Alarm]:
        """Alarms about the writing, by id."""
        ...

    def sampled(self, source: str, reading: MeterReading, now_s: float) -> None:
        """A meter was asked: the site's, or that of the feeder of that name."""
        ...

    def turned(self, state: State, now_s: float) -> None:
        """The core has decided; the commands are on their way."""
        ...

    def told(self, decisions: Iterable[AnyDecision]) -> None:
        """Something was decided, in a turn or by a person."""
        ...


class Hashprice(Protocol):
    """The feed of the hashprice, for the view of it and for an operator's word on what it holds."""

    def known(self) -> Known:
        """The hashprice now."""
        ...

    async def confirm(self, by: str) -> list[str]:
        """Take what is held; returns the figures that are now in force."""
        ...


class Lookahead(Protocol):
    """Who plans the next hours."""

    @property
    def count(self) -> int:
        """How many plans were made."""
        ...

    @property
    def alarms(self) -> Mapping[str, Alarm]:
        """Alarms about the plan, by id."""
        ...

    def view(self, now_s: float, hours: float | None) -> dict[str, Any]:
        """The plan as people are shown it; so many hours of it, None for all."""
        ...


class PeakAhead(Protocol):
    """A source that knows when a whole grid may peak (grid.peaks.coincident.PeakSource)."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def interval_s(self) -> float:
        """Over which the grid's operator averages, s."""
        ...

    @property
    def ahead(self) -> tuple[Floats, Floats] | None:
        """When each interval begins, and its chance to be its period's peak; None while unknown."""
        ...
