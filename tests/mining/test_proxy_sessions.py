"""The proxy between real miners and the loopback pool: work split, shares passed on and counted."""

import asyncio
import json
import shutil
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.mining import proxy_site as bench

from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.job import Extranonce, MiningWork, StratumJob
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.pools import Account, PoolRotation
from wattshift_cluster.mining.proxy.server import ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.standing import Patience
from wattshift_cluster.mining.tls import Trust

EASY, FOLLOW, LOCAL = bench.EASY, bench.FOLLOW, bench.LOCAL
RawMiner, mine, run, site, solve = bench.RawMiner, bench.mine, bench.run, bench.site, bench.solve
until, upstream = bench.until, bench.upstream


def test_shares_of_several_miners_all_reach_the_pool_under_the_owners_account() -> None:
    async def body() -> None:
        async with site() as s, s.miner("a.asic-1") as one, s.miner("asic-2") as two:
            await mine(one, 3)
            await mine(two, 4)
            await until(lambda: s.pool.stats.total.accepted == 7, "all are accepted")
            await until(lambda: s.proxy.accounts.total.accepted == 7, "and counted")
            devices = s.proxy.workers()
            assert {name: row["accepted"] for name, row in devices.items()} == {
                "asic-1": 3,
                "asic-2": 4,
            }
            assert devices["asic-1"]["accepted_difficulty"] == pytest.approx(3 * EASY)
            assert devices["asic-2"]["pool_accepted"] == devices["asic-2"]["forwarded"] == 4
            assert s.proxy.upstream.counts.found == 7
            assert set(s.pool.stats.users) == {"owner.site"}
            assert not s.pool.stats.total.rejected

    run(body)


def test_no_two_miners_have_the_same_extranonce_and_all_stay_within_the_pools() -> None:
    async def body() -> None:
        async with site() as s, s.miner("a") as one, s.miner("b") as two:
            jobs = [client.current_job() for client in (one, two)]
            upstream = s.proxy.book.newest
            assert upstream is not None
            pools = upstream.upstream.extranonce
            seen = set()
            for job in jobs:
                assert job is not None
                own = job.extranonce
                assert own.extranonce1.startswith(pools.extranonce1)
                assert len(own.extranonce1) + own.extranonce2_size == len(pools.extranonce1) + 6
                assert own.extranonce2_size == 4
                seen.add(own.extranonce1)
            assert len(seen) == 2

    run(body)


def test_below_the_pools_difficulty_only_its_own_shares_are_passed_on() -> None:
    """Every valid share counts for its device; the pool sees those that it would pay."""
    settings = ProxySettings(start_difficulty=EASY / 8, least_difficulty=EASY / 8)

    async def body() -> None:
        async with site(settings, EASY) as s, s.miner("asic") as one:
            job = one.current_job()
            assert job is not None
            assert job.difficulty == EASY / 8
            await mine(one, 24)
            row = s.proxy.workers()["asic"]
            assert row["found"] == 24
            await until(lambda: s.proxy.workers()["asic"]["waiting"] == 0, "all are answered")
            row = s.proxy.workers()["asic"]
            assert row["accepted"] == 24
            assert row["accepted_difficulty"] == pytest.approx(24 * EASY / 8)
            assert row["forwarded"] < 15, "3 expected: the rest is below the pool's target"
            assert s.pool.stats.total.accepted == row["forwarded"] == row["pool_accepted"]
            assert s.pool.stats.total.rejected.total() == 0
            assert row["pool_difficulty"] == pytest.approx(EASY * row["forwarded"])

    run(body)


def test_the_difficulty_is_never_above_the_pools() -> None:
    async def body() -> None:
        async with site(ProxySettings(start_difficulty=1e6), EASY) as s, s.miner("asic") as one:
            job = one.current_job()
            assert job is not None
            assert job.difficulty == EASY

    run(body)


def test_a_suggested_difficulty_holds_before_the_first_job() -> None:
    settings = ProxySettings(start_difficulty=EASY / 2, least_difficulty=EASY / 100)

    async def body() -> None:
        async with site(settings) as s:
            miner = await RawMiner.connect(s.at)
            await miner.ask("mining.subscribe", "raw")
            await miner.ask("mining.suggest_difficulty", EASY / 10)
            await miner.log_in("asic")
            assert miner.heard("mining.set_difficulty") == [[EASY / 10]]
            assert [name for name, _ in miner.told] == ["mining.set_difficulty", "mining.notify"]
            assert (await miner.ask("mining.suggest_difficulty", "much"))["error"][0] == 20
            await miner.close()

    run(body)


