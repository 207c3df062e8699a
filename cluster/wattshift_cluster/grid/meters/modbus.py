"""A meter over Modbus TCP: SunSpec's own layout, or a register map that the owner writes.

A meter of this kind has no clock: its sample is as old as the question. Each poll has one deadline
over all its requests, and a connection that an answer may still be under way on is closed, so that
no answer is taken for the next one's.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from wattshift_cluster.grid.meters.latest import Latest, Sample
from wattshift_cluster.grid.meters.pause import Pause
from wattshift_cluster.grid.meters.reading import MeterReading, Quality
from wattshift_cluster.grid.meters.registers import (
    Place,
    ReadWords,
    RegisterRefused,
    Table,
    read_place,
)
from wattshift_cluster.grid.meters.values import Values, lowest

MAX_VOLTAGES = 3


class Plan(Protocol):
    """What to read, and how."""

    async def read(self, read: ReadWords) -> Values:
        """Read the values. Raises: ValueError what is wrong with them, and what `read` raises."""
        ...


@dataclass(frozen=True, slots=True)
class RegisterPlan:
    """A register map: where each value stands; None where the meter has no such value."""

    watts: Place
    energy: Place | None = None
    frequency: Place | None = None
    voltages: tuple[Place, ...] = ()

    async def read(self, read: ReadWords) -> Values:
        """See `Plan`."""
        energy_wh = hz = None
        watts_w = await read_place(read, self.watts)
        if self.energy is not None:
            energy_wh = await read_place(read, self.energy, counter=True)
        if self.frequency is not None:
            hz = await read_place(read, self.frequency)
        volts_v = [await read_place(read, one) for one in self.voltages[:MAX_VOLTAGES]]
        wraps_wh = None if self.energy is None else self.energy.wraps
        return Values(watts_w, energy_wh, hz, lowest(volts_v), wraps_wh)


class _Away(Exception):
    """No connection, or no answer on it."""


class ModbusMeter:
    """Polls one device. A device that is away is left alone for a while after each failure."""

    def __init__(
        self,
        host: str,
        port: int,
        unit: int,
        plan: Plan,
        *,
        stale_after_s: float = 3.0,
        deadline_s: float = 1.0,
        quality: Quality = "measured",
        pause: Pause | None = None,
        wall_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: unit: the device id; deadline_s: of a whole poll, s; pause: after failures."""
        self._unit = unit
        self._plan = plan
        self._deadline_s = deadline_s
        self._quality = quality
        self._wall_s = wall_s
        self._latest = Latest(stale_after_s, wall_s, steady_s)
        self._pause = pause or Pause(steady_s=steady_s)
        # Reconnecting is ours: the library would do it unseen and in its own time.
        self._client = AsyncModbusTcpClient(
            host, port=port, timeout=deadline_s, retries=0, reconnect_delay=0
        )

    async def poll(self) -> MeterReading:
        """See `reading.Meter`."""
        if self._pause.resting:
            return self.reading()
        asked_s = self._wall_s()
        try:
            async with asyncio.timeout(self._deadline_s):
                if not self._client.connected and not await self._client.connect():
                    raise _Away("no connection")
                found = await self._plan.read(self._read)
            self._latest.take(self._sample(found, asked_s))
            self._pause.worked()
        except TimeoutError:
            self._lost(f"no answer within {self._deadline_s:g} s")
        except (_Away, ModbusException, OSError) as fault:
            self._lost(str(fault) or type(fault).__name__)
        except asyncio.CancelledError:
            self._client.close()
            raise
        except (RegisterRefused, ValueError) as fault:
            self._latest.fail(str(fault))
        return self.reading()

    def reading(self) -> MeterReading:
        """See `reading.Meter`."""
        return self._latest.reading()

    async def close(self) -> None:
        """See `reading.Meter`."""
        self._client.close()

    def _lost(self, why: str) -> None:
        self._client.close()
        self._pause.failed()
        self._latest.fail(why)

    def _sample(self, found: Values, asked_s: float) -> Sample:
        return Sample(
            found.watts_w,
            asked_s,
            self._quality,
            energy_wh=found.energy_wh,
            hz=found.hz,
            volts_v=found.volts_v,
            wraps_wh=found.wraps_wh,
        )

    async def _read(self, table: Table, address: int, count: int) -> Sequence[int]:
        ask: Any = (
            self._client.read_holding_registers
            if table == "holding"
            else self._client.read_input_registers
        )
        answer = await ask(address, count=count, device_id=self._unit)
        if answer.isError():
            raise RegisterRefused(address, int(getattr(answer, "exception_code", 0)))
        if len(answer.registers) != count:
            raise _Away(f"{len(answer.registers)} registers instead of {count}")
        words: list[int] = answer.registers
        return words
