"""What the loopback pool remembers, varies and changes: sessions, difficulty, extranonce, mask."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce, MiningWork, StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.vardiff import ENOUGH_SHARES, WINDOW_S, Vardiff

EASY = 2e-7
LOCAL = Endpoint("127.67.1.1", 0)
MASK = 0x1FFFE000


class Miner:
    """A miner of a few lines, with nothing of our own client in it but the arithmetic."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.number = 0
        self.said: list[dict[str, Any]] = []
        self.jobs: dict[str, StratumJob] = {}
        self.extranonce = Extranonce(b"", 0)
        self.difficulty, self.mask, self.session = 1.0, 0, ""

    @classmethod
    async def connect(cls, at: Endpoint, tls: ssl.SSLContext | None = None) -> "Miner":
        return cls(*await asyncio.open_connection(at.host, at.port, ssl=tls))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            line = await self.reader.readline()
        if not line:
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        self.said.append(message)
        params = message.get("params")
        match message.get("method"):
            case "mining.set_difficulty":
                self.difficulty = params[0]
            case "mining.set_version_mask":
                self.mask = int(params[0], 16)
            case "mining.set_extranonce":
                self.extranonce = Extranonce.parse(*params)
            case "mining.notify":
                job = StratumJob.from_notify(
                    params,
                    extranonce=self.extranonce,
                    difficulty=self.difficulty,
                    version_mask=self.mask,
                )
                self.jobs[job.job_id] = job
        return message

    async def ask(self, method: str, *params: Any) -> Any:
        self.number += 1
        body = {"id": self.number, "method": method, "params": list(params)}
        self.writer.write(json.dumps(body).encode() + b"\n")
        while (message := await self.read()).get("id") != self.number:
            pass
        return message["error"] or message["result"]

    async def log_in(self, session: str | None = None, mask: int = 0, **options: Any) -> None:
        wanted = {"version-rolling": mask, **options}
        values = {"version-rolling.mask": f"{mask:08x}", "minimum-difficulty.value": None}
        values |= {f"{name}.value": value for name, value in options.items()}
        result = await self.ask("mining.configure", [n for n, v in wanted.items() if v], values)
        self.mask = int(result.get("version-rolling.mask", "0"), 16)
        asked = ["test"] if session is None else ["test", session]
        subscriptions, first, size = await self.ask("mining.subscribe", *asked)
        self.session = subscriptions[0][1]
        self.extranonce = Extranonce.parse(first, size)
        assert await self.ask("mining.authorize", "rig", "x") is True
        await self.next_job()

    async def next_job(self) -> StratumJob:
        while (await self.read()).get("method") != "mining.notify":
            pass
        return list(self.jobs.values())[-1]

    @property
    def job(self) -> StratumJob:
        return list(self.jobs.values())[-1]

    async def submit(self, work: MiningWork) -> Any:
        nonce = next(n for n in range(1 << 24) if work.is_share(n))
        return await self.send(work, nonce)

    async def send(self, work: MiningWork, nonce: int) -> Any:
        params = work.share(nonce).submit_params("rig", with_version=bool(work.job.version_mask))
        return await self.ask("mining.submit", *params)


@asynccontextmanager
async def running(settings: PoolSettings | None = None, **more: Any) -> AsyncIterator[Any]:
    pool = LoopbackPool(settings or PoolSettings(difficulty=EASY), **more)
    at = await pool.start(LOCAL)
    try:
        yield pool, at
    finally:
        await pool.stop()


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


def test_a_session_is_resumed_with_its_extranonce_its_jobs_and_its_credited_shares() -> None:
    async def body() -> None:
        async with running() as (pool, at):
            first = await Miner.connect(at)
            await first.log_in(mask=MASK)
            old, work = first.job, first.job.work(b"abcd")
            nonce = next(n for n in range(1 << 24) if work.is_share(n))
            pool.cut_answers(1)
            with pytest.raises(EOFError):
                await first.send(work, nonce)
            pool.new_job(clean=False)
            again = await Miner.connect(at)
            await again.log_in(first.session, mask=MASK)
            assert (again.extranonce, again.session) == (first.extranonce, first.session)
            assert list(again.jobs) == [old.job_id], "the job that it had is told again"
            assert not again.job.clean
            await again.next_job()
            assert await again.send(work, nonce) == [22, "Duplicate", None]
            assert await again.submit(old.work(b"efgh")) is True
            assert (pool.stats.total.accepted, pool.resumed) == (2, 1)

    run(body)


