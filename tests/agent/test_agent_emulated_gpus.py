"""The agent as a real process on emulated cards: NVML is a C library that the real binding drives.

Its workers hash on a CPU, and the cards draw what their workers' time within launches says, so
leases, gates, sampler, model, limits and inference marks are closed into one loop.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

from wattshift_cluster.bootclock import boot_id, boot_s
from wattshift_cluster.emulate.nvml import models
from wattshift_cluster.emulate.nvml.build import NvmlNotBuilt, build, child_environment
from wattshift_cluster.emulate.nvml.control import (
    CardFault,
    ComputeProcess,
    EmulatedCard,
    EmulatedDriver,
)
from wattshift_cluster.gate import ClientGate, SeatView
from wattshift_cluster.wire.link import Link, OpFailed
from wattshift_cluster.wire.token import create_token, read_token

pytestmark = pytest.mark.timeout(300)

CARDS = 2
TOP_W = 560.0
"""Of an H200: 0.8 of its 700 W."""

CONFIG = """
[agent]
name = "host"
listen = "127.0.0.1:{port}"
token_file = "token"
state_dir = "state"
gate_dir = "gates"
[hashing]
emulated = true
nice = 0
[gpu]
exclusive = true
{more}
[pool]
url = "stratum+tcp://127.0.0.1:{pool}"
user = "demo.host"
"""


class Host:
    """An agent with emulated cards, and a pool on loopback."""

    def __init__(self, folder: Path, library: Path, more: str = "") -> None:
        self.folder, self.gates = folder, folder / "gates"
        self.driver = EmulatedDriver(folder / "cards", [models.H200] * CARDS)
        for number, card in enumerate(self.cards):
            card.privilege(True)
            card.follow(self.gates / f"host-gpu{number}.worker")
        self.environment = child_environment(library, self.driver.path)
        self.port, pool = free_port(), free_port()
        create_token(folder / "token")
        (folder / "agent.toml").write_text(CONFIG.format(port=self.port, pool=pool, more=more))
        where = ["--listen", f"127.0.0.1:{pool}", "--status", f"127.0.0.1:{free_port()}"]
        command = ["-m", "wattshift_cluster.mining.pool.process", *where, "--difficulty", "0.01"]
        self.pool = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        self.agent = self.start()
        self.link = Link("127.0.0.1", self.port, read_token(folder / "token"), deadline_s=5.0)
        self.sequence = 0

    @property
    def cards(self) -> tuple[EmulatedCard, ...]:
        return tuple(self.driver.cards)

    def start(self) -> subprocess.Popen[bytes]:
        command = ["-m", "wattshift_cluster.agent.service", "--config", "agent.toml"]
        return subprocess.Popen([sys.executable, *command], cwd=self.folder, env=self.environment)

    async def up(self) -> dict[str, Any]:
        """The first hello; every worker is ready and there is a pool session."""
        for _ in range(1500):  # a first worker compiles its search
            try:
                hello = await self.link.call("hello")
            except Exception:
                hello = {"readings": []}
            if hello["readings"] and all(row["error"] is None for row in hello["readings"]):
                return hello
            await asyncio.sleep(0.1)
        pytest.fail(f"the agent is not ready: {hello}")

    async def lease(self, watts_w: float, device: int = 0, ttl_s: float = 100.0) -> dict[str, Any]:
        self.sequence += 1
        asked = {
            "device": f"host-gpu{device}",
            "epoch": 1,
            "sequence": self.sequence,
            "mode": "hash",
            "watts_w": watts_w,
            "valid_until_boot_s": boot_s() + ttl_s,
        }
        answer = await self.link.call("exchange", boot_id=boot_id(), leases=[asked])
        assert answer["results"][0]["accepted"], answer["results"]
        return answer

    async def reading(self, device: int = 0) -> dict[str, Any]:
        answer = await self.link.call("exchange", boot_id=None, leases=[])
        row: dict[str, Any] = answer["readings"][device]
        return row

    async def until(
        self, holds: Callable[[dict[str, Any]], bool], within_s: float = 60.0, device: int = 0
    ) -> dict[str, Any]:
        for _ in range(int(within_s / 0.1)):
            row = await self.reading(device)
            if holds(row):
                return row
            await asyncio.sleep(0.1)
        pytest.fail(f"it did not come to hold within {within_s} s; last {row}")

    def end(self) -> None:
        for process in (self.agent, self.pool):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait(timeout=20)
        self.driver.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(tmp_path_factory.mktemp("nvml"))
    except NvmlNotBuilt as fault:
        pytest.skip(str(fault))


@pytest.fixture
def host(tmp_path: Path, library: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Parametrised with further lines of [gpu]."""
    started = Host(tmp_path, library, getattr(request, "param", ""))
    yield started
    started.end()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_leases_become_watts_within_their_bounds_and_inference_takes_them_back(
    host: Host,
) -> None:
    async def scenario() -> None:
        hello = await host.up()
        first = hello["devices"][0]
        assert (first["kind"], first["quality"], first["fenced"]) == ("gpu", "emulated", True)
        assert first["nameplate_w"] == 700.0
        assert first["points"][-1]["watts_w"] <= TOP_W
        idle_w = first["safe_w"]

        await host.lease(300.0)
        drawn = await host.until(lambda row: (row["watts_w"] or 0) > idle_w + 40)
        assert drawn["watts_w"] <= 300.0
        assert drawn["hashrate_h_per_s"] > 0
        other = await host.reading(1)
        assert other["watts_w"] == pytest.approx(idle_w, abs=10), "the other card has no lease"

        server = ClientGate(host.gates, devices=["host-gpu0"])
        with server.busy():
            await host.until(lambda row: row["watts_w"] < idle_w + 15 and row["mode"] == "idle")
        server.close()
        await host.until(lambda row: (row["watts_w"] or 0) > idle_w + 40)

        await host.link.call("release", device="host-gpu0")
        await host.until(lambda row: row["watts_w"] < idle_w + 15)

    run(scenario())


