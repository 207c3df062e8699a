"""An agent reads its machines' shares from the proxy, and offers only sleep while nobody pays."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.agent import asic_machine as bench

from wattshift_cluster.agent.asics import income as module
from wattshift_cluster.agent.asics.income import Income, LookFailed, read
from wattshift_cluster.agent.asics.machine import AsicDevice
from wattshift_cluster.agent.build import build
from wattshift_cluster.agent.leases import judge
from wattshift_cluster.agent.protocol import Counters
from wattshift_cluster.bootclock import boot_s
from wattshift_cluster.config.load import load_agent
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.verdict import Credit
from wattshift_cluster.mining.proxy import page
from wattshift_cluster.mining.proxy.page import serve_page
from wattshift_cluster.mining.proxy.server import ProxyServer
from wattshift_cluster.mining.proxy.settings import ProxySettings
from wattshift_cluster.mining.shares import ShareLedger

LOCAL = Endpoint("127.65.4.1", 0)


class NoPool:
    """An upstream that is away, and has counted nothing."""

    endpoint = LOCAL
    fault = "the pool is out of sight"
    counts = ShareLedger().snapshot()

    def pools(self) -> tuple[()]:
        return ()


def away() -> ProxyServer:
    """A proxy whose pool is away, and that still holds its miners."""
    return ProxyServer(ProxySettings(), lambda _: NoPool())  # type: ignore[arg-type,return-value]


def share(proxy: ProxyServer, device: str, difficulty: float) -> None:
    proxy.accounts.find(device, Credit("x", difficulty, difficulty), time.time())
    proxy.accounts.keep(device, difficulty)


@asynccontextmanager
async def shown(proxy: ProxyServer, at: Endpoint = LOCAL) -> AsyncIterator[Endpoint]:
    server = await serve_page(proxy, at)
    try:
        yield Endpoint(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        await server.wait_closed()


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


def test_shares_count_from_the_first_answer_on_and_across_restarts_of_the_proxy() -> None:
    async def body() -> None:
        proxy = away()
        share(proxy, "rig-a", 8.0)
        async with shown(proxy) as at:
            income = Income(f"http://{at}", {"asic-1": "rig-a"})
            assert income.counters("asic-1") == Counters()
            await income.look()
            assert income.counters("asic-1") == Counters(
                shares_found=0, accepted=0, rejected=0, lost=0, accepted_difficulty=0.0
            )
            share(proxy, "rig-a", 16.0)
            proxy.accounts.refuse("rig-a", 21)
            await income.look()
            told = income.counters("asic-1")
            assert (told.shares_found, told.accepted, told.rejected) == (2, 1, 1)
            assert told.accepted_difficulty == 16.0
            assert income.counters("asic-2") == Counters(), "the proxy has never seen it"
        another = away()
        another._started_s += 7
        share(another, "rig-a", 32.0)
        async with shown(another, at):
            await income.look()
            assert income.counters("asic-1").accepted_difficulty == 48.0
            assert income.counters("asic-1").shares_found == 3

    run(body)


def test_all_pages_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WORKERS_PER_PAGE", 3)

    async def body() -> None:
        proxy = away()
        for number in range(8):
            share(proxy, f"rig-{number}", float(number + 1))
        async with shown(proxy) as at:
            told = await asyncio.to_thread(read, f"http://{at}")
            assert {name: tally.difficulty for name, tally in told.devices.items()} == {
                f"rig-{number}": number + 1.0 for number in range(8)
            }

    run(body)


def test_unpaid_is_believed_the_second_time_and_for_machines_of_this_proxy_alone() -> None:
    async def body() -> None:
        proxy = away()
        share(proxy, "asic-1", 1.0)
        async with shown(proxy) as at:
            income = Income(f"http://{at}", {})
            await income.look()
            await income.look()
            assert income.unpaid("asic-1") is None, "it is away, and the hold is not over"
            proxy._give_up()
            await income.look()
            assert income.unpaid("asic-1") is None
            await income.look()
            why = income.unpaid("asic-1")
            assert why is not None
            assert "out of sight" in why
            assert income.unpaid("elsewhere") is None
        await income.look()
        assert income.fault is not None
        assert income.unpaid("asic-1") == why, "silence says nothing new"
        assert income.remark is None, "not for long yet"
        income._heard_s -= 60
        assert "does not answer" in (income.remark or "")

    run(body)


def test_a_machine_is_offered_nothing_but_sleep_while_nobody_pays() -> None:
    machine = bench.Machine()

    async def test(device: AsicDevice) -> None:
        await device.identified.wait()
        proxy = away()
        share(proxy, "rig1", 1.0)
        async with shown(proxy) as at:
            device.income = Income(f"http://{at}", {}, period_s=0.02)
            await bench.eventually(lambda: device.reading().counters.accepted == 0)
            share(proxy, "rig1", 4.0)
            await bench.eventually(lambda: device.reading().counters.accepted == 1)
            assert device.reading().counters.accepted_difficulty == 4.0
            assert modes(device) == ["sleep", "low", "high"]
            before = device.inventory_version
            proxy._give_up()
            await bench.eventually(lambda: modes(device) == ["sleep"])
            assert device.inventory_version > before
            assert "nobody pays" in (device.reading().note or "")
            high = judge(bench.lease("high", 3150.0), None, device.terms(), 0, boot_s())
            assert not high.accepted
            assert "nobody pays" in (high.reason or "")
            assert judge(bench.lease("sleep", 30.0), None, device.terms(), 0, boot_s()).accepted
            proxy._gave_up = False
            await bench.eventually(lambda: modes(device) == ["sleep", "low", "high"])

    bench.drive(machine, test)


def modes(device: AsicDevice) -> list[str]:
    info = device.info()
    assert info is not None
    return [point.mode for point in info.points]


def test_an_agents_file_names_the_proxy_and_the_machines_names_there(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(AGENT.format(more='proxy_url = "http://127.65.4.1:9"'))
    one, two = build(load_agent(path, environ={})).devices
    assert isinstance(one, AsicDevice)
    assert isinstance(two, AsicDevice)
    assert one.income is not None
    assert one.income is two.income
    assert one.income._workers == {"rig1": "hall.a-1"}
    path.write_text(AGENT.format(more=""))
    alone = build(load_agent(path, environ={})).devices[0]
    assert isinstance(alone, AsicDevice)
    assert alone.income is None


AGENT = """
[agent]
name = "yard"
listen = "127.65.4.1:0"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "none"
[asic]
{more}
[[asics]]
id = "rig1"
address = "127.65.4.9"
emulated = true
worker = "hall.a-1"
[[asics]]
id = "rig2"
address = "127.65.4.10"
emulated = true
"""
OK = b"HTTP/1.0 200 OK\r\n\r\n"
FULL = b'{"workers": {}, "next": null, "started_s": 1, "unpaid": false}'


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "not HTTP"),
        (b"garbage\r\n\r\n", "not HTTP"),
        (b"HTTP/1.0 500 No\r\n\r\n{}", "status 500"),
        (OK + b"{", "not JSON"),
        (OK + b"[" * 100_000, "not JSON"),
        (OK + b"[]", "not a JSON object"),
        (OK + b"{}", "not a proxy's"),
        (OK + b'{"workers": [], "next": null}', "not a proxy's"),
        (OK + b'{"workers": {"a": {}}, "next": null}', "not a proxy's"),
        (OK + FULL.replace(b"1,", b"NaN,"), "no sense"),
        (OK + FULL.replace(b"1,", b'"x",'), "not a number"),
        (OK + b" " * (3 << 20), "longer than"),
    ],
    ids=range(12),
)
def test_a_strange_answer_is_one_reason_and_nothing_else(answer: bytes, reason: str) -> None:
    async def body() -> None:
        async with speaking(answer) as at:
            with pytest.raises(LookFailed, match=reason):
                await asyncio.to_thread(read, f"http://{at}")
            income = Income(f"http://{at}", {})
            await income.look()
            assert income.counters("asic-1") == Counters()

    run(body)


def test_an_endless_answer_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.3)

    async def body() -> None:
        async with speaking(OK + b" ", drip=True) as at:
            with pytest.raises(LookFailed, match=r"no whole answer|timed out"):
                await asyncio.to_thread(read, f"http://{at}")

    run(body)


def test_looks_never_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    gate = asyncio.Event()

    async def slow(*_: Any) -> Any:
        calls.append("asked")
        await gate.wait()
        raise LookFailed("no")

    monkeypatch.setattr(asyncio, "to_thread", slow)

    async def body() -> None:
        income = Income("http://127.0.0.1:9", {}, period_s=0.0)
        for _ in range(5):
            income.poll()
            await asyncio.sleep(0)
        assert calls == ["asked"]
        gate.set()
        await asyncio.sleep(0.01)
        income.poll()
        await asyncio.sleep(0)
        assert calls == ["asked", "asked"]

    run(body)


@asynccontextmanager
async def speaking(answer: bytes, *, drip: bool = False) -> AsyncIterator[Endpoint]:
    """A server that says this to everybody, at once or a byte at a time for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            while drip:
                await asyncio.sleep(0.05)
                writer.write(b" ")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOCAL.host, 0)
    try:
        yield Endpoint(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
