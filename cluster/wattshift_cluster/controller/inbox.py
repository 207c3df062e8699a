"""Where the sessions put events and the service takes them from, in order, without losing any."""

import asyncio
from collections.abc import Iterable

from wattshift_scheduler.events import Event


class Inbox:
    """Events waiting for the next step. Urgent ones wake the service at once."""

    def __init__(self) -> None:
        """Start empty."""
        self._events: list[Event] = []
        self._urgent = asyncio.Event()

    def put(self, events: Iterable[Event], *, urgent: bool = False) -> None:
        """Add events; with `urgent` the service does not wait for its next tick."""
        self._events.extend(events)
        if urgent:
            self._urgent.set()

    def take(self) -> list[Event]:
        """Take everything that waits."""
        events, self._events = self._events, []
        self._urgent.clear()
        return events

    async def wait(self, timeout_s: float) -> None:
        """Return when something urgent has come, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._urgent.wait()
        except TimeoutError:
            return
