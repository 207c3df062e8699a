"""Pools that misbehave: the client never hangs, never follows elsewhere, and comes back."""

import asyncio
import random
from typing import Any

import pytest
from tests.mining import scripted_pool as pools

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint, EndpointInvalid
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings

scripted, mining_on, until, run = pools.scripted, pools.mining_on, pools.until, pools.run
Miner, Script = Any, Any


async def forever(_miner: Miner) -> None:
    await asyncio.sleep(60)


async def garbage(miner: Miner) -> None:
    miner.writer.write(b"\x00\xffHTTP/1.1 400 Bad Request\r\n\r\n")
    await forever(miner)


async def endless_line(miner: Miner) -> None:
    for _ in range(200):
        miner.writer.write(b"x" * 1024)
        await miner.writer.drain()
    await forever(miner)


async def drip(miner: Miner) -> None:
    while True:
        miner.writer.write(b" ")
        await asyncio.sleep(0.05)


async def hang_up(_miner: Miner) -> None:
    return


async def bad_subscribe(miner: Miner) -> None:
    while True:
        request = await miner.hear()
        miner.say(id=request["id"], result=[[], "zz", "4"], error=None)


async def bad_notify(miner: Miner) -> None:
    await miner.log_in()
    miner.notify(_1="short")
    await forever(miner)


@pytest.mark.parametrize(
    "script", [forever, garbage, endless_line, drip, hang_up, bad_subscribe, bad_notify]
)
def test_no_pool_hangs_the_client(script: Script) -> None:
    """It gives the session up within its deadlines and tries again."""

    async def body() -> None:
        async with scripted(script) as (at, miners), mining_on(at) as client:
            await until(lambda: len(miners) >= 3)
            assert client.current_job() is None
            assert client.fault

    run(body)


def test_a_silent_pool_is_left_after_the_idle_deadline() -> None:
    async def silent_later(miner: Miner) -> None:
        await miner.log_in()
        miner.notify()
        await forever(miner)

    async def body() -> None:
        async with scripted(silent_later) as (at, miners), mining_on(at) as client:
            await until(client.current_job)
            await until(lambda: len(miners) >= 2)
            await until(lambda: client.reconnects == 1)

    run(body)


def test_a_pool_that_hangs_up_on_configure_is_asked_without_it() -> None:
    async def old(miner: Miner) -> None:
        first = await miner.hear()
        if first["method"] == "mining.configure":
            return
        miner.say(id=first["id"], result=[[], "aabbccdd", 4], error=None)
        request = await miner.hear()
        miner.say(id=request["id"], result=True, error=None)
        miner.notify()
        await forever(miner)

    async def body() -> None:
        async with scripted(old) as (at, miners), mining_on(at) as client:
            await until(client.current_job)
            assert [miner.heard[0] for miner in miners[:2]] == [
                "mining.configure",
                "mining.subscribe",
            ]
            job = client.current_job()
            assert job is not None
            assert job.version_mask == 0

    run(body)


def test_notifications_are_obeyed_in_their_order_and_unknown_ones_ignored() -> None:
    """Difficulty and extranonce hold from the next job; a version mask at once (BIP 310)."""
    asked: list[dict[str, Any]] = []

    async def talkative(miner: Miner) -> None:
        while True:
            request = await miner.hear()
            if request["method"] == "mining.configure":
                answer = {"version-rolling": True, "version-rolling.mask": "1fffe000"}
                miner.say(id=request["id"], result=answer, error=None)
            if request["method"] == "mining.subscribe":
                miner.notify()  # even before its own answer
                miner.say(id=request["id"], result=[[], "aabbccdd", 4], error=None)
            if request["method"] == "mining.authorize":
                miner.say(id=request["id"], result=True, error=None)
                break
        miner.say(id=None, method="mining.surprise", params=[{"a": 1}])
        miner.say(id=None, method="client.show_message", params=["hello"])
        miner.say(id=7, method="client.get_version", params=[])
        asked.append(await miner.hear())
        miner.say(id=None, method="mining.set_difficulty", params=[0.5])
        miner.say(id=None, method="mining.set_extranonce", params=["ee", 2])
        await asyncio.sleep(0.1)
        miner.notify(_0="j2")
        await asyncio.sleep(0.1)
        miner.say(id=None, method="mining.set_version_mask", params=["00006000"])
        await forever(miner)

    async def body() -> None:
        jobs: list[Any] = []
        async with scripted(talkative) as (at, _), mining_on(at, on_job=jobs.append) as client:
            await until(lambda: len(jobs) == 3)
            assert asked == [{"id": 7, "result": "wattshift", "error": None}]
            seen = [(job.job_id, job.difficulty, job.extranonce.extranonce1.hex()) for job in jobs]
            assert seen == [("j1", 1.0, "aabbccdd"), ("j2", 0.5, "ee"), ("j2", 0.5, "ee")]
            assert [job.version_mask for job in jobs] == [0x1FFFE000, 0x1FFFE000, 0x6000]
            assert len(client.next_extranonce2()) == 2

    run(body)


