"""A feed of samples: lines `HZ [PU [AGE_MS]]` from a program on this machine.

    59.9731              the voltage is not known
    59.9731 1.002        Hz, and per unit of nominal voltage
    59.9731 1.002 40     measured 40 ms ago
    59.9731 - 40         the same without voltage

One sender at a time: a second one is turned away, and one that is silent for two seconds or does
not keep to the form is let go. What it may do is little: a sample lowers what leases allow, and
never raises it.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.fields import split_address
from wattshift_cluster.config.frequency import FrequencyFeed
from wattshift_cluster.grid.frequency.heard import Heard
from wattshift_scheduler.frequency.response import Sample

log = structlog.get_logger()

LINE_LIMIT_BYTES = 128
SILENCE_S = 2.0
MOST_LINES_PER_S = 500
"""More than twice what the fastest sensor says: a sender beyond it is out of order."""

MOST_WRONG_LINES = 16
OLDEST_MS = 10_000.0
OPEN_AGAIN_S = 5.0


_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class LineInvalid(Exception):
    """A line that is no sample."""


def parse(line: bytes, now_s: float) -> Sample:
    """The sample of a line that came at `now_s`. Raises: LineInvalid."""
    parts = line.split()
    if not 1 <= len(parts) <= 3:
        raise LineInvalid("not 1 to 3 values")
    hz, v_pu, age_ms = _number(parts[0]), None, 0.0
    if len(parts) > 1 and parts[1] != b"-":
        v_pu = _number(parts[1])
    if len(parts) > 2:
        age_ms = _number(parts[2])
        if not 0.0 <= age_ms <= OLDEST_MS:
            raise LineInvalid(f"not measured within the last {OLDEST_MS / 1e3:g} s")
    return Sample(now_s - age_ms / 1e3, hz, v_pu)


def _number(text: bytes) -> float:
    try:
        value = float(text.decode("ascii"))
    except ValueError:  # a UnicodeDecodeError is one
        raise LineInvalid("not a number") from None
    if not math.isfinite(value):
        raise LineInvalid("not a finite number")
    return value


@dataclass(slots=True)
class _Sender:
    """How one sender has behaved."""

    wrong: int = 0
    second_s: float = -math.inf
    lines: int = 0

    def line(self, now_s: float) -> str | None:
        """Count a line; why the sender must go, or None."""
        if now_s - self.second_s >= 1.0:
            self.second_s, self.lines = now_s, 0
        self.lines += 1
        over = self.lines > MOST_LINES_PER_S
        return f"more than {MOST_LINES_PER_S} lines a second" if over else None


class Feed:
    """See `FrequencySensor`."""

    def __init__(self, section: FrequencyFeed) -> None:
        """Nothing is opened yet."""
        self._section = section
        self._sender: asyncio.StreamWriter | None = None
        self.fault: str | None = None
        self.port: int | None = None
        """Where it listens; None on a UNIX socket and before it runs."""

    async def run(self, heard: Heard) -> None:
        """See `FrequencySensor`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(heard, reader, writer)

        while True:
            try:
                server = await self._open(serve)
            except OSError as fault:
                self.fault = f"the feed's door cannot be opened: {fault.strerror}"
                log.error("frequency.feed_not_open", reason=self.fault)
                await asyncio.sleep(OPEN_AGAIN_S)
                continue
            self.fault = "nobody has connected to the feed"
            try:
                await asyncio.Event().wait()
            finally:
                server.close()
                if (sender := self._sender) is not None:
                    sender.close()  # its handler ends by itself, which a cancelled one cannot
                    with suppress(OSError):
                        await sender.wait_closed()
                if self._section.socket is not None:
                    with suppress(OSError):
                        self._section.socket.unlink()

    async def _open(self, serve: _Serve) -> asyncio.Server:
        path = self._section.socket
        if path is not None:
            server = await asyncio.start_unix_server(serve, path=path, limit=LINE_LIMIT_BYTES)
            path.chmod(0o600)
            return server
        assert self._section.listen is not None, "one of the two"
        host, port = split_address(self._section.listen)
        server = await asyncio.start_server(serve, host, port, limit=LINE_LIMIT_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(
        self, heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._sender is not None:
            log.warning("frequency.second_sender")
            writer.close()
            return
        self._sender, self.fault = writer, None
        try:
            why = await self._listen(heard, reader)
        except (OSError, ValueError):  # ValueError: a line without an end
            why = "the connection broke, or a line had no end"
        finally:
            self._sender = None
            writer.close()
        self.fault = f"the feed has ended: {why}"
        log.warning("frequency.feed_ended", reason=why)

    async def _listen(self, heard: Heard, reader: asyncio.StreamReader) -> str:
        """Hear one sender out; why it was let go."""
        sender = _Sender()
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), SILENCE_S)
            except TimeoutError:
                return f"silent for {SILENCE_S:g} s"
            if not line.endswith(b"\n"):
                return "it hung up"
            now_s = boot_s()
            if why := sender.line(now_s):
                return why
            try:
                heard(parse(line, now_s))
            except LineInvalid as fault:
                sender.wrong += 1
                if sender.wrong >= MOST_WRONG_LINES:
                    return f"{sender.wrong} lines in a row that are no samples, the last: {fault}"
            else:
                sender.wrong = 0
