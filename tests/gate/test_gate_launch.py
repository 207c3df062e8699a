"""`wattshift busy`: the hand-over of devices to a server that starts, with real processes."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.config.quantities import parse_seconds
from wattshift_cluster.gate import SeatView, WorkerSeat
from wattshift_cluster.gate.handover import held

WORKER = """
import os, sys, time
from pathlib import Path
from wattshift_cluster.gate import WorkerGate, WorkerSeat
folder, manner = Path(sys.argv[1]), sys.argv[2]
seat, gate = WorkerSeat(folder / "gpu0.worker"), WorkerGate(folder / "gpu0.gate")
print("seated", flush=True)
while manner == "stubborn" or not gate.memory_wanted():
    time.sleep(0.005)
if manner == "lingering":
    seat._file.close()                 # the lock goes first, as when the kernel ends a process
    print("lock is free", flush=True)
    sys.stdin.readline()
os._exit(76)
"""

CHILD = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("usr1", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("child", os.getpid(), flush=True)
for line in sys.stdin:
    if line == "ready\\n":
        from wattshift_cluster.gate import ready
        ready()
    if line == "plugin\\n":
        from wattshift_cluster.gate.hooks import vllm
        vllm.register()
    if line == "exit\\n":
        sys.exit(5)
    print("done", flush=True)
"""


