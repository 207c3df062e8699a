"""No two miners of a proxy ever get the same work, whatever they, the pool and time do.

The test reads what each miner is told, as a miner would, and keeps a book of its own: for every job
content, who has ever been given which part of its extranonce.
"""

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wattshift_cluster.mining.job import Extranonce, StratumJob
from wattshift_cluster.mining.lines import Message
from wattshift_cluster.mining.proxy.jobs import MAX_JOBS, JobBook
from wattshift_cluster.mining.proxy.link import WorkerLink
from wattshift_cluster.mining.proxy.prefixes import (
    NoPrefixLeft,
    Prefixes,
    TooFewBytes,
    prefix_bytes,
    split,
)
from wattshift_cluster.mining.proxy.server import ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings


class Wire:
    """A miner's end of a connection: a writer and its transport in one."""

    def __init__(self) -> None:
        self.transport = self
        self.closed = False
        self.lines: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        self.lines += [json.loads(line) for line in data.splitlines()]

    async def drain(self) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True


class NoPool:
    """An upstream that only tells jobs."""

    fault = None

    def __init__(self, on_job: Any) -> None:
        self.tell = on_job


class Miner:
    """One connection, and what its miner believes."""

    def __init__(self, link: WorkerLink, wire: Wire) -> None:
        self.link, self.wire = link, wire
        self.own = b""
        self.size = 0
        self.read = 0


def job(number: int, extranonce: Extranonce, *, clean: bool, session: int) -> StratumJob:
    name = number.to_bytes(4, "big")
    return StratumJob(
        job_id=f"pool-{number}",
        prevhash=bytes(32),
        coinbase1=name,
        coinbase2=b"\x02",
        branches=(),
        version=0x20000000,
        nbits=0x17034219,
        ntime=1_700_000_000,
        clean=clean,
        extranonce=extranonce,
        difficulty=1.0,
        session=session,
    )


