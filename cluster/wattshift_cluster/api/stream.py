"""The live stream: one subscription to the controller, one bounded ring, any number of readers.

A reader is a cursor into the ring, so memory is bounded whatever a reader does. A reader that falls
out of the ring, or takes no bytes for SEND_DEADLINE_S, is dropped; it comes back with Last-Event-ID
and gets what the ring still holds. An id that the ring does not hold is answered by a `reset` event
and then everything the ring holds, which is also how a page fills its chart: it asks with id 0.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wattshift_cluster.api.encode import encode
from wattshift_cluster.api.port import ControllerPort, Event
from wattshift_cluster.errors import TryLater, WattshiftError

RING_EVENTS = 2048
READERS_MAX = 32
HEARTBEAT_S = 10.0
SEND_DEADLINE_S = 10.0
RETRY_S = 1.0
BATCH_EVENTS = 32

log = structlog.get_logger()


def render(event_id: int | None, event: str, data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event as bytes."""
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {event}\ndata: ".encode() + encode(dict(data)) + b"\n\n"


class Fanout:
    """Fans the controller's events out to readers through a ring of the newest ones."""

    def __init__(self, port: ControllerPort, ring_events: int = RING_EVENTS) -> None:
        self._port = port
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=ring_events)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._end = 0  # events taken so far; a reader's position counts on the same scale
        self._readers = 0
        self._closed = False

    def start(self) -> None:
        """Begin to listen to the controller."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="api-fanout")

    async def close(self) -> None:
        """End every reader and stop listening."""
        self._closed = True
        self._wake()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen(self) -> None:
        last_id: int | None = None
        while True:
            try:
                async for event in self._port.subscribe(last_id):
                    last_id = event[0]
                    self._take(event)
            except WattshiftError as error:
                log.warning("stream_source_lost", error=str(error))
            await asyncio.sleep(RETRY_S)

    def _take(self, event: Event) -> None:
        event_id, name, data = event
        if self._ring and event_id <= self._ring[-1][0]:
            self._ring.clear()  # the controller counts anew: old ids mean nothing any more
        self._ring.append((event_id, render(event_id, name, data)))
        self._end += 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def _begin(self) -> int:
        return self._end - len(self._ring)

    def _position_after(self, last_id: int) -> int | None:
        """Return the position of the first event after an id; None if it is not held."""
        for back, (event_id, _) in enumerate(reversed(self._ring)):
            if event_id == last_id:
                return self._end - back
        return None

    def _batch(self, position: int) -> list[bytes]:
        first = position - self._begin
        last = min(first + BATCH_EVENTS, len(self._ring))
        return [self._ring[i][1] for i in range(first, last)]

    def admit(self) -> None:
        """Raise TryLater when there is no room for one more reader."""
        if self._readers >= READERS_MAX:
            raise TryLater(f"already {READERS_MAX} readers of the stream")

    async def read(self, last_id: int | None) -> AsyncGenerator[bytes, None]:
        """Yield rendered events after `last_id` (None: from now on) and heartbeats.

        Ends when the fanout closes, or when the reader has fallen out of the ring.
        """
        self._readers += 1
        try:
            position = self._end if last_id is None else self._position_after(last_id)
            if position is None:
                position = self._begin
                yield render(None, "reset", {"reason": "that id is not held any more"})
            else:
                yield b": welcome\n\n"
            while not self._closed and position >= self._begin:
                news = self._news
                batch = self._batch(position)
                position += len(batch)
                if batch:
                    yield b"".join(batch)
                elif not await came(news):
                    yield b": still here\n\n"
        finally:
            self._readers -= 1


async def came(news: asyncio.Event) -> bool:
    """Wait for news for at most one heartbeat; whether there is any."""
    try:
        await asyncio.wait_for(news.wait(), HEARTBEAT_S)
    except TimeoutError:
        return False
    return True


class EventResponse(Response):
    """A server-sent event response that drops a client which takes no bytes."""

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], deadline_s: float = SEND_DEADLINE_S
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._chunks = chunks
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set headers without the content length of the empty body."""
        super().init_headers(headers)
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the source ends or the client is gone or stuck."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        sending = asyncio.create_task(self._send_all(send), name="sse-send")
        leaving = asyncio.create_task(self._gone(receive), name="sse-gone")
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                message = {"type": "http.response.body", "body": chunk, "more_body": True}
                await asyncio.wait_for(send(message), SEND_DEADLINE_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
