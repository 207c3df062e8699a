"""The Modbus port: who may connect, how many, how long they may be silent, and one at a time.

The wire is our own because the server of the Modbus library (3.16) drops the second of two requests
that arrive together, and knows no bound on peers, connections or silence: a set point that is lost
without an answer is a cap that does not hold.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol

import structlog

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.grid.utility.frames import (
    HEAD_BYTES,
    RequestRefused,
    answer,
    read_head,
    read_request,
    refusal,
)

CONNECTIONS_MOST = 8
"""A master, its stand-in, and their halves that are still open after a broken line."""

IDLE_S = 300.0
WRITE_DEADLINE_S = 5.0
READ_AHEAD_BYTES = 4096
"""Requests that wait in memory while one is served; more wait in the peer's socket."""

log = structlog.get_logger()


class Registers(Protocol):
    """What stands behind the port."""

    def read(self, address: int, count: int) -> Sequence[int]:
        """Words. Raises: RequestRefused."""
        ...

    async def write(self, address: int, words: tuple[int, ...]) -> None:
        """Take words, all or none. Raises: RequestRefused."""
        ...


@dataclass(slots=True)
class Counts:
    """What came to the port since it was made.

    Attributes:
        strangers: connections from addresses that are no peers.
        crowded: connections beyond CONNECTIONS_MOST.
        served, refused: requests.
        last_refusal: why the last request was refused; empty: none was.
    """

    strangers: int = 0
    crowded: int = 0
    served: int = 0
    refused: int = 0
    last_refusal: str = ""


class ModbusPort:
    """Listens on one address and serves `registers` to peers."""

    def __init__(self, registers: Registers, peers: Sequence[str]) -> None:
        """Args: peers: ranges of addresses as CIDR; nobody else is answered."""
        self.counts = Counts()
        self._registers = registers
        self._peers: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(p) for p in peers)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises: WattshiftError, the address is in use or not ours."""
        try:
            self._server = await asyncio.start_server(
                self._serve, host, port, limit=READ_AHEAD_BYTES, reuse_address=True
            )
        except OSError as fault:
            raise WattshiftError(
                f"cannot listen on {host}:{port}: {fault.strerror or fault}"
            ) from None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
            for task in tuple(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if not self._may(peer):
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None, "runs in a task"
        self._open.add(task)
        try:
            while True:
                await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            pass  # a peer that leaves, stalls or does not speak Modbus is hung up on
        except asyncio.CancelledError:
            pass  # closed by us; a cancelled handler would be reported as an error
        finally:
            self._open.discard(task)
            writer.transport.abort()

    def _may(self, peer: tuple[str, int] | None) -> bool:
        """Whether this peer is served; those that are not are counted."""
        address = None if peer is None else ip_address(peer[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        address = mapped or address
        if address is None or not any(address in network for network in self._peers):
            self.counts.strangers += 1
            if self.counts.strangers == 1:
                log.warning("modbus.stranger", peer=str(address))
            return False
        if len(self._open) >= CONNECTIONS_MOST:
            self.counts.crowded += 1
            return False
        return True

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        async with asyncio.timeout(IDLE_S):
            head = read_head(await reader.readexactly(HEAD_BYTES))
            pdu = await reader.readexactly(head.size)
        try:
            request = read_request(pdu)
            if request.words is None:
                words = self._registers.read(request.address, request.count)
            else:
                words = ()
                await self._registers.write(request.address, request.words)
            reply = answer(head, request, words)
            self.counts.served += 1
        except RequestRefused as no:
            self._refused(no)
            reply = refusal(head, pdu[0], no.code)
        writer.write(reply)
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await writer.drain()

    def _refused(self, no: RequestRefused) -> None:
        self.counts.refused += 1
        self.counts.last_refusal = f"{no.reason} ({no.code.name.lower()})"
