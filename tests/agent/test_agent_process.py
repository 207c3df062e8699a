"""The agent as a real process, with a real pool and a real worker behind its gate."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.agent import agent_rig as _rig
from tests.ports import free_port

from wattshift_cluster.bootclock import boot_id, boot_ns
from wattshift_cluster.gate import GateInvalid, SeatView, read_gate
from wattshift_cluster.wire.link import Link, LinkError, OpFailed, Unauthorized
from wattshift_cluster.wire.token import create_token, read_token

DEVICE, CONFIG = _rig.DEVICE, _rig.CONFIG


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Rig:
    """An agent and the pool it mines at, both on loopback."""

    def __init__(self, folder: Path, *, with_pool: bool) -> None:
        self.folder = folder
        self.port, self.status_port, pool_port = free_port(), free_port(), free_port()
        create_token(folder / "token")
        pool = f"127.0.0.1:{pool_port}" if with_pool else "pool.example:3333"
        (folder / "agent.toml").write_text(CONFIG.format(port=self.port, pool=pool))
        self.pool = self._pool(pool_port) if with_pool else None
        self.agent = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = ["-m", "wattshift_cluster.agent.service", "--config", "agent.toml"]
        return subprocess.Popen([sys.executable, *command], cwd=self.folder)

    def _pool(self, port: int) -> subprocess.Popen[bytes]:
        command = ["-m", "wattshift_cluster.mining.pool.process", "--difficulty", "1e-3"]
        where = ["--listen", f"127.0.0.1:{port}", "--status", f"127.0.0.1:{self.status_port}"]
        return subprocess.Popen([sys.executable, *command, *where])

    def link(self, token: bytes | None = None) -> Link:
        return Link("127.0.0.1", self.port, token or read_token(self.folder / "token"))

    def seat(self) -> SeatView:
        return SeatView(self.folder / "gates" / f"{DEVICE}.worker")

    def end(self) -> None:
        for process in (self.agent, self.pool):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(timeout=15)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    started = Rig(tmp_path, with_pool=True)
    yield started
    started.end()


async def hello(link: Link, *, within_s: float = 20.0) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await link.call("hello")
        except Unauthorized:
            raise
        except LinkError:
            assert time.monotonic() < deadline, "the agent never listened"
            await asyncio.sleep(0.05)


async def grant(link: Link, sequence: int, watts_w: float, ttl_s: float, **more: Any) -> Any:
    now = await link.call("exchange", leases=[])
    lease = _rig.lease(sequence, watts_w, now["boot_s"] + ttl_s, **more)
    answer = await link.call("exchange", boot_id=now["boot_id"], leases=[lease])
    return answer["results"][0]


async def reading(link: Link) -> dict[str, Any]:
    row: dict[str, Any] = (await link.call("exchange", leases=[]))["readings"][0]
    return row


async def until_hashing(rig: Rig, link: Link, within_s: float = 40.0) -> None:
    """Renew a lease until the worker has launched."""
    deadline = time.monotonic() + within_s
    sequence = 0
    while time.monotonic() < deadline:
        sequence += 1
        assert (await grant(link, sequence, 60.0, 5.0))["accepted"]
        await asyncio.sleep(0.2)
        if (await reading(link))["counters"]["hashes"]:
            return
    pytest.fail(f"nothing was hashed: {await reading(link)}")


def test_a_lease_becomes_shares_that_the_pool_accepts(rig: Rig) -> None:
    async def scenario() -> None:
        link = rig.link()
        said = await hello(link)
        assert said["agent"] == "host"
        assert said["boot_id"] == boot_id()
        (device,) = said["devices"]
        assert (device["id"], device["kind"], device["fenced"]) == (DEVICE, "cpu", True)
        assert [point["mode"] for point in device["points"]] == ["idle", "hash"]
        assert device["quality"] == "modelled"

        await until_hashing(rig, link)
        seat, drawn_w = rig.seat(), []
        first, began_ns = seat.read(), boot_ns()
        for sequence in range(100, 112):
            await grant(link, sequence, 60.0, 5.0)
            await asyncio.sleep(0.3)
            row = await reading(link)
            drawn_w.append(row["watts_w"])
        cpus = (seat.read().cpu_ns - first.cpu_ns) / (boot_ns() - began_ns)
        assert row["lease"]["watts_w"] == 60.0
        # Less where others keep this host's CPUs busy, and the model sees that, too.
        assert sum(drawn_w) / 12 == pytest.approx(100.0 * cpus, abs=15.0), "the model follows it"
        assert max(drawn_w) < 72.0
        assert row["counters"]["accepted"] > 0
        assert row["error"] is None

        stopped = await link.call("release", device=DEVICE)
        assert stopped["readings"][0]["lease"] is None
        await asyncio.sleep(1.7)
        first = await reading(link)
        counts = first["counters"]
        ended = counts["accepted"] + counts["rejected"] + counts["lost"]
        assert counts["shares_found"] == ended
        assert counts["rejected"] == 0
        async with httpx2.AsyncClient() as http:
            url = f"http://127.0.0.1:{rig.status_port}/v1/status"
            status = (await http.get(url)).json()
        assert status["accepted"] == counts["accepted"]
        assert status["accepted_difficulty"] == pytest.approx(counts["accepted_difficulty"])
        # Shares are Poisson events: the hashes they stand for agree with the hashes counted.
        expected = counts["hashes"] / 2**32 / 1e-3
        assert abs(counts["accepted"] - expected) < 5 * max(1.0, expected) ** 0.5
        await asyncio.sleep(0.3)
        assert (await reading(link))["counters"]["hashes"] == counts["hashes"]

    asyncio.run(scenario())


def test_the_rules_hold_over_the_wire_and_the_epoch_over_a_restart(rig: Rig) -> None:
    async def scenario() -> None:
        with pytest.raises(Unauthorized):
            await hello(rig.link(b"not the token of this agent"))
        link = rig.link()
        await hello(link)
        assert (await grant(link, 1, 50.0, 10.0, epoch=4))["accepted"]
        old = await grant(link, 9, 60.0, 10.0, epoch=3)
        assert (old["accepted"], old["reason"]) == (False, "older than epoch 4 sequence 1")
        assert (await grant(link, 9, 40.0, 10.0, epoch=3))["accepted"]
        lease = (await reading(link))["lease"]
        assert (lease["epoch"], lease["watts_w"]) == (4, 40.0)
        late = {"device": DEVICE, "epoch": 4, "sequence": 2, "mode": "hash", "watts_w": 50.0}
        answer = await link.call(
            "exchange", boot_id="another", leases=[{**late, "valid_until_boot_s": 1e9}]
        )
        assert "another boot" in answer["results"][0]["reason"]
        with pytest.raises(OpFailed, match="valid_until_boot_s"):
            await link.call("exchange", boot_id=boot_id(), leases=[late])
        with pytest.raises(OpFailed, match="unknown op"):
            await link.call("shutdown")

        rig.agent.kill()
        rig.agent.wait()
        rig.agent = rig.start()
        said = await hello(link)
        assert said["epoch"] == 4
        assert said["readings"][0]["lease"] is None
        assert not (await grant(link, 99, 10.0, 10.0, epoch=3))["accepted"]

    asyncio.run(scenario())


def test_a_hung_agent_stops_hashing_at_expiry(rig: Rig) -> None:
    """Nothing is sent, nothing is told: the gate alone ends it (I2)."""

    async def scenario() -> None:
        link = rig.link()
        await hello(link)
        await until_hashing(rig, link)
        assert (await grant(link, 500, 60.0, 1.5))["accepted"]
        rig.agent.send_signal(signal.SIGSTOP)
        expires_ns = read_gate(rig.folder / "gates" / f"{DEVICE}.gate").expires_boot_ns
        seat = rig.seat()
        assert running(seat.read().pid)
        await asyncio.sleep((expires_ns - boot_ns()) / 1e9 + 0.4)
        after = seat.read()
        assert after.last_launch_end_ns < expires_ns + 100_000_000
        assert after.heartbeat_ns > expires_ns + 100_000_000, "the worker lives; it may not launch"
        await asyncio.sleep(0.3)
        assert seat.read().launches == after.launches

    asyncio.run(scenario())


def test_a_killed_agent_takes_its_worker_along(rig: Rig) -> None:
    async def scenario() -> None:
        link = rig.link()
        await hello(link)
        await until_hashing(rig, link)
        pid = rig.seat().read().pid
        rig.agent.kill()
        rig.agent.wait()
        for _ in range(100):  # a worker on a busy machine may wait for its turn to end
            if not running(pid):
                break
            await asyncio.sleep(0.1)
        assert not running(pid)

    asyncio.run(scenario())


def test_counters_outlive_a_killed_worker(rig: Rig) -> None:
    async def scenario() -> None:
        link = rig.link()
        await hello(link)
        await until_hashing(rig, link)
        first = rig.seat().read()
        os.kill(first.pid, signal.SIGKILL)
        row = await reading(link)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            await grant(link, 1000 + int(time.monotonic() * 10), 60.0, 5.0)
            await asyncio.sleep(0.2)
            row = await reading(link)
            try:
                now = rig.seat().read()
            except GateInvalid:  # the next worker is just taking its seat
                continue
            if now.pid not in (0, first.pid) and now.hashes and row["error"] is None:
                break
        assert now.pid != first.pid
        assert row["counters"]["hashes"] >= first.hashes

    asyncio.run(scenario())


def test_sigterm_ends_at_the_safe_point(rig: Rig) -> None:
    async def scenario() -> None:
        link = rig.link()
        await hello(link)
        await until_hashing(rig, link)
        pid = rig.seat().read().pid
        rig.agent.terminate()
        assert await asyncio.to_thread(rig.agent.wait, 15) == 0
        assert read_gate(rig.folder / "gates" / f"{DEVICE}.gate").stop
        assert not running(pid)
        rig.agent = rig.start()
        await hello(link)

    asyncio.run(scenario())


def test_without_the_pool_nothing_is_hashed(rig: Rig) -> None:
    async def scenario() -> None:
        link = rig.link()
        await hello(link)
        await until_hashing(rig, link)
        assert rig.pool is not None
        rig.pool.kill()
        rig.pool.wait()
        await asyncio.sleep(0.5)
        await grant(link, 900, 60.0, 10.0)
        before = rig.seat().read().launches
        await asyncio.sleep(0.5)
        row = await reading(link)
        assert rig.seat().read().launches == before
        assert "no pool session" in row["error"]

    asyncio.run(scenario())


def test_a_real_pool_without_consent_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, with_pool=False)

    async def scenario() -> None:
        link = rig.link()
        (device,) = (await hello(link))["devices"]
        assert [point["mode"] for point in device["points"]] == ["idle"]
        result = await grant(link, 1, 50.0, 10.0)
        assert not result["accepted"]
        assert "consent" in result["reason"]
        assert "consent" in (await reading(link))["error"]

    try:
        asyncio.run(scenario())
    finally:
        rig.end()