def test_a_clean_job_reaches_everybody_at_once_and_voids_the_last_one() -> None:
    async def body() -> None:
        async with site() as s, s.miner("a") as one, s.miner("b") as two:
            old = one.next_work()
            assert old is not None
            s.pool.new_job(clean=True)
            await until(lambda: _is_new(one, old.job) and _is_new(two, old.job), "a new job")
            miner = await RawMiner.connect(s.at)
            _, first, size = await miner.log_in("late")
            new = miner.heard("mining.notify")[-1]
            assert new[8] is True
            extranonce = Extranonce(bytes.fromhex(first), size)
            job = StratumJob.from_notify(new, extranonce=extranonce, difficulty=EASY)
            share = job.work(bytes(size)).share(solve(job.work(bytes(size)).kernel_work()))
            params = share.submit_params("late", with_version=False)
            answer = await miner.ask("mining.submit", params[0], old.job.job_id, *params[2:])
            assert answer["error"][0] == 21
            assert (await miner.ask("mining.submit", *params))["result"] is True
            assert (await miner.ask("mining.submit", *params))["error"][0] == 22
            rejected = s.proxy.workers()["late"]["rejected_by_reason"]
            assert rejected == {"stale": 1, "duplicate": 1}
            await miner.close()

    run(body)


def test_a_job_that_only_others_were_told_is_none_of_a_newcomers() -> None:
    async def body() -> None:
        async with site() as s, s.miner("a") as one:
            old = _job(one)
            s.pool.new_job(clean=False)
            await until(lambda: _job(one).job_id != old.job_id, "a second job")
            assert s.proxy.book.get(old.job_id) is not None
            miner = await RawMiner.connect(s.at)
            _, first, size = await miner.log_in("late")
            own = Extranonce(bytes.fromhex(first), size)
            work = replace(old, extranonce=own, version_mask=0).work(bytes(size))
            params = work.share(solve(work.kernel_work())).submit_params("late", with_version=False)
            answer = await miner.ask("mining.submit", *params)
            assert answer["error"][:2] == [21, "Invalid JobID"]
            await miner.close()

    run(body)


def _is_new(client: StratumClient, old: StratumJob) -> bool:
    return _job(client).prevhash != old.prevhash


def _job(client: StratumClient) -> StratumJob:
    job = client.current_job()
    assert job is not None
    return job


def test_malformed_foreign_and_easy_shares_are_refused_and_never_forwarded() -> None:
    async def body() -> None:
        async with site(difficulty=1e-4) as s:
            miner = await RawMiner.connect(s.at)
            refused = await miner.ask("mining.submit", "x", "1", "", "", "")
            assert refused["error"][0] == 25
            await miner.log_in("asic")
            job = miner.heard("mining.notify")[-1]
            good = ["asic", job[0], "00000000", job[7], "00000000"]
            for params, code in (
                (["other", *good[1:]], 24),
                ([good[0], "ffff", *good[2:]], 21),
                ([*good[:2], "00", *good[3:]], 20),
                ([*good[:3], "00000000", good[4]], 20),
                ([*good, "00002000"], 20),
                (good, 23),
                ([1, 2, 3], 20),
                ([], 20),
            ):
                answer = await miner.ask("mining.submit", *params)
                assert answer["error"][0] == code, (params, answer)
            total = s.proxy.accounts.total
            assert (total.found, total.rejected.total(), total.forwarded) == (9, 9, 0)
            assert s.proxy.upstream.counts.found == 0
            await miner.close()

    run(body)


