"""No two workers hash the same header, whatever pools do; and what workers find is whose it is."""

import asyncio
import functools
import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from wattshift_cluster.agent import desk as desk_module
from wattshift_cluster.agent.assignments import Assignments
from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.tray import Assignment, Tray
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.mining.client import Keeping
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import Extranonce, MiningWork, StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pools import PoolRotation
from wattshift_cluster.mining.splitting import (
    MOST_PIECES,
    NTIME_AHEAD_S,
    TEMPLATES_KEPT,
    WorkExhausted,
    WorkSplitter,
    WorkUnit,
)
from wattshift_kernels.hasher import Work, rolled
from wattshift_kernels.header import hash_value, sha256d, with_nonce
from wattshift_kernels.sha256d.algorithm import digest

MASKS = (0, 0x2000, 0x6000, 0x1E000)
NTIME = 1_700_000_000


def job(
    size: int = 4, mask: int = 0, *, template: int = 0, first: int = 1, **more: Any
) -> StratumJob:
    made = StratumJob(
        job_id="a",
        prevhash=bytes([template] * 32),
        coinbase1=b"one",
        coinbase2=b"two",
        branches=(),
        version=0x20000000,
        nbits=0x17034219,
        ntime=NTIME,
        clean=False,
        extranonce=Extranonce(first.to_bytes(4, "big"), size),
        difficulty=1e-6,
        version_mask=mask,
    )
    return replace(made, **more)


def overlap(one: WorkUnit, other: WorkUnit) -> bool:
    """Whether any header is part of both; by the headers themselves, but for rolled bits."""
    a, b = one.kernel.message, other.kernel.message
    versions = int.from_bytes(a[:4], "little") ^ int.from_bytes(b[:4], "little")
    same = a[4:] == b[4:] and not versions & ~(one.kernel.roll_mask | other.kernel.roll_mask)
    (a_first, a_count), (b_first, b_count) = one.nonces, other.nonces
    return same and a_first < b_first + b_count and b_first < a_first + a_count


EXTRANONCE1 = st.sampled_from((b"1", b"2"))
CHANGES = st.one_of(
    st.fixed_dictionaries({"version_mask": st.sampled_from(MASKS)}),
    st.fixed_dictionaries({"version": st.sampled_from((0x20000000, 0x20002000, 0x20004000))}),
    st.fixed_dictionaries({"ntime": st.integers(NTIME - 2, NTIME + 2)}),
    st.fixed_dictionaries({"session": st.integers(0, 3), "difficulty": st.just(1e-5)}),
    st.fixed_dictionaries({"prevhash": st.sampled_from((bytes(32), b"x" * 32))}),
    st.fixed_dictionaries({"extranonce": st.builds(Extranonce, EXTRANONCE1, st.integers(0, 1))}),
)
"""What a pool does with a job: tells its template again in another way, or tells another one."""


@given(
    bits=st.integers(0, 2),
    mask=st.sampled_from(MASKS),
    turns=st.lists(
        st.tuples(CHANGES, st.integers(1, 9), st.sampled_from((1, 2, 3, 5, 17, 300))), max_size=12
    ),
)
@settings(max_examples=100, deadline=None)
def test_no_two_workers_hash_the_same_header_whatever_the_pool_does(
    bits: int, mask: int, turns: list[tuple[dict[str, Any], int, int]]
) -> None:
    splitter, one = WorkSplitter(2, worker_bits=bits), job(0, mask)
    taken: dict[bytes, list[WorkUnit]] = {}
    for change, workers, count in turns:
        one, splitter.workers = replace(one, **change), workers
        for _ in range(count):
            try:
                unit = splitter.take(one)
            except WorkExhausted:
                break
            mine = taken.setdefault(unit.kernel.message[4:], [])
            assert not any(overlap(unit, other) for other in mine), unit
            mine.append(unit)


def units(splitter: WorkSplitter, one: StratumJob, count: int) -> list[WorkUnit]:
    return [splitter.take(one) for _ in range(count)]


def test_a_wide_extranonce2_alone_tells_units_apart_and_each_has_all_nonces() -> None:
    taken = units(WorkSplitter(8), job(4, 0x1FFFE000), 5000)
    assert len({unit.work.extranonce2 for unit in taken}) == 5000
    assert {(u.nonces, u.work.version_bits, u.work.ntime) for u in taken} == {
        ((0, 1 << 32), 0, NTIME)
    }


def test_without_an_extranonce2_nonces_are_split_then_versions_rolled_and_then_the_time() -> None:
    taken = units(WorkSplitter(3), job(0, 0x6000), 4 * 4 * 2)
    assert [u.nonces for u in taken[:5]] == [
        (0, 1 << 30),
        (1 << 30, 1 << 30),
        (2 << 30, 1 << 30),
        (3 << 30, 1 << 30),
        (0, 1 << 30),
    ]
    assert [u.work.version_bits for u in taken[:16:4]] == [0, 0x2000, 0x4000, 0x6000]
    assert [u.work.ntime for u in taken] == [NTIME] * 16 + [NTIME + 1] * 16


def test_an_exhausted_job_says_so_and_the_time_is_never_rolled_beyond_what_pools_take() -> None:
    splitter = WorkSplitter(1)
    taken = units(splitter, job(0), NTIME_AHEAD_S + 1)
    assert max(u.work.ntime for u in taken) == NTIME + NTIME_AHEAD_S
    with pytest.raises(WorkExhausted):
        splitter.take(job(0))
    assert splitter.take(job(0, ntime=NTIME + 30)).work.ntime == NTIME + NTIME_AHEAD_S + 1


