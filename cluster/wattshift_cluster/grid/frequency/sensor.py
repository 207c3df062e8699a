"""What every frequency sensor can do, and which one a file asks for."""

from typing import Protocol

from wattshift_cluster.config.frequency import Frequency
from wattshift_cluster.grid.frequency.heard import Heard


class FrequencySensor(Protocol):
    """Speaks whenever it has measured."""

    @property
    def fault(self) -> str | None:
        """Why it does not speak; None while it does, or before anything is known."""
        ...

    async def run(self, heard: Heard) -> None:
        """Speak until cancelled. Faults of the outside world are kept in `fault`, not raised."""
        ...


def open_sensor(section: Frequency) -> FrequencySensor:
    """The sensor of a section; nothing is opened before it runs."""
    if section.feed is not None:
        from wattshift_cluster.grid.frequency.feed import Feed

        return Feed(section.feed)
    if section.modbus is not None:
        from wattshift_cluster.grid.frequency.register import Registers

        return Registers(section.modbus)
    assert section.replay is not None, "the section has one sensor"
    from wattshift_cluster.grid.frequency.replay import Replay

    return Replay(section.replay)
