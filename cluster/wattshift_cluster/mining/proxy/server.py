"""The proxy: one connection to the pool, many to the miners, and the accounts between them.

While the pool is away the miners keep their last job for a short hold, for most breaks are shorter
than that. Then all are hung up on and nobody is let in until there is paid work again: a miner
without a pool draws next to nothing, or goes to the pool that its owner has put second.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Share, StratumJob
from wattshift_cluster.mining.nonces import Job
from wattshift_cluster.mining.pools import PoolStatus
from wattshift_cluster.mining.proxy.accounts import Accounts
from wattshift_cluster.mining.proxy.jobs import JobBook
from wattshift_cluster.mining.proxy.link import WorkerLink
from wattshift_cluster.mining.proxy.prefixes import NoPrefixLeft, Prefixes, TooFewBytes, split
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.proxy.sockets import listening
from wattshift_cluster.mining.shares import ShareCounts, ShareResult

log = structlog.get_logger()

MAX_LINE_BYTES = 8 * 1024
"""Of a miner: its longest message, a configure with every extension, has some 300 bytes."""

MOST_FORWARDING = 128
"""Shares on their way to the pool at one time, half of what its session allows; more are lost with
that reason, and counted."""

CLOSE_S = 2.0

OnJob = Callable[[Job | None], None]


class Upstream(Protocol):
    """The pools, as `PoolRotation` shows them."""

    @property
    def endpoint(self) -> Endpoint:
        """The pool mined for."""
        ...

    @property
    def fault(self) -> str | None:
        """Why there is no work; None while there is some."""
        ...

    def pools(self) -> Sequence[PoolStatus]:
        """Each pool with its counters, in the owner's order."""
        ...

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares so far."""
        ...

    async def run(self) -> None:
        """Keep a session until cancelled."""
        ...

    async def submit(self, share: Share, *, first: bool = False) -> ShareResult:
        """Check a share, send it, and say what became of it; `first`: it may be a block."""
        ...


class ProxyServer:
    """See the module.

    Attributes:
        accounts: shares by device.
        book: the jobs that may be submitted for.
        links: miners connected now.
        prefixes: whose part of the extranonce is whose.
        upstream: the pool.
    """

    def __init__(
        self,
        settings: ProxySettings,
        connect: Callable[[OnJob], Upstream],
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing listens and nothing is connected before `start` and `run`.

        Args:
            connect: makes the upstream, given what is to be told of its jobs. Whoever makes it has
                asked for the owner's consent to mine to that account.
            clock_s: unix time, s.
        """
        self.settings = settings
        self.accounts = Accounts()
        self.book = JobBook()
        self.links: set[WorkerLink] = set()
        self.prefixes = Prefixes(settings.max_sessions)
        self.clock_s = clock_s
        self.upstream = connect(self._told)
        self.turned_away: Counter[str] = Counter()
        self._started_s = clock_s()
        self._lost_since_s: float | None = self._started_s
        self._gave_up = False
        self._unfit: str | None = None
        self._holding: asyncio.TimerHandle | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._by_address: Counter[str] = Counter()

    @property
    def lost(self) -> bool:
        """Whether the pool is away."""
        return self._lost_since_s is not None

    @property
    def fault(self) -> str | None:
        """Why there is no paid work; None while there is."""
        return self._unfit or (self.upstream.fault if self.lost else None)

    async def start(self, listen: Endpoint, tls: ssl.SSLContext | None = None) -> Endpoint:
        """Listen; returns the address with the real port. Raises: OSError: the port is taken."""
        self._server = await asyncio.start_server(
            self._serve, sock=listening(listen), limit=MAX_LINE_BYTES, ssl=tls
        )
        bound = Endpoint(*self._server.sockets[0].getsockname()[:2])
        log.info("proxy.listening", at=str(bound))
        return bound

    async def run(self) -> None:
        """Keep the pool until cancelled."""
        if self.lost and self._holding is None:
            self._hold()
        await self.upstream.run()

    async def stop(self) -> None:
        """Hang up on everybody; shares on their way get a moment to be answered."""
        if self._holding is not None:
            self._holding.cancel()
        if self._server is not None:
            self._server.close()
        self._hang_up()
        if self._forwarding:
            await asyncio.wait(self._forwarding, timeout=CLOSE_S)
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    def forward(self, device: str, difficulty: float, share: Share, *, first: bool) -> None:
        """See `House`."""
        if not first and len(self._forwarding) >= MOST_FORWARDING:
            self.accounts.lose(device, "too many on their way")
            return
        self.accounts.forward(device)
        task = asyncio.create_task(self._submit(device, difficulty, share, first=first))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    def status(self) -> dict[str, Any]:
        """What GET /v1/status answers; times are unix seconds, None where there is none."""
        newest = self.book.newest
        return {
            "proxy": "wattshift",
            "at_s": self.clock_s(),
            "started_s": self._started_s,
            "upstream_lost_since": self._lost_since_s,
            "unpaid": self._gave_up,
            "fault": self.fault,
            "sessions": len(self.links),
            "turned_away": dict(self.turned_away),
            "job": None if newest is None else newest.number,
            "difficulty": None if newest is None else newest.upstream.difficulty,
            "upstream": {"pool": str(self.upstream.endpoint), **_counted(self.upstream.counts)},
            "pools": [
                {
                    "pool": one.pool,
                    "active": one.active,
                    "fault": one.fault,
                    "reconnects": one.reconnects,
                    **_counted(one.counts),
                }
                for one in self.upstream.pools()
            ],
            "shares": self.accounts.total.view(),
        }

    def workers(self, first: int = 0, most: int | None = None) -> dict[str, dict[str, Any]]:
        """The accounts of at most `most` devices by name, from the one in place `first`."""
        devices = self.accounts.devices
        names = sorted(devices)[first : None if most is None else first + most]
        return {name: devices[name].view() for name in names}

    # The pool's side

    def _told(self, job: Job | None) -> None:
        assert job is None or isinstance(job, StratumJob), "the proxy is for sha256d alone"
        if job is None:
            self._lose()
            return
        try:
            split(job.extranonce, self.prefixes.size)
        except TooFewBytes as fault:
            if self._unfit is None:
                log.error("proxy.too_few_bytes", reason=str(fault))
            self._unfit = str(fault)
            self._lose()
            return
        self._unfit = None
        self._found()
        before = self.book.newest
        mask = 0 if before is None else before.upstream.version_mask
        live, news = self.book.add(job)
        self.prefixes.void_before(self.book.oldest)
        if news:
            for link in list(self.links):
                link.tell(live, clean=live.alone)
            asyncio.get_running_loop().call_soon(self._review)
        elif mask != job.version_mask:
            for link in list(self.links):
                link.tell_mask(job)

    def _review(self) -> None:
        """All have their job; now for the difficulty of the next."""
        now_s = asyncio.get_running_loop().time()
        for link in self.links:
            link.pace.review(now_s)

    def _lose(self) -> None:
        if self._lost_since_s is not None:
            return
        self._lost_since_s = self.clock_s()
        log.warning("proxy.pool_lost", hold_s=self.settings.hold_s, sessions=len(self.links))
        self._hold()

    def _found(self) -> None:
        if self._lost_since_s is None:
            return
        log.info("proxy.pool_ready", away_s=self.clock_s() - self._lost_since_s)
        self._lost_since_s, self._gave_up = None, False
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None

    def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        self._holding = loop.call_later(self.settings.hold_s, self._give_up)

    def _give_up(self) -> None:
        """The hold is over: no miner is to burn watts for work that nobody pays."""
        self._gave_up, self._holding = True, None
        log.error("proxy.no_paid_work", sessions=len(self.links), reason=self.fault)
        self._hang_up()

    def _hang_up(self) -> None:
        for link in list(self.links):
            link.hang_up()  # one line for all of them is enough

    async def _submit(self, device: str, difficulty: float, share: Share, *, first: bool) -> None:
        try:
            result = await self.upstream.submit(share, first=first)
        except asyncio.CancelledError:
            self.accounts.settle(device, difficulty, ShareResult(False, "lost: ended", difficulty))
            raise
        self.accounts.settle(device, difficulty, result)

    # The miners' side

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if peer else "unknown"
        self._by_address[address] += 1
        try:
            link = self._admit(address, reader, writer)
            if link is not None:
                await self._attend(link)
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            writer.transport.abort()

    def _admit(
        self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> WorkerLink | None:
        """A new connection, or None where there is no room or no work for it."""
        newest = self.book.newest
        if self._gave_up or newest is None:
            why = "there is no paid work"
        elif len(self.links) >= self.settings.max_sessions:
            why = "too many sessions"
        elif self._by_address[address] > self.settings.max_per_address:
            why = "too many sessions from one address"
        else:
            try:
                prefix = self.prefixes.take()
            except NoPrefixLeft:
                why = "no prefix left"
            else:
                return WorkerLink(self, prefix, newest.upstream.extranonce, reader, writer)
        if not self.turned_away[why]:
            log.warning("proxy.turned_away", address=address, reason=why)
        self.turned_away[why] += 1
        return None

    async def _attend(self, link: WorkerLink) -> None:
        self.links.add(link)
        try:
            await link.run()
        finally:
            self._part(link)

    def _part(self, link: WorkerLink) -> None:
        """Its connection is over, and nothing of it will be read any more."""
        self.links.discard(link)
        self.prefixes.give_back(link.prefix, link.last_job)
        for device in link.devices.values():
            account = self.accounts.of(device)
            account.sessions -= 1
            account.wanted_difficulty = link.pace.wanted


def _counted(counts: ShareCounts) -> dict[str, Any]:
    return {
        "found": counts.found,
        "accepted": counts.accepted,
        "rejected": counts.rejected_total,
        "lost": counts.lost_total,
        "waiting": counts.waiting,
        "accepted_difficulty": counts.accepted_difficulty,
    }
