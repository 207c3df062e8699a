"""A directory of gates, eyes to see who is busy there, and processes under remote control."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wattshift_cluster.gate import AgentGate, ClientsView, clients


class Gates:
    """A directory of gates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._views: dict[str, ClientsView] = {}
        self._agents: dict[str, AgentGate] = {}

    def add(self, name: str, uuid: str | None = None, index: int | None = None) -> ClientsView:
        """One more device, as its agent makes it."""
        clients.create_clients_file(self.folder / f"{name}.clients")
        agent = self._agents[name] = AgentGate(self.folder / f"{name}.gate")
        agent.identify(uuid, index)
        view = self._views[name] = ClientsView(self.folder / f"{name}.clients")
        return view

    def in_flight(self, name: str = "gpu0") -> int:
        """Requests in flight at one gate, of all living clients; no hold-off blurs it."""
        return sum(client.in_flight for client in self._views[name].clients())

    def busy(self) -> set[str]:
        """Devices with requests in flight."""
        return {name for name in self._views if self.in_flight(name)}

    def memory_wanted(self) -> set[str]:
        """Devices whose memory is wanted."""
        return {name for name, view in self._views.items() if view.memory_wanted()}

    def view(self, name: str = "gpu0") -> ClientsView:
        """Who is attached there."""
        return self._views[name]

    def agent(self, name: str = "gpu0") -> AgentGate:
        """The agent's end."""
        return self._agents[name]

    def close(self) -> None:
        for one in (*self._views.values(), *self._agents.values()):
            one.close()


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    """A directory with one gate, gpu0, of which nobody knows which GPU it is."""
    made = Gates(tmp_path)
    made.add("gpu0")
    yield made
    made.close()


@pytest.fixture
def eventually() -> Callable[..., bool]:
    """Whether a condition comes true before a generous deadline."""

    def wait(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            if condition():
                return True
            time.sleep(0.005)
        return False

    return wait


class Script:
    """A Python process that obeys one line at a time."""

    def __init__(self, source: str | Path, *arguments: str, env: dict[str, str] | None) -> None:
        what = [str(source)] if isinstance(source, Path) else ["-c", source]
        self.process = subprocess.Popen(
            [sys.executable, *what, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()  # not for the end of its output: a forked child may keep that
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Starts scripts, and kills those that are left at the end."""
    started: list[Script] = []

    def start(source: str | Path, *arguments: str, env: dict[str, str] | None = None) -> Script:
        started.append(Script(source, *arguments, env=env))
        return started[-1]

    yield start
    for one in started:
        one.kill()
