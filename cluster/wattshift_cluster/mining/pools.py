"""Several pools in the owner's order, with the face of one `StratumClient`.

The first pool is mined for while it can be had. When it cannot, the next is tried, and the first
goes on being probed beside it; once it has been well for a while it is mined for again, from the
next job on. A pool that was left still answers the shares that are on their way to it. Each pool
has a client of its own, with its own back-off and counters.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from wattshift_cluster.config.agent import PoolAccount
from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import Keeping, StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import MiningWork
from wattshift_cluster.mining.nonces import AnyShare, Job
from wattshift_cluster.mining.session import Deadlines
from wattshift_cluster.mining.shares import ShareCounts, ShareResult, added
from wattshift_cluster.mining.standing import Patience, Standing, choose, needed
from wattshift_cluster.mining.tls import Trust

log = structlog.get_logger()

MAX_POOLS = 16
LOOK_S = 0.5
"""Longest time between two looks at the pools; a job that comes or goes is seen at once."""


@dataclass(frozen=True, slots=True)
class Account:
    """One pool and who we are there; see `StratumClient`."""

    url: str
    user: str
    password: str = field(default="x", repr=False)
    suggest_difficulty: float | None = None
    minimum_difficulty: float | None = None
    roll_versions: bool = True
    trust: Trust | None = None

    @classmethod
    def of(cls, pool: PoolAccount) -> "Account":
        """One pool of the owner's file."""
        return cls(
            pool.url,
            pool.user,
            pool.password,
            suggest_difficulty=pool.suggest_difficulty,
            minimum_difficulty=pool.minimum_difficulty,
            trust=Trust(pool.ca_file, pool.fingerprint),
        )


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool now.

    Attributes:
        pool: host and port.
        active: it is mined for.
        connected: a session is logged in, mined for or not.
        trusted: it has not been given up.
        fault: why there is no session.
    """

    pool: str
    active: bool
    connected: bool
    trusted: bool
    fault: str | None
    reconnects: int
    counts: ShareCounts


class PoolRotation:
    """Ordered pools; `run()` once, like a client.

    Attributes:
        failovers: times that another pool was mined for than before.
        lost_since_s: since when no pool has work, on the loop's clock; None while one has.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        *,
        on_job: Callable[[Job | None], None] | None = None,
        patience: Patience | None = None,
        deadlines: Deadlines | None = None,
        rng: random.Random | None = None,
        backoff: Callable[[], Backoff] | None = None,
        consented: Collection[Endpoint] | None = None,
        keeping: Keeping | None = None,
        algorithm: str = "sha256d",
    ) -> None:
        """Prepare; nothing is connected before `run()`.

        Args:
            accounts: 1 to MAX_POOLS, the preferred first.
            on_job: called with each new job of the pool mined for, and with None when none is left.
            backoff: makes one for each pool; the usual one with `rng`'s jitter when None.
            deadlines, consented, keeping: as for `StratumClient`.
            algorithm: what they all want hashed.

        Raises:
            EndpointInvalid: an address or a certificate file cannot be used.
        """
        assert 0 < len(accounts) <= MAX_POOLS, f"1 to {MAX_POOLS} pools"
        rng = rng or random.Random()
        self.failovers = 0
        self.lost_since_s: float | None = None
        self._on_job = on_job
        self._patience = patience or Patience()
        self._clients = [
            StratumClient(
                account.url,
                account.user,
                account.password,
                suggest_difficulty=account.suggest_difficulty,
                minimum_difficulty=account.minimum_difficulty,
                roll_versions=account.roll_versions,
                trust=account.trust,
                on_job=partial(self._told, index),
                deadlines=deadlines,
                backoff=backoff() if backoff else Backoff(rng),
                consented=consented,
                keeping=keeping,
                numbers=itertools.count(index, len(accounts)),
                algorithm=algorithm,
            )
            for index, account in enumerate(accounts)
        ]
        self._standings = [Standing() for _ in accounts]
        self._active: int | None = None
        self._last_active: int | None = None
        self._wanted_since_s: float | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._leaving: dict[int, float] = {}
        self._wake = asyncio.Event()
        self._ending = False

    @property
    def counts(self) -> ShareCounts:
        """What became of all shares at all pools."""
        return added(client.counts for client in self._clients)

    @property
    def connected(self) -> bool:
        """Whether some pool has work for us."""
        return self._active is not None

    @property
    def endpoint(self) -> Endpoint:
        """The pool mined for; the first one where there is none."""
        return self._clients[self._active or 0].endpoint

    @property
    def reconnects(self) -> int:
        """Sessions that worked, after the first of each pool."""
        return sum(client.reconnects for client in self._clients)

    @property
    def fault(self) -> str | None:
        """Why there is no work; None while there is some."""
        if self._active is not None:
            return None
        tried = [self._clients[index] for index in sorted(self._tasks)] or self._clients[:1]
        if len(tried) == 1:
            return tried[0].fault or "the pool has sent no job yet"
        return "; ".join(f"{one.endpoint}: {one.fault or 'no job yet'}" for one in tried)[:300]

    def pools(self) -> tuple[PoolStatus, ...]:
        """Each pool, in the owner's order."""
        return tuple(
            PoolStatus(
                pool=str(client.endpoint),
                active=index == self._active,
                connected=client.connected,
                trusted=self._standings[index].trusted,
                fault=client.fault,
                reconnects=client.reconnects,
                counts=client.counts,
            )
            for index, client in enumerate(self._clients)
        )

    def current_job(self) -> Job | None:
        """The job to work on; None while no pool has one."""
        return None if self._active is None else self._clients[self._active].current_job()

    def next_extranonce2(self) -> bytes:
        """As for `StratumClient`. Raises: Extranonce2Exhausted."""
        return self._clients[self._active or 0].next_extranonce2()

    def next_work(self) -> MiningWork | None:
        """Work of its own for one worker, or None. Raises: Extranonce2Exhausted."""
        return None if self._active is None else self._clients[self._active].next_work()

    async def submit(self, share: AnyShare, *, first: bool = False) -> ShareResult:
        """Send a share to the pool that its job came from; see `StratumClient`."""
        client = self._clients[share.session % len(self._clients)]
        return await client.submit(share, first=first)

    async def run(self) -> None:
        """Keep a pool to mine for until cancelled."""
        patience = self._patience
        look_s = min(LOOK_S, patience.give_up_s / 4, patience.return_after_s / 4)
        self.lost_since_s, self._ending = _now_s(), False
        try:
            while True:
                self._decide()
                self._hold_sessions()
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.01, look_s)):
                        await self._wake.wait()
        finally:
            self._ending = True
            self._decide()
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.clear()

    def _told(self, index: int, job: Job | None) -> None:
        """A client has a new job, or has lost its own."""
        self._wake.set()
        before = self._active
        self._decide(boundary=job is not None)
        if job is not None and index == self._active == before and self._on_job:
            self._on_job(job)

    def _decide(self, *, boundary: bool = False) -> None:
        """Look at all pools and mine for the best; `boundary`: a new job has just come."""
        now_s = _now_s()
        for index in self._tasks:
            client = self._clients[index]
            self._standings[index].look(
                now_s,
                self._patience,
                up=client.current_job() is not None,
                sound=client.sound,
                refused=client.refused,
            )
        active = self._active
        chosen = None if self._ending else choose(self._standings, active)
        if chosen == active:
            self._wanted_since_s = None
            return
        if active is not None and self._standings[active].up and not (boundary or self._ending):
            self._wanted_since_s = self._wanted_since_s or now_s
            if now_s - self._wanted_since_s < self._patience.boundary_s:
                return
        self._switch(chosen, now_s)

    def _switch(self, chosen: int | None, now_s: float) -> None:
        self._active, self._wanted_since_s = chosen, None
        self.lost_since_s = now_s if chosen is None else None
        job = self.current_job()
        if chosen is not None:
            assert job is not None, "a pool without work was chosen"
            self.failovers += self._last_active not in (None, chosen)
            self._last_active = chosen
            job = replace(job, clean=True)
            log.warning("pools.mining_for", pool=str(self.endpoint), failovers=self.failovers)
        else:
            log.warning("pools.none", reason=self.fault)
        if self._on_job:
            self._on_job(job)

    def _hold_sessions(self) -> None:
        """Start the clients that are needed; end those that are not, once their shares are told."""
        now_s, wanted = _now_s(), needed(self._standings, self._active)
        for index, task in list(self._tasks.items()):
            if task.cancelled():
                del self._tasks[index]
            elif task.done():
                task.result()  # a client's run never ends by itself: this raises its fault
            elif index in wanted:
                self._leaving.pop(index, None)
            elif now_s >= self._leaving.setdefault(index, now_s + self._patience.linger_s):
                task.cancel()
        for index in wanted - self._tasks.keys():
            self._leaving.pop(index, None)
            self._standings[index] = Standing(ill_since_s=now_s)
            self._tasks[index] = asyncio.create_task(self._clients[index].run())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
