"""Who stands beside the controller: told what is decided, or asked; none of them is waited for."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from wattshift_cluster.economics.feed import Known
from wattshift_cluster.grid.meters.reading import MeterReading
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
