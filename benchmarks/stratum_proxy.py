"""The Stratum proxy under thousands of miners: how soon all have a new job, and whose work it is.

Three processes on one machine, so their monotonic clocks are one: the loopback pool (here), the
proxy, whose memory is taken, and the loader with all miners, which costs as much as the proxy and
is counted apart. A latency runs from the pool's job being read by the proxy to its line having
arrived at a miner's socket (proxy_notify_ms), or having been read there, too (proxy_read_ms: that
one process must get round to all miners takes most of it). Before each round some miners leave and
as many come, and some submit shares all the while.

    figures = run_proxy_load(sessions=5_000, rounds=20)              about 30 s
    figures = run_proxy_load(sessions=5_000, rounds=240, every_s=2.5)   the load of ten minutes
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.proxy.server import OnJob, ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.proxy.sockets import room_for

ROOT = Path(__file__).resolve().parents[1]
LOCAL = "127.65.0.1"
POOL_DIFFICULTY, LEAST_DIFFICULTY = 1e-7, 1e-9
"""430 and 4 hashes a share: the pool takes one share in a hundred, so that Python can find them."""

READY_S, ROUND_S = 180.0, 60.0
CHURN_SHARE = 0.01
"""Miners that leave before each round, and are replaced."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is done.

    Attributes:
        sessions: miners.
        rounds: jobs of the pool; every fourth voids all before it.
        every_s: pause between them.
        shares_per_s: by all miners together.
    """

    sessions: int
    rounds: int
    every_s: float
    shares_per_s: float


def run_proxy_load(
    sessions: int = 5_000,
    rounds: int = 20,
    every_s: float = 1.0,
    shares_per_s: float = 100.0,
) -> dict[str, Any]:
    """Run it; blocks.

    Returns:
        proxy_sessions, proxy_rounds, proxy_notify_ms_p50, proxy_notify_ms_p99,
        proxy_notify_ms_max, proxy_read_ms_p99, proxy_missed (lines that never came),
        proxy_overlaps (miners that were given work of another), proxy_rss_mb (the most it ever
        had), proxy_cpu_share, proxy_joined, proxy_shares, proxy_shares_refused (most of them for a
        job just voided), proxy_shares_lost, proxy_pool_accepted, proxy_pool_refused.

    Raises:
        CannotRunHere: too few open files are allowed.
    """
    try:
        room_for(sessions + 256)
    except WattshiftError as fault:
        raise CannotRunHere(str(fault)) from fault
    return asyncio.run(_load(Load(sessions, rounds, every_s, shares_per_s)))


async def _load(load: Load) -> dict[str, Any]:
    pool = LoopbackPool(
        PoolSettings(
            difficulty=POOL_DIFFICULTY,
            job_every_s=3600.0,
            clean_every_s=3600.0,
            extranonce2_size=8,
        )
    )
    pool_at = await pool.start(Endpoint(LOCAL, 0))
    proxy = await _Child.start("proxy", str(pool_at), str(load.sessions))
    loader: _Child | None = None
    try:
        at = (await proxy.line(READY_S))["stratum"]
        loader = await _Child.start("loader", at, str(load.sessions), str(load.shares_per_s))
        ready = await loader.line(READY_S)
        await _rounds(load, pool, loader)
        await loader.say("report")
        report = await loader.line(ROUND_S)
        await proxy.say("report")
        told = await proxy.line(ROUND_S)
        return _figures(load, report, told, proxy, pool, ready)
    finally:
        for child in (loader, proxy):
            if child is not None:
                await child.end()
        await pool.stop()


async def _rounds(load: Load, pool: LoopbackPool, loader: _Child) -> None:
    for number in range(load.rounds):
        await loader.say(f"churn {max(1, int(load.sessions * CHURN_SHARE))}")
        await loader.line(ROUND_S)
        await asyncio.sleep(load.every_s / 2)
        pool.new_job(clean=number % 4 == 3)
        await asyncio.sleep(load.every_s / 2)
    await asyncio.sleep(1.0)


def _figures(
    load: Load,
    report: dict[str, Any],
    told: dict[str, Any],
    proxy: _Child,
    pool: LoopbackPool,
    ready: dict[str, Any],
) -> dict[str, Any]:
    """From what both sides have seen to the figures."""
    took_ms: list[float] = []
    read_ms: list[float] = []
    missed = 0
    rounds = {name: at_s for name, at_s in told["jobs"].items() if int(name, 16) > ready["job"]}
    for name, at_s in rounds.items():
        heard = report["arrived"].get(name, [])
        took_ms += [(one_s - at_s) * 1e3 for one_s in heard]
        read_ms += [(one_s - at_s) * 1e3 for one_s in report["read"].get(name, [])]
        missed += load.sessions - len(heard)
    took_ms.sort()
    read_ms.sort()
    shares = told["shares"]
    return {
        "proxy_sessions": load.sessions,
        "proxy_rounds": len(rounds),
        "proxy_notify_ms_p50": _quantile(took_ms, 0.5),
        "proxy_notify_ms_p99": _quantile(took_ms, 0.99),
        "proxy_notify_ms_max": _quantile(took_ms, 1.0),
        "proxy_read_ms_p99": _quantile(read_ms, 0.99),
        "proxy_missed": missed,
        "proxy_overlaps": report["overlaps"],
        "proxy_rss_mb": proxy.most_memory_mb(),
        "proxy_cpu_share": told["cpu_s"] / told["wall_s"],
        "proxy_shares": shares["found"],
        "proxy_shares_refused": shares["rejected"],
        "proxy_shares_lost": shares["lost"],
        "proxy_pool_refused": pool.stats.total.rejected.total(),
        "proxy_pool_accepted": pool.stats.total.accepted,
        "proxy_joined": report["joined"],
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


class _Child:
    """A process of this module: lines in, lines of JSON out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *arguments: str) -> _Child:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks.stratum_proxy",
                *arguments,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 27,
            )
        )

    async def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        await self._process.stdin.drain()

    async def line(self, deadline_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(deadline_s):
            line = await self._process.stdout.readline()
        assert line, "the process has ended; see stderr"
        body: dict[str, Any] = json.loads(line)
        return body

    def most_memory_mb(self) -> float:
        """The most resident memory that it ever had, MB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return math.nan

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _proxy(pool: str, sessions: int) -> None:
    """The process of the proxy: the real one, with a note of when each job was read."""
    jobs: dict[str, float] = {}
    room_for(sessions + 64)

    def connect(on_job: OnJob) -> PoolRotation:
        def noted(job: StratumJob | None) -> None:
            at_s, before = time.monotonic(), proxy.book.newest
            on_job(job)
            newest = proxy.book.newest
            if newest is not None and newest is not before:
                jobs[f"{newest.number:x}"] = at_s

        return PoolRotation([Account(f"stratum+tcp://{pool}", "bench")], on_job=noted)

    settings = ProxySettings(
        max_sessions=sessions + 64,
        start_difficulty=LEAST_DIFFICULTY,
        least_difficulty=LEAST_DIFFICULTY,
    )
    proxy = ProxyServer(settings, connect)
    running = asyncio.create_task(proxy.run())
    async with asyncio.timeout(READY_S):
        while proxy.lost:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
    bound = await proxy.start(Endpoint(LOCAL, 0))
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    _print({"stratum": str(bound)})
    async for _ in _stdin():
        total = proxy.accounts.total.view()
        spent = {
            "cpu_s": time.process_time() - began_cpu_s,
            "wall_s": time.monotonic() - began_s,
        }
        _print({"jobs": jobs, "shares": total, **spent})
    running.cancel()
    await proxy.stop()


async def _loader(at: str, sessions: int, shares_per_s: float) -> None:
    """The process of the miners."""
    from benchmarks.stratum_miners import Miners

    os.nice(10)  # at a site the miners are other machines, and take no core from the proxy
    miners = Miners(Endpoint.parse(at), sessions)
    room_for(sessions + 256)
    await miners.fill(READY_S)
    _print({"job": miners.newest})
    grinding = asyncio.create_task(miners.grind(shares_per_s))
    async for line in _stdin():
        match line.split():
            case ["churn", count]:
                await miners.churn(int(count), ROUND_S)
                _print({"connected": len(miners.here)})
            case ["report"]:
                _print(miners.report())
    grinding.cancel()


async def _stdin() -> Any:
    """Lines of the parent, until it closes its end."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def _print(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """A child's entry, or the load itself for whoever runs this module by hand."""
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    match arguments:
        case ["proxy", pool, sessions]:
            asyncio.run(_proxy(pool, int(sessions)))
        case ["loader", at, sessions, shares_per_s]:
            asyncio.run(_loader(at, int(sessions), float(shares_per_s)))
        case _:
            numbers = [float(one) for one in arguments]
            load = Load(*(int(one) for one in numbers[:2]), *numbers[2:])
            figures = run_proxy_load(load.sessions, load.rounds, load.every_s, load.shares_per_s)
            _print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
