"""Sweep address ranges for miners: a knock at each address, and questions only where one opens.

No password is sent, nothing is written. A silent address costs one knock, a machine that hangs or
talks nonsense one bounded look, and the sweep as a whole ends in time; what it did not get to is
counted, never taken for empty.
"""

import asyncio
import errno
import resource
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from wattshift_cluster.asic.connect import driver_for
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicIdentity,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
)
from wattshift_cluster.asic.models import ABILITIES
from wattshift_cluster.asic.probe import UNKNOWN, Found, probe
from wattshift_cluster.asic.pyasic_any import BREADTH
from wattshift_cluster.asic.wire import connected
from wattshift_cluster.errors import TryLater
from wattshift_cluster.fleet.ranges import addresses, count

KNOCKED = (4028, 80, 4433)
CONCURRENCY = 256
MAX_LOOKS = 64
"""Machines questioned at once: four questions each fill the 256 exchanges of the wire."""

LOOK_DEADLINES = 6
"""One look is the probe, its follow-up, identification and a sample: so many exchanges in a row."""

QUEUED = 1024
SPARE_FILES = 400
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sweep may take.

    Attributes:
        concurrency: addresses knocked at, at once; lowered where the process may not open as many
            files.
        knock_s: for a connection to open.
        deadline_s: for each question.
        sweep_s: for the whole; after it nothing new is begun.
    """

    concurrency: int = CONCURRENCY
    knock_s: float = 1.0
    deadline_s: float = 2.0
    sweep_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What answered at one address.

    Attributes:
        kind: the firmware, a word of `probe.NAMES`; None where it is none that we know.
        identified: whether its driver read who it is; otherwise there is the probe's word alone.
        model, firmware, mac, serial: None where not told.
        watts_w, hashrate_h_per_s: as the firmware reports them now; None where it does not.
        drivable: whether it can be commanded, given a password where one is needed.
        control: what can be commanded, or why nothing.
        nameplate_w: the most it draws by our table and its firmware; None where neither says.
    """

    address: str
    kind: str | None
    identified: bool
    model: str | None
    firmware: str | None
    mac: str | None
    serial: str | None
    watts_w: float | None
    hashrate_h_per_s: float | None
    drivable: bool
    control: str
    nameplate_w: float | None = None


@dataclass(slots=True)
class Counts:
    """How far a sweep is.

    Attributes:
        total: addresses in the ranges.
        knocked: dealt with.
        answered: opened a port.
        found: answered as a miner that we know by name.
        skipped: not looked at, because the time was over.
    """

    total: int
    knocked: int = 0
    answered: int = 0
    found: int = 0
    skipped: int = 0


