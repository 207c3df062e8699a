"""What a client says at a gate, and what of it outlives a kill, a fork or an exit too many."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import ClientGate, ClientState, GateInvalid, WorkerGate, clients
from wattshift_cluster.gate.layout import MappedWords

CLUSTER = Path(__file__).parents[2] / "cluster"

MARKER = """
import os, sys
from wattshift_cluster.gate import ClientGate
gate = ClientGate(sys.argv[1], kind=sys.argv[2])
span = gate.busy()
print(os.getpid(), flush=True)
for line in sys.stdin:
    {"enter": span.__enter__, "leave": span.__exit__,
     "want": lambda: gate.want_memory(True), "spare": lambda: gate.want_memory(False),
    }[line.strip()]()
    print("done", flush=True)
"""


def test_memory_is_wanted_as_long_as_a_client_that_wants_it_lives(
    gates: Any, script: Callable[..., Any]
) -> None:
    worker = WorkerGate(gates.folder / "gpu0.gate")
    first, second = (script(MARKER, str(gates.folder), "client") for _ in range(2))
    assert first.line()
    assert second.line()
    assert not worker.memory_wanted()
    first.tell("want")
    second.tell("want")
    assert worker.memory_wanted()
    first.tell("spare")
    assert worker.memory_wanted(), "the second still wants it"
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait()
    assert not worker.memory_wanted(), "a wish dies with its process"
    worker.close()


def test_memory_is_also_wanted_of_a_gate_that_appears_later(
    gates: Any, eventually: Callable[..., bool]
) -> None:
    server = ClientGate(gates.folder)
    server.want_memory(True)
    gates.add("gpu1")
    assert eventually(lambda: gates.memory_wanted() == {"gpu0", "gpu1"})
    server.close()
    assert gates.memory_wanted() == set()


def test_a_report_tells_who_marks(gates: Any, script: Callable[..., Any]) -> None:
    observer = script(MARKER, str(gates.folder), "observer")
    pid = int(observer.line())
    mine = ClientGate(gates.folder)
    observer.tell("enter")
    observer.tell("enter")
    mine.want_memory(True)
    assert gates.view().clients() == (
        ClientState(pid, 2, busy=True, memory_wanted=False, kind="observer"),
        ClientState(os.getpid(), 0, busy=False, memory_wanted=True, kind="client"),
    )
    mine.close()


def test_a_file_of_another_layout_is_not_joined_but_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "gpu0.clients"
    clients.create_clients_file(path)
    file = MappedWords.open(path, clients.WORDS, writable=True)
    file.words[1] -= 1
    replica = ClientGate(tmp_path)
    assert replica.gates == ()
    assert "version" in replica.troubles["gpu0"]
    with pytest.raises(GateInvalid):
        clients.ClientsView(path)
    clients.create_clients_file(path)
    replica.rescan()
    assert replica.gates == ("gpu0",)
    assert replica.troubles == {}
    replica.close()
    file.close()


def test_one_exit_too_many_ends_no_other_request(gates: Any) -> None:
    replica = ClientGate(gates.folder)
    with replica.busy():
        span = replica.busy()
        with span, span:
            assert gates.in_flight() == 3
        span.__exit__()
        assert gates.in_flight() == 1
    assert gates.in_flight() == 0
    replica.close()


def test_many_threads_lose_no_mark(gates: Any) -> None:
    replica = ClientGate(gates.folder)

    def serve() -> None:
        for _ in range(500):
            with replica.busy():
                pass

    with replica.busy():
        threads = [threading.Thread(target=serve) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gates.in_flight() == 1
    assert gates.in_flight() == 0
    replica.close()


def test_a_generator_that_is_collected_within_a_change_ends_its_span(gates: Any) -> None:
    """The collector runs wherever it likes, also where a span is just being marked."""
    replica = ClientGate(gates.folder)

    @replica.busy()
    def tokens() -> Any:
        yield 1

    class Circle:
        def __init__(self) -> None:
            self.me, self.stream = self, tokens()
            next(self.stream)

    Circle()
    assert gates.in_flight() == 1
    done = threading.Event()

    def collect_while_marking() -> None:
        with replica._lock:
            gc.collect()
        done.set()

    threading.Thread(target=collect_while_marking, daemon=True).start()
    assert done.wait(10), "the collected span waits for its own thread's lock"
    assert gates.in_flight() == 0
    replica.close()


FORKER = """
import os, sys, time
from wattshift_cluster.gate import ClientGate
gate = ClientGate(sys.argv[1])
inherited = gate.busy(); inherited.__enter__()
child = os.fork()
if child == 0:
    own = gate.busy()
    with own:
        inherited.__exit__()
        print("child", os.getpid(), flush=True)
        sys.stdin.readline()
    print("left", flush=True)
    time.sleep(20)
    os._exit(0)
