"""What a child process of wattshift owes its parent: to end with it, and to end cleanly when told.

Linux tells a child of its parent's death only if the child asked for it (prctl). The signal is tied
to the *thread* that started the child, so parents start children from their main thread.
"""

import asyncio
import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


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


def stop_event() -> asyncio.Event:
    """An event of the running loop that SIGTERM and SIGINT set; a service waits for it and ends."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
