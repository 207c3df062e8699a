"""The process that hashes: one per device, behind the gate, and nothing but a hasher.

It is given work on its standard input and tells what it found on its standard output, one JSON
object per line. It launches 0.5 to 1 ms at a time and asks the gate before each launch. End of
input, SIGTERM or its parent's death end it; and a closed gate stops it whatever else happens.

    in   {"op": "work", "id": n, "header76": hex, "target": hex, "clean": bool}   {"op": "idle"}
    out  {"event": "ready", "hasher": …, "backend": …, "refused": {…}}   {"event": "refused", …}
         {"event": "hit", "id": n, "nonce": n}   {"event": "spent", "id": n}
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from wattshift_cluster.agent.pace import Pace
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import GateInvalid, SeatTaken, WorkerGate, WorkerSeat
from wattshift_cluster.process import die_with_parent
from wattshift_kernels.hasher import Hasher, Work
from wattshift_kernels.registry import MAKERS, NoHasher, choose
from wattshift_kernels.verify import KernelWrong, verified

EXIT_BROKEN = 3
EXIT_TAKEN = 75
LINE_LIMIT_BYTES = 4096
MOST_WAITING = 8
NONCES = 1 << 32
BACKENDS = {"gpu": ("cuda",), "cpu": ("numba", "reference")}
"""A GPU's worker never falls back to the CPU: its watts would be booked to the wrong device."""


@dataclass(slots=True)
class Assignment:
    """Work under its number, and the next nonce to try."""

    id: int
    work: Work
    nonce: int = 0


class Tray:
    """What the agent wants hashed; filled by the thread that reads standard input."""

    def __init__(self) -> None:
        """Empty."""
        self.closing = False
        self._lock = threading.Lock()
        self._waiting: deque[Assignment] = deque()

    def current(self) -> Assignment | None:
        """The assignment to hash for now."""
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def spent(self, assignment: Assignment) -> None:
        """All nonces of an assignment were tried."""
        with self._lock:
            if self._waiting and self._waiting[0] is assignment:
                self._waiting.popleft()

    def take(self, message: dict[str, Any]) -> None:
        """Follow one message of the agent. Raises: ValueError, KeyError, TypeError."""
        assignment = None
        if message["op"] == "work":
            work = Work(bytes.fromhex(message["header76"]), int(message["target"], 16))
            assignment = Assignment(int(message["id"]), work)
        with self._lock:
            if assignment is None or message.get("clean"):
                self._waiting.clear()
            if assignment is not None and len(self._waiting) < MOST_WAITING:
                self._waiting.append(assignment)

    def listen(self, source: RawIOBase) -> None:
        """Read messages until the input ends; anything but a message ends the worker, too."""
        try:
            while line := source.readline(LINE_LIMIT_BYTES):
                self.take(json.loads(line))
        except (ValueError, KeyError, TypeError) as fault:
            print(f"worker: not a message: {fault!r}", file=sys.stderr, flush=True)
        self.closing = True


class Voice:
    """Standard output as lines of JSON."""

    def __init__(self, out: BinaryIO) -> None:
        """Write to `out`."""
        self._out = out

    def say(self, event: str, **fields: Any) -> None:
        """Tell the agent. Raises: OSError when it is gone."""
        self._out.write(json.dumps({"event": event, **fields}).encode() + b"\n")
        self._out.flush()


class Worker:
    """The loop: gate, launch, hits, rest."""

    def __init__(
        self, gate: WorkerGate, seat: WorkerSeat, hasher: Hasher, tray: Tray, voice: Voice
    ) -> None:
        """Take over all parts; nothing is hashed before `run`."""
        self._on_cpu = hasher.backend in BACKENDS["cpu"]
        self._gate = gate
        self._seat = seat
        self._hasher = hasher
        self._tray = tray
        self._voice = voice
        # On a slow machine the first launches must not be long ones.
        self._pace = Pace(hasher.launch_hashes // 8)
        self._cpu_base_ns = time.process_time_ns()  # starting up is no hashing
        self._cpu_launched_ns = self._cpu_base_ns

    def run(self) -> None:
        """Hash when allowed until the tray is closing. Raises: OSError when the agent is gone."""
        while not self._tray.closing:
            now_ns = boot_ns()
            self._seat.beat(now_ns, time.process_time_ns() - self._cpu_base_ns)
            duty_pct = self._gate.duty_pct(now_ns)
            assignment = self._tray.current()
            if duty_pct == 0 or assignment is None:
                time.sleep(self._pace.closed_s(now_ns, leased=self._gate.leased))
            elif (rest_s := self._pace.rest_s(now_ns)) > 0:
                time.sleep(rest_s)
            else:
                self._launch(assignment, duty_pct)

    def _launch(self, assignment: Assignment, duty_pct: int) -> None:
        count = min(self._pace.count, NONCES - assignment.nonce)
        began_ns = boot_ns()
        result = self._hasher.search(assignment.work, assignment.nonce, count)
        ended_ns = boot_ns()
        self._seat.launched(ended_ns, ended_ns - began_ns, result.hashes)
        cpu_ns = time.process_time_ns()
        used_ns = cpu_ns - self._cpu_launched_ns if self._on_cpu else 0
        self._cpu_launched_ns = cpu_ns
        self._pace.launched(ended_ns, ended_ns - began_ns, count, duty_pct, used_ns=used_ns)
        assignment.nonce += count
        for hit in result.hits:
            if verified(assignment.work, hit):
                self._voice.say("hit", id=assignment.id, nonce=hit.nonce)
        if assignment.nonce >= NONCES:
            self._tray.spent(assignment)
            self._voice.say("spent", id=assignment.id)


def main(argv: list[str] | None = None) -> int:
    """Take the device's seat, then hash behind its gate until told to end."""
    options = _options(argv)
    die_with_parent()
    tray, voice = Tray(), Voice(sys.stdout.buffer)
    signal.signal(signal.SIGTERM, lambda *_: setattr(tray, "closing", True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    os.setpriority(os.PRIO_PROCESS, 0, max(options.nice, os.getpriority(os.PRIO_PROCESS, 0)))
    try:
        seat = WorkerSeat(options.seat)
    except SeatTaken as taken:
        voice.say("refused", reason=str(taken))
        return EXIT_TAKEN
    try:
        makers = [maker for maker in MAKERS if maker[0] in BACKENDS[options.device]]
        chosen = choose(makers=makers)
        gate = WorkerGate(options.gate)
    except (NoHasher, GateInvalid) as fault:
        voice.say("refused", reason=str(fault))
        return EXIT_BROKEN
    refused = {one.backend: one.refused for one in chosen.report if one.refused}
    voice.say("ready", hasher=chosen.hasher.name, backend=chosen.hasher.backend, refused=refused)
    # Unbuffered: a thread that waits within a buffered reader spoils the interpreter's end.
    source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    threading.Thread(target=tray.listen, args=(source,), daemon=True).start()
    try:
        Worker(gate, seat, chosen.hasher, tray, voice).run()
    except KernelWrong as fault:
        voice.say("refused", reason=str(fault))
        return EXIT_BROKEN
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush to
    finally:
        seat.leave()
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wattshift_cluster.agent.worker", description=__doc__)
    parser.add_argument("--device", choices=sorted(BACKENDS), required=True)
    parser.add_argument("--gate", type=Path, required=True, help="the device's .gate file")
    parser.add_argument("--seat", type=Path, required=True, help="the device's .worker file")
    parser.add_argument("--nice", type=int, default=19)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