def test_a_killed_agent_leaves_no_card_hashing_and_its_limit_as_written(host: Host) -> None:
    async def scenario() -> None:
        await host.up()
        answer = await host.link.call("limit", limits={"host-gpu0": 400, "host-gpu1": 350})
        assert [row["enforced_w"] for row in answer["limits"]] == [400.0, 350.0]
        raised = await host.link.call("limit", limits={"host-gpu0": 500})
        assert "no lease covers it" in raised["limits"][0]["error"]
        await host.lease(300.0)
        await host.until(lambda row: row["hashrate_h_per_s"])
        await host.lease(300.0, ttl_s=3.0)
        os.kill(host.agent.pid, signal.SIGKILL)
        host.agent.wait()
        view = SeatView(host.gates / "host-gpu0.worker")
        await asyncio.sleep(3.5)
        stopped = view.read().launches
        await asyncio.sleep(0.5)
        assert view.read().launches == stopped > 0
        view.close()
        await host.link.close()

        host.agent = host.start()
        await host.up()
        row = await host.reading()
        assert row["enforced_limit_w"] == 400.0, "an exit never raises a limit"
        given = await host.link.call("release", device="host-gpu0")
        assert given["limit"]["enforced_w"] == 700.0, "an explicit release does, over a restart"

    run(scenario())


def test_faults_of_a_card_are_shown_and_never_become_zero(host: Host) -> None:
    async def scenario() -> None:
        await host.up()
        await host.lease(300.0)
        await host.until(lambda row: row["hashrate_h_per_s"])
        host.cards[0].fault(CardFault.LOST)
        lost = await host.until(lambda row: row["error"] is not None)
        assert lost["watts_w"] is None
        assert "lost" in lost["error"].lower()
        assert (await host.reading(1))["error"] is None, "the other card goes on"
        host.cards[0].fault(CardFault.LOST, on=False)
        back = await host.until(lambda row: row["error"] is None)
        assert back["watts_w"] is not None

        host.cards[1].write_limit(500.0)
        assert not (await host.reading(1))["foreign_write"], "we wrote none"
        await host.link.call("limit", limits={"host-gpu1": 450})
        host.cards[1].write_limit(600.0)
        await host.until(lambda row: row["foreign_write"], device=1)

    run(scenario())


def test_a_curve_is_measured_under_the_lease_until_inference_comes(host: Host) -> None:
    async def scenario() -> None:
        await host.up()
        with pytest.raises(OpFailed, match="it has no lease"):
            await host.link.call("profile", device="host-gpu0", start=True)
        await host.lease(TOP_W, ttl_s=200.0)
        await host.link.call("profile", device="host-gpu0", start=True)
        view: dict[str, Any] = {"points": []}
        for _ in range(900):  # a step is read once its draw has come to rest
            view = (await host.link.call("profile", device="host-gpu0"))["profile"]
            if len(view["points"]) >= 2:
                break
            await asyncio.sleep(0.1)
        first, second = view["points"][:2]
        assert (first["intensity_pct"], first["hashrate_h_per_s"]) == (0, 0.0)
        assert second["intensity_pct"] == 10
        assert first["watts_w"] + 20 < second["watts_w"] < 200
        server = ClientGate(host.gates, devices=["host-gpu0"])
        with server.busy():
            await asyncio.sleep(0.3)
        server.close()
        view = (await host.link.call("profile", device="host-gpu0"))["profile"]
        assert (view["state"], view["reason"]) == ("aborted", "inference needs the device")
        host.agent.terminate()
        host.agent.wait(timeout=20)
        kept = host.folder / "state" / "host-gpu0.power.json"
        assert kept.stat().st_size > 100, "what was learnt outlives the agent"

    run(scenario())


