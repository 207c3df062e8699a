"""All processes of one session of the kernel, ended together.

Ray gives each of its workers a process group of its own, and those of a raylet that died have no
parent who knows them. They all stay in the session of the process that started that Ray.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

LOOK_S = 0.02


def living(session: int) -> list[int]:
    """Ids of a session's processes; those that have ended and wait for their parent are none."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError):  # it ended while we looked
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] not in ("Z", "X") and int(fields[3]) == session:
                found.append(int(folder.name))
    return found


def end_all(session: int, within_s: float, spare: int | None = None) -> list[int]:
    """Kill a session's processes, and wait until they are gone. Blocks.

    Args:
        session: its id, which is the process id of its leader.
        within_s: how long to wait, s.
        spare: a process that is left alone.

    Returns:
        Ids of those that are not gone by then.
    """
    ends_s = time.monotonic() + within_s
    while left := [pid for pid in living(session) if pid != spare]:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > ends_s:
            break
        time.sleep(LOOK_S)
    return left
