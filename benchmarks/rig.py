"""A real worker behind a real gate, fed with work, and what the host was busy with meanwhile.

Shared by the benchmarks; it measures nothing itself. The bench takes the agent's part: it writes
the gate, and answers each spent assignment with another, because a GPU tries all nonces of one in
less than a second.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.agent.gpu import Card, Library, find_cards
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import AgentGate, SeatView
from wattshift_cluster.gate.clients import create_clients_file

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "bench"
WAIT_S = 10.0
LOOK_S = 0.0003
AHEAD = 4
"""Assignments a worker holds at once."""

STILL_NS = 20_000_000
"""A worker that saw the closed gate this long ago has nothing queued on the device any more."""

TARGET = f"{1:064x}"
"""Nothing is ever found: finding is not what is measured here."""


class Bench:
    """A gate with its worker.

    Attributes:
        folder: where the gate's files lie; inference joins it there.
        backend: what the worker hashes with.
        seat: the worker's counters.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        environment: Mapping[str, str],
        *,
        core: int | None = None,
    ) -> None:
        """Start the worker and wait until it is ready; no lease yet.

        Args:
            folder: an empty folder, in memory if there is one.
            kind: "gpu" or "cpu".
            environment: the whole environment of the worker.
            core: the only CPU it may run on; None for any.

        Raises:
            CannotRunHere: it refuses.
        """
        create_clients_file(folder / f"{DEVICE}.clients")
        self._feeder: threading.Thread | None = None
        self._given = 0
        self.folder = folder
        self.gate = AgentGate(folder / f"{DEVICE}.gate")
        seat = folder / f"{DEVICE}.worker"
        command = [sys.executable, "-m", "wattshift_cluster.agent.worker", f"--device={kind}"]
        with on_core(core):
            self.worker = subprocess.Popen(
                [*command, f"--gate={self.gate.path}", f"--seat={seat}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=dict(environment),
            )
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        said = json.loads(self.worker.stdout.readline() or "{}")
        if said.get("event") != "ready":
            self.end()
            raise CannotRunHere(f"no worker: {said.get('reason', 'it ended')}")
        self.backend = str(said["backend"])
        for _ in range(AHEAD):
            self._give()
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()
        self.seat = SeatView(seat)

    def lease(self, for_s: float) -> int:
        """Open the gate fully and return when it closes, boot clock, ns."""
        expires_ns = boot_ns() + int(for_s * 1e9)
        self.gate.write(epoch=1, leased_w=1.0, expires_boot_ns=expires_ns, intensity_idle_pct=100)
        return expires_ns

    def launching(self) -> None:
        """Wait until the worker launches again."""
        before = self.seat.read().launches
        wait_for(lambda: self.seat.read().launches > before + 3)

    def last_end_after(self, event_ns: int) -> int:
        """End of the last launch that began before the gate was closed at `event_ns`.

        The heartbeat moves when a launch has ended and before the gate is asked again. Once it lies
        behind the event, no launch is under way that had not seen it.
        """
        wait_for(lambda: self.seat.read().heartbeat_ns > event_ns)
        return self.seat.read().last_launch_end_ns

    def absent(self) -> None:
        """Close the gate and freeze the worker: as if there were no miner. `back` undoes it."""
        self.gate.close_gate()
        closed_ns = boot_ns()
        wait_for(lambda: self.seat.read().heartbeat_ns > closed_ns + STILL_NS)
        self.worker.send_signal(signal.SIGSTOP)

    def back(self) -> None:
        """Let the worker run again, behind the closed gate."""
        self.worker.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the worker."""
        self.worker.kill()
        self.worker.wait()
        if self._feeder is not None:
            self._feeder.join(WAIT_S)
        for pipe in (self.worker.stdin, self.worker.stdout):
            if pipe is not None:
                with suppress(OSError):  # what it never read
                    pipe.close()
        self.gate.close()

    def _feed(self) -> None:
        assert self.worker.stdout is not None
        with suppress(OSError, ValueError):  # the worker was ended
            for line in self.worker.stdout:
                event = json.loads(line)
                if event["event"] == "spent":
                    self._give()
                elif event["event"] == "refused":
                    print(f"worker: {event.get('reason')}", file=sys.stderr)

    def _give(self) -> None:
        assert self.worker.stdin is not None
        self._given += 1
        header = self._given.to_bytes(4, "little") + bytes(range(4, 76))
        work = {"op": "work", "id": self._given, "message": header.hex(), "target": TARGET}
        self.worker.stdin.write(json.dumps(work).encode() + b"\n")
        self.worker.stdin.flush()


@contextmanager
def bench(*, core: int | None = None) -> Iterator[Bench]:
    """The first GPU's worker, or the CPU's where there is none. Raises: CannotRunHere."""
    with memory_folder() as folder:
        rig = Bench(folder, "gpu" if gpus() else "cpu", seeing(gpus()[:1]), core=core)
        try:
            yield rig
        finally:
            rig.end()


@contextmanager
def memory_folder() -> Iterator[Path]:
    """An empty folder in memory where there is a tmpfs, as gates have it on a site."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="wattshift-bench-", dir=base) as folder:
        yield Path(folder)


def seeing(cards: Iterable[Card], **more: str) -> dict[str, str]:
    """This environment for a child that sees these GPUs and no other."""
    visible = ",".join(card.uuid for card in cards)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": visible, **more}


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Children started meanwhile run on this CPU alone; None changes nothing."""
    allowed = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until it holds. Raises: RuntimeError when the worker does not react at all."""
    until_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > until_s:
            raise RuntimeError(f"the worker did not react within {WAIT_S:g} s")
        time.sleep(LOOK_S)


@dataclass(frozen=True, slots=True)
class HostCpu:
    """Processor seconds since boot: of all CPUs, of the busy ones, and of the bench itself, s."""

    total_s: float
    busy_s: float
    ours_s: float

    @classmethod
    def now(cls, pids: Iterable[int]) -> "HostCpu":
        """Count the processes named, and this one, as the bench's own."""
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        total_s, idle_s = sum(fields) * tick_s, (fields[3] + fields[4]) * tick_s
        ours = os.times()
        children_s = sum(_process_cpu_s(pid, tick_s) for pid in pids)
        return cls(total_s, total_s - idle_s, ours.user + ours.system + children_s)

    def others_share(self, after: "HostCpu") -> float:
        """Share of this host's processor time until `after` that went to anything else."""
        total_s = after.total_s - self.total_s
        others_s = (after.busy_s - self.busy_s) - (after.ours_s - self.ours_s)
        return round(max(0.0, others_s) / total_s, 3)


def _process_cpu_s(pid: int, tick_s: float) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * tick_s


def ranked(ordered: list[float], share: float) -> float:
    """The value of an ascending list that this share of all does not exceed."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


@cache
def gpus() -> tuple[Card, ...]:
    """The GPUs of this host."""
    library = Library()
    try:
        return find_cards(library)
    finally:
        library.close()


def device_facts(kind: str | None = None) -> dict[str, Any]:
    """What was measured on: the first GPU with its driver, or the CPU."""
    if kind == "emulated":
        return {"device": "emulated NVIDIA H200", "driver": None}
    if kind != "cpu" and gpus():
        return {"device": gpus()[0].name, "driver": gpus()[0].driver}
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"device": names[0] if names else os.uname().machine, "driver": None}
