"""The process that holds a foreign mining program behind a device's gate.

    python -m wattshift_cluster.agent.external.wrapper --gate F --seat F --orders F

It sits in the device's worker seat, looks at the gate every few milliseconds and does what `hold`
says: starts the program in its jail, pauses it, stops its threads, ends it. When a starting server
wants the card's memory the program is ended and the seat freed, as by any worker. It ends with its
parent, on SIGTERM and at the end of its input, and the program with it, whatever ends it.

    in   {"op": "doubt", "why": …}    its watts say that it goes on
    out  {"event": "ready", "hasher": …}   {"event": "refused", "reason": …}   {"event": "released"}
         {"event": "phase", "phase": …, "since_s": boot clock, "why": …,
          "contained": whether the kernel ends all of it; null until that is known}
         {"event": "summary", "hashrate_h_per_s": …, "accepted": …, "rejected": …}
"""

import argparse
import json
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wattshift_cluster.agent.external.hold import Move, Phase, Seen, Terms, next_move
from wattshift_cluster.agent.external.miners import MINERS, Ask, MinerRow
from wattshift_cluster.agent.external.orders import Orders, OrdersInvalid
from wattshift_cluster.agent.external.prison import Prison
from wattshift_cluster.agent.external.talk import ProgramSilent, Summary, ask, summary
from wattshift_cluster.agent.voice import EXIT_BROKEN, EXIT_RELEASED, EXIT_TAKEN, Voice
from wattshift_cluster.bootclock import boot_ns
from wattshift_cluster.gate import GateInvalid, SeatTaken, WorkerGate, WorkerSeat
from wattshift_cluster.process import die_with_parent

LOOK_S, REST_S = 0.005, 0.02
"""From look to look at the gate: while the program hashes, and while it does not."""

SUMMARY_S = 5.0
GONE_S = 10.0
"""A program that outlives its kill for so long hangs in a driver; the seat stays taken."""


@dataclass(slots=True)
class Word:
    """What the agent and signals have said."""

    closing: bool = False
    doubted: str | None = None

    def listen(self) -> None:
        """Follow standard input to its end."""
        # Unbuffered: a thread that waits within a buffered reader spoils the interpreter's end.
        for line in open(0, "rb", buffering=0, closefd=False):  # noqa: SIM115
            with suppress(ValueError, TypeError, AttributeError):
                order = json.loads(line)
                if order.get("op") == "doubt":
                    self.doubted = str(order.get("why"))[:200]
        self.closing = True


