"""Answers that are spoilt on their way out: late, cut in half, of the wrong types, without end.

Every connection of the emulator that lasts writes through here, so that a fault meets the sessions
that are already open too.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from wattshift_cluster.emulate.faults import SLOW_S, Fault, Trouble
from wattshift_cluster.emulate.frames import Frame, mistyped

FLOOD_BYTES = 1 << 30
FLOOD_S = 60.0
CHUNK = b'"' + b"0" * 65_530 + b'",\r\n'
CHUNK_PAUSE_S = 0.001
"""Between two chunks: some 60 MB/s, as half of a gigabit link, and time for other machines."""

_LATER_S = 0.01
"""After the last late answer is due, so that it has gone out first."""

MAX_LATE = 64
"""Answers of one connection that may be on their way at a time; more close it."""


class SpoiltWriter(asyncio.StreamWriter):
    """A connection's writer, which looks at the fault in force at each write.

    While a fault spoils answers each `write` is taken for one whole answer; that is how every wire
    of the emulator sends it.

    Args:
        transport: of the connection.
        protocol: of the connection.
        reader: of the connection.
        trouble: which fault is in force, and how long it holds answers back.
        rng: of the wrong types.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        trouble: Callable[[], Trouble],
        rng: random.Random,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(transport, protocol, reader, loop)
        self._events = loop
        self._trouble = trouble
        self._rng = rng
        self._last_s = 0.0
        self._late = 0
        self._ended = False
        self._pump: asyncio.Task[None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send one answer, spoilt."""
        trouble, answer = self._trouble(), bytes(data)
        if trouble.fault is Fault.SLOW:
            self._send_late(answer, SLOW_S if trouble.seconds is None else trouble.seconds)
        elif trouble.fault is Fault.WRONG_TYPE:
            super().write(mistyped(answer, self._rng))
        elif trouble.fault is Fault.HALF:
            frame = Frame.of(answer)
            super().write(frame.head + frame.body[: len(frame.body) // 2])
            self.transport.close()
        elif trouble.fault is not Fault.FLOOD:
            super().write(answer)
        elif self._pump is None:
            self._pump = self._events.create_task(self._flood(Frame.of(answer)))

    async def drain(self) -> None:
        """Wait until the answer is on its way; a flood is not waited for."""
        if self._pump is None and not self.transport.is_closing():
            await super().drain()

    async def settle(self) -> None:
        """Wait, at most a known time, until what was written has been sent."""
        if self._pump is not None:
            await self._pump
        if self._last_s:
            await asyncio.sleep(max(0.0, self._last_s - self._events.time()) + _LATER_S)

    def end(self) -> None:
        """Stop at once what is still being sent."""
        self._ended = True
        if self._pump is not None:
            self._pump.cancel()

    def _send_late(self, answer: bytes, after_s: float) -> None:
        self._late += 1
        if self._late > MAX_LATE:
            self.transport.close()
            return
        self._last_s = self._events.time() + after_s
        self._events.call_at(self._last_s, self._send_now, answer)

    def _send_now(self, answer: bytes) -> None:
        self._late -= 1
        if not self._ended and not self.transport.is_closing():
            super().write(answer)

    async def _flood(self, frame: Frame) -> None:
        # Valid JSON as far as it goes, so that nothing but the amount gives it away.
        super().write(frame.telling(FLOOD_BYTES) + frame.body.rstrip()[:-1] + b', "more": [')
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(FLOOD_S):
                for _ in range(FLOOD_BYTES // len(CHUNK)):
                    super().write(CHUNK)
                    await super().drain()
                    await asyncio.sleep(CHUNK_PAUSE_S)
        self.transport.abort()
