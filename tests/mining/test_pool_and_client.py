"""The client mines real shares on the pool over real sockets; the pool refuses what it must."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce, MiningWork, StratumJob
from wattshift_cluster.mining.pool.link import MinerLink
from wattshift_cluster.mining.pool.listening import NotLoopback
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.sessions import MinerSession
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_kernels.hasher import Work
from wattshift_kernels.header import hash_value, sha256d, with_nonce

EASY = 1e-6
"""About 4,300 hashes a share: hashlib needs some 10 ms."""

LOCAL = Endpoint("127.0.0.1", 0)


def solve(work: Work, *, start: int = 0, valid: bool = True) -> int:
    """The first nonce from `start` that meets the target, or that does not, by plain hashlib."""
    for nonce in range(start, 1 << 32):
        if (hash_value(sha256d(with_nonce(work.message, nonce))) <= work.target) is valid:
            return nonce
    raise AssertionError("no nonce left")


def quick(rng: int = 1) -> Backoff:
    return Backoff(random.Random(rng), least_s=0.01, first_s=0.02, most_s=0.1)


async def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any state of either side, not one event
            await asyncio.sleep(0.005)
    assert condition(), what


@asynccontextmanager
async def running_pool(
    settings: PoolSettings | None = None, listen: Endpoint = LOCAL, **more: Any
) -> AsyncIterator[tuple[LoopbackPool, Endpoint]]:
    pool = LoopbackPool(settings or PoolSettings(difficulty=EASY), **more)
    bound = await pool.start(listen)
    try:
        yield pool, bound
    finally:
        await pool.stop()


@asynccontextmanager
async def running_client(at: Endpoint, **more: Any) -> AsyncIterator[StratumClient]:
    client = StratumClient(f"stratum+tcp://{at}", "rig", backoff=quick(), **more)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ready(client: StratumClient) -> StratumJob:
    await until(client.current_job, "a job")
    job = client.current_job()
    assert job is not None
    return job


async def mine_one(client: StratumClient) -> bool:
    work = client.next_work()
    assert work is not None
    result = await client.submit(work.share(solve(work.kernel_work())))
    return result.accepted


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


def test_real_shares_are_found_and_accepted_and_both_sides_count_the_same() -> None:
    async def body() -> None:
        async with running_pool() as (pool, at), running_client(at) as client:
            await ready(client)
            for _ in range(12):
                assert await mine_one(client)
            counts, total = client.counts, pool.stats.total
            assert (counts.found, counts.accepted, counts.waiting) == (12, 12, 0)
            assert counts.accepted_difficulty == pytest.approx(12 * EASY)
            assert total.accepted == 12
            assert total.difficulty == pytest.approx(counts.accepted_difficulty)
            assert total.best_difficulty >= EASY
            assert pool.status()["users"]["rig"]["accepted"] == 12

    run(body)


def test_the_accepted_work_matches_the_hashes_done() -> None:
    """The demo's own check: accepted difficulty * 2^32 within 4 sigma of the hashes counted."""

    async def body() -> None:
        difficulty = 2e-7
        settings = PoolSettings(difficulty=difficulty)
        async with running_pool(settings) as (_, at), running_client(at) as client:
            await ready(client)
            hashes = 0
            for _ in range(5):
                work = client.next_work()
                assert work is not None
                for nonce in range(12_000):
                    hashes += 1
                    if work.is_share(nonce):
                        assert (await client.submit(work.share(nonce))).accepted
            counts = client.counts
            sigma = (counts.accepted_difficulty_sq or difficulty**2) ** 0.5
            assert abs(counts.accepted_difficulty - hashes / 2**32) < 4 * sigma
            assert counts.accepted > 20  # about 70 expected

    run(body)


def test_version_rolling_is_negotiated_and_a_rolled_share_is_accepted() -> None:
    async def body() -> None:
        async with running_pool() as (_, at), running_client(at) as client:
            job = await ready(client)
            assert job.version_mask == 0x1FFFE000
            work = MiningWork(job, client.next_extranonce2(), job.ntime, 0x0ABCE000 & 0x1FFFE000)
            header = work.header76
            assert int.from_bytes(header[:4], "little") == 0x20000000 | work.version_bits
            assert (await client.submit(work.share(solve(work.kernel_work())))).accepted

    run(body)


def test_a_suggested_difficulty_is_honoured_from_the_next_job() -> None:
    async def body() -> None:
        async with (
            running_pool(PoolSettings(difficulty=1e-3)) as (_, at),
            running_client(at, suggest_difficulty=3e-6) as client,
        ):
            await until(
                lambda: (job := client.current_job()) and job.difficulty == 3e-6, "difficulty"
            )
            assert await mine_one(client)

    run(body)


