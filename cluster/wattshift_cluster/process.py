"""What a child process of wattshift owes its parent: to end with it, and to end cleanly when told.

Linux tells a child of its parent's death only if the child asked for it (prctl). The signal is tied
to the *thread* that started the child, so parents start children from their main thread.
"""

import asyncio
import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

AUTOGROUP = Path("/proc/self/autogroup")
AUTOGROUP_TRIES, AUTOGROUP_AGAIN_S = 5, 0.15
"""The kernel takes one such change in a tenth of a second from ordinary users, all together."""


def die_with_parent(
    signal_number: signal.Signals = signal.SIGTERM, *, parent_pid: int | None = None
) -> None:
    """Ask the kernel to send `signal_number` to this process when its parent ends.

    Args:
        signal_number: SIGTERM lets the process reach its safe points first.
        parent_pid: the parent it should have. If it is gone already, the signal is sent at once:
            a parent that died before this call would otherwise never be noticed.

    Raises:
        OSError: the kernel refused, or this is not Linux.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if parent_pid is not None and os.getppid() != parent_pid:
        os.kill(os.getpid(), signal_number)


def give_way(nice: int) -> None:
    """Let every other process of this machine go first.

    Where the kernel groups tasks by session (autogroup, sched(7)), nice counts among those of one
    session only, and each session gets as much as any other. So this process begins a session of
    its own, and the weight of that falls as well. Without such groups nice alone does it.

    Args:
        nice: 0 to 19; a process that is nicer already stays so.
    """
    nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with suppress(PermissionError):  # it leads a group of processes, and so maybe a session
        os.setsid()
    if os.getsid(0) != os.getpid():
        return
    for _ in range(AUTOGROUP_TRIES):
        try:
            AUTOGROUP.write_text(str(nice))
        except BlockingIOError:
            time.sleep(AUTOGROUP_AGAIN_S)
        except OSError:  # a kernel without such groups
            return
        else:
            return


def stop_event() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set; a service waits for it and ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
