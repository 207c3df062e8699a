"""A pool, a proxy and miners of few words, for the tests of the proxy."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.proxy.server import ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_kernels.hasher import Work
from wattshift_kernels.header import hash_value, sha256d, with_nonce

EASY = 1e-6
"""About 4,300 hashes a share: hashlib needs some 10 ms."""

LOCAL = Endpoint("127.65.0.1", 0)
FOLLOW = ProxySettings(per_worker=False, hold_s=0.3)
"""Every miner has the pool's difficulty."""


def solve(work: Work, target: int | None = None, *, start: int = 0) -> int:
    """The first nonce from `start` that meets the target, by plain hashlib."""
    most = work.target if target is None else target
    for nonce in range(start, 1 << 32):
        if hash_value(sha256d(with_nonce(work.message, nonce))) <= most:
            return nonce
    raise AssertionError("no nonce left")


def quick() -> Backoff:
    return Backoff(random.Random(1), least_s=0.01, first_s=0.02, most_s=0.05)


async def until(condition: Callable[[], object], what: str, deadline_s: float = 20.0) -> None:
    try:
        async with asyncio.timeout(deadline_s):
            while not condition():  # noqa: ASYNC110 - any state of either side, not one event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body()

    asyncio.run(bounded())


def upstream(at: Endpoint, on_job: Callable[[StratumJob | None], None]) -> PoolRotation:
    accounts = [Account(f"stratum+tcp://{at}", "owner.site")]
    return PoolRotation(accounts, on_job=on_job, backoff=quick)


class Site:
    """A pool, a proxy, and what was started around them."""

    def __init__(self, settings: ProxySettings, pool: PoolSettings) -> None:
        self.pool_settings = pool
        self.pool = LoopbackPool(pool)
        self.pool_at = LOCAL
        self.settings = settings
        self.proxy: ProxyServer
        self.at = LOCAL
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.pool_at = await self.pool.start(LOCAL)

        self.proxy = ProxyServer(self.settings, lambda on_job: upstream(self.pool_at, on_job))
        self.at = await self.proxy.start(LOCAL)
        self.tasks.append(asyncio.create_task(self.proxy.run()))
        await until(lambda: not self.proxy.lost, "the pool's first job")

    async def pool_away(self) -> None:
        await self.pool.stop()
        await until(lambda: self.proxy.lost, "the loss is noticed")

    async def pool_back(self) -> None:
        self.pool = LoopbackPool(self.pool_settings)
        await self.pool.start(self.pool_at)

    async def stop(self) -> None:
        await self.proxy.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.pool.stop()

    @asynccontextmanager
    async def miner(self, name: str, **more: Any) -> AsyncIterator[StratumClient]:
        client = StratumClient(f"stratum+tcp://{self.at}", name, backoff=quick(), **more)
        task = asyncio.create_task(client.run())
        try:
            await until(client.current_job, f"a job for {name}")
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def site(
    settings: ProxySettings = FOLLOW, difficulty: float = EASY, **pool: Any
) -> AsyncIterator[Site]:
    usual: dict[str, Any] = {"job_every_s": 60.0, "extranonce2_size": 6}
    made = Site(settings, PoolSettings(difficulty=difficulty, **{**usual, **pool}))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class RawMiner:
    """A miner of few words: says what it is told to say, and keeps what it hears."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.told: list[tuple[str, list[Any]]] = []
        self.answers: dict[int, dict[str, Any]] = {}
        self.closed = False
        self._task = asyncio.create_task(self._listen())
        self._last = 0

    @classmethod
    async def connect(cls, at: Endpoint, source: str = "127.65.0.9") -> "RawMiner":
        return cls(*await asyncio.open_connection(at.host, at.port, local_addr=(source, 0)))

    async def ask(self, method: str, *params: Any) -> dict[str, Any]:
        self._last += 1
        number = self._last
        body = {"id": number, "method": method, "params": params}
        self.writer.write(json.dumps(body).encode() + b"\n")
        await until(lambda: number in self.answers or self.closed, f"an answer to {method}")
        return self.answers[number]

    async def log_in(self, name: str, *, follows: bool = True) -> list[Any]:
        subscribed = (await self.ask("mining.subscribe", "raw"))["result"]
        assert (await self.ask("mining.authorize", name, "x"))["result"] is True
        if follows:
            assert (await self.ask("mining.extranonce.subscribe"))["result"] is True
        await until(lambda: self.heard("mining.notify"), "a first job")
        assert isinstance(subscribed, list)
        return subscribed

    def heard(self, method: str) -> list[list[Any]]:
        return [params for name, params in self.told if name == method]

    async def close(self) -> None:
        self._task.cancel()
        self.writer.close()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            while line := await self.reader.readline():
                body = json.loads(line)
                if body.get("method"):
                    self.told.append((body["method"], body["params"]))
                else:
                    self.answers[body["id"]] = body
        except OSError:
            pass
        self.closed = True


async def mine(client: StratumClient, shares: int = 1) -> None:
    for _ in range(shares):
        work = client.next_work()
        assert work is not None
        result = await client.submit(work.share(solve(work.kernel_work())))
        assert result.accepted, result
