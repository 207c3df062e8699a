"""The worker as a real process behind a real gate."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import AgentGate, ClientGate, SeatState, SeatView, clients
from wattshift_kernels.header import hash_value, sha256d, target_of_difficulty, with_nonce

HEADER = bytes(range(76))
EASY = target_of_difficulty(1e-3)


class Rig:
    """A gate, its worker, and what the worker said."""

    def __init__(self, folder: Path) -> None:
        clients.create_clients_file(folder / "cpu0.clients")
        self.folder = folder
        self.gate = AgentGate(folder / "cpu0.gate")
        self.process = self.start()
        self.said: list[dict[str, Any]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "wattshift_cluster.agent.worker", "--device=cpu"),
            f"--gate={self.folder / 'cpu0.gate'}",
            f"--seat={self.folder / 'cpu0.worker'}",
        ]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hear(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event:
                return self.said[-1]
        pytest.fail(f"the worker ended without {event}; it said {self.said}")

    def give(self, target: int = EASY, number: int = 1) -> None:
        assert self.process.stdin is not None
        message = {"op": "work", "id": number, "header76": HEADER.hex(), "target": f"{target:064x}"}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def lease(self, for_s: float, duty_pct: int = 50) -> int:
        expires_ns = boot_ns() + int(for_s * 1e9)
        self.gate.write(
            epoch=1, leased_w=50.0, expires_boot_ns=expires_ns, intensity_idle_pct=duty_pct
        )
        return expires_ns

    def seat(self) -> SeatState:
        view = SeatView(self.folder / "cpu0.worker")
        try:
            return view.read()
        finally:
            view.close()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.gate.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    started = Rig(tmp_path)
    yield started
    started.end()


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_it_hashes_only_while_the_lease_lasts_and_finds_what_hashlib_confirms(rig: Rig) -> None:
    rig.hear("ready")
    rig.give(target=1)
    time.sleep(0.2)
    assert rig.seat().launches == 0, "no lease, no launch"
    assert rig.seat().heartbeat_ns > 0
    expires_ns = rig.lease(0.6)
    rig.give(number=2)  # behind the first, which has no hits
    time.sleep(1.0)
    state = rig.seat()
    assert state.hashes > 0
    assert state.last_launch_end_ns < expires_ns + 50_000_000
    assert state.launching_ns / state.launches < 10_000_000, "0.7 ms, and time to be preempted"
    time.sleep(0.1)
    assert rig.seat().launches == state.launches


def test_hits_are_real(rig: Rig) -> None:
    rig.hear("ready")
    rig.lease(20.0, duty_pct=100)
    rig.give()
    hit = rig.hear("hit")
    digest = sha256d(with_nonce(HEADER, hit["nonce"]))
    assert hit["id"] == 1
    assert hash_value(digest) <= EASY


def test_a_busy_client_stops_it_and_its_death_lets_it_go_on(rig: Rig) -> None:
    rig.hear("ready")
    rig.give(target=1)
    rig.lease(20.0)
    assert eventually(lambda: rig.seat().launches > 10)
    replica = ClientGate(rig.folder)
    with replica.busy():
        time.sleep(0.1)
        before = rig.seat().launches
        time.sleep(0.2)
        assert rig.seat().launches == before
    assert eventually(lambda: rig.seat().launches > before)
    replica.close()


def test_a_device_seats_one_worker(rig: Rig) -> None:
    rig.hear("ready")
    second = rig.start()
    out, _ = second.communicate(timeout=20)
    assert second.returncode == 75
    assert json.loads(out)["event"] == "refused"
    rig.process.kill()
    rig.process.communicate()
    rig.process = rig.start()
    rig.hear("ready")


@pytest.mark.parametrize("how", ["end of input", "SIGTERM"])
def test_it_ends_cleanly_when_told(rig: Rig, how: str) -> None:
    rig.hear("ready")
    rig.give(target=1)
    rig.lease(20.0)
    assert eventually(lambda: rig.seat().launches > 10)
    assert rig.process.stdin is not None
    if how == "SIGTERM":
        os.kill(rig.process.pid, signal.SIGTERM)
    else:
        rig.process.stdin.close()
    assert rig.process.wait(timeout=5) == 0
    hashes = rig.seat().hashes
    assert hashes > 0, "the counters stay to be read"
    rig.process.stdin = None


def test_garbage_on_its_input_ends_it(rig: Rig) -> None:
    rig.hear("ready")
    assert rig.process.stdin is not None
    rig.process.stdin.write(b'{"op": "work", "id": 1, "header76": "00", "target": "0"}\n')
    rig.process.stdin.flush()
    assert rig.process.wait(timeout=5) == 0


def test_without_work_nothing_is_hashed(rig: Rig) -> None:
    rig.hear("ready")
    rig.lease(20.0)
    time.sleep(0.2)
    assert rig.seat().launches == 0