class Launched:
    """`python -m wattshift_cluster.gate.launch` around the child above."""

    def __init__(self, gates: Any, *options: str, command: tuple[str, ...] = ()) -> None:
        child = command or (sys.executable, "-c", CHILD)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wattshift_cluster.gate.launch", *options, "--", *child],
            env={**os.environ, "WATTSHIFT_GATE_DIR": str(gates.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()

    def child(self) -> int:
        """The child's process id, once it runs."""
        return int(self.line().removeprefix("child "))

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        self.process.wait(20)  # before its input ends, which would end the child another way
        _, text = self.process.communicate(timeout=20)
        return self.process.returncode, text


@pytest.fixture
def launch(gates: Any) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def begin(*options: str, command: tuple[str, ...] = ()) -> Launched:
        started.append(Launched(gates, *options, command=command))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.communicate()


def claims(gates: Any) -> tuple[set[str], set[str]]:
    return gates.busy(), gates.memory_wanted()


def test_a_server_starts_when_mining_is_gone_and_stays_claimed_until_it_is_ready(
    gates: Any, launch: Callable[..., Launched], script: Any, eventually: Callable[..., bool]
) -> None:
    worker = script(WORKER, str(gates.folder), "lingering")
    assert worker.line() == "seated"
    launched = launch()
    assert worker.line() == "lock is free"
    assert claims(gates) == ({"gpu0"}, {"gpu0"})
    assert held(gates.folder, "gpu0") is not None
    assert not SeatView(gates.folder / "gpu0.worker").taken
    worker.process.communicate("end\n")
    assert worker.process.returncode == 76
    launched.child()
    assert held(gates.folder, "gpu0") is None
    assert claims(gates) == ({"gpu0"}, {"gpu0"}), "frozen while it loads"
    launched.tell("plugin")
    assert gates.in_flight() == 1, "a plugin within leaves the marking to the launcher"
    launched.tell("ready")
    assert eventually(lambda: claims(gates) == (set(), set()))
    launched.tell("plugin")
    assert gates.in_flight() == 0
    assert launched.tell("exit") == ""
    assert launched.end()[0] == 5


def test_a_device_that_is_not_given_back_is_named_and_nothing_starts(
    gates: Any, launch: Callable[..., Launched], script: Any
) -> None:
    worker = script(WORKER, str(gates.folder), "stubborn")
    assert worker.line() == "seated"
    code, text = launch("--release-timeout=0.3").end()
    assert code == 75
    assert f"gpu0: worker {worker.process.pid} has not ended" in text
    assert claims(gates) == (set(), set())
    without = launch("--no-memory", "--release-timeout=0.3")
    without.child()
    assert claims(gates) == ({"gpu0"}, set()), "busy alone needs no release"


def test_memory_is_held_as_long_as_the_server_lives_if_asked(
    gates: Any, launch: Callable[..., Launched], eventually: Callable[..., bool]
) -> None:
    launched = launch("--hold-memory")
    launched.child()
    launched.tell("ready")
    assert eventually(lambda: gates.busy() == set())
    assert gates.memory_wanted() == {"gpu0"}
    launched.tell("exit")
    assert launched.end()[0] == 5
    assert gates.memory_wanted() == set()


class Health(http.server.BaseHTTPRequestHandler):
    """Not there, then hanging, then well."""

    answers: list[int]

    def do_GET(self) -> None:
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_ready_url_ends_the_claim_with_its_first_2xx(
    gates: Any, launch: Callable[..., Launched], eventually: Callable[..., bool]
) -> None:
    Health.answers = [503]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    launched = launch(f"--ready=http://127.0.0.1:{server.server_port}/health")
    launched.child()
    launched.tell("ready")
    time.sleep(0.6)
    assert claims(gates) == ({"gpu0"}, {"gpu0"}), "503, and the URL alone decides"
    Health.answers = [200]
    assert eventually(lambda: claims(gates) == (set(), set()))
    assert launched.process.poll() is None
    server.shutdown()
    server.server_close()


def test_a_server_that_does_not_get_ready_loses_its_claim_but_runs_on(
    gates: Any, launch: Callable[..., Launched], eventually: Callable[..., bool]
) -> None:
    launched = launch("--ready=http://127.0.0.1:1/health", "--ready-timeout=0.5")
    launched.child()
    assert eventually(lambda: claims(gates) == (set(), set()))
    launched.tell("exit")
    code, text = launched.end()
    assert code == 5
    assert "not ready within 0.5 s" in text


def test_signals_are_passed_on_and_exit_codes_come_back(
    gates: Any, launch: Callable[..., Launched]
) -> None:
    launched = launch()
    launched.child()
    launched.process.send_signal(signal.SIGUSR1)
    assert launched.line() == "usr1"
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end()[0] == 7
    killed = launch()
    os.kill(killed.child(), signal.SIGKILL)
    assert killed.end()[0] == 128 + signal.SIGKILL
    code, text = launch(command=("no-such-command-here",)).end()
    assert code == 127
    assert "no-such-command-here" in text
    assert launch("--ready=ftp://host/").end()[0] == 3


def test_a_signal_while_it_waits_ends_it(
    gates: Any, launch: Callable[..., Launched], script: Any, eventually: Callable[..., bool]
) -> None:
    assert script(WORKER, str(gates.folder), "stubborn").line() == "seated"
    launched = launch()
    assert eventually(lambda: gates.memory_wanted() == {"gpu0"})
    launched.process.terminate()
    assert launched.end()[0] == 128 + signal.SIGTERM


def test_a_killed_launcher_frees_and_ends_its_child(
    gates: Any, launch: Callable[..., Launched], eventually: Callable[..., bool]
) -> None:
    launched = launch()
    child = launched.child()
    os.kill(launched.process.pid, signal.SIGKILL)
    launched.process.wait()
    assert claims(gates) == (set(), set())
    assert eventually(lambda: not Path(f"/proc/{child}").exists())


def test_without_gates_the_server_just_starts(tmp_path: Path) -> None:
    environ = {**os.environ}
    environ.pop("WATTSHIFT_GATE_DIR", None)
    command = [sys.executable, "-m", "wattshift_cluster.gate.launch", "echo", "served"]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert run.stdout == "served\n"
    assert "WATTSHIFT_GATE_DIR is not set" in run.stderr


def test_the_click_command_starts_the_same(gates: Any) -> None:
    start = "import sys; from wattshift_cluster.cli.busy import busy; busy(sys.argv[1:])"
    options = ["--gate-dir", str(gates.folder), "--ready-timeout", "30m", "--devices", "all"]
    command = [sys.executable, "-c", start, *options, "--", "sh", "-c", "exit 9", "--x"]
    assert subprocess.run(command, check=False).returncode == 9
    assert parse_seconds("30m") == 1800.0


def test_a_seat_tells_when_nothing_of_its_worker_is_left(gates: Any) -> None:
    path = gates.folder / "gpu0.worker"
    assert held(gates.folder, "gpu0") is None, "never seated"
    seat = WorkerSeat(path)
    assert held(gates.folder, "gpu0") == f"worker {os.getpid()} has not ended"
    seat._words[1] += 1
    assert held(gates.folder, "gpu0") == "a worker of another version sits there"
    seat._words[1] -= 1
    seat._words[10] += 1  # a later process that was given the same number
    assert held(gates.folder, "gpu0") is not None, "the lock still tells"
    seat._file.close()
    assert held(gates.folder, "gpu0") is None
