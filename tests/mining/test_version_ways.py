"""Sixteen versions beside each nonce: at the proxy, and when a pool changes its mask in mid-job."""

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.mining import proxy_site as bench

from wattshift_cluster.agent.assignments import Assignments
from wattshift_cluster.agent.desk import WORKER_BITS, PoolDesk
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce, MiningWork, Share, StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.splitting import WorkSplitter
from wattshift_kernels.hasher import rolled

EASY, RawMiner, run, site, until = bench.EASY, bench.RawMiner, bench.run, bench.site, bench.until

MASKS = {"narrow": 0x0001E000, "overlapping": 0x0003C000, "wide": 0x1FFFE000}
LISTEN = Endpoint("127.65.0.3", 0)


def found(work: MiningWork, roll: int) -> Share:
    """The first share of a unit that was found under these version bits."""
    return next(work.share(n, roll) for n in range(1 << 20) if work.is_share(n, roll))


def test_machines_whose_masks_overlap_never_hash_the_same_and_all_their_ways_are_paid() -> None:
    async def body() -> None:
        async with site(difficulty=EASY / 10) as s:
            headers: list[bytes] = []
            miners, sent = [], 0
            for name, mask in MASKS.items():
                miner = await RawMiner.connect(s.at)
                miners.append(miner)
                options = {"version-rolling.mask": f"{mask:08x}"}
                await miner.ask("mining.configure", ["version-rolling"], options)
                _, first, size = await miner.log_in(name)
                own = Extranonce(bytes.fromhex(first), size)
                difficulty = miner.heard("mining.set_difficulty")[-1][0]
                notify = miner.heard("mining.notify")[-1]
                job = StratumJob.from_notify(
                    notify, extranonce=own, difficulty=difficulty, version_mask=mask
                )
                splitter = WorkSplitter(2, worker_bits=WORKER_BITS)
                for _ in range(2):
                    work = splitter.take(job).work
                    assert isinstance(work, MiningWork)
                    rolls = rolled(work.roll_mask)
                    assert len(rolls) == 16
                    headers += [work.header(0, roll) for roll in rolls]
                    for roll in (rolls[0], rolls[9], rolls[15]):
                        share = found(work, roll).submit_params(name, with_version=True)
                        answer = await miner.ask("mining.submit", *share)
                        assert answer["result"] is True, answer
                        sent += 1
            assert len(set(headers)) == len(headers) == 2 * 16 * len(MASKS)
            await until(lambda: s.pool.stats.total.accepted == sent, "the pool takes them all")
            assert not s.pool.stats.total.rejected
            for miner in miners:
                await miner.close()

    run(body)


def test_a_share_that_a_new_mask_has_overtaken_is_lost_and_no_refusal_of_the_pool() -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=EASY / 10))
        at = await pool.start(LISTEN)
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig"))
        running = asyncio.create_task(desk.run())
        said: list[dict[str, Any]] = []
        child: Any = SimpleNamespace(fault=None, send=said.append)
        assignments = Assignments("host-cpu0", desk)
        assignments.serve(child)
        await until(lambda: said, "work")
        number = said[0]["id"]
        work = assignments._works[number]
        assert isinstance(work, MiningWork)
        shares = [found(work, roll) for roll in (0, work.roll_mask)]
        told = len(said)
        pool.set_version_mask(0x1F000000)
        await until(lambda: len(said) > told, "work under the new mask")
        for share in shares:
            roll = share.version_bits & work.roll_mask
            event = {"event": "hit", "id": number, "nonce": share.nonce, "roll": roll}
            assignments.heard(event)
        await assignments.settle()
        counts = assignments.counts
        assert (counts.shares_found, counts.accepted, counts.rejected, counts.lost) == (2, 1, 0, 1)
        assert not pool.stats.total.rejected
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.stop()

    run(body)
