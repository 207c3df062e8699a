"""Each coin mined against its loopback pool, by the reference: real words, shares and counts.

The pool's words are written apart from the client's, and its verdict is the reference's.
"""

import asyncio
import itertools
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.nonces import NonceJob, NonceShare
from wattshift_cluster.mining.pool.coins import link
from wattshift_cluster.mining.pool.coins.ethereum_classic import EthereumClassic
from wattshift_cluster.mining.pool.coins.judge import target_of
from wattshift_cluster.mining.pool.coins.kaspa import Kaspa
from wattshift_cluster.mining.pool.coins.server import TONGUES, CoinPool
from wattshift_cluster.mining.pool.coins.tongue import Tongue
from wattshift_cluster.mining.pool.listening import NotLoopback
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pool.verdict import ShareRefused
from wattshift_cluster.mining.session import Deadlines
from wattshift_cluster.mining.splitting import WorkSplitter
from wattshift_kernels.algorithms import by_name
from wattshift_kernels.header import MAX_TARGET
from wattshift_kernels.verify import hit_of

EASIEST = 1e-9
"""About four hashes a share."""

LISTEN = Endpoint("127.85.1.1", 0)
COINS: dict[str, Callable[[], Tongue]] = {
    **TONGUES,
    "kheavyhash as text": lambda: Kaspa(large=True),
    "kheavyhash without an extranonce": lambda: Kaspa(prefix_bytes=0),
    "etchash in the older form": lambda: EthereumClassic(older=True),
}


@asynccontextmanager
async def mining(
    tongue: Tongue, **more: Any
) -> AsyncIterator[tuple[CoinPool, StratumClient, list[Any]]]:
    """A pool and a client at it, and the jobs that the client was told."""
    settings = PoolSettings(**{"difficulty": EASIEST, "job_every_s": 3600.0, **more})
    pool = CoinPool(tongue, settings)
    told: list[Any] = []
    at = await pool.start(LISTEN)
    client = StratumClient(
        f"stratum+tcp://{at}",
        "rig",
        algorithm=tongue.algorithm,
        on_job=told.append,
        deadlines=Deadlines(answer_s=30.0),
        backoff=Backoff(random.Random(3), least_s=0.01, first_s=0.02, most_s=0.05),
    )
    task = asyncio.create_task(client.run())
    try:
        yield pool, client, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pool.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - any state of either side, not one event
            await asyncio.sleep(0.005)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body()

    asyncio.run(bounded())


def mined(job: Any, splitter: WorkSplitter, *, good: bool = True) -> NonceShare:
    """A share of a job, or a nonce that is none, by the reference."""
    unit = splitter.take(job)
    first, _ = unit.nonces
    nonce = next(n for n in itertools.count(first) if unit.work.is_share(n) is good)
    share = unit.work.share(nonce)
    assert isinstance(share, NonceShare)
    return share


@pytest.mark.parametrize("coin", COINS)
def test_shares_are_found_and_accepted_and_both_sides_count_the_same(coin: str) -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        async with mining(COINS[coin]()) as (pool, client, told):
            await until(client.current_job)
            for _ in range(3):
                assert await client.submit(mined(client.current_job(), splitter)) is not None
            pool.new_job(clean=False)
            await until(lambda: len(told) > 1)
            assert (await client.submit(mined(client.current_job(), splitter))).accepted
            ours, theirs = client.counts, pool.stats.total
            assert (ours.accepted, ours.found, theirs.accepted) == (4, 4, 4)
            assert ours.accepted_difficulty == pytest.approx(theirs.difficulty)
            assert ours.accepted_difficulty == pytest.approx(4 * pool.difficulty)
            assert not theirs.rejected

    run(body)


def test_what_is_no_share_is_never_sent_and_a_second_time_is_a_duplicate() -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        async with mining(Kaspa()) as (pool, client, _):
            await until(client.current_job)
            job = client.current_job()
            share = mined(job, splitter)
            assert (await client.submit(share)).accepted
            again = await client.submit(share)
            assert (again.kind, again.reason) == ("duplicate", "22 Duplicate share")
            none = await client.submit(mined(job, splitter, good=False))
            moved = await client.submit(replace(share, nonce=b"\0" * 7))
            assert "own check" in (none.reason or "")
            assert "own check" in (moved.reason or "")
            assert client.counts.unverified == 2
            assert pool.stats.total.rejected.total() == 1

    run(body)


