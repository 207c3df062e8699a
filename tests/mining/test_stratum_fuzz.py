"""Whatever either end of Stratum is sent: its connection ends with a reason, and no other does."""

import asyncio
import json
import tracemalloc
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.extranonce import Extranonce2Exhausted
from wattshift_cluster.mining.feed import BitcoinFeed
from wattshift_cluster.mining.job import JobFault, StratumJob
from wattshift_cluster.mining.jobs import MAX_JOBS, JobBook
from wattshift_cluster.mining.lines import LineFault
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.redirect import RedirectRefused, redirected
from wattshift_cluster.mining.refusals import error_text, kind_of
from wattshift_cluster.mining.session import Deadlines, Login, Session, SessionEnded

FOLDER = Path(__file__).resolve()


def loaded(name: str, path: Path) -> Any:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pools = loaded("scripted_pool", FOLDER.with_name("scripted_pool.py"))
bench = loaded("stratum_fuzz", FOLDER.parents[2] / "benchmarks" / "stratum_fuzz.py")

HEX = st.text("0123456789abcdef", max_size=70)
WILD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -(10**400), 2**64, -1, 0]),
    st.floats(), st.text(max_size=20), HEX, st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip
EXTREME = st.sampled_from([0, -0.0, -1, 1e300, 1e-300, float("nan"), float("inf"), 10**400, 2**900])
DEEP = st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth)
EXTRANONCE = st.tuples(st.one_of(HEX, WILD), st.one_of(st.integers(-2, 20), WILD)).map(list)
BRANCHES = st.one_of(st.lists(st.just("00" * 32), max_size=40), st.lists(WILD, max_size=3), WILD)


@st.composite
def notify(draw: st.DrawFn) -> list[Any]:
    """A good notify with any number of its fields made wrong."""
    params: list[Any] = list(pools.NOTIFY)
    for index in draw(st.lists(st.integers(0, 8), max_size=3)):
        params[index] = draw(BRANCHES if index == 4 else WILD)
    return params[: draw(st.integers(0, 9))] if draw(st.booleans()) else params


WIDE = st.lists(WILD, max_size=9)
FROM_POOL: dict[str, st.SearchStrategy[list[Any]]] = {
    "mining.notify": notify(),
    "mining.set_difficulty": st.tuples(st.one_of(EXTREME, st.floats(), WILD)).map(list),
    "mining.set_extranonce": EXTRANONCE,
    "mining.set_version_mask": st.lists(st.one_of(HEX, WILD), max_size=2),
    "client.reconnect": st.lists(st.one_of(st.just(""), st.just("127.0.0.1"), WILD), max_size=4),
    "client.show_message": WIDE,
    "client.get_version": WIDE,
    "mining.ping": WIDE,
    "mining.surprise": WIDE,
}
FROM_MINER: dict[str, st.SearchStrategy[list[Any]]] = {
    "mining.configure": st.tuples(
        st.one_of(st.just(["version-rolling", "minimum-difficulty"]), WILD),
        st.one_of(st.fixed_dictionaries({"version-rolling.mask": st.one_of(HEX, WILD)}), WILD),
    ).map(list),
    "mining.subscribe": st.lists(st.one_of(HEX, WILD), max_size=3),
    "mining.authorize": st.lists(st.one_of(st.just("rig"), WILD), max_size=3),
    "mining.extranonce.subscribe": WIDE,
    "mining.suggest_difficulty": st.lists(WILD, max_size=2),
    "mining.submit": st.lists(st.one_of(st.just("rig"), HEX, WILD), max_size=7),
    "mining.surprise": WIDE,
}
ANSWER = st.fixed_dictionaries(
    {
        "id": st.one_of(st.integers(-1, 6), WILD),
        "result": st.one_of(WILD, st.tuples(WILD, HEX, st.integers(-1, 9)).map(list), EXTRANONCE),
        "error": st.one_of(st.none(), WILD, st.lists(WILD, max_size=3)),
    }
)


def messages(methods: dict[str, st.SearchStrategy[list[Any]]]) -> st.SearchStrategy[bytes]:
    """Lines as they go over the wire: every message type, answers, and no message at all."""
    one = [
        st.fixed_dictionaries(
            {"id": st.sampled_from([None, 1, "a"]), "method": st.just(name), "params": params}
        )
        for name, params in methods.items()
    ]
    body = st.one_of(ANSWER, st.dictionaries(st.sampled_from(["id", "method"]), WILD))
    return st.one_of(
        *(kind.map(lambda value: json.dumps(value).encode()) for kind in one),
        body.map(lambda value: json.dumps(value).encode()),
        DEEP.map(lambda text: b'{"id":2,"result":' + text.encode() + b"}"),
        DEEP.map(lambda text: b'{"id":null,"method":"mining.notify","params":' + text.encode()),
        st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")),
        st.just(b'{"id":1,"result":' + b"9" * 6000 + b"}"),
        st.just(b"x" * (lines.MAX_LINE_BYTES + 10)),
    )


NO_ROOM = b'{"id": null, "method": "mining.set_extranonce", "params": ["", 0]}'


