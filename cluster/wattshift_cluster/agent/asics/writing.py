"""One command at a time to one ASIC: in its lane, with a deadline, and what became of it."""

import asyncio
from collections.abc import Callable

import structlog

from wattshift_cluster.agent.asics.lanes import Lanes
from wattshift_cluster.asic.driver import (
    SLEEP,
    AsicDriver,
    AsicReading,
    AsicRefused,
    AsicUnreachable,
    command_s,
)
from wattshift_cluster.fleet.curtail import Command, Goal

log = structlog.get_logger()


class Writing:
    """The command that is under way."""

    def __init__(self, device: str, lanes: Lanes) -> None:
        """Args: device: its id; lanes: shared with the agent's other machines."""
        self._device = device
        self._lanes = lanes
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a command is under way."""
        return self._task is not None

    def cancel(self) -> None:
        """Break it off; it may have been carried out or not."""
        if self._task is not None:
            self._task.cancel()

    async def over(self, within_s: float) -> None:
        """Wait until nothing is under way, or that time has passed."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)

    def start(
        self,
        driver: AsicDriver,
        wish: Goal,
        seen: AsicReading | None,
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        """Give a command.

        Args:
            driver: of the machine.
            wish: what to command.
            seen: the last sample, to know whether it lowers.
            ended: called once it has ended, when nothing is under way any more.
        """
        assert self._task is None
        lane = self._lanes.lowering if lowers(wish, seen) else self._lanes.raising
        self._task = asyncio.create_task(self._write(driver, wish, lane))

        def over(task: asyncio.Task[None]) -> None:
            self._task = None
            ended(task)

        self._task.add_done_callback(over)

    async def _write(self, driver: AsicDriver, wish: Goal, lane: asyncio.Semaphore) -> None:
        async with lane, asyncio.timeout(command_s(driver, self._lanes.rhythm.write_s)):
            if wish.mode == SLEEP:
                await driver.sleep()
            else:
                await driver.set_point(wish.mode, wish.ask_w)

    def failed(
        self, fault: BaseException, command: Command, mode: str, order: int, now_s: float
    ) -> Command:
        """The command after an attempt that the machine did not take."""
        reason = str(fault) or "no answer in time"
        log.warning("asic.write_failed", device=self._device, mode=mode, reason=reason)
        if isinstance(fault, AsicRefused):
            return command.refused(order, reason, now_s)
        if not isinstance(fault, AsicUnreachable | TimeoutError):
            log.error("device.failed", device=self._device, exc_info=fault)
        return command.unreachable(order, reason, now_s)


def lowers(wish: Goal, seen: AsicReading | None) -> bool:
    """Whether a command surely lowers the draw: then it waits for nobody that raises."""
    if wish.mode == SLEEP:
        return True
    return seen is not None and seen.watts_w is not None and wish.most_w < seen.watts_w
