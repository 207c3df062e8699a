"""The wrapper as a real process around a real (stand-in) program: gate, pauses, ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattshift_cluster.agent.external.commands import orders_for
from wattshift_cluster.agent.external.miners import MINERS
from wattshift_cluster.agent.external.prison import JAIL
from wattshift_cluster.agent.voice import EXIT_RELEASED
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.config.agent import Miner
from wattshift_cluster.gate import AgentGate, ClientGate, SeatView
from wattshift_cluster.gate.clients import create_clients_file

pytestmark = pytest.mark.timeout(60)

PATIENCE_S = 15.0
STILL_S = 0.15
"""A program that counts every 2 ms and has not for so long does not run."""


class Held:
    """A program behind a gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "program"
        source = Path(__file__).with_name("foreign_program.py").read_text()
        self.program.write_text(f"#!{sys.executable}\n{source}")
        self.program.chmod(0o755)
        self.gate = AgentGate(folder / "gpu0.gate")
        create_clients_file(folder / "gpu0.clients")
        self.wrapper: subprocess.Popen[bytes] | None = None

    def start(self, program: str = "t-rex", keep_s: float = 30.0, **habits: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (self.folder / "habits.json").write_text(json.dumps(habits))
        miner = Miner(
            device="gpu0",
            program=program,
            path=self.program,
            algorithm="etchash",
            url="stratum+tcp://127.0.0.1:1",
            user="wallet.rig",
            api_port=port,
            keep=f"{keep_s}s",
            quiet="0s",
        )
        orders_for(miner, "GPU-1", self.folder).write(self.folder / "orders")
        command = [sys.executable, "-m", "wattshift_cluster.agent.external.wrapper"]
        flags = [f"--{name}={self.folder / file}" for name, file in self.files]
        self.wrapper = subprocess.Popen(
            [*command, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    files = (("gate", "gpu0.gate"), ("seat", "gpu0.worker"), ("orders", "orders"))

    def open(self, for_s: float = 60.0) -> None:
        self.gate.write(
            epoch=1,
            leased_w=300.0,
            expires_boot_ns=boot_ns() + int(for_s * 1e9),
            intensity_idle_pct=100,
            intensity_busy_pct=0,
        )

    def count(self, name: str = "count") -> int:
        file = self.folder / name
        return int(file.read_bytes() or b"0") if file.exists() else 0

    def counts(self, name: str = "count") -> bool:
        """Whether it goes on counting."""
        before = self.count(name)
        time.sleep(STILL_S)
        return self.count(name) > before

    def until(self, counting: bool, name: str = "count") -> None:
        end = time.monotonic() + PATIENCE_S
        while self.counts(name) is not counting:
            assert time.monotonic() < end, f"{name}: counting should be {counting}"

    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def phase(self, wanted: str) -> None:
        """Follow what the wrapper says until this phase."""
        assert self.wrapper is not None
        assert self.wrapper.stdout is not None
        for line in self.wrapper.stdout:
            if json.loads(line).get("phase") == wanted:
                return
        raise AssertionError(f"the wrapper ended before it was {wanted}")

    def doubt(self) -> None:
        assert self.wrapper is not None
        assert self.wrapper.stdin is not None
        self.wrapper.stdin.write(b'{"op": "doubt", "why": "180 W"}\n')
        self.wrapper.stdin.flush()

    def ended(self) -> int:
        assert self.wrapper is not None
        return self.wrapper.wait(PATIENCE_S)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    one = Held(tmp_path)
    yield one
    if one.wrapper is not None:
        one.wrapper.kill()
        one.wrapper.wait()
    one.gate.close()


def test_it_runs_while_the_gate_is_open_and_is_paused_and_resumed_over_http(held: Held) -> None:
    held.start()
    assert not held.counts()
    held.open()
    held.until(counting=True)
    held.gate.close_gate()
    held.until(counting=False)
    assert "/control?pause=true" in held.asked()
    held.open()
    held.until(counting=True)
    assert "/control?pause=false" in held.asked()
    words = json.loads((held.folder / "argv").read_text())
    assert words[words.index("-u") + 1] == "wallet.rig"
    assert words[words.index("-o") + 1] == "stratum+tcp://127.0.0.1:1"
    assert len(words) == len(MINERS["t-rex"].arguments)


def test_an_expired_lease_stops_it_with_no_message(held: Held) -> None:
    held.start("lolminer")
    held.open()
    held.until(counting=True)
    held.open(for_s=0.2)
    held.until(counting=False)


def test_a_busy_client_stops_its_threads_at_once_and_asks_nobody(held: Held) -> None:
    held.start()
    held.open()
    held.until(counting=True)
    client = ClientGate(held.folder / "gpu0.clients")
    with client.busy():
        held.until(counting=False)
        assert not [line for line in held.asked() if "pause" in line]
    held.until(counting=True)
    client.close()


def test_a_pause_that_watts_belie_is_followed_by_a_stop(held: Held) -> None:
    held.start(lies=True)
    held.open()
    held.until(counting=True)
    held.gate.close_gate()
    held.phase("paused")
    assert held.counts(), "the stand-in does not lie"
    held.doubt()
    held.phase("stopped")
    held.until(counting=False)


def test_a_program_that_does_not_answer_is_stopped(held: Held) -> None:
    held.start("xmrig", silent=True)
    held.open()
    held.until(counting=True)
    held.gate.close_gate()
    held.until(counting=False)
    assert "/json_rpc pause" in held.asked()


def test_after_a_while_it_gives_the_memory_back_and_starts_anew(held: Held) -> None:
    held.start(keep_s=0.3)
    held.open()
    held.until(counting=True)
    held.gate.close_gate()
    held.phase("off")
    assert not held.counts()


def test_memory_that_is_wanted_ends_even_one_that_ignores_sigterm(held: Held) -> None:
    held.start(stays=True, forks=True)
    held.open()
    held.until(counting=True)
    held.until(counting=True, name="child.count")
    client = ClientGate(held.folder / "gpu0.clients")
    client.want_memory(True)
    assert held.ended() == EXIT_RELEASED
    assert not held.counts()
    assert not held.counts("child.count")
    assert SeatView(held.folder / "gpu0.worker").gone
    client.close()


def contained() -> bool:
    """Whether this kernel gives us a process space of our own."""
    told = subprocess.run([*JAIL, "/bin/true"], capture_output=True, check=True).stdout
    return bool(json.loads(told)["contained"])


@pytest.mark.parametrize("end", ["kill -9", "end of input", "SIGTERM"])
def test_nothing_of_it_outlives_the_wrapper(held: Held, end: str) -> None:
    if end == "kill -9" and not contained():
        pytest.skip("no process space of our own here: a hidden child would outlive that")
    held.start(forks=True)
    held.open()
    held.until(counting=True, name="child.count")
    assert held.wrapper is not None
    assert held.wrapper.stdin is not None
    match end:
        case "kill -9":
            os.kill(held.wrapper.pid, signal.SIGKILL)
        case "SIGTERM":
            held.wrapper.terminate()
        case _:
            held.wrapper.stdin.close()
    held.ended()
    held.until(counting=False)
    held.until(counting=False, name="child.count")


NO_SPACE = """
import sys, time
from pathlib import Path
from wattshift_cluster.agent.external import prison
fallback = "from wattshift_cluster.agent.external import jail; jail._own_space = bool; jail.main()"
prison.JAIL = (sys.executable, "-c", fallback, "--")
held = prison.Prison([sys.argv[1]], {})
held.start()
end = time.monotonic() + 15
while not Path(sys.argv[1]).with_name("child.count").exists() and time.monotonic() < end:
    assert held.alive
    time.sleep(0.01)
assert held.contained is False
print(held.kill(10))
"""


def test_where_the_kernel_gives_no_space_what_is_orphaned_is_found(held: Held) -> None:
    (held.folder / "habits.json").write_text('{"stays": true, "forks": true}')
    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, str(held.program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr
    assert not held.counts("child.count")
