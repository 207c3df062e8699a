"""Files and a real HTTP server as sources: figures, refusals, age, cache, who is never asked."""

import asyncio
import json
import os
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from wattshift_cluster.economics import cache
from wattshift_cluster.economics.feed import HashpriceFeed, Terms
from wattshift_cluster.economics.figures import Seen, SourceFailed
from wattshift_cluster.economics.files import FileSource
from wattshift_cluster.economics.mempool import MempoolSource
from wattshift_cluster.errors import ConfigInvalid
from wattshift_scheduler.hashprice import Scheme

NOW_S = 1_800_000_000.0
HOST = "127.66.0.1"
PRICES = "/api/v1/prices"
HEIGHT = "/api/v1/difficulty-adjustment"
HASHRATE = "/api/v1/mining/hashrate/3d"
REWARDS = "/api/v1/mining/reward-stats/144"
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def bodies() -> dict[str, Any]:
    """What a server says of the second worked example."""
    return {
        PRICES: {"time": NOW_S - 60, "USD": 100_000, "EUR": -1},
        HEIGHT: {"nextRetargetHeight": 905_184, "remainingBlocks": 184, "difficultyChange": 1.2},
        HASHRATE: {"hashrates": [], "currentDifficulty": 150e12, "currentHashrate": 1.07e21},
        REWARDS: {"startBlock": 904_857, "endBlock": 905_000, "totalFee": str(432_000_000)},
    }


@dataclass
class Server:
    """A server that answers what it was given, and remembers who asked for what."""

    answers: dict[str, Any] = field(default_factory=bodies)
    status: dict[str, int] = field(default_factory=dict)
    headers: str = ""
    asked: list[str] = field(default_factory=list)
    hangs: bool = False
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                self.asked.append(path)
                if self.hangs:
                    await asyncio.sleep(30)
                body = self.answers.get(path, b"")
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                start = f"HTTP/1.1 {self.status.get(path, 200)} X\r\n{self.headers}"
                writer.write(f"{start}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    made = Server()
    tasks: set[asyncio.Task[None]] = set()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(made.serve(reader, writer)))

    server = await asyncio.start_server(start, HOST, 0)
    made.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def client() -> httpx2.AsyncClient:
    """Without the certificates of the system, which take longer to read than a test."""
    return httpx2.AsyncClient(timeout=5.0, trust_env=False, verify=NO_CERTIFICATES)


def feed_of(server: Server, *, cache_file: Path | None = None, **terms: Any) -> HashpriceFeed:
    source = MempoolSource(server.url, deadline_s=5.0, client=client())
    rng = random.Random(1)
    return HashpriceFeed(source, Terms(**terms), cache_file=cache_file, now_s=NOW_S, rng=rng)


def test_a_server_gives_the_worked_hashprice() -> None:
    async def run() -> None:
        async with serving() as server:
            feed = feed_of(server)
            assert feed.at(NOW_S).usd_per_ph_day is None, "nothing is known before it is asked"
            assert server.asked == []
            assert await feed.refresh(NOW_S) == 300.0
            known = feed.at(NOW_S)
            assert known.usd_per_ph_day == pytest.approx(42.31, abs=0.005)
            assert known.observed_s == NOW_S - 60, "as old as its oldest figure"
            assert known.note == ""
            assert known.figures["height"].value == 905_000
            assert known.figures["fees_btc"].value == pytest.approx(0.03)
            assert server.asked == [PRICES, HEIGHT, HASHRATE, REWARDS]
            await feed.close()

    asyncio.run(run())


def test_a_pool_that_pays_no_fees_hands_on_the_subsidy_alone() -> None:
    async def run() -> float | None:
        async with serving() as server:
            feed = feed_of(server, scheme=Scheme.PPS)
            await feed.refresh(NOW_S)
            await feed.close()
            return feed.at(NOW_S).usd_per_ph_day

    assert asyncio.run(run()) == pytest.approx(42.3118 * 3.125 / 3.155, abs=0.001)


def test_stale_is_unknown_and_not_old() -> None:
    async def run() -> None:
        async with serving() as server:
            feed = feed_of(server, stale_after_s=3600.0)
            await feed.refresh(NOW_S)
            assert feed.at(NOW_S + 3500).usd_per_ph_day is not None
            late = feed.at(NOW_S + 3600)
            assert late.usd_per_ph_day is None
            assert "usd_per_btc is stale" in late.note
            await feed.close()

    asyncio.run(run())


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_ends_the_round_and_is_answered_with_patience(status: int) -> None:
    async def run() -> None:
        async with serving() as server:
            feed = feed_of(server)
            await feed.refresh(NOW_S)
            server.asked.clear()
            server.status[HEIGHT] = status
            waits = [await feed.refresh(NOW_S + 300 * n) for n in range(1, 8)]
            assert server.asked == [PRICES, HEIGHT] * 7, "the rest is not asked after a refusal"
            assert all(wait >= 300.0 for wait in waits)
            assert max(waits) > 900.0
            assert max(waits) <= 3600.0
            assert f"HTTP status {status}" in feed.at(NOW_S).note
            assert feed.at(NOW_S).usd_per_ph_day is not None, "known until it is stale"
            server.headers = "Retry-After: 3000\r\n"
            assert await feed.refresh(NOW_S + 9000) >= 3000.0
            server.status.clear()
            assert await feed.refresh(NOW_S + 12_000) == 300.0
            await feed.close()

    asyncio.run(run())