STEADY = 'steady = "300W"\nsteady_ramp = "200W"'


@pytest.mark.parametrize("host", [STEADY], indirect=True)
def test_a_steady_draw_is_held_beside_inference(host: Host) -> None:
    newest_w: deque[float] = deque(maxlen=20)

    def held(row: dict[str, Any]) -> bool:
        """Over two seconds, and not for a moment on the way up; a busy machine may upset it."""
        newest_w.append(row["watts_w"] or 0.0)
        mean_w = sum(newest_w) / len(newest_w)
        steady = abs(mean_w - 300.0) < 30.0 and abs(newest_w[-1] - 300.0) < 30.0
        return len(newest_w) == 20 and steady and row["hashrate_h_per_s"] > 0

    async def scenario() -> None:
        await host.up()
        await host.lease(TOP_W)
        server = ClientGate(host.gates, devices=["host-gpu0"])
        host.cards[0].load(0.3)
        with server.busy():
            # Its owner asked for a steady draw: it does not yield.
            await host.until(held)
        server.close()

    run(scenario())


SERVER = """
import sys, time
from wattshift_cluster.gate import SeatView
from pathlib import Path
seat = SeatView(Path(sys.argv[1]))
print("taken" if seat.taken else "free", flush=True)
time.sleep(1.5)
print("taken" if seat.taken else "free", flush=True)
"""


def test_a_starting_server_gets_a_card_that_nobody_else_uses(host: Host) -> None:
    async def scenario() -> None:
        await host.up()
        await host.lease(300.0, ttl_s=200.0)
        await host.lease(300.0, device=1, ttl_s=200.0)
        await host.until(lambda row: row["hashrate_h_per_s"])
        seat = str(host.gates / "host-gpu0.worker")
        command = [
            *(sys.executable, "-m", "wattshift_cluster.gate.launch"),
            *("--devices", "host-gpu0", "--"),
            *(sys.executable, "-c", SERVER, seat),
        ]
        server = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            env={**os.environ, "WATTSHIFT_GATE_DIR": str(host.gates)},
        )
        await host.until(lambda row: "memory" in (row["error"] or ""))
        other = await host.reading(1)
        assert other["error"] is None
        assert other["hashrate_h_per_s"] > 0, "the other card goes on"
        out, _ = await server.communicate()
        assert (server.returncode, out.decode().split()) == (0, ["free", "free"])
        await host.until(lambda row: row["error"] is None and row["hashrate_h_per_s"] > 0)

    run(scenario())


SERVED = (
    '[[servers]]\nname = "chat"\nkind = "vllm"\nurl = "http://127.0.0.1:{port}/metrics"\n'
    'devices = ["host-gpu0"]\n'
)
CLOSED_PORT = free_port()


@pytest.mark.parametrize("host", [SERVED.format(port=CLOSED_PORT)], indirect=True)
def test_beside_an_observed_server_nothing_is_mined_without_its_owners_word(host: Host) -> None:
    """Nothing listens there, and NVML lists a process on its card: it may be starting."""
    host.cards[0].processes([ComputeProcess(os.getpid(), 1 << 30, 0)])

    async def scenario() -> None:
        await host.up()
        await host.lease(300.0)
        await host.lease(300.0, device=1)
        await host.until(lambda row: row["hashrate_h_per_s"], device=1)
        row = await host.until(lambda row: "chat" in (row["note"] or ""))
        assert "did not opt in" in row["note"]
        await asyncio.sleep(1.0)
        assert not (await host.reading())["hashrate_h_per_s"]

    run(scenario())


@pytest.mark.parametrize(
    "host", [SERVED.format(port=CLOSED_PORT).replace("gpu0", "gpu9")], indirect=True
)
def test_a_server_on_a_device_that_is_not_here_starts_nothing(host: Host) -> None:
    assert host.agent.wait(timeout=20) == 3
