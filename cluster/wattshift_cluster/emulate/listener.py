"""The sockets of one emulated machine: limits and faults around its firmware's wires."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from wattshift_cluster.emulate.faults import Fault
from wattshift_cluster.emulate.firmware import Body
from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.emulate.machine import Machine
from wattshift_cluster.emulate.wires import REQUEST_LIMIT, Wire

MUTE_S = 300.0
MAX_CONNECTIONS = 64


class EmulatedMiner:
    """One machine on one loopback address.

    Args:
        machine_id: name in the truth and for fault injection.
        kind: a row of `kinds.KINDS`.
        address: its own 127.a.b.c address.
        seed: of its physics, its noise and its identifiers.
        clock: monotonic seconds.
        full: whether it hashes at the start, or sleeps.
        password: that its firmware asks for; None for the maker's own.
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
        password: str | None = None,
    ) -> None:
        self.machine = Machine(machine_id, KINDS[kind].spec, seed=seed, clock=clock, full=full)
        self.address = address
        self.fault = Fault.NONE
        self._junk = random.Random(seed)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        body = Body(
            self.machine,
            seed,
            clock,
            ignoring=lambda: self.fault is Fault.IGNORE,
            blank=lambda: self.fault is Fault.BLANK,
            password=password,
        )
        self._firmware = KINDS[kind].firmware(body)

    async def start(self) -> None:
        """Listen on every port. Raises OSError where one is in use; nothing stays open then."""
        try:
            for port, wire in self._firmware.wires().items():
                self._servers.append(
                    await asyncio.start_server(
                        self._serving(wire),
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
            self._firmware.restart()
            await self.start()

    def _serving(
        self, wire: Wire
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            try:
                if len(self._tasks) <= MAX_CONNECTIONS:
                    await self._speak(wire, reader, writer)
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
        wire: Wire,
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
        await wire(reader, writer)
