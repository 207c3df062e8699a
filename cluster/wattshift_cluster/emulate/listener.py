"""The sockets of one emulated machine: limits and faults around its firmware's wires.

A firmware knows of no fault but the two that concern its own words (`Body.ignoring`, `Body.blank`).
All others happen here: to its ports, to the bytes on their way out, or by a firmware of another
password or identity in its place.
"""

import asyncio
import random
import socket
import sys
from collections.abc import Callable
from enum import Enum

from wattshift_cluster.emulate.door import Door
from wattshift_cluster.emulate.faults import (
    MAX_FAULT_S,
    SILENCING,
    SPOILING,
    WELL,
    Fault,
    Trouble,
)
from wattshift_cluster.emulate.firmware import Body, Firmware
from wattshift_cluster.emulate.kinds import KINDS
from wattshift_cluster.emulate.machine import Machine, Realism
from wattshift_cluster.emulate.spoil import SpoiltWriter
from wattshift_cluster.emulate.timing import AMBIENT_C
from wattshift_cluster.emulate.wires import REQUEST_DEADLINE_S, REQUEST_LIMIT, Prompt, Wire

HELD_S = 300.0
"""A connection that nobody answers is kept so long."""

MAX_CONNECTIONS = 64
BOOT_LOOK_S = 0.25
"""Most real seconds between two looks at a clock that may run faster than ours."""

MAX_LOOKS = round(MAX_FAULT_S / BOOT_LOOK_S) + 1
_BEFORE_THE_WIRE = SILENCING | SPOILING
_STRANGER = 1 << 40
"""Added to a seed for the identity of a machine that is not there."""


