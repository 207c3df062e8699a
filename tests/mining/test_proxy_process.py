"""The proxy as a program: its file, the owner's consent, its page, and its end."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wattshift_cluster.agent.observe.prometheus import parse
from wattshift_cluster.cli.main import main
from wattshift_cluster.config.load import trace_proxy
from wattshift_cluster.errors import ConfigInvalid, WattshiftError
from wattshift_cluster.mining.client import StratumClient
from wattshift_cluster.mining.endpoint import Endpoint
from wattshift_cluster.mining.pool.server import LoopbackPool
from wattshift_cluster.mining.pool.settings import PoolSettings
from wattshift_cluster.mining.proxy.process import settings_of
from wattshift_cluster.mining.proxy.sockets import room_for

LOCAL = Endpoint("127.65.3.1", 0)
FILE = """
[proxy]
listen = "127.65.3.1:0"
status = "127.65.3.1:0"
{proxy}
[pool]
url = "{url}"
user = "bc1q.site"
{pool}
"""


def written(folder: Path, url: str, proxy: str = "", pool: str = "", more: str = "") -> Path:
    path = folder / "proxy.toml"
    path.write_text(FILE.format(url=url, proxy=proxy, pool=pool) + more)
    return path


def faults(path: Path) -> str:
    with pytest.raises(ConfigInvalid) as wrong:
        trace_proxy(path, environ={})
    return str(wrong.value)


def test_every_fault_of_a_file_is_named(tmp_path: Path) -> None:
    more = """