def test_a_new_block_makes_the_old_jobs_shares_stale() -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        ergo = TONGUES["autolykos2"]()
        async with mining(ergo, grace_s=0.0) as (pool, client, told):
            await until(client.current_job)
            late = mined(client.current_job(), splitter)
            pool.new_job(clean=True)
            await until(lambda: len(told) > 1)
            lost = await client.submit(late)  # a clean job has voided it here, too
            assert lost.reason == "lost: stale"
            counts = client.counts
            assert counts.found == counts.accepted + counts.rejected_total + counts.lost_total == 1

    run(body)


def test_a_pool_that_never_says_clean_tells_of_a_stale_share_itself() -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        async with mining(Kaspa(), grace_s=0.0) as (pool, client, told):
            await until(client.current_job)
            late = mined(client.current_job(), splitter)
            pool.new_job(clean=True)
            await until(lambda: len(told) > 1)
            refused = await client.submit(late)
            assert (refused.kind, client.counts.rejected_total) == ("stale", 1)

    run(body)


def test_a_share_whose_connection_ends_is_lost_and_counted() -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        async with mining(Kaspa()) as (pool, client, _):
            await until(client.current_job)
            pool.cut_answers(1)
            cut = await client.submit(mined(client.current_job(), splitter))
            assert cut.reason == "lost: disconnected"
            await until(lambda: client.reconnects and client.current_job())
            assert (await client.submit(mined(client.current_job(), splitter))).accepted
            counts = client.counts
            assert (counts.found, counts.accepted, counts.lost_total) == (2, 1, 1)
            assert client.reconnects == 1

    run(body)


def test_a_share_that_is_cancelled_while_it_is_checked_is_lost_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        async with mining(Kaspa()) as (pool, client, _):
            await until(client.current_job)
            share = mined(client.current_job(), WorkSplitter())
            begun, go_on = threading.Event(), threading.Event()

            def slow(*_: object) -> bool:
                begun.set()
                return go_on.wait(20)

            monkeypatch.setattr(NonceJob, "valid", slow)
            submitting = asyncio.create_task(client.submit(share))
            await until(begun.is_set)
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)
            go_on.set()
            counts = client.counts
            assert (counts.found, dict(counts.lost)) == (1, {"lost: cancelled": 1})
            assert pool.stats.total.accepted == 0

    run(body)


HOSTILE: list[tuple[str, list[Any]]] = [
    ("client.reconnect", ["127.85.9.9", 3333, 0]),
    ("client.reconnect", ["pool.example.org", 3333, 0]),
    ("mining.set_algorithm", ["sha256d"]),
    ("mining.set_user", ["thief"]),
    ("mining.authorize", ["thief", "x"]),
    ("mining.configure", [["version-rolling"], {}]),
    ("mining.set_version_mask", ["1fffe000"]),
]


@pytest.mark.parametrize("coin", ["autolykos2", "blake3", "kheavyhash"])
def test_no_pool_moves_us_nor_changes_the_account_or_the_algorithm(coin: str) -> None:
    async def body() -> None:
        async with mining(COINS[coin]()) as (pool, client, told):
            await until(client.current_job)
            for notice in HOSTILE:
                next(iter(pool.links)).post(*notice)
            pool.new_job(clean=True)
            await until(lambda: len(told) > 1)
            assert (told[-1].algorithm, pool.sessions) == (coin, 1)
            assert (await client.submit(mined(told[-1], WorkSplitter()))).accepted
            assert set(pool.stats.users) == {"rig"}

    run(body)


