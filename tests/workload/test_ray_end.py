"""The end of a Ray of our own, with stand-ins that behave worse than Ray does; no Ray runs here."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wattshift_cluster.workload import bridge
from wattshift_cluster.workload.cluster import local_ray
from wattshift_cluster.workload.cluster.local_ray import LocalRay, LocalSettings, temp_dir
from wattshift_cluster.workload.cluster.ray_host import ADDRESS_FILE, LOCK_FILE
from wattshift_cluster.workload.cluster.session import end_all, living

WITH_WORKER = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# As Ray's workers: in a process group of its own, and deaf to SIGTERM.
worker = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(15, 1); print(1, flush=True); "
     "time.sleep(60)"], process_group=0, stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
"""
DEAF = f"ray_host = 1\n{WITH_WORKER}\ntime.sleep(60)"
HOST_ENDS = f"""{WITH_WORKER}
from pathlib import Path
from wattshift_cluster.workload.cluster.ray_host import _end
_end(Path(sys.argv[1]), Path(sys.argv[2]))
"""

Start = Callable[..., tuple["subprocess.Popen[bytes]", int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process as the leader of a session; with it, its worker's process id."""
    begun: list[subprocess.Popen[bytes]] = []

    def begin(code: str, *arguments: Path) -> tuple["subprocess.Popen[bytes]", int]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        begun.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield begin
    for process in begun:
        end_all(process.pid, 5.0)
        process.wait(5)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A bridge's state folder, and the folder of its Ray, with something in it."""
    folder = tmp_path / "state"
    folder.mkdir()
    (temp_dir(folder) / "session_1").mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(temp_dir(folder))], check=True)


def test_all_of_a_session_ends_but_who_is_spared(start: Start) -> None:
    process, worker = start(DEAF)
    assert set(living(process.pid)) == {process.pid, worker}
    assert end_all(process.pid, 5.0, spare=process.pid) == []
    assert living(process.pid) == [process.pid]
    assert end_all(process.pid, 5.0) == []
    assert living(process.pid) == []
    assert process.wait(5) == -signal.SIGKILL


def test_a_host_that_does_not_end_is_killed_with_all_that_is_its_own(
    start: Start, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_ray, "END_S", 0.2)
    process, _ = start(DEAF)
    row = {"address": "127.0.0.1:1", "pid": process.pid}
    (state / ADDRESS_FILE).write_text(json.dumps(row))
    local = LocalRay(LocalSettings(state, 300.0, 1), {})
    assert local.running_pid() == process.pid
    folder = temp_dir(state)
    local.end()
    assert living(process.pid) == []
    assert not folder.exists()
    assert not (state / ADDRESS_FILE).exists()


def test_what_a_host_left_is_removed_when_it_has_died_by_itself(state: Path) -> None:
    folder = temp_dir(state)
    LocalRay(LocalSettings(state, 300.0, 1), {}).end()
    assert not folder.exists()


@pytest.mark.parametrize("bridge_lives", [True, False])
def test_a_host_ends_its_session_and_removes_the_folder_where_nobody_else_will(
    start: Start, state: Path, bridge_lives: bool
) -> None:
    folder = temp_dir(state)
    (state / ADDRESS_FILE).write_text("{}")
    lock = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if bridge_lives:
        fcntl.flock(lock, fcntl.LOCK_EX)
    process, _ = start(HOST_ENDS, state, folder)
    assert process.wait(30) == 0
    os.close(lock)
    assert living(process.pid) == []
    assert not (state / ADDRESS_FILE).exists()
    assert folder.exists() is bridge_lives


def test_a_host_refuses_to_end_a_session_that_is_not_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wattshift_cluster.workload.cluster.ray_host"]
    command += ["--state-dir", str(tmp_path), "--temp-dir", str(tmp_path), "--num-cpus", "1"]
    command += ["--power-w", "1", "--object-store-bytes", "1"]
    found = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=False)
    assert found.returncode == 3
    assert b"session of its own" in found.stdout


def test_the_parts_of_an_end_take_five_seconds_at_most() -> None:
    assert bridge.LEAVE_OWN_S + local_ray.END_S + local_ray.KILLED_S <= 5.0
