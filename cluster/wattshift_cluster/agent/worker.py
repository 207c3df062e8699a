"""The process that hashes: one per device, behind the gate, and nothing but a hasher.

It is given work on its standard input and tells what it found on its standard output, one JSON
object per line. It launches 0.5 to 1 ms at a time and asks the gate before each launch, and every
100 us or so while a GPU has launches of its own; when the gate closes they are stopped. End of
input, SIGTERM or its parent's death end it; and a closed gate stops it whatever else happens.

When a server that starts wants the device's memory, the worker frees it all and exits with
EXIT_RELEASED. Until then it holds its seat's lock, which the kernel frees with the process: whoever
finds the seat free knows that nothing of the worker is left on the device.

    in   {"op": "work", "id": n, "algorithm": name, "message": hex, "target": hex, "height": n,
          "clean": bool, "nonces": [first, how many], "roll_mask": hex, version bits to roll}
         {"op": "idle"}
         {"op": "empty"}: free the table; the next launch begins it anew
    out  {"event": "ready", "hasher": …, "backend": …, "algorithm": name, "refused": {…},
          "depth": launches in flight, "memory_bytes": of the device, "table_bytes": of these}
         {"event": "refused", "reason": …}   {"event": "released"}
         {"event": "hit", "id": n, "nonce": n, "roll": version bits}
         {"event": "spent", "id": n}
         {"event": "table", "progress": 0 to 1, "memory_bytes": of the device, "table_bytes": of
          these, "build_s": of the device's time that it took, once built, "freed_ms": once freed}
"""

import argparse
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from wattshift_cluster.agent.launches import POLL_S, Landed, Launches
from wattshift_cluster.agent.pace import Pace
from wattshift_cluster.agent.tray import Tray
from wattshift_cluster.agent.voice import EXIT_BROKEN, EXIT_RELEASED, EXIT_TAKEN, Voice
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import GateInvalid, SeatTaken, WorkerGate, WorkerSeat
from wattshift_cluster.process import die_with_parent, give_way
from wattshift_kernels.algorithms import ALGORITHMS, by_name
from wattshift_kernels.hasher import Hasher, HasherFailed
from wattshift_kernels.registry import Chosen, NoHasher, choose
from wattshift_kernels.verify import KernelWrong, verified

BACKENDS = {"gpu": ("cuda",), "cpu": ("cpu", "native", "numba", "reference")}
"""A GPU's worker never falls back to the CPU: its watts would be booked to the wrong device."""


TABLE_STEP = 0.05
"""A table's progress is told in steps of it."""