def test_a_session_is_not_resumed_when_it_is_old_unknown_or_of_jobs_that_are_void() -> None:
    async def body() -> None:
        clock = [1_700_000_000.0]
        settings = PoolSettings(difficulty=EASY, resume_s=10.0, grace_s=0.0)
        async with running(settings, clock_s=lambda: clock[0]) as (pool, at):
            first = await Miner.connect(at)
            await first.log_in()
            work = first.job.work(b"abcd")
            first.writer.close()
            while pool.links:  # noqa: ASYNC110 - the pool's own end of it
                await asyncio.sleep(0.005)
            stranger = await Miner.connect(at)
            await stranger.log_in("0123456789abcdef")
            assert stranger.extranonce != first.extranonce
            clock[0] += 5
            pool.new_job(clean=True)
            clock[0] += 1
            back = await Miner.connect(at)
            await back.log_in(first.session)
            assert back.extranonce == first.extranonce
            assert back.job.clean, "what it had is void"
            assert work.job.job_id not in back.jobs
            assert (await back.submit(work))[:2] == [21, "Stale"]
            back.writer.close()
            while len(pool.links) > 1:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
            clock[0] += 11
            late = await Miner.connect(at)
            await late.log_in(first.session)
            assert late.extranonce != first.extranonce

    run(body)


def test_two_connections_never_share_a_session() -> None:
    async def body() -> None:
        async with running() as (_, at):
            first = await Miner.connect(at)
            await first.log_in()
            second = await Miner.connect(at)
            await second.log_in(first.session)
            assert second.extranonce == first.extranonce
            with pytest.raises((EOFError, ConnectionResetError)):
                await first.submit(first.job.work(b"abcd"))
            assert await second.submit(second.job.work(b"abcd")) is True

    run(body)


def test_sessions_that_were_left_are_bounded() -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=EASY, sessions_kept=2)
        async with running(settings) as (pool, at):
            left = []
            for _ in range(3):
                miner = await Miner.connect(at)
                await miner.log_in()
                miner.writer.close()
                left.append(miner)
                while pool.links:  # noqa: ASYNC110 - the pool's own end of it
                    await asyncio.sleep(0.005)
            backs = [await Miner.connect(at) for _ in left]
            for back, miner in zip(backs, left, strict=True):
                await back.log_in(miner.session)
            same = [b.extranonce == m.extranonce for b, m in zip(backs, left, strict=True)]
            assert same == [False, True, True]

    run(body)


def test_configure_takes_a_least_difficulty_and_says_why_not() -> None:
    async def body() -> None:
        async with running() as (_, at):
            miner = await Miner.connect(at)
            await miner.log_in(**{"minimum-difficulty": 1e-6})
            assert miner.job.difficulty == 1e-6
            await miner.ask("mining.suggest_difficulty", 5e-7)
            await miner.ask("mining.ping")
            assert miner.difficulty == 1e-6, "a suggestion below it changes nothing"
            other = await Miner.connect(at)
            answer = await other.ask(
                "mining.configure",
                ["minimum-difficulty", "subscribe-extranonce", "info"],
                {"minimum-difficulty.value": "low"},
            )
            assert answer == {
                "minimum-difficulty": "difficulty is not a number",
                "subscribe-extranonce": True,
            }

    run(body)


def test_extranonces_rotate_for_who_follows_and_the_others_are_hung_up_on() -> None:
    async def body() -> None:
        async with running() as (pool, at):
            miner, deaf = await Miner.connect(at), await Miner.connect(at)
            await miner.log_in()
            await deaf.log_in()
            assert await miner.ask("mining.extranonce.subscribe") is True
            old, first = miner.job, miner.extranonce
            pool.rotate_extranonces()
            fresh = await miner.next_job()
            assert fresh.extranonce == miner.extranonce != first
            assert await miner.submit(fresh.work(b"abcd")) is True
            assert await miner.submit(old.work(b"abcd")) is True, "the old job has the old one"
            with pytest.raises(EOFError):
                await deaf.next_job()

    run(body)


def test_a_new_version_mask_holds_at_once_with_a_grace_for_shares_on_their_way() -> None:
    async def body() -> None:
        clock = [1_700_000_000.0]
        settings = PoolSettings(difficulty=EASY, grace_s=2.0)
        async with running(settings, clock_s=lambda: clock[0]) as (pool, at):
            miner = await Miner.connect(at)
            await miner.log_in(mask=MASK)
            job = miner.job
            rolled = [MiningWork(job, bytes([n] * 4), job.ntime, 0x1000_0000) for n in range(2)]
            pool.set_version_mask(0x00FFE000)
            assert await miner.submit(rolled[0]) is True
            assert miner.mask == 0x00FFE000
            clock[0] += 3
            assert (await miner.submit(rolled[1]))[:2] == [20, "Invalid version mask"]

    run(body)


