"""A pool's figures against ours: no alarm by chance, delay or few shares; one where it errs."""

import asyncio
import random
from typing import Any

import pytest

from wattshift_cluster.agent.desk import PoolDesk
from wattshift_cluster.agent.pool_audit import PoolReport
from wattshift_cluster.config.agent import Pool
from wattshift_cluster.jsonhttp import address, serve_json
from wattshift_cluster.mining.audit import MOST_SAMPLES, PoolAudit, accepted_difficulty
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.shares import ShareLedger, ShareResult

MINUTE = 60.0


class Site:
    """Shares as they come, and a pool that tells of them late, forgets some and may begin anew."""

    def __init__(self, seed: int = 1, *, forgets: float = 0.0, late_s: float = 60.0) -> None:
        self.rng = random.Random(seed)
        self.ledger = ShareLedger()
        self.audit = PoolAudit()
        self.forgets, self.late_s = forgets, late_s
        self.now_s = 0.0
        self.credits: list[tuple[float, float]] = []
        self.gone = 0.0

    def minute(self, shares: int, difficulty: float = 1.0, *, lost: int = 0) -> str | None:
        for n in range(shares):
            at_s = self.now_s + MINUTE * n / shares
            self.ledger.find()
            if n < lost:  # the pool has it, but its answer did not reach us
                self.ledger.settle(ShareResult(False, "lost: no answer", difficulty), lost=True)
            else:
                self.ledger.settle(ShareResult(True, None, difficulty))
            if self.rng.random() >= self.forgets:
                self.credits.append((at_s, difficulty))
        self.now_s += MINUTE
        theirs = sum(d for at_s, d in self.credits if at_s <= self.now_s - self.late_s)
        self.audit.take(self.now_s, self.ledger.snapshot(), max(0.0, theirs - self.gone))
        return self.audit.alarm


@pytest.mark.parametrize("forgets", [0.0, 0.01, 0.02])
def test_it_does_not_cry_wolf(forgets: float) -> None:
    for seed in range(10):
        site = Site(seed, forgets=forgets, late_s=60.0 * (seed % 3))
        for minute in range(90):
            rate = 0 if 30 <= minute < 40 else 12  # a curtailment: late figures matter most there
            assert site.minute(rate, difficulty=2.0 ** (minute // 30)) is None, (seed, minute)


def test_a_pool_that_credits_too_little_is_found_out_once_that_is_certain() -> None:
    for seed in range(6):
        site = Site(seed, forgets=0.06)
        said = [site.minute(12) for _ in range(200)]
        assert said[5] is None, "60 shares prove nothing"
        assert said[-1] is not None
        assert "less than it accepted" in said[-1]


def test_nothing_is_said_of_few_shares_whatever_the_pool_says() -> None:
    site = Site(forgets=1.0)
    assert [site.minute(3) for _ in range(30)] == [None] * 30


def test_a_pool_that_credits_more_than_we_found_shares_our_name_with_another() -> None:
    site = Site()
    for _ in range(20):
        site.minute(12)
    for _ in range(40):
        site.credits += [(site.now_s, 1.0)] * 3
        site.minute(12)
    assert "another use our name" in (site.audit.alarm or "")


def test_a_share_whose_answer_was_lost_may_be_credited_all_the_same() -> None:
    site = Site()
    assert [site.minute(20, lost=2) for _ in range(60)] == [None] * 60


def test_a_pool_that_begins_anew_is_compared_from_there_on() -> None:
    site = Site()
    for _ in range(60):
        site.minute(12)
    site.gone = sum(d for at_s, d in site.credits if at_s <= site.now_s)
    assert [site.minute(12) for _ in range(60)] == [None] * 60
    assert len(site.audit._samples) < 70 <= MOST_SAMPLES


@pytest.mark.parametrize(
    ("report", "difficulty"),
    [
        ({"users": {"me.rig": {"accepted_difficulty": 1.5}}, "accepted_difficulty": 9.0}, 1.5),
        (
            {"shares": 99, "worker": [{"workername": "me"}, {"workername": "me.rig", "shares": 7}]},
            7,
        ),
        ({"shares": 99, "worker": [{"workername": "me.other", "shares": 7}]}, None),
        ({"users": {"other": {"accepted_difficulty": 1.5}}}, None),
        ({"users": {"me.rig": {"accepted_difficulty": "1.5"}}}, None),
        ({"users": {"me.rig": {"accepted_difficulty": float("nan")}}}, None),
        ({"users": {"me.rig": {"accepted_difficulty": 10**400}}}, None),
        ({"users": {"me.rig": {"accepted_difficulty": -1}}}, None),
        ({"users": {"me.rig": {"accepted_difficulty": True}}}, None),
        ({"users": ["me.rig"]}, None),
        ([], None),
    ],
    ids=str,
)
def test_what_is_read_of_a_pools_page(report: Any, difficulty: float | None) -> None:
    assert accepted_difficulty(report, "me.rig") == difficulty


def test_the_agents_desk_reads_the_real_page_and_alarms_where_the_figures_differ() -> None:
    async def scene() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=1e-6))
        at = await pool.start(Endpoint("127.67.3.1", 0))
        wrong: dict[str, Any] = {}
        page = await serve_json("127.67.3.1", 0, {"/v1/status": lambda: {**pool.status(), **wrong}})
        now_s = 0.0

        def clock_s() -> float:
            nonlocal now_s
            now_s += 200.0  # each look comes as much later, beyond any delay
            return now_s

        ledger = ShareLedger()
        url = f"http://{address(page)}/v1/status"
        report = PoolReport(url, "rig", ledger.snapshot, clock_s, period_s=0.01)
        watching = asyncio.create_task(report.run())
        async with asyncio.timeout(10):
            while report.alarm is None:
                for _ in range(20):
                    ledger.find()
                    ledger.settle(ShareResult(True, None, 1e-6))
                wrong["users"] = {"rig": {"accepted_difficulty": 0.9 * ledger.accepted_difficulty}}
                await asyncio.sleep(0.01)
            assert "less than it accepted" in report.alarm
            assert report.fault is None
            wrong["users"] = {}
            while report.fault is None:  # noqa: ASYNC110 - the next look
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        desk = PoolDesk(Pool(url=f"stratum+tcp://{at}", user="rig", report_url=url))
        assert (len(desk._reports), desk.alarm) == (1, None)
        running = asyncio.create_task(desk.run())
        async with asyncio.timeout(10):
            while desk._reports[0].fault is None:  # noqa: ASYNC110 - it has read the page
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        page.close()
        await pool.stop()

    asyncio.run(scene())


def test_a_page_that_cannot_be_read_says_why_and_never_its_address() -> None:
    async def scene() -> None:
        url = "http://127.67.3.2:1/secret-key"
        report = PoolReport(url, "rig", ShareLedger().snapshot, lambda: 0.0)
        watching = asyncio.create_task(report.run())
        async with asyncio.timeout(10):
            while report.fault is None:  # noqa: ASYNC110 - the first look
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert "secret-key" not in report.fault

    asyncio.run(scene())
