"""Who listens to the controller: each event goes to every subscriber, and nobody holds it up."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from wattshift_scheduler.decisions import AnyDecision, Decision, Moves

SUBSCRIBER_EVENTS_MAX = 1024
SPELLED_MAX = 256
"""Decisions of one turn that are told one by one; the journal has all of them."""

Event = tuple[int, str, Mapping[str, Any]]


class Audience:
    """The subscribers of one controller, in its event loop."""

    def __init__(self, epoch: int) -> None:
        """Nobody listens yet. Args: epoch: the controller's; ids of events go up over restarts."""
        self._queues: set[asyncio.Queue[Event]] = set()
        self._event_id = epoch * 10**9

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._queues)

    def publish(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell every subscriber; one that does not keep up loses its oldest events."""
        self._event_id += 1
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((self._event_id, event, data))

    async def subscribe(self) -> AsyncIterator[Event]:
        """Yield events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(SUBSCRIBER_EVENTS_MAX)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


def spelled(decisions: Iterable[AnyDecision]) -> Iterator[Decision]:
    """Decisions one by one, each lease that moved with its own; the first SPELLED_MAX."""
    told = 0
    for one in decisions:
        for row in one.rows() if isinstance(one, Moves) else (one,):
            if told == SPELLED_MAX:
                return
            told += 1
            yield row
