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

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rig import Bench, HostCpu, bench, ranked, wait_for

from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import ClientGate

YIELDS = 300
EXPIRIES = 200
CRASHES = 100


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
        before = HostCpu.now([rig.worker.pid])
        yields = sorted(_yields(rig))
        expiries = sorted(_expiries(rig))
        crashes = sorted(_crashes(rig))
        state = rig.seat.read()
        return {
            "backend": rig.backend,
            "yield_ms_p50": ranked(yields, 0.50),
            "yield_ms_p99": ranked(yields, 0.99),
            "expiry_stop_ms_p99": ranked(expiries, 0.99),
            "crash_release_ms_p99": ranked(crashes, 0.99),
            "launch_ms_mean": round(state.launching_ns / state.launches / 1e6, 3),
            "samples": {"yield": YIELDS, "expiry": EXPIRIES, "crash": CRASHES},
            "others_cpu_share": before.others_share(HostCpu.now([rig.worker.pid])),
            "quality": "measured",
        }


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


def _ms(span_ns: int) -> float:
    """Milliseconds; a worker that was between two launches stopped in no time."""
    return max(0, span_ns) / 1e6
