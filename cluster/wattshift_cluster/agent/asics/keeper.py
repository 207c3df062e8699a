"""Writes down what ASICs must remember: locks before they are answered, the rest within seconds.

One writer at a time, and each takes its snapshot only when its turn has come. So an older memory
never replaces a newer one on disk, least of all one that holds a lock.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from wattshift_cluster.fleet.learnt_file import Kept, LearntFolder
from wattshift_cluster.fleet.memory import Memory, MemoryFolder

log = structlog.get_logger()


class Learning(Protocol):
    """What is learnt of a machine."""

    dirty: bool

    @property
    def kept(self) -> Kept | None:
        """What is to be kept of it; None while there is nothing."""
        ...


class Remembering(Protocol):
    """A machine with a memory."""

    memory: Memory
    dirty: bool

    @property
    def lessons(self) -> Learning:
        """What is learnt of it."""
        ...

    @property
    def id(self) -> str:
        """Its name."""
        ...


class Keeper:
    """The memory folder of one agent, off the event loop."""

    def __init__(self, folder: MemoryFolder | None, learnt: LearntFolder | None = None) -> None:
        """Args: folder, learnt: None keeps nothing of that beyond this process."""
        self._folder = folder
        self._learnt = learnt
        self._turn = asyncio.Lock()

    async def save(self, memories: Mapping[Remembering, Memory]) -> dict[str, str]:
        """Write these memories to disk for good; by device, why it could not be done."""
        async with self._turn:
            rows = {device.id: memory for device, memory in memories.items()}
            return await asyncio.to_thread(self._write, rows, sync=True)

    async def flush(self, devices: Sequence[Remembering]) -> None:
        """Write down what has changed since; a failure is logged and tried again."""
        if any(device.lessons.dirty for device in devices):
            await self._flush_learnt(devices)
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

    async def _flush_learnt(self, devices: Sequence[Remembering]) -> None:
        """Write down what was learnt; what cannot be written is tried again."""
        async with self._turn:
            changed = [device for device in devices if device.lessons.dirty]
            rows = {device.id: device.lessons.kept for device in changed}
            for device in changed:
                device.lessons.dirty = False
            failed = await asyncio.to_thread(self._write_learnt, rows)
            for device in changed:
                device.lessons.dirty = device.lessons.dirty or device.id in failed
            if failed:
                first = next(iter(failed.values()))
                log.error("asic.learnt_not_written", devices=len(failed), first=first)

    def _write_learnt(self, rows: Mapping[str, Kept | None]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for device, kept in rows.items() if self._learnt is not None else ():
            assert self._learnt is not None
            if kept is None:
                continue
            try:
                self._learnt.save(device, kept)
            except OSError as fault:
                failed[device] = str(fault)
        return failed

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