@settings(max_examples=60, deadline=None)
@example([NO_ROOM, NO_ROOM])
@given(st.lists(messages(FROM_POOL), min_size=1, max_size=6))
def test_every_line_of_a_pool_is_a_message_a_fault_or_nothing(said: list[bytes]) -> None:
    """Without a socket, so that many are tried: nothing but the three faults is ever raised."""
    feed, book = BitcoinFeed(), JobBook()
    feed.subscribed([[], "aabb", 4])
    reasons: list[str] = []
    for line in said:
        try:
            message = lines.parse(line)
            kind_of(message.error)
            text = error_text(message.error) or ""
            assert len(text) <= 80
            assert text.isascii()
            feed.configured(message.result)
            if message.method == "client.reconnect":
                redirected(message.params, Endpoint("127.0.0.1", 1), None)
            elif message.method is not None:
                feed.told(message.method, message.params)
            else:
                BitcoinFeed().subscribed(message.result)
        except (LineFault, JobFault, RedirectRefused) as fault:
            reasons.append(str(fault))
        # Whatever it was, the next job can be worked on.
        job = feed.told("mining.notify", pools.NOTIFY)
        assert job is not None
        book.take(job)
        try:
            work = job.work(book.next_extranonce2())
        except Extranonce2Exhausted:
            # The same template told again: its only value was handed out, and never is twice.
            assert job.extranonce.extranonce2_size == 0
            continue
        assert 0 < work.target < 1 << 256
        assert len(work.header76) == 76
    assert all(0 < len(reason) < 300 for reason in reasons)


async def ends_with_a_reason(said: list[bytes]) -> None:
    """A whole session against a pool that says this, an answer for each question and all else."""

    async def script(miner: Any) -> None:
        for line in said:
            miner.writer.write(line + b"\n")
            await asyncio.wait_for(miner.reader.readline(), 0.02)

    async with pools.scripted(script) as (at, _):
        deadlines = Deadlines(connect_s=2.0, configure_s=0.05, answer_s=0.05, idle_s=0.2)
        session = Session(0, at, deadlines, lambda job: None)
        async with asyncio.timeout(5):
            with pytest.raises(SessionEnded, match=r"\w"):
                await session.run(Login("rig"), lambda: None)
        assert session.waiting == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(FROM_POOL), min_size=1, max_size=6))
def test_a_session_ends_with_a_reason_whatever_the_pool_says(said: list[bytes]) -> None:
    complaints: list[Any] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
        await ends_with_a_reason(said)

    asyncio.run(body())
    assert complaints == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(FROM_MINER), min_size=1, max_size=8))
def test_the_pool_serves_on_whatever_a_miner_says(said: list[bytes]) -> None:
    complaints: list[Any] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
        pool = LoopbackPool(PoolSettings(difficulty=pools.EASIEST))
        at = await pool.start(Endpoint("127.0.0.1", 0))
        try:
            async with pools.mining_on(at) as client:
                await pools.until(client.current_job)
                _, writer = await asyncio.open_connection(at.host, at.port)
                writer.write(b"".join(line + b"\n" for line in said))
                writer.write_eof()
                await pools.until(lambda: len(pool.links) == 1)
                writer.close()
                assert (await client.submit(pools.found(client))).accepted
        finally:
            await pool.stop()

    asyncio.run(body())
    assert complaints == []


def test_a_flood_of_jobs_texts_and_answers_leaves_no_memory_behind() -> None:
    """Hundreds of names, megabytes of text: what is kept is 64 jobs, whatever their size."""
    feed, book = BitcoinFeed(), JobBook()
    feed.subscribed([[], "aabb", 4])
    coinbase = "ab" * 8000

    def flood(first: int, count: int) -> None:
        for number in range(first, first + count):
            params = [f"job{number}", "00" * 32, coinbase, "02", [], *pools.NOTIFY[5:8], False]
            job = feed.told("mining.notify", params)
            assert isinstance(job, StratumJob)
            book.take(job)
            feed.told(f"mining.surprise{number}", [coinbase])
            kind_of([20, f"reason {number} {coinbase}", None])

    flood(0, 2 * MAX_JOBS)
    tracemalloc.start()
    try:
        flood(1000, 2 * MAX_JOBS)
        before, _ = tracemalloc.get_traced_memory()
        flood(2000, 8 * MAX_JOBS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000


def test_the_fuzzer_that_is_led_by_coverage_finds_no_fault() -> None:
    """A moment of `./dev bench stratum-fuzz`, which runs at night."""
    figures = asyncio.run(bench.fuzz(20.0, seed=1, most_runs=60))
    assert figures["faults"] == 0
    assert figures["lines"] > 300
    assert figures["corpus"] > 10


def test_the_fuzzer_tells_a_fault_when_there_is_one(monkeypatch: Any, capsys: Any) -> None:
    """A check that a careless hand could take away: an endless integer as a difficulty."""

    def careless(value: Any) -> float:
        return float(value)

    monkeypatch.setattr("wattshift_cluster.mining.feed.parse_difficulty", careless)
    monkeypatch.setattr(bench, "MOST_FAULTS", 1)
    figures = asyncio.run(bench.fuzz(20.0, seed=3, most_runs=400))
    assert figures["faults"] != 0
    assert "Error" in capsys.readouterr().err
