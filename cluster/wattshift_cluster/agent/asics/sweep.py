"""The one task that gives every ASIC its turn: looks, commands that are due, wakes, memories.

A thousand machines then cost one loop and as many short tasks as there are exchanges under way. One
that hangs costs one place among those for one deadline; it holds up nobody else.
"""

import asyncio
import resource
from collections.abc import Sequence

import structlog

from wattshift_cluster.agent.asics.contact import FAULTS
from wattshift_cluster.agent.asics.keeper import Keeper
from wattshift_cluster.agent.asics.lanes import Lanes, usual_pause_s
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.bootclock import boot_s

log = structlog.get_logger()

TICK_S = 0.25
SAVE_S = 1.0
TELL_S = 300.0
"""How often what was learnt is told anew: of all at once, for each time is a new inventory."""

OPEN_FILES = 65_536


class AsicSweep:
    """Runs all ASICs of an agent."""

    def __init__(
        self,
        devices: Sequence[AsicDevice],
        lanes: Lanes,
        keeper: Keeper,
        *,
        tell_s: float = TELL_S,
    ) -> None:
        """Args: devices: all with these `lanes`; tell_s: see TELL_S."""
        self._tell_s = tell_s
        self._devices = tuple(devices)
        self._by_id = {device.id: device for device in devices}
        self._lanes = lanes
        self._keeper = keeper
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._looked_s: dict[str, float] = {}
        self._pause_s = usual_pause_s(lanes.rhythm.poll_s, self._devices)

    async def run(self) -> None:
        """Go round until cancelled; then connections are closed and nothing is commanded."""
        _room_for_sockets()
        began_s = saved_s = told_s = boot_s()
        grace, saving = True, None
        tick_s = min(TICK_S, self._lanes.rhythm.poll_s / 2.0)
        try:
            while True:
                now_s = boot_s()
                if grace and now_s >= began_s + self._lanes.rhythm.grace_s:
                    grace = False
                    for device in self._devices:
                        device.end_grace()
                self._round(now_s)
                if now_s >= told_s + self._tell_s:
                    told_s = now_s
                    self._tell()
                if now_s >= saved_s + SAVE_S and (saving is None or saving.done()):
                    # Beside the round: a disk that hangs must not hold up a command.
                    saved_s, saving = now_s, asyncio.create_task(self._save())
                await asyncio.sleep(tick_s)
        finally:
            await self._end(saving)

    def _round(self, now_s: float) -> None:
        for device in self._devices:
            try:
                self._turn(device, now_s)
            except Exception:  # a fault of ours in one device must not stop the others
                log.exception("device.failed", device=device.id)
        if self._lanes.wakes is not None:
            for name in self._lanes.wakes.grants(now_s):
                self._by_id[name].wake_now()

    def _tell(self) -> None:
        for device in self._devices:
            measured = device.walk is not None and not device.walk.done
            if device.command.proven and not measured:
                device.retell()

    def _turn(self, device: AsicDevice, now_s: float) -> None:
        if device.id not in self._looking and self._due(device, now_s):
            self._looking[device.id] = asyncio.create_task(self._look(device))
        if not device.command.proven:
            device.advance(now_s)

    def _due(self, device: AsicDevice, now_s: float) -> bool:
        looked_s = self._looked_s.get(device.id)
        if looked_s is None:
            return True
        usual_s = self._pause_s if device.command.proven else self._lanes.rhythm.poll_s
        # A machine that was just commanded has nothing to tell yet, and the next one waits for its
        # command: a thousand looks must not stand in the way of a thousand commands.
        since_s = max(looked_s, device.command.sent_s)
        return now_s >= since_s + device.contact.pause_s(usual_s)

    async def _look(self, device: AsicDevice) -> None:
        """One look, in its lane."""
        lane = self._lanes.looking if device.identity else self._lanes.connecting
        try:
            async with lane:
                self._looked_s[device.id] = boot_s()
                await device.look()
        except Exception:
            log.exception("device.failed", device=device.id)
            device.safe()
        finally:
            del self._looking[device.id]
            if device.contact.error is not None:
                self._looked_s[device.id] = boot_s()

    async def _save(self) -> None:
        await self._keeper.flush(self._devices)

    async def _end(self, saving: asyncio.Task[None] | None) -> None:
        looks = list(self._looking.values())
        for task in looks:
            task.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        closing = (device.contact.close() for device in self._devices)
        for device, result in zip(
            self._devices, await asyncio.gather(*closing, return_exceptions=True), strict=True
        ):
            if isinstance(result, Exception) and not isinstance(result, FAULTS):
                log.error("asic.close_failed", device=device.id, reason=repr(result))
        if saving is not None:
            await asyncio.wait({saving}, timeout=self._lanes.rhythm.read_s)
        try:
            async with asyncio.timeout(self._lanes.rhythm.read_s):
                await self._save()
        except TimeoutError:
            log.error("asic.memory_not_written", reason="the disk does not answer")


def _room_for_sockets() -> None:
    """A command to each of a thousand machines is a thousand sockets; the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
