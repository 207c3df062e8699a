"""The gate's files: what a worker may do, whoever dies. Clients are real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.errors import Refused
from wattshift_cluster.gate import (
    HOLD_OFF_NS,
    AgentGate,
    ClientGate,
    ClientsView,
    GateInvalid,
    GateState,
    WorkerGate,
    clients,
    read_gate,
)
from wattshift_cluster.gate.layout import MappedWords

CLIENT = """
import sys, threading
from wattshift_cluster.gate import ClientGate
gate = ClientGate(sys.argv[1])
for line in sys.stdin:
    match line.strip():
        case "enter":
            span = gate.busy(); span.__enter__()
        case "leave":
            span.__exit__(None, None, None)
    print("done", flush=True)
"""


class Client:
    """An inference process under remote control."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.tell("attach")

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def client(path: Path) -> Iterator[Client]:
    started = Client(path)
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[AgentGate]:
    clients.create_clients_file(tmp_path / "gpu0.clients")
    opened = AgentGate(tmp_path / "gpu0.gate")
    yield opened
    opened.close()


def lease(gate: AgentGate, *, for_s: float = 60.0, stop: bool = False, busy_pct: int = 0) -> None:
    gate.write(
        epoch=3,
        leased_w=512.5,
        expires_boot_ns=boot_ns() + int(for_s * 1e9),
        intensity_idle_pct=80,
        intensity_busy_pct=busy_pct,
        stop=stop,
    )