class Wrapper:
    """The loop: gate, program, pauses."""

    def __init__(
        self, gate: WorkerGate, seat: WorkerSeat, orders: Orders, word: Word, voice: Voice
    ) -> None:
        """Nothing runs before `run`."""
        self._gate, self._seat, self._orders = gate, seat, orders
        self._word, self._voice = word, voice
        self._row: MinerRow = MINERS[orders.program]
        self._terms = Terms(self._row.pause is not None, orders.keep_s, orders.quiet_s)
        self._prison = Prison(orders.command, orders.environment)
        self._phase, self._since_s = Phase.OFF, -self._terms.rest_s
        self._open, self._turned_s = False, -self._terms.quiet_s
        self._paused_itself = False
        self._asked: Future[bool] | None = None
        self._telling: Future[Summary | None] | None = None
        self._told_s = self._beaten_s = 0.0
        self._threads = ThreadPoolExecutor(2, "program")

    def run(self) -> bool:
        """Until told to end or the card's memory is wanted; whether it is. The program is gone.

        Raises:
            OSError: the agent is gone.
        """
        try:
            while True:
                now_s = boot_ns() / 1e9
                wanted = self._gate.memory_wanted()
                leaving = wanted or self._word.closing
                if leaving and self._phase is Phase.OFF:
                    return wanted
                self._look(now_s, leaving)
                hashing = self._phase in (Phase.RUNNING, Phase.PAUSING, Phase.ENDING)
                time.sleep(LOOK_S if hashing or leaving else REST_S)
        finally:
            self._prison.kill(GONE_S)
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _look(self, now_s: float, leaving: bool) -> None:
        is_open = self._gate.duty_pct(boot_ns()) > 0
        if is_open is not self._open:
            self._open, self._turned_s = is_open, now_s
        asked = self._asked
        seen = Seen(
            phase=self._phase,
            since_s=self._since_s,
            open=is_open,
            turned_s=self._turned_s,
            busy=not is_open and self._gate.leased,
            alive=self._prison.alive,
            answered=asked.result() if asked is not None and asked.done() else None,
            doubted=self._word.doubted is not None,
            wanted=leaving,
            paused_itself=self._paused_itself,
        )
        move, phase = next_move(now_s, seen, self._terms)
        ran_s = now_s - self._beaten_s if self._beaten_s else 0.0
        if self._phase in (Phase.RUNNING, Phase.PAUSING):
            self._seat.launched(int(now_s * 1e9), int(ran_s * 1e9), 0)
        self._seat.beat(int(now_s * 1e9), time.process_time_ns())
        self._beaten_s = now_s
        self._do(move)
        if phase is not self._phase:
            self._enter(phase, now_s)
        if phase is Phase.RUNNING:
            self._ask_how_it_goes(now_s)

    def _enter(self, phase: Phase, now_s: float) -> None:
        why = self._word.doubted
        if phase is Phase.OFF:
            why = self._prison.fault or f"the program ended with {self._prison.code}"
            self._paused_itself = False
        elif phase is Phase.RUNNING:
            self._paused_itself = False
        elif phase is Phase.PAUSED:
            self._paused_itself = True
        self._word.doubted = None
        self._phase, self._since_s = phase, now_s
        contained = self._prison.contained
        self._voice.say("phase", phase=phase.value, since_s=now_s, why=why, contained=contained)

    def _do(self, move: Move) -> None:
        match move:
            case Move.START:
                self._prison.start()
            case Move.PAUSE:
                assert self._row.pause is not None
                self._asked = self._threads.submit(self._say, self._row.pause)
            case Move.STOP:
                self._prison.signal(signal.SIGUSR1)
            case Move.GO_ON | Move.RESUME:
                self._prison.signal(signal.SIGUSR2)
                if move is Move.RESUME and self._row.resume is not None:
                    self._asked = self._threads.submit(self._say, self._row.resume)
            case Move.END:
                self._prison.signal(signal.SIGUSR2)  # a stopped thread could not end
                self._prison.signal(signal.SIGTERM)
            case Move.KILL:
                self._prison.kill(0.0)

    def _say(self, what: Ask) -> bool:
        try:
            ask(self._orders.api_port, what, self._orders.api_token)
        except ProgramSilent:
            return False
        return True

    def _ask_how_it_goes(self, now_s: float) -> None:
        told, telling = self._row.told, self._telling
        if telling is not None and telling.done():
            self._telling = None
            if (said := telling.result()) is not None:
                self._voice.say("summary", **asdict(said))
        if told is None or self._telling is not None or now_s - self._told_s < SUMMARY_S:
            return
        self._told_s = now_s

        def read() -> Summary | None:
            with suppress(ProgramSilent):
                return summary(self._orders.api_port, told, self._orders.api_token)
            return None

        self._telling = self._threads.submit(read)


def main(argv: list[str] | None = None) -> int:
    """Take the seat, hold the program, free the seat when the program is gone."""
    options = _options(argv)
    die_with_parent()
    word, voice = Word(), Voice(sys.stdout.buffer)
    signal.signal(signal.SIGTERM, lambda *_: setattr(word, "closing", True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    try:
        seat = WorkerSeat(options.seat)
        gate = WorkerGate(options.gate)
        orders = Orders.read(options.orders)
    except SeatTaken as taken:
        return _refuse(voice, str(taken), EXIT_TAKEN)
    except (GateInvalid, OrdersInvalid) as fault:
        return _refuse(voice, str(fault), EXIT_BROKEN)
    if gate.memory_wanted():
        return _refuse(voice, "memory is wanted by a starting server", EXIT_RELEASED)
    voice.say("ready", hasher=orders.program)
    threading.Thread(target=word.listen, daemon=True).start()
    try:
        wanted = Wrapper(gate, seat, orders, word, voice).run()
        if wanted:
            voice.say("released")
    except BrokenPipeError:
        return 0
    return EXIT_RELEASED if wanted else 0


def _refuse(voice: Voice, reason: str, code: int) -> int:
    voice.say("refused", reason=reason)
    return code


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wattshift_cluster.agent.external.wrapper")
    parser.add_argument("--gate", type=Path, required=True, help="the device's .gate file")
    parser.add_argument("--seat", type=Path, required=True, help="the device's .worker file")
    parser.add_argument("--orders", type=Path, required=True, help="what to run, mode 0600")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