class Raw:
    """A miner without manners: says exactly what a test wants and reads the answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.number = reader, writer, 0
        self.job: StratumJob | None = None
        self.subscribed: Any = None
        self.notified: list[Any] = []
        self.difficulty = 0.0

    @classmethod
    async def connect(cls, at: Endpoint) -> "Raw":
        return cls(*await asyncio.open_connection(at.host, at.port))

    async def ask(self, method: str, *params: Any) -> dict[str, Any]:
        self.number += 1
        body = {"id": self.number, "method": method, "params": list(params)}
        self.writer.write(json.dumps(body).encode() + b"\n")
        while True:
            answer: dict[str, Any] = await self.read()
            if answer.get("id") == self.number:
                return answer

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            message: dict[str, Any] = json.loads(await self.reader.readline())
        if message.get("method") == "mining.notify":
            self.notified = message["params"]
        if message.get("method") == "mining.set_difficulty":
            self.difficulty = message["params"][0]
        return message

    async def log_in(self) -> None:
        self.subscribed = (await self.ask("mining.subscribe", "raw"))["result"]
        assert (await self.ask("mining.authorize", "rig", "x"))["result"] is True
        while not self.notified:
            await self.read()

    def header76(self, extranonce2: str, ntime: str) -> bytes:
        """Built here from the messages alone, so that it checks the pool's own construction."""
        _, prevhash, coinbase1, coinbase2, branches, version, nbits, _, _ = self.notified
        coinbase = bytes.fromhex(coinbase1 + self.subscribed[1] + extranonce2 + coinbase2)
        root = sha256d(coinbase)
        for branch in branches:
            root = sha256d(root + bytes.fromhex(branch))
        words = [bytes.fromhex(prevhash)[i : i + 4] for i in range(0, 32, 4)]
        return (
            bytes.fromhex(version)[::-1]
            + b"".join(word[::-1] for word in words)
            + root
            + bytes.fromhex(ntime)[::-1]
            + bytes.fromhex(nbits)[::-1]
        )

    def share(self, *, valid: bool = True, ntime: str | None = None) -> list[str]:
        ntime = ntime or self.notified[7]
        extranonce2 = "0badcafe"
        target = (0xFFFF << 208) / self.difficulty
        nonce = solve(Work(self.header76(extranonce2, ntime), int(target)), valid=valid)
        return ["rig", self.notified[0], extranonce2, ntime, f"{nonce:08x}"]


async def refused(raw: Raw, params: list[Any]) -> tuple[int, str]:
    answer = await raw.ask("mining.submit", *params)
    assert answer["result"] is False
    code, text, nothing = answer["error"]
    assert nothing is None
    return code, text


def test_every_reason_to_reject_a_share() -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=EASY, grace_s=0.0)
        async with running_pool(settings) as (pool, at):
            raw = await Raw.connect(at)
            early = ["rig", "1", "00000000", "00000000", "00000000"]
            assert await refused(raw, early) == (25, "Not subscribed")
            await raw.log_in()
            good = raw.share()
            user, job_id, extranonce2, ntime, nonce = good
            far = f"{int(ntime, 16) + 8000:08x}"
            before = f"{int(ntime, 16) - 1:08x}"
            cases: list[tuple[list[Any], int, str]] = [
                (["other", *good[1:]], 24, "Unauthorized worker"),
                ([user, "nope", *good[2:]], 21, "Invalid JobID"),
                ([user, job_id, "00", ntime, nonce], 20, "Malformed extranonce2 size"),
                (
                    [user, job_id, extranonce2 + "00", ntime, nonce],
                    20,
                    "Malformed extranonce2 size",
                ),
                ([user, job_id, "zzzzzzzz", ntime, nonce], 20, "Malformed extranonce2 size"),
                ([user, job_id, extranonce2, far, nonce], 20, "Ntime out of range"),
                ([user, job_id, extranonce2, before, nonce], 20, "Ntime out of range"),
                ([user, job_id, extranonce2, ntime, "12"], 20, "Malformed nonce"),
                ([*good, "00002000"], 20, "Invalid version mask"),
                (good[:4], 20, "Malformed parameters"),
                ([user, job_id, extranonce2, 5, nonce], 20, "Malformed parameters"),
                ([["rig"], *good[1:]], 20, "Malformed parameters"),
                (raw.share(valid=False), 23, "Above target"),
            ]
            for params, code, text in cases:
                assert await refused(raw, params) == (code, text)
            assert (await raw.ask("mining.submit", *good))["result"] is True
            assert await refused(raw, good) == (22, "Duplicate")
            late = raw.share(ntime=f"{int(ntime, 16) + 5:08x}")
            pool.new_job(clean=True)
            await asyncio.sleep(0.01)
            assert await refused(raw, late) == (21, "Stale")
            assert pool.stats.total.accepted == 1
            # Every refusal is counted under its own reason, none under another.
            texts = [text for _, _, text in cases] + ["Not subscribed", "Duplicate", "Stale"]
            assert pool.stats.total.rejected == {text: texts.count(text) for text in texts}

    run(body)


