"""The open loop: a request is sent when it is due, whatever the server does.

A slow server does not slow the arrivals, and latency counts from the moment a request was due, not
from the moment it was sent: so the wait of those behind a slow one shows, which a client that waits
for each answer before it asks again never sees (coordinated omission).
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.inference.arrivals import Arrival

CONTROL_PERIOD_S = 0.2
"""How often the factor is asked for while nothing is due."""
DRAIN_STOPPED_S = 5.0
"""For the answers under way when somebody ends the load."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a load.

    Attributes:
        seconds: how long to send; None until stopped.
        in_flight_max: beyond this a due request is not sent, and counts as an overrun.
        deadline_s: after this, from the sending, an answer counts as failed.
    """

    seconds: float | None = None
    in_flight_max: int = 128
    deadline_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: of HTTP.
        cause, error: why the answer is no good, in two words and in full; None if it is good.
        queue_ms: how long the request waited at the server, if the server said so.
        text_s: when each part with text came, on the monotonic clock, for a streamed answer.
        tokens: of the answer, if the server counted them.
    """

    status: int
    cause: str | None = None
    error: str | None = None
    queue_ms: float | None = None
    text_s: Sequence[float] = ()
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        due_s: when it was due, Unix time.
        due_mono_s: the same on the monotonic clock.
        after_s: the same from the start of the load.
        late_ms: how much later it was sent: the generator's own delay.
        latency_ms: from due to the end of the answer or of the attempt; None if there was none.
        cause, error: why it failed, in two words and in full; None if it did not.
        reply: what the server answered, if it did.
    """

    due_s: float
    due_mono_s: float
    after_s: float
    late_ms: float | None = None
    latency_ms: float | None = None
    cause: str | None = None
    error: str | None = None
    reply: Reply | None = None


Ask: TypeAlias = Callable[[int, Arrival], Awaitable[Reply]]
"""Sends the n-th request. May raise WattshiftError and OSError."""
Note: TypeAlias = Callable[[Outcome], None]


class OpenLoop:
    """Sends arrivals at their time."""

    def __init__(
        self,
        arrivals: Iterator[Arrival],
        ask: Ask,
        note: Note,
        limits: Limits,
        factor: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """Prepare.

        Args:
            arrivals: what is due when, s of load time.
            ask: sends one request.
            note: is told what became of each, in the order of the ends.
            limits: bounds.
            factor: how many times faster than the clock load time runs now; 0 or more.
        """
        self._arrivals = arrivals
        self._ask = ask
        self._note = note
        self._limits = limits
        self._factor = factor
        self._tasks: set[asyncio.Task[None]] = set()
        self._start_s = 0.0
        self.sent = 0
        self.in_flight_peak = 0

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        return len(self._tasks)

    async def run(self, stop: asyncio.Event) -> float:
        """Send until `stop` is set or the time is over, then wait for the last answers.

        Returns:
            For how long it sent, s.
        """
        self._start_s = time.monotonic()
        sends = asyncio.create_task(self._send_all())
        waits = asyncio.create_task(stop.wait())
        await asyncio.wait({sends, waits}, return_when=asyncio.FIRST_COMPLETED)
        sent_for_s = time.monotonic() - self._start_s
        stopped = not sends.done()
        for task in (sends, waits):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await sends
        if self._tasks:
            drain_s = DRAIN_STOPPED_S if stopped else self._limits.deadline_s
            _, late = await asyncio.wait(self._tasks, timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return sent_for_s

    async def _send_all(self) -> None:
        now_s, load_s, factor = self._start_s, 0.0, self._factor()
        for number, arrival in enumerate(self._arrivals):
            while load_s < arrival.at_s:
                left_s = (arrival.at_s - load_s) / factor if factor > 0 else CONTROL_PERIOD_S
                step_s = min(left_s, CONTROL_PERIOD_S)
                if self._over(now_s + step_s):
                    await asyncio.sleep(max(0.0, self._end_s() - time.monotonic()))
                    return
                await asyncio.sleep(max(0.0, now_s + step_s - time.monotonic()))
                # Advanced by the step, not by the clock: oversleeping must not thin the load.
                now_s += step_s
                load_s = min(arrival.at_s, load_s + step_s * factor)
                factor = self._factor()
            self._start(number, arrival, now_s)

    def _end_s(self) -> float:
        return self._start_s + (self._limits.seconds or 0.0)

    def _over(self, at_s: float) -> bool:
        return self._limits.seconds is not None and at_s >= self._end_s()

    def _start(self, number: int, arrival: Arrival, due_mono_s: float) -> None:
        now_s = time.monotonic()
        due_s, after_s = time.time() - (now_s - due_mono_s), due_mono_s - self._start_s
        if len(self._tasks) >= self._limits.in_flight_max:
            error = "overrun: too many requests in flight"
            self._note(Outcome(due_s, due_mono_s, after_s, cause="overrun", error=error))
            return
        self.sent += 1
        task = asyncio.create_task(self._one(number, arrival, (due_s, due_mono_s, after_s)))
        self._tasks.add(task)
        self.in_flight_peak = max(self.in_flight_peak, len(self._tasks))
        task.add_done_callback(self._tasks.discard)

    async def _one(self, number: int, arrival: Arrival, due: tuple[float, float, float]) -> None:
        late_ms = (time.monotonic() - due[1]) * 1000
        reply, cause, error = None, None, None
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                reply = await self._ask(number, arrival)
            cause, error = reply.cause, reply.error
        except TimeoutError:
            cause = error = f"no answer within {self._limits.deadline_s:g} s"
        except WattshiftError as fault:
            cause, error = "broken answer", str(fault)
        except OSError as fault:
            cause, error = _cause(fault), str(fault) or type(fault).__name__
        except asyncio.CancelledError:
            error = "no answer when the load generator stopped"
            self._note(Outcome(*due, late_ms, cause="stopped", error=error))
            raise
        latency_ms = (time.monotonic() - due[1]) * 1000
        self._note(Outcome(*due, late_ms, latency_ms, cause, error, reply))


def _cause(fault: OSError) -> str:
    if isinstance(fault, socket.gaierror):
        return "unknown host"
    return os.strerror(fault.errno).lower() if fault.errno else "no connection"