class Proxied(RuleBasedStateMachine):
    """A proxy with room for two sessions and three prefixes, so that they are soon used again."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.pool: NoPool

        def connect(on_job: Any) -> Any:
            self.pool = NoPool(on_job)
            return self.pool

        self.proxy = ProxyServer(ProxySettings(max_sessions=2, hold_s=1e9), connect)
        self.proxy.prefixes._total = 3  # of the 256 that one byte names
        self.extranonce = Extranonce(b"\x00\x01", 4)
        self.number, self.session = 0, 1
        self.recent: list[StratumJob] = []
        self.miners: list[Miner] = []
        self.given: dict[str, dict[bytes, Miner]] = {}
        self.new_job(clean=True)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()

    def in_loop(self, what: Any, *arguments: Any) -> Any:
        async def called() -> Any:
            return what(*arguments)

        return self.loop.run_until_complete(called())

    def told(self, upstream: StratumJob | None) -> None:
        self.in_loop(self.pool.tell, upstream)
        for miner in list(self.miners):
            self.listen(miner)
            if miner.wire.closed:
                self.drop(miner)

    def drop(self, miner: Miner) -> None:
        self.miners.remove(miner)
        self.proxy._part(miner.link)

    def listen(self, miner: Miner) -> None:
        """Take in what was said, and enter the work in the book."""
        for body in miner.wire.lines[miner.read :]:
            params = body["params"]
            if body["method"] == "mining.set_extranonce":
                miner.own, miner.size = bytes.fromhex(params[0]), params[1]
            if body["method"] == "mining.notify":
                content = json.dumps(params[1:8])
                parts = self.given.setdefault(content, {})
                for part, holder in parts.items():
                    if part.startswith(miner.own) or miner.own.startswith(part):
                        assert holder is miner, f"{part.hex()} was given to two miners"
                parts[miner.own] = miner
        miner.read = len(miner.wire.lines)

    @rule(follows=st.booleans())
    def joins(self, follows: bool) -> None:
        wire = Wire()
        link = self.proxy._admit("127.65.0.9", None, wire)  # type: ignore[arg-type]
        if link is None:
            return
        self.proxy.links.add(link)
        miner = Miner(link, wire)
        _, first, miner.size = link._subscribe([])
        miner.own = bytes.fromhex(first)
        link._takes_extranonce = follows
        link._authorize([f"m{len(self.given)}", "x"])
        newest = self.proxy.book.newest
        assert newest is not None
        self.in_loop(lambda: link.tell(newest, clean=True))
        self.miners.append(miner)
        self.listen(miner)

    @precondition(lambda self: self.miners)
    @rule(which=st.integers(0, 9), follows=st.booleans())
    def another_comes_for_one_that_leaves(self, which: int, follows: bool) -> None:
        self.drop(self.miners[which % len(self.miners)])
        self.joins(follows)

    @rule(clean=st.booleans())
    def new_job(self, clean: bool) -> None:
        self.number += 1
        upstream = job(self.number, self.extranonce, clean=clean, session=self.session)
        if clean:
            self.recent.clear()
        self.recent = [*self.recent, upstream][-4:]
        self.told(upstream)

    @precondition(lambda self: self.recent)
    @rule(which=st.integers(0, 9), clean=st.booleans())
    def says_it_again(self, which: int, clean: bool) -> None:
        again = self.recent[which % len(self.recent)]
        if again.extranonce != self.extranonce:
            return
        self.told(replace(again, clean=clean, session=self.session, job_id="again"))
        if clean:
            self.recent = [again]

    @rule(first=st.integers(0, 3))
    def another_extranonce(self, first: int) -> None:
        self.extranonce = Extranonce(bytes([0, first]), 4)
        self.new_job(clean=False)

    @rule(resumed=st.booleans())
    def another_session(self, resumed: bool) -> None:
        self.session += 1
        self.told(None)
        if not resumed:
            self.recent.clear()
            self.extranonce = Extranonce(bytes([1, self.session % 256]), 4)
        self.new_job(clean=True)

    @invariant()
    def nobody_shares_a_prefix(self) -> None:
        if hasattr(self, "miners"):
            prefixes = [miner.link.prefix for miner in self.miners]
            assert len(set(prefixes)) == len(prefixes)


ODD = [
    "1fffe000",
    "rig",
    "1",
    "00000000",
    "65535.00000000",
    "\u00e9\x00",
    "",
    [],
    [[]],
    {},
    {"a": []},
]
VALUES = st.sampled_from([*ODD, None, True, 0, -1, 2**70, 1e300, math.nan, math.inf]) | st.text(
    max_size=4
)
OPTIONS = st.fixed_dictionaries(
    {}, optional={"version-rolling.mask": VALUES, "minimum-difficulty.value": VALUES}
)
WANTED = st.lists(
    st.sampled_from(["version-rolling", "minimum-difficulty", "subscribe-extranonce"]) | VALUES,
    max_size=4,
)
MESSAGES = st.tuples(
    st.sampled_from(
        [
            "mining.configure",
            "mining.subscribe",
            "mining.authorize",
            "mining.suggest_difficulty",
            "mining.extranonce.subscribe",
            "mining.submit",
            "mining.ping",
            "mining.notify",
            "",
        ]
    ),
    st.lists(VALUES, max_size=7) | st.tuples(WANTED, OPTIONS).map(list),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_whatever_a_miner_says_is_answered_or_ends_its_connection(
    messages: list[tuple[str, list[Any]]],
) -> None:
    async def talk() -> None:
        upstream = NoPool(None)
        proxy = ProxyServer(ProxySettings(), lambda on_job: _taking(upstream, on_job))
        upstream.tell(job(1, Extranonce(b"\x01", 6), clean=True, session=1))
        wire = Wire()
        link = proxy._admit("127.65.0.9", None, wire)  # type: ignore[arg-type]
        assert link is not None
        for number, (method, params) in enumerate(messages):
            before = len([one for one in wire.lines if "result" in one])
            await link._answer(Message(number, method, params, None, None))
            answers = [one for one in wire.lines if "result" in one]
            assert len(answers) == before + 1
            assert answers[-1]["id"] == number
        total = proxy.accounts.total
        assert total.found == total.rejected.total()

    asyncio.run(talk())


def _taking(upstream: NoPool, on_job: Any) -> Any:
    upstream.tell = on_job
    return upstream


Proxied.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestProxied = Proxied.TestCase


def test_a_prefix_is_used_again_only_when_its_jobs_are_void() -> None:
    prefixes = Prefixes(100)
    assert prefixes.size == 1
    taken = [prefixes.take() for _ in range(256)]
    assert len(set(taken)) == 256
    with pytest.raises(NoPrefixLeft):
        prefixes.take()
    prefixes.give_back(taken[7], 5)
    prefixes.give_back(taken[8], None)
    assert prefixes.take() == taken[8], "it was told no job"
    prefixes.void_before(5)
    with pytest.raises(NoPrefixLeft):
        prefixes.take()
    prefixes.void_before(6)
    assert prefixes.take() == taken[7]


@pytest.mark.parametrize(
    ("sessions", "size"), [(1, 1), (128, 1), (129, 2), (5_000, 2), (32_768, 2), (32_769, 3)]
)
def test_the_prefix_is_as_short_as_will_do(sessions: int, size: int) -> None:
    assert prefix_bytes(sessions) == size


def test_a_miner_keeps_two_bytes_at_least() -> None:
    assert split(Extranonce(b"", 4), 2) == 2
    with pytest.raises(TooFewBytes, match="allow fewer sessions"):
        split(Extranonce(b"", 3), 2)


def test_jobs_are_bounded_and_the_oldest_is_void_first() -> None:
    book, extranonce = JobBook(), Extranonce(b"", 4)
    for number in range(MAX_JOBS + 5):
        live, news = book.add(job(number, extranonce, clean=False, session=1))
        assert news
    assert (live.number, book.oldest) == (MAX_JOBS + 5, 6)
    assert book.get("5") is None
    assert book.get("6") is not None


def test_a_resumed_session_keeps_the_jobs_of_its_chain_tip_and_another_keeps_none() -> None:
    book, extranonce = JobBook(), Extranonce(b"a", 4)
    first, _ = book.add(job(1, extranonce, clean=True, session=1))
    second, _ = book.add(job(2, extranonce, clean=False, session=1))
    again, news = book.add(replace(second.upstream, session=2, clean=True))
    assert (again, news) == (second, False)
    assert second.upstream.session == 2
    third, _ = book.add(job(3, extranonce, clean=True, session=3))
    assert not third.alone
    assert book.get("1") is first
    other, _ = book.add(job(4, Extranonce(b"b", 4), clean=False, session=4))
    assert other.alone
    assert book.get("1") is None


def test_an_older_job_said_again_is_no_news_unless_it_voids_the_others() -> None:
    book, extranonce = JobBook(), Extranonce(b"a", 4)
    first, _ = book.add(job(1, extranonce, clean=True, session=1))
    second, _ = book.add(job(2, extranonce, clean=False, session=1))
    again, news = book.add(replace(first.upstream, job_id="again", clean=False))
    assert (again, news, book.newest) == (first, False, second)
    back, news = book.add(replace(first.upstream, clean=True))
    assert (back.number, back.since, news, back.alone) == (3, 1, True, True)
    assert back.template is first.template, "what was credited stays credited"
