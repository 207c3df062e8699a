"""The sockets of one emulated machine: framing, limits and faults around a firmware's answers.

Port 4028 takes one JSON object per connection, answers it with a NUL at the end and closes. Port
4433 takes a 4-byte little-endian length and JSON, any number of times per connection.
"""

import asyncio
import json
import random
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.luxos import PORT as LUXOS_PORT
from wattshift_cluster.emulate.luxos import LuxOs
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.specs import BY_KIND
from wattshift_cluster.emulate.whatsminer import PORT_OLD, PORT_V3, Whatsminer

REQUEST_LIMIT = 64 * 1024
REQUEST_DEADLINE_S = 10.0
MUTE_S = 300.0
MAX_CONNECTIONS = 64

Answer = Callable[[dict[str, Any]], dict[str, Any]]
Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Answer], Awaitable[None]]


class EmulatedMiner:
    """One machine on one loopback address.

    Args:
        machine_id: name in the truth and for fault injection.
        kind: "luxos" or "whatsminer".
        address: its own 127.a.b.c address.
        seed: of its physics, its noise and its identifiers.
        clock: monotonic seconds.
        full: whether it hashes at the start, or sleeps.
    """

    def __init__(
        self,
        machine_id: str,
        kind: str,
        address: str,
        *,
        seed: int,
        clock: Callable[[], float],
        full: bool = False,
    ) -> None:
        self.machine = Machine(machine_id, BY_KIND[kind], seed=seed, clock=clock, full=full)
        self.address = address
        self.fault = Fault.NONE
        self._junk = random.Random(seed)
        self._servers: list[asyncio.Server] = []
        self._restart: Callable[[], None]
        self._tasks: set[asyncio.Task[None]] = set()
        self._ports = self._firmware(kind, seed, clock)

    def _firmware(
        self, kind: str, seed: int, clock: Callable[[], float]
    ) -> dict[int, tuple[Exchange, Answer]]:
        def ignoring() -> bool:
            return self.fault is Fault.IGNORE

        def blank() -> bool:
            return self.fault is Fault.BLANK

        if kind == "luxos":
            lux = LuxOs(self.machine, clock=clock, seed=seed, ignoring=ignoring, blank=blank)
            self._restart = lux.restart
            return {LUXOS_PORT: (_cgminer, lux.answer)}
        whats = Whatsminer(self.machine, seed=seed, ignoring=ignoring, blank=blank)
        self._restart = whats.restart
        return {PORT_V3: (_framed, whats.answer), PORT_OLD: (_cgminer, whats.answer_old)}

    async def start(self) -> None:
        """Listen on every port. Raises OSError where one is in use; nothing stays open then."""
        try:
            for port, (exchange, answer) in self._ports.items():
                self._servers.append(
                    await asyncio.start_server(
                        self._serving(exchange, answer),
                        self.address,
                        port,
                        limit=REQUEST_LIMIT,
                    )
                )
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the ports and drop the connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def inject(self, fault: Fault) -> None:
        """Replace the fault in force; a machine that refused connections comes back restarted.

        Raises OSError where a port cannot be opened again.
        """
        self.fault = fault
        if fault is Fault.REFUSE:
            await self.stop()
        elif not self._servers:
            self._restart()
            await self.start()

    def _serving(
        self, exchange: Exchange, answer: Answer
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            try:
                if len(self._tasks) <= MAX_CONNECTIONS:
                    await self._speak(exchange, answer, reader, writer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                # The other side left, stalled or spoke nonsense: a real machine just hangs up.
                pass
            except asyncio.CancelledError:
                # The listener is closing; a cancelled handler would only be reported as an error.
                pass
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        return serve

    async def _speak(
        self,
        exchange: Exchange,
        answer: Answer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if self.fault is Fault.MUTE:
            async with asyncio.timeout(MUTE_S):
                while await reader.read(REQUEST_LIMIT):
                    pass
            return
        if self.fault is Fault.GARBAGE:
            writer.write(self._junk.randbytes(96))
            await writer.drain()
            return
        await exchange(reader, writer, answer)


async def _cgminer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    """Serve one request of the cgminer kind, which has no framing: it ends where its JSON does."""
    received = b""
    async with asyncio.timeout(REQUEST_DEADLINE_S):
        while len(received) < REQUEST_LIMIT:
            chunk = await reader.read(REQUEST_LIMIT)
            if not chunk:
                return
            received += chunk
            with suppress(ValueError):
                request = json.loads(received)
                break
        else:
            return
    if isinstance(request, dict):
        writer.write(json.dumps(answer(request)).encode() + b"\x00")
        await writer.drain()


async def _framed(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    """Serve length-prefixed requests until the client leaves."""
    while True:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            (length,) = struct.unpack("<I", await reader.readexactly(4))
            if length > REQUEST_LIMIT:
                return
            request = json.loads(await reader.readexactly(length))
        if not isinstance(request, dict):
            return
        body = json.dumps(answer(request)).encode()
        writer.write(struct.pack("<I", len(body)) + body)
        await writer.drain()