def eventually(condition: Callable[[], bool], within_s: float = 3.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_a_lease_opens_the_gate_until_it_expires(gate: AgentGate) -> None:
    worker = WorkerGate(gate.path)
    assert worker.duty_pct(boot_ns()) == 0, "a new gate is closed"
    lease(gate, for_s=5.0)
    now_ns = boot_ns()
    assert worker.duty_pct(now_ns) == 80
    assert worker.duty_pct(now_ns + 6_000_000_000) == 0
    lease(gate, stop=True)
    assert worker.duty_pct(boot_ns()) == 0
    state = read_gate(gate.path)
    assert (state.epoch, state.leased_w, state.stop) == (3, 512.5, True)


@given(
    expires_ns=st.integers(0, 2**63),
    now_ns=st.integers(0, 2**63),
    idle_pct=st.integers(0, 2**64 - 1),
    busy_pct=st.integers(0, 2**64 - 1),
    stop=st.booleans(),
    busy=st.booleans(),
)
def test_no_state_opens_a_stopped_or_expired_gate(
    expires_ns: int, now_ns: int, idle_pct: int, busy_pct: int, stop: bool, busy: bool
) -> None:
    state = GateState(1, 100.0, expires_ns, idle_pct, busy_pct, stop)
    duty_pct = state.duty_pct(now_ns, busy=busy)
    assert 0 <= duty_pct <= 100
    if stop or now_ns >= expires_ns:
        assert duty_pct == 0


@pytest.mark.parametrize("word", [0, 1, 2])
def test_another_kind_version_or_boot_does_not_launch(gate: AgentGate, word: int) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    assert worker.duty_pct(boot_ns()) == 80
    file = MappedWords.open(gate.path, 16, writable=True)
    file.words[word] ^= 1
    assert worker.duty_pct(boot_ns()) == 0
    assert worker.reason is not None
    file.words[word] ^= 1
    assert worker.duty_pct(boot_ns()) == 80
    file.close()


def test_a_writer_that_died_while_writing_leaves_a_closed_gate(gate: AgentGate) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    file = MappedWords.open(gate.path, 16, writable=True)
    file.words[3] += 1
    assert worker.duty_pct(boot_ns()) == 0
    file.close()
    gate.close()
    after = AgentGate(gate.path)
    lease(after)
    assert worker.duty_pct(boot_ns()) == 80
    after.close()


def test_a_short_or_missing_file_is_refused(gate: AgentGate, tmp_path: Path) -> None:
    with pytest.raises(GateInvalid):
        WorkerGate(tmp_path / "absent.gate")
    (tmp_path / "short.gate").write_bytes(b"WSHGATE\0")
    with pytest.raises(GateInvalid, match="shorter"):
        WorkerGate(tmp_path / "short.gate")
    (tmp_path / "gpu0.clients").unlink()
    with pytest.raises(GateInvalid, match="clients"):
        WorkerGate(gate.path)


def test_a_gate_has_one_writer(gate: AgentGate) -> None:
    with pytest.raises(Refused, match="another agent"):
        AgentGate(gate.path)


def test_a_busy_client_closes_the_gate_and_a_quiet_one_opens_it(gate: AgentGate) -> None:
    lease(gate, busy_pct=5)
    worker = WorkerGate(gate.path)
    with client(gate.path.parent) as replica:
        assert worker.duty_pct(boot_ns()) == 80
        replica.tell("enter")
        assert worker.duty_pct(boot_ns()) == 5
        left_ns = boot_ns()
        replica.tell("leave")
        assert worker.duty_pct(left_ns + HOLD_OFF_NS // 2) == 5, "the hold-off"
        assert eventually(lambda: worker.duty_pct(boot_ns()) == 80)
        assert boot_ns() - left_ns >= HOLD_OFF_NS


def test_kill_minus_9_frees_the_slot_of_a_busy_client(gate: AgentGate) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    view = ClientsView(gate.path.with_suffix(".clients"))
    with client(gate.path.parent) as replica, client(gate.path.parent) as other:
        replica.tell("enter")
        assert worker.duty_pct(boot_ns()) == 0
        assert view.attached() == (replica.process.pid, other.process.pid)
        os.kill(replica.process.pid, signal.SIGKILL)
        replica.process.wait()
        assert worker.duty_pct(boot_ns()) == 80
        assert view.attached() == (other.process.pid,)
        other.tell("enter")
        assert worker.duty_pct(boot_ns()) == 0
        with client(gate.path.parent) as third:
            assert view.attached() == (third.process.pid, other.process.pid), "the slot is reused"


def test_closing_another_descriptor_keeps_the_slot(gate: AgentGate) -> None:
    """Classic POSIX locks would be lost here; open file description locks are not."""
    lease(gate)
    worker = WorkerGate(gate.path)
    replica = ClientGate(gate.path.parent)
    with replica.busy():
        gate.path.with_suffix(".clients").read_bytes()
        assert worker.duty_pct(boot_ns()) == 0
    replica.close()


def test_requests_nest_and_overlap(gate: AgentGate) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    replica = ClientGate(gate.path.with_suffix(".clients"))
    first, second = replica.busy(), replica.busy()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    time.sleep(2 * HOLD_OFF_NS / 1e9)
    assert worker.duty_pct(boot_ns()) == 0, "one request is still in flight"
    second.__exit__(None, None, None)
    assert eventually(lambda: worker.duty_pct(boot_ns()) == 80)
    replica.close()


def test_a_gate_that_appears_in_the_middle_of_a_request_is_joined(tmp_path: Path) -> None:
    replica = ClientGate(tmp_path)
    with replica.busy():
        clients.create_clients_file(tmp_path / "late.clients")
        view = ClientsView(tmp_path / "late.clients")
        assert eventually(lambda: view.busy(boot_ns()))
        assert replica.gates == ("late",)
    replica.close()
    assert not view.busy(boot_ns())


def test_a_restarted_agent_keeps_its_clients(gate: AgentGate) -> None:
    path = gate.path.with_suffix(".clients")
    with client(gate.path.parent) as replica:
        replica.tell("enter")
        clients.create_clients_file(path)
        assert ClientsView(path).busy(boot_ns())


def test_when_all_slots_are_held_the_worker_stays_away(gate: AgentGate) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    path = gate.path.with_suffix(".clients")
    replicas = [ClientGate(path) for _ in range(clients.SLOTS)]
    assert worker.duty_pct(boot_ns()) == 0
    assert ClientGate(path).gates == ()
    replicas[7].close()
    assert worker.duty_pct(boot_ns()) == 80
    for replica in replicas:
        replica.close()


def test_a_forked_child_does_not_keep_its_parents_claim(gate: AgentGate) -> None:
    lease(gate)
    worker = WorkerGate(gate.path)
    script = """
import os, sys, time
from wattshift_cluster.gate import ClientGate
gate = ClientGate(sys.argv[1])
span = gate.busy(); span.__enter__()
child = os.fork()
if child == 0:
    time.sleep(30)
print(child, flush=True)
time.sleep(30)
"""
    command = [sys.executable, "-c", script, str(gate.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert worker.duty_pct(boot_ns()) == 0
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert eventually(lambda: worker.duty_pct(boot_ns()) == 80)
        os.kill(child, signal.SIGKILL)