@pytest.mark.parametrize("how", ["another connection", "a new block"])
def test_a_share_that_is_overtaken_while_it_is_checked_is_lost_and_never_sent(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with mining(TONGUES["autolykos2"](), grace_s=0.0) as (pool, client, told):
            await until(client.current_job)
            share = mined(client.current_job(), WorkSplitter())
            begun, go_on = threading.Event(), threading.Event()

            def slow(*_: object) -> bool:
                begun.set()
                return go_on.wait(20)

            monkeypatch.setattr(NonceJob, "valid", slow)
            submitting = asyncio.create_task(client.submit(share))
            await until(begun.is_set)
            before = len(told)
            if how == "a new block":
                pool.new_job(clean=True)
                await until(lambda: len(told) > before)
            else:
                for one in list(pool.links):
                    one.hang_up()
                await until(lambda: client.reconnects and client.current_job())
            go_on.set()
            assert (await submitting).reason == "lost: stale"
            assert (client.counts.found, client.counts.lost_total) == (1, 1)
            assert not pool.stats.total.rejected

    run(body)


@pytest.mark.parametrize("coin", ["kheavyhash", "blake3"])
def test_another_extranonce_is_followed_with_the_next_job(coin: str) -> None:
    async def body() -> None:
        splitter = WorkSplitter()
        async with mining(COINS[coin]()) as (pool, client, told):
            await until(client.current_job)
            pool.rotate_prefixes()
            await until(lambda: len(told) > 1)
            before, after = told
            assert isinstance(before, NonceJob)
            assert before.prefix != after.prefix
            assert (await client.submit(mined(after, splitter))).accepted

    run(body)


def test_the_same_job_gives_two_clients_nonces_of_their_own() -> None:
    async def body() -> None:
        async with mining(Kaspa()) as (pool, client, _):
            await until(client.current_job)
            other = StratumClient(str(client.endpoint), "other", algorithm="kheavyhash")
            task = asyncio.create_task(other.run())
            await until(other.current_job)
            mine, theirs = client.current_job(), other.current_job()
            assert isinstance(mine, NonceJob)
            assert isinstance(theirs, NonceJob)
            assert (mine.before, mine.job_id) == (theirs.before, theirs.job_id)
            assert mine.prefix != theirs.prefix
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(pool.links) >= 1

    run(body)


BAD: list[tuple[str, str, Any]] = [
    ("kheavyhash", "Malformed", ["rig", "1", "zz"]),
    ("kheavyhash", "Malformed", ["rig", "1", "ff" * 9]),
    ("kheavyhash", "Job not found", ["rig", "77", "00" * 8]),
    ("kheavyhash", "Unauthorized", ["thief", "1", "00" * 8]),
    ("kheavyhash", "3 texts", ["rig", "1", 5]),
    ("kheavyhash", "3 texts", {"worker": "rig"}),
    ("blake3", "Malformed parameters", ["rig"]),
    ("blake3", "Malformed nonce", {"worker": "rig", "jobId": "1", "fromGroup": 0, "nonce": "00"}),
    ("autolykos2", "nTime", ["rig", "1", "00" * 6, "", "00" * 8]),
    ("autolykos2", "extranonce2", ["rig", "1", "00" * 6, "0", "ff" * 8]),
    ("etchash", "minernonce", ["rig", "1", "00" * 8]),
]


@asynccontextmanager
async def raw(tongue: Tongue, difficulty: float) -> AsyncIterator[tuple[CoinPool, Any]]:
    """A pool, and a miner's end that asks whatever a test wants."""
    pool = CoinPool(tongue, PoolSettings(difficulty=difficulty))
    at = await pool.start(LISTEN)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    numbers = itertools.count(1)

    async def ask(method: str, said: Any) -> dict[str, Any]:
        number = next(numbers)
        body = {"id": number, "method": method, "params": said}
        writer.write(json.dumps(body).encode() + b"\n")
        while True:
            answer: dict[str, Any] = json.loads(await reader.readline())
            if answer["id"] == number:
                return answer

    try:
        yield pool, ask
    finally:
        writer.close()
        await pool.stop()


@pytest.mark.parametrize(("coin", "why", "params"), BAD)
def test_a_pool_refuses_what_a_miner_says_wrong(coin: str, why: str, params: Any) -> None:
    async def body() -> None:
        async with raw(TONGUES[coin](), EASIEST) as (pool, ask):
            early = await ask("mining.submit", params)
            assert early["error"][1] == "Not logged in"
            assert (await ask("mining.authorize", ["rig", "x"]))["result"] is True
            refused = await ask("mining.submit", params)
            assert refused["result"] is None
            assert why in refused["error"][1]
            assert pool.stats.total.rejected.total() == 2

    run(body)


def test_a_hash_above_the_target_is_no_share() -> None:
    async def body() -> None:
        async with raw(Kaspa(prefix_bytes=0), 1e12) as (_, ask):
            await ask("mining.authorize", ["rig", "x"])
            refused = await ask("mining.submit", ["rig", "1", "00" * 8])
            assert refused["error"][:2] == [23, "Low difficulty share"]

    run(body)


def test_a_nonce_without_its_extranonce_is_somebody_elses() -> None:
    async def body() -> None:
        async with raw(Kaspa(), EASIEST) as (pool, ask):
            await ask("mining.authorize", ["rig", "x"])
            (mine,) = (one.prefix for one in next(iter(pool.links)).issued.values())
            other = bytes(byte ^ 1 for byte in mine)
            refused = await ask("mining.submit", ["rig", "1", (other + bytes(6)).hex()])
            assert refused["error"][:2] == [20, "Nonce without its extranonce"]

    run(body)


def test_a_hash_of_another_chain_is_no_share_of_this_one() -> None:
    async def body() -> None:
        alephium = TONGUES["blake3"]()
        async with raw(alephium, EASIEST) as (pool, ask):
            await ask("mining.authorize", ["rig", "x"])
            (mine,) = (one.prefix for one in next(iter(pool.links)).issued.values())
            work = alephium.hashed(pool.template, mine.ljust(24, b"\0"), MAX_TARGET)
            nonce = next(n for n in itertools.count() if hit_of(work, n) is None)
            said = {"worker": "rig", "jobId": "1", "fromGroup": 0, "toGroup": 0}
            whole = work.message[:20].hex() + f"{nonce:08x}"
            refused = await ask("mining.submit", {**said, "nonce": whole})
            assert refused["error"][1] == "Invalid block chain index"

    run(body)


def test_the_older_form_of_etchash_wants_the_right_mix_hash() -> None:
    async def body() -> None:
        async with raw(EthereumClassic(older=True), EASIEST) as (pool, ask):
            await ask("mining.authorize", ["rig", "x"])
            work = pool.tongue.hashed(pool.template, bytes(8), target_of(pool.tongue, EASIEST))
            nonce = next(n for n in itertools.count() if hit_of(work, n) is not None)
            mix = by_name("etchash").proof
            assert mix is not None
            for proof, error in ((bytes(32), "Wrong mix hash"), (mix(work, nonce), None)):
                said = [f"0x{nonce:016x}", "0x" + work.message[:32].hex(), "0x" + proof.hex()]
                answer = await ask("mining.submit", ["rig", "1", *said])
                assert (answer["error"] and answer["error"][1]) == error

    run(body)


def test_a_refusal_without_words_is_read_by_its_coins_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise ShareRefused(lines.UNAUTHORIZED, "")

    async def body() -> None:
        async with mining(TONGUES["blake3"]()) as (_, client, _told):
            await until(client.current_job)
            monkeypatch.setattr(link, "judge", refused)
            answer = await client.submit(mined(client.current_job(), WorkSplitter()))
            assert (answer.reason, answer.kind) == ("22", "unauthorised")

    run(body)


def test_only_the_pool_for_bitcoin_varies_its_difficulty() -> None:
    with pytest.raises(ValueError, match="kheavyhash"):
        PoolSettings(algorithm="kheavyhash", shares_per_minute=3.0)


def test_it_listens_on_loopback_alone_and_tells_what_it_is() -> None:
    async def body() -> None:
        pool = CoinPool(Kaspa())
        with pytest.raises(NotLoopback):
            await pool.start(Endpoint("192.0.2.1", 0))
        await pool.start(LISTEN)
        status = pool.status()
        assert (status["pays"], status["algorithm"]) == ("nobody", "kheavyhash")
        await pool.stop()

    run(body)
