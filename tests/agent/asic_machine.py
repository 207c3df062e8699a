"""A machine in memory for the tests of an agent's ASICs, and the sweep that drives it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from wattshift_cluster.agent.asics.contact import Rhythm
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.asics.sweep import AsicSweep
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicIdentity,
    AsicPoint,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic
from wattshift_cluster.fleet.curtail import Pace

POINTS = (
    AsicPoint(SLEEP, 30.0, 0.0, 0.0),
    AsicPoint("low", 1000.0, 50e12, 0.0),
    AsicPoint("high", 3000.0, 120e12, 0.0),
)
IDENTITY = AsicIdentity(
    address="10.0.0.9",
    model="S19k Pro",
    firmware="test",
    mac=None,
    algorithm="sha256d",
    nameplate_w=3000.0,
    tolerance=0.05,
    safe_w=30.0,
    power_on_w=3000.0,
    continuous=False,
    points=POINTS,
)
ASIC = Asic(id="rig1", address="10.0.0.9", nameplate_w=2760.0)
EMULATED = Asic(id="rig1", address="10.0.0.9", emulated=True)
FAST = Rhythm(poll_s=0.02, lookup_s=(0.05,), alarm_s=0.3, settle_s=0.2)
QUICK = Pace(retry_s=(0.05,), margin_s=0.1, failed_retry_s=0.2, drift_pause_s=0.1)

PATIENT = replace(QUICK, tries=1_000_000, failed_after_s=1e9)
"""Never calls a command failed, so that a test may take its time to see it open."""


class Machine:
    """A machine in memory: what was written to it, and faults on demand.

    Attributes:
        mode: the point that it draws at.
        deaf: it takes commands and does not follow them.
        blind: it reports no watts.
        blank: it reports neither watts nor hashrate nor mode.
        silent: it answers no question, and would take commands.
    """

    address = "10.0.0.9"

    def __init__(self, mode: str = "high", mac: str | None = None) -> None:
        self.mode: str | None = mode
        self.mac = mac
        self.written: list[str] = []
        self.asked: list[str] = []
        self.unreachable = False
        self.refuse = False
        self.deaf = False
        self.blind = self.blank = self.silent = False
        self.board_c: float | None = None
        self.slow_s = self.slow_sleep_s = self.slow_poll_s = 0.0
        self.written_s: list[float] = []

    async def connect(self, _: Asic) -> "Machine":
        self._answer()
        return self

    async def identify(self) -> AsicIdentity:
        self._answer("identify")
        return replace(IDENTITY, mac=self.mac)

    async def read(self) -> AsicReading:
        self._answer("read")
        return self._sample(self.board_c)

    async def poll(self) -> AsicReading:
        self._answer("poll")
        sample = self._sample(None)
        await asyncio.sleep(self.slow_poll_s)
        return replace(sample, at_boot_s=boot_s())

    async def prepare(self) -> None:
        self._answer("prepare")

    async def close(self) -> None:
        self.asked.append("close")

    async def set_point(self, mode: str, watts_w: float) -> None:
        self._answer()
        await asyncio.sleep(self.slow_s)
        self._take(mode)

    async def sleep(self) -> None:
        self._answer()
        await asyncio.sleep(self.slow_sleep_s)
        self._take(SLEEP)

    async def wake(self) -> None:
        raise AssertionError("a wake could raise the draw past the lease")

    def _take(self, mode: str) -> None:
        if self.refuse:
            raise AsicRefused(self.address, f"set {mode}", "no")
        self.written.append(mode)
        self.written_s.append(boot_s())
        if not self.deaf:
            self.mode = mode

    def _sample(self, board_c: float | None) -> AsicReading:
        point = next(point for point in POINTS if point.mode == self.mode)
        if self.blank:
            return AsicReading(boot_s(), None, None, board_c, None)
        watts_w = None if self.blind else point.watts_w
        return AsicReading(boot_s(), watts_w, point.hashrate_h_per_s, board_c, None, self.mode)

    def _answer(self, asked: str | None = None) -> None:
        if self.unreachable or (self.silent and asked is not None):
            raise AsicUnreachable(self.address, "read", "silence")
        if asked is not None:
            self.asked.append(asked)


def lease(mode: str, watts_w: float, device: str = "rig1") -> Lease:
    """A lease that holds for 10 s."""
    return Lease(device, 1, 1, mode, watts_w, boot_s() + 10)


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the device has no event for tests
            await asyncio.sleep(0.01)


async def sweeping(
    devices: Sequence[AsicDevice],
    lanes: Lanes,
    test: Awaitable[None],
    keeper: Keeper | None = None,
    within_s: float = 20.0,
) -> None:
    """Run a test beside the sweep of these devices."""
    task = asyncio.create_task(AsicSweep(devices, lanes, keeper or Keeper(None)).run())
    try:
        await asyncio.wait_for(test, within_s)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def drive(
    machine: Machine,
    test: Callable[[AsicDevice], Awaitable[None]],
    asic: Asic = ASIC,
    refusal: str | None = None,
    *,
    lanes: Callable[[], Lanes] = lambda: Lanes(rhythm=FAST, pace=QUICK),
    **options: object,
) -> AsicDevice:
    """Run a test on one device before this machine."""
    made: list[AsicDevice] = []

    async def scenario() -> None:
        shared = lanes()
        device = AsicDevice(asic, refusal, machine.connect, lanes=shared, **options)  # type: ignore[arg-type]
        made.append(device)
        await sweeping([device], shared, test(device))

    asyncio.run(scenario())
    return made[0]
