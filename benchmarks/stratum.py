"""Stratum as it is used: shares without exception, through broken connections and lost pools.

Five parts, each over real sockets with shares that the project's own search finds on the CPU:

    all well      a thousand shares of one pool that leaves an extranonce2 of one byte, so that most
                  come from rolled version bits
    reconnects    connections broken in five ways while shares are on their way, among them with
                  the share credited and its answer withheld; the pool resumes sessions
    fail-overs    the first of two pools dies and comes back, again and again
    resume        a real agent device with its worker: from the moment that a lease is back to the
                  end of the first launch after it; the pool goes on with new jobs meanwhile
    proxy         see stratum_proxy

WATTSHIFT_BENCH_LONG=1 puts ten minutes of load on the proxy.
"""

import asyncio
import functools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from benchmarks.rig import HostCpu, memory_folder, ranked
from benchmarks.stratum_proxy import run_proxy_load

from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.hashing import HashingDevice
from wattshift_cluster.agent.leases import Lease
from wattshift_cluster.agent.specs import cpu_spec
from wattshift_cluster.bootclock import boot_ns, boot_s
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.gate import SeatView
from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import Keeping
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Share
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.shares import ShareResult
from wattshift_cluster.mining.splitting import WorkExhausted, WorkSplitter, WorkUnit
from wattshift_cluster.mining.standing import Patience
from wattshift_kernels.registry import choose

LONG = os.environ.get("WATTSHIFT_BENCH_LONG") == "1"
SHARES, RECONNECTS, FAILOVERS, CURTAILMENTS = 1_000, 50, 20, 40
SESSIONS = 5_000
LOCAL = "127.67.9.1"
DIFFICULTY = 1e-5
"""43,000 hashes a share: a millisecond or two of compiled search."""

MINERS = 3
IN_FLIGHT = 48
LAUNCH = 1 << 15
REACT_S = 30.0
SETTLE_S = 20.0
KEEPING = Keeping(age_s=10.0)
PATIENCE = Patience(give_up_s=0.3, return_after_s=0.3, boundary_s=0.2, linger_s=5.0)
SETTINGS = PoolSettings(difficulty=DIFFICULTY, job_every_s=0.5, clean_every_s=3600.0)


@dataclass(slots=True)
class Mine:
    """Miners that find shares and submit them without waiting for the answers.

    Attributes:
        pools: where the work comes from.
        outcomes: of all shares, as each submit answered: counted apart from the client's ledger.
        rolled: of these, accepted ones with version bits that are not the job's own.
    """

    pools: PoolRotation
    outcomes: Counter[str] = field(default_factory=Counter)
    rolled: int = 0
    _splitter: WorkSplitter = field(default_factory=lambda: WorkSplitter(MINERS))
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _working: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, miners: int) -> None:
        """Let so many miners find and submit until `rest`."""
        self._working = [asyncio.create_task(self._work()) for _ in range(miners)]

    async def find(self) -> tuple[Share, bool] | None:
        """One share and whether its version is rolled; None where there is no work now."""
        job = self.pools.current_job()
        if job is None:
            return None
        try:
            unit = self._splitter.take(job)
        except WorkExhausted:
            return None
        nonce = await asyncio.to_thread(_search, unit)
        bits = unit.work.version_bits
        rolled = bits != job.version & job.version_mask
        return None if nonce is None else (unit.work.share(nonce), rolled)

    async def submit(self, share: Share, rolled: bool) -> None:
        """Submit a share and count what is answered."""
        result = await self.pools.submit(share)
        self.outcomes[_outcome(result)] += 1
        self.rolled += rolled and result.accepted

    async def rest(self) -> None:
        """Stop the miners and wait for the last answers."""
        for one in self._working:
            one.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await asyncio.wait_for(asyncio.gather(*self._sending), SETTLE_S)

    def figures(self) -> dict[str, Any]:
        """What the client counted, and what of it nobody answered for."""
        counts = self.pools.counts
        settled = (counts.accepted, counts.rejected_total, counts.lost_total)
        named = [self.outcomes[name] for name in ("accepted", "rejected", "lost")]
        # By the client's books, and by what its callers heard.
        books, heard = counts.found - sum(settled), counts.found - sum(named)
        return {
            "found": counts.found,
            **dict(zip(("accepted", "rejected", "lost"), settled, strict=True)),
            "unaccounted": max(abs(books), abs(heard)),
            "duplicates_accepted": counts.known_already,
            "reasons": {**counts.rejected, **counts.lost},
        }

    async def _work(self) -> None:
        while True:
            found = await self.find() if len(self._sending) < IN_FLIGHT else None
            if found is None:
                await asyncio.sleep(0.005)
                continue
            task = asyncio.create_task(self.submit(*found))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES and more."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    choose("numba")  # compiled before anything is timed
    parts = {
        "well": asyncio.run(_all_well()),
        "reconnect": asyncio.run(_reconnecting()),
        "failover": asyncio.run(_failing_over()),
    }
    resumed_ms, others_share = asyncio.run(_resuming())
    proxy = run_proxy_load(SESSIONS, 240, 2.5) if LONG else run_proxy_load(SESSIONS, 12)
    sums = {
        name: sum(part[name] for part in parts.values())
        for name in ("found", "accepted", "rejected", "lost", "unaccounted")
    }
    well, reconnect, failover = parts["well"], parts["reconnect"], parts["failover"]
    return {
        **sums,
        "reconnects": reconnect["reconnects"],
        "failovers": failover["failovers"],
        "resume_ms_p50": ranked(resumed_ms, 0.5),
        "resume_ms_p99": ranked(resumed_ms, 0.99),
        "resume_cycles": len(resumed_ms),
        "others_cpu_share": others_share,
        "well_shares": well["found"],
        "well_accepted_pct": 100 * well["accepted"] / well["found"],
        "well_rolled": well["rolled"],
        "reconnect_lost": reconnect["lost"],
        "reconnect_rejected": reconnect["rejected"],
        "duplicates_accepted": reconnect["duplicates_accepted"],
        "pool_disagrees": sum(part["pool_disagrees"] for part in parts.values()),
        "parts": parts,
        **proxy,
        "quality": "measured",
    }