def test_a_server_that_hangs_or_floods_costs_its_deadline_and_no_more() -> None:
    async def run() -> None:
        async with serving() as server:
            source = MempoolSource(server.url, deadline_s=0.05, client=client())
            server.hangs = True
            with pytest.raises(SourceFailed, match=r"no answer within 0\.05 s"):
                await source.read(NOW_S)
            await source.close()
            server.hangs = False
            server.answers = dict.fromkeys(bodies(), b"[" + b"1," * 150_000 + b"1]")
            flooded = MempoolSource(server.url, deadline_s=5.0, client=client())
            with pytest.raises(SourceFailed, match="larger than"):
                await flooded.read(NOW_S)
            await flooded.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "prices",
    [b"{", b"[]", {"USD": None}, {"USD": True}, {"USD": "x" * 99}, {}, {"USD": {}}, {"USD": "1e"}],
)
def test_malformed_answers_are_faults_and_the_rest_counts(prices: Any) -> None:
    async def run() -> None:
        async with serving() as server:
            server.answers[PRICES] = prices
            feed = feed_of(server)
            await feed.refresh(NOW_S)
            known = feed.at(NOW_S)
            assert known.usd_per_ph_day is None
            assert "usd_per_btc was never read" in known.note
            assert known.figures["difficulty"].value == 150e12
            await feed.close()

    asyncio.run(run())


@pytest.mark.parametrize("price", [-1, 0, 1e6, float("nan"), 10**400])
def test_a_price_that_cannot_be_or_jumps_is_held_and_the_last_good_one_kept(price: Any) -> None:
    async def run() -> None:
        async with serving() as server:
            feed = feed_of(server)
            await feed.refresh(NOW_S)
            server.answers[PRICES] = {"USD": price}
            await feed.refresh(NOW_S + 300)
            known = feed.at(NOW_S + 300)
            assert known.usd_per_ph_day == pytest.approx(42.31, abs=0.005)
            assert "usd_per_btc" in known.note or "prices" in known.note
            assert known.held or price == 10**400
            await feed.close()

    asyncio.run(run())


def test_a_jump_that_lasts_is_confirmed_by_samples_or_by_a_person() -> None:
    async def run() -> None:
        async with serving() as server:
            feed = feed_of(server, confirm_samples=2)
            for n, usd in enumerate((100_000, 1_000_000, 1_000_000)):
                server.answers[PRICES] = {"USD": usd}
                await feed.refresh(NOW_S + 300 * n)
            held = feed.at(NOW_S + 600)
            assert held.usd_per_ph_day == pytest.approx(42.31, abs=0.005)
            assert held.held
            assert await feed.confirm() == ["usd_per_btc"]
            assert feed.at(NOW_S + 600).usd_per_ph_day == pytest.approx(423.1, abs=0.05)
            assert await feed.confirm() == []
            for n in range(3, 6):
                server.answers[PRICES] = {"USD": 100_000}
                await feed.refresh(NOW_S + 300 * n)
            assert feed.at(NOW_S + 1500).usd_per_ph_day == pytest.approx(42.31, abs=0.005)
            await feed.close()

    asyncio.run(run())


def test_the_cache_outlives_a_restart_with_its_age(tmp_path: Path) -> None:
    file = tmp_path / "state" / "hashprice.json"

    async def run() -> None:
        async with serving() as server:
            first = feed_of(server, cache_file=file)
            await first.refresh(NOW_S)
            await first.close()
            server.asked.clear()
            second = feed_of(server, cache_file=file)
            known = second.at(NOW_S + 100)
            assert known.usd_per_ph_day == pytest.approx(42.31, abs=0.005)
            assert known.observed_s == NOW_S - 60
            assert server.asked == []
            # What came before the restart is what a jump is judged against.
            server.answers[PRICES] = {"USD": 5_000_000}
            await second.refresh(NOW_S + 300)
            assert second.at(NOW_S + 300).held
            assert second.at(NOW_S + 22_000).usd_per_ph_day is None
            await second.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"version": 9}',
        b'{"version": 1, "source": "s", "figures": {"usd_per_btc": {"value": "x", "at_s": 1}}}',
        b'{"version": 1, "source": "s", "figures": {"usd_per_btc": {"value": NaN, "at_s": 1}}}',
        b'{"version": 1, "source": "s", "figures": {"usd_per_btc": {"value": 9, "at_s": 1e99}}}',
        b'{"version": 1, "source": "t", "figures": {"usd_per_btc": {"value": 9, "at_s": 1}}}',
    ],
)
def test_a_broken_or_another_cache_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.json"
    file.write_bytes(content)
    assert cache.load(file, "s", NOW_S) == {}
    cache.save(file, "s", {"usd_per_btc": Seen(9.0, 1.0)})
    assert cache.load(file, "s", NOW_S) == {"usd_per_btc": Seen(9.0, 1.0)}