def test_bits_left_to_workers_are_none_that_are_handed_out() -> None:
    taken = units(WorkSplitter(1, worker_bits=1), job(0, 0x6000), 3)
    assert {u.kernel.roll_mask for u in taken} == {0x2000}
    assert [u.work.version_bits for u in taken] == [0, 0x4000, 0]


def test_a_workers_bits_are_its_own_whatever_the_jobs_version_says() -> None:
    one = replace(job(4, 0x1FFFE000), version=0x20012000)
    (unit,) = units(WorkSplitter(worker_bits=4), one, 1)
    assert (unit.kernel.roll_mask, unit.kernel.ways) == (0x1E000, 16)
    assert not int.from_bytes(unit.kernel.message[:4], "little") & 0x1E000
    for roll in rolled(unit.kernel.roll_mask):
        share = unit.work.share(9, roll)
        again = MiningWork(one, share.extranonce2, share.ntime, share.version_bits)
        assert again.digest(9) == unit.work.digest(9, roll) == digest(unit.kernel, 9, roll)


def test_what_is_remembered_is_bounded_and_so_are_the_pieces() -> None:
    splitter = WorkSplitter(10_000)
    first = [splitter.take(job(0, template=n)) for n in range(TEMPLATES_KEPT + 1)]
    assert len(splitter._known) == TEMPLATES_KEPT
    assert {u.nonces[1] for u in first} == {(1 << 32) // MOST_PIECES}


@given(size=st.integers(0, 3), mask=st.sampled_from(MASKS), count=st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_the_share_of_a_unit_is_the_header_that_was_hashed(
    size: int, mask: int, count: int
) -> None:
    unit = units(WorkSplitter(2), job(size, mask), count)[-1]
    share = unit.work.share(7)
    again = MiningWork(unit.work.job, share.extranonce2, share.ntime, share.version_bits)
    assert again.header(7)[:76] == unit.kernel.message


def test_a_worker_tries_the_nonces_it_was_given_and_no_others() -> None:
    tray = Tray()
    message = {"op": "work", "id": 4, "message": bytes(76).hex(), "target": f"{9:064x}"}
    tray.take({**message, "nonces": [1 << 30, 100], "roll_mask": "00006000"})
    assignment = tray.current()
    assert assignment is not None
    assert assignment.work.roll_mask == 0x6000
    assert [assignment.take(64), assignment.take(64)] == [(1 << 30, 64), ((1 << 30) + 64, 36)]
    assert not assignment.open


@pytest.mark.parametrize("nonces", [[-1, 5], [0, 0], [1 << 31, (1 << 31) + 1], [1], "ab"])
def test_nonces_that_are_none_end_the_worker(nonces: Any) -> None:
    message = {"op": "work", "id": 4, "message": bytes(76).hex(), "target": f"{9:064x}"}
    with pytest.raises((ValueError, TypeError)):
        Tray().take({**message, "nonces": nonces})


def test_an_assignment_without_nonces_has_them_all() -> None:
    assert Assignment(1, Work(bytes(76), 1)).take(1 << 40) == (0, 1 << 32)


def test_a_block_candidate_is_said_loudly_counted_and_goes_first() -> None:
    async def scene(nbits: int) -> tuple[list[Any], Assignments, LoopbackPool]:
        pool, said = LoopbackPool(PoolSettings(difficulty=2e-7, nbits=nbits)), []
        at = await pool.start(Endpoint("127.67.2.1", 0))
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig"))
        running = asyncio.create_task(desk.run())
        child: Any = SimpleNamespace(fault=None, send=said.append)
        assignments = Assignments("gpu0", desk)
        assignments.serve(child)
        async with asyncio.timeout(10):
            while not said:  # noqa: ASYNC110 - the pool's first job
                await asyncio.sleep(0.005)
        header76, target = bytes.fromhex(said[0]["message"]), int(said[0]["target"], 16)
        hashes = (sha256d(with_nonce(header76, nonce)) for nonce in itertools.count())
        nonce = next(n for n, digest in enumerate(hashes) if hash_value(digest) <= target)
        with capture_logs() as logs:
            assignments.heard({"event": "hit", "id": said[0]["id"], "nonce": nonce})
            await assignments.settle()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.stop()
        return logs, assignments, pool

    logs, assignments, pool = asyncio.run(scene(nbits=0x207FFFFF))
    loud = [line["log_level"] for line in logs if line["event"] == "block.candidate"]
    assert (loud, assignments.blocks, pool.stats.total.blocks) == (["critical"], 1, 1)
    assert "block" in (assignments.note or "")
    logs, assignments, pool = asyncio.run(scene(nbits=0x17034219))
    assert not [line for line in logs if line["event"] == "block.candidate"]
    assert (assignments.blocks, assignments.note, pool.stats.total.accepted) == (0, None, 1)


def test_a_block_goes_out_however_many_shares_are_on_their_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> list[str | None]:
        none = functools.partial(PoolRotation, keeping=Keeping(most=0))
        monkeypatch.setattr(desk_module, "PoolRotation", none)
        pool = LoopbackPool(PoolSettings(difficulty=2e-7))
        at = await pool.start(Endpoint("127.67.2.2", 0))
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig"))
        running = asyncio.create_task(desk.run())
        async with asyncio.timeout(10):
            while (unit := desk.unit()) is None:  # noqa: ASYNC110 - the pool's first job
                await asyncio.sleep(0.005)
        nonce = next(n for n in itertools.count() if unit.work.is_share(n))
        share = unit.work.share(nonce)
        said = [(await desk.submit(share, first=first)).reason for first in (False, True)]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.stop()
        return said

    assert asyncio.run(scene()) == ["lost: too many on their way", None]
