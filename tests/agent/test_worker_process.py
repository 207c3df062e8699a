"""The worker as a real process behind a real gate."""

import io
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

from wattshift_cluster.agent import worker
from wattshift_cluster.agent.voice import EXIT_BROKEN, EXIT_RELEASED
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import AgentGate, ClientGate, SeatState, SeatView, clients
from wattshift_kernels.at_once import AtOnce
from wattshift_kernels.hasher import SearchResult, Work
from wattshift_kernels.header import hash_value, sha256d, target_of_difficulty, with_nonce

HEADER = bytes(range(76))
EASY = target_of_difficulty(1e-3)


class Rig:
    """A gate, its worker, and what the worker said."""

    process: Any = None  # the worker, once started

    def __init__(self, folder: Path) -> None:
        clients.create_clients_file(folder / "cpu0.clients")
        self.folder = folder
        self.gate = AgentGate(folder / "cpu0.gate")
        self.said: list[dict[str, Any]] = []

    def start(
        self, *device: str, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "wattshift_cluster.agent.worker", "--nice=0"),
            *(device or ("--device=cpu",)),
            f"--gate={self.folder / 'cpu0.gate'}",
            f"--seat={self.folder / 'cpu0.worker'}",
        ]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def hear(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event:
                return self.said[-1]
        pytest.fail(f"the worker ended without {event}; it said {self.said}")

    def give(self, target: int = EASY, number: int = 1) -> None:
        assert self.process.stdin is not None
        message = {"op": "work", "id": number, "message": HEADER.hex(), "target": f"{target:064x}"}
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
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.gate.close()


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Rig]:
    """Its test starts the worker."""
    made = Rig(tmp_path)
    yield made
    made.end()


@pytest.fixture
def rig(cold: Rig) -> Rig:
    cold.process = cold.start()
    return cold


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
    rig.process.stdin.write(b'{"op": "work", "id": 1, "message": "00", "target": "0"}\n')
    rig.process.stdin.flush()
    assert rig.process.wait(timeout=5) == 0


def test_without_work_nothing_is_hashed(rig: Rig) -> None:
    rig.hear("ready")
    rig.lease(20.0)
    time.sleep(0.2)
    assert rig.seat().launches == 0


def test_an_emulated_gpu_is_hashed_for_on_the_cpu_and_keeps_its_share_of_time(cold: Rig) -> None:
    cold.process = cold.start("--device=gpu", "--emulated")
    ready = cold.hear("ready")
    assert ready["backend"] in ("native", "numba", "reference"), "what hashes is said as it is"
    assert (ready["depth"], ready["memory_bytes"]) == (1, 0), "nothing is queued on a CPU"
    cold.give(target=1)
    cold.lease(20.0, duty_pct=20)
    assert eventually(lambda: cold.seat().launches > 20)
    first, began_ns = cold.seat(), boot_ns()
    time.sleep(1.0)
    last, ended_ns = cold.seat(), boot_ns()
    share = (last.launching_ns - first.launching_ns) / (ended_ns - began_ns)
    # Never more; less where others keep this host's CPUs busy and sleeps become long.
    assert 0.08 < share < 0.23


def test_only_a_gpu_is_emulated() -> None:
    with pytest.raises(SystemExit):
        worker.main(["--device=cpu", "--emulated", "--gate=/x.gate", "--seat=/x.worker"])


def test_it_gives_way_to_all_others_unless_told(cold: Rig) -> None:
    cold.process = cold.start("--device=cpu", "--nice=19")
    cold.hear("ready")
    assert os.getpriority(os.PRIO_PROCESS, cold.process.pid) == 19
    assert worker._options(["--device=cpu", "--gate=g", "--seat=s"]).nice == 19


def test_a_real_gpus_worker_never_hashes_on_the_cpu(cold: Rig) -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    cold.process = cold.start("--device=gpu", environment=hidden)
    assert "cuda" in cold.hear("refused")["reason"]
    assert cold.process.wait(timeout=20) == EXIT_BROKEN


def starting_server(rig: Rig) -> ClientGate:
    server = ClientGate(rig.folder)
    server.want_memory(True)
    return server


def taken(rig: Rig) -> bool:
    view = SeatView(rig.folder / "cpu0.worker")
    try:
        return view.taken
    finally:
        view.close()


def test_a_starting_server_gets_the_memory_and_the_seat_is_free_only_when_the_worker_is_gone(
    rig: Rig,
) -> None:
    rig.hear("ready")
    rig.give(target=1)
    rig.lease(20.0)
    assert eventually(lambda: rig.seat().launches > 10)
    assert taken(rig)
    server = starting_server(rig)
    rig.hear("released")
    assert taken(rig) or rig.process.poll() is not None
    assert rig.process.wait(timeout=5) == EXIT_RELEASED
    assert not taken(rig)
    state = rig.seat()
    assert state.pid == rig.process.pid, "it left its seat by dying, not before"
    assert state.hashes > 0
    server.close()


def test_memory_wanted_at_the_start_is_refused_before_any_driver_is_touched(cold: Rig) -> None:
    server = starting_server(cold)
    probe = (
        "import sys; from wattshift_cluster.agent import worker; "
        "code = worker.main(sys.argv[1:]); "
        "print([name for name in ('cupy', 'numba') if name in sys.modules], file=sys.stderr); "
        "sys.exit(code)"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", probe, "--device=gpu"),
            f"--gate={cold.folder / 'cpu0.gate'}",
            f"--seat={cold.folder / 'cpu0.worker'}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    server.close()
    assert json.loads(done.stdout)["reason"] == "memory is wanted by a starting server"
    assert (done.returncode, done.stderr.strip()) == (EXIT_RELEASED, "[]")


def test_a_gpus_memory_is_free_before_that_is_said(cold: Rig) -> None:
    """In the order in which a server relies on it: launches end, memory goes, then the word."""
    order: list[str] = []

    class Holding(AtOnce):
        def search(self, work: Work, nonce_start: int, count: int) -> SearchResult:
            raise AssertionError

        def close(self) -> None:
            order.append("closed")

    class Listening(worker.Voice):
        def say(self, event: str, **fields: Any) -> None:
            order.append(event)
            if event == "released":
                raise SystemExit  # instead of the end of this process

    with pytest.raises(SystemExit):
        worker._release(Holding(), Listening(io.BytesIO()))
    assert order == ["closed", "released"]
