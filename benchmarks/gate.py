"""How fast a real worker obeys its gate: to a client, to the clock, and to a client's sudden death.

Worker, client and this process are three processes, as on a site. The worker books the end of each
launch in shared memory, and its heartbeat after it, on the boot clock that all of them share:

    yield           from just before a client marks itself busy to the end of the last launch
    expiry stop     from the end of the lease to the end of the last launch
    crash release   from the kill -9 of a busy client to the end of the first launch after it

The worker runs at full intensity, so each event finds it in the middle of a launch. It runs as nice
as it is deployed: on a host whose CPUs others keep busy it stands still in the middle of a launch
and ends it late, which costs the others nothing but shows here. `others_cpu_share` says how busy
the host was with anything else.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cannot import CannotRunHere

from wattshift_cluster.agent.gpu import find_gpus
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import AgentGate, ClientGate, SeatView
from wattshift_cluster.gate.clients import create_clients_file

YIELDS = 300
EXPIRIES = 200
CRASHES = 100
DEVICE = "bench"
WORK = {"op": "work", "id": 1, "header76": bytes(range(76)).hex(), "target": f"{1:064x}"}
WAIT_S = 10.0
LOOK_S = 0.0003


class Bench:
    """A gate with its worker."""

    def __init__(self, folder: Path, kind: str, environment: dict[str, str]) -> None:
        create_clients_file(folder / f"{DEVICE}.clients")
        self.folder = folder
        self.gate = AgentGate(folder / f"{DEVICE}.gate")
        seat = folder / f"{DEVICE}.worker"
        command = [sys.executable, "-m", "wattshift_cluster.agent.worker", f"--device={kind}"]
        self.worker = subprocess.Popen(
            [*command, f"--gate={self.gate.path}", f"--seat={seat}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        said = json.loads(self.worker.stdout.readline() or "{}")
        if said.get("event") != "ready":
            self.end()
            raise CannotRunHere(f"no worker: {said.get('reason', 'it ended')}")
        self.backend = str(said["backend"])
        self.worker.stdin.write(json.dumps(WORK).encode() + b"\n")
        self.worker.stdin.flush()
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

    def end(self) -> None:
        """End the worker."""
        self.worker.kill()
        self.worker.communicate()
        self.gate.close()


class Replica:
    """An inference process: a child that goes in and out of a request when told."""

    def __init__(self, folder: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours_in)
            os.close(ours_out)
            _serve(ClientGate(folder), theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out

    def toggle(self) -> int:
        """Enter a request, or leave it; the boot clock just before, ns."""
        os.write(self._out, b"x")
        return int.from_bytes(os.read(self._in, 8), "little")

    def kill(self) -> int:
        """Kill -9; the boot clock just before, ns."""
        now_ns = boot_ns()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._in)
        os.close(self._out)
        return now_ns


def run() -> dict[str, object]:
    """Measure; the keys are those of INTERFACES."""
    with bench() as rig:
        before = _cpu_s(rig)
        yields = sorted(_yields(rig))
        expiries = sorted(_expiries(rig))
        crashes = sorted(_crashes(rig))
        state = rig.seat.read()
        return {
            "backend": rig.backend,
            "yield_ms_p50": _rank(yields, 0.50),
            "yield_ms_p99": _rank(yields, 0.99),
            "expiry_stop_ms_p99": _rank(expiries, 0.99),
            "crash_release_ms_p99": _rank(crashes, 0.99),
            "launch_ms_mean": round(state.launching_ns / state.launches / 1e6, 3),
            "samples": {"yield": YIELDS, "expiry": EXPIRIES, "crash": CRASHES},
            "others_cpu_share": _others_share(before, _cpu_s(rig)),
            "quality": "measured",
        }


@contextmanager
def bench() -> Iterator[Bench]:
    """The gate lies in memory where there is a tmpfs. Raises: CannotRunHere."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else None
    gpus = find_gpus()
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpus[0].uuid if gpus else ""}
    with tempfile.TemporaryDirectory(prefix="wattshift-bench-", dir=base) as folder:
        rig = Bench(Path(folder), "gpu" if gpus else "cpu", environment)
        try:
            yield rig
        finally:
            rig.end()


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until it holds. Raises: RuntimeError when the worker does not react at all."""
    until_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > until_s:
            raise RuntimeError(f"the worker did not react within {WAIT_S:g} s")
        time.sleep(LOOK_S)


def _yields(rig: Bench) -> Iterator[float]:
    replica = Replica(rig.folder)
    rig.lease(200.0)
    try:
        for _ in range(YIELDS):
            rig.launching()
            entered_ns = replica.toggle()
            yield _ms(rig.last_end_after(entered_ns) - entered_ns)
            time.sleep(0.005)
            replica.toggle()
    finally:
        replica.kill()


def _expiries(rig: Bench) -> Iterator[float]:
    for _ in range(EXPIRIES):
        rig.lease(200.0)
        rig.launching()
        expires_ns = rig.lease(0.02)
        yield _ms(rig.last_end_after(expires_ns) - expires_ns)


def _crashes(rig: Bench) -> Iterator[float]:
    rig.lease(200.0)
    for _ in range(CRASHES):
        replica = Replica(rig.folder)
        entered_ns = replica.toggle()
        rig.last_end_after(entered_ns)
        before = rig.seat.read().launches
        killed_ns = replica.kill()
        wait_for(lambda before=before: rig.seat.read().launches > before)  # type: ignore[misc]
        yield _ms(rig.seat.read().last_launch_end_ns - killed_ns)


def _serve(gate: ClientGate, source: int, answers: int) -> None:
    """The child's life: one byte in, one time out, for ever."""
    while True:
        if not os.read(source, 1):
            os._exit(0)
        entered_ns = boot_ns()
        with gate.busy():
            os.write(answers, entered_ns.to_bytes(8, "little"))
            os.read(source, 1)
        os.write(answers, boot_ns().to_bytes(8, "little"))


def _cpu_s(rig: Bench) -> tuple[float, float, float]:
    """Processor seconds: of all CPUs, busy ones among them, and the worker's and ours."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    total_s, idle_s = sum(fields) * tick_s, (fields[3] + fields[4]) * tick_s
    ours = os.times()
    worker_s = rig.seat.read().cpu_ns / 1e9
    return total_s, total_s - idle_s, ours.user + ours.system + worker_s


def _others_share(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Share of this host's processor time that went to neither the worker nor this process."""
    total_s, busy_s, ours_s = (b - a for a, b in zip(before, after, strict=True))
    return round(max(0.0, busy_s - ours_s) / total_s, 3)


def _ms(span_ns: int) -> float:
    """Milliseconds; a worker that was between two launches stopped in no time."""
    return max(0, span_ns) / 1e6


def _rank(ordered: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
