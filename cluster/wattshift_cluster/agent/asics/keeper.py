"""Writes down what ASICs must remember: locks before they are answered, the rest within seconds.

One writer at a time, and each takes its snapshot only when its turn has come. So an older memory
never replaces a newer one on disk, least of all one that holds a lock.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from wattshift_cluster.fleet.memory import Memory, MemoryFolder

log = structlog.get_logger()


class Remembering(Protocol):
    """A machine with a memory."""

    memory: Memory
    dirty: bool

    @property
    def id(self) -> str:
        """Its name."""
        ...


class Keeper:
    """The memory folder of one agent, off the event loop."""

    def __init__(self, folder: MemoryFolder | None) -> None:
        """Args: folder: None keeps nothing beyond this process."""
        self._folder = folder
        self._turn = asyncio.Lock()

    async def save(self, memories: Mapping[Remembering, Memory]) -> dict[str, str]:
        """Write these memories to disk for good; by device, why it could not be done."""
        async with self._turn:
            rows = {device.id: memory for device, memory in memories.items()}
            return await asyncio.to_thread(self._write, rows, sync=True)

    async def flush(self, devices: Sequence[Remembering]) -> None:
        """Write down what has changed since; a failure is logged and tried again."""
        if not any(device.dirty for device in devices):
            return
        async with self._turn:
            changed = [device for device in devices if device.dirty]
            rows = {device.id: device.memory for device in changed}
            for device in changed:
                device.dirty = False
            failed = await asyncio.to_thread(self._write, rows, sync=False)
            for device in changed:
                device.dirty = device.dirty or device.id in failed
            if failed:
                log.error(
                    "asic.memory_not_written",
                    devices=len(failed),
                    first=next(iter(failed.values())),
                )

    def _write(self, rows: Mapping[str, Memory], *, sync: bool) -> dict[str, str]:
        failed: dict[str, str] = {}
        if self._folder is None:
            return failed
        for device, memory in rows.items():
            try:
                self._folder.save(device, memory, sync=sync)
            except OSError as fault:
                failed[device] = str(fault)
        return failed
