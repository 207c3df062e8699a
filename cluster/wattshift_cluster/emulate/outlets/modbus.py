"""An emulated cabinet of contactors over Modbus TCP, with auxiliary contacts and a watchdog.

Outlet n (0, 1, …) has coil n, discrete input n (its auxiliary contact) and input register n (its
draw in units of 10 W). A write to the holding register `WATCHDOG` feeds the watchdog.
"""

import asyncio
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from wattshift_cluster.emulate.outlets.strip import OutletFault, Strip

WATCHDOG = 100
WATTS_PER_UNIT_W = 10.0
MUTE_S = 60.0
_READ_COILS, _READ_INPUTS, _READ_REGISTERS = 1, 2, 4
_WRITE_COIL, _WRITE_REGISTER = 5, 6


class EmulatedModbusCabinet:
    """One device on one TCP port.

    Args:
        strip: its contactors, addressed in their order.
        unit: its device id.
    """

    def __init__(self, strip: Strip, unit: int = 1) -> None:
        self.strip = strip
        self._unit = unit
        self._server: Any = None
        self.port = 0

    async def start(self, host: str, port: int = 502) -> None:
        """Listen. Raises OSError where the port is in use or not allowed."""
        many = len(self.strip.outlets)
        bits = [SimData(0, count=many, values=False, datatype=DataType.BITS)]
        contacts = [SimData(0, count=many, values=False, datatype=DataType.BITS)]
        held = [SimData(WATCHDOG, values=0, datatype=DataType.UINT16)]
        draws = [SimData(0, count=many, values=0, datatype=DataType.UINT16)]
        device = SimDevice(
            self._unit,
            (bits, contacts, held, draws),
            use_bit_addressing=True,
            action=self._act,
        )
        self._server = ModbusTcpServer(device, address=(host, port))
        if not await self._server.listen():
            raise OSError(f"cannot listen on {host}:{port}")
        self.port = self._server.transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    async def _act(
        self,
        function: int,
        start: int,
        address: int,
        _count: int,
        held: list[int],
        wanted: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Do what a request asks, and put into the registers what it is to be answered."""
        strip = self.strip
        if strip.fault is OutletFault.MUTE:
            await asyncio.sleep(MUTE_S)
        if function == _WRITE_REGISTER and address == WATCHDOG:
            strip.feed()
            return None
        if not 0 <= address < len(strip.outlets):
            return ExcCodes.ILLEGAL_ADDRESS
        outlet = strip.outlets[address]
        if function == _WRITE_COIL and wanted is not None:
            accepted = strip.command(outlet, on=bool(wanted[0]))
            return None if accepted else ExcCodes.DEVICE_FAILURE
        if function in (_READ_COILS, _READ_INPUTS):
            word, bit = address // 16 - start, 1 << address % 16
            held[word] = held[word] | bit if strip.on(outlet) else held[word] & ~bit
        elif function == _READ_REGISTERS:
            watts_w = strip.reported_w(outlet)
            if watts_w is None:
                return ExcCodes.DEVICE_FAILURE
            held[address - start] = round(watts_w / WATTS_PER_UNIT_W)
        return None
