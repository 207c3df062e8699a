"""The agent as a real process that mines another coin: its worker, its pool, and both counts."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.ports import free_port

from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token, read_token

CONFIG = """
[agent]
name = "host"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
devices = "cpu"
cpu_w = "100W"
nice = 0
[pool]
algorithm = "{coin}"
url = "stratum+tcp://{pool}"
user = "demo.host"
"""
SHARES = 3
ENDS = ("accepted", "rejected", "lost")
DIFFICULTY = {"kheavyhash": "2e-6", "blake3": "2e-5", "autolykos2": "1e-7", "etchash": "1e-8"}
"""Some shares a second on a slow machine."""


class Rig:
    """An agent and the pool it mines at, both on loopback."""

    def __init__(self, folder: Path, coin: str) -> None:
        self.folder, self.port, self.status_port = folder, free_port(), free_port()
        pool = f"127.85.4.1:{free_port()}"
        create_token(folder / "token")
        config = CONFIG.format(port=self.port, pool=pool, coin=coin)
        (folder / "agent.toml").write_text(config)
        self._processes = [
            self._start(
                "mining.pool.process", "--algorithm", coin, "--difficulty", DIFFICULTY[coin],
                "--listen", pool, "--status", f"127.0.0.1:{self.status_port}",
            ),
            self._start("agent.service", "--config", "agent.toml"),
        ]  # fmt: skip

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"wattshift_cluster.{module}", *arguments]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=15)


@pytest.fixture
def coin_rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Rig, str]]:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("this coin's CPU search needs a C++ compiler, and there is none")
    started = Rig(tmp_path, request.param)
    yield started, request.param
    started.end()


async def told(link: Link) -> dict[str, Any]:
    """The agent's greeting, once it listens."""
    async with asyncio.timeout(40):
        while True:
            try:
                return dict(await link.call("hello"))
            except LinkError:
                await asyncio.sleep(0.05)


async def hashing(link: Link, sequence: int) -> dict[str, Any]:
    """Renew the lease; the device's reading."""
    now = await link.call("exchange", leases=[])
    lease = {
        "device": "host-cpu0", "epoch": 1, "sequence": sequence, "mode": "hash", "watts_w": 60.0,
        "valid_until_boot_s": now["boot_s"] + 10.0,
    }  # fmt: skip
    answer = await link.call("exchange", boot_id=now["boot_id"], leases=[lease])
    assert answer["results"][0]["accepted"], answer
    row: dict[str, Any] = answer["readings"][0]
    return row


@pytest.mark.parametrize(
    "coin_rig",
    [
        "kheavyhash",
        *(pytest.param(coin, marks=pytest.mark.nightly) for coin in DIFFICULTY if coin[0] != "k"),
    ],
    indirect=True,
)
def test_the_shares_of_another_coin_reach_its_pool_and_are_counted(
    coin_rig: tuple[Rig, str],
) -> None:
    rig, coin = coin_rig

    async def body() -> None:
        link = Link("127.0.0.1", rig.port, read_token(rig.folder / "token"))
        hello = await told(link)
        assert [one["algorithm"] for one in hello["devices"]] == [coin]
        deadline, counters, sequence = time.monotonic() + 60.0, {}, 0
        while not (counters and counters["accepted"] >= SHARES and counters["hashes"]):
            sequence += 1
            reading = await hashing(link, sequence)
            counters = reading["counters"]
            assert time.monotonic() < deadline, reading
            await asyncio.sleep(0.1)
        await link.call("release", device="host-cpu0")
        while counters["shares_found"] > sum(counters[one] for one in ENDS):
            assert time.monotonic() < deadline, counters
            await asyncio.sleep(0.1)
            counters = (await link.call("exchange", leases=[]))["readings"][0]["counters"]
        assert counters["shares_found"] == sum(counters[one] for one in ENDS)
        assert (counters["rejected"], counters["lost"]) == (0, 0)
        async with httpx2.AsyncClient() as client:
            page = await client.get(f"http://127.0.0.1:{rig.status_port}/v1/status")
        theirs = page.json()
        assert theirs["algorithm"] == coin
        assert theirs["accepted"] >= SHARES
        assert theirs["rejected"] == 0
        assert set(theirs["users"]) == {"demo.host"}

    asyncio.run(body())
