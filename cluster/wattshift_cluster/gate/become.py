"""A script that becomes another program, which then ends with the process that started it.

    python -I -S become.py PARENT_PID COMMAND…

It stands between `launch` and its server, because what it does must not be done between fork and
exec in a process with threads. It is run as a file, so it needs no import path and imports nothing
of this package; for the same reason it repeats what `process.die_with_parent` does.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND, _NOT_STARTED = 127, 126
"""The codes by which a shell tells the same."""


def become(parent_pid: int, command: list[str]) -> int:
    """Replace this process by `command`; returns an exit code if that cannot be."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    if os.getppid() != parent_pid:  # it died before it could be asked about
        return 128 + signal.SIGTERM
    try:
        os.execvp(command[0], command)
    except OSError as fault:
        print(f"wattshift busy: {command[0]}: {fault.strerror}", file=sys.stderr)
        return _NOT_FOUND if isinstance(fault, FileNotFoundError) else _NOT_STARTED


if __name__ == "__main__":
    raise SystemExit(become(int(sys.argv[1]), sys.argv[2:]))