def test_a_pool_like_ckpool_answers_no_unknown_method_at_all() -> None:
    async def body() -> None:
        async with running(PoolSettings(difficulty=EASY, silent_on_unknown=True)) as (_, at):
            miner = await Miner.connect(at)
            await miner.log_in()
            for method in ("mining.extranonce.subscribe", "mining.nonsense"):
                miner.writer.write(json.dumps({"id": method, "method": method}).encode() + b"\n")
            assert await miner.submit(miner.job.work(b"abcd")) is True
            assert not [m for m in miner.said if isinstance(m.get("id"), str)]

    run(body)


def test_a_redirect_names_the_other_address() -> None:
    async def body() -> None:
        async with running() as (pool, at):
            miner = await Miner.connect(at)
            await miner.log_in()
            pool.redirect(Endpoint("127.67.1.2", 3333), 1.5)
            assert (await miner.read())["params"] == ["127.67.1.2", 3333, 1.5]

    run(body)


def test_an_easy_network_target_makes_blocks_that_are_counted_and_pay_nobody() -> None:
    async def body() -> None:
        async with running(PoolSettings(difficulty=EASY, nbits=0x207FFFFF)) as (pool, at):
            miner = await Miner.connect(at)
            await miner.log_in()
            assert await miner.submit(miner.job.work(b"abcd")) is True
            assert pool.status()["blocks"] == 1

    run(body)


def test_vardiff_aims_at_the_wanted_rate_and_leaves_chance_alone() -> None:
    vardiff = Vardiff(6.0, 1e-3, 64.0, began_s=0.0)
    difficulty, now_s = 1.0, 0.0
    for _ in range(12):  # a miner that finds one share of difficulty 1 in a second: 60 a minute
        span_s = 20.0 * difficulty
        for _ in range(20):
            vardiff.credited()
        now_s += span_s
        difficulty = vardiff.retarget(difficulty, now_s)
    assert 7 < difficulty < 14, "10 is right"
    for _ in range(7):
        vardiff.credited()
    assert vardiff.retarget(difficulty, now_s + WINDOW_S) == difficulty, "7 for 6 is chance"


def test_vardiff_steps_are_bounded_and_so_is_the_difficulty() -> None:
    slow = Vardiff(60.0, 1e-3, 64.0, began_s=0.0)
    assert slow.retarget(1.0, WINDOW_S / 2) == 1.0, "too early to say"
    assert slow.retarget(1.0, WINDOW_S) == 1 / 8
    fast = Vardiff(6.0, 1e-3, 64.0, began_s=0.0)
    for _ in range(ENOUGH_SHARES):
        fast.credited()
    assert fast.retarget(16.0, 0.1) == 64.0


def test_a_flood_of_shares_gets_a_harder_job_at_once_and_the_old_job_its_old_difficulty() -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=EASY, shares_per_minute=6.0, most_difficulty=1e-5)
        async with running(settings) as (pool, at):
            miner = await Miner.connect(at)
            await miner.log_in()
            old = miner.job
            for n in range(ENOUGH_SHARES):
                assert await miner.submit(old.work(bytes([n] * 4))) is True
            await miner.next_job()
            assert miner.job.difficulty == pytest.approx(8 * EASY)
            assert await miner.submit(old.work(b"late")) is True
            assert pool.stats.total.difficulty == pytest.approx((ENOUGH_SHARES + 1) * EASY)

    run(body)


def test_the_command_serves_tls_and_its_help_says_that_it_pays_nobody(tmp_path: Path) -> None:
    pem = tmp_path / "pool.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.67.1.9"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["openssl", "req", "-x509", *key, *subject, "-keyout", pem, "-out", tmp_path / "c"]
    try:
        subprocess.run(made, check=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("there is no openssl command to make a certificate with")
    pem.write_bytes(pem.read_bytes() + (tmp_path / "c").read_bytes())

    async def body() -> None:
        command = [sys.executable, "-m", "wattshift_cluster.cli", "pool", "serve"]
        flags = ["--listen=127.67.1.9:0", "--status=127.67.1.9:0", "--difficulty=2e-7"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *flags,
            f"--tls-cert={pem}",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(20):
            ready = json.loads(await process.stdout.readline())
            at = Endpoint.parse(ready["stratum"])
            miner = await Miner.connect(at, ssl.create_default_context(cafile=str(tmp_path / "c")))
            await miner.log_in()
            assert await miner.submit(miner.job.work(b"abcd")) is True
            process.terminate()
            assert b"pays nobody" in await process.stderr.read()
            assert await process.wait() == 0

    run(body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extranonce2_size": 9},
        {"shares_per_minute": 0.0},
        {"resume_s": -1.0},
        {"sessions_kept": 0},
        {"least_difficulty": 2.0, "most_difficulty": 1.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|order"):
        PoolSettings(**wrong)
