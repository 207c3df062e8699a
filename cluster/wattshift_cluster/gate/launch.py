"""Starting a server on devices that mine: `wattshift busy -- COMMAND…`.

The devices are marked busy and handed over, the command runs as a child, and until it answers no
worker comes back. All claims are locks of this process, so they end with it however it ends; and
the child ends with it too.

    python -m wattshift_cluster.gate.launch --ready http://127.0.0.1:8000/health -- vllm serve MODEL
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattshift_cluster.errors import WattshiftError
from wattshift_cluster.gate import become
from wattshift_cluster.gate.client_gate import ClientGate
from wattshift_cluster.gate.handover import RELEASE_S, take
from wattshift_cluster.gate.layout import GATE_DIR_VARIABLE
from wattshift_cluster.gate.readiness import ReadyListener

READY_S = 1800.0
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
WATCHED = frozenset((*FORWARDED, signal.SIGCHLD))
LOADING_TURN_S, SERVING_TURN_S = 0.1, 60.0
"""How often the server is looked at; a signal, also that of its end, is answered at once."""

_SI_KERNEL = 0x80
"""si_code of a signal that a terminal sent (sigaction(2)): to the whole group, the child too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start, and how it takes its devices over.

    Attributes:
        command: the server and its arguments.
        gate_dir: where the gates lie; None when there are none.
        devices: see ClientGate; None for those of CUDA_VISIBLE_DEVICES.
        memory: whether workers must give back all memory first.
        hold_memory: whether they may not come back as long as the server lives.
        ready: URL that answers 2xx when it serves; None: it says so itself (see `ready`), or never.
        ready_s: longest wait for that, s.
        release_s: longest wait for the workers, s.
    """

    command: tuple[str, ...]
    gate_dir: Path | None
    devices: str | None = None
    memory: bool = True
    hold_memory: bool = False
    ready: str | None = None
    ready_s: float = READY_S
    release_s: float = RELEASE_S


def run(plan: Plan) -> int:
    """Run the server to its end, from the main thread; its exit code, 128 + n after signal n.

    127 says that there is no such command.

    Raises:
        NotReleased: a device was not given back in time; nothing was started.
        ConfigInvalid: the URL is none.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        with _Claim(plan) as claim:
            stopped = claim.take()
            return stopped if stopped is not None else _serve(plan, claim)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _Claim:
    """The busy mark and the wish for memory of this process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._gate: ClientGate | None = None
        if plan.gate_dir is None:
            _say(f"{GATE_DIR_VARIABLE} is not set: nothing mines here that could yield")
        else:
            self._gate = ClientGate(plan.gate_dir, plan.devices)
            self._span = self._gate.busy()

    def __enter__(self) -> "_Claim":
        if self._gate is not None:
            self._gate.want_memory(self._plan.memory)
            self._span.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None:
            self._gate.close()

    def take(self) -> int | None:
        """Wait for the hand-over; an exit code when a signal came first."""
        if self._gate is None or self._plan.gate_dir is None or not self._plan.memory:
            return None
        came: list[int] = []

        def pause(pause_s: float) -> bool:
            told = signal.sigtimedwait(WATCHED, pause_s)
            if told is not None and told.si_signo in FORWARDED:
                came.append(told.si_signo)
            return bool(came)

        took = take(self._gate, self._plan.gate_dir, within_s=self._plan.release_s, pause=pause)
        return None if took else 128 + came[0]

    def loaded(self) -> None:
        """The server answers: it marks its requests itself from now on."""
        if self._gate is not None:
            if not self._plan.hold_memory:
                self._gate.want_memory(False)
            self._span.__exit__()


def _serve(plan: Plan, claim: _Claim) -> int:
    probe = None
    if plan.ready is not None:
        from wattshift_cluster.gate.probe import Probe  # an HTTP client, for those who ask by URL

        probe = Probe(plan.ready)
    listener = ReadyListener()
    child = _start(plan.command)
    end_s = time.monotonic() + plan.ready_s
    loading = True
    while (code := child.poll()) is None:
        if loading:
            late = time.monotonic() >= end_s
            ready = listener.heard(0.0) if probe is None else probe.answered.is_set()
            if late and not ready:
                _say(f"not ready within {plan.ready_s:g} s: its devices are no longer kept free")
            if ready or late:
                loading = False
                claim.loaded()
        told = signal.sigtimedwait(WATCHED, LOADING_TURN_S if loading else SERVING_TURN_S)
        if told is not None and told.si_signo in FORWARDED and told.si_code != _SI_KERNEL:
            child.send_signal(told.si_signo)
    if probe is not None:
        probe.close()
    listener.close()
    return code if code >= 0 else 128 - code


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    way = [sys.executable, "-I", "-S", become.__file__, str(os.getpid())]
    return subprocess.Popen([*way, *command])


def main(argv: Sequence[str] | None = None) -> int:
    """The command without click, for images that have nothing but Python."""
    options = _options(argv)
    folder = os.environ.get(GATE_DIR_VARIABLE)
    plan = Plan(
        command=tuple(options.command),
        gate_dir=Path(folder) if folder else None,
        devices=options.devices,
        memory=options.memory,
        hold_memory=options.hold_memory,
        ready=options.ready,
        ready_s=options.ready_timeout,
        release_s=options.release_timeout,
    )
    try:
        return run(plan)
    except WattshiftError as fault:
        _say(str(fault))
        return fault.exit_code


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wattshift_cluster.gate.launch", description=__doc__)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--hold-memory", action="store_true")
    parser.add_argument("--devices", metavar="LIST")
    parser.add_argument("--ready", metavar="URL")
    parser.add_argument("--ready-timeout", type=float, default=READY_S, metavar="SECONDS")
    parser.add_argument("--release-timeout", type=float, default=RELEASE_S, metavar="SECONDS")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(f"wattshift busy: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