class Worker:
    """The loop: gate, launches, hits, rest."""

    def __init__(
        self,
        gate: WorkerGate,
        seat: WorkerSeat,
        hasher: Hasher,
        tray: Tray,
        voice: Voice,
        *,
        on_cpu: bool,
    ) -> None:
        """Take over all parts; nothing is hashed before `run`.

        Args:
            on_cpu: the device is the CPU, whose time is what draws the power.
        """
        self._on_cpu = on_cpu
        self._gate = gate
        self._seat = seat
        self._launches = Launches(hasher)
        self._tray = tray
        self._voice = voice
        # On a slow machine the first launches must not be long ones.
        self._pace = Pace(hasher.launch_hashes // 8)
        self._hasher = hasher
        self._progress, self._table_bytes, self._built_ns = 1.0, 0, 0
        self._cpu_base_ns = time.process_time_ns()  # starting up is no hashing
        self._cpu_launched_ns = self._cpu_base_ns

    def run(self) -> bool:
        """Hash when allowed until the tray is closing or the device's memory is wanted.

        Returns:
            Whether its memory is wanted. Nothing is under way any more in either case.

        Raises:
            OSError: the agent is gone.
            HasherFailed, KernelWrong: the device or its kernel cannot be relied on.
        """
        while True:
            ended = self._launches.landed()
            now_ns = boot_ns()
            closing, wanted = self._tray.closing, self._gate.memory_wanted()
            emptying = self._tray.emptying.is_set()
            shut = closing or wanted or emptying
            duty_pct = 0 if shut else self._gate.duty_pct(now_ns)
            if duty_pct == 0 and self._launches.aloft:
                ended += self._launches.recall()
                now_ns = boot_ns()
            for one in ended:
                self._book(one)
            # Says: at this time nothing was under way that had not seen the gate as it was then.
            self._seat.beat(now_ns, time.process_time_ns() - self._cpu_base_ns)
            if emptying:
                self._empty()
            pause_s = self._go_on(now_ns, duty_pct)
            # Told behind the next launch: an agent that does not listen must not come in between
            # the look at the gate and what it allowed.
            self._tell(ended)
            self._tell_of_table()
            if closing or wanted:
                return wanted
            if pause_s > 0 and duty_pct == 0:
                self._tray.emptying.wait(pause_s)
            elif pause_s > 0:
                time.sleep(pause_s)

    def _go_on(self, now_ns: int, duty_pct: int) -> float:
        """Launch if there is something to launch and it is due; seconds to sleep then."""
        assignment = self._tray.current() if duty_pct else None
        if assignment is None:
            closed_s = self._pace.closed_s(now_ns, leased=self._gate.leased)
            return POLL_S if self._launches.aloft else closed_s
        rest_s = self._pace.rest_s(now_ns)
        if rest_s > 0 or not self._launches.room:
            return min(rest_s or POLL_S, POLL_S) if self._launches.aloft else rest_s
        ways = assignment.work.ways
        nonces = assignment.take(self._pace.nonces(ways))
        charge = self._pace.begun(now_ns, nonces[1] * ways, duty_pct)
        try:
            self._launches.begin(assignment, nonces, charge, now_ns)
        except ValueError as fault:  # a pool's work of which no job can be made: nothing was begun
            self._pace.ended(charge, now_ns, 0, 0)
            self._tray.drop(assignment)
            print(f"worker: work {assignment.id}: {fault}", file=sys.stderr, flush=True)
        return 0.0

    def _book(self, one: Landed) -> None:
        hashes = one.found.hashes
        if not hashes:
            self._built_ns += one.took_ns
        self._seat.launched(one.ended_ns, one.took_ns, hashes)
        cpu_ns = time.process_time_ns()
        used_ns = cpu_ns - self._cpu_launched_ns if self._on_cpu else 0
        self._cpu_launched_ns = cpu_ns
        self._pace.ended(one.charge, one.ended_ns, one.took_ns, hashes, used_ns=used_ns)
        one.assignment.landed(one.found.left)

    def _tell(self, ended: list[Landed]) -> None:
        """Every hit of a work before the word that it is spent."""
        for one in ended:
            for hit in one.found.hits:
                if verified(one.assignment.work, hit):
                    number = one.assignment.id
                    self._voice.say("hit", id=number, nonce=hit.nonce, roll=hit.roll)
        for one in ended:
            if one.assignment.spent and self._tray.drop(one.assignment):
                self._voice.say("spent", id=one.assignment.id)

    def _tell_of_table(self) -> None:
        progress, table_bytes = self._hasher.progress, self._hasher.table_bytes
        step = abs(progress - self._progress)
        begun = progress < self._progress or table_bytes != self._table_bytes
        if not (step >= TABLE_STEP or begun or (step and progress == 1.0)):
            return
        self._progress, self._table_bytes = progress, table_bytes
        more = {"build_s": round(self._built_ns / 1e9, 3)} if progress == 1.0 else {}
        if progress == 1.0 or begun:
            self._built_ns = 0
        self._say_table(progress, **more)

    def _empty(self) -> None:
        """Free the table: nothing is under way, and nothing is begun until the next look."""
        began_ns = boot_ns()
        self._tray.emptying.clear()
        self._hasher.free_table()
        self._progress, self._table_bytes, self._built_ns = 1.0, 0, 0
        self._say_table(0.0, freed_ms=round((boot_ns() - began_ns) / 1e6, 3))

    def _say_table(self, progress: float, **more: float) -> None:
        hasher = self._hasher
        self._voice.say(
            "table",
            progress=round(progress, 3),
            memory_bytes=hasher.memory_bytes,
            table_bytes=hasher.table_bytes,
            **more,
        )


def main(argv: list[str] | None = None) -> int:
    """Take the device's seat, then hash behind its gate until told to end.

    The seat's lock is let go by the end of the process alone, however it ends.
    """
    options = _options(argv)
    die_with_parent()
    tray, voice = Tray(options.algorithm), Voice(sys.stdout.buffer)
    signal.signal(signal.SIGTERM, lambda *_: setattr(tray, "closing", True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    give_way(options.nice)
    try:
        seat = WorkerSeat(options.seat)
        gate = WorkerGate(options.gate)
        if gate.memory_wanted():
            voice.say("refused", reason="memory is wanted by a starting server")
            return EXIT_RELEASED
        chosen = _choose(options)
        chosen.hasher.free_table()  # a self-test's is of no use for work
    except SeatTaken as taken:
        voice.say("refused", reason=str(taken))
        return EXIT_TAKEN
    except (NoHasher, HasherFailed, GateInvalid) as fault:
        voice.say("refused", reason=str(fault))
        return EXIT_BROKEN
    hasher = chosen.hasher
    voice.say(
        "ready",
        hasher=hasher.name,
        backend=hasher.backend,
        algorithm=hasher.algorithm,
        refused={one.backend: one.refused for one in chosen.report if one.refused},
        depth=hasher.depth,
        memory_bytes=hasher.memory_bytes,
        table_bytes=hasher.table_bytes,
    )
    # Unbuffered: a thread that waits within a buffered reader spoils the interpreter's end.
    source = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    threading.Thread(target=tray.listen, args=(source,), daemon=True).start()
    worker = Worker(gate, seat, hasher, tray, voice, on_cpu=options.device == "cpu")
    try:
        wanted = worker.run()
    except (KernelWrong, HasherFailed) as fault:
        voice.say("refused", reason=str(fault))
        return EXIT_BROKEN
    except BrokenPipeError:
        hasher.stop()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush to
        return 0
    if wanted:
        _release(hasher, voice)
    return 0


def _choose(options: argparse.Namespace) -> Chosen:
    backends = BACKENDS["cpu" if options.emulated else options.device]
    makers = by_name(options.algorithm).makers
    return choose(makers=[maker for maker in makers if maker[0] in backends])


def _release(hasher: Hasher, voice: Voice) -> NoReturn:
    """Free the device's memory and end this process."""
    with suppress(OSError):  # an agent that is gone needs no telling
        try:
            hasher.close()
            voice.say("released")
        except HasherFailed as fault:
            voice.say("refused", reason=str(fault))
    # At once: nothing that runs at an interpreter's end may touch a context that is gone.
    os._exit(EXIT_RELEASED)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wattshift_cluster.agent.worker", description=__doc__)
    parser.add_argument("--device", choices=sorted(BACKENDS), required=True)
    parser.add_argument("--gate", type=Path, required=True, help="the device's .gate file")
    parser.add_argument("--seat", type=Path, required=True, help="the device's .worker file")
    parser.add_argument("--algorithm", choices=tuple(ALGORITHMS), default="sha256d")
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument(
        "--emulated", action="store_true", help="the GPU is emulated: hash for it on the CPU"
    )
    options = parser.parse_args(argv)
    if options.emulated and options.device != "gpu":
        parser.error("only a GPU is emulated")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