def test_the_version_mask_is_what_pool_and_miner_both_allow() -> None:
    async def body() -> None:
        async with site() as s:
            miner = await RawMiner.connect(s.at)
            options = {"version-rolling.mask": "00ffe000", "version-rolling.min-bit-count": 2}
            told = (await miner.ask("mining.configure", ["version-rolling"], options))["result"]
            assert told == {"version-rolling": True, "version-rolling.mask": "00ffe000"}
            _, first, size = await miner.log_in("asic")
            own = Extranonce(bytes.fromhex(first), size)
            notify = miner.heard("mining.notify")[-1]
            job = StratumJob.from_notify(
                notify, extranonce=own, difficulty=EASY, version_mask=0x00FFE000
            )
            work = MiningWork(job, bytes(size), job.ntime, 0x00ABC000)
            params = work.share(solve(work.kernel_work())).submit_params("asic", with_version=True)
            assert (await miner.ask("mining.submit", *params))["result"] is True
            await until(lambda: s.pool.stats.total.accepted == 1, "the pool takes it")
            s.pool.set_version_mask(0x1F00E000)
            await until(lambda: miner.heard("mining.set_version_mask"), "the new mask")
            assert miner.heard("mining.set_version_mask") == [["0000e000"]]
            answer = await miner.ask("mining.submit", *params)
            assert answer["error"][1] == "Invalid version mask"
            plain = await RawMiner.connect(s.at)
            await plain.log_in("plain")
            s.pool.set_version_mask(0x1FFFE000)
            await until(lambda: len(miner.heard("mining.set_version_mask")) == 2, "wide again")
            assert not plain.heard("mining.set_version_mask"), "it never asked to roll"
            await miner.close()
            await plain.close()

    run(body)


def test_another_extranonce_of_the_pool_is_passed_on_or_the_miner_must_come_back() -> None:
    async def body() -> None:
        async with site() as s:
            follows, stays = await RawMiner.connect(s.at), await RawMiner.connect(s.at)
            await follows.log_in("follows")
            await stays.log_in("stays", follows=False)
            s.pool.rotate_extranonces()
            await until(lambda: follows.heard("mining.set_extranonce"), "the new extranonce")
            await until(lambda: stays.closed, "who cannot follow is hung up on")
            first, size = follows.heard("mining.set_extranonce")[-1]
            await until(lambda: len(follows.heard("mining.notify")) == 2, "a job for it")
            names = [name for name, _ in follows.told]
            assert names.index("mining.set_extranonce") < len(names) - 1 - names[::-1].index(
                "mining.notify"
            )
            own = Extranonce(bytes.fromhex(first), size)
            job = StratumJob.from_notify(
                follows.heard("mining.notify")[-1], extranonce=own, difficulty=EASY
            )
            work = job.work(bytes(size))
            params = work.share(solve(work.kernel_work())).submit_params(
                "follows", with_version=False
            )
            assert (await follows.ask("mining.submit", *params))["result"] is True
            await until(lambda: s.pool.stats.total.accepted == 1, "the pool takes it")
            await follows.close()
            await stays.close()

    run(body)


def test_miners_hold_their_job_for_a_while_then_nobody_works_for_nothing() -> None:
    async def body() -> None:
        async with site(ProxySettings(per_worker=False, hold_s=0.6), resume_s=0.0) as s:
            miner = await RawMiner.connect(s.at)
            await miner.log_in("asic")
            await s.pool_away()
            assert s.proxy.status()["unpaid"] is False
            assert not miner.closed
            since_s = s.proxy.status()["upstream_lost_since"]
            assert since_s is not None
            await until(lambda: miner.closed, "the hold ends")
            status = s.proxy.status()
            assert (status["unpaid"], status["upstream_lost_since"]) == (True, since_s)
            assert status["fault"]
            late = await RawMiner.connect(s.at)
            await until(lambda: late.closed, "nobody is let in")
            assert s.proxy.status()["turned_away"] == {"there is no paid work": 1}
            await s.pool_back()
            await until(lambda: not s.proxy.lost, "the pool is back")
            again = await RawMiner.connect(s.at)
            await again.log_in("asic")
            assert (s.proxy.status()["fault"], s.proxy.status()["unpaid"]) == (None, False)
            for one in (miner, late, again):
                await one.close()

    run(body)


def test_a_short_break_is_not_even_noticed_by_a_miner() -> None:
    async def body() -> None:
        async with site(ProxySettings(per_worker=False, hold_s=30.0)) as s:
            miner = await RawMiner.connect(s.at)
            await miner.log_in("asic")
            s.pool.hang_up()
            await until(lambda: s.pool.resumed == 1, "the session goes on")
            await until(lambda: not s.proxy.lost, "the pool is back")
            assert len(miner.heard("mining.notify")) == 1, "the same job goes on"
            assert not miner.closed
            await miner.close()

    run(body)


