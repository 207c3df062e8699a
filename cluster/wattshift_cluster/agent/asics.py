"""An ASIC behind its driver: set points written in the background, sampled once a second.

A machine is not fenced: if this agent dies it stays as last written. While the agent lives, the end
of a lease writes sleep. What the machine does without our having written it is reported as a
foreign write; only when it draws more than its lease is our point written again, because two
masters that keep overruling each other would wear the machine out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from wattshift_cluster.agent.leases import Lease, Terms
from wattshift_cluster.agent.protocol import DeviceInfo, Point, Quality, Reading, finite
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.agent import Asic

log = structlog.get_logger()

POLL_S = 1.0
CONNECT_S = 8.0
READ_S = 3.0
WRITE_S = 12.0
CLOSE_S = 8.0
RETRY_S = (1.0, 2.0, 4.0, 8.0, 10.0)
LOOKUP_S = (1.0, 2.0, 5.0, 10.0, 30.0)
OVERRULE_S = 10.0
ALARM_S = 3.0
"""A foreign write is shown for so long at least: a controller that polls must not miss it."""

GRACE_S = 20.0
"""After its start an agent gives the controller this long to lease what is already running."""

AS_FOUND = "as-found"
EMULATOR_PASSWORD = "super"
"""What the emulated Whatsminer is made with."""

MOST_PASSWORD_BYTES = 256

Connect = Callable[[Asic], Awaitable[AsicDriver]]


async def connect_by_pyasic(asic: Asic) -> AsicDriver:
    """Find out what answers at the address. Raises: AsicUnreachable, AsicRefused."""
    from wattshift_cluster.asic.connect import connect
    from wattshift_cluster.asic.driver import Credentials

    password = _password(asic)
    return await connect(asic.address, credentials=Credentials(password) if password else None)


def _password(asic: Asic) -> str | None:
    """The owner's password; the emulator's own on loopback; otherwise none is ever tried."""
    if asic.password_file is None:
        emulator = asic.emulated and asic.address.startswith("127.")
        return EMULATOR_PASSWORD if emulator else None
    try:
        with Path(asic.password_file).open("rb") as file:
            return file.read(MOST_PASSWORD_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise AsicRefused(asic.address, "log in", f"{asic.password_file}: {fault}") from fault


@dataclass(frozen=True, slots=True)
class _Target:
    """A set point to write."""

    mode: str
    watts_w: float


class AsicDevice:
    """See `Device`.

    Attributes:
        inventory_version: grows with each identification.
        identified: set once the machine has said what it is.
    """

    def __init__(
        self, asic: Asic, refusal: str | None = None, connect: Connect = connect_by_pyasic
    ) -> None:
        """Prepare; nothing is sent before `run`.

        Args:
            asic: its section of agent.toml.
            refusal: why it must not be written; None when it may.
            connect: finds the driver.
        """
        self.inventory_version = 0
        self._asic = asic
        self._refusal = "protected" if asic.protected else refusal
        self._connect = connect
        self._driver: AsicDriver | None = None
        self._identity: AsicIdentity | None = None
        self._seen: AsicReading | None = None
        self._read_error: str | None = "not identified yet"
        self._write_error: str | None = None
        self._foreign_polls = 0
        self._foreign_until_s = 0.0
        self._wanted: _Target | None = None
        self._written: _Target | None = None
        self._written_s = 0.0
        self._overruled_s = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self.identified = asyncio.Event()

    @property
    def id(self) -> str:
        """See `Device`."""
        return self._asic.id

    def info(self) -> DeviceInfo | None:
        """See `Device`. A machine that must not or cannot be set has one point: its nameplate."""
        known = self._identity
        nameplate_w = self._nameplate_w()
        if nameplate_w is None:
            return None
        points = self._points(nameplate_w)
        return DeviceInfo(
            id=self.id,
            kind="asic",
            model=known.model if known else "not identified",
            firmware=known.firmware if known else "unknown",
            algorithm=known.algorithm if known else "sha256d",
            nameplate_w=nameplate_w,
            tolerance=known.tolerance if known else 0.05,
            continuous=known.continuous if known else False,
            fenced=False,
            safe_w=points[0].watts_w,
            power_on_w=known.power_on_w if known else nameplate_w,
            host=None,
            quality=self._quality,
            points=points,
        )

    def terms(self) -> Terms | None:
        """See `Device`."""
        info = self.info()
        if info is None:
            return None
        modes = {point.mode: point.watts_w for point in info.points}
        most_w = info.nameplate_w * (1.0 + info.tolerance) * 1.001
        return Terms(modes, most_w, info.continuous)

    def hold(self, lease: Lease) -> None:
        """See `Device`. A write under way that goes higher is broken off."""
        self._want(_Target(lease.mode, lease.watts_w))

    def safe(self) -> None:
        """See `Device`."""
        self._want(_Target(SLEEP, 0.0))

    def reading(self) -> Reading:
        """See `Device`."""
        seen = self._seen
        error = self._read_error or self._write_error
        if seen is None:
            return Reading(self.id, boot_s(), self._quality, error=error)
        return Reading(
            device=self.id,
            at_boot_s=seen.at_boot_s,
            quality=self._quality,
            watts_w=finite(seen.watts_w),
            enforced_limit_w=finite(seen.power_limit_w),
            hashrate_h_per_s=finite(seen.hashrate_h_per_s),
            temperature_c=finite(seen.temperature_c),
            mode=seen.mode,
            foreign_write=boot_s() < self._foreign_until_s,
            error=error,
        )

    async def run(self) -> None:
        """See `Device`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._write_all())
            group.create_task(self._end_grace())

    async def close(self) -> None:
        """See `Device`: sleep, unless we may not write it or never reached it."""
        if self._refusal is not None or self._driver is None:
            return
        self.safe()
        try:
            await asyncio.wait_for(self._settled.wait(), CLOSE_S)
        except TimeoutError:
            log.warning("asic.left_awake", device=self.id, reason=self._write_error or "deadline")

    @property
    def _quality(self) -> Quality:
        return "emulated" if self._asic.emulated else "measured"

    def _nameplate_w(self) -> float | None:
        known = self._identity
        claims = (self._asic.nameplate_w, known.nameplate_w if known else None)
        return max((watts_w for watts_w in claims if watts_w is not None), default=None)

    def _points(self, nameplate_w: float) -> tuple[Point, ...]:
        if self._identity is None or self._refusal is not None:
            return (Point(AS_FOUND, nameplate_w, 0.0, 0.0),)
        return tuple(
            Point(point.mode, point.watts_w, point.hashrate_h_per_s, point.transition_s)
            for point in self._identity.points
        )

    def _want(self, target: _Target) -> None:
        if self._refusal is not None or target.mode == AS_FOUND:
            return
        before, self._wanted = self._wanted, target
        if before is not None and self._same(before, target):
            return
        self._settled.clear()
        self._changed.set()
        writing = self._writing
        if writing is not None and before is not None and target.watts_w < before.watts_w:
            writing.cancel()

    def _same(self, one: _Target, other: _Target) -> bool:
        """Whether both ask the same of the machine; most know no watts between their points."""
        continuous = self._identity is not None and self._identity.continuous
        return one.mode == other.mode and (not continuous or one.watts_w == other.watts_w)

    async def _end_grace(self) -> None:
        """What runs without a lease goes to its safe point, as at the end of one."""
        await asyncio.sleep(GRACE_S)
        if self._wanted is None:
            self.safe()

    async def _poll(self) -> None:
        attempt = 0
        while True:
            try:
                if self._driver is None or self._identity is None:
                    await self._identify()
                assert self._driver is not None
                async with asyncio.timeout(READ_S):
                    self._seen = await self._driver.read()
                self._read_error, attempt = None, 0
                self._look_for_others(self._seen)
            except (AsicUnreachable, AsicRefused, TimeoutError) as fault:
                self._read_error = str(fault) or "no answer in time"
                if self._identity is None:
                    await asyncio.sleep(LOOKUP_S[min(attempt, len(LOOKUP_S) - 1)])
                    attempt += 1
                    continue
            await asyncio.sleep(POLL_S)

    async def _identify(self) -> None:
        async with asyncio.timeout(CONNECT_S):
            self._driver = await self._connect(self._asic)
            self._identity = await self._driver.identify()
        self.inventory_version += 1
        self.identified.set()
        self._changed.set()
        log.info("asic.identified", device=self.id, model=self._identity.model)

    def _look_for_others(self, seen: AsicReading) -> None:
        """Count polls that show another set point than the one we wrote and saw settle."""
        written, busy = self._written, self._writing is not None
        if written is None or busy or seen.mode is None or seen.mode == written.mode:
            self._foreign_polls = 0 if not busy else self._foreign_polls
            return
        if seen.at_boot_s < self._written_s + self._transition_s(written.mode) + 2.0:
            return
        self._foreign_polls += 1
        if self._foreign_polls == 2:
            log.warning("asic.foreign_write", device=self.id, ours=written.mode, theirs=seen.mode)
        if self._foreign_polls > 1:
            self._foreign_until_s = boot_s() + ALARM_S
        higher = self._watts_of(seen.mode) > self._watts_of(written.mode)
        if self._foreign_polls > 1 and higher and boot_s() > self._overruled_s + OVERRULE_S:
            self._overruled_s, self._written = boot_s(), None
            self._settled.clear()
            self._changed.set()

    def _watts_of(self, mode: str) -> float:
        """Watts of a mode; one that the machine did not offer may be anything, so its nameplate."""
        assert self._identity is not None
        watts = (point.watts_w for point in self._identity.points if point.mode == mode)
        return next(watts, self._identity.nameplate_w)

    def _transition_s(self, mode: str) -> float:
        assert self._identity is not None
        times = (point.transition_s for point in self._identity.points if point.mode == mode)
        return next(times, 0.0)

    async def _write_all(self) -> None:
        """Write whatever is wanted, one write at a time, until cancelled."""
        failures = 0
        while True:
            target = self._wanted
            if target is None or self._identity is None or self._is_written(target):
                if target is not None and self._is_written(target):
                    self._settled.set()
                await self._changed.wait()
                self._changed.clear()
                failures = 0
                continue
            if await self._attempt(target):
                failures = 0
                continue
            failures += 1
            wait_s = RETRY_S[min(failures, len(RETRY_S)) - 1]
            try:  # a new wish need not wait for the last one's back-off
                await asyncio.wait_for(self._changed.wait(), wait_s)
                self._changed.clear()
            except TimeoutError:
                continue

    def _is_written(self, target: _Target) -> bool:
        return self._written is not None and self._same(self._written, target)

    async def _attempt(self, target: _Target) -> bool:
        """Write one set point; False when it failed. One that was broken off counts as done."""
        assert self._driver is not None
        self._written = None
        self._writing = asyncio.create_task(self._write(self._driver, target))
        try:
            await asyncio.wait({self._writing})
        finally:
            writing, self._writing = self._writing, None
            writing.cancel()
        if writing.cancelled():
            return True
        fault = writing.exception()
        if fault is None:
            self._written, self._written_s = target, boot_s()
            self._write_error = None
            self._foreign_polls = 0
            return True
        if not isinstance(fault, AsicUnreachable | AsicRefused | TimeoutError):
            raise fault
        self._write_error = f"set {target.mode}: {str(fault) or 'no answer in time'}"
        log.warning("asic.write_failed", device=self.id, reason=self._write_error)
        return False

    async def _write(self, driver: AsicDriver, target: _Target) -> None:
        async with asyncio.timeout(WRITE_S):
            if target.mode == SLEEP:
                await driver.sleep()
            else:
                await driver.set_point(target.mode, target.watts_w)
