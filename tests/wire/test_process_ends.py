"""A child ends with its parent, and the boot clock is the kernel's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from wattshift_cluster import bootclock

CHILD = """
import time
from wattshift_cluster.process import die_with_parent
die_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Running, and not merely waiting for somebody to collect it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_child_ends_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def test_the_boot_clock_agrees_with_the_kernel() -> None:
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(bootclock.boot_s() - uptime_s) < 1.0
    assert len(bootclock.boot_id()) == 36
    assert bootclock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