async def _all_well() -> dict[str, Any]:
    settings = PoolSettings(difficulty=DIFFICULTY, extranonce2_size=1, job_every_s=3600.0)
    async with _pool(settings) as (pool, at), _mine([at]) as mine:
        while sum(mine.outcomes.values()) < SHARES:
            found = await mine.find()
            if found is None:
                await asyncio.sleep(0.005)
                continue
            await mine.submit(*found)
        return {**mine.figures(), "rolled": mine.rolled, "pool_disagrees": _differ(mine, [pool])}


async def _reconnecting() -> dict[str, Any]:
    """Break the connection in every way that keeps the session, one after the other."""
    async with _pool(SETTINGS) as (pool, at), _mine([at], miners=MINERS) as mine:
        ways: Sequence[Callable[[], None]] = (
            functools.partial(pool.cut_answers, 1),
            pool.hang_up,
            functools.partial(_abort, pool),
            functools.partial(pool.redirect, at),
            functools.partial(_extranonce_and_hang_up, pool),
        )
        for number in range(RECONNECTS):
            before = mine.pools.reconnects
            await _accepting(pool)
            ways[number % len(ways)]()
            await _until(functools.partial(_exceeds, lambda: mine.pools.reconnects, before))
        await mine.rest()
        figures = mine.figures()
        disagrees = _differ(mine, [pool])
        return {**figures, "reconnects": mine.pools.reconnects, "pool_disagrees": disagrees}


async def _failing_over() -> dict[str, Any]:
    """Take the first pool away until the second is mined for, give it back, and again."""
    async with (
        _pool(SETTINGS) as (first, at),
        _pool(SETTINGS) as (second, other),
        _mine([at, other], miners=MINERS) as mine,
    ):
        for _ in range(FAILOVERS):
            await _until(lambda: mine.pools.pools()[0].active)
            await _accepting(first)
            await first.stop()
            await _until(lambda: mine.pools.pools()[1].active)
            await _accepting(second)
            await first.start(at)
        await _until(lambda: mine.pools.pools()[0].active)
        await mine.rest()
        disagrees = _differ(mine, [first, second])
        # Back and forth: half of the client's changes are returns to the first pool.
        changes = mine.pools.failovers // 2
        return {**mine.figures(), "failovers": changes, "pool_disagrees": disagrees}