[[workers]]
name = "rig"
device = "asic-1"
[[workers]]
name = "rig"
device = "asic 2"
"""
    proxy = 'start_difficulty = 1\nleast_difficulty = 2\ntls_key = "k.pem"\nmax_sessions = 0'
    text = faults(written(tmp_path, "stratum+tcp://pool.example.org:3333", proxy, more=more))
    assert "proxy.max_sessions" in text
    assert "allowed: stratum+tls://" in text
    assert "workers[1].name" in text
    assert "workers[1].device" in text
    proxy = proxy.replace("max_sessions = 0", 'listen = "0.0.0.0:1"')
    path = written(tmp_path, "stratum+tcp://127.0.0.1:3333", proxy)
    path.write_text(path.read_text().replace('listen = "127.65.3.1:0"\n', ""))
    text = faults(path)
    assert "others may reach it" in text
    assert "proxy.start_difficulty" in text
    assert "has no tls_cert" in text


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("10.1.0.2:3333", True),
        ("192.168.4.1:3333", True),
        ("[fd00::1]:3333", True),
        ("127.0.0.1:3333", True),
        ("8.8.8.8:3333", False),
        ("0.0.0.0:3333", False),
        ("[::]:3333", False),
        ("pool.example.org:3333", False),
    ],
)
def test_it_listens_on_private_addresses_unless_told(
    tmp_path: Path, address: str, fits: bool
) -> None:
    path = written(tmp_path, "stratum+tcp://127.0.0.1:3333")
    flags = {"proxy.listen": address}
    if fits:
        assert trace_proxy(path, flags=flags, environ={}).config.proxy.listen == address
        return
    with pytest.raises(ConfigInvalid, match="others may reach it"):
        trace_proxy(path, flags=flags, environ={})
    public = trace_proxy(path, flags={**flags, "proxy.public": True}, environ={})
    assert public.config.proxy.public


def test_the_file_becomes_settings(tmp_path: Path) -> None:
    more = '[[workers]]\nname = "a.b"\ndevice = "asic-1"\n'
    path = written(tmp_path, "stratum+tcp://127.0.0.1:3333", "max_sessions = 7", "hold = 5", more)
    settings = settings_of(trace_proxy(path, environ={}).config)
    assert (settings.max_sessions, settings.hold_s) == (7, 5.0)
    assert settings.device_of("a.b") == "asic-1"
    assert settings.device_of("x.asic.9") == "asic.9"


def test_config_commands_know_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "stratum+tcp://127.0.0.1:3333")
    told = CliRunner().invoke(main, ["config", "check", str(path)])
    assert (told.exit_code, told.stdout) == (0, f"{path}: valid\n")
    told = CliRunner().invoke(main, ["config", "schema", "proxy"])
    assert set(json.loads(told.stdout)["properties"]) == {"proxy", "pool", "workers"}


def test_without_the_owners_word_nobody_is_mined_for(tmp_path: Path) -> None:
    url = "stratum+tls://pool.example.org:3333"
    told = CliRunner().invoke(main, ["pool", "proxy", str(written(tmp_path, url))])
    assert told.exit_code == 6
    assert "no consent_file is configured" in told.stderr
    fallback = f'[[pool.fallback]]\nurl = "{url}"\nuser = "other"\n'
    path = written(tmp_path, "stratum+tcp://127.0.0.1:3333", more=fallback)
    assert CliRunner().invoke(main, ["pool", "proxy", str(path)]).exit_code == 6, "each pool"
    plain = ["pool", "proxy", "--upstream", "stratum+tcp://pool.example.org:1", "--user", "x"]
    assert CliRunner().invoke(main, plain).exit_code == 3
    assert CliRunner().invoke(main, [*plain, "--plaintext"]).exit_code == 6
    assert CliRunner().invoke(main, ["pool", "proxy"]).exit_code == 2


def test_too_few_open_files_are_said_before_anything_listens() -> None:
    with pytest.raises(WattshiftError, match="open files"):
        room_for(1 << 40)


async def get(at: str, path: str) -> tuple[int, bytes]:
    host, _, port = at.rpartition(":")
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    return int(head.split()[1]), body


async def eventually(check: Callable[[], Awaitable[Any]], what: str) -> Any:
    async with asyncio.timeout(20):
        while not (value := await check()):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    assert value, what
    return value


def test_the_program_runs_tells_and_ends(tmp_path: Path) -> None:
    async def body() -> None:
        pool = LoopbackPool(PoolSettings(difficulty=1e-6, extranonce2_size=8))
        at = await pool.start(LOCAL)
        file = written(tmp_path, f"stratum+tcp://{at}", "per_worker = false")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from wattshift_cluster.cli.main import main; main()"),
            *("pool", "proxy", str(file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                ready = json.loads(await process.stdout.readline())
            assert ready["ready"] is True
            await eventually(lambda: _up(ready["status"]), "the pool")
            await _mine_one(ready["stratum"])
            await _look(ready["status"], str(at))
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                _, errors = await process.communicate()
            assert process.returncode == 0, errors
            assert b"Traceback" not in errors
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await pool.stop()

    asyncio.run(body())


async def _up(status: str) -> bool:
    code, body = await get(status, "/v1/status")
    return code == 200 and json.loads(body)["upstream_lost_since"] is None


async def _mine_one(at: str) -> None:
    client = StratumClient(f"stratum+tcp://{at}", "bc1q.asic-9")
    task = asyncio.create_task(client.run())
    try:
        async with asyncio.timeout(20):
            while (work := client.next_work()) is None:  # noqa: ASYNC110 - a session to come
                await asyncio.sleep(0.01)
        nonce = next(number for number in range(1 << 24) if work.is_share(number))
        assert (await client.submit(work.share(nonce))).accepted
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _look(status: str, pool: str) -> None:
    async def counted() -> Any:
        _, body = await get(status, "/v1/workers")
        page = json.loads(body)
        return page if page["workers"]["asic-9"]["accepted"] == 1 else None

    page = await eventually(counted, "the share is counted")
    assert page["next"] is None
    assert page["upstream_lost_since"] is None
    assert page["workers"]["asic-9"]["pool_difficulty"] == pytest.approx(1e-6)
    _, body = await get(status, "/v1/workers?from=1")
    assert json.loads(body)["workers"] == {}
    code, body = await get(status, "/metrics")
    assert code == 200
    found = parse(body, ("wattshift_shares_total", "wattshift_proxy_accepted_difficulty_total"))
    assert found["wattshift_shares_total"][(("pool", pool), ("result", "accepted"))] == 1.0
    device = (("device", "asic-9"),)
    assert found["wattshift_proxy_accepted_difficulty_total"][device] == pytest.approx(1e-6)
    for path, code in (("/v1/none", 404), ("/v1/workers?from=x", 400)):
        assert (await get(status, path))[0] == code
