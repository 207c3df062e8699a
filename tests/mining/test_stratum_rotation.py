"""Several pools: down the list when one is lost, back when it is well, and no share vanishes."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mining import scripted_pool as pools

from wattshift_cluster.mining.backoff import Backoff
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import StratumJob
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.standing import Patience, Standing, choose, needed

JudgingPool, found, scripted, until, run = (
    pools.JudgingPool, pools.found, pools.scripted, pools.until, pools.run
)  # fmt: skip

QUICK = Patience(give_up_s=0.15, return_after_s=0.2, boundary_s=0.1, linger_s=0.5)


def quick() -> Backoff:
    return Backoff(random.Random(3), least_s=0.01, first_s=0.02, most_s=0.05)


@asynccontextmanager
async def rotating(*at: Endpoint, **more: Any) -> AsyncIterator[PoolRotation]:
    more.setdefault("patience", QUICK)
    accounts = [Account(f"stratum+tcp://{one}", f"rig{number}") for number, one in enumerate(at)]
    rotation = PoolRotation(accounts, backoff=quick, deadlines=pools.CALM, **more)
    task = asyncio.create_task(rotation.run())
    try:
        yield rotation
    finally:
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 3)


class Switched:
    """A pool that can be shut: then it hangs up on everybody, at once."""

    def __init__(self, *, open_: bool = True, **more: Any) -> None:
        self.pool = JudgingPool(**more)
        self.open = open_
        self.miners: list[Any] = []

    async def __call__(self, miner: Any) -> None:
        self.miners.append(miner)
        if self.open:
            await self.pool(miner)

    def shut(self) -> None:
        self.open = False
        for miner in self.miners:
            miner.writer.transport.abort()

    def tell(self) -> None:
        self.pool.tell(self.miners[-1])


def mines_for(rotation: PoolRotation, at: Endpoint) -> bool:
    return rotation.current_job() is not None and str(rotation.endpoint) == str(at)


def test_it_goes_down_the_list_and_returns_to_the_first() -> None:
    async def body() -> None:
        one, two = Switched(), Switched()
        one.pool.clean = False
        jobs: list[StratumJob | None] = []
        async with (
            scripted(one) as (first, _),
            scripted(two) as (second, _),
            rotating(first, second, on_job=jobs.append) as rotation,
        ):
            await until(lambda: mines_for(rotation, first))
            assert two.miners == []  # nobody logs in there without a need
            one.shut()
            await until(lambda: jobs[-1] is None)
            assert rotation.current_job() is None
            assert rotation.lost_since_s is not None
            await until(lambda: mines_for(rotation, second))
            assert rotation.lost_since_s is None
            assert (await rotation.submit(found(rotation))).accepted
            one.open = True
            await until(lambda: mines_for(rotation, first))
            assert (await rotation.submit(found(rotation))).accepted
            assert jobs[-1] is not None
            assert jobs[-1].clean  # whatever the first pool says: the second one's work ends
            assert None not in jobs[jobs.index(None) + 1 :]  # switched without a gap
            assert rotation.failovers == 2
            each = [status.counts.accepted for status in rotation.pools()]
            assert each == [1, 1]
            assert rotation.counts.accepted == 2
            await until(lambda: not rotation.pools()[1].connected)  # and the second is left alone
        assert jobs[-1] is None  # it has ended, and nobody goes on hashing

    run(body)


def test_a_share_of_the_pool_that_was_left_still_goes_there() -> None:
    async def body() -> None:
        one, two = Switched(open_=False), Switched()
        patience = Patience(give_up_s=0.1, return_after_s=0.1, boundary_s=0.05, linger_s=20.0)
        async with (
            scripted(one) as (first, _),
            scripted(two) as (second, _),
            rotating(first, second, patience=patience) as rotation,
        ):
            await until(lambda: mines_for(rotation, second))
            share = found(rotation)
            one.open = True
            await until(lambda: mines_for(rotation, first))
            assert (await rotation.submit(share)).accepted
            assert [status.counts.accepted for status in rotation.pools()] == [0, 1]

    run(body)


def test_a_return_waits_for_the_next_job() -> None:
    async def body() -> None:
        one, two = Switched(open_=False), Switched()
        patience = Patience(give_up_s=0.05, return_after_s=0.05, boundary_s=60, linger_s=0.1)
        async with (
            scripted(one) as (first, _),
            scripted(two) as (second, _),
            rotating(first, second, patience=patience) as rotation,
        ):
            await until(lambda: mines_for(rotation, second))
            one.open = True
            await until(lambda: rotation.pools()[0].connected and rotation.pools()[0].trusted)
            await asyncio.sleep(0.1)
            assert mines_for(rotation, second)
            two.tell()
            await until(lambda: mines_for(rotation, first))

    run(body)


def test_a_refusing_pool_is_left_at_once_and_one_that_comes_and_goes_is_left_too() -> None:
    async def body() -> None:
        two = Switched()

        async def refuses(miner: Any) -> None:
            await miner.log_in(authorized=False)
            await asyncio.sleep(60)

        async def comes_and_goes(miner: Any) -> None:
            async with asyncio.timeout(0.03):
                await JudgingPool()(miner)

        slow = Patience(give_up_s=30.0, return_after_s=30.0)
        some = Patience(give_up_s=0.6, return_after_s=30.0)
        for script, patience in ((refuses, slow), (comes_and_goes, some)):
            async with (
                scripted(script) as (first, _),
                scripted(two) as (second, _),
                rotating(first, second, patience=patience) as rotation,
            ):
                await until(lambda: mines_for(rotation, second))
                assert not rotation.pools()[0].trusted

    run(body)


def test_without_any_pool_it_says_why_of_each() -> None:
    async def body() -> None:
        one, two = Switched(open_=False), Switched(open_=False)
        async with (
            scripted(one) as (first, _),
            scripted(two) as (second, _),
            rotating(first, second) as rotation,
        ):
            await until(lambda: len(rotation.pools()) == 2 and two.miners)
            await until(lambda: rotation.fault and rotation.fault.count("closed") == 2)
            assert str(first) in (rotation.fault or "")
            assert rotation.next_work() is None

    run(body)


LOOKS = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 40)),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(LOOKS)
def test_what_is_mined_for_is_up_and_never_worse_than_what_is_trusted(looks: Any) -> None:
    """Whatever pools do: never one that is down; never away from one that is up but upwards."""
    patience = Patience(give_up_s=30.0, return_after_s=60.0)
    standings = [Standing() for _ in range(3)]
    active: int | None = None
    now_s = 0.0
    for index, up, sound, refused, step in looks:
        now_s += step
        standings[index].look(now_s, patience, up=up, sound=sound, refused=refused)
        before, active = active, choose(standings, active)
        ups = [n for n, one in enumerate(standings) if one.up]
        assert (active in ups) if ups else active is None
        trusted = [n for n in ups if standings[n].trusted]
        if active is not None and trusted:
            assert active <= min(trusted) or active == before
        if before in ups and active != before:
            assert active is not None
            assert active < before
            assert standings[active].trusted
        held = needed(standings, active)
        assert any(standings[n].trusted for n in held) or held == {0, 1, 2}
        assert active is None or active in held


def test_a_pool_that_was_given_up_earns_trust_by_being_well() -> None:
    patience = Patience(give_up_s=30.0, return_after_s=300.0)
    pool = Standing()

    def look(now_s: float, *, up: bool) -> None:
        pool.look(now_s, patience, up=up, sound=up, refused=False)

    look(0.0, up=False)
    look(29.0, up=False)
    assert pool.trusted
    look(30.0, up=False)
    assert not pool.trusted
    look(40.0, up=True)
    look(339.0, up=True)
    assert not pool.trusted
    look(339.5, up=False)
    look(340.0, up=True)
    look(639.0, up=True)
    assert not pool.trusted  # it was away once more
    look(640.0, up=True)
    assert pool.trusted