def test_reconnect_follows_to_another_port_of_the_same_host_only() -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=1e-7))
        target = await pool.start(Endpoint("127.0.0.1", 0))

        async def redirecting(miner: Miner) -> None:
            await miner.log_in()
            miner.notify()
            elsewhere = {"id": None, "method": "client.reconnect"}
            miner.say(**elsewhere, params=["pool.example.org", 3333, 0])
            await asyncio.sleep(0.2)
            miner.say(**elsewhere, params=["", target.port, 0])
            await forever(miner)

        async with scripted(redirecting) as (at, miners), mining_on(at) as client:
            await until(lambda: pool.links and client.current_job())
            assert len(miners) == 1  # the foreign host did not end the session
            work = client.next_work()
            assert work is not None
            nonce = next(n for n in range(1 << 20) if work.is_share(n))
            assert (await client.submit(work.share(nonce))).accepted
        await pool.stop()

    run(body)


def test_shares_without_an_answer_are_lost_with_a_reason_and_none_vanishes() -> None:
    async def deaf_then_gone(miner: Miner) -> None:
        await miner.log_in()
        miner.notify()
        await miner.hear()  # the first share: never answered, although the pool is there
        miner.say(id=None, method="mining.set_difficulty", params=[1e-7])
        refused = await miner.hear()
        miner.say(id=refused["id"], result=False, error=[21, "Stale", None])
        object_error = await miner.hear()
        miner.say(id=object_error["id"], result=None, error={"code": 20, "message": "why not"})
        await miner.hear()  # and now the connection ends

    async def body() -> None:
        async with scripted(deaf_then_gone) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            for _ in range(4):
                work = client.next_work()
                assert work is not None
                nonce = next(n for n in range(1 << 20) if work.is_share(n))
                assert not (await client.submit(work.share(nonce))).accepted
            counts = client.counts
            assert counts.rejected == {"21 Stale": 1, "20 why not": 1}
            assert counts.lost == {"lost: no answer": 1, "lost: disconnected": 1}
            assert counts.found == 4
            assert counts.waiting == 0

    run(body)


def test_a_refused_user_is_not_tried_again_at_once() -> None:
    async def refusing(miner: Miner) -> None:
        await miner.log_in(authorized=False)
        await forever(miner)

    async def body() -> None:
        async with scripted(refusing) as (at, miners), mining_on(at) as client:
            await until(lambda: client.fault != "not started")
            await asyncio.sleep(0.3)
            assert len(miners) == 1
            assert "not authorized" in (client.fault or "")

    run(body)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "stratum+tcp://host", "", "x:99999"])
def test_an_unusable_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(EndpointInvalid):
        StratumClient(url, "rig")


def test_backoff_doubles_to_its_ceiling_and_repeats_from_its_seed() -> None:
    waits = [Backoff(random.Random(5), first_s=1.0, most_s=8.0) for _ in range(2)]
    series = [[backoff.next_s() for _ in range(200)] for backoff in waits]
    assert series[0] == series[1]
    assert all(wait <= min(8.0, 2.0**n) for n, wait in enumerate(series[0]))
    assert max(series[0]) > 7.0
    waits[0].reset()
    assert waits[0].next_s() <= 1.0
