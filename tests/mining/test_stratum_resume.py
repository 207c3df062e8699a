"""No share vanishes: one in flight when its connection ends is sent once more, or lost with why."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.mining import scripted_pool as pools

from wattshift_cluster.mining.client import Keeping, StratumClient
from wattshift_cluster.mining.job import Share
from wattshift_cluster.mining.refusals import Kind
from wattshift_cluster.mining.session import Deadlines
from wattshift_cluster.mining.shares import ShareResult

JudgingPool, found = pools.JudgingPool, pools.found
scripted, until, run = pools.scripted, pools.until, pools.run


def mining_on(at: Any, **more: Any) -> Any:
    return pools.mining_on(at, **{"deadlines": pools.CALM, **more})


async def submitted(client: StratumClient, share: Share) -> ShareResult:
    async with asyncio.timeout(6):
        return await client.submit(share)


@pytest.mark.parametrize("verdict", ["cut", "drop"])
def test_a_share_in_flight_is_sent_again_once_and_a_duplicate_is_accepted(verdict: str) -> None:
    async def body() -> None:
        pool = JudgingPool([verdict])
        async with scripted(pool) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            result = await submitted(client, found(client))
            counts = client.counts
            assert result.accepted
            assert (counts.found, counts.accepted, counts.lost, counts.rejected) == (1, 1, {}, {})
            assert len(pool.asked) == 2
            assert pool.asked[0] == pool.asked[1]
            assert counts.resubmitted == 1
            assert counts.known_already == (verdict == "cut")

    run(body)


def test_it_is_not_sent_a_third_time() -> None:
    async def body() -> None:
        pool = JudgingPool(["drop", "drop"])
        async with scripted(pool) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            assert not (await submitted(client, found(client))).accepted
            assert len(pool.asked) == 2
            assert client.counts.lost == {"lost: disconnected, twice": 1}

    run(body)


def test_a_duplicate_that_was_never_cut_off_is_a_refusal() -> None:
    async def body() -> None:
        pool = JudgingPool()
        async with scripted(pool) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            share = found(client)
            assert (await submitted(client, share)).accepted
            second = await submitted(client, share)
            assert second == ShareResult(False, "22 Duplicate", pools.EASIEST, Kind.DUPLICATE)
            assert client.counts.rejected_kinds == {Kind.DUPLICATE: 1}

    run(body)


def test_a_pool_that_does_not_go_on_with_the_session_gets_it_never() -> None:
    async def body() -> None:
        pool = JudgingPool(["cut"], resumes=False)
        async with scripted(pool) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            assert not (await submitted(client, found(client))).accepted
            await until(client.current_job)
            assert len(pool.asked) == 1
            assert client.counts.lost == {"lost: disconnected": 1}

    run(body)


def test_a_job_name_that_means_another_job_now_gets_no_old_share() -> None:
    async def body() -> None:
        pool = JudgingPool(["cut"])
        async with scripted(pool) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            share = found(client)
            pool.prevhash = "11" * 32
            assert not (await submitted(client, share)).accepted
            assert len(pool.asked) == 1
            assert client.counts.lost == {"lost: its job's name is another job's now": 1}

    run(body)


@pytest.mark.parametrize("clean", [True, False])
def test_a_share_found_while_there_is_no_connection_waits_for_it(clean: bool) -> None:
    """A worker's last launch ends after the connection did; its job is the pool's still."""

    async def body() -> None:
        pool = JudgingPool()
        pool.clean = clean
        async with scripted(pool) as (at, miners), mining_on(at) as client:
            await until(client.current_job)
            early, late = found(client), found(client)
            miners[-1].writer.transport.abort()
            await until(lambda: not client.connected)
            assert client.current_job() is None
            assert (await submitted(client, early)).accepted
            # The session goes on, so the work of before is good even now.
            assert (await submitted(client, late)).accepted
            assert client.counts.resubmitted == 0
            assert client.counts.accepted == 2

    run(body)


def test_a_new_tip_while_away_makes_an_unsent_share_stale() -> None:
    async def body() -> None:
        pool = JudgingPool()
        async with scripted(pool) as (at, miners), mining_on(at) as client:
            await until(client.current_job)
            share = found(client)
            pool.job_id, pool.prevhash = "j2", "11" * 32
            miners[-1].writer.transport.abort()
            await until(lambda: not client.connected)
            assert not (await submitted(client, share)).accepted
            assert pool.asked == []
            assert client.counts.lost == {"lost: stale": 1}

    run(body)


def test_the_same_extranonce2_is_not_given_out_again_after_a_resumption() -> None:
    async def body() -> None:
        pool = JudgingPool()
        async with scripted(pool) as (at, miners), mining_on(at) as client:
            await until(client.current_job)
            before = {client.next_extranonce2() for _ in range(3)}
            miners[-1].writer.transport.abort()
            await until(lambda: client.reconnects and client.current_job())
            assert before.isdisjoint({client.next_extranonce2() for _ in range(3)})

    run(body)


def test_a_dead_connection_is_noticed_by_a_share_without_an_answer() -> None:
    """Nothing at all comes: it is given up, and the share goes over the next one."""

    async def body() -> None:
        pool = JudgingPool(["deaf"])
        short = Deadlines(configure_s=5.0, answer_s=0.3)
        async with scripted(pool) as (at, _), mining_on(at, deadlines=short) as client:
            await until(client.current_job)
            assert (await submitted(client, found(client))).accepted
            assert client.reconnects == 1
            assert client.counts.known_already == 1

    run(body)


def test_neither_many_nor_old_shares_are_kept() -> None:
    async def body() -> None:
        pool = JudgingPool(["cut"])
        keeping = Keeping(most=2, age_s=0.2)
        async with scripted(pool) as (at, miners), mining_on(at, keeping=keeping) as client:
            await until(client.current_job)
            shares = [found(client) for _ in range(4)]
            at_once = [asyncio.create_task(client.submit(share)) for share in shares]
            pool.resumes = False
            for miner in miners:
                miner.writer.transport.abort()
            await asyncio.wait(at_once, timeout=5)
            counts = client.counts
            assert counts.lost["lost: too many on their way"] == 2
            assert (counts.found, counts.lost_total, counts.waiting) == (4, 4, 0)

    run(body)


def test_a_share_outlives_its_connection_only_so_long() -> None:
    async def body() -> None:
        pool = JudgingPool(["cut"])
        stop = asyncio.Event()

        async def once(miner: Any) -> None:
            await (asyncio.sleep(60) if stop.is_set() else pool(miner))

        keeping = Keeping(age_s=0.1)
        deadlines = Deadlines(connect_s=1.0, configure_s=15.0, answer_s=15.0, idle_s=15.0)
        more = {"keeping": keeping, "deadlines": deadlines}
        async with scripted(once) as (at, _), mining_on(at, **more) as client:
            await until(client.current_job)
            stop.set()
            assert not (await submitted(client, found(client))).accepted
            assert client.counts.lost == {"lost: disconnected": 1}

    run(body)


def test_twenty_refusals_in_a_row_end_the_session() -> None:
    """A pool that takes nothing pays nothing, so it is left as one that refuses us."""

    async def body() -> None:
        async with scripted(JudgingPool(["reject"] * 30)) as (at, _), mining_on(at) as client:
            await until(client.current_job)
            for number in range(20):
                assert client.current_job(), number
                await submitted(client, found(client))
            await until(lambda: client.refused)
            assert client.current_job() is None
            assert "20 shares refused: 20 Why not" in (client.fault or "")

    run(body)


VERDICTS = st.lists(st.sampled_from(["accept", "reject", "cut", "drop", "deaf"]), max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VERDICTS, st.booleans(), st.integers(0, 8))
def test_found_is_accepted_and_rejected_and_lost_and_waiting_whatever_the_pool_does(
    verdicts: list[str], resumes: bool, cancelled: int
) -> None:
    """Every call returns, each share is in one column at any moment, and none waits in the end."""

    async def body() -> None:
        pool = JudgingPool(verdicts, resumes=resumes)
        deadlines = Deadlines(answer_s=0.1 if "deaf" in verdicts else 5.0)
        async with scripted(pool) as (at, _), mining_on(at, deadlines=deadlines) as client:
            await until(client.current_job)
            calls = [asyncio.create_task(client.submit(found(client))) for _ in range(8)]
            while not all(call.done() for call in calls):
                counts = client.counts
                ended = counts.accepted + counts.rejected_total + counts.lost_total
                assert counts.found == ended + counts.waiting
                assert counts.waiting >= 0
                if cancelled < len(calls) and counts.found == 8:
                    calls[cancelled].cancel()
                await asyncio.wait(calls, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*calls, return_exceptions=True)
            counts = client.counts
            ended = counts.accepted + counts.rejected_total + counts.lost_total
            assert (counts.found, ended, counts.waiting) == (8, 8, 0)
            assert counts.rejected_total == sum(counts.rejected_kinds.values())
            assert len(set(pool.asked)) >= len(pool.asked) - counts.resubmitted
            if resumes and set(verdicts) <= {"accept", "cut"} and verdicts.count("cut") <= 1:
                assert counts.accepted >= 8 - 1  # the one that was cancelled

    run(body)
