"""The agent's pools of one coin, and the work they give to the host's devices that mine it."""

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial

from wattshift_cluster.agent.pool_audit import PoolReport
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.nonces import AnyShare, Job
from wattshift_cluster.mining.pools import Account, PoolRotation, PoolStatus
from wattshift_cluster.mining.shares import ShareCounts, ShareResult
from wattshift_cluster.mining.splitting import WorkExhausted, WorkSplitter, WorkUnit
from wattshift_cluster.mining.standing import Patience

WORKER_BITS = 4
"""Version bits of which a worker tries all values: 16 hashes share what is done once a nonce."""

Listener = Callable[[Job | None], None]


class PoolDesk:
    """Work in, shares out. Without a session there is no work, so nobody hashes for nothing.

    Attributes:
        algorithm: what its pools want hashed.
        usd_per_gh_per_day: what that earns, by the owner's word; sha256d has the site's hashprice.
    """

    def __init__(
        self,
        pool: Pool,
        consented: Collection[Endpoint] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is connected before `run`.

        Args:
            pool: the first pool and those to fall back to.
            consented: addresses that the owner has named; see `mining.redirect`.
            clock_s: the event loop's own.

        Raises:
            EndpointInvalid: an address or a certificate file cannot be used.
        """
        self._listeners: list[Listener] = []
        self.algorithm: str = pool.algorithm
        self.usd_per_gh_per_day = pool.usd_per_gh_per_day
        self._splitter = WorkSplitter(worker_bits=WORKER_BITS)
        self._clock_s = clock_s
        self._hold_s = pool.hold_s
        self._withdrawn = False
        self._changes = 0
        self._pools = PoolRotation(
            [Account.of(one) for one in (pool, *pool.fallback)],
            on_job=self._told,
            patience=Patience(give_up_s=pool.give_up_s, return_after_s=pool.return_after_s),
            consented=consented,
            algorithm=pool.algorithm,
        )
        self._reports = [
            PoolReport(one.report_url, one.user, partial(self._counts_at, index), clock_s)
            for index, one in enumerate((pool, *pool.fallback))
            if one.report_url is not None
        ]

    @property
    def alarm(self) -> str | None:
        """What a person should know of the pools although work goes on; None without."""
        said = [self._away(), *(report.alarm for report in self._reports)]
        return "; ".join(filter(None, said)) or None

    @property
    def fault(self) -> str | None:
        """Why there is no work; None while a pool has some."""
        return self._pools.fault

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares at all pools."""
        return self._pools.counts

    def pools(self) -> tuple[PoolStatus, ...]:
        """Each pool with its own counters, in the owner's order."""
        return self._pools.pools()

    @property
    def withdrawn(self) -> str | None:
        """Why hashing devices offer no watts: no pool has had work for the hold; None otherwise."""
        lost_s = self._pools.lost_since_s
        withdrawn = lost_s is not None and self._clock_s() - lost_s >= self._hold_s
        if withdrawn != self._withdrawn:
            self._withdrawn = withdrawn
            self._changes += 1
        return f"no pool has work: {self.fault}" if withdrawn else None

    @property
    def changes(self) -> int:
        """Grows whenever the devices begin or cease to be withdrawn."""
        _ = self.withdrawn  # time alone changes it
        return self._changes

    def subscribe(self, listener: Listener) -> None:
        """Have `listener` called with each new job, and with None when there is none any more."""
        self._listeners.append(listener)

    def unit(self) -> WorkUnit | None:
        """Work that nobody else got; None without a job or when the job is used up."""
        job = self._pools.current_job()
        if job is None:
            return None
        self._splitter.workers = max(1, len(self._listeners))
        try:
            return self._splitter.take(job)
        except WorkExhausted:
            return None

    async def submit(self, share: AnyShare, *, first: bool = False) -> ShareResult:
        """Check a share and send it. Never raises but for cancellation.

        Args:
            first: it may be a block, so it goes out however many are on their way.
        """
        return await self._pools.submit(share, first=first)

    async def run(self) -> None:
        """Keep a pool to mine for until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pools.run())
            for report in self._reports:
                group.create_task(report.run())

    def _away(self) -> str | None:
        """That another pool than the owner's first is mined for, and why."""
        first, *others = self._pools.pools()
        active = next((one.pool for one in others if one.active), None)
        if active is None:
            return None
        return f"mining for {active}: {first.pool} {first.fault or 'is back, but not for long'}"

    def _counts_at(self, index: int) -> ShareCounts:
        return self._pools.pools()[index].counts

    def _told(self, job: Job | None) -> None:
        for listener in self._listeners:
            listener(job)
