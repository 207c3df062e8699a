"""One run after another of a program in its jail, as its wrapper sees it.

The wrapper is the reaper of all that its jails leave: a run is over only when no child is left, so
a seat is never freed while something of the program still holds the card.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from wattshift_cluster.agent.external.jail import be_reaper, descendants

JAIL = (sys.executable, "-m", "wattshift_cluster.agent.external.jail", "--")
POLL_S = 0.005


class Prison:
    """At most one run at a time. This process must have no other children.

    Attributes:
        code: exit code of the last run; None before its end.
        fault: why it could not be started; None when it could.
        contained: whether the kernel ends all of it; None before its jail has said so.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Args: command: the program's; environment: all of it."""
        be_reaper()
        self.code: int | None = None
        self.fault: str | None = None
        self.contained: bool | None = None
        self._command = tuple(command)
        self._environment = dict(environment)
        self._jail: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether anything of it may still run."""
        jail = self._jail
        if jail is None:
            return not self._swept()
        self._hear(jail)
        if (code := jail.poll()) is None:
            return True
        self._over(jail, code)
        return not self._swept()

    def start(self) -> None:
        """Begin a run."""
        assert self._jail is None, "one run at a time"
        self.code = self.fault = self.contained = None
        try:
            self._jail = subprocess.Popen(
                [*JAIL, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as fault:
            self.fault = str(fault)
            return
        assert self._jail.stdout is not None
        os.set_blocking(self._jail.stdout.fileno(), False)

    def signal(self, number: signal.Signals) -> None:
        """For the program and all its children; see `jail`."""
        if self._jail is not None:
            self._jail.send_signal(number)

    def kill(self, wait_s: float) -> bool:
        """Kill all of it; whether it was gone within `wait_s`."""
        if self._jail is not None:
            self._jail.kill()
        until_s = time.monotonic() + wait_s
        while self.alive:
            if time.monotonic() >= until_s:
                return False
            time.sleep(POLL_S)
        return True

    def _hear(self, jail: subprocess.Popen[bytes]) -> None:
        if self.contained is None and jail.stdout is not None:
            with suppress(ValueError, TypeError, KeyError):
                self.contained = bool(json.loads(jail.stdout.readline() or b"x")["contained"])

    def _over(self, jail: subprocess.Popen[bytes], code: int) -> None:
        self.code, self._jail = code, None
        if jail.stdout is not None:
            jail.stdout.close()

    def _swept(self) -> bool:
        """Kill what is left and reap it; whether nothing is."""
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        while True:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