def test_a_valid_share_without_a_pool_is_lost_with_a_reason() -> None:
    settings = ProxySettings(start_difficulty=EASY / 64, least_difficulty=EASY / 64)

    async def body() -> None:
        async with site(settings, difficulty=1.0, resume_s=0.0) as s, s.miner("asic") as one:
            await s.pool_away()
            await mine(one)
            row = s.proxy.workers()["asic"]
            assert (row["found"], row["accepted"], row["lost"]) == (1, 0, 1)
            assert row["lost_by_reason"] == {"the pool is away": 1}

    run(body)


def test_a_miner_that_does_not_read_is_dropped_and_the_others_go_on() -> None:
    async def body() -> None:
        settings = ProxySettings(per_worker=False, max_unsent_bytes=8 * 1024)
        with capture_logs() as said:
            await dropped(settings)
        reasons = [row["reason"] for row in said if row["event"] == "proxy.dropped"]
        assert "it does not read" in reasons

    async def dropped(settings: ProxySettings) -> None:
        async with site(settings) as s, s.miner("good") as good:
            bad = await RawMiner.connect(s.at)
            await bad.log_in("bad")
            bad._task.cancel()
            bad.writer.transport.pause_reading()
            before = good.current_job()
            for _ in range(20_000):
                if len(s.proxy.links) == 1:
                    break
                s.pool.new_job(clean=False)
                await asyncio.sleep(0)
            await until(lambda: len(s.proxy.links) == 1, "the hung one is dropped")
            assert before is not None
            newest = s.pool.template.coinbase2
            await until(lambda: _job(good).coinbase2 == newest, "the other has the newest job")
            await mine(good)
            await bad.close()

    run(body)


def test_sessions_are_limited_in_all_and_by_address() -> None:
    async def body() -> None:
        settings = ProxySettings(per_worker=False, max_sessions=3, max_per_address=2)
        async with site(settings) as s:
            one, two = [await RawMiner.connect(s.at, "127.65.1.1") for _ in range(2)]
            await until(lambda: len(s.proxy.links) == 2, "two are in")
            third = await RawMiner.connect(s.at, "127.65.1.1")
            await until(lambda: third.closed, "one address has two at most")
            other = await RawMiner.connect(s.at, "127.65.1.2")
            await until(lambda: len(s.proxy.links) == 3, "another address has room")
            fifth = await RawMiner.connect(s.at, "127.65.1.3")
            await until(lambda: fifth.closed, "three at most in all")
            assert dict(s.proxy.turned_away) == {
                "too many sessions from one address": 1,
                "too many sessions": 1,
            }
            await one.close()
            await until(lambda: len(s.proxy.links) == 2, "one has left")
            back = await RawMiner.connect(s.at, "127.65.1.1")
            await until(lambda: len(s.proxy.links) == 3, "and its place is free")
            for miner in (two, third, other, fifth, back):
                await miner.close()

    run(body)


def test_who_never_logs_in_or_floods_with_nonsense_is_hung_up_on() -> None:
    async def body() -> None:
        settings = ProxySettings(per_worker=False, handshake_s=0.2)
        async with site(settings) as s:
            silent = await RawMiner.connect(s.at)
            await until(lambda: silent.closed, "the handshake has a deadline")
            for line in (b"not json\n", b"[]\n", b"x" * 10_000 + b"\n", b'{"method": 3}\n'):
                bad = await RawMiner.connect(s.at)
                bad.writer.write(line)
                await until(lambda bad=bad: bad.closed, f"{line[:20]!r} ends it")
                await bad.close()
            await until(lambda: not s.proxy.links, "all are gone")

    run(body)


def test_a_miner_whose_shares_are_all_refused_is_dropped() -> None:
    async def body() -> None:
        async with site(difficulty=1.0) as s:
            miner = await RawMiner.connect(s.at)
            await miner.log_in("asic")
            job = miner.heard("mining.notify")[-1]
            body = {"id": 7, "method": "mining.submit"}
            bad = ["asic", job[0], "00000000", job[7], "00000000"]
            line = json.dumps({**body, "params": bad}).encode() + b"\n"
            miner.writer.write(line * 220)
            await until(lambda: miner.closed, "200 refused shares in a row")
            assert s.proxy.workers()["asic"]["rejected"] == 200
            await miner.close()

    run(body)