print("parent", os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_forked_child_marks_for_itself_and_ends_nothing_of_its_parent(
    gates: Any, script: Callable[..., Any]
) -> None:
    parent = script(FORKER, str(gates.folder))
    pids = {name: int(pid) for name, pid in (parent.line().split() for _ in range(2))}
    view = clients.ClientsView(gates.folder / "gpu0.clients")
    assert {(one.pid, one.in_flight) for one in view.clients()} == {
        (pids["parent"], 1),
        (pids["child"], 1),
    }
    assert parent.tell("go on") == "left"
    assert {(one.pid, one.in_flight) for one in view.clients()} == {
        (pids["parent"], 1),
        (pids["child"], 0),
    }
    os.kill(pids["parent"], signal.SIGKILL)
    parent.process.wait()
    assert [one.pid for one in view.clients()] == [pids["child"]]
    os.kill(pids["child"], signal.SIGKILL)
    view.close()


DAWDLER = """
import os, sys, threading, time
from wattshift_cluster.gate import ClientGate, client_gate, clients
gate = ClientGate(sys.argv[1])
taken = threading.Event()
class Dawdling(clients.Slot):
    def __init__(self, path, kind):
        super().__init__(path, kind)
        taken.set()
        time.sleep(0.2)
client_gate.Slot = Dawdling
clients.create_clients_file(sys.argv[1] + "/late.clients")
threading.Thread(target=gate.rescan).start()
taken.wait()
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def test_a_fork_while_a_gate_is_joined_keeps_no_slot(
    gates: Any, script: Callable[..., Any], eventually: Callable[..., bool]
) -> None:
    """A slot that another thread has taken but not booked would live on in the child."""
    parent = script(DAWDLER, str(gates.folder))
    child = int(parent.line())
    view = clients.ClientsView(gates.folder / "late.clients")
    assert view.attached() == (parent.process.pid,)
    parent.kill()
    assert eventually(lambda: not any(view._held(slot) for slot in range(clients.SLOTS)), 5.0)
    view.close()
    os.kill(child, signal.SIGKILL)


def test_the_client_needs_nothing_but_the_standard_library(gates: Any) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(CLUSTER)!r})
from wattshift_cluster.gate import ClientGate
import wattshift_cluster.gate.launch, wattshift_cluster.gate.hooks.asgi
import wattshift_cluster.gate.hooks.serve, wattshift_cluster.gate.hooks.vllm
with ClientGate({str(gates.folder)!r}).busy():
    print("busy", flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-I", "-S", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "busy\n"
        assert gates.busy() == {"gpu0"}
        process.stdin.close()
    assert gates.busy() == set()


def test_a_gate_directory_that_cannot_be_read_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    replica = ClientGate(loop / "gates")
    with replica.busy():
        assert replica.gates == ()
    assert "is not marked" in caplog.text
    replica.close()


def test_the_hold_off_counts_from_the_last_request(gates: Any) -> None:
    replica = ClientGate(gates.folder)
    view = clients.ClientsView(gates.folder / "gpu0.clients")
    with replica.busy():
        time.sleep(0.001)
    left_ns = boot_ns()
    assert view.busy(left_ns)
    assert not view.busy(left_ns + clients.HOLD_OFF_NS)
    view.close()
    replica.close()


def test_beside_whoever_is_only_observed_nothing_is_launched(gates: Any) -> None:
    gates.agent().write(
        epoch=1,
        leased_w=1.0,
        expires_boot_ns=boot_ns() + int(60e9),
        intensity_idle_pct=70,
        intensity_busy_pct=40,
    )
    worker = WorkerGate(gates.folder / "gpu0.gate")
    served = ClientGate(gates.folder)
    observed = ClientGate(gates.folder / "gpu0.clients", kind="observer", watch=False)
    assert worker.duty_pct(boot_ns()) == 70
    with served.busy():
        assert worker.duty_pct(boot_ns()) == 40, "its owner asked for that"
        with observed.busy():
            assert worker.duty_pct(boot_ns()) == 0, "nobody asked the observed one"
    gates.agent().write(
        epoch=1,
        leased_w=1.0,
        expires_boot_ns=boot_ns() + int(60e9),
        intensity_idle_pct=50,
        intensity_busy_pct=50,
    )
    with observed.busy():
        assert worker.duty_pct(boot_ns()) == 0, "also where both intensities are the same"
    for one in (served, observed, worker):
        one.close()