class Scan:
    """One sweep.

    Args:
        networks: of `ranges.parse_ranges`.
        limits: what it may take.
    """

    def __init__(self, networks: Sequence[IPv4Network], limits: Limits | None = None) -> None:
        self.counts = Counts(count(networks))
        self._networks = networks
        self._limits = limits or Limits()
        self._watch: Callable[[Counts], None] | None = None
        self._looks = asyncio.Semaphore(MAX_LOOKS)

    def watch(self, show: Callable[[Counts], None]) -> None:
        """Have `show` called after each address."""
        self._watch = show

    async def sightings(self) -> AsyncIterator[Sighting]:
        """Yield what answers, as it answers.

        Raises:
            TryLater: this host has no file or buffer left to look with.
        """
        results: asyncio.Queue[Sighting] = asyncio.Queue(QUEUED)
        sweep = asyncio.create_task(self._sweep(results))
        getter: asyncio.Task[Sighting] | None = None
        try:
            while not (sweep.done() and results.empty()):
                getter = asyncio.create_task(results.get())
                await asyncio.wait({getter, sweep}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
                else:
                    getter.cancel()
            await sweep
        finally:
            left = [task for task in (sweep, getter) if task is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _sweep(self, results: asyncio.Queue[Sighting]) -> None:
        left = addresses(self._networks)
        ends_s = asyncio.get_running_loop().time() + self._limits.sweep_s
        most = min(affordable(self._limits.concurrency), self.counts.total)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(most):
                    group.create_task(self._worker(left, results, ends_s))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _worker(
        self, left: Iterator[str], results: asyncio.Queue[Sighting], ends_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        for address in left:
            if loop.time() > ends_s:
                self.counts.skipped += 1
                continue
            if await knock(address, self._limits.knock_s):
                self.counts.answered += 1
                async with self._looks:
                    sighting = await look(address, self._limits.deadline_s)
                self.counts.found += sighting.kind is not None
                await results.put(sighting)
            self.counts.knocked += 1
            if self._watch is not None:
                self._watch(self.counts)


async def knock(address: str, knock_s: float) -> bool:
    """Whether one of a miner's ports opens. Raises TryLater where this host is at its limits."""
    tries = [asyncio.create_task(_opens(address, port)) for port in KNOCKED]
    try:
        async with asyncio.timeout(knock_s):
            for answer in asyncio.as_completed(tries):
                if await answer:
                    return True
    except TimeoutError:
        pass
    finally:
        for one in tries:
            one.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
    return False


async def look(address: str, deadline_s: float) -> Sighting:
    """Ask what is there, without a password; what goes wrong is told in the sighting."""
    found: Found | None = None
    identity: AsicIdentity | None = None
    reading: AsicReading | None = None
    driver: AsicDriver | None = None
    why = None
    try:
        async with asyncio.timeout(LOOK_DEADLINES * deadline_s):
            found = await probe(address, deadline_s=deadline_s)
            driver = await driver_for(address, found, deadline_s=deadline_s)
            identity = await driver.identify()
            reading = await driver.poll()
    except (AsicRefused, AsicUnreachable) as fault:
        why = f"{fault.doing}: {fault.reason}"
    except TimeoutError:
        why = f"nothing complete within {LOOK_DEADLINES * deadline_s:g} s"
    finally:
        if driver is not None:
            await driver.close()
    return _sighting(address, found, identity, reading, why)


def affordable(concurrency: int) -> int:
    """How many knocks at once the files allow that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(concurrency, (soft - SPARE_FILES) // len(KNOCKED)))


async def _opens(address: str, port: int) -> bool:
    try:
        with await connected(address, port):
            return True
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise TryLater(f"this host cannot open more connections: {error.strerror}") from error
        return False


def _sighting(
    address: str,
    found: Found | None,
    identity: AsicIdentity | None,
    reading: AsicReading | None,
    why: str | None,
) -> Sighting:
    if identity is None or found is None:
        return Sighting(
            address=address,
            kind=found.kind if found else None,
            identified=False,
            model=_known(found.model) if found else None,
            firmware=_known(found.version) if found else None,
            mac=None,
            serial=None,
            watts_w=None,
            hashrate_h_per_s=None,
            drivable=False,
            control=why or UNKNOWN,
        )
    drivable, control = _control(found.kind, identity)
    return Sighting(
        address=address,
        kind=found.kind,
        identified=True,
        model=_known(identity.model),
        firmware=_known(identity.firmware),
        mac=identity.mac,
        serial=identity.serial,
        watts_w=reading.watts_w if reading else None,
        hashrate_h_per_s=reading.hashrate_h_per_s if reading else None,
        drivable=drivable,
        control=control,
        nameplate_w=identity.nameplate_w,
    )


def _known(text: str) -> str | None:
    return None if text == UNKNOWN else text


def _control(kind: str, identity: AsicIdentity) -> tuple[bool, str]:
    """Whether it can be commanded, and how."""
    modes = [point.mode for point in identity.points]
    if (breadth := BREADTH.get(kind)) and not breadth.sleeps:
        return False, f"read only: {breadth.why_not}"
    password = ABILITIES[kind].needs_password
    if SLEEP not in modes:
        return password, "needs its password" if password else "read only"
    low_w, high_w = identity.points[1].watts_w, identity.points[-1].watts_w
    if len(modes) == 2:
        told = f"sleep and {high_w:.0f} W"
    else:
        many = "any limit" if identity.continuous else f"{len(modes) - 1} points"
        told = f"sleep and {many}, {low_w:.0f} to {high_w:.0f} W"
    return True, f"{told}; needs its password" if password else told