def test_names_decide_whose_shares_they_are() -> None:
    async def body() -> None:
        known = {"bc1q.rack-3": "asic-3", "rig": "asic-4"}
        settings = ProxySettings(per_worker=False, workers=known, only_known=True)
        async with site(settings) as s:
            miner = await RawMiner.connect(s.at)
            await miner.ask("mining.subscribe")
            for name, allowed in (
                ("bc1q.rack-3", True),
                ("anybody.rig", True),
                ("rack-3", False),
                ("somebody.else", False),
                ("", False),
                ("a\nb", False),
            ):
                answer = await miner.ask("mining.authorize", name, "x")
                assert answer["result"] is allowed, name
            assert set(s.proxy.workers()) == {"asic-3", "asic-4"}
            assert s.proxy.workers()["asic-3"]["sessions"] == 1
            await miner.close()
            await until(lambda: s.proxy.workers()["asic-3"]["sessions"] == 0, "it has left")

    run(body)


def test_a_pool_that_leaves_too_few_bytes_is_not_used_and_the_reason_is_told() -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=EASY, extranonce2_size=3))
        at = await pool.start(LOCAL)
        proxy = ProxyServer(
            ProxySettings(max_sessions=5_000),
            lambda on_job: upstream(at, on_job),
        )
        task = asyncio.create_task(proxy.run())
        try:
            await until(lambda: proxy.fault and "3 bytes" in proxy.fault, "a reason")
            assert proxy.lost
        finally:
            task.cancel()
            await proxy.stop()
            await asyncio.gather(task, return_exceptions=True)
            await pool.stop()

    run(body)


def test_when_the_pool_is_gone_the_next_one_is_mined_for_and_miners_follow() -> None:
    async def body() -> None:
        settings = PoolSettings(difficulty=EASY, extranonce2_size=6, job_every_s=60.0)
        first, second = LoopbackPool(settings), LoopbackPool(settings)
        ats = [await pool.start(LOCAL) for pool in (first, second)]
        patience = Patience(give_up_s=0.2)
        accounts = [Account(f"stratum+tcp://{at}", "owner") for at in ats]
        proxy = ProxyServer(
            FOLLOW,
            lambda told: PoolRotation(
                accounts, on_job=told, patience=patience, backoff=bench.quick
            ),
        )
        at = await proxy.start(LOCAL)
        task = asyncio.create_task(proxy.run())
        try:
            await until(lambda: not proxy.lost, "the first pool")
            follows, stays = await RawMiner.connect(at), await RawMiner.connect(at)
            await follows.log_in("follows")
            await stays.log_in("stays", follows=False)
            await first.stop()
            await until(lambda: follows.heard("mining.set_extranonce"), "the second pool's")
            await until(lambda: stays.closed, "who cannot follow must come back")
            own, size = follows.heard("mining.set_extranonce")[-1]
            await until(lambda: len(follows.heard("mining.notify")) == 2, "and its job")
            notify = follows.heard("mining.notify")[-1]
            assert notify[8] is True, "nothing of the first pool's is worth anything now"
            extranonce = Extranonce(bytes.fromhex(own), size)
            job = StratumJob.from_notify(notify, extranonce=extranonce, difficulty=EASY)
            work = job.work(bytes(size))
            params = work.share(solve(work.kernel_work())).submit_params(
                "follows", with_version=False
            )
            assert (await follows.ask("mining.submit", *params))["result"] is True
            await until(lambda: second.stats.total.accepted == 1, "the second pool takes it")

            def pools(key: str) -> list[object]:
                return [row[key] for row in proxy.status()["pools"]]

            assert pools("active") == [False, True]
            await until(lambda: pools("accepted") == [0, 1], "its answer")
            for miner in (follows, stays):
                await miner.close()
        finally:
            task.cancel()
            await proxy.stop()
            await asyncio.gather(task, return_exceptions=True)
            for pool in (first, second):
                await pool.stop()

    run(body)


def test_miners_may_be_spoken_to_over_tls(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")
    pem, certificate = tmp_path / "proxy.pem", tmp_path / "proxy.crt"
    made = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", str(pem), "-out", str(certificate), "-days", "2", "-subj", "/CN=proxy",
        "-addext", f"subjectAltName=IP:{LOCAL.host}",
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, timeout=30)
    pem.write_text(pem.read_text() + certificate.read_text())

    async def body() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        async with site() as s:
            at = await s.proxy.start(LOCAL, context)
            trust = Trust(ca_file=certificate)
            client = StratumClient(f"stratum+tls://{at}", "asic", trust=trust)
            task = asyncio.create_task(client.run())
            await until(client.current_job, "a job over TLS")
            await mine(client)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert s.proxy.workers()["asic"]["accepted"] == 1

    run(body)