def test_a_share_on_the_wire_when_the_tip_changes_is_credited_within_the_grace() -> None:
    async def body() -> None:
        async with running_pool(PoolSettings(difficulty=EASY, grace_s=5.0)) as (pool, at):
            raw = await Raw.connect(at)
            await raw.log_in()
            good = raw.share()
            pool.new_job(clean=True)
            assert (await raw.ask("mining.submit", *good))["result"] is True

    run(body)


def test_a_new_tip_makes_the_client_drop_its_old_share_itself() -> None:
    async def body() -> None:
        async with running_pool() as (pool, at), running_client(at) as client:
            await ready(client)
            work = client.next_work()
            assert work is not None
            share = work.share(solve(work.kernel_work()))
            pool.new_job(clean=True)
            await until(lambda: client.current_job() != work.job, "the new job")
            assert not (await client.submit(share)).accepted
            assert client.counts.lost == {"lost: stale": 1}
            assert client.counts.found == 1
            assert pool.stats.total.rejected.total() == 0

    run(body)


def test_a_wrong_hit_never_leaves_the_client() -> None:
    async def body() -> None:
        async with running_pool() as (pool, at), running_client(at) as client:
            await ready(client)
            work = client.next_work()
            assert work is not None
            wrong = work.share(solve(work.kernel_work(), valid=False))
            assert not (await client.submit(wrong)).accepted
            assert (client.counts.unverified, client.counts.found) == (1, 0)
            assert pool.stats.total.rejected.total() == 0

    run(body)


def test_reconnecting_keeps_the_counters_and_tells_that_work_ended() -> None:
    async def body() -> None:
        told: list[StratumJob | None] = []
        settings = PoolSettings(difficulty=EASY, resume_s=0)
        async with (
            running_pool(settings) as (pool, at),
            running_client(at, on_job=told.append) as client,
        ):
            await ready(client)
            assert await mine_one(client)
            work = client.next_work()
            assert work is not None
            share = work.share(solve(work.kernel_work()))
            pool.hang_up()
            await until(lambda: client.reconnects == 1 and client.current_job(), "a new session")
            assert None in told
            assert told[-1] is not None
            assert not (await client.submit(share)).accepted  # of the session that is gone
            assert await mine_one(client)
            counts = client.counts
            assert (counts.found, counts.accepted, counts.lost_total) == (3, 2, 1)

    run(body)


def test_a_restarted_pool_is_found_again() -> None:
    async def body() -> None:
        at = Endpoint(LOCAL.host, free_port(LOCAL.host))
        async with running_pool(listen=at):
            client = StratumClient(str(at), "rig", backoff=quick())
            task = asyncio.create_task(client.run())
            await ready(client)
        await until(lambda: not client.connected, "the end")
        assert client.current_job() is None
        assert client.next_work() is None
        async with running_pool(listen=at):
            await ready(client)
            assert await mine_one(client)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(body)


def test_what_comes_after_another_connection_took_the_session_is_not_answered() -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=EASY))
        pool.new_job(clean=True)
        ours, theirs = socket.socketpair()
        miner, writer = await asyncio.open_connection(sock=theirs)
        _, pool_writer = await asyncio.open_connection(sock=ours)
        reader = asyncio.StreamReader()
        session = MinerSession.new(Extranonce(b"abcd", 4), pool.settings, pool.now_s())
        link = MinerLink(1, reader, pool_writer, session=session, pool=pool)
        reader.feed_data(lines.encode({"id": 1, "method": "mining.subscribe", "params": []}))
        serving = asyncio.create_task(link.run())
        assert json.loads(await miner.readline())["error"] is None
        assert link.leave() is session
        reader.feed_data(lines.encode({"id": 2, "method": "mining.subscribe", "params": []}))
        reader.feed_eof()
        await serving
        pool_writer.close()
        assert b'"id":2' not in await miner.read()
        writer.close()

    run(body)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "192.0.2.1:3333", "pool.example.org:3333"])
def test_the_pool_refuses_to_listen_anywhere_but_on_loopback(listen: str) -> None:
    async def body() -> None:
        with pytest.raises(NotLoopback) as refusal:
            await LoopbackPool().start(Endpoint.parse(listen))
        assert refusal.value.exit_code == 6

    run(body)


def test_the_pool_drops_garbage_long_lines_and_too_many_connections() -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=EASY, max_connections=2)
        async with running_pool(settings) as (pool, at):
            for nonsense in (b"hello\n", b"[1]\n", b"x" * (lines.MAX_LINE_BYTES + 10)):
                reader, writer = await asyncio.open_connection(at.host, at.port)
                writer.write(nonsense)
                async with asyncio.timeout(5):
                    # Closing with bytes unread resets the connection.
                    with suppress(ConnectionResetError):
                        assert await reader.read() == b""
                writer.close()
            await until(lambda: not pool.links, "all gone")
            kept = [await Raw.connect(at) for _ in range(2)]
            await asyncio.gather(*(raw.log_in() for raw in kept))
            third = await Raw.connect(at)
            async with asyncio.timeout(5):
                assert await third.reader.read() == b""

    run(body)
