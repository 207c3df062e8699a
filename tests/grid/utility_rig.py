"""The utility's Modbus server at work on loopback, and an independent client of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pymodbus.client import AsyncModbusTcpClient

from wattshift_cluster.config.utility import UtilityModbus
from wattshift_cluster.grid.said import Said
from wattshift_cluster.grid.utility.modbus_server import UtilityModbusSource
from wattshift_cluster.grid.utility.registers import (
    BY_NAME,
    decode,
    encode,
)
from wattshift_cluster.grid.utility.status import SiteFigures

HOST = "127.9.0.1"


CONNECTION_W = 10e6


FALLBACK_W = 4e6


HEARTBEAT_S = 30.0


FIGURES = SiteFigures(
    draw_w=5.5e6,
    draw_age_s=1.26,
    cap_w=6e6,
    least_w=1e6,
    sheds_w=(1e6, 1.5e6, 2e6, 3e6, None),
    alarms={"meter-stale": "warning", "agent-lost:a": "warning", "overdue": "critical"},
    software="1.2.3",
)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def config(**more: Any) -> UtilityModbus:
    given = {"listen": f"{HOST}:0", "peers": ("127.9.0.0/16",), "fallback": FALLBACK_W}
    return UtilityModbus(**(given | {"heartbeat": HEARTBEAT_S} | more))


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(2000):
        if happened():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("did not happen within 10 s")


class Rig:
    """A running source, what it said, and its clock."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.clock = Clock()
        self.said: list[Said] = []
        self.source = UtilityModbusSource(
            config(**more),
            folder,
            lambda: FIGURES,
            connection_w=CONNECTION_W,
            clock_s=self.clock,
            steady_s=self.clock,
        )

    @property
    def caps_w(self) -> dict[str, float]:
        return {cap.id: cap.limit_w for cap in self.said[-1].caps}


@asynccontextmanager
async def running(folder: Path, **more: Any) -> AsyncIterator[Rig]:
    rig = Rig(folder, **more)
    task = asyncio.create_task(rig.source.run(rig.said.append))
    await until(lambda: rig.source.port is not None)
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Master:
    """An independent Modbus client that speaks in register names."""

    def __init__(self, port: int, source: str = "127.9.0.2") -> None:
        self.client = AsyncModbusTcpClient(
            HOST, port=port, source_address=(source, 0), timeout=5, retries=0
        )

    async def put(self, name: str, value: float) -> int:
        """Write a register; 0, or the exception code."""
        register = BY_NAME[name]
        answer = await self.client.write_registers(
            register.address, list(encode(register, value)), device_id=1
        )
        return int(answer.exception_code) if answer.isError() else 0

    async def get(self, name: str) -> float | None:
        register = BY_NAME[name]
        answer = await self.client.read_input_registers(
            register.address, count=register.words, device_id=1
        )
        assert not answer.isError(), answer
        return decode(register, tuple(answer.registers))


@asynccontextmanager
async def master(rig: Rig) -> AsyncIterator[Master]:
    assert rig.source.port is not None
    made = Master(rig.source.port)
    assert await made.client.connect()
    try:
        yield made
    finally:
        made.client.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))
