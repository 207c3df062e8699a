"""Frequency and voltage from a meter's registers over Modbus TCP, in one request a sample."""

import asyncio
import struct
from collections.abc import Sequence

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.frequency import FrequencyMeter, FrequencyRegister
from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.frequency.heard import Heard
from wattshift_scheduler.frequency.response import Sample

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between tries at a meter that does not answer; doubled each time."""

_FORMATS = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f"}


class MeterSilent(WattshiftError):
    """The meter does not answer, or with an error; the text says which."""


def value(registers: Sequence[int], one: FrequencyRegister, first: int, word_order: str) -> float:
    """A value out of the registers that begin at address `first`. Raises: MeterSilent."""
    at = one.address - first
    words = list(registers[at : at + one.words])
    if len(words) < one.words:
        raise MeterSilent("it answered with fewer registers than asked for")
    if word_order == "little":
        words.reverse()
    packed = struct.pack(f">{len(words)}H", *words)
    return float(struct.unpack(_FORMATS[one.type], packed)[0]) * one.scale


class Registers:
    """See `FrequencySensor`."""

    def __init__(self, section: FrequencyMeter) -> None:
        """Nothing is asked yet."""
        self._section = section
        ends = [one.address + one.words for one in (section.hz, section.volts) if one is not None]
        self._first = min(one.address for one in (section.hz, section.volts) if one is not None)
        self._count = max(ends) - self._first
        self.fault: str | None = None

    async def run(self, heard: Heard) -> None:
        """See `FrequencySensor`. A turn that is late is left out, so that none pile up."""
        section, pause_s, due_s = self._section, FIRST_PAUSE_S, boot_s()
        period_s = 1.0 / section.rate_hz
        # Reconnecting is ours: the library would do it unseen and in its own time.
        client = AsyncModbusTcpClient(
            section.address,
            port=section.port,
            timeout=section.deadline_s,
            retries=0,
            reconnect_delay=0,
        )
        try:
            while True:
                try:
                    heard(await self._read(client))
                except MeterSilent as fault:
                    self.fault = str(fault)
                    client.close()
                    await asyncio.sleep(pause_s)
                    pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
                    due_s = boot_s()
                    continue
                self.fault, pause_s = None, FIRST_PAUSE_S
                due_s = max(due_s + period_s, boot_s())
                await asyncio.sleep(due_s - boot_s())
        finally:
            client.close()

    async def _read(self, client: AsyncModbusTcpClient) -> Sample:
        """One sample, of the moment at which it was asked for. Raises: MeterSilent."""
        section = self._section
        try:
            async with asyncio.timeout(2 * section.deadline_s):
                if not client.connected and not await client.connect():
                    raise MeterSilent("no connection")
                asked_s = boot_s()
                holding = section.table == "holding"
                ask = client.read_holding_registers if holding else client.read_input_registers
                answer = await ask(self._first, count=self._count, device_id=section.unit)
        except (ModbusException, TimeoutError, OSError) as fault:
            raise MeterSilent(f"no answer: {type(fault).__name__}") from None
        if answer.isError():
            raise MeterSilent(f"Modbus exception {getattr(answer, 'exception_code', None)}")
        hz = value(answer.registers, section.hz, self._first, section.word_order)
        v_pu = None
        if section.volts is not None and section.nominal_v is not None:
            volts = value(answer.registers, section.volts, self._first, section.word_order)
            v_pu = volts / section.nominal_v
        return Sample(asked_s, hz, v_pu)