async def _resuming() -> tuple[list[float], float]:
    """Milliseconds from a lease's return to the end of the first launch, of each curtailment.

    Sorted; and the share of the host's processors that anything else took meanwhile.
    """
    settings = PoolSettings(difficulty=1e-3, job_every_s=0.2, clean_every_s=0.7)
    with memory_folder() as gates, tempfile.TemporaryDirectory() as folder:
        async with _pool(settings) as (pool, at):
            desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="bench"))
            device = HashingDevice(
                cpu_spec("bench-cpu0", gates, 100.0, 19, None), desk, Path(folder)
            )
            tasks = [asyncio.create_task(one) for one in (desk.run(), device.run())]
            try:
                return await _curtailments(device, gates, pool)
            finally:
                await device.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _curtailments(
    device: HashingDevice, gates: Path, pool: LoopbackPool
) -> tuple[list[float], float]:
    await _until(lambda: device.child.fault is None, 120.0)
    seat = SeatView(gates / "bench-cpu0.worker")
    rng, pid, sequence = random.Random(5), device.child.pid, 0
    assert pid is not None, "a worker without a process is ready"
    took_ms: list[float] = []

    def lease(mode: str, watts_w: float, for_s: float) -> int:
        nonlocal sequence
        sequence += 1
        device.hold(Lease("bench-cpu0", 1, sequence, mode, watts_w, boot_s() + for_s))
        return boot_ns()

    try:
        lease("hash", 100.0, 30.0)
        await _until(lambda: seat.read().launches > 10)
        host = HostCpu.now([pid])
        for number in range(CURTAILMENTS):
            # By a lease for idling, or by the end of the lease: the gate closes by itself.
            if number % 2:
                lease("idle", 2.0, 30.0)
            else:
                lease("hash", 100.0, 0.0)
            await asyncio.sleep(rng.uniform(0.3, 0.6))
            before = seat.read().launches
            began_ns = boot_ns()
            lease("hash", 100.0, 30.0)
            launched = functools.partial(_exceeds, lambda: seat.read().launches, before)
            await _until(launched, look_s=0.0003)
            took_ms.append(max(0, seat.read().last_launch_end_ns - began_ns) / 1e6)
            await asyncio.sleep(0.1)
        assert device.child.pid == pid, "the worker was another one"
        assert pool.sessions == 1, "the session was another one"
        return sorted(took_ms), host.others_share(HostCpu.now([pid]))
    finally:
        seat.close()


@asynccontextmanager
async def _pool(settings: PoolSettings) -> AsyncIterator[tuple[LoopbackPool, Endpoint]]:
    pool = LoopbackPool(settings)
    at = await pool.start(Endpoint(LOCAL, 0))
    try:
        yield pool, at
    finally:
        await pool.stop()


@asynccontextmanager
async def _mine(at: Sequence[Endpoint], miners: int = 0) -> AsyncIterator[Mine]:
    """A client of these pools, and so many miners that never rest."""
    rng = random.Random(11)
    pools = PoolRotation(
        [Account(f"stratum+tcp://{one}", "bench.rig") for one in at],
        patience=PATIENCE,
        backoff=lambda: Backoff(rng, least_s=0.01, first_s=0.02, most_s=0.2),
        keeping=KEEPING,
    )
    mine = Mine(pools)
    session = asyncio.create_task(pools.run())
    mine.begin(miners)
    try:
        yield mine
    finally:
        await mine.rest()
        session.cancel()
        await asyncio.gather(session, return_exceptions=True)


def _search(unit: WorkUnit) -> int | None:
    """The first nonce of a unit that is a share, by the compiled search; it lets the loop run."""
    hasher, work = choose("numba").hasher, unit.work.kernel_work()
    start, count = unit.nonces
    for first in range(start, start + count, LAUNCH):
        hits = hasher.search(work, first, min(LAUNCH, start + count - first)).hits
        if hits:
            return hits[0].nonce
    return None


def _outcome(result: ShareResult) -> str:
    if result.accepted:
        return "accepted"
    return "lost" if (result.reason or "").startswith("lost") else "rejected"


def _differ(mine: Mine, pools: Sequence[LoopbackPool]) -> int:
    """Shares that one side has accepted and the other has not, but for those that were lost."""
    counts, credited = mine.pools.counts, sum(pool.stats.total.accepted for pool in pools)
    return max(0, counts.accepted - credited, credited - counts.accepted - counts.lost_total)


def _abort(pool: LoopbackPool) -> None:
    """Reset every connection: what is on its way is gone on both sides."""
    for link in list(pool.links):
        link.abort()


def _extranonce_and_hang_up(pool: LoopbackPool) -> None:
    """Another extranonce1 at once with a new job, and the end of the connection behind it."""
    pool.rotate_extranonces()
    pool.hang_up()


async def _accepting(pool: LoopbackPool) -> None:
    """Wait until the pool has accepted a few more shares."""
    accepted = pool.stats.total.accepted + 3
    await _until(lambda: pool.stats.total.accepted > accepted)


def _exceeds(now: Callable[[], int], before: int) -> bool:
    return now() > before


async def _until(
    condition: Callable[[], object], most_s: float = REACT_S, look_s: float = 0.005
) -> None:
    ends_s = time.monotonic() + most_s
    while not condition():
        if time.monotonic() > ends_s:
            raise RuntimeError(f"nothing happened within {most_s:g} s")
        await asyncio.sleep(look_s)
