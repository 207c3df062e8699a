"""Whatever pools or miners of the other coins say: a job, a refusal or the end of a connection."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wattshift_cluster.mining import lines
from wattshift_cluster.mining.dialects.table import DIALECTS
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.job import JobFault
from wattshift_cluster.mining.jobs import JobBook
from wattshift_cluster.mining.lines import LineFault
from wattshift_cluster.mining.nonces import NonceJob
from wattshift_cluster.mining.pool.coins.server import TONGUES, CoinPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.refusals import error_text, kind_of
from wattshift_cluster.mining.session import Deadlines, Login, Session, SessionEnded
from wattshift_cluster.mining.splitting import WorkExhausted, WorkSplitter

COINS = sorted(TONGUES)
ZEROS = "00" * 32
BLOB = {"jobId": "j", "fromGroup": 0, "toGroup": 1, "headerBlob": "ab" * 302, "targetBlob": "ff"}
NOTIFY: dict[str, list[Any]] = {
    "autolykos2": ["j", 614_400, ZEROS, "", "", 2, "1234567890", "", True],
    "etchash": ["j", ZEROS, ZEROS, True],
    "kheavyhash": ["j", [1, 2, 3, 4], 1681123755681],
    "blake3": [BLOB],
}
SUBSCRIBED: dict[str, Any] = {
    "autolykos2": [[], "0001", 6],
    "etchash": [["mining.notify", "s", "EthereumStratum/1.0.0"], "0001"],
    "kheavyhash": [True, "EthereumStratum/1.0.0"],
    "blake3": "result",
}

HEX = st.text("0123456789abcdefx", max_size=70)
WILD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), HEX,
    st.sampled_from([10**400, -(10**400), 2**64, 2**256, -1, 0, float("nan"), "9" * 5000, "²"]),
    st.lists(st.integers(-1, 2**65), max_size=5),
    st.dictionaries(st.sampled_from([*BLOB, "worker", "nonce"]), st.one_of(HEX, st.integers())),
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, coin: str) -> list[Any]:
    """A good notify with any number of its fields made wrong."""
    params = [dict(one) if isinstance(one, dict) else one for one in NOTIFY[coin]]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(params) - 1))
        if isinstance(params[at], dict) and draw(st.booleans()):
            params[at][draw(st.sampled_from(sorted(BLOB)))] = draw(WILD)
        else:
            params[at] = draw(WILD)
    return params[: draw(st.integers(0, len(params)))] if draw(st.booleans()) else params


def said(coin: str) -> st.SearchStrategy[bytes]:
    """Lines of a pool: what it tells, answers, and no message at all."""
    extranonce = st.tuples(st.one_of(HEX, WILD), st.one_of(st.integers(-2, 20), WILD)).map(list)
    told = {
        "mining.notify": spoilt(coin),
        "mining.set_difficulty": st.lists(st.one_of(st.floats(), WILD), max_size=2),
        "mining.set_extranonce": extranonce,
        "set_extranonce": extranonce,
        "mining.set_target": st.lists(WILD, max_size=2),
    }
    one = [
        st.fixed_dictionaries({"id": st.just(None), "method": st.just(name), "params": params})
        for name, params in told.items()
    ]
    answer = st.fixed_dictionaries(
        {
            "id": st.integers(-1, 4),
            "result": st.one_of(WILD, st.just(SUBSCRIBED[coin]), extranonce),
            "error": st.one_of(st.none(), WILD, st.lists(WILD, max_size=3)),
        }
    )
    return st.one_of(
        *(kind.map(lambda value: json.dumps(value).encode()) for kind in one),
        answer.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"")),
        st.just(b'{"id":1,"result":' + b"9" * 6000 + b"}"),
    )


CONVERSATION = st.sampled_from(COINS).flatmap(
    lambda coin: st.tuples(st.just(coin), st.lists(said(coin), min_size=1, max_size=6))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONVERSATION)
def test_every_line_of_a_pool_is_a_job_a_fault_or_nothing(talk: tuple[str, list[bytes]]) -> None:
    coin, heard = talk
    dialect = DIALECTS[coin]
    feed, book, splitter = dialect.feed(0), JobBook(), WorkSplitter(3)
    feed.subscribed(SUBSCRIBED[coin])
    feed.told("mining.set_extranonce", ["0001"])
    jobs, reasons = [], []
    for line in heard:
        try:
            message = lines.parse(line)
            kind_of(message.error, dialect.codes)
            error_text(message.error)
            if message.method is None:
                dialect.feed(1).subscribed(message.result)
            elif message.method in feed.methods:
                jobs.append(feed.told(message.method, message.params))
        except (LineFault, JobFault) as fault:
            reasons.append(str(fault))
        jobs.append(feed.told("mining.notify", NOTIFY[coin]))  # whatever it was, work goes on
    for job in filter(None, jobs):
        assert isinstance(job, NonceJob)
        book.take(job)
        try:
            unit = splitter.take(job)
        except WorkExhausted:
            continue
        assert 0 < unit.kernel.target < 1 << 256
        assert 0 < job.difficulty < float("inf")
        assert unit.nonces[0] + unit.nonces[1] <= 1 << 32
        share = unit.work.share(unit.nonces[0])
        assert book.find(share) is job
        if coin != "etchash":  # its older form would hash for a proof
            json.dumps(job.submission(share, "rig"))
    assert all(0 < len(reason) < 300 for reason in reasons)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONVERSATION)
def test_a_session_ends_with_a_reason_whatever_the_pool_says(
    talk: tuple[str, list[bytes]],
) -> None:
    coin, heard = talk
    complaints: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in heard:
            writer.write(line + b"\n")
        writer.write(b'{"id":1,"result":null,"error":[20,"enough"]}\n')
        writer.write_eof()

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
        server = await asyncio.start_server(serve, "127.85.3.1", 0)
        at = Endpoint(*server.sockets[0].getsockname()[:2])
        deadlines = Deadlines(connect_s=2.0, configure_s=0.05, answer_s=0.2, idle_s=0.5)
        session = Session(0, at, deadlines, lambda job: None, dialect=DIALECTS[coin])
        async with asyncio.timeout(10):
            with pytest.raises(SessionEnded, match=r"\w"):
                await session.run(Login("rig"), lambda: None)
        assert session.waiting == 0
        server.close()

    asyncio.run(body())
    assert complaints == []


SUBMITS: dict[str, Any] = {
    "autolykos2": ["rig", "1", "00" * 6, "0", "00" * 8],
    "etchash": ["rig", "1", "00" * 6],
    "kheavyhash": ["rig", "1", "00" * 8],
    "blake3": {"worker": "rig", "jobId": "1", "fromGroup": 0, "toGroup": 0, "nonce": "00" * 24},
}


@st.composite
def submitted(draw: st.DrawFn, coin: str) -> Any:
    good = SUBMITS[coin]
    wrong = draw(st.one_of(WILD, st.lists(WILD, max_size=6)))
    if draw(st.booleans()):
        return wrong
    if isinstance(good, dict):
        return {**good, draw(st.sampled_from(["worker", "jobId", "nonce"])): wrong}
    at = draw(st.integers(0, len(good) - 1))
    return [*good[:at], wrong, *good[at + 1 :]]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(("kheavyhash", [["rig", "1", "_0" * 8]]))
@given(
    st.sampled_from(COINS).flatmap(
        lambda coin: st.tuples(st.just(coin), st.lists(submitted(coin), min_size=1, max_size=5))
    )
)
def test_a_pool_answers_each_submit_and_serves_on(talk: tuple[str, list[Any]]) -> None:
    """Nothing that is not hashed for is accepted, and nothing ends the pool."""
    coin, tries = talk
    complaints: list[Any] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: complaints.append(why))
        pool = CoinPool(TONGUES[coin](), PoolSettings(difficulty=1e12))
        at = await pool.start(Endpoint("127.85.3.2", 0))
        reader, writer = await asyncio.open_connection(at.host, at.port)
        for number, params in enumerate([["rig", "x"], *tries]):
            method = "mining.submit" if number else "mining.authorize"
            wanted = {"id": number, "method": method, "params": params}
            writer.write(json.dumps(wanted).encode() + b"\n")
            while line := await asyncio.wait_for(reader.readline(), 10):
                answer = json.loads(line)
                if answer["id"] == number:
                    assert (answer["error"] is None) is (number == 0)
                    break
            else:
                break  # what was no message at all has ended this connection
        assert pool.stats.total.accepted == 0
        writer.close()
        await pool.stop()

    asyncio.run(body())
    assert complaints == []