def test_the_name_of_a_server_shows_no_secret() -> None:
    async def name() -> str:
        source = MempoolSource("https://kim:secret@node.example:8999/x?key=secret")
        await source.close()
        return source.name

    assert asyncio.run(name()) == "https://node.example:8999/x"


HISTORY = """time,usd_per_btc,difficulty,height,fees_btc
1799990000,100000,150e12,905000,0.03
1799999000,200000,150e12,905001,
1800001000,300000,150e12,905002,0.03
"""


def file_feed(path: Path, text: str, **terms: Any) -> HashpriceFeed:
    path.write_text(text)
    return HashpriceFeed(FileSource(path), Terms(**terms))


def test_a_history_is_steps_of_figures(tmp_path: Path) -> None:
    async def run() -> None:
        feed = file_feed(tmp_path / "h.csv", HISTORY)
        assert await feed.refresh(NOW_S - 20_000) == 300.0
        assert "begins later" in feed.at(NOW_S - 20_000).note
        await feed.refresh(NOW_S - 5_000)
        assert feed.at(NOW_S - 5_000).usd_per_ph_day == pytest.approx(42.31, abs=0.005)
        await feed.refresh(NOW_S)
        known = feed.at(NOW_S)
        assert known.observed_s == NOW_S - 1_000
        assert known.usd_per_ph_day == pytest.approx(84.62, abs=0.01), "with the fees before"

    asyncio.run(run())


def test_unknown_fees_count_as_none_and_are_said_to(tmp_path: Path) -> None:
    async def run() -> None:
        feed = file_feed(tmp_path / "f.csv", HISTORY.replace(",0.03\n", ",\n"))
        await feed.refresh(NOW_S)
        known = feed.at(NOW_S)
        assert known.usd_per_ph_day == pytest.approx(2 * 42.3118 * 3.125 / 3.155, abs=0.001)
        assert "fees unknown" in known.note

    asyncio.run(run())


@pytest.mark.parametrize(
    "text",
    [
        "time,usd_per_ph_day\n1799999000,42.31\n",
        '[{"time": 1799999000, "usd_per_ph_day": 42.31}]',
        '{"time": "2027-01-15T07:43:20Z", "usd_per_ph_day": 42.31}',
    ],
)
def test_a_stated_hashprice_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    async def run() -> None:
        feed = file_feed(tmp_path / "h", text, scheme=Scheme.PPS)
        await feed.refresh(NOW_S)
        assert feed.at(NOW_S).usd_per_ph_day == 42.31
        assert feed.at(NOW_S).observed_s == NOW_S - 1_000

    asyncio.run(run())


def test_a_static_object_is_as_old_as_its_file_and_follows_it(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "h.json"
        feed = file_feed(path, '{"usd_per_ph_day": 42.31}')
        os.utime(path, (NOW_S - 50, NOW_S - 50))
        await feed.refresh(NOW_S)
        assert feed.at(NOW_S).observed_s == NOW_S - 50
        path.write_text('{"usd_per_ph_day": 50}')
        os.utime(path, (NOW_S, NOW_S))
        await feed.refresh(NOW_S)
        assert feed.at(NOW_S).usd_per_ph_day == 50.0
        path.write_text("{")
        os.utime(path, (NOW_S + 5, NOW_S + 5))
        assert await feed.refresh(NOW_S + 10) == 300.0, "a file is looked at as often as ever"
        assert feed.at(NOW_S + 10).usd_per_ph_day == 50.0
        assert "not JSON" in feed.at(NOW_S + 10).note
        path.unlink()
        await feed.refresh(NOW_S + 20)
        assert feed.at(NOW_S + 20).note

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("time,usd_per_btc\n1,2\n", "needs usd_per_ph_day, or difficulty, height, usd_per_btc"),
        ("time,usd_per_ph_day\n2,40\n1,41\n", ":3: time = 1: not after the row before"),
        ("time,usd_per_ph_day\n1,cheap\n", ":2: usd_per_ph_day = cheap: not a number"),
        ("time,hashprice\n1,40\n", "unknown column"),
        ("time,usd_per_ph_day\n", "no figures"),
        ('{"usd_per_ph_day": true}', "not a number"),
        ('{"usd_per_ph_dya": 40}', "unknown; allowed: time"),
        ("[1, 2]", "not an object of figures"),
        ("[]", "no figures"),
        ('[{"usd_per_ph_day": 40}]', "time"),
    ],
)
def test_a_file_with_faults_starts_nothing(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "h"
    path.write_text(text)
    with pytest.raises(ConfigInvalid) as refused:
        FileSource(path)
    assert fault in str(refused.value)