class _Reach(Enum):
    NEW = "new"
    OPEN = "open"
    SHUT = "shut"
    DARK = "dark"


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
        feeder: by which the truth adds up; None for none.
        realism: see `Machine`.
        ambient_c: see `Machine`.
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
        feeder: str | None = None,
        realism: Realism = "quick",
        ambient_c: float = AMBIENT_C,
    ) -> None:
        self.machine = Machine(
            machine_id,
            KINDS[kind].spec,
            seed=seed,
            clock=clock,
            full=full,
            realism=realism,
            ambient_c=ambient_c,
        )
        self.kind = kind
        self.address = address
        self.seed = seed
        self.feeder = feeder
        self.trouble = WELL
        self._clock = clock
        self._password = password
        self._outlet = True
        self._reach = _Reach.NEW
        self._cold = False
        self._booting: asyncio.Task[None] | None = None
        self._junk = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._firmware = self._speaking = self._made(seed, password)
        self._wires = dict(self._firmware.wires())
        self._doors = [
            Door(address, port, self._taking(port), after_data=isinstance(wire, Prompt))
            for port, wire in self._wires.items()
        ]

    # Faults and the outlet

    @property
    def fault(self) -> Fault:
        """The fault in force."""
        return self.trouble.fault

    @property
    def outlet(self) -> bool:
        """Whether its outlet is on."""
        return self._outlet and self.fault is not Fault.POWER_CUT

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens."""
        return tuple(self._wires)

    @property
    def firmware(self) -> Firmware:
        """The firmware of its own identity and password."""
        return self._firmware

    async def start(self) -> None:
        """Listen on every port. Raises OSError where one is in use; nothing stays open then."""
        try:
            self._reach_anew()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the ports and drop the connections."""
        if self._booting is not None:
            self._booting.cancel()
        self._shut()
        self._reach = _Reach.NEW
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def inject(
        self, fault: Fault, *, seconds: float | None = None, identity: int | None = None
    ) -> None:
        """Replace the fault in force; a machine that refused connections comes back restarted.

        Args:
            fault: what is wrong from now on; `NONE` clears.
            seconds, identity: see `Trouble`.

        Raises:
            OSError: a port cannot be opened again.
            ValueError: seconds out of range.
        """
        trouble = Trouble(fault, seconds, identity)
        if fault is Fault.POWER_ON:
            self._outlet, trouble = True, WELL
        self.trouble = trouble
        if fault is Fault.RESTART:
            self._restart(seconds)
        elif fault in SILENCING:
            self._drop()
        self._speak_as(trouble)
        self._follow_outlet()

    async def set_outlet(self, on: bool) -> None:
        """Switch the outlet. Raises OSError where a port cannot be opened again."""
        self._outlet = on
        if on and self.fault is Fault.POWER_CUT:
            self.trouble = WELL
        self._follow_outlet()

    def _restart(self, seconds: float | None) -> None:
        self.machine.restart(seconds)
        self._cold = False
        self._drop()
        if self.machine.boots_s <= 0.0:
            # Without power, or in no time: nothing to wait for.
            self._speaking.restart()
            self.trouble = WELL

    def _follow_outlet(self) -> None:
        if self.outlet and not self.machine.powered:
            self.machine.power_on()
            self._cold = True
        elif not self.outlet and self.machine.powered:
            self.machine.power_off()
        self._reach_anew()

    def _speak_as(self, trouble: Trouble) -> None:
        """Put a firmware of another password or identity in place of the machine's own, or back."""
        if trouble.fault is Fault.OTHER_IDENTITY:
            seed = self.seed + _STRANGER if trouble.identity is None else trouble.identity
            self._speaking = self._made(seed, self._password)
            self._drop()
        elif trouble.fault is Fault.WRONG_PASSWORD:
            self._speaking = self._made(self.seed, f"changed-{self._junk.getrandbits(64):x}")
            self._drop()  # a connection that is kept would go on with the old one
        elif self._speaking is not self._firmware:
            self._speaking = self._firmware
            self._firmware.restart()
            self._drop()
        else:
            return
        self._wires = dict(self._speaking.wires())

    def _made(self, seed: int, password: str | None) -> Firmware:
        body = Body(
            self.machine,
            seed,
            self._clock,
            ignoring=lambda: self.fault is Fault.IGNORE,
            blank=lambda: self.fault is Fault.BLANK,
            password=password,
        )
        return KINDS[self.kind].firmware(body)

    # Who reaches it

    def _wanted(self) -> _Reach:
        if not self.machine.powered:
            return _Reach.DARK
        if self.machine.boots_s > 0.0:
            return _Reach.DARK if self._cold else _Reach.SHUT
        if self.fault is Fault.OFFLINE:
            return _Reach.DARK
        return _Reach.SHUT if self.fault is Fault.REFUSE else _Reach.OPEN

    def _reach_anew(self) -> None:
        if self.machine.boots_s > 0.0 and (self._booting is None or self._booting.done()):
            self._booting = asyncio.get_running_loop().create_task(self._boot())
        wanted = self._wanted()
        if wanted is self._reach:
            return
        if wanted is _Reach.SHUT:
            self._shut()
        elif wanted is _Reach.DARK:
            for door in self._doors:
                door.darken()
        else:
            if self._reach is _Reach.SHUT:
                self._speaking.restart()
            for door in self._doors:
                door.open()
        if _Reach.DARK in (wanted, self._reach):
            # Into the dark they fall silent; out of it they have missed too much to go on.
            self._drop()
        self._reach = wanted

    async def _boot(self) -> None:
        for _ in range(MAX_LOOKS):
            left_s = self.machine.boots_s
            if left_s <= 0.0:
                break
            await asyncio.sleep(min(left_s, BOOT_LOOK_S))
        self._speaking.restart()
        if self.fault is Fault.RESTART:
            self.trouble = WELL
        try:
            self._reach_anew()
        except OSError as error:
            # Nobody waits for this; the machine stays as it is, and that is told.
            sys.stderr.write(f"emulate: {self.machine.id} does not come back: {error}\n")

    def _shut(self) -> None:
        for door in self._doors:
            door.shut()
        self._drop()

    def _drop(self) -> None:
        for task in self._tasks:
            task.cancel()

    # Connections

    def _taking(self, port: int) -> Callable[[socket.socket], None]:
        def take(connection: socket.socket) -> None:
            wire, received = self._wires[port], b""
            if isinstance(wire, Prompt) and self.fault not in _BEFORE_THE_WIRE:
                try:
                    received = connection.recv(REQUEST_LIMIT)
                    answer = wire.at_once(received) if received else b""
                    if answer is not None:
                        rest = answer[connection.send(answer) :] if answer else b""
                        if not rest:
                            connection.close()
                            return
                        wire = _writing(rest)
                except BlockingIOError:
                    pass
                except OSError:
                    connection.close()
                    return
            self._begin(wire, connection, received)

        return take

    def _begin(self, wire: Wire, connection: socket.socket, received: bytes) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(wire, connection, received))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire, connection: socket.socket, received: bytes) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(REQUEST_LIMIT, loop)
        reader.feed_data(received)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
        except (OSError, asyncio.CancelledError):
            connection.close()
            return
        writer = SpoiltWriter(transport, protocol, reader, lambda: self.trouble, self._junk)
        try:
            await self._speak(wire, reader, writer, transport)
            transport.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            # The other side left, stalled or spoke nonsense: a real machine just hangs up.
            transport.close()
        except asyncio.CancelledError:
            # The machine went away; a cancelled handler would only be reported as an error.
            transport.abort()
        finally:
            writer.end()

    async def _speak(
        self,
        wire: Wire,
        reader: asyncio.StreamReader,
        writer: SpoiltWriter,
        reading: asyncio.ReadTransport,
    ) -> None:
        try:
            if self.fault not in SILENCING:
                await wire(reader, writer)
                await writer.settle()
                return
        except asyncio.CancelledError:
            if self._reach is _Reach.DARK:
                writer.end()
                reading.pause_reading()
                await asyncio.sleep(HELD_S)
            if self.fault not in SILENCING:
                raise
            writer.end()
        if self.fault is Fault.GARBAGE:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                await reader.read(REQUEST_LIMIT)
            writer.transport.write(self._junk.randbytes(96))
            return
        async with asyncio.timeout(HELD_S):
            while await reader.read(REQUEST_LIMIT):
                pass


def _writing(rest: bytes) -> Wire:
    """A wire that only has the end of an answer to send."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_DEADLINE_S):
            writer.write(rest)
            await writer.drain()

    return serve
