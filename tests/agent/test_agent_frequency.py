"""A dip of the grid's frequency, through the real agent: feed, response, gate, worker."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.agent import agent_rig as _rig
from tests.ports import free_port

from wattshift_cluster.bootclock import boot_id, boot_ns
from wattshift_cluster.gate import SeatView, read_gate
from wattshift_cluster.wire.link import Link, LinkError
from wattshift_cluster.wire.token import create_token, read_token

DEVICE = _rig.DEVICE
CONFIG = f"""{_rig.CONFIG}
[frequency]
programme = "fast response, contract 7"
nominal_hz = 60
dead_band_hz = 0.036
full_at_hz = 0.3
emergency_hz = 59.85
accuracy_hz = 0.001
window = "50ms"
[frequency.feed]
socket = "hz.sock"
rate_hz = 30
"""
PERIOD_S = 1 / 30


class Rig:
    """An agent that assists, and the pool it mines at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, pool, status = folder, free_port(), free_port(), free_port()
        create_token(folder / "token")
        (folder / "agent.toml").write_text(CONFIG.format(port=self.port, pool=f"127.0.0.1:{pool}"))
        self._sequence = 0
        self.processes = [
            self._start(
                folder,
                "mining.pool.process",
                "--difficulty=1",
                f"--listen=127.0.0.1:{pool}",
                f"--status=127.0.0.1:{status}",
            ),
            self._start(folder, "agent.service", "--config=agent.toml"),
        ]

    def _start(self, folder: Path, module: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"wattshift_cluster.{module}", *options]
        return subprocess.Popen(command, cwd=folder)

    def link(self) -> Link:
        return Link("127.0.0.1", self.port, read_token(self.folder / "token"))

    async def grant(self, link: Link) -> dict[str, Any]:
        """Renew the lease; the whole answer."""
        now = await link.call("exchange", leases=[])
        self._sequence += 1
        lease = _rig.lease(self._sequence, 60.0, now["boot_s"] + 30.0)
        answer: dict[str, Any] = await link.call("exchange", boot_id=boot_id(), leases=[lease])
        return answer

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(timeout=15)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    started = Rig(tmp_path)
    yield started
    started.end()


async def until_hashing(rig: Rig, link: Link) -> None:
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline:
        with suppress(LinkError):
            answer = await rig.grant(link)
            if answer["results"][0]["accepted"] and answer["readings"][0]["counters"]["hashes"]:
                return
        await asyncio.sleep(0.1)
    pytest.fail("nothing was hashed")


def test_a_dip_stops_the_worker_and_a_renewed_lease_does_not_start_it(rig: Rig) -> None:
    """Bar: within 200 ms of the first low sample. Slack: this machine may be loaded."""

    async def scenario() -> None:
        link, hz = rig.link(), [60.0]
        await until_hashing(rig, link)
        _, writer = await asyncio.open_unix_connection(rig.folder / "hz.sock")

        async def feed() -> None:
            number = 0
            while True:
                number += 1
                writer.write(f"{hz[0] + 1e-4 * (number % 9):.4f} 1.001\n".encode())
                await asyncio.sleep(PERIOD_S)

        feeding = asyncio.create_task(feed())
        gate = rig.folder / "gates" / f"{DEVICE}.gate"
        seat = SeatView(rig.folder / "gates" / f"{DEVICE}.worker")
        told: dict[str, Any] = {}
        for _ in range(100):
            told = (await rig.grant(link))["frequency"]
            if told["phase"] == "ready":
                break
            await asyncio.sleep(0.05)
        assert (told["phase"], told["share"]) == ("ready", 0.0)
        assert read_gate(gate).intensity_idle_pct > 0

        dip_ns, hz[0] = boot_ns(), 59.7
        while read_gate(gate).intensity_idle_pct > 0:
            assert boot_ns() - dip_ns < 10e9, "the gate never closed"
            await asyncio.sleep(0.002)
        closed_ms = (boot_ns() - dip_ns) / 1e6
        before, after = seat.read(), None
        for _ in range(20):  # a worker on a busy machine may wait for its turn to look
            await asyncio.sleep(0.2)
            before, after = after or before, seat.read()
            if after.launches == before.launches:
                break
        assert after is not None
        stopped_ms = (after.last_launch_end_ns - dip_ns) / 1e6
        print(f"gate closed after {closed_ms:.0f} ms, last launch ended after {stopped_ms:.0f} ms")
        assert closed_ms < 2000.0
        assert stopped_ms < 2200.0

        answer = await rig.grant(link)
        assert answer["results"][0]["accepted"]
        told = answer["frequency"]
        assert (told["phase"], told["share"], told["programme"]) == (
            "latched",
            1.0,
            "fast response, contract 7",
        )
        assert told["cut_w"] == pytest.approx(60.0 - 2.0)
        assert [event["what"] for event in told["events"]][:2] == ["found", "begins"]
        await asyncio.sleep(0.3)
        assert seat.read().launches == after.launches, "a renewed lease opened the gate"
        feeding.cancel()
        writer.close()

    asyncio.run(scenario())
